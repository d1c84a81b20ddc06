// A device that fails: at the N-th operation alone, or at that one and all later ones, for every N
// until the work gets through without meeting it. Opening, commits, checkpoints, growth, loads,
// recovery, dropping, compaction, scans.
//
// Whatever fails: no wrong answer, no acknowledgement that does not hold, an error that names
// operation, file, offset and errno of what failed first; a daemon whose log or checkpoint failed
// is fenced; and on the same files, when the device is well again, it starts and has everything.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "tests/compaction_fixture.h"
#include "tests/load_fixture.h"
#include "tests/numbered.h"
#include "tests/sim_life.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kRememberedNs = 200'000'000;  // a failed read, and a little more

using namespace numbered;

// Sets the failure, and knows what it met. Outlives the disk.
class Failing {
  public:
    Failing(SimDisk& disk, std::uint64_t nth, bool lasting) : disk_(disk) {
        disk.observe([this, nth, lasting](std::uint64_t step, SimStep kind) {
            if (kind == SimStep::kComplete || is_second_half(kind)) return;
            ++count_;
            if (over_ || (lasting ? count_ < nth : count_ != nth)) return;
            disk_.fail_at(step, EIO);
            cutting_ = false;
            met_.push_back(operation(kind));
        });
    }
    // The device is well from here on.
    void end() { over_ = true; }
    bool met() const { return !met_.empty(); }
    // One of them was of this kind.
    bool met(DiskRequest::Kind kind) const {
        return std::any_of(met_.begin(), met_.end(),
                           [&](const Operation& each) { return each.kind == kind; });
    }
    // One of them was a write, and not of pages.
    bool met_write_beside_pages() const {
        return std::any_of(met_.begin(), met_.end(), [](const Operation& each) {
            return each.kind == DiskRequest::Kind::kWrite && !each.of_pages;
        });
    }
    std::string what() const { return met() ? met_.front().words + met_.front().place : "nothing"; }

    // What nobody named of it, or an empty string. Of several one has to be named, since they come
    // back in any order; a daemon that is fenced says by which of them. Of a punch nobody has to
    // speak: the cut gives the room back, too.
    std::string unsaid(const SimStore& store, const Status& opened = {}) const {
        std::vector<std::string> said = store.log_lines;
        if (!opened) said.push_back(opened.failure().what);
        const std::string fenced = store.engine ? store.engine->fence_reason() : "";
        const auto names_one = [this](const std::string& line) {
            return std::any_of(met_.begin(), met_.end(), [&](const Operation& each) {
                return each.has_to_be_said() && each.is_named_by(line);
            });
        };
        const bool all_punches = std::none_of(
            met_.begin(), met_.end(), [](const Operation& each) { return each.has_to_be_said(); });
        std::string all;
        if (!fenced.empty() && !names_one(fenced)) {
            all = "fenced by nothing that failed: " + fenced;
        } else if (!all_punches && std::none_of(said.begin(), said.end(), names_one)) {
            all = what() + " failed, and nobody names it";
        } else {
            return "";
        }
        for (const std::string& line : said) all += "\n  " + line;
        return all;
    }

  private:
    struct Operation {
        std::optional<DiskRequest::Kind> kind;  // nothing: a change of a file's size
        std::string words;                      // as the engine says them
        std::string place;
        bool of_pages = false;
        bool has_to_be_said() const { return kind != DiskRequest::Kind::kPunch; }
        bool is_named_by(const std::string& line) const {
            const auto has = [&](const std::string& part) {
                return line.find(part) != std::string::npos;
            };
            return has(words) && has(place) && has("errno 5");
        }
    };
    // A change of a file's size is two steps, of which the first can fail.
    bool is_second_half(SimStep kind) {
        if (kind == SimStep::kResize) cutting_ = !cutting_;
        return kind == SimStep::kResize && !cutting_;
    }
    Operation operation(SimStep kind) const {
        constexpr const char* kWords[] = {"reading ", "writing ",  "syncing ", "growing ",
                                          "growing ", "punching ", "cutting "};
        if (kind == SimStep::kResize) return {std::nullopt, "resizing ", ""};
        const DiskRequest& request = *disk_.submitting();
        Operation made{request.kind, kWords[static_cast<unsigned>(request.kind)], ""};
        made.of_pages = request.file == StoreFile::kData &&
                        request.offset_bytes >= kSuperblockCopies * std::uint64_t{kBlockBytes};
        made.words += disk_.path(request.file);
        if (request.kind != DiskRequest::Kind::kSync) {
            made.place = " at offset " + std::to_string(request.offset_bytes) + " ";
        }
        return made;
    }

    SimDisk& disk_;
    std::uint64_t count_ = 0;
    bool over_ = false;
    bool cutting_ = false;
    std::vector<Operation> met_;
};

std::uint64_t stride() {
    const char* set = std::getenv("BIDSTORE_CRASH_STRIDE");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : 1;
}

// attempt(nth, lasting) says whether it met the failure.
void fail_everywhere(std::uint64_t at_least,
                     const std::function<bool(std::uint64_t nth, bool lasting)>& attempt) {
    for (const bool lasting : {false, true}) {
        for (std::uint64_t nth = 1;; nth += stride()) {
            SCOPED_TRACE("operation " + std::to_string(nth) + (lasting ? " and all later" : ""));
            const bool met = attempt(nth, lasting);
            if (::testing::Test::HasFailure()) return;
            if (met) continue;
            EXPECT_GT(nth, at_least);
            break;
        }
    }
}

// The daemon is gone; what the next one finds.
std::unique_ptr<SimDisk> next(const SimStore& store, std::uint64_t nth) {
    return nth % 2 == 0 ? store.disk->power_loss(nth) : store.disk->process_crash(nth);
}

SimStoreOptions options(std::uint32_t frames = 700) {
    SimStoreOptions options = small_store();
    options.frames = frames;
    options.memory = SimMemory::of_process();
    options.engine.checkpoint_interval_ns = 100'000;  // some rounds: many checkpoints
    return options;
}

// A store with the first `transactions` of them, stopped.
std::unique_ptr<SimDisk> prepared(const SimStoreOptions& shape, std::uint64_t transactions) {
    SimDiskOptions disk;
    disk.seed = 5;
    SimStore store(shape, std::make_unique<SimDisk>(disk), 5);
    CHECK(store.open().ok());
    SimClient& client = store.connect();
    CHECK(store.create_table(client, fixed_schema()) == kFixed);
    CHECK(store.create_table(client, variable_schema()) == kVariable);
    const Workload workload(5, kFixed, kVariable);
    const Life life = run(store, client, workload, {}, 1, transactions);
    CHECK(life.acknowledged == transactions);
    CHECK(store.stop());
    return store.disk->clone(5);
}

// What was acknowledged is there, what was refused is not, and the rest is whole.
void expect_kept(SimStore& store, const Life& life) {
    EXPECT_EQ(store.verify(), "");
    const Content found = read_content(store, kFixed, kVariable);
    EXPECT_GE(found.marker, life.acknowledged) << "an acknowledged transaction is missing";
    EXPECT_LE(found.marker, life.submitted);
    const bool unknown = life.refusal == Error::kOk || life.refusal == Error::kUnknownOutcome;
    EXPECT_TRUE(unknown || found.marker == life.acknowledged) << "a refused one is there";
    const Content expected = content_after(Workload(5, kFixed, kVariable), found.marker);
    EXPECT_EQ(found.fixed, expected.fixed);
    EXPECT_EQ(found.variable, expected.variable);
}

void expect_kept(const SimStoreOptions& shape, std::unique_ptr<SimDisk> disk, const Life& life) {
    SimStore store(shape, std::move(disk), 9);
    const Status opened = store.open();
    ASSERT_TRUE(opened.ok()) << opened.failure().what;
    expect_kept(store, life);
}

// It says nothing more, whoever asks.
void expect_fenced(SimStore& store, SimClient& client, const Failing& failing) {
    store.run_until([] { return false; }, 200);  // until what was under way has come back
    EXPECT_FALSE(store.engine->fence_reason().empty()) << "after: " << failing.what();
    EXPECT_EQ(store.pool->header().engine.mode.load(), EngineMode::kFenced);
    const std::uint64_t visible = store.pool->header().published.visible.load();
    const Workload workload(5, kFixed, kVariable);
    Content content;
    const auto token = client.submit(workload.make(1, content).bytes());
    for (int i = 0; i < 5; ++i) EXPECT_EQ(store.round(), EngineRound::kFenced);
    if (!token) return;
    const auto answer = client.answer(*token);
    EXPECT_TRUE(!answer || answer->error != Error::kOk);
    EXPECT_EQ(store.pool->header().published.visible.load(), visible);
}

// A sync, growth, a cut; a write of the log, of the journal, of a superblock.
bool has_to_fence_whatever_it_wrote(const Failing& failing) {
    return failing.met(DiskRequest::Kind::kSync) || failing.met(DiskRequest::Kind::kGrow) ||
           failing.met(DiskRequest::Kind::kExtend) || failing.met(DiskRequest::Kind::kCut) ||
           failing.met_write_beside_pages();
}
// These, and pages that a checkpoint writes: nothing is known about the device then.
bool has_to_fence(const Failing& failing) {
    return failing.met(DiskRequest::Kind::kWrite) || has_to_fence_whatever_it_wrote(failing);
}

TEST(FailingDisk, MakingNewFilesIsRefusedAndBegunAnew) {
    fail_everywhere(20, [](std::uint64_t nth, bool lasting) {
        SimDiskOptions disk;
        disk.seed = nth;
        SimStore store(options(), std::make_unique<SimDisk>(disk), nth);
        Failing failing(*store.disk, nth, lasting);
        const Status opened = store.open();
        EXPECT_NE(opened.ok(), failing.met()) << failing.what();
        EXPECT_EQ(failing.unsaid(store, opened), "");
        SimStore again(options(), next(store, nth), nth);
        const Status anew = again.open();
        EXPECT_TRUE(anew.ok()) << anew.failure().what;
        EXPECT_EQ(anew ? again.verify() : "", "");
        return failing.met();
    });
}

// Commits with checkpoints beside them, the last one that of a clean stop.
TEST(FailingDisk, CommitsAndCheckpointsAreFencedAndKeepWhatWasAcknowledged) {
    const auto before = prepared(options(), 60);
    const Content content = content_after(Workload(5, kFixed, kVariable), 60);
    fail_everywhere(60, [&](std::uint64_t nth, bool lasting) {
        SimStore store(options(), before->clone(nth), nth);
        EXPECT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        static_cast<void>(read_content(store, kFixed, kVariable));  // nothing is read from here on
        Failing failing(*store.disk, nth, lasting);
        const Workload workload(5, kFixed, kVariable);
        const Life life = run(store, client, workload, content, 61, 90);
        const bool stopped = life.acknowledged == 90 && store.stop();
        EXPECT_NE(stopped, failing.met()) << life.acknowledged << error_name(life.refusal);
        if (has_to_fence(failing)) expect_fenced(store, client, failing);
        EXPECT_EQ(failing.unsaid(store), "");
        expect_kept(options(), next(store, nth), life);
        return failing.met();
    });
}

// A pool smaller than the store: transactions read pages, and one that cannot is refused, and taken
// when it comes again.
TEST(FailingDisk, TransactionsWhosePagesCannotBeReadAreRefusedWhole) {
    const SimStoreOptions shape = options();
    const auto before = prepared(options(), 300);
    const Content content = content_after(Workload(5, kFixed, kVariable), 300);
    std::uint64_t refused = 0;
    fail_everywhere(60, [&](std::uint64_t nth, bool lasting) {
        SimStore store(shape, before->clone(nth), nth);
        EXPECT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        Failing failing(*store.disk, nth, lasting);
        const Workload workload(5, kFixed, kVariable);
        Life life = run(store, client, workload, content, 301, 315, 1);
        if (has_to_fence(failing)) expect_fenced(store, client, failing);
        EXPECT_EQ(failing.unsaid(store), "");
        if (store.engine->fence_reason().empty() && life.acknowledged < 315) {
            ++refused;
            EXPECT_EQ(life.refusal, Error::kIoError);
            failing.end();
            store.clock.advance_ns(kRememberedNs);
            const Content then = content_after(workload, life.acknowledged);
            life = run(store, client, workload, then, life.acknowledged + 1, 315, 1);
            const bool fenced = !store.engine->fence_reason().empty();  // met before the end
            EXPECT_TRUE(life.acknowledged == 315 || fenced) << error_name(life.refusal);
        }
        expect_kept(shape, next(store, nth), life);
        return failing.met();
    });
    EXPECT_GT(refused, 20 / stride());
}

// Of files as a power loss in the middle of checkpoints leaves them, some with a journal to apply.
TEST(FailingDisk, RecoveryIsRefusedOrRightAndCanBeDoneAgain) {
    const auto before = prepared(options(), 60);
    const Workload workload(5, kFixed, kVariable);
    const Content content = content_after(workload, 60);
    std::uint64_t journals = 0;
    for (std::uint64_t crash = 40; crash <= 240; crash += 20) {
        SimStore store(options(), before->clone(crash), crash);
        ASSERT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        store.disk->crash_at(store.disk->steps() + crash);
        const Life life = run(store, client, workload, content, 61, 120);
        const auto left = store.disk->power_loss(crash);
        Superblock superblock{};
        std::memcpy(&superblock, left->peek(StoreFile::kData, 0, sizeof superblock).data(),
                    sizeof superblock);
        journals += superblock.journal_pages != 0;
        fail_everywhere(20, [&](std::uint64_t nth, bool lasting) {
            SCOPED_TRACE("crash at " + std::to_string(crash));
            SimStore again(options(), left->clone(nth), nth);
            Failing failing(*again.disk, nth, lasting);
            const Status opened = again.open();
            failing.end();
            EXPECT_EQ(failing.unsaid(again, opened), "");
            // What was accepted and never answered may be there or not, but stays so.
            if (opened) expect_kept(again, life);
            EXPECT_TRUE(opened.ok() || failing.met());
            expect_kept(options(), next(again, nth), life);
            return failing.met();
        });
        if (HasFailure()) return;
    }
    EXPECT_GT(journals, 0u);
}

// The number of the transaction with which the file begins to grow, of a store that was opened with
// `prepared_ones`.
std::uint64_t begins_to_grow(const SimStoreOptions& shape, std::uint64_t prepared_ones) {
    SimStore store(shape, prepared(shape, prepared_ones), 1);
    CHECK(store.open().ok());
    SimClient& client = store.connect();
    const Workload workload(5, kFixed, kVariable);
    Content content = content_after(workload, prepared_ones);
    for (std::uint64_t number = prepared_ones;; workload.make(number, content)) {
        if (store.engine->core().storage().space.growth().running()) return number;
        ++number;
        CHECK(run(store, client, workload, content, number, number).acknowledged == number);
    }
}

TEST(FailingDisk, GrowthIsFencedAndDoneAgain) {
    SimStoreOptions shape = options(2'000);
    shape.engine.checkpoint_interval_ns = 3'600'000'000'000;
    std::uint64_t first = 110;  // not so many that it grows when it is opened
    while (begins_to_grow(shape, first) == first) first -= 5;
    const std::uint64_t last = begins_to_grow(shape, first) + 4;
    const auto before = prepared(shape, first);
    const Workload workload(5, kFixed, kVariable);
    const Content content = content_after(workload, first);
    bool grew = false;
    fail_everywhere(30, [&](std::uint64_t nth, bool lasting) {
        SimStore store(shape, before->clone(nth), nth);
        EXPECT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        Failing failing(*store.disk, nth, lasting);
        const Life life = run(store, client, workload, content, first + 1, last, 1);
        const bool done = store.run_until(
            [&] { return !store.engine->core().storage().space.growth().running(); });
        if (has_to_fence(failing)) expect_fenced(store, client, failing);
        EXPECT_EQ(failing.unsaid(store), "");
        grew |= !lasting && failing.met(DiskRequest::Kind::kGrow);
        EXPECT_TRUE(done || failing.met());
        expect_kept(shape, next(store, nth), life);
        return failing.met();
    });
    EXPECT_TRUE(grew);
}

// Rows with large values beside commits; a load whose write fails is refused, one whose sync fails
// takes the daemon with it.
TEST(FailingDisk, LoadsAreWholeOrGone) {
    SimStoreOptions shape = options();
    shape.engine.checkpoint_interval_ns = 400'000;
    const auto before = prepared(shape, 40);
    const Workload workload(5, kFixed, kVariable);
    const Content content = content_after(workload, 40);
    const Schema schema = load_schema("loaded", true);
    LoadRows rows = make_load_rows(schema, 400, 3);
    rows.merge(make_wide_rows(schema, 12, 30'000, 4));
    std::uint64_t refused_alone = 0;
    fail_everywhere(35, [&](std::uint64_t nth, bool lasting) {
        SimStore store(shape, before->clone(nth), nth);
        EXPECT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        SimClient& loader = store.connect();
        Failing failing(*store.disk, nth, lasting);
        LoadClient load(loader, schema, rows);
        Life life{40, 40, Error::kOk};
        Content now = content;
        bool over = false;
        for (int i = 0; !over && i < 2'000; ++i) {
            over = load.step() || store.round() == EngineRound::kFenced;
            if (over || i % 10 != 0) continue;
            life = run(store, client, workload, now, life.submitted + 1, life.submitted + 1);
            over = life.acknowledged != life.submitted;
            workload.make(life.submitted, now);
        }
        EXPECT_TRUE(over);
        store.run_until([] { return false; }, 200);  // until what was under way has come back
        EXPECT_EQ(failing.unsaid(store), "");
        EXPECT_TRUE(failing.met() || load.loaded());
        // Pages are those of a checkpoint, or the load's own, which is refused then.
        const bool refused = load.error() == Error::kIoError;
        if (has_to_fence_whatever_it_wrote(failing) || (has_to_fence(failing) && !refused)) {
            expect_fenced(store, client, failing);
        }
        refused_alone += refused && store.engine->fence_reason().empty();
        SimStore after(shape, next(store, nth), nth);
        EXPECT_TRUE(after.open().ok());
        expect_kept(after, life);
        const TableEntry* table = table_named(after, "loaded");
        EXPECT_TRUE(table != nullptr || !load.loaded()) << "an acknowledged load is gone";
        EXPECT_TRUE(table == nullptr || after.rows(table->id) == rows) << "half a load";
        return failing.met();
    });
    EXPECT_TRUE(refused_alone > 0 || stride() > 1);
}

// Leaves come from the file: each read of a snapshot has the right rows or an error, and needs
// nothing but a device that is well to have them again.
TEST(FailingDisk, ScansAndGetsAreRightOrSayWhatFailed) {
    SimStoreOptions shape = options(60);
    shape.engine.checkpoint_interval_ns = 3'600'000'000'000;
    const Schema schema = load_schema("loaded", true);
    LoadRows rows = make_load_rows(schema, 600, 3);
    rows.merge(make_wide_rows(schema, 12, 30'000, 4));
    const auto before = [&] {
        SimStore store(shape, prepared(shape, 1), 5);
        CHECK(store.open().ok());
        CHECK(run_load(store, store.connect(), schema, rows) == Error::kOk);
        CHECK(store.stop());
        return store.disk->clone(5);
    }();
    constexpr int kRowsBetweenGets = 21;
    std::uint64_t failed = 0;
    std::uint64_t gets_failed = 0;
    std::uint64_t hinted = 0;  // by the key directory
    fail_everywhere(40, [&](std::uint64_t nth, bool lasting) {
        SimLife life(shape, before->clone(nth), nth, SimClock{});
        EXPECT_TRUE(life.status().ok());
        SimStore& store = life.store;
        SimClient& client = store.connect();
        const TableEntry* table = table_named(store, "loaded");
        const TreeShape tree(schema, table->id);
        // Some leaves at a time, each under a snapshot of its own, that holds few frames.
        const auto scan = [&](std::string& trouble) -> std::optional<LoadRows> {
            LoadRows all;
            for (std::vector<std::byte> from(16);;) {
                SimSnapshot snapshot(store, *life.view, client, 1);
                int leaves = 0;
                auto found = snapshot.range(tree, table->tree.root(), from, {},
                                            [&] { return ++leaves < 2; });
                if (found) found = snapshot.whole(schema, std::move(*found));
                trouble = snapshot.trouble();
                if (!found) return std::nullopt;
                all.insert(found->begin(), found->end());
                if (leaves < 2) return all;
                from = found->rbegin()->first;
            }
        };
        // Some rows, each under a snapshot of its own, half of them by the key directory first, as
        // the library does; and a key that has none. False: one of them could not be read.
        const auto look_up = [&](std::string& trouble) {
            int number = 0;
            for (const auto& [key, value] : rows) {
                if (++number % kRowsBetweenGets != 0) continue;
                SimSnapshot snapshot(store, *life.view, client, 1);
                std::optional<std::vector<std::byte>> stored;
                if (number % 2 == 0) {
                    stored = snapshot.by_directory(schema, tree, table->tree.root(), key);
                    hinted += stored.has_value();
                }
                if (!stored) {
                    const auto got = snapshot.get(tree, table->tree.root(), key);
                    trouble = snapshot.trouble();
                    if (!got) return false;
                    EXPECT_TRUE(got->has_value()) << "a row is not found";
                    if (!*got) continue;
                    stored = *got;
                }
                const auto whole = snapshot.whole(schema, *stored);
                trouble = snapshot.trouble();
                if (!whole) return false;
                EXPECT_EQ(*whole, value) << "a wrong row";
            }
            SimSnapshot snapshot(store, *life.view, client, 1);
            const std::vector<std::byte> nobodys(16, std::byte{0xff});
            const auto none = snapshot.get(tree, table->tree.root(), nobodys);
            trouble = snapshot.trouble();
            EXPECT_TRUE(!none || !*none) << "a row that nobody put";
            return none.has_value();
        };
        Failing failing(*store.disk, nth, lasting);
        std::string scan_trouble;
        std::string get_trouble;
        const auto found = scan(scan_trouble);
        const bool got = look_up(get_trouble);
        EXPECT_EQ(failing.unsaid(store), "");
        const bool well = store.engine->fence_reason().empty();  // no idle batch met it
        EXPECT_TRUE(well || has_to_fence(failing));
        EXPECT_TRUE(!found || *found == rows) << "wrong rows";
        for (const auto& [right, trouble] :
             {std::pair(found.has_value(), scan_trouble), std::pair(got, get_trouble)}) {
            if (right) continue;
            EXPECT_TRUE(!well || trouble.find("IoError") != std::string::npos) << trouble;
            EXPECT_TRUE(failing.met());
        }
        failed += !found;
        gets_failed += !got;
        const bool met = failing.met();
        failing.end();
        store.clock.advance_ns(kRememberedNs);
        const auto after = well ? scan(scan_trouble) : std::nullopt;
        EXPECT_TRUE(!after || *after == rows) << "wrong rows";
        // A batch of housekeeping may have met the failure, too, and heard of it only now.
        EXPECT_TRUE(after || !store.engine->fence_reason().empty()) << scan_trouble;
        const bool got_after = after && look_up(get_trouble);
        EXPECT_TRUE(got_after || !store.engine->fence_reason().empty()) << get_trouble;
        return met;
    });
    EXPECT_GT(failed, 40 / stride());
    EXPECT_GT(gets_failed, 10 / stride());
    EXPECT_GT(hinted, 0u);
}

// A table is dropped and the file compacted beside commits: moves, holes, the cut of the file.
TEST(FailingDisk, DroppingAndCompactionAreFencedAndDoneAgain) {
    SimStoreOptions shape = options(1'500);
    shape.engine.checkpoint_interval_ns = 400'000;
    const Schema schema = load_schema("loaded", false);
    CompactionRows before_rows;
    const auto before = [&] {
        SimDiskOptions disk;
        disk.seed = 5;
        SimStore store(shape, std::make_unique<SimDisk>(disk), 5);
        CHECK(store.open().ok());
        SimClient& client = store.connect();
        const TableId behind = store.create_table(client, compaction_schema());
        CHECK(run_load(store, client, schema, make_load_rows(schema, 12'000, 3)) == Error::kOk);
        put_rows(store, client, behind, 0, 3'000, before_rows);
        CHECK(store.stop());
        return store.disk->clone(5);
    }();
    std::uint64_t moved = 0;
    fail_everywhere(100, [&](std::uint64_t nth, bool lasting) {
        SimStore store(shape, before->clone(nth), nth);
        EXPECT_TRUE(store.open().ok());
        SimClient& client = store.connect();
        SimClient& other = store.connect();
        const TableId behind = table_named(store, "rows")->id;
        Failing failing(*store.disk, nth, lasting);
        TransactionBytes drop;
        drop.operation(OperationKind::kDropTable, table_named(store, "loaded")->id, {}, {});
        const bool dropped = store.commit(other, drop).error == Error::kOk;
        store.run_until([&] { return unfinished_tables(store) == 0; });
        CompactClient compact(other, 64);
        CompactionRows rows = before_rows;
        std::uint32_t put = 0;
        bool over = !dropped;
        for (int i = 0; !over && i < 3'000; ++i) {
            store.clock.advance_ns(100'000);
            over = compact.advance() || store.round() == EngineRound::kFenced;
            if (over || i % 40 != 0) continue;
            put_rows(store, client, behind, put * 20, put * 20 + 20, rows, 7);
            ++put;
        }
        store.run_until([&] { return !store.engine->core().storage().space.growth().running(); });
        if (has_to_fence(failing)) expect_fenced(store, client, failing);
        EXPECT_EQ(failing.unsaid(store), "");
        moved += compact.moved();
        SimStore after(shape, next(store, nth), nth);
        EXPECT_TRUE(after.open().ok());
        EXPECT_EQ(after.verify(), "");
        EXPECT_TRUE(!dropped || table_named(after, "loaded") == nullptr);
        // The last twenty may have been put without an answer.
        CompactionRows with_last = rows;
        for (std::uint32_t id = put == 0 ? 0 : put * 20 - 20; id < put * 20; ++id) {
            with_last[row_key(id)] = row_value(id, 7);
        }
        const CompactionRows found = after.rows(behind);
        EXPECT_TRUE(found == rows || found == with_last);
        return failing.met();
    });
    EXPECT_GT(moved, 0u);
}

}  // namespace
}  // namespace bidstore
