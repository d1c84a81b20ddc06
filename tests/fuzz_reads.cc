// The client library's reads in a pool of any bytes: by the key directory, by the tree, many at
// once, prefetches, scans, large values and the walk that counts a table's space, with page map,
// versions and directory as the input says, and a daemon that answers nothing, or as the input
// says, and changes the pool before. A row lies within a page, is the one that was asked for, and
// each read ends.
//
// Input: the shape (key length and, above, whether the daemon answers; length of the value or none:
// variable rows), how many keys, where the daemon answers how often and how (four bytes each, see
// Pool::change), a key, the frame of each page, the next older one of each frame, the directory's
// entries, then the bytes of the frames, each behind the other. A byte of zeros means the page's
// own frame.
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "clientlib/large_value.h"
#include "clientlib/session.h"
#include "clientlib/space_report.h"
#include "engine/page/catalog_schema.h"
#include "engine/page/search.h"
#include "shm/call_slot.h"
#include "shm/key_directory.h"
#include "shm/message.h"
#include "shm/reader_slot.h"
#include "shm/ring.h"
#include "tests/fuzz.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kFrames = 4;
constexpr std::uint32_t kPages = 8;
constexpr std::uint32_t kKeysMax = 40;     // more than descend together
constexpr std::uint64_t kRowsMax = 100;    // of a scan
constexpr TableId kTable = kCatalogTable;  // whose root is where the pool's header says
constexpr PageId kRoot{1};
constexpr std::uint64_t kVisible = 8;
constexpr std::array<std::uint32_t, 2> kVariableColumns{2, 3};

using How = std::array<std::uint8_t, 4>;  // of an answer
constexpr std::uint8_t kRefused = 128;

class Pool {
  public:
    Pool() : segment_(must(PoolSegment::create(shape(), HugePages::kOff, false))) {
        segment_.announce();
    }
    // Every word that an input may change.
    void fill(FuzzInput& input, std::span<const std::byte> key) {
        segment_.header().published.visible.store(kVisible);
        segment_.header().published.reuse_gen.store(0);
        for (std::uint32_t page = 0; page < kPages; ++page) {
            const std::uint32_t own = page < kFrames ? page : kNoFrame;
            segment_.page_map()[page].store((own + input.take<std::uint8_t>()) % 256);
        }
        for (std::uint32_t frame = 0; frame < kFrames; ++frame) {
            segment_.descriptors()[frame].older.store(input.take<std::uint8_t>());
        }
        DirectoryBucket* buckets = segment_.directory();
        const std::uint64_t bucket_count = segment_.header().bucket_count;
        const DirectoryPlace place = directory_place(kTable, key.data(), key.size(), bucket_count);
        for (std::uint64_t bucket = 0; bucket < bucket_count; ++bucket) {
            for (auto& entry : buckets[bucket].entry) entry.store(0);
        }
        const PageId leaf{input.take<std::uint8_t>()};
        const auto row = input.take<std::uint8_t>();
        buckets[place.bucket].entry[0].store(directory_entry::make(place.tag, leaf, row));
    }
    void fill_frames(FuzzInput& input) {
        for (std::uint32_t i = 1; i < kFrames; ++i) {
            std::byte* frame = segment_.frame(FrameId{i});
            const auto bytes = input.take_bytes(kPageBytes);
            std::memset(frame, 0, kPageBytes);
            std::ranges::copy(bytes, frame);
            std::memcpy(frame + offsetof(PageHeader, table_id), &kTable.value, sizeof(TableId));
        }
    }
    // What comes before an answer, as daemons do it, and as none does: a page gets a frame, a frame
    // another byte, another older one; frames are used again, another batch is visible.
    void change(const How& how, PageId page) {
        const std::uint32_t frame = 1 + how[0] % (kFrames - 1);
        const std::size_t place = (how[1] * 256u + how[2]) % kPageBytes;
        if (how[0] & 4) segment_.page_map()[page.value % kPages].store(frame);
        if (how[0] & 8) segment_.frame(FrameId{frame})[place] = std::byte{how[3]};
        if (how[0] & 16) segment_.descriptors()[frame].older.store(how[3]);
        if (how[0] & 32) segment_.header().published.reuse_gen.fetch_add(1);
        if (how[0] & 64) segment_.header().published.visible.fetch_add(1);
    }
    PoolView view() { return must(PoolView::map(must(segment_.open_read_only()))); }

  private:
    static PoolShape shape() {
        PoolShape shape;
        shape.frame_count = kFrames;
        shape.page_count = kPages;
        shape.slot_count = 1;
        shape.instance_id = 7;
        shape.catalog_root = kRoot.value;
        return shape;
    }
    PoolSegment segment_;
};

// Answers page requests once the reader waits, and so what it sees follows from the input alone.
// Behind the last answer that the input has, all are errors: no read goes on for ever.
class AnsweringThread {
  public:
    AnsweringThread(Pool& pool, ClientSegment& segment, std::vector<How> answers)
        : pool_(pool), segment_(segment), plan_(std::move(answers)), thread_([this] { run(); }) {}
    ~AnsweringThread() {
        stop_ = true;
        thread_.join();
    }
    AnsweringThread(const AnsweringThread&) = delete;
    AnsweringThread& operator=(const AnsweringThread&) = delete;
    std::size_t given() const { return given_; }

  private:
    void run() {
        RingControl& control = segment_.ring_control();
        RingConsumer ring(control, segment_.ring(), segment_.ring_bytes());
        std::vector<std::byte> buffer(ring.record_bytes_max());
        Answers answers;
        while (!stop_) {
            if (!ring.has_news() || !reader_waits()) {
                std::this_thread::yield();
                continue;
            }
            TakenRecord record;
            while (ring.take(buffer, record) == TakeResult::kRecord) {
                CHECK(record.kind == RecordKind::kPageRequest);
                PageRequest request{};
                std::memcpy(&request, record.payload.data(), record.payload.size());
                CHECK(request.count > 0 && request.count <= kPagesPerRequest);
                answers.give(segment_.calls(), record.call_slot, record.call_generation,
                             next_answer(PageId{request.page_id[0]}), 0, 0);
            }
            ring.publish_head();
            if (const auto bits = answers.finish(control)) futex_wake(control.answered, bits);
        }
    }
    bool reader_waits() const {
        return segment_.slots()[0].looked.load() == kLookedNothing ||
               segment_.ring_control().waiters.load() != 0;
    }
    Error next_answer(PageId page) {
        if (given_ == plan_.size()) return Error::kIoError;
        const How& how = plan_[given_++];
        pool_.change(how, page);
        return how[0] & kRefused ? Error::kNoSuchPage : Error::kOk;
    }

    Pool& pool_;
    ClientSegment& segment_;
    const std::vector<How> plan_;
    std::atomic<std::size_t> given_ = 0;
    std::atomic<bool> stop_ = false;
    std::thread thread_;
};

// All of it is within the pool's frames.
void check_within(const PoolView& pool, std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    CHECK(bytes.data() >= pool.frame(0));
    CHECK(bytes.data() + bytes.size() <= pool.frame(0) + kFrames * kPageBytes);
    know(std::to_integer<std::uint64_t>(bytes.front()));
    know(std::to_integer<std::uint64_t>(bytes.back()));
}

// All of it is within one page of the pool.
void check_bytes(const PoolView& pool, std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    const std::ptrdiff_t first = bytes.data() - pool.frame(0);
    const std::ptrdiff_t last = first + static_cast<std::ptrdiff_t>(bytes.size()) - 1;
    constexpr auto kBytes = static_cast<std::ptrdiff_t>(kPageBytes);
    CHECK_OP(first, >=, 0);
    CHECK_OP(last, <, std::ptrdiff_t{kFrames} * kBytes);
    CHECK_OP(first / kBytes, ==, last / kBytes);
}

using Encoded = std::span<const std::byte>;

// What comes while a row's other pages are waited for may be another row's where a daemon changes
// frames in use, as no sound one does.
struct Still {
    const AnsweringThread* daemon;
    std::size_t given = daemon != nullptr ? daemon->given() : 0;
    explicit operator bool() const { return daemon == nullptr || daemon->given() == given; }
};

void read_one(const RawTable& table, const Snapshot& snapshot, const PoolView& pool, Encoded key,
              const AnsweringThread* daemon) {
    std::array<std::byte, kRowBytesMax> value;
    (void)table.read(snapshot, key, value);
    (void)table.get(snapshot, key);
    const Still still{daemon};
    const auto row = table.peek(snapshot, key);
    if (!row.ok() || !*row) return;
    if (still) CHECK(std::ranges::equal((*row)->key, key));
    check_bytes(pool, (*row)->key);
    check_bytes(pool, (*row)->value);
}

// The columns of a row in its page, as the typed library gives them.
void read_large(const RawTable& table, const Snapshot& snapshot, const PoolView& pool,
                Encoded key) {
    const auto row = table.peek(snapshot, key);
    if (!row.ok() || !*row) return;
    std::vector<PageId> absent;
    note_absent_pages(**row, absent);
    std::vector<std::byte> buffer;
    for (const std::uint32_t column : kVariableColumns) {
        const auto value = large_value(**row, column);
        if (!value.ok()) continue;
        std::size_t bytes = 0;
        for (const auto span : value->spans()) {
            check_within(pool, span);
            bytes += span.size();
        }
        CHECK_OP(bytes, ==, value->size());
        CHECK_OP(value->span_or_copy(buffer).size(), ==, value->size());
        know(value->intact());
    }
    (void)whole_row(**row);
    // From the first that cannot be had on the snapshot is not valid.
    for (const std::uint32_t column : kVariableColumns) {
        const auto view = large_view(**row, column);
        if (!view.empty()) know(std::to_integer<std::uint64_t>(view.back()));
    }
    (void)whole_or_fail(**row);
}

void read_many(const RawTable& table, const Snapshot& snapshot, const PoolView& pool,
               std::span<const Encoded> keys, const AnsweringThread* daemon) {
    (void)table.prefetch(snapshot, keys);
    (void)table.multi_get(snapshot, keys);
    std::vector<std::optional<RawRow>> rows(keys.size());
    const Still still{daemon};
    if (!table.peek_many(snapshot, keys, rows).ok()) return;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        if (!rows[i]) continue;
        if (still) CHECK(std::ranges::equal(rows[i]->key, keys[i]));
        check_bytes(pool, rows[i]->key);
        check_bytes(pool, rows[i]->value);
    }
}

void scan(const RawTable& table, const Snapshot& snapshot, const PoolView& pool, Encoded key) {
    for (const bool reverse : {false, true}) {
        for (const Encoded bound : {key, Encoded{}}) {
            RawCursor cursor =
                table.scan(snapshot, reverse ? Encoded{} : bound, reverse ? bound : Encoded{},
                           {.limit = kRowsMax, .reverse = reverse});
            std::uint64_t rows = 0;
            while (cursor.next()) {
                CHECK_OP(++rows, <=, kRowsMax);
                check_bytes(pool, cursor.row().key);
                check_bytes(pool, cursor.row().value);
                if (rows == 1) (void)cursor.copy();
            }
        }
    }
}

}  // namespace
}  // namespace bidstore

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    using namespace bidstore;
    using namespace std::chrono_literals;
    static Pool* const pool = new Pool;
    FuzzInput input(data, size_bytes);
    const auto shape_byte = input.take<std::uint8_t>();
    const auto key_bytes = static_cast<std::uint16_t>(1 + shape_byte % kKeyBytesMax);
    const bool answers = (shape_byte & 128) != 0;
    const auto value_bytes = static_cast<std::uint16_t>(input.take<std::uint8_t>());
    const std::uint32_t key_count = 1 + input.take<std::uint8_t>() % kKeysMax;
    std::vector<Column> columns{{"id", ColumnType::kFixed, key_bytes},
                                {"at", ColumnType::kTimestamp, 0}};
    if (value_bytes > 0) columns.push_back({"v", ColumnType::kFixed, value_bytes});
    if (value_bytes == 0) columns.push_back({"t", ColumnType::kText, 0});
    if (value_bytes == 0) columns.push_back({"b", ColumnType::kBytes, 0});
    const Schema schema = must(Schema::make("rows", columns, 1, 1));

    std::vector<How> plan(answers ? input.take<std::uint8_t>() : 0);
    for (How& how : plan) how = input.take<How>();
    std::array<std::byte, kKeyBytesMax> first{};
    std::ranges::copy(input.take_bytes(key_bytes), first.begin());
    pool->fill(input, std::span(first).first(key_bytes));
    pool->fill_frames(input);

    std::array<int, 2> ends{};
    CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0);
    const Descriptor daemon(ends[0]);
    ClientShape shape;
    shape.slot_count = 1;
    shape.call_slot_count = 16;
    shape.instance_id = 7;
    ClientSegment segment = must(ClientSegment::create(shape));
    segment.announce(0);
    const auto connection = std::make_shared<Connection>(
        pool->view(), std::move(segment), Descriptor(::dup(ends[0])), Descriptor(ends[1]));
    const PoolView& view = connection->pool();
    const auto store = std::make_shared<StoreState>(AttachOptions{}, connection);
    auto reader = must(store->make_reader(store));
    const RawTable table(std::make_shared<const TableInfo>(
        TableInfo{kTable, 0, {}, true, schema, std::make_shared<const TreeShape>(schema, kTable)}));

    std::vector<std::array<std::byte, kKeyBytesMax>> keys(key_count, first);
    std::vector<Encoded> spans;
    for (std::uint32_t i = 0; i < key_count; ++i) {
        keys[i][key_bytes - 1u] ^= std::byte(i);
        spans.push_back(std::span(keys[i]).first(key_bytes));
    }
    std::optional<AnsweringThread> daemon_thread;
    if (answers) daemon_thread.emplace(*pool, connection->segment(), std::move(plan));
    const AnsweringThread* answering = daemon_thread ? &*daemon_thread : nullptr;
    // Each under a snapshot of its own: what one gave out in place stays in use until its end.
    const auto until = [&] { return answers ? in(10s) : in(0ns); };
    const auto with_snapshot = [&](auto read) {
        const auto snapshot = must(reader.snapshot(until()));
        read(snapshot);
    };
    with_snapshot([&](auto& snapshot) {
        read_one(table, snapshot, view, spans.front(), answering);
        read_many(table, snapshot, view, spans, answering);
        scan(table, snapshot, view, spans.front());
    });
    if (value_bytes == 0) {
        with_snapshot([&](auto& snapshot) { read_large(table, snapshot, view, spans.front()); });
    }
    (void)table_space(reader, table, until());
    return 0;
}
