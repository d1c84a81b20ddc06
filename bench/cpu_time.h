// Processor time of processes, in ns.
//
// Who: the benchmarks alone.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "bench/measure.h"

namespace bench {

// Of all threads of another process that are alive now. 0 for process 0: there is none.
inline std::uint64_t cpu_ns_of(pid_t process) {
    if (process == 0) return 0;
    std::uint64_t total = 0;
    const std::filesystem::path tasks = "/proc/" + std::to_string(process) + "/task";
    std::error_code failed;
    for (const auto& task : std::filesystem::directory_iterator(tasks, failed)) {
        std::ifstream file(task.path() / "schedstat");
        std::uint64_t ns = 0;
        if (file >> ns) total += ns;
    }
    if (failed) fail(tasks.string() + ": " + failed.message());
    return total;
}

// Of this process, of threads that ended as well.
inline std::uint64_t own_cpu_ns() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto ns = [](const timeval& time) {
        return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
               static_cast<std::uint64_t>(time.tv_usec) * 1'000;
    };
    return ns(usage.ru_utime) + ns(usage.ru_stime);
}

}  // namespace bench
