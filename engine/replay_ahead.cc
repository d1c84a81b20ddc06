// Replay's look ahead: which pages the next records will change, and their way into the pool.
#include <algorithm>
#include <array>

#include "engine/blocking_io.h"
#include "engine/replay.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kFramesLeft = 64;  // to whatever else is read meanwhile
constexpr std::uint64_t kTogether = 16;    // records whose lines are fetched at once
constexpr std::size_t kNearBytes = 320;    // of a leaf: header, and keys of 16 bytes

bool of_row(const LogRecordView& record) { return record.type <= RecordType::kDeleteRow; }

}  // namespace

// Takes in batches until enough of them, or pages enough, are ahead of the one to be replayed next.
Status Replay::look_ahead(LogReader& reader) {
    while (!log_ended_ && !far_enough()) {
        Ahead next;
        const Result<bool> more = reader.ahead(next.batch);
        if (!more) return more.failure();
        log_ended_ = !*more;
        if (log_ended_) break;
        look_at(next);
        ahead_.push_back(std::move(next));
    }
    return {};
}

bool Replay::far_enough() const {
    if (ahead_.empty()) return false;
    const std::uint64_t bytes = ahead_.back().batch.end.position - ahead_.front().batch.position;
    return bytes >= LogReader::kHeldBytesMax || ahead_wanted_ > storage_.pool.frame_count() / 8;
}

// Inner nodes that are missing are read and waited for, all that the batch needs together; so a
// second look, one level further down, finds more.
void Replay::look_at(Ahead& ahead) {
    decode(ahead);
    std::vector<PageId> missing;
    for (std::uint32_t pass = 0; pass < kDepthMax; ++pass) {
        missing.clear();
        find_leaves(ahead, missing);
        keep_reading();
        if (missing.empty() || !come(missing)) break;
    }
}

void Replay::decode(Ahead& ahead) {
    ahead.records.reserve(ahead.batch.record_count);
    RecordReader records(ahead.batch, RecordReader::Crcs::kCovered);
    for (Next next;;) {
        const Result<bool> more = records.next(next.record);
        if (!more) ahead.fault = more.failure();
        if (!more || !*more) return;
        ahead.erases_ranges |= next.record.type == RecordType::kDeleteRange;
        ahead.records.push_back(next);
    }
}

// Of those records that have none yet. The key directory knows most leaves that are in the pool;
// the trees are asked for the others.
void Replay::find_leaves(Ahead& ahead, std::vector<PageId>& missing) {
    unknown_.clear();
    for (Next& next : ahead.records) {
        if (!next.leaf && tree_ahead(next.record) != nullptr) unknown_.push_back(&next);
    }
    look_up(unknown_);
    for (std::span<Next* const> rest = unknown_; !rest.empty();) {
        const Tree& tree = *tree_ahead(rest.front()->record);
        std::size_t count = 1;
        while (count < std::min<std::size_t>(rest.size(), Tree::kKeysTogether) &&
               rest[count]->record.table == rest.front()->record.table) {
            ++count;
        }
        // In a small tree a look ahead costs more than it saves.
        const bool small = storage_.pool.resident(tree.root()) && tree.depth() < 3;
        if (!small) descend(tree, rest.first(count), ahead, missing);
        rest = rest.subspan(count);
    }
}

// In the key directory: those that it does not know are left. What it says of a row is what
// value_in() checks: an entry that is old costs a way down the tree, then.
void Replay::look_up(std::vector<Next*>& records) const {
    const Pool& pool = storage_.pool;
    const KeyDirectory directory = pool.directory().written();
    std::array<DirectoryPlace, kTogether> places;
    std::size_t left = 0;
    for (std::size_t done = 0; done < records.size(); done += kTogether) {
        const std::size_t count = std::min<std::size_t>(kTogether, records.size() - done);
        for (std::size_t i = 0; i < count; ++i) {
            const LogRecordView& record = records[done + i]->record;
            places[i] = directory.aim(record.table, record.key.data(), record.key.size());
        }
        for (std::size_t i = 0; i < count; ++i) {
            Next& next = *records[done + i];
            const RowHint hint = directory.find(places[i]);
            if (hint.leaf && pool.resident(hint.leaf)) {
                next.leaf = hint.leaf;
                next.row = static_cast<int>(hint.row);
            } else {
                records[left++] = &next;
            }
        }
    }
    records.resize(left);
}

// Records of one table.
void Replay::descend(const Tree& tree, std::span<Next* const> records, Ahead& ahead,
                     std::vector<PageId>& missing) {
    std::array<const std::byte*, Tree::kKeysTogether> keys;
    std::array<Tree::Ahead, Tree::kKeysTogether> found;
    for (std::size_t i = 0; i < records.size(); ++i) keys[i] = records[i]->record.key.data();
    tree.leaves_for({keys.data(), records.size()}, {found.data(), records.size()});
    for (std::size_t i = 0; i < records.size(); ++i) {
        records[i]->leaf = found[i].leaf;
        if (found[i].leaf) want(found[i].leaf, ahead);
        if (!found[i].missing) continue;
        want(found[i].missing, ahead);
        if (missing.empty() || missing.back() != found[i].missing)
            missing.push_back(found[i].missing);
    }
}

// False: they are not all there. Reads under way are waited for, frames are not: whoever replays
// waits for what is missing still, and says what is wrong with it.
bool Replay::come(const std::vector<PageId>& pages) {
    const Pool& pool = storage_.pool;
    const PageLoader& loader = storage_.loader;
    const std::uint64_t deadline_ns = storage_.clock.monotonic_ns() + BlockingIo::kDeadlineNs;
    for (const PageId page : pages) {
        while (!pool.resident(page)) {
            if (!loader.on_its_way(page) || loader.loading() == 0) return false;
            if (storage_.clock.monotonic_ns() > deadline_ns) return false;
            storage_.disk.poll(BlockingIo::kDeadlineNs);
            keep_reading();
        }
    }
    return true;
}

// Where the record's row belongs; nullptr: it is of no row of a user's table.
const Tree* Replay::tree_ahead(const LogRecordView& record) {
    if (!of_row(record)) return nullptr;
    TableEntry* const table = table_of(record.table);
    if (table == nullptr || table->system()) return nullptr;
    return record.key.size() == table->schema.key_bytes() ? &table->tree : nullptr;
}

void Replay::want(PageId page, Ahead& ahead) {
    if (storage_.pool.resident(page) || storage_.loader.on_its_way(page)) return;
    if (!frames_to_spare() || storage_.loader.want(page) != Error::kBusy) return;
    ++ahead.wanted;
    ++ahead_wanted_;
    if (ahead.wanted % 16 == 0) keep_reading();
}

// Reads that are done make place for those that wait, and these for frames: of pages that did not
// change, as long as these are many.
void Replay::keep_reading() {
    PageLoader& loader = storage_.loader;
    if (loader.loading() > 0) storage_.disk.poll(0);
    if (!loader.waits_for_frames() || !frames_to_spare()) return;
    storage_.make_frames(2 * kFramesLeft);
    loader.pump(kFramesLeft);
}

// Calls each(record) for those from `place` to record `number`, as far as they are known.
template <class Each>
void Replay::go_on(Place& place, std::uint64_t number, Each each) {
    for (; place.batch < ahead_.size(); ++place.batch, place.record = 0) {
        std::vector<Next>& records = ahead_[place.batch].records;
        for (; place.record < records.size(); ++place.record, ++place.number) {
            if (place.number == number) return;
            each(records[place.record]);
        }
    }
}

// Leaf and row of a record are scattered over the pool, and each is waited for as long as some
// records take. So they are fetched ahead, kTogether records at a time and nothing between, since
// each is in a page of its own, whose address the processor has to look up first: first header and
// keys of the leaf, then, from a search in these, the row.
void Replay::fetch_near() {
    if (replayed_records_ % kTogether != 0) return;
    keep_reading();
    go_on(found_, replayed_records_ + 2 * kTogether, [this](Next& next) { find_row(next); });
    go_on(
        fetched_,
        replayed_records_ + 3 * kTogether, [this](const Next& next) __attribute__((always_inline)) {
            if (next.leaf) storage_.pool.prefetch(next.leaf, kNearBytes);
        });
}

void Replay::find_row(Next& next) {
    if (!next.leaf) return;
    const TableEntry* const table = table_of(next.record.table);
    if (table == nullptr || next.record.key.size() != table->schema.key_bytes()) return;
    const std::byte* const bytes = leaf_of(next, *table);
    if (bytes == nullptr) return;
    const LeafView rows(bytes, table->tree.shape().leaf);
    const std::byte* const key = next.record.key.data();
    const int row =
        next.row < 0 ? rows.find(key) : rows.find_near(key, static_cast<std::uint32_t>(next.row));
    next.row = row < 0 ? kNoRow : row;
    if (row < 0) return;
    const auto value = rows.value(static_cast<std::uint32_t>(row));
    if (!value.empty()) prefetch_bytes(value.data(), value.size());
}

// The first batch was replayed.
void Replay::drop_front() {
    ahead_wanted_ -= ahead_.front().wanted;
    ahead_.pop_front();
    for (Place* place : {&found_, &fetched_}) {
        if (place->batch > 0) --place->batch;
    }
}

}  // namespace bidstore
