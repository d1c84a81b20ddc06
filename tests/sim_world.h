// A simulated world: engine, disk, clock, writers, readers and a keeper in one thread, moved on by
// one seed, step by step; and what happens to it.
//
// The same seed and number of steps give the same run to the byte. A run ends by itself after its
// steps: all faults are over, everything is answered, the daemon is restarted in one of three ways,
// and then every row, page and promise is looked at.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "tests/sim_compactor.h"
#include "tests/sim_counts.h"
#include "tests/sim_damage.h"
#include "tests/sim_faults.h"
#include "tests/sim_keeper.h"
#include "tests/sim_life.h"
#include "tests/sim_oracle.h"
#include "tests/sim_readers.h"
#include "tests/sim_writers.h"

namespace bidstore {

class SimWorld {
  public:
    // Such a seed has longer lives, too, whatever its steps: logs, rings and the file's growth come
    // far in them. 49 has no factor in common with what else goes by the number of a seed.
    static constexpr bool is_long(std::uint64_t seed) { return seed % 49 == 0; }
    static constexpr std::uint64_t steps_of(std::uint64_t seed) {
        return is_long(seed) ? 4'000 : 250;
    }

    // Null: each store has segments of its own.
    SimWorld(std::uint64_t seed, SimMemory* memory);
    ~SimWorld();

    // Called before each step, with the number of those that have begun then: the first is 1.
    using OnStep = std::function<void(std::uint64_t)>;
    // What is wrong, or an empty string.
    std::string run(std::uint64_t steps, const OnStep& on_step = nullptr);
    std::string describe() const;
    const SimCounts& counts() const { return counts_; }
    // Of the run so far: of the files that the last life left, and all that chance chose.
    std::uint64_t fingerprint() const;

  private:
    enum class End : std::uint8_t { kStop, kPower, kProcess };

    bool begin();
    void step();
    void sleep();
    void go_on();
    void stop_or_press();
    void bury_one();
    void set_clock();
    void outlast_sessions();
    void look_for_old_sessions(std::uint64_t old_us);
    void count_sessions();
    bool settle_keepers();
    void finish();
    bool read_only() const;
    void write_again();
    void tell_lies();
    void last_look();
    void look_at_rest();
    void send_too_large_again();
    void restart(End end);
    std::unique_ptr<SimDisk> after(End end);
    void look_at_fence();
    std::unique_ptr<SimDisk> after_power_loss(const SimDisk& disk);
    std::unique_ptr<SimLife> recover(std::unique_ptr<SimDisk> disk);
    enum class Start { kWell, kCutOff, kDeviceFails };
    Start plan_start(SimDisk& disk, SimStoreOptions& options, int attempt);
    void plan_cut(SimDisk& disk, SimStoreOptions& options);
    bool may_go_on(const SimLife& life, Start start);
    void adopt();
    void look_for_hostile();
    void look_beside();
    void count();
    std::string verify();
    std::uint64_t pick(std::uint64_t below) { return random_() % below; }

    std::uint64_t seed_;
    Random random_;
    SimStoreOptions options_;
    std::uint32_t keys_;
    Findings findings_;
    Excuses excuses_;
    SimCounts counts_;
    SimFaults faults_;
    Oracle oracle_;
    SimWriters writers_;
    SimKeeper keeper_;
    SimCompactor compactor_;
    SimReaders readers_;
    SimDamage damage_;
    SimClock clock_;
    std::uint64_t sessions_ = 0;      // old ones that are there still, at most
    bool sessions_grow_old_ = false;  // in this life: those of the dead may be forgotten
    std::unique_ptr<SimLife> life_;
    SimDamage::Files damaged_;  // what a fault of the last end left, beside what goes on
};

}  // namespace bidstore
