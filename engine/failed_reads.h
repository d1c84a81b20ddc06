// Pages whose read failed a moment ago: whoever asks for one of them again is answered from here,
// so that neither a reader's retries nor housekeeping's keep the device, or the log of errors, busy
// with the same bad page.
//
// Who:   the page loader, on the engine thread.
// Limit: kMost pages. Where more fail within kToldAgainNs, the others are read each time, and only
//        counted (Counter::kPageReadErrors, kCorruptPages).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "shm/base.h"
#include "shm/error.h"

namespace bidstore {

class FailedReads {
  public:
    static constexpr std::uint64_t kRememberedNs = 100'000'000;  // then it is read again
    static constexpr std::uint64_t kToldAgainNs = 60'000'000'000;
    static constexpr std::size_t kMost = 1'024;

    bool empty() const { return pages_.empty(); }

    // `crc`: what the page should have; one that was written since is another one. `what` names
    // file, offset and reason. True: the failure is news to the operator.
    bool remember(PageId page, std::uint32_t crc, Error error, const std::string& what,
                  std::uint64_t now_ns) {
        if (pages_.size() >= kMost && !pages_.contains(page.value)) {
            std::erase_if(pages_, [&](const auto& each) {
                return now_ns - each.second.told_ns >= kToldAgainNs;
            });
        }
        if (pages_.size() >= kMost && !pages_.contains(page.value)) return false;
        const auto [found, first] = pages_.try_emplace(page.value);
        Failed& failed = found->second;
        failed.crc = crc;
        failed.error = error;
        failed.what = what;
        failed.since_ns = now_ns;
        if (!first && now_ns - failed.told_ns < kToldAgainNs) return false;
        failed.told_ns = now_ns;
        return true;
    }
    // kOk: nothing is known against it.
    Error error_of(PageId page, std::uint32_t crc, std::uint64_t now_ns) const {
        const auto found = pages_.find(page.value);
        if (found == pages_.end() || found->second.crc != crc) return Error::kOk;
        return now_ns - found->second.since_ns < kRememberedNs ? found->second.error : Error::kOk;
    }
    // Of a page that has an error.
    const std::string& what_of(PageId page) const { return pages_.at(page.value).what; }

  private:
    struct Failed {
        std::uint32_t crc = 0;
        Error error = Error::kOk;
        std::string what;
        std::uint64_t since_ns = 0;
        std::uint64_t told_ns = 0;
    };
    std::unordered_map<std::uint32_t, Failed> pages_;
};

}  // namespace bidstore
