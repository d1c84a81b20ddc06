// One life of the simulated daemon: from an opening of the files to its end, whatever that is.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "tests/sim.h"
#include "tests/sim_findings.h"

namespace bidstore {

class SimLife {
  public:
    // Opens what is on the disk; status() says what came of it.
    SimLife(const SimStoreOptions& options, std::unique_ptr<SimDisk> disk, std::uint64_t seed,
            const SimClock& clock)
        : store(options, std::move(disk), seed) {
        store.clock = clock;  // time goes on
        status_ = store.open();
        if (!status_.ok()) return;
        auto descriptor = store.pool->open_read_only();
        CHECK(descriptor.ok());
        auto mapped = PoolView::map(std::move(*descriptor));
        CHECK(mapped.ok());
        view.emplace(std::move(*mapped));
        log_began = log_end();
        chunks_began = chunks();
    }

    const Status& status() const { return status_; }
    // Fenced, or without power, or it turned somebody away: what it says from now on counts, but
    // nothing more is asked of it.
    bool down() const {
        return !status_.ok() || turned_away_ || store.disk->crashed() ||
               !store.engine->fence_reason().empty();
    }

    // Who came back was not let in: for a page that holds its session and cannot be read, or there
    // is no reason for it.
    void turned_away(const std::string& who, const Excuses& excuses, Findings& findings) {
        if (down()) return;
        const Error error = store.attach_error();
        turned_away_ = excuses.cover(error);
        if (turned_away_) return;
        findings.report(who + " that comes back is not welcome: " +
                        (error == Error::kOk ? "no answer" : std::string(error_name(error))));
    }

    // Rounds until `done`, or the end of patience; time passes faster after a while.
    bool run(const std::function<bool()>& done) {
        for (int i = 0; i < 3'000; ++i) {
            if (done()) return true;
            if (down()) return false;
            if (i > 300) store.clock.advance_ns(2'000'000);
            store.round();
        }
        return done();
    }

    std::uint64_t log_end() { return store.engine->core().commit().wal().end().position; }
    std::uint32_t chunks() { return store.engine->core().storage().space.chunk_count(); }

    SimStore store;
    std::optional<PoolView> view;
    std::uint64_t log_began = 0;     // position
    std::uint32_t chunks_began = 0;

  private:
    Status status_;
    bool turned_away_ = false;
};

}  // namespace bidstore
