// Whole daemons on a device that fails: by the kernel's own error (a limit on the size of files),
// and by a disk that fails at the operations of one kind (FailpointDisk). A daemon whose log or
// checkpoint failed answers nothing more, says file, offset and errno, and exits with 3. One that
// could not read a page goes on. When the device is well it starts, with all that was acknowledged,
// and what was under way is decided once. In the simulation: failing_disk_test.cc.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "clientlib/compact.h"
#include "daemon/service.h"
#include "tests/looks.h"
#include "tests/real_store.h"

namespace bidstore {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kWriters = 2;
constexpr std::uint64_t kInFlight = 4;
constexpr std::uint64_t kSums = 1'000'000;  // ids of the writers' counters begin there

// Writes on, in two threads of one client, through the end of a daemon and the start of the next.
class Writers {
  public:
    explicit Writers(const RealDaemon& daemon) : store_(attach(daemon, Rights::kWriter)) {
        for (std::uint64_t writer = 0; writer < kWriters; ++writer) {
            threads_.emplace_back([this, writer] { write_on(writer); });
        }
    }
    ~Writers() { end(); }
    void end() {
        stop_ = true;
        for (std::thread& thread : threads_) thread.join();
        threads_.clear();
    }
    std::uint64_t acknowledged() const { return acknowledged_[0] + acknowledged_[1]; }
    std::uint64_t acknowledged(std::uint64_t writer) const { return acknowledged_[writer]; }

  private:
    void write_on(std::uint64_t writer) {
        const auto table = need(store_.open<Counted>(soon()));
        std::vector<Pending> flying;
        for (std::uint64_t number = 0; !stop_; ++number) {
            Transaction write;
            const std::uint64_t id = number * kWriters + writer;
            write.insert(table, {.id = id, .amount = 1, .round = writer});
            write.add<&Counted::amount>(table, table.key(kSums + writer), 1, {.create = true});
            flying.push_back(need(store_.submit(write, soon())));
            if (flying.size() < kInFlight) continue;
            for (Pending& each : flying) {
                if (!is_acknowledged(each.wait(soon()))) return;
                ++acknowledged_[writer];
            }
            flying.clear();
        }
        for (Pending& each : flying) {
            if (is_acknowledged(each.wait(soon()))) ++acknowledged_[writer];
        }
    }
    static bool is_acknowledged(const Result<Committed>& result) {
        EXPECT_TRUE(is_ok(result));
        return result.ok();
    }

    Store store_;
    std::array<std::atomic<std::uint64_t>, kWriters> acknowledged_{};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> threads_;
};

class FailingDaemon : public testing::Test {
  protected:
    FailingDaemon() {
        for (const char* setting : {"pool_bytes=16MiB", "log_segment_bytes=1MiB",
                                    "log_segment_count=12", "checkpoint_interval=1h"}) {
            daemon_.set(setting);
        }
    }
    void TearDown() override {
        if (HasFailure()) std::printf("the daemon says:\n%s\n", daemon_.log().c_str());
    }
    void begin() {
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        Store store = attach(daemon_);
        make_table<Counted>(store);
    }
    void begin_with_failpoints() {
        daemon_.run_as("failpoint_daemon");
        begin();
    }
    // With failpoints, and a table larger than its pool.
    Table<Event> begin_with_windows() {
        daemon_.set("pool_bytes=8MiB");
        daemon_.set("max_snapshot_age=1h");
        begin_with_failpoints();
        store_.emplace(attach(daemon_));
        const auto events = make_table<Event>(*store_);
        kAllRows.write(*store_, events, 1);
        return events;
    }
    void start_again() {
        EXPECT_EQ(daemon_.stop(), 0);
        ASSERT_TRUE(daemon_.start());
        store_.emplace(attach(daemon_));
    }
    void fail(const std::string& step, int number = EIO) const {
        std::ofstream(daemon_.directory() + "/fail") << step << ' ' << number << '\n';
    }
    // That one alone, or with all later ones.
    void fail_nth(const std::string& step, std::uint64_t nth, bool and_later = false) const {
        std::ofstream(daemon_.directory() + "/fail")
            << step << ' ' << EIO << ' ' << nth << (and_later ? " on\n" : "\n");
    }
    // Whether something failed since it was asked last.
    bool met() const { return std::filesystem::remove(daemon_.directory() + "/failed"); }
    void heal() const { std::filesystem::remove(daemon_.directory() + "/fail"); }

    // Of the last life, which ended.
    void expect_said(const std::string& file, const std::string& operation, int number) {
        std::string words = operation + " " + daemon_.data_directory() + "/" + file;
        if (operation != "syncing") words += " at offset ";
        const std::string log = daemon_.log();
        const std::size_t at = log.find(words);
        ASSERT_NE(at, std::string::npos) << "no \"" << words << "\"";
        const std::string line = log.substr(at, log.find('\n', at) - at);
        EXPECT_NE(line.find("(errno " + std::to_string(number) + ")"), std::string::npos) << line;
    }
    static void expect_going_on(const Writers& writers) {
        const std::uint64_t before = writers.acknowledged();
        ASSERT_TRUE(eventually([&] { return writers.acknowledged() > before + 20; }));
    }
    // What a writer counted, what is there, and what it was told are one.
    void expect_every_write_once(const Writers& writers) {
        Store store = attach(daemon_, Rights::kReader);
        const auto table = need(store.open<Counted>(soon()));
        const auto rows = all_rows(store, table, 0, kSums);
        std::array<std::uint64_t, kWriters> found{};
        for (const Counted& row : rows) ++found[row.id % kWriters];
        for (std::uint64_t writer = 0; writer < kWriters; ++writer) {
            const auto sum = all_rows(store, table, kSums + writer, kSums + writer + 1);
            ASSERT_EQ(sum.size(), 1u);
            EXPECT_EQ(sum[0].amount, static_cast<std::int64_t>(found[writer]));
            EXPECT_EQ(writers.acknowledged(writer), found[writer]);
        }
    }
    void expect_sound_files() {
        EXPECT_EQ(daemon_.stop(), 0);
        std::vector<std::string> command = daemon_.command();
        command[0] = BIDSTORE_BINARY_DIR "/bidstored";
        command.push_back("--verify");
        const Finished verified = run_to_end(command);
        EXPECT_EQ(verified.status, 0) << verified.output;
    }

    static constexpr std::uint64_t kAllWindows = 40;
    static constexpr Rounds kAllRows{kAllWindows * kWindow, 80};

    RealDaemon daemon_;
    std::optional<Store> store_;
};

constexpr int kFenced = static_cast<int>(ExitCode::kFenced);
constexpr int kEnvironment = static_cast<int>(ExitCode::kEnvironment);

class RefusedLogWrite : public FailingDaemon, public testing::WithParamInterface<const char*> {};

// The limit may fall into a write: the kernel takes what is before it, and refuses the rest.
TEST_P(RefusedLogWrite, FencesTheDaemonAndIsDecidedOnce) {
    daemon_.set(std::string("disk=") + GetParam());
    begin();
    Store other = attach(daemon_, Rights::kWriter);
    Reader reader = need(other.reader());
    const auto table = need(other.open<Counted>(soon()));
    Writers writers(daemon_);
    ASSERT_TRUE(eventually([&] { return writers.acknowledged() > 0; }));
    const rlimit small{100 * kPageBytes, 100 * kPageBytes};
    ASSERT_EQ(::prlimit(daemon_.pid(), RLIMIT_FSIZE, &small, nullptr), 0);
    EXPECT_EQ(daemon_.wait(kPatience), kFenced);
    expect_said("log", "writing", EFBIG);
    EXPECT_TRUE(daemon_.logged("fenced: the log failed with csn"));

    // Nobody waits longer than he said, and each is told what he may believe.
    Transaction write;
    write.add<&Counted::amount>(table, table.key(kSums), 0, {.create = true});
    const auto unknown = other.commit(write, in(100ms));
    EXPECT_TRUE(unknown.error() == Error::kTimedOut || unknown.error() == Error::kDisconnected)
        << error_name(unknown.error());
    EXPECT_EQ(reader.snapshot(in(100ms)).error(), Error::kDisconnected);

    ASSERT_TRUE(daemon_.start());
    expect_going_on(writers);
    writers.end();
    expect_every_write_once(writers);
    expect_sound_files();
}

INSTANTIATE_TEST_SUITE_P(All, RefusedLogWrite, testing::Values("auto", "threads"),
                         [](const auto& disk) { return std::string(disk.param); });

struct Step {
    const char* name;  // as FailpointDisk calls it
    const char* file;
    const char* operation;  // as the daemon calls it
};

// One life for each: the device fails under load, the daemon ends, the device is well again.
TEST_F(FailingDaemon, WritesOfEachKindFenceItAndAreDoneByTheNextLife) {
    daemon_.set("checkpoint_interval=20ms");
    begin_with_failpoints();
    Writers writers(daemon_);
    for (const Step& step : {Step{"log-write", "log", "writing"},
                             {"page-write", "data", "writing"},
                             {"journal-write", "journal", "writing"},
                             {"superblock", "data", "writing"},
                             {"journal-sync", "journal", "syncing"},
                             {"data-sync", "data", "syncing"}}) {
        SCOPED_TRACE(step.name);
        expect_going_on(writers);
        fail(step.name);
        EXPECT_EQ(daemon_.wait(kPatience), kFenced);
        expect_said(step.file, step.operation, EIO);
        EXPECT_TRUE(daemon_.logged("fenced: "));
        heal();
        ASSERT_TRUE(daemon_.start());
    }
    expect_going_on(writers);
    writers.end();
    expect_every_write_once(writers);
    expect_sound_files();
}

// Rows of a page each, one transaction after the other, until one is refused, or no answer comes.
class Pages {
  public:
    explicit Pages(Store& store) : store_(store), events_(make_table<Event>(store)) {}
    Error put_until_refused(std::uint32_t rows_together,
                            std::chrono::milliseconds patience = kPatience) {
        while (rows_ < kMost) {
            Transaction write;
            for (std::uint32_t i = 0; i < rows_together; ++i) {
                write.put(events_, {.time = rows_ + i, .source = 0, .kind = 0, .text = text_});
            }
            const auto written = store_.commit(write, in(patience));
            if (!written.ok()) return written.error();
            rows_ += rows_together;
        }
        return Error::kOk;
    }
    std::uint64_t rows() const { return rows_; }
    // All that were acknowledged, of the table that may have more: the last ones had no answer.
    void expect_there() const {
        Reader reader = need(store_.reader());
        std::uint64_t found = 0;
        need(read_once(reader, soon(), [&](const Snapshot& snapshot) {
            found = 0;
            auto rows = events_.scan(snapshot, {}, events_.prefix(rows_), {.streaming = true});
            while (rows.next()) {
                const auto row = rows.copy();
                if (!row.ok()) return Status(row.failure());
                found += row->time == found && row->text == text_;
            }
            return rows.status();
        }));
        EXPECT_EQ(found, rows_);
    }

  private:
    static constexpr std::uint64_t kMost = 3'000;  // 12 MB
    const std::string text_ = std::string(3'000, 'x');
    Store& store_;
    Table<Event> events_;
    std::uint64_t rows_ = 0;
};

TEST_F(FailingDaemon, GrowthThatFailsFencesItAndIsDoneByTheNextLife) {
    begin_with_failpoints();
    Store store = attach(daemon_);
    Pages pages(store);
    Writers writers(daemon_);
    expect_going_on(writers);
    fail("grow");
    for (Error error = Error::kTimedOut; error == Error::kTimedOut && daemon_.running();) {
        error = pages.put_until_refused(20, 1s);
    }
    EXPECT_EQ(daemon_.wait(kPatience), kFenced);
    expect_said("data", "growing", EIO);
    EXPECT_TRUE(daemon_.logged("fenced: growth: "));
    heal();
    ASSERT_TRUE(daemon_.start());
    const std::uint64_t chunks = counter(store, Counter::kChunks);
    EXPECT_EQ(pages.put_until_refused(20), Error::kOk);
    EXPECT_TRUE(eventually([&] { return counter(store, Counter::kChunks) > chunks; }));
    pages.expect_there();
    expect_going_on(writers);
    writers.end();
    expect_every_write_once(writers);
    expect_sound_files();
}

TEST_F(FailingDaemon, AFullFileSystemMakesItReadOnlyUntilThereIsRoom) {
    begin_with_failpoints();
    Store store = attach(daemon_);
    Pages pages(store);
    fail("grow", ENOSPC);
    for (const std::uint32_t together : {20, 1}) {
        EXPECT_EQ(pages.put_until_refused(together), Error::kNoSpace);
    }
    EXPECT_EQ(need(store.stats(soon())).mode, EngineMode::kReadOnly);
    expect_said("data", "growing", ENOSPC);
    EXPECT_TRUE(daemon_.logged("read-only: "));
    EXPECT_FALSE(daemon_.logged("fenced: "));
    pages.expect_there();
    heal();
    EXPECT_TRUE(eventually(
        [&] { return need(store.stats(soon())).mode == EngineMode::kServing; }));
    const std::uint64_t rows = pages.rows();
    EXPECT_EQ(pages.put_until_refused(20), Error::kOk);
    EXPECT_GT(pages.rows(), rows);
    pages.expect_there();
    expect_sound_files();
}

// A hole that cannot be made is none; a cut that fails is a change of the file that failed.
TEST_F(FailingDaemon, ACutThatFailsFencesItAndAHoleThatCannotBeMadeDoesNot) {
    daemon_.set("checkpoint_interval=20ms");
    begin_with_failpoints();
    Store store = attach(daemon_);
    Pages pages(store);
    EXPECT_EQ(pages.put_until_refused(20), Error::kOk);
    const auto file_bytes = [&] {
        return std::filesystem::file_size(daemon_.data_directory() + "/data");
    };
    const std::uint64_t full_bytes = file_bytes();
    need(store.drop_table("events", soon()));
    EXPECT_TRUE(eventually([&] { return counter(store, Counter::kTablesDropping) == 0; }));
    Writers writers(daemon_);
    expect_going_on(writers);
    const auto compact = [&] {
        auto compaction = Compaction::begin({.socket = daemon_.socket()}, soon());
        while (compaction.ok()) {
            const auto step = compaction->step(kCompactPagesMax, soon());
            if (!step.ok()) return step.error();
            if (step->state == CompactState::kDone) return Error::kOk;
        }
        return compaction.error();
    };
    fail("cut");
    EXPECT_EQ(compact(), Error::kDisconnected);
    EXPECT_EQ(daemon_.wait(kPatience), kFenced);
    expect_said("data", "cutting", EIO);
    EXPECT_TRUE(met());
    fail("punch");
    ASSERT_TRUE(daemon_.start());
    EXPECT_EQ(compact(), Error::kOk);
    EXPECT_TRUE(met());
    EXPECT_LT(file_bytes(), full_bytes / 2);
    heal();
    expect_going_on(writers);
    writers.end();
    expect_every_write_once(writers);
    expect_sound_files();
}

// Pages of events come from the file after a start, and the first read of one is a miss.
TEST_F(FailingDaemon, ThatCannotReadAPageSaysSoAndGoesOn) {
    begin_with_failpoints();
    {
        Store store = attach(daemon_);
        const auto events = make_table<Event>(store);
        Transaction rows;
        const std::string text(1'000, 'x');
        for (std::uint32_t i = 0; i < 200; ++i) {
            rows.put(events, {.time = i, .source = i, .kind = 1, .text = text});
        }
        need(store.commit(rows, soon()));
    }
    EXPECT_EQ(daemon_.stop(), 0);
    ASSERT_TRUE(daemon_.start());
    Store store = attach(daemon_);
    Reader reader = need(store.reader());
    const auto events = need(store.open<Event>(soon()));
    Writers writers(daemon_);  // theirs are in the pool
    ASSERT_TRUE(eventually([&] { return writers.acknowledged() > 0; }));
    fail("page-read");
    const auto unread = events.get(reader, soon(), 199u, 199u);
    EXPECT_EQ(unread.error(), Error::kIoError) << error_name(unread.error());
    EXPECT_NE(unread.failure().what.find("table events: page "), std::string::npos)
        << unread.failure().what;
    expect_said("data", "reading", EIO);
    // Others do not notice.
    expect_going_on(writers);
    writers.end();
    expect_every_write_once(writers);
    EXPECT_EQ(need(store.stats(soon())).mode, EngineMode::kServing);
    heal();
    EXPECT_TRUE(eventually([&] { return events.get(reader, soon(), 199u, 199u).ok(); }));
    EXPECT_EQ(all_rows(store, events).size(), 200u);
    expect_sound_files();
}

// Each kind of read with all pages out of reach, or its n-th, with n on to where it has no more: an
// error and no row, in time, and the same read is right when the page can be read again.
TEST_F(FailingDaemon, ReadsOfEveryKindSayThatAPageCannotBeReadAndAreRightAfterwards) {
    constexpr std::uint64_t kAll = 0;
    constexpr std::uint64_t kEachTo = 4;  // also where an earlier one was not met
    begin_with_windows();
    const auto look = [&](const Looks::Kind& kind, std::uint64_t window) {
        Reader reader = need(store_->reader());
        const auto events = need(store_->open<Event>(soon()));
        const Snapshot snapshot = need(reader.snapshot(soon()));
        Looks looks(events, snapshot, 1, kAllRows, window * kWindow);
        const Error error = (looks.*kind.read)();
        EXPECT_FALSE(looks.wrong());
        return error;
    };
    // The number of looks that met the failure and said so. Each in a window of its own, of which
    // no page is in the pool.
    const auto fail_each = [&](const Looks::Kind& kind) {
        std::uint64_t said = 0;
        std::uint64_t window = 0;
        bool failed = true;
        for (std::uint64_t nth = kAll; (failed || nth <= kEachTo) && !HasFailure();
             nth += 1 + nth / 3, ++window) {
            SCOPED_TRACE("page " + std::to_string(nth));
            met();
            nth == kAll ? fail("page-read") : fail_nth("page-read", nth);
            const Error error = look(kind, window);
            failed = met();
            heal();
            // A page that was read ahead of need may fail without a word. And what a read in place
            // keeps may be more than such a pool can do without.
            EXPECT_TRUE(error == Error::kOk || error == Error::kSnapshotExpired ||
                        (error == Error::kIoError && failed))
                << error_name(error);
            said += error == Error::kIoError;
            EXPECT_TRUE(eventually([&] { return look(kind, window) == Error::kOk; }));
        }
        EXPECT_LT(window, kAllWindows);
        return said;
    };
    for (const Looks::Kind& kind : Looks::kinds()) {
        SCOPED_TRACE(kind.name);
        start_again();  // no page is in the pool yet
        const std::uint64_t said = fail_each(kind);
        if (std::string_view(kind.name) == "prefetch") {  // asks, and does not wait for an answer
            EXPECT_EQ(said, 0u);
        } else {
            EXPECT_GT(said, 0u);
        }
    }
    EXPECT_EQ(need(store_->stats(soon())).mode, EngineMode::kServing);
    expect_sound_files();
}

// As a backup reads: all rows under one snapshot, of a table larger than the pool, with its large
// values. The n-th page read fails, alone (forwards) or with all later ones (backwards), with n on
// to where there is none.
TEST_F(FailingDaemon, AScanOfAWholeTableIsRightOrSaysThatItIsNot) {
    const auto events = begin_with_windows();
    Reader reader = need(store_->reader());
    const auto scan_all = [&](Looks::Read scan) {
        const Snapshot snapshot = need(reader.snapshot(soon()));
        for (std::uint64_t window = 0; window < kAllWindows; ++window) {
            Looks looks(events, snapshot, 1, kAllRows, window * kWindow);
            const Error error = (looks.*scan)();
            EXPECT_FALSE(looks.wrong()) << "window " << window;
            if (error != Error::kOk) return error;
        }
        return Error::kOk;
    };
    const auto fail_each = [&](Looks::Read scan, bool and_later) {
        ASSERT_EQ(scan_all(scan), Error::kOk);  // also with nothing in its way
        std::uint64_t said = 0;
        std::uint64_t nth = 1;
        std::uint64_t last = 0;  // that failed
        for (bool failed = true; failed && !HasFailure(); nth += 1 + nth / 2) {
            SCOPED_TRACE("page read " + std::to_string(nth) + (and_later ? " and later" : ""));
            met();
            fail_nth("page-read", nth, and_later);
            const Error error = scan_all(scan);
            failed = met();
            if (failed) last = nth;
            heal();
            // A page that was read ahead of need may fail alone without a word.
            const bool may_be_silent = !failed || !and_later;
            EXPECT_TRUE((error == Error::kIoError && failed) ||
                        (error == Error::kOk && may_be_silent))
                << error_name(error);
            said += error == Error::kIoError;
            EXPECT_TRUE(eventually([&] { return scan_all(scan) == Error::kOk; }));
        }
        EXPECT_GT(last, 2 * kAllWindows);  // beyond the first pages of each window
        EXPECT_GT(said, 0u);
    };
    for (const Looks::Kind& kind : Looks::kinds()) {
        const std::string_view name = kind.name;
        if (!name.starts_with("streaming scan of copies")) continue;
        SCOPED_TRACE(name);
        fail_each(kind.read, name.ends_with("backwards"));
    }
    expect_said("data", "reading", EIO);
    EXPECT_EQ(need(store_->stats(soon())).mode, EngineMode::kServing);
    expect_sound_files();
}

TEST_F(FailingDaemon, DoesNotStartFromADeviceThatFailsAndDoesFromOneThatIsWell) {
    begin_with_failpoints();
    {
        Writers writers(daemon_);
        EXPECT_TRUE(eventually([&] { return writers.acknowledged() > 20; }));
        daemon_.kill();
        for (const Step& step : {Step{"page-read", "data", "reading"},
                                 {"log-read", "log", "reading"},
                                 {"log-sync", "log", "syncing"},
                                 {"journal-sync", "journal", "syncing"},
                                 {"data-sync", "data", "syncing"},
                                 {"superblock", "data", "writing"}}) {
            SCOPED_TRACE(step.name);
            fail(step.name);
            EXPECT_EQ(daemon_.start_and_fail(), kEnvironment);
            expect_said(step.file, step.operation, EIO);
        }
        heal();
        ASSERT_TRUE(daemon_.start());
        expect_going_on(writers);
        writers.end();
        expect_every_write_once(writers);
    }
    expect_sound_files();
}

// One write waits for the log, which is slow; many relaxed ones behind it were answered at once,
// more than there are call slots. The daemon is killed, and the next one gets them all again, bit
// by bit. The new write that follows must not take the number of one of them: one in six was lost.
TEST_F(FailingDaemon, RelaxedWritesBehindOneWithoutAnswerAreAppliedOnceByTheNext) {
    daemon_.set("call_slots_per_client=32");
    begin_with_failpoints();
    Store store = attach(daemon_, Rights::kWriter);
    const auto table = need(store.open<Counted>(soon()));
    const auto count = [&](std::uint64_t id) {
        Transaction write;
        write.add<&Counted::amount>(table, table.key(id), 1, {.create = true});
        return write;
    };
    need(store.commit(count(0), soon()));
    const std::string hold = daemon_.directory() + "/hold";
    std::ofstream(hold) << "log-write";
    Pending first = need(store.submit(count(1), soon()));
    ASSERT_TRUE(eventually([&] { return std::filesystem::exists(daemon_.directory() + "/held"); }));
    constexpr std::uint64_t kRelaxed = 300;
    for (std::uint64_t i = 0; i < kRelaxed; ++i) {
        ASSERT_TRUE(is_ok(store.commit(count(2 + i % 3), soon(), Durability::kRelaxed))) << i;
    }
    EXPECT_FALSE(first.done());
    daemon_.kill();
    std::filesystem::remove(hold);
    ASSERT_TRUE(daemon_.start());
    EXPECT_TRUE(is_ok(store.commit(count(5), soon())));
    EXPECT_TRUE(is_ok(first.wait(soon())));
    EXPECT_TRUE(is_ok(store.commit(count(5), soon())));
    const auto rows = all_rows(store, table, 0, 10);
    ASSERT_EQ(rows.size(), 6u);
    const std::int64_t amounts[] = {1, 1, kRelaxed / 3, kRelaxed / 3, kRelaxed / 3, 2};
    for (const Counted& row : rows) EXPECT_EQ(row.amount, amounts[row.id]) << row.id;
}

}  // namespace
}  // namespace bidstore
