// The client library's reads in a pool of any bytes: by the key directory, by the tree, many at
// once, prefetches and scans, with page map, versions and directory as the input says, and a daemon
// that answers nothing. A row lies within a page, is the one that was asked for, and each read
// ends.
//
// Input: the shape (key length, length of the value or none: variable rows), how many keys, the
// frame of each page, the next older one of each frame, the directory's entries, a key, then the
// bytes of the frames, each behind the other. A byte of zeros means the page's own frame.
#include <sys/socket.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "clientlib/session.h"
#include "engine/page/catalog_schema.h"
#include "engine/page/search.h"
#include "shm/key_directory.h"
#include "tests/fuzz.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kFrames = 4;
constexpr std::uint32_t kPages = 8;
constexpr std::uint32_t kKeysMax = 40;     // more than descend together
constexpr std::uint64_t kRowsMax = 100;    // of a scan
constexpr TableId kTable = kCatalogTable;  // whose root is where the pool's header says
constexpr PageId kRoot{1};

class Pool {
  public:
    Pool() : segment_(must(PoolSegment::create(shape(), HugePages::kOff, false))) {
        segment_.header().published.visible.store(8);
        segment_.announce();
    }
    // Every word that an input may change.
    void fill(FuzzInput& input, std::span<const std::byte> key) {
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

void read_one(const RawTable& table, const Snapshot& snapshot, const PoolView& pool, Encoded key) {
    std::array<std::byte, kRowBytesMax> value;
    (void)table.read(snapshot, key, value);
    (void)table.get(snapshot, key);
    const auto row = table.peek(snapshot, key);
    if (!row.ok() || !*row) return;
    CHECK(std::ranges::equal((*row)->key, key));
    check_bytes(pool, (*row)->key);
    check_bytes(pool, (*row)->value);
}

void read_many(const RawTable& table, const Snapshot& snapshot, const PoolView& pool,
               std::span<const Encoded> keys) {
    (void)table.prefetch(snapshot, keys);
    (void)table.multi_get(snapshot, keys);
    std::vector<std::optional<RawRow>> rows(keys.size());
    if (!table.peek_many(snapshot, keys, rows).ok()) return;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        if (!rows[i]) continue;
        CHECK(std::ranges::equal(rows[i]->key, keys[i]));
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
    const auto key_bytes =
        static_cast<std::uint16_t>(1 + input.take<std::uint8_t>() % kKeyBytesMax);
    const auto value_bytes = static_cast<std::uint16_t>(input.take<std::uint8_t>());
    const std::uint32_t key_count = 1 + input.take<std::uint8_t>() % kKeysMax;
    std::vector<Column> columns{{"id", ColumnType::kFixed, key_bytes},
                                {"at", ColumnType::kTimestamp, 0}};
    if (value_bytes > 0) columns.push_back({"v", ColumnType::kFixed, value_bytes});
    if (value_bytes == 0) columns.push_back({"t", ColumnType::kText, 0});
    if (value_bytes == 0) columns.push_back({"b", ColumnType::kBytes, 0});
    const Schema schema = must(Schema::make("rows", columns, 1, 1));

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
    const auto snapshot = must(reader.snapshot(in(0ns)));
    const RawTable table(std::make_shared<const TableInfo>(
        TableInfo{kTable, 0, {}, true, schema, std::make_shared<const TreeShape>(schema, kTable)}));

    std::vector<std::array<std::byte, kKeyBytesMax>> keys(key_count, first);
    std::vector<Encoded> spans;
    for (std::uint32_t i = 0; i < key_count; ++i) {
        keys[i][key_bytes - 1u] ^= std::byte(i);
        spans.push_back(std::span(keys[i]).first(key_bytes));
    }
    read_one(table, snapshot, view, spans.front());
    read_many(table, snapshot, view, spans);
    scan(table, snapshot, view, spans.front());
    return 0;
}
