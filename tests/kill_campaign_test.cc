// The daemon is killed many times in a row, under load: at random moments, and at every operation
// on its files (FailpointDisk), those of its recoveries included; its clients are killed and
// stopped beside it. After each kill the next life's content is held against notes that were kept
// outside of the store (kill_oracle.h).
//
// BIDSTORE_KILLS=N kills N times instead of 30, from kKillsForAll on with the demand that each step
// is reached at each moment; BIDSTORE_KILL_SEED=N repeats the choices of a failure: what is killed
// where, and when. What the processes have done by then is not repeated, nor what follows from it:
// at which operation a step is looked for that did not come before (kill_plan.h).

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include "clientlib/compact.h"
#include "clientlib/load.h"
#include "engine/format.h"
#include "tests/failpoint_disk.h"
#include "tests/full_place.h"
#include "tests/kill_oracle.h"
#include "tests/kill_plan.h"
#include "tests/shared_memory.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kInFlight = 4;  // of a writer's writes
constexpr std::uint32_t kWritersPerProcess = 2;
constexpr std::uint64_t kMiB = 1u << 20;
constexpr std::uint64_t kRecoveryLogBytes = 4 * kMiB;
constexpr std::uint64_t kJournalBytes = 4 * kMiB;  // at first
constexpr std::uint64_t kLivesForJournal = 12;
constexpr std::uint64_t kLivesOfLogWrites = 10;
constexpr std::uint64_t kKillsForAll = 800;  // reach each step at each moment
// Far more than a recovery takes on a busy host with a slow disk: what is over it waits for
// something, or reads what it should not.
constexpr std::uint64_t kRecoveryMostNs = 10'000'000'000;
constexpr std::uint64_t kRecoveryNsPerByte = 500;  // 2 MB/s

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// How long a client waits for anything. Lives that end in their recovery, one after the other, and
// files that are verified in between are no fault of the daemon that answers in the end; where one
// goes on, the test demands that the clients get on (live_under_audit).
Deadline in_the_end() { return in(10min); }

// ---- processes ----------------------------------------------------------------------------------

// Writes until told to stop; every write must be answered as it ought to be. Says what was not.
class CampaignWriter {
  public:
    CampaignWriter(Store& store, KillNotes& notes, std::uint32_t writer)
        : store_(store), notes_(notes), mine_(notes.writers[writer]), writer_(writer) {}

    std::string run() {
        const KillTables tables(store_);
        for (std::uint64_t number = 0; !notes_.stop; ++number) {
            if (number % 16 == 9) {
                send(refused_write(tables, writer_), Error::kPrecondition);
            }
            if (number % 8 == 5) send_relaxed(tables, number / 8 + 1);
            mine_.submitted = number + 1;
            send(numbered_write(tables, writer_, number), Error::kOk, number + 1);
            settle(kInFlight);
            if (!wrong_.empty()) return wrong_;
        }
        settle(0);
        return wrong_;
    }

  private:
    struct Flying {
        Pending pending;
        Error expected = Error::kOk;
        std::uint64_t acknowledges = 0;  // numbers below it; 0: none
    };

    void send(const Transaction& write, Error expected, std::uint64_t acknowledges = 0,
              Durability durability = Durability::kDurable) {
        auto pending = store_.submit(write, in_the_end(), durability);
        if (!pending.ok()) return fail("submit", pending.failure());
        flying_.push_back({std::move(*pending), expected, acknowledges});
    }
    // Its answer says nothing of what a crash leaves.
    void send_relaxed(const KillTables& tables, std::uint64_t number) {
        mine_.relaxed = number;
        Transaction write;
        write.put(tables.counted, {.id = kRelaxedIds + writer_,
                                   .amount = static_cast<std::int64_t>(number),
                                   .round = number});
        send(write, Error::kOk, 0, Durability::kRelaxed);
    }
    void settle(std::size_t left) {
        while (flying_.size() > left && wrong_.empty()) {
            Flying& oldest = flying_.front();
            const auto result = oldest.pending.wait(in_the_end());
            if (result.error() != oldest.expected) {
                if (result.ok())
                    wrong_ = "a write that had to be refused was not";
                else
                    fail("wait", result.failure());
                return;
            }
            if (oldest.expected != Error::kOk) ++notes_.refused;
            if (oldest.acknowledges != 0) mine_.acknowledged = oldest.acknowledges;
            flying_.pop_front();
        }
    }
    void fail(const char* what, const Failure& failure) {
        wrong_ =
            std::string(what) + ": " + std::string(error_name(failure.code)) + ": " + failure.what;
    }

    Store& store_;
    KillNotes& notes_;
    KillNotes::Writer& mine_;
    std::uint32_t writer_;
    std::deque<Flying> flying_;
    std::string wrong_;
};

int writer_process(const AttachOptions& options, KillNotes& notes, std::uint32_t first) {
    Store store = need(Store::attach(options, in_the_end()));
    std::array<std::string, kWritersPerProcess> wrong;
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < kWritersPerProcess; ++i) {
        threads.emplace_back([&, i] { wrong[i] = CampaignWriter(store, notes, first + i).run(); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& text : wrong) {
        if (!text.empty()) ::dprintf(2, "a writer gives up: %s\n", text.c_str());
    }
    return wrong[0].empty() && wrong[1].empty() ? 0 : 1;
}

// What moves between accounts is never seen half, and what was seen is there from then on.
int reader_process(const AttachOptions& options, KillNotes& notes) {
    Store store = need(Store::attach(options, in_the_end()));
    Reader reader = need(store.reader());
    const auto counted = need(store.open<Counted>(in_the_end()));
    Counters before;
    std::uint64_t life = 0;
    while (!notes.stop) {
        // It would notice by itself, half a second later: lives that are shorter would pass unseen.
        if (notes.lives != life) {
            life = notes.lives;
            need(store.stats(in_the_end()));
        }
        auto counters = read_once(reader, in_the_end(), [&](const Snapshot& snapshot) {
            if (notes.stops_in_look) ::raise(SIGSTOP);
            return counters_in(snapshot, counted, kWritersMax);
        });
        if (!counters.ok()) {
            ::dprintf(2, "a reader gives up: %s\n", counters.failure().what.c_str());
            return 1;
        }
        const auto& accounts = counters->accounts;
        if (std::accumulate(accounts.begin(), accounts.end(), std::int64_t{0}) != 0) return 2;
        // Not what others saw: this one may still look at the pool of a daemon that is gone.
        const std::string lost = lost_between(before, *counters);
        if (!lost.empty()) {
            ::dprintf(2, "a reader gives up: %s\n", lost.c_str());
            return 3;
        }
        note_seen(notes, *counters);
        before = std::move(*counters);
        ++notes.looks;
        std::this_thread::sleep_for(1ms);  // the processor is for those that are killed
    }
    return 0;
}

// Loads a table, drops it, gives its space back, and lets rows grow old, again and again.
class Keeper {
  public:
    Keeper(AttachOptions options, KillNotes& notes)
        : options_(std::move(options)),
          notes_(notes),
          store_(need(Store::attach(options_, in_the_end()))) {}

    int run() {
        const auto aging = need(store_.open<Aging>(in_the_end()));
        // Behind the last one of the keeper before it, that was killed.
        for (std::uint64_t generation = notes_.load_begun + 1; !notes_.stop; ++generation) {
            notes_.keeper = KeeperPhase::kLoad;
            notes_.load_begun = generation;
            if (load(generation)) notes_.load_done = generation;
            if (notes_.stop) break;  // the rest may take long on a slow disk
            notes_.keeper = KeeperPhase::kAge;
            age(aging);
            if (notes_.stop) break;
            notes_.keeper = KeeperPhase::kDrop;
            notes_.drop_begun = generation;
            if (!drop()) return 1;
            notes_.drop_done = generation;
            notes_.keeper = KeeperPhase::kCompact;
            compact();
        }
        return 0;
    }

  private:
    bool load(std::uint64_t generation) {
        auto load = TableLoad::begin(options_, need(Description<Loaded>::schema()), in_the_end());
        if (!load.ok()) return false;
        for (std::uint64_t id = 0; id < kLoadedRows; ++id) {
            const EncodedRow<Loaded> row(
                {.id = id, .generation = generation, .pad = loaded_pad(generation, id)});
            if (!load->add(row.key(), row.value(), in_the_end()).ok()) return false;
        }
        return load->finish(in_the_end()).ok();
    }
    void age(const Table<Aging>& aging) {
        const std::uint64_t now_us = wall_us();
        for (std::uint64_t i = 0; i < 5; ++i) {
            Transaction rows;
            for (std::uint64_t time = now_us + 20 * i; time < now_us + 20 * i + 20; ++time) {
                const std::string text = aging_text(time);
                rows.put(aging, {.time = time, .text = text});
            }
            // One that does not die: that of the keeper before, too, if it heard of no answer.
            const std::uint64_t kept = notes_.kept + (i == 0 && notes_.kept < kKeptRowsMost);
            if (kept > notes_.kept) {
                const std::string text = kept_text(kept);
                rows.put(aging, {.time = notes_.kept_from + kept, .text = text});
            }
            need(store_.commit(rows, in_the_end()));
            notes_.kept = kept;
        }
    }
    bool drop() {
        for (;;) {
            // A daemon that died is noticed first: its catalog is that of before the load's end.
            need(store_.stats(in_the_end()));
            const Status status = store_.drop_table("loaded", in_the_end());
            if (status.ok() || status.error() == Error::kNoSuchTable) return true;
            if (status.error() == Error::kDisconnected) continue;
            ::dprintf(2, "the keeper gives up: %s\n", status.failure().what.c_str());
            return false;
        }
    }
    void compact() {
        auto compaction = Compaction::begin(options_, in_the_end());
        for (int i = 0; compaction.ok() && i < 30 && !notes_.stop; ++i) {
            const auto step = compaction->step(64, in_the_end());
            if (!step.ok() || step->state == CompactState::kDone) break;
            if (step->state == CompactState::kWaiting) std::this_thread::sleep_for(3ms);
        }
        ++notes_.compactions;
    }

    AttachOptions options_;
    KillNotes& notes_;
    Store store_;
};

// ---- the campaign -------------------------------------------------------------------------------

// The clients: two processes that write, one that reads, and the keeper.
enum class Role : std::uint8_t { kWriters, kReader, kKeeper };
constexpr std::array kRoles{Role::kWriters, Role::kWriters, Role::kReader, Role::kKeeper};
constexpr std::array kRoleNames{"writers", "readers", "keepers"};
constexpr std::size_t kReaderPlace = 2;
constexpr std::size_t kKeeperPlace = 3;

class KillCampaign : public testing::Test {
  protected:
    KillCampaign()
        : seed_(number_from("BIDSTORE_KILL_SEED", std::random_device{}())),
          kills_wanted_(number_from("BIDSTORE_KILLS", 30)),
          random_(seed_),
          plan_(random_),
          trace_(__FILE__, __LINE__, "BIDSTORE_KILL_SEED=" + std::to_string(seed_)) {
        std::printf("%llu kills, BIDSTORE_KILL_SEED=%llu\n",
                    static_cast<unsigned long long>(kills_wanted_),
                    static_cast<unsigned long long>(seed_));
        daemon_.run_as("failpoint_daemon");
        for (const char* setting : {"pool_bytes=16MiB", "log_segment_bytes=1MiB",
                                    "log_segment_count=12", "recovery_log_bytes=4MiB"}) {
            daemon_.set(setting);
        }
    }
    void TearDown() override {
        if (!HasFailure()) return;
        std::printf("the daemon says:\n%s\n%s", daemon_.log().c_str(), daemon_.threads().c_str());
    }

    std::uint64_t any(std::uint64_t below) { return random_() % below; }
    bool one_in(std::uint64_t of) { return any(of) == 0; }
    AttachOptions options(Rights rights) const {
        return {.socket = daemon_.socket(), .rights = rights, .wait_for_daemon = true};
    }
    void set_failpoint(const Failpoint& failpoint) const {
        std::ofstream(daemon_.directory() + "/failpoint") << failpoint.text() << '\n';
    }

    // Of the life that serves, or did until a moment ago.
    void expect_no_harm_yet() {
        expect_no_harm([&](Counter which) { return counter_value(life_->stats(), which); });
    }
    // A life begins to serve, and has a recovery behind it.
    void look_at_life() {
        eventually([&] { return (life_ = look_at_pool(daemon_)) || !daemon_.running(); });
        if (!life_) return;
        expect_no_harm_yet();
        expect_recovery_within_bounds();
    }
    // The pool of one that is over is still mapped.
    void end_life() {
        daemon_.kill();
        if (life_) expect_no_harm_yet();
        lives_looked_at_ += life_.has_value();
        life_.reset();
        ++kills_;
    }

    void signal_writers(int number) const {
        for (std::size_t place = 0; place < processes_.size(); ++place) {
            const bool there = processes_[place].pid() > 0 && place != stopped_place_;
            if (there && kRoles[place] == Role::kWriters) processes_[place].signal(number);
        }
    }
    // It stood still while a daemon went and another came; a writer goes on with the others.
    void continue_stopped() {
        if (!stopped_place_) return;
        const std::size_t place = *std::exchange(stopped_place_, std::nullopt);
        EXPECT_TRUE(processes_[place].wait_until_stopped()) << "it did not stand still";
        if (kRoles[place] != Role::kWriters) processes_[place].signal(SIGCONT);
        ++stopped_[static_cast<std::size_t>(kRoles[place])];
    }
    // Whether a life begins that serves. Before the writers of the one before go on, and send again
    // what has no answer, nothing is missing of what it acknowledged or showed.
    bool begin_life() {
        signal_writers(SIGSTOP);
        const bool served = daemon_.start_or_end();
        if (served) look_at_life();
        const Deadline end = soon();
        while (served && audit_ && !audit_->look_back(writers_, in(200ms)) && daemon_.running()) {
            if (std::chrono::steady_clock::now() < end) continue;
            ADD_FAILURE() << "it serves, and cannot be read";
            break;
        }
        if (life_) continue_stopped();
        if (served && audit_) {
            // The second look is one at this life.
            const std::uint64_t looks = notes_->looks + 2;
            ++notes_->lives;
            eventually([&] { return notes_->looks >= looks || !daemon_.running(); }, 1s);
        }
        signal_writers(SIGCONT);
        return served;
    }

    // One life that ends at a failpoint or, where that does not come, at a moment of ours.
    void live_to_failpoint(const Failpoint& failpoint, std::chrono::milliseconds patience) {
        SCOPED_TRACE("killed at " + failpoint.text());
        // Once the files are there, only a journal that becomes longer changes a size at once.
        if (failpoint.step == DiskStep::kResize && store_) {
            journal_bytes_ += kPageBytes;
            daemon_.set("journal_bytes=" + std::to_string(journal_bytes_) + "B");
        }
        set_failpoint(failpoint);
        const bool served = begin_life();
        ASSERT_TRUE(served || !daemon_.running()) << "it neither serves nor ends";
        const auto status = daemon_.wait(served ? patience : 0ms);
        if (status) {
            ASSERT_EQ(*status, 128 + SIGKILL) << "it ended by itself";
            plan_.reached(failpoint);
            in_recovery_ += !served;
        } else {
            plan_.missed(failpoint);
        }
        end_life();
        std::filesystem::remove(daemon_.directory() + "/failpoint");
    }
    void live_to_failpoint(const Failpoint& failpoint) {
        live_to_failpoint(failpoint, plan_.patience(failpoint));
    }
    // Whether the next recovery finds a journal to put in place.
    bool journal_is_named() const {
        std::ifstream file(daemon_.data_directory() + "/" + store_file_name(StoreFile::kData));
        std::array<std::array<char, kBlockBytes>, 2> copies{};
        Superblock newest{};
        for (auto& copy : copies) {
            file.read(copy.data(), copy.size());
            Superblock superblock{};
            std::memcpy(&superblock, copy.data(), sizeof superblock);
            if (superblock.sequence > newest.sequence) newest = superblock;
        }
        return newest.journal_pages > 0;
    }
    // Lives that end while a checkpoint puts its pages in their places, until one leaves a journal
    // behind: there is nothing to read in it otherwise.
    void leave_a_journal() {
        daemon_.set("checkpoint_interval=20ms");
        for (std::uint64_t i = 0; i < kLivesForJournal && !journal_is_named(); ++i) {
            live_to_failpoint({DiskStep::kDataSync, 2 + i % 4, DiskMoment::kBefore});
            if (HasFatalFailure()) return;
        }
    }
    // What the next lives are told.
    void choose_settings() {
        const char* const intervals[] = {"20ms", "200ms", "1h"};
        daemon_.set(std::string("checkpoint_interval=") + intervals[any(3)]);
        daemon_.set(one_in(3) ? "disk=threads" : "disk=auto");
    }
    void verify_files() {
        std::vector<std::string> command = daemon_.command();
        command[0] = BIDSTORE_BINARY_DIR "/bidstored";
        command.push_back("--verify");
        const Finished verified = run_to_end(command);
        ASSERT_EQ(verified.status, 0) << verified.output;
    }

    void start_client(std::size_t place) {
        Process& process = processes_[place];
        if (kRoles[place] == Role::kReader) {
            process =
                Process::fork([this] { return reader_process(options(Rights::kReader), *notes_); });
        } else if (kRoles[place] == Role::kKeeper) {
            notes_->keeper = KeeperPhase::kAttach;  // not where the one before was killed
            process =
                Process::fork([this] { return Keeper(options(Rights::kAdmin), *notes_).run(); });
        } else {
            const std::uint32_t first = writers_;
            writers_ += kWritersPerProcess;
            ASSERT_LE(writers_, kWritersMax);
            first_writers_[place] = first;
            process = Process::fork(
                [this, first] { return writer_process(options(Rights::kWriter), *notes_, first); });
        }
    }
    void await_keeper(KeeperPhase phase) {
        const auto end = std::chrono::steady_clock::now() + 500ms;
        while (notes_->keeper != phase && std::chrono::steady_clock::now() < end) {
            std::this_thread::yield();
        }
        std::this_thread::sleep_for(std::chrono::microseconds(any(3000)));
    }
    // A keeper is killed soon after it is in the phase that keepers were killed in least: again
    // where it did not come in time, or was over too soon.
    void kill_client(std::size_t place) {
        const Role role = kRoles[place];
        if (role == Role::kKeeper) {
            const std::uint64_t* first = keepers_killed_in_.data();
            const std::uint64_t* least = std::min_element(first, first + kKeeperPhases);
            await_keeper(static_cast<KeeperPhase>(least - first));
        }
        processes_[place].kill();
        if (role == Role::kKeeper) {
            ++keepers_killed_in_[static_cast<std::size_t>(notes_->keeper.load())];
        }
        killed_places_.insert(place);
        ++killed_[static_cast<std::size_t>(role)];
        std::this_thread::sleep_for(std::chrono::milliseconds(any(10)));
    }
    // What these had sent is in or never will be, and the audit saw what is left.
    void bury_killed() {
        for (const std::size_t place : killed_places_) {
            for (std::uint32_t i = 0; kRoles[place] == Role::kWriters && i < kWritersPerProcess;
                 ++i) {
                audit_->bury(first_writers_[place] + i);
            }
        }
    }
    // Others come in the place of those that were killed, when the daemon that these sent to is
    // gone, too.
    void replace_killed() {
        bury_killed();
        for (const std::size_t place : killed_places_) start_client(place);
        killed_places_.clear();
    }
    bool lives(std::size_t place) const { return !killed_places_.contains(place); }
    bool clients_live() {
        for (std::size_t place = 0; place < processes_.size(); ++place) {
            if (lives(place) && !processes_[place].running()) return false;
        }
        return true;
    }
    std::uint64_t acknowledged() const {
        std::uint64_t sum = 0;
        for (std::uint32_t i = 0; i < writers_; ++i) sum += notes_->writers[i].acknowledged;
        return sum;
    }
    std::vector<std::uint64_t> progress() const {
        std::vector<std::uint64_t> progress{notes_->looks};
        for (std::uint32_t i = 0; i < writers_; ++i) {
            progress.push_back(notes_->writers[i].acknowledged);
        }
        return progress;
    }
    // Each writer of that process has a write without an answer.
    bool all_wait(std::size_t place) const {
        const auto first = notes_->writers.begin() + first_writers_[place];
        return std::all_of(first, first + kWritersPerProcess, [](const KillNotes::Writer& writer) {
            return writer.submitted > writer.acknowledged;
        });
    }
    // Of the reader and each writer that lives.
    bool all_got_on(const std::vector<std::uint64_t>& since) const {
        const std::vector<std::uint64_t> now = progress();
        bool all = now[0] > since[0] || !lives(kReaderPlace);
        for (std::size_t place = 0; place < processes_.size(); ++place) {
            if (kRoles[place] != Role::kWriters || !lives(place)) continue;
            const std::uint32_t first = 1 + first_writers_[place];
            for (std::uint32_t i = first; i < first + kWritersPerProcess; ++i) {
                all = all && now[i] > since[i];
            }
        }
        return all;
    }
    void make_store();
    void begin();
    void kill_each_kind();
    void end();
    void expect_dead_forgotten();
    void erase_rows_of_places();
    void fill_all_places();
    void expect_recovery_within_bounds();
    void live_under_audit();
    void report() const;

    std::uint64_t seed_;
    std::uint64_t kills_wanted_;
    std::mt19937_64 random_;
    KillPlan plan_;
    testing::ScopedTrace trace_;
    SharedMemory<KillNotes> notes_;
    RealDaemon daemon_;
    std::optional<Store> store_;
    std::optional<KillAudit> audit_;
    std::array<Process, kRoles.size()> processes_;  // a role each
    std::array<std::uint32_t, kRoles.size()> first_writers_{};
    std::set<std::size_t> killed_places_;  // of processes_
    std::optional<std::size_t> stopped_place_;
    std::optional<PoolView> life_;  // none: nobody could look at it
    std::uint32_t writers_ = 0;
    std::uint64_t journal_bytes_ = kJournalBytes;

    std::uint64_t kills_ = 0;
    std::uint64_t in_recovery_ = 0;
    std::uint64_t audits_ = 0;
    std::uint64_t lives_looked_at_ = 0;
    std::uint64_t verified_ = 0;
    std::array<std::uint64_t, kRoleNames.size()> killed_{};
    std::array<std::uint64_t, kRoleNames.size()> stopped_{};
    std::array<std::uint64_t, kKeeperPhases + 1> keepers_killed_in_{};  // the last: no phase yet
    std::uint64_t longest_recovery_ns_ = 0;
    std::uint64_t longest_log_bytes_ = 0;
};

// Files that are being made may be left half made, too.
void KillCampaign::make_store() {
    for (int i = 0; i < 3; ++i) {
        live_to_failpoint({one_in(2) ? DiskStep::kAny : DiskStep::kResize, 1 + any(8),
                           static_cast<DiskMoment>(any(kDiskMomentNames.size()))});
    }
    if (!daemon_.start()) throw std::runtime_error("no daemon");
    look_at_life();
    store_.emplace(attach(daemon_));
    make_table<Counted>(*store_);
    make_table<Event>(*store_);
    need(store_->create_table<Aging>(soon(), {kAgingRetainedUs, 0}));
    notes_->kept_from = wall_us() + kKeptAheadUs;
}

// All clients are at work.
void KillCampaign::begin() {
    make_store();
    for (std::size_t place = 0; place < processes_.size(); ++place) start_client(place);
    audit_.emplace(*store_, *notes_);
    ASSERT_TRUE(eventually([&] { return acknowledged() > 100; }, 4 * kPatience));
    end_life();
}

// One of each kind is killed at work, the reader while it stands still with a snapshot; the daemon
// goes on, with the others.
void KillCampaign::kill_each_kind() {
    std::vector<std::uint64_t> before = progress();
    ASSERT_TRUE(eventually([&] { return all_got_on(before); })) << "a client stands still";
    notes_->stops_in_look = true;
    ASSERT_TRUE(processes_[kReaderPlace].wait_until_stopped());
    await_keeper(static_cast<KeeperPhase>(any(kKeeperPhases)));
    // Writes are taken, and none is answered until the dead are gone.
    std::ofstream(daemon_.directory() + "/hold") << "log-write";
    ASSERT_TRUE(eventually([&] { return std::filesystem::exists(daemon_.directory() + "/held"); }));
    const std::size_t writers = any(2);
    ASSERT_TRUE(eventually([&] { return all_wait(writers); })) << "a writer waits for nothing";
    std::this_thread::sleep_for(std::chrono::milliseconds(any(5)));
    for (const std::size_t place : {kKeeperPlace, writers, kReaderPlace}) {
        processes_[place].kill();
        killed_places_.insert(place);
    }
    expect_counter(*store_, Counter::kClients, 2);
    before = progress();
    std::filesystem::remove(daemon_.directory() + "/hold");
    ASSERT_TRUE(eventually([&] { return all_got_on(before); })) << "the others stand still";
    expect_counter(*store_, Counter::kSessions, 2);
    ASSERT_TRUE(clients_live());
}

// What the dead had sent is in or never will be.
void KillCampaign::expect_dead_forgotten() {
    expect_counter(*store_, Counter::kClients, 1);
    expect_counter(*store_, Counter::kSessions, 1);
    expect_counter(*store_, Counter::kParkedTransactions, 0);
    erase_rows_of_places();  // of nobody: a write behind theirs
}
// Of each place for itself: of all at once, a journal so small may refuse it in a long file.
void KillCampaign::erase_rows_of_places() {
    const auto events = need(store_->open<Event>(soon()));
    for (std::size_t place = 0; place < kPlaces; ++place) {
        Transaction erase;
        erase.erase_range(events, events.prefix(FullPlace::first_time(place)),
                          events.prefix(FullPlace::first_time(place + 1)));
        need(store_->commit(erase, soon()));
    }
}

// Clients end, of each kind one by a kill and the others with nothing to complain of; what these
// were told is there, and all that any of them had is free for others.
void KillCampaign::end() {
    daemon_.set("max_clients=" + std::to_string(kPlaces));
    daemon_.set("slots_per_client=" + std::to_string(kSlotsOfPlace));
    daemon_.set("max_snapshot_age=10min");  // a host may stand still for the 5 s that are usual
    ASSERT_TRUE(begin_life()) << "it does not serve";
    audit_->run(writers_, false);
    replace_killed();
    ASSERT_NO_FATAL_FAILURE(kill_each_kind());
    notes_->stop = true;
    for (std::size_t place = 0; place < processes_.size(); ++place) {
        if (lives(place)) {
            EXPECT_EQ(processes_[place].wait(), 0);
        }
    }
    expect_dead_forgotten();
    audit_->run(writers_, false);
    bury_killed();
    audit_->run(writers_, true);
    audit_->end_aging();
    expect_rest(*store_, daemon_);
    fill_all_places();
    expect_rest(*store_, daemon_);
    expect_no_harm_yet();
}

// With as many clients as the daemon takes, each of which has all its slots, reads and writes,
// while all hold a snapshot in each slot.
void KillCampaign::fill_all_places() {
    std::deque<FullPlace> places;
    while (places.size() + 1 < kPlaces) places.emplace_back(daemon_);
    expect_counter(*store_, Counter::kClients, kPlaces);
    for (std::size_t i = 0; i < places.size(); ++i) places[i].write(i);
    for (FullPlace& place : places) place.expect_rows(places.size() * kRowsOfPlace);
    erase_rows_of_places();
}

void KillCampaign::expect_recovery_within_bounds() {
    const auto of = [&](Counter which) { return counter_value(life_->stats(), which); };
    EXPECT_LE(of(Counter::kRecoveryLogBytes), kRecoveryLogBytes);
    EXPECT_LE(of(Counter::kRecoveryNs),
              kRecoveryMostNs +
                  kRecoveryNsPerByte * (of(Counter::kRecoveryLogBytes) + journal_bytes_));
    longest_log_bytes_ = std::max(longest_log_bytes_, of(Counter::kRecoveryLogBytes));
    longest_recovery_ns_ = std::max(longest_recovery_ns_, of(Counter::kRecoveryNs));
}

// One life without a failpoint: everything is looked at while all go on, then it is killed.
void KillCampaign::live_under_audit() {
    ASSERT_TRUE(begin_life() && life_) << "it does not serve";
    audit_->run(writers_, false);
    ++audits_;
    const std::vector<std::uint64_t> before = progress();
    ASSERT_TRUE(eventually([&] { return all_got_on(before); })) << "a client stands still";
    replace_killed();
    // Now and then for so long that the log would be longer than a recovery may be.
    std::this_thread::sleep_for(std::chrono::milliseconds(any(150) + (one_in(8) ? 1500 : 0)));
    const std::size_t place = any(processes_.size());
    if (one_in(4)) kill_client(place);
    const std::size_t other = (place + 1 + any(processes_.size() - 1)) % processes_.size();
    if (one_in(4)) {
        stopped_place_ = lives(place) ? place : other;  // until the next life serves
        processes_[*stopped_place_].signal(SIGSTOP);
    }
    end_life();
    // A reader is to see the lives up to the next audit, too.
    if (!lives(kReaderPlace)) replace_killed();
    if (one_in(8)) {
        verify_files();
        ++verified_;
    }
}

void KillCampaign::report() const {
    const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    std::printf(
        "%llu kills of the daemon, %llu of them in a recovery; %llu audits, %llu times the "
        "files verified\n",
        number(kills_), number(in_recovery_), number(audits_), number(verified_));
    for (std::size_t role = 0; role < kRoleNames.size(); ++role) {
        std::printf("%s: %llu killed, %llu stopped\n", kRoleNames[role], number(killed_[role]),
                    number(stopped_[role]));
    }
    std::printf("keepers killed in load, age, drop, compact: %llu, %llu, %llu, %llu; "
                "before: %llu\n",
                number(keepers_killed_in_[0]), number(keepers_killed_in_[1]),
                number(keepers_killed_in_[2]), number(keepers_killed_in_[3]),
                number(keepers_killed_in_[4]));
    std::printf(
        "%llu writes acknowledged, %llu refused, %llu loads, %llu compactions, %llu looks; "
        "%llu rows that do not expire; recovery: %.1f MiB of log, %.0f ms at most\n",
        number(acknowledged()), number(notes_->refused), number(notes_->load_done),
        number(notes_->compactions), number(notes_->looks), number(notes_->kept),
        static_cast<double>(longest_log_bytes_) / kMiB,
        static_cast<double>(longest_recovery_ns_) / 1e6);
    std::printf("%s", plan_.table().c_str());
    std::fflush(stdout);
}

TEST_F(KillCampaign, NothingAcknowledgedIsLostAndNothingIsHalfThere) {
    ASSERT_NO_FATAL_FAILURE(begin());
    for (std::uint64_t shown = 0; kills_ < kills_wanted_;) {
        SCOPED_TRACE("kill " + std::to_string(kills_));
        choose_settings();
        do {
            const Failpoint failpoint = plan_.next();
            if (failpoint.step == DiskStep::kJournalRead) leave_a_journal();
            if (!HasFatalFailure()) live_to_failpoint(failpoint);
        } while (one_in(3) && !HasFatalFailure());
        if (HasFatalFailure()) return;
        live_under_audit();
        ASSERT_FALSE(HasFailure());
        ASSERT_TRUE(clients_live());
        if (kills_ - shown >= 50) {
            shown = kills_;
            report();
        }
    }
    ASSERT_NO_FATAL_FAILURE(end());
    EXPECT_GE(lives_looked_at_, audits_);
    EXPECT_EQ(daemon_.stop(), 0);
    verify_files();
    ASSERT_TRUE(daemon_.start());
    look_at_life();
    audit_->run(writers_, true);
    report();
    EXPECT_GE(store_->reconnects(), audits_);
    EXPECT_TRUE(kills_wanted_ < 30 || plan_.steps_reached() > 3) << "hardly one was reached";
    if (kills_wanted_ < kKillsForAll) return;
    EXPECT_EQ(plan_.never(), "") << "failpoints that were not reached";
    // Or their bound would say nothing: a checkpoint begins with somewhat less than half of it.
    EXPECT_GT(longest_log_bytes_, kRecoveryLogBytes / 3);
    for (std::size_t role = 0; role < kRoleNames.size(); ++role) {
        EXPECT_TRUE(killed_[role] > 0 && stopped_[role] > 0) << kRoleNames[role];
    }
    for (std::size_t phase = 0; phase < kKeeperPhases; ++phase) {
        EXPECT_GT(keepers_killed_in_[phase], 0u) << "no keeper was killed in phase " << phase;
    }
}

// What is visible before it is durable is gone with a daemon that is killed in between.
TEST_F(KillCampaign, WhatAReaderSawOfALifeIsThereInTheNext) {
    ASSERT_NO_FATAL_FAILURE(begin());
    for (std::uint64_t i = 0; i < kLivesOfLogWrites; ++i) {
        const auto moment = static_cast<DiskMoment>(i % kDiskMomentNames.size());
        live_to_failpoint({DiskStep::kLogWrite, 5 + any(40), moment}, kPatience);
        ASSERT_FALSE(HasFailure());
    }
    ASSERT_NO_FATAL_FAILURE(end());
    EXPECT_GT(plan_.steps_reached(), 0u);
}

}  // namespace
}  // namespace bidstore
