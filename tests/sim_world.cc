#include "tests/sim_world.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "shm/stats.h"
#include "tests/sim_online.h"
#include "tests/sim_rest.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kFillRows = 5;  // in a transaction
constexpr std::uint64_t kLongLives = 8;  // so much rarer is what ends a life in a long run
constexpr std::uint32_t kRoomyFrames = 2'000;
constexpr std::uint64_t kRoomyJournalBytes = 16u << 20;
constexpr int kRecoveryCrashesMax = 3;
constexpr std::uint64_t kStepsPerLook = 50;
constexpr std::uint64_t kBurialsMax = 19;    // each takes the slots of another client
constexpr std::uint32_t kOldSessions = 200;  // so many that their tree has an inner node
constexpr int kWalksMax = 3;
constexpr std::uint64_t kWalkPauseNs = 601'000'000'000;  // between two walks over all sessions

FaultKind kind_of(std::uint64_t seed) {
    // Crashes twice as often as the others.
    constexpr FaultKind kKinds[] = {
        FaultKind::kNone,       FaultKind::kCrashes,  FaultKind::kWriteErrors, FaultKind::kCrashes,
        FaultKind::kReadErrors, FaultKind::kFullDisk, FaultKind::kRot,         FaultKind::kAll,
        FaultKind::kLies,       FaultKind::kAll};
    return kKinds[seed % std::size(kKinds)];
}

SimStoreOptions options_of(std::uint64_t seed, Random& random) {
    SimStoreOptions options = small_store();
    options.frames = static_cast<std::uint32_t>(120 + random() % 220);
    options.pages = 16 * kChunkPages;
    const std::uint64_t intervals[] = {100'000, 1'000'000, 10'000'000, 30'000'000'000};
    EngineOptions& engine = options.engine;
    engine.checkpoint_interval_ns = intervals[random() % 4];
    engine.checkpoint_slice = random() % 2 == 0 ? 1 : 16;
    engine.group_commit_interval_ns = random() % 4 == 0 ? 50'000 : 0;
    engine.journal_bytes = random() % 2 == 0 ? 4u << 20 : 1u << 20;
    engine.max_snapshot_age_ns = random() % 3 == 0 ? 50'000'000 : 5'000'000'000;
    if (seed / 10 % 3 != 2) return options;
    // Shorter segments than a host has, so that what is replayed often goes on in the next one.
    engine.log_segment_bytes /= 8;
    engine.log_segment_count *= 8;
    return options;
}

}  // namespace

SimWorld::SimWorld(std::uint64_t seed, SimMemory* memory)
    : seed_(seed),
      random_(seed * 0x9e3779b97f4a7c15),
      options_(options_of(seed, random_)),
      keys_(static_cast<std::uint32_t>(100 + random_() % 180)),
      faults_(random_, excuses_, counts_, kind_of(seed), is_long(seed) ? kLongLives : 1),
      oracle_(findings_, excuses_, SimWriters::kWriters),
      writers_(random_, findings_, counts_, oracle_, keys_),
      keeper_(random_, findings_, excuses_, counts_),
      compactor_(random_, findings_, excuses_, counts_),
      readers_(random_, findings_, excuses_, counts_, oracle_, keeper_, writers_.tables(), keys_),
      damage_(random_, findings_, counts_, oracle_, writers_, keeper_) {
    options_.memory = memory;
}

// What looks into the store goes before it.
SimWorld::~SimWorld() { readers_.lose(); }

std::string SimWorld::describe() const {
    return std::string(fault_name(faults_.kind())) + ", " + std::to_string(options_.frames) +
           " frames, " + std::to_string(keys_) + " keys";
}

std::uint64_t SimWorld::fingerprint() const {
    std::uint32_t crc = 0;
    for (std::uint32_t i = 0; life_ && i < kStoreFileCount; ++i) {
        const auto file = static_cast<StoreFile>(i);
        const auto size = life_->store.disk->size_bytes(file);
        if (!size) continue;  // a dead disk
        const std::vector<std::byte> bytes = life_->store.disk->peek(file, 0, *size);
        crc = crc32c(bytes.data(), bytes.size(), crc32c(&*size, sizeof *size, crc));
    }
    Random next = random_;
    return (next() >> 32 << 32) | crc;
}

std::string SimWorld::run(std::uint64_t steps, const OnStep& on_step) {
    if (!begin()) {
        findings_.report("a new store does not come up");
        return findings_.first();
    }
    for (std::uint64_t i = 0; i < steps && !findings_.any(); ++i) {
        if (on_step) on_step(i + 1);
        step();
        ++counts_[SimCount::kSteps];
    }
    if (!findings_.any()) finish();
    return findings_.first();
}

bool SimWorld::begin() {
    SimDiskOptions disk;
    disk.seed = random_();
    disk.page_cache = pick(2) == 0;
    life_ = std::make_unique<SimLife>(options_, std::make_unique<SimDisk>(disk), random_(), clock_);
    ++counts_[SimCount::kLives];
    if (!life_->status().ok() || !keeper_.connect(*life_)) return false;
    std::array<TableId, kTables> tables{};
    if (!keeper_.create_shared(*life_, tables)) return false;
    writers_.use_tables(tables);
    if (!writers_.connect(*life_) || !readers_.connect(*life_)) return false;
    if (!compactor_.connect(*life_)) return false;
    for (std::uint32_t id = 0; id < keys_; id += kFillRows) {
        writers_.fill(id, std::min(kFillRows, keys_ - id));
        if (!writers_.settle(*life_)) return false;
    }
    if (!keeper_.retain_shared(*life_, tables[kRetained])) return false;
    writers_.submit_witness();  // durable, and the floor before it
    if (!writers_.settle(*life_)) return false;
    const bool many_sessions = seed_ / 10 % 4 == 1;
    const Bytes nobodys = key_of(0, ~std::uint32_t{0});
    if (many_sessions && !life_->store.leave_sessions(kOldSessions, tables[0], nobodys)) {
        return false;
    }
    sessions_ = many_sessions ? kOldSessions : 0;
    faults_.watch(life_->store);
    return true;
}

// ---- steps ----

void SimWorld::sleep() {
    constexpr std::uint64_t kNaps[] = {1'000'000, 30'000'000, 400'000'000, 2'500'000'000};
    const std::uint64_t nap = 1 + pick(kNaps[pick(4)]);
    for (int i = 0; i < 10 && !life_->down(); ++i) {
        life_->store.clock.advance_ns(nap / 10);
        life_->store.round();
    }
}

void SimWorld::step() {
    faults_.plan(*life_, keeper_.load_ends());
    const std::uint64_t choice = pick(100);
    if (choice < 43) {
        writers_.submit();
        if (is_long(seed_)) {
            life_->store.round();  // a batch of its own, so that the log goes further
            writers_.collect();
            writers_.submit();
        }
    } else if (choice < 45) {
        set_clock();
    } else if (choice == 45) {
        bury_one();
    } else if (choice < 54) {
        readers_.begin(*life_);
    } else if (choice < 76) {
        readers_.read(*life_, [this] { go_on(); });
    } else if (choice < 82) {
        readers_.end_one();
    } else if (choice < 93) {
        keeper_.act(*life_, compactor_.compaction());
    } else if (choice < 96) {
        sleep();
    } else if (choice == 96) {
        stop_or_press();
    } else if (choice == 97) {
        const std::uint64_t buried = counts_[SimCount::kDeaths] + counts_[SimCount::kTakeOvers];
        const bool may = buried < kBurialsMax && !sessions_grow_old_;
        if (may && writers_.settle(*life_)) static_cast<void>(writers_.bury_one(*life_, excuses_));
    } else if (choice == 98) {
        static_cast<void>(writers_.settle(*life_));
    } else if (pick(is_long(seed_) ? 2 * kLongLives : 2) == 0) {
        return restart(static_cast<End>(pick(3)));
    }
    compactor_.act(*life_, keeper_.compaction(), keeper_.changes());
    life_->store.round();
    writers_.collect();
    keeper_.collect(*life_);
    look_beside();
    const bool looks = faults_.rotten() && pick(20) == 0;  // what a start makes of it
    if (looks && !life_->down() && !findings_.any()) return restart(static_cast<End>(pick(3)));
    if (life_->down() && !findings_.any()) restart(pick(2) == 0 ? End::kPower : End::kProcess);
}

// What the others do in the middle of something.
void SimWorld::go_on() {
    writers_.submit();
    life_->store.round();
    writers_.collect();
}

// The host's clock is set: back by little, for a floor stands still for so long; ahead by whatever.
// A change of a retention that is under way would not know how far the one before it came.
void SimWorld::set_clock() {
    constexpr std::uint64_t kAheadUs[] = {3'000'000, 90'000'000, 3'600'000'000};
    constexpr std::uint64_t kBackUs = 5'000'000;
    if (keeper_.changes_retention()) return;
    SimClock& clock = life_->store.clock;
    const std::uint64_t now_us = clock.wall_us();
    if (pick(3) == 0) {
        ++counts_[SimCount::kClockBack];
        return clock.set_wall_us(now_us - 1 - pick(kBackUs));
    }
    ++counts_[SimCount::kClockAhead];
    if (pick(6) != 0) return clock.set_wall_us(now_us + 1 + pick(kAheadUs[pick(3)]));
    ++counts_[SimCount::kClockAWeekAhead];
    clock.set_wall_us(now_us + options_.engine.session_age_us + pick(kAheadUs[2]));
    if (pick(2) == 0 && keeper_.idle()) outlast_sessions();
}

// Until the daemon has looked for sessions that are too old. Those of clients that are there stay.
void SimWorld::outlast_sessions() {
    sessions_grow_old_ = true;
    compactor_.stop(*life_, keeper_.compaction());
    const std::uint64_t old_us = life_->store.clock.wall_us() - options_.engine.session_age_us;
    for (int i = 0; i < 140 && !life_->down(); ++i) {
        if (i < 125) life_->store.clock.advance_ns(5'000'000'000);
        life_->store.round();
        writers_.collect();
    }
    look_for_old_sessions(old_us);
}

// They are gone, where nothing is in the way; a walk over them that was under way before they were
// old is followed by another one.
void SimWorld::look_for_old_sessions(std::uint64_t old_us) {
    const auto disturbed = [&] {
        return life_->down() || excuses_.unreadable || excuses_.damage || excuses_.full;
    };
    std::optional<std::uint32_t> left;
    for (int walks = 0; walks < kWalksMax && !disturbed(); ++walks) {
        if (life_->run([&] { return (left = life_->store.silent_sessions(old_us)) == 0; })) {
            ++counts_[SimCount::kSessionsOutlasted];
            return;
        }
        life_->store.clock.advance_ns(kWalkPauseNs);
    }
    if (disturbed()) return;
    findings_.report(left ? std::to_string(*left) + " sessions that are too old are not forgotten"
                          : "the table of sessions is not to be read");
}

// Before their time none is forgotten.
void SimWorld::count_sessions() {
    Catalog& catalog = *life_->store.engine->core().storage().catalog;
    const std::uint64_t left =
        std::min<std::uint64_t>(sessions_, life_->store.rows(catalog.sessions().id).size());
    const std::uint64_t lived_us = life_->store.clock.wall_most_us() - SimClock::kBeginUs;
    counts_[SimCount::kSessionsForgotten] += sessions_ - left;
    if (left < sessions_ && lived_us < options_.engine.session_age_us) {
        findings_.report(std::to_string(sessions_ - left) + " sessions were forgotten too early");
    }
    sessions_ = left;
}

void SimWorld::bury_one() {
    switch (pick(sessions_grow_old_ ? 3 : 5)) {
        case 0:
            return compactor_.bury(*life_);
        case 1:
        case 2:
            return readers_.bury_one(*life_);
        default:
            return keeper_.bury(*life_, [this] { go_on(); });
    }
}

// Threads that stop somewhere, or ask for more than the pool holds.
void SimWorld::stop_or_press() {
    switch (pick(4)) {
        case 0:
            return readers_.stop_announced(*life_);
        case 1:
            return static_cast<void>(writers_.stop_one(*life_));
        default:
            return readers_.ask_ahead(*life_);
    }
}

// ---- ends and beginnings ----

std::unique_ptr<SimDisk> SimWorld::after(End end) {
    SimDisk& disk = *life_->store.disk;
    constexpr SimCount kEnds[] = {SimCount::kStops, SimCount::kPowerLosses,
                                  SimCount::kProcessDeaths};
    ++counts_[kEnds[static_cast<std::uint32_t>(end)]];
    switch (end) {
        case End::kStop:
            if (life_->store.stop()) {
                // As the disk of a process does at its end.
                disk.serve_at_once();
                while (disk.in_flight() > 0) disk.poll(0);
                return disk.clone(random_());
            }
            if (!life_->down()) {
                findings_.report("the daemon does not stop");
                return nullptr;
            }
            return after_power_loss(disk);
        case End::kPower:
            return after_power_loss(disk);
        case End::kProcess:
            return disk.process_crash(random_());
    }
    return nullptr;
}

// A daemon goes down for a write or a sync that failed: not for a read, nor for want of room.
void SimWorld::look_at_fence() {
    const std::string reason = life_->store.engine->fence_reason();
    const bool failed = faults_.take_writes_failed() > 0 || life_->store.disk->crashed();
    if (reason.empty() || failed || excuses_.damage) return;
    findings_.report("the daemon fenced itself without a reason: " + reason);
}

std::unique_ptr<SimDisk> SimWorld::after_power_loss(const SimDisk& disk) {
    const std::uint64_t seed = random_();
    if (pick(3) == 0) damaged_.damaged = disk.misdirected_power_loss(seed);
    damaged_.stray = damaged_.damaged != nullptr;
    counts_[SimCount::kMisdirectedUnsynced] += damaged_.stray;
    return disk.power_loss(seed);
}

void SimWorld::restart(End end) {
    count();
    const std::uint64_t seed = random_();
    if (end == End::kStop) readers_.end_all();
    std::unique_ptr<SimDisk> disk = after(end);
    if (!disk) return;
    look_at_fence();
    // What was answered before the end counts.
    writers_.collect();
    keeper_.collect(*life_);
    readers_.lose();
    writers_.lose();
    keeper_.lose();
    compactor_.lose();
    clock_ = life_->store.clock;
    sessions_grow_old_ = false;
    look_for_hostile();
    if (faults_.rotten()) damaged_ = {disk->clone(seed), nullptr, false};
    faults_.mend(*disk);
    if (damaged_.damaged) damaged_.sound = disk->clone(seed);
    life_.reset();
    if (findings_.any()) return;
    life_ = recover(std::move(disk));
    if (findings_.any()) return;
    adopt();
    if (damaged_.damaged && !findings_.any()) {
        damage_.look_at(std::exchange(damaged_, {}), life_->store.engine->recovery().recovered_csn,
                        options_, clock_);
    }
}

// Opens the files, however often that is cut off, or fails.
std::unique_ptr<SimLife> SimWorld::recover(std::unique_ptr<SimDisk> disk) {
    for (int attempt = 0;; ++attempt) {
        SimStoreOptions options = options_;
        const Start start = plan_start(*disk, options, attempt);
        auto life = std::make_unique<SimLife>(options, std::move(disk), random_(), clock_);
        ++counts_[SimCount::kLives];
        if (!may_go_on(*life, start)) return life;
        if (start == Start::kWell) return life;
        life->store.disk->crash_now();
        counts_[SimCount::kTakenForClean] += life->store.disk->taken_for_clean();
        clock_ = life->store.clock;
        disk = pick(2) == 0 ? life->store.disk->power_loss(random_())
                            : life->store.disk->process_crash(random_());
        life->store.engine.reset();
    }
}

SimWorld::Start SimWorld::plan_start(SimDisk& disk, SimStoreOptions& options, int attempt) {
    if (attempt >= kRecoveryCrashesMax) return Start::kWell;
    const std::uint64_t one_in = attempt == 0 ? 3 : 2;
    if (faults_.crashes() && pick(one_in) == 0) {
        plan_cut(disk, options);
        return Start::kCutOff;
    }
    if (!faults_.fails_starts() || pick(one_in) != 0) return Start::kWell;
    // A small pool has replay make checkpoints in between, and they fail, too.
    if (pick(2) == 0) options.frames = static_cast<std::uint32_t>(20 + pick(60));
    faults_.fail_start(disk, 1 + pick(pick(2) == 0 ? 20 : 300));
    return Start::kDeviceFails;
}

// False: it does not open, and nothing excuses that.
bool SimWorld::may_go_on(const SimLife& life, Start start) {
    counts_[SimCount::kRecoveryCrashes] += start == Start::kCutOff;
    if (life.status().ok() || life.store.disk->crashed()) return true;
    const Error error = life.status().error();
    const std::string& what = life.status().failure().what;
    const bool too_small = error == Error::kTooLarge || error == Error::kInvalid;
    if (start != Start::kWell && too_small) return true;
    if (start == Start::kDeviceFails && faults_.start_failed()) {
        ++counts_[SimCount::kFailedStarts];
        const bool said = error == Error::kIoError && what.find("errno 5") != std::string::npos;
        if (said) return true;
        findings_.report("a device that fails at a start is not said to: " + what);
        return false;
    }
    findings_.report("the store does not open: " + what);
    return false;
}

// A recovery that ends too soon: somewhere, or in a pool so small that replay has to make
// checkpoints in between, or finds it too small; most often in the middle of such a one.
void SimWorld::plan_cut(SimDisk& disk, SimStoreOptions& options) {
    disk.crash_at(1 + pick(pick(2) == 0 ? 60 : 1'000));
    if (pick(4) == 0) return;
    options.frames = static_cast<std::uint32_t>(20 + pick(60));
    disk.crash_at(0);
    const std::uint64_t behind = 1 + pick(pick(2) == 0 ? 40 : 300);
    disk.observe([this, behind, &disk, begun = false](std::uint64_t step, SimStep kind) mutable {
        if (kind != SimStep::kSubmitWrite || begun) return;
        if (disk.submitting()->file != StoreFile::kJournal) return;
        begun = true;
        ++counts_[SimCount::kReplayCheckpoints];
        disk.crash_at(step + behind);
    });
}

// The oracle learns what is left, and everybody comes back.
void SimWorld::adopt() {
    const std::string broken = verify();
    if (!broken.empty()) return findings_.report("after recovery: " + broken);
    if (!writers_.connect(*life_) || !keeper_.connect(*life_)) {
        return findings_.report("a client that comes back is not welcome");
    }
    // A table may be larger than the pool, and nobody else makes room now. What that takes is
    // nobody's but a checkpoint's.
    const Checkpointer& checkpointer = *life_->store.engine->core().storage().checkpointer;
    life_->store.run_until([&] { return !checkpointer.running() || life_->down(); });
    if (life_->down()) return;
    bool& makes_room = life_->store.engine->core().storage().recovering;
    makes_room = true;
    std::array<TableRows, kTables> rows;
    for (std::uint32_t table = 0; table < kTables; ++table) {
        rows[table] = life_->store.rows(writers_.tables()[table]);
    }
    std::int64_t witness = 0;
    const auto row = rows[kOrder].find(key_of(kOrder, 0));
    if (row != rows[kOrder].end()) std::memcpy(&witness, row->second.data(), sizeof witness);
    count_sessions();
    oracle_.recovered(witness, rows, writers_.decided(), writers_.unknown(*life_));
    if (findings_.any()) return;
    keeper_.recovered(*life_);
    readers_.recovered(*life_);
    makes_room = false;
    if (findings_.any()) return;
    excuses_.end_damage();
    writers_.send_again();
    keeper_.send_again();
    if (!compactor_.connect(*life_)) findings_.report("a compactor is not welcome after recovery");
    if (!readers_.connect(*life_)) findings_.report("a reader is not welcome after recovery");
    faults_.watch(life_->store);
}

void SimWorld::look_for_hostile() {
    if (life_->store.clients.hostile_clients != 0) findings_.report("a client was called hostile");
}

// Chance is not asked, so that each seed is what it would be without.
void SimWorld::look_beside() {
    if (counts_[SimCount::kSteps] % kStepsPerLook != 0) return;
    if (life_->down() || faults_.rotten() || excuses_.damage || excuses_.unreadable) return;
    const std::optional<std::string> broken = verify_beside(*life_->store.disk);
    if (!broken) return;
    ++counts_[SimCount::kLooksBeside];
    if (!broken->empty()) findings_.report("beside the daemon: " + *broken);
}

std::string SimWorld::verify() { return life_->store.verify(); }

// ---- the end ----

void SimWorld::finish() {
    if (faults_.kind() == FaultKind::kLies) return tell_lies();
    faults_.end(*life_->store.disk);
    if (!life_->down()) {
        static_cast<void>(writers_.settle(*life_));
        if (!life_->down()) static_cast<void>(settle_keepers());
    }
    readers_.end_all();
    if (excuses_.full && !life_->down()) write_again();
    if (findings_.any()) return;
    const auto end = static_cast<End>(seed_ / 10 % 3);
    // What the life lost is there again in the next one. Before a crash it would leave little to
    // replay; a stop leaves nothing in any case.
    if (end == End::kStop && !life_->down()) look_at_rest();
    if (findings_.any()) return;
    restart(end);
    if (findings_.any()) return;
    faults_.end(*life_->store.disk);
    last_look();
}

// No fault is left, all is answered, and no snapshot is held.
void SimWorld::look_at_rest() {
    // A write that failed before the faults ended fences when it is told, which may be only now.
    const Checkpointer& checkpointer = *life_->store.engine->core().storage().checkpointer;
    life_->run([&] { return !checkpointer.running(); });
    if (life_->down()) return;
    const std::string stays = come_to_rest(life_->store);
    if (!stays.empty()) findings_.report("it does not come to rest: " + stays);
}

bool SimWorld::settle_keepers() {
    return keeper_.settle(*life_, compactor_.compaction()) &&
           compactor_.settle(*life_, keeper_.compaction());
}

bool SimWorld::read_only() const {
    return life_->store.pool->header().engine.mode.load() == EngineMode::kReadOnly;
}

// There is room again: writes return by themselves, within some seconds.
void SimWorld::write_again() {
    for (int i = 0; i < 40 && !life_->down(); ++i) {
        life_->store.clock.advance_ns(50'000'000);
        life_->store.round();
        if (i % 10 == 0) writers_.submit();
        writers_.collect();
    }
    if (!writers_.settle(*life_)) return;
    // It says so, too: at the limit of its file alone it may be full all the same.
    const Space& space = life_->store.engine->core().storage().space;
    if (!life_->run([&] { return !read_only() || space.at_limit(); })) {
        if (!life_->down()) findings_.report("there is room again, and the store stays read-only");
        return;
    }
    excuses_.full = false;
    for (int i = 0; i < 4; ++i) writers_.submit();
    static_cast<void>(writers_.settle(*life_));
}

// Nothing is wrong any more, and nothing is in the way.
void SimWorld::last_look() {
    if (!writers_.settle(*life_) || !settle_keepers()) {
        if (life_->down()) findings_.report("the daemon went down without a fault");
        return;
    }
    excuses_ = {};
    for (int i = 0; i < 3; ++i) writers_.submit();
    // What was accepted and is not durable yet, is so with the durable write that comes behind it.
    const bool settled = writers_.settle(*life_);
    if (settled) writers_.submit_witness();
    if (!settled || !writers_.settle(*life_)) {
        if (life_->down()) findings_.report("the daemon went down without a fault");
        return;
    }
    readers_.read_everything(*life_);
    if (findings_.any()) return;
    const std::string broken = verify();
    if (!broken.empty()) return findings_.report("at the end: " + broken);
    life_->store.engine->core().storage().pool.check_invariants();
    look_for_hostile();
    readers_.end_all();
    life_->store.disconnect_all();
    look_at_rest();
    if (findings_.any()) return;
    count();
    if (!life_->store.stop()) return findings_.report("the daemon does not stop at the end");
    send_too_large_again();
}

// What the pool, or the journal, had no room for, a larger one has, with nothing else in it.
void SimWorld::send_too_large_again() {
    std::vector<std::vector<std::byte>> refused = writers_.too_large();
    const auto of_keeper = keeper_.too_large();
    refused.insert(refused.end(), of_keeper.begin(), of_keeper.end());
    const auto& load = keeper_.load_too_large();
    if (refused.empty() && !load) return;
    SimDisk& disk = *life_->store.disk;
    while (disk.in_flight() > 0) disk.poll(0);
    SimStoreOptions roomy = options_;
    roomy.memory = nullptr;  // none of the others is so large
    roomy.frames = kRoomyFrames;
    roomy.engine.journal_bytes = kRoomyJournalBytes;
    SimLife life(roomy, disk.clone(random_()), random_(), clock_);
    if (!life.status().ok()) {
        return findings_.report("a roomy pool does not open: " + life.status().failure().what);
    }
    SimClient& client = life.store.connect();
    for (const std::vector<std::byte>& bytes : refused) {
        const auto token = client.submit(bytes);
        std::optional<Answer> answer;
        if (token) life.run([&] { return (answer = client.answer(*token)).has_value(); });
        ++counts_[SimCount::kTooLargeAgain];
        if (!answer) return findings_.report("a roomy pool does not answer");
        // The segments of the log are those of the files, whatever the pool is.
        const bool log = answer->failed_operation == kLimitLog;
        if (answer->error == Error::kTooLarge && !log) {
            return findings_.report("a write that was refused with too_large is so in a pool of " +
                                    std::to_string(kRoomyFrames) + " frames, too");
        }
    }
    if (!load) return;
    ++counts_[SimCount::kTooLargeAgain];
    LoadClient again(client, load->schema, *load->rows);
    const bool done = life.run([&] { return again.step(); });
    if (!done || again.error() == Error::kTooLarge) {
        findings_.report("a load that was refused with too_large is so in a roomy pool, too");
    }
}

// The disk loses and misplaces writes, and says that all is well. That is found, never undone.
void SimWorld::tell_lies() {
    if (!life_->down() && !writers_.settle(*life_)) return;
    if (!settle_keepers()) return;
    faults_.begin_lies();
    const bool loads = pick(2) == 0;
    const auto lies = [this] {
        return counts_[SimCount::kWritesLost] + counts_[SimCount::kWritesMisdirected];
    };
    const auto compacts = [this] {
        return keeper_.compaction().running() || compactor_.compaction().running();
    };
    for (int i = 0; i < 60 && !life_->down() && !findings_.any(); ++i) {
        pick(3) == 0 ? readers_.begin(*life_) : writers_.submit();
        if (pick(3) == 0) readers_.read(*life_, [] {});
        loads ? keeper_.load(*life_, compactor_.compaction())
              : keeper_.act(*life_, compactor_.compaction());
        compactor_.act(*life_, keeper_.compaction(), keeper_.changes());
        const std::uint64_t before = lies();
        for (std::uint64_t rounds = 1 + pick(6); rounds > 0; --rounds) {
            life_->store.clock.advance_ns(pick(1'000'000));
            life_->store.round();
        }
        counts_[SimCount::kLiesInLoads] += keeper_.loads() ? lies() - before : 0;
        counts_[SimCount::kLiesInCompactions] += compacts() ? lies() - before : 0;
        writers_.collect();
        keeper_.collect(*life_);
    }
    // What is under way comes to its end, or is cut off.
    if (pick(3) != 0 && !settle_keepers()) return;
    if (life_->down() || !writers_.settle(*life_)) return;
    writers_.submit_witness();
    if (!writers_.settle(*life_)) return;
    readers_.lose();
    clock_ = life_->store.clock;
    auto disk = pick(2) == 0 ? life_->store.disk->process_crash(random_())
                             : life_->store.disk->power_loss(random_());
    writers_.lose();
    keeper_.lose();
    compactor_.lose();
    life_.reset();
    damage_.look_at_lies(std::move(disk), faults_.log_blocks_astray(), options_, clock_);
}

void SimWorld::count() {
    const auto counted = [&](Counter counter) {
        return counter_value(life_->store.pool->stats(), counter);
    };
    counts_[SimCount::kCheckpoints] += counted(Counter::kCheckpoints);
    counts_[SimCount::kJournalPages] += counted(Counter::kJournalPages);
    counts_[SimCount::kEvictions] += counted(Counter::kEvictions);
    counts_[SimCount::kFloorsMoved] += counted(Counter::kFloorsMoved);
    counts_[SimCount::kPagesExpired] += counted(Counter::kPagesExpired);
    counts_[SimCount::kPagesMoved] += counted(Counter::kPagesMoved);
    counts_[SimCount::kHoles] += life_->store.disk->holes(StoreFile::kData);
    counts_[SimCount::kTakenForClean] += life_->store.disk->taken_for_clean();
    counts_[SimCount::kReadOnly] += std::count_if(
        life_->store.log_lines.begin(), life_->store.log_lines.end(),
        [](const std::string& line) { return line.find("read-only: ") != std::string::npos; });
    counts_[SimCount::kPartsTransferred] += life_->store.disk->parts();
    counts_[SimCount::kLivesWithSlowedWriters] += counted(Counter::kWritersSlowedNs) > 0;
    counts_[SimCount::kFences] += counted(Counter::kFenced);
    const std::uint64_t log_bytes =
        life_->store.engine->core().commit().wal().shape().ring_bytes();
    counts_[SimCount::kLogLaps] += life_->log_end() / log_bytes - life_->log_began / log_bytes;
    counts_[SimCount::kRingLaps] += life_->store.ring_laps();
    const std::uint32_t chunks = life_->chunks();
    counts_[SimCount::kChunksGrown] += chunks - std::min(chunks, life_->chunks_began);
}

}  // namespace bidstore
