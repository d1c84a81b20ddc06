// How the benchmarks use bidstore: what fails ends the program with the library's own words.
//
// Who: the benchmarks alone; any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "bench/measure.h"
#include "clientlib/bidstore.h"
#include "shm/stats.h"

namespace bench {

inline constexpr auto kPatience = std::chrono::seconds(60);

template <class T>
T must(bidstore::Result<T> result) {
    if (!result.ok()) fail(result.failure().what);
    return std::move(*result);
}
inline void must(const bidstore::Status& status) {
    if (!status.ok()) fail(status.failure().what);
}

inline bidstore::AttachOptions attach_options(const std::string& socket, bidstore::Rights rights) {
    bidstore::AttachOptions options;
    options.socket = socket;
    options.rights = rights;
    options.wait_for_daemon = true;
    return options;
}

inline bidstore::Store attach(const std::string& socket, bidstore::Rights rights) {
    return must(bidstore::Store::attach(attach_options(socket, rights), bidstore::in(kPatience)));
}

inline std::uint64_t counter(const bidstore::Stats& stats, bidstore::Counter which) {
    return stats.counter[static_cast<std::size_t>(which)];
}
inline std::uint64_t counter(bidstore::Store& store, bidstore::Counter which) {
    return counter(must(store.stats(bidstore::in(kPatience))), which);
}

}  // namespace bench
