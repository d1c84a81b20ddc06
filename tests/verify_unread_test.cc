// Verification over a device whose reads fail: the N-th read alone, or that one and all later ones,
// for every N until it gets through without meeting it; at rest and beside a daemon.
//
// What cannot be read is said with file, offset and errno. It is never called damage, and nobody
// calls a store sound of which something was not read. What is damaged is said all the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "engine/unread_places.h"
#include "engine/verify_online.h"
#include "tests/rebuild_fixture.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRows = 250;  // on a tree of two levels
constexpr std::uint32_t kValues = 3;  // large ones

enum class Fails : std::uint8_t {
    kOnce,
    kFromThereOn,
    kPagesFromThereOn,  // and what is beside superblocks
};

// Where reads fail, and which of them did.
class FailingReads {
  public:
    FailingReads(SimDisk& disk, std::uint64_t nth, Fails how)
        : errno_(how == Fails::kFromThereOn ? ENODATA : EIO) {
        disk.observe([this, &disk, nth, how](std::uint64_t step, SimStep kind) {
            if (kind != SimStep::kSubmitRead) return;
            ++count_;
            if (how == Fails::kOnce ? count_ != nth : count_ < nth) return;
            const DiskRequest& request = *disk.submitting();
            const bool superblock = request.file == StoreFile::kData &&
                                    request.offset_bytes < kSuperblockCopies * kPageBytes;
            if (how == Fails::kPagesFromThereOn && superblock) return;
            disk.fail_at(step, errno_);
            met_.push_back({request.file, request.offset_bytes, request.length_bytes,
                            "reading " + disk.path(request.file) + " at offset " +
                                std::to_string(request.offset_bytes) + " ("});
        });
    }
    bool met() const { return !met_.empty(); }
    bool met(StoreFile file, PageId page) const {
        const std::uint64_t at = page.value * std::uint64_t{kPageBytes};
        return std::any_of(met_.begin(), met_.end(), [&](const Read& read) {
            return read.file == file && at >= read.offset_bytes &&
                   at < read.offset_bytes + read.length_bytes;
        });
    }
    bool is_one(const std::string& text) const {
        return std::any_of(met_.begin(), met_.end(), [&](const Read& read) {
            return text.find(read.words) != std::string::npos &&
                   text.find(errno_text()) != std::string::npos;
        });
    }
    const std::string& first() const { return met_.front().words; }
    std::string errno_text() const { return "(errno " + std::to_string(errno_) + ")"; }

  private:
    struct Read {
        StoreFile file;
        std::uint64_t offset_bytes;
        std::uint64_t length_bytes;
        std::string words;
    };
    const int errno_;
    std::uint64_t count_ = 0;
    std::vector<Read> met_;
};

// What one verification said.
struct Said {
    Failure failure;
    VerifyTotals totals;
    std::vector<BrokenRule> rules;

    bool sound() const {
        return failure.code == Error::kOk && totals.broken_data + totals.unread == 0;
    }
    std::string all() const {
        std::string text = failure.what + "\n";
        for (const BrokenRule& rule : rules) text += rule.what + "\n";
        return text;
    }
};

class VerifyUnread : public RebuildFixture {
  protected:
    struct Store {
        std::unique_ptr<SimDisk> stopped;
        std::unique_ptr<SimDisk> cut_off;  // with a journal to put in place, and a log to replay
        PageId leaf;
        PageId large;  // a page of a large value
    };
    static const Store& store() {
        static const Store made = make();
        return made;
    }
    static SimStoreOptions options() {
        SimStoreOptions options = rebuild_store();
        options.frames = 400;
        return options;
    }

    static Said verify(SimDisk& disk, bool online) {
        Said said;
        const auto sink = [&](const BrokenRule& rule) { said.rules.push_back(rule); };
        SimClock clock;
        if (online) {
            OnlineOptions slow;
            slow.pause = [&](std::uint64_t pause_ns) { clock.advance_ns(pause_ns); };
            const auto report = verify_online(disk, clock, slow, sink);
            if (report) said.totals = report->totals;
            if (!report) said.failure = report.failure();
        } else {
            PoolSegment segment = verifier_pool(300, 2 * kChunkPages);
            const auto report = verify_files(disk, clock, segment, engine_options(), sink);
            if (report) said.totals = report->totals;
            if (!report) said.failure = report.failure();
        }
        return said;
    }
    static Said verify_with(SimDisk& disk, PageId unreadable, bool online) {
        disk.bad_range(StoreFile::kData, unreadable.value * kPageBytes, kPageBytes, EIO);
        Said said = verify(disk, online);
        disk.clear_bad_ranges();
        return said;
    }

    // look(failing, said) at each of them.
    static void fail_everywhere(
        const SimDisk& files, bool online, std::uint64_t at_least,
        const std::function<void(const FailingReads&, const Said&, Fails how)>& look) {
        const char* const set = std::getenv("BIDSTORE_CRASH_STRIDE");
        const std::uint64_t stride = set != nullptr ? std::strtoull(set, nullptr, 10) : 1;
        for (const Fails how : {Fails::kOnce, Fails::kFromThereOn, Fails::kPagesFromThereOn}) {
            for (std::uint64_t nth = 1;; nth += stride) {
                SCOPED_TRACE("read " + std::to_string(nth) +
                             (how == Fails::kOnce ? "" : " and all later"));
                const auto disk = files.clone(nth);
                const FailingReads failing(*disk, nth, how);
                const Said said = verify(*disk, online);
                if (!failing.met()) {
                    EXPECT_GT(nth, at_least);
                    break;
                }
                expect_said(failing, said);
                look(failing, said, how);
                if (HasFailure()) return;
            }
        }
    }
    static void expect_said(const FailingReads& failing, const Said& said) {
        EXPECT_FALSE(said.sound()) << failing.first() << " failed, and it says sound";
        // Of several one, since it may end before what was found counts.
        bool named = failing.is_one(said.failure.what);
        for (const BrokenRule& rule : said.rules) {
            named = named || (rule.unread() && failing.is_one(rule.what));
            const bool more = rule.what.ends_with(" more reads failed");
            EXPECT_TRUE(!rule.unread() || more || failing.is_one(rule.what)) << rule.what;
        }
        EXPECT_TRUE(named) << failing.first() << " failed, and nobody names it:\n" << said.all();
        EXPECT_TRUE(said.failure.code == Error::kOk || said.failure.code == Error::kIoError)
            << said.failure.what;
    }
    static void expect_no_damage(const FailingReads&, const Said& said, Fails) {
        for (const BrokenRule& rule : said.rules) {
            EXPECT_TRUE(rule.unread()) << "called broken: " << rule.what;
        }
        EXPECT_EQ(said.totals.broken_data + said.totals.broken_space, 0u);
    }

  private:
    static Store make() {
        Store made;
        SimStore store(options(), std::make_unique<SimDisk>(), 1);
        CHECK(store.open().ok());
        SimClient& client = store.connect();
        CHECK(store.create_table(client, compaction_schema()) == kRowTable);
        CHECK(store.create_table(client, value_schema()) == kValueTable);
        CompactionRows rows;
        put_rows(store, client, kRowTable, 0, kRows, rows);
        for (std::uint32_t id = 0; id < kValues; ++id) {
            TransactionBytes put;
            put.operation(OperationKind::kPut, kValueTable, row_key(id), wide_row(id, 0, 9'000));
            CHECK(store.commit(client, put).error == Error::kOk);
        }
        Storage& storage = store.engine->core().storage();
        const Tree::Way way =
            storage.catalog->find(kRowTable)->tree.way_to(row_key(kRows / 2).data());
        made.leaf = way.step[way.depth - 1].page;
        CHECK(way.depth == 2);
        while (!storage.space.is_extent(made.large)) ++made.large.value;
        CHECK(store.stop());
        made.stopped = store.disk->clone(1);
        for (std::uint64_t after = 1; made.cut_off == nullptr; ++after) {
            CHECK(after < 1'000);
            SimStore again(options(), made.stopped->clone(after), after);
            CHECK(again.open().ok());
            put_rows(again, again.connect(), kRowTable, 40, 60, rows, 1);
            again.disk->crash_at(again.disk->steps() + after);
            CHECK(!again.stop());
            auto left = again.disk->process_crash(after);
            if (superblock_of(*left).journal_pages > 0) made.cut_off = std::move(left);
        }
        return made;
    }
};

TEST_F(VerifyUnread, NoReadThatFailsIsDamageOrSound) {
    for (const bool online : {false, true}) {
        SCOPED_TRACE(online ? "beside a daemon" : "at rest");
        const auto disk = store().stopped->clone(1);
        const Said sound = verify(*disk, online);
        ASSERT_TRUE(sound.sound() && sound.rules.empty()) << sound.all();
        fail_everywhere(*store().stopped, online, 40, expect_no_damage);
        if (HasFailure()) return;
    }
}

TEST_F(VerifyUnread, NorIsOneOfARecoveryWithJournalAndLog) {
    const auto disk = store().cut_off->clone(1);
    const Said sound = verify(*disk, false);
    ASSERT_TRUE(sound.sound() && sound.rules.empty()) << sound.all();
    fail_everywhere(*store().cut_off, false, 40, expect_no_damage);
}

// Whatever else cannot be read once: a leaf that is damaged is found, and nothing else is.
TEST_F(VerifyUnread, DamageElsewhereIsDamageStill) {
    const PageId leaf = store().leaf;
    const std::string name = "page " + std::to_string(leaf.value) + ":";
    const auto damaged = store().stopped->clone(1);
    damaged->flip(StoreFile::kData, leaf.value * kPageBytes + 1'500);
    for (const bool online : {false, true}) {
        SCOPED_TRACE(online ? "beside a daemon" : "at rest");
        std::uint64_t found = 0;
        const auto look = [&](const FailingReads& failing, const Said& said, Fails how) {
            found += said.totals.broken_data > 0;
            for (const BrokenRule& rule : said.rules) {
                const bool of_leaf = rule.what.find(name) != std::string::npos;
                EXPECT_TRUE(rule.unread() || of_leaf) << "called broken: " << rule.what;
            }
            if (how != Fails::kOnce || failing.met(StoreFile::kData, leaf)) return;
            EXPECT_GT(said.totals.broken_data, 0u) << said.all();
        };
        fail_everywhere(*damaged, online, 40, look);
        EXPECT_GT(found, 20u);
        if (HasFailure()) return;
    }
}

TEST_F(VerifyUnread, PlacesAreNamed) {
    const auto at = [](PageId page) {
        return "reading sim:/data at offset " + std::to_string(page.value * kPageBytes) +
               " (4096 bytes): Input/output error (errno 5)";
    };
    const std::string rows = "table " + std::to_string(kRowTable.value) + " (rows), page ";
    const std::string values = "table " + std::to_string(kValueTable.value) + " (values), page ";
    struct Place {
        PageId page;
        std::string at_rest;  // before what the device says
        std::string online;
    };
    const Store& files = store();
    const std::string leaf = rows + std::to_string(files.leaf.value) + ": ";
    const std::string large = values + std::to_string(files.large.value) + ": ";
    const Place places[] = {
        {files.leaf, leaf, leaf},
        {files.large, large, large},
        {meta_page(0), "", "metadata of chunk 0, page 2: "},
        {directory_page(0), "", "chunk directory, page 3: "},
        {PageId{1}, "superblock copy 1: ", ""},
    };
    for (const Place& place : places) {
        for (const bool online : {false, true}) {
            SCOPED_TRACE(std::to_string(place.page.value) + (online ? " beside" : " at rest"));
            const auto disk = files.stopped->clone(1);
            const Said said = verify_with(*disk, place.page, online);
            const std::string words = (online ? place.online : place.at_rest) + at(place.page);
            const bool named = std::any_of(
                said.rules.begin(), said.rules.end(),
                [&](const BrokenRule& rule) { return rule.unread() && rule.what == words; });
            EXPECT_TRUE(named) << words << " is not in:\n" << said.all();
            EXPECT_EQ(said.failure.code, Error::kOk) << said.failure.what;
            EXPECT_GT(said.totals.unread, 0u);
            EXPECT_EQ(said.totals.broken_data + said.totals.broken_space, 0u);
            EXPECT_TRUE(verify(*disk, online).sound()) << "the device is well again";
        }
    }
}

TEST(UnreadPlaces, OfStepsTogetherSayHowManyTheyDoNotName) {
    UnreadPlaces all;
    for (int step = 0; step < 3; ++step) {
        UnreadPlaces found;
        for (int i = 0; i < 150; ++i) found.add("page " + std::to_string(200 * step + i));
        all.add(found);
    }
    std::vector<std::string> words;
    all.each_unsaid([&](const std::string& what) { words.push_back(what); });
    ASSERT_EQ(words.size(), UnreadPlaces::kMost + 1);
    EXPECT_EQ(words.back(), "and 350 more reads failed");
    EXPECT_EQ(all.times(), 450u);
}

}  // namespace
}  // namespace bidstore
