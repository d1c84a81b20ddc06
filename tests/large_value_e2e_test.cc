// Large values through the public API, a real daemon and real files: up to 1 MiB, read in place and
// copied, under snapshots and from the disk, in a pool that is large enough and in one that is not.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "tests/real_store.h"

namespace bidstore {

struct Document {
    std::uint64_t id = 0;
    std::int64_t views = 0;
    std::string_view title;
    std::string_view body;
};

template <>
struct Describe<Document> {
    static constexpr auto table = bidstore::table<Document>(
        "documents", keys(column<&Document::id>("id")),
        values(column<&Document::views>("views"), column<&Document::title>("title"),
               column<&Document::body>("body", bytes)));
};

namespace {

std::string content(std::uint64_t seed, std::size_t length) {
    std::string text(length, ' ');
    for (std::size_t i = 0; i < length; ++i) {
        text[i] = static_cast<char>('a' + (seed + i / 61) % 26);
    }
    return text;
}

std::string_view as_text(std::span<const std::byte> bytes) {
    return {static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size()};
}

class LargeValues : public testing::Test {
  protected:
    void begin(std::vector<std::string> settings = {}) {
        daemon_.set("log_segment_bytes=4MiB");
        for (std::string& setting : settings) daemon_.set(setting);
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        store_.emplace(attach(daemon_));
        reader_.emplace(need(store_->reader()));
        table_.emplace(make_table<Document>(*store_));
    }
    // At the daemon that runs now: readers go on for a moment in the pool of one that is gone.
    void attach_again() {
        table_.reset();
        reader_.reset();
        store_.emplace(attach(daemon_));
        reader_.emplace(need(store_->reader()));
        table_.emplace(need(store_->open<Document>(soon())));
    }
    Status put(std::uint64_t id, const std::string& title, const std::string& body) {
        Transaction transaction;
        transaction.put(*table_, {.id = id, .views = 1, .title = title, .body = body});
        auto committed = store_->commit(transaction, soon());
        return committed.ok() ? Status{} : Status{committed.failure()};
    }
    std::optional<Copy<Document>> get(std::uint64_t id) {
        return need(table_->get(*reader_, soon(), id));
    }

    RealDaemon daemon_;
    std::optional<Store> store_;
    std::optional<Reader> reader_;
    std::optional<Table<Document>> table_;
};

constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST_F(LargeValues, OfAllSizesAreWrittenAndReadInEveryWay) {
    begin({"pool_bytes=64MiB"});
    const std::size_t sizes[] = {0, 100, 4'000, 4'100, 65'536, 300'000, kMiB};
    std::vector<Key<Document>> keys;
    for (std::uint64_t id = 0; id < std::size(sizes); ++id) {
        ASSERT_TRUE(is_ok(put(id, content(id, 30), content(id + 1, sizes[id]))));
        keys.push_back(table_->key(id));
    }
    const Snapshot snapshot = need(reader_->snapshot(soon()));
    const auto many = need(table_->multi_get(snapshot, keys));
    auto cursor = table_->scan(snapshot);
    for (std::uint64_t id = 0; id < std::size(sizes); ++id) {
        SCOPED_TRACE(sizes[id]);
        const std::string body = content(id + 1, sizes[id]);
        const auto copied = need(table_->get(snapshot, id));
        ASSERT_TRUE(copied.has_value());
        EXPECT_TRUE(copied->body == body && copied->title == content(id, 30));
        EXPECT_TRUE(many[id]->body == body);
        const auto row = need(table_->peek(snapshot, id));
        ASSERT_TRUE(row.has_value());
        EXPECT_TRUE(row->get<&Document::body>() == body);
        EXPECT_EQ(row->get<&Document::title>(), content(id, 30));
        EXPECT_TRUE(row->copy().body == body);
        const LargeValue value = need(row->large<&Document::body>());
        EXPECT_EQ(value.size(), sizes[id]);
        EXPECT_TRUE(value.contiguous()) << "a fresh pool has neighbouring frames";
        EXPECT_TRUE(value.intact());
        std::vector<std::byte> buffer;
        EXPECT_TRUE(as_text(value.span_or_copy(buffer)) == body);
        EXPECT_TRUE(buffer.empty()) << "read in place";
        ASSERT_TRUE(cursor.next());
        EXPECT_TRUE(cursor.row().get<&Document::body>() == body);
        EXPECT_TRUE(need(cursor.copy()).body == body);
    }
    EXPECT_FALSE(cursor.next());
    EXPECT_TRUE(is_ok(cursor.status()));
    EXPECT_TRUE(is_ok(snapshot.status()));
}

// The child has the pool, but none of its parent's segment, where the use of pages is marked: a
// look at a large value through a row that it inherited ended the child.
TEST_F(LargeValues, OfAnInheritedRowAreRefusedToAForkedChild) {
    begin({"pool_bytes=64MiB"});
    ASSERT_TRUE(is_ok(put(1, "title", content(1, kMiB))));
    const Snapshot snapshot = need(reader_->snapshot(soon()));
    const auto row = need(table_->peek(snapshot, 1));
    auto cursor = table_->scan(snapshot);
    ASSERT_TRUE(row.has_value() && cursor.next());
    const pid_t child = ::fork();
    if (child == 0) {
        int wrong = 0;
        const Result<LargeValue> value = row->large<&Document::body>();
        wrong += value.error() != Error::kInvalid ? 1 : 0;
        wrong += !row->get<&Document::body>().empty() ? 2 : 0;
        wrong += !row->copy().body.empty() ? 4 : 0;
        wrong += cursor.copy().ok() ? 8 : 0;
        wrong += !cursor.row().get<&Document::body>().empty() ? 16 : 0;
        wrong += snapshot.valid() ? 32 : 0;
        ::_exit(wrong);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_TRUE(row->get<&Document::body>() == content(1, kMiB));
    EXPECT_TRUE(snapshot.valid());
}

TEST_F(LargeValues, AreChangedComparedAndErased) {
    begin({"pool_bytes=64MiB"});
    ASSERT_TRUE(is_ok(put(1, "title", content(1, kMiB))));
    Transaction change;
    change.require_equals<&Document::body>(*table_, table_->key(1u), content(1, kMiB));
    EXPECT_TRUE(is_ok(store_->commit(change, soon())));
    Transaction other;
    other.require_equals<&Document::body>(*table_, table_->key(1u), content(2, kMiB));
    EXPECT_EQ(store_->commit(other, soon()).error(), Error::kPrecondition);
    Transaction update;
    const std::string title = content(3, kMiB);
    update.update(*table_, table_->key(1u), set<&Document::title>(title));
    update.add<&Document::views>(*table_, table_->key(1u), 6);
    ASSERT_TRUE(is_ok(store_->commit(update, soon())));
    EXPECT_EQ(get(1)->views, 7);
    EXPECT_TRUE(get(1)->title == title);
    EXPECT_TRUE(get(1)->body == content(1, kMiB));
    Transaction too_large;
    const std::string larger = content(1, kMiB + 1);
    too_large.put(*table_, {.id = 2, .views = 0, .title = "", .body = larger});
    const auto refused = store_->commit(too_large, soon());
    EXPECT_EQ(refused.error(), Error::kTooLarge);
    EXPECT_NE(refused.failure().what.find("1048576"), std::string::npos) << refused.failure().what;
    Transaction erase;
    erase.erase(*table_, table_->key(1u));
    ASSERT_TRUE(is_ok(store_->commit(erase, soon())));
    EXPECT_FALSE(get(1).has_value());
}

TEST_F(LargeValues, SurviveKillsAndAreReadFromTheFile) {
    begin({"pool_bytes=64MiB"});
    for (std::uint64_t id = 0; id < 8; ++id) {
        ASSERT_TRUE(is_ok(put(id, "t", content(id, 900'000))));
    }
    daemon_.kill();
    ASSERT_TRUE(daemon_.start());
    for (std::uint64_t id = 0; id < 8; ++id) EXPECT_TRUE(get(id)->body == content(id, 900'000));
    EXPECT_EQ(daemon_.stop(), 0);
    ASSERT_TRUE(daemon_.start());
    attach_again();
    for (std::uint64_t id = 0; id < 8; ++id) EXPECT_TRUE(get(id)->body == content(id, 900'000));
    EXPECT_GT(counter(*store_, Counter::kPageReads), 8u * 200);
    EXPECT_EQ(counter(*store_, Counter::kCorruptPages), 0u);
}

TEST_F(LargeValues, MoreThanThePoolHoldsAreReplacedWithoutEnd) {
    begin({"pool_bytes=16MiB", "max_data_bytes=96MiB"});
    for (std::uint64_t round = 0; round < 4; ++round) {
        for (std::uint64_t id = 0; id < 60; ++id) {
            ASSERT_TRUE(is_ok(put(id, "t", content(id + round, 500'000)))) << round << " " << id;
        }
    }
    // 120 MB went through a file of 96 MiB at most: what was replaced came back.
    for (std::uint64_t id = 0; id < 60; ++id)
        EXPECT_TRUE(get(id)->body == content(id + 3, 500'000));
    // A snapshot may be revoked while others want the machine: then it is taken again.
    bool read = false;
    for (int attempt = 0; attempt < 20 && !read; ++attempt) {
        const Snapshot snapshot = need(reader_->snapshot(soon()));
        const auto row = table_->peek(snapshot, 7u);
        if (!row.ok() || !*row) continue;
        const auto value = (*row)->large<&Document::body>();
        if (!value.ok()) continue;
        std::vector<std::byte> buffer;
        const bool same = as_text(value->span_or_copy(buffer)) == content(10, 500'000);
        std::size_t sum = 0;
        for (const auto& span : value->spans()) sum += span.size();
        if (!snapshot.valid()) continue;
        EXPECT_TRUE(same);
        EXPECT_EQ(sum, 500'000u);
        read = true;
    }
    EXPECT_TRUE(read);
}

// A pool that small values went through in no order has no long run of free frames.
TEST_F(LargeValues, InSeveralRunsOfFramesAreReadAsAListOfSpans) {
    begin({"pool_bytes=16MiB"});
    constexpr std::uint64_t kSmall = 2'000, kLarge = 10'000;
    for (std::uint64_t id = kLarge; id < kLarge + 4; ++id) {
        ASSERT_TRUE(is_ok(put(id, "t", content(id, kMiB - id))));
    }
    for (std::uint64_t id = 0; id < kSmall;) {
        std::vector<std::string> bodies;
        for (std::uint64_t i = 0; i < 50; ++i) bodies.push_back(content(id + i, 12'000));
        Transaction some;
        for (const std::string& body : bodies) {
            some.put(*table_, {.id = id++, .views = 1, .title = "t", .body = body});
        }
        ASSERT_TRUE(is_ok(store_->commit(some, soon())));
    }
    bool in_pieces = false;
    // What waits with a row in place may be in the way of the frames that it waits for, and its
    // snapshot is revoked: the next one finds them free.
    constexpr std::uint64_t kTries = 3;
    for (std::uint64_t turn = 0; turn < 40 * kTries && !in_pieces; ++turn) {
        for (std::uint64_t i = 0; i < kSmall && turn % kTries == 0; ++i) {
            ASSERT_TRUE(get((i * 1'237 + turn) % kSmall).has_value());
        }
        const std::uint64_t id = kLarge + turn / kTries % 4;
        const std::string body = content(id, kMiB - id);
        const Snapshot snapshot = need(reader_->snapshot(soon()));
        const auto row = table_->peek(snapshot, id);
        if (!row.ok() || !*row) continue;
        const auto value = (*row)->large<&Document::body>();
        if (!value.ok() || value->contiguous()) continue;
        std::string joined;
        for (const auto& span : value->spans()) joined += as_text(span);
        std::vector<std::byte> buffer;
        const std::string copied(as_text(value->span_or_copy(buffer)));
        std::vector<std::byte> to(value->size());
        value->copy_to(to.data());
        const bool intact = value->intact();
        const std::string viewed((*row)->get<&Document::body>());
        const std::string whole((*row)->copy().body);
        if (!snapshot.valid()) continue;
        in_pieces = true;
        EXPECT_GT(value->spans().size(), 1u);
        EXPECT_TRUE(joined == body) << joined.size() << " bytes";
        EXPECT_TRUE(copied == body && as_text(to) == body && intact);
        EXPECT_EQ(buffer.size(), body.size()) << "copied, since it has no one place";
        EXPECT_TRUE(viewed == body && whole == body) << "the calls that always work";
    }
    EXPECT_TRUE(in_pieces);
}

TEST_F(LargeValues, ThatTheRingCannotCarryAreRefusedWithTheRemedy) {
    begin({"pool_bytes=64MiB", "ring_bytes=1MiB"});
    EXPECT_TRUE(is_ok(put(1, "t", content(1, 500'000))));
    const Status refused = put(1, "t", content(2, 600'000));
    EXPECT_EQ(refused.error(), Error::kTooLarge);
    EXPECT_NE(refused.failure().what.find("ring_bytes"), std::string::npos)
        << refused.failure().what;
    EXPECT_TRUE(get(1)->body == content(1, 500'000));
}

constexpr char kDocuments[] = R"([[table]]
name = "documents"
mode = "put"
key = ["id"]
columns = [
    { name = "id", type = "u64", path = "id" },
    { name = "views", type = "i64", path = "views" },
    { name = "title", type = "text", path = "title" },
    { name = "body", type = "bytes", path = "body", decode = "text" },
]
)";

std::size_t body_bytes(std::uint64_t id) { return id == 7 ? 1u << 20 : id * 7'919 % 60'000; }

std::string document_line(std::uint64_t id, bool json) {
    const std::string number = std::to_string(id);
    const std::string body = content(id, body_bytes(id));
    return json ? R"({"id":)" + number + R"(,"views":1,"title":"t","body":")" + body + "\"}\n"
                : number + ",1,t," + body + "\n";
}

class LoadedValues : public LargeValues {
  protected:
    // 300 rows, 9 MB, of which the 1 MiB that --memory keeps is a small part.
    Finished load(bool json, bool sorted) {
        constexpr std::uint64_t kRows = 300;
        std::string file = json ? "" : "id,views,title,body\n";
        for (std::uint64_t i = 0; i < kRows; ++i) {
            file += document_line(sorted ? i : (i * 77 + 5) % kRows, json);
        }
        const std::string path = work_.file(json ? "documents.jsonl" : "documents.csv");
        std::ofstream(path, std::ios::binary) << file;
        std::ofstream(work_.file("documents.toml")) << kDocuments;
        std::vector<std::string> command{std::string(BIDSTORE_BINARY_DIR) + "/bidstore",
                                         "--socket",
                                         daemon_.socket(),
                                         "load",
                                         "documents",
                                         path,
                                         "--mapping",
                                         work_.file("documents.toml")};
        if (sorted)
            command.push_back("--sorted");
        else
            command.insert(command.end(), {"--memory", "1", "--temp-dir", work_.path()});
        return run_to_end(command);
    }
    void expect_all() {
        for (std::uint64_t id = 0; id < 300; ++id) {
            const auto found = get(id);
            ASSERT_TRUE(found.has_value()) << id;
            EXPECT_TRUE(found->body == content(id, body_bytes(id))) << id;
        }
    }
    WorkDirectory work_;
};

TEST_F(LoadedValues, ComeFromLinesInOrderOrNot) {
    for (const bool json : {true, false}) {
        for (const bool sorted : {true, false}) {
            SCOPED_TRACE(std::string(json ? "json" : "csv") + (sorted ? ", sorted" : ""));
            if (!store_) begin({"pool_bytes=64MiB"});
            const Finished loaded = load(json, sorted);
            ASSERT_EQ(loaded.status, 0) << loaded.output;
            table_.emplace(need(store_->open<Document>(soon())));
            expect_all();
            const Finished again = load(json, sorted);
            EXPECT_EQ(again.status, 4) << again.output;
            ASSERT_EQ(run_to_end({std::string(BIDSTORE_BINARY_DIR) + "/bidstore", "--socket",
                                  daemon_.socket(), "table", "drop", "documents"})
                          .status,
                      0);
            table_.emplace(make_table<Document>(*store_));
        }
    }
    ASSERT_EQ(load(true, false).status, 0);
    // What was acknowledged is there after a kill, and the verifier finds every page in its place.
    daemon_.kill();
    auto verify = daemon_.command();
    verify.push_back("--verify");
    const Finished sound = run_to_end(verify);
    EXPECT_EQ(sound.status, 0) << sound.output;
    ASSERT_TRUE(daemon_.start());
    attach_again();
    expect_all();
}

}  // namespace
}  // namespace bidstore
