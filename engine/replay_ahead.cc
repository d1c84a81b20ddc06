// Replay's look ahead: which pages the next records will change, and their way into the pool.
#include <algorithm>

#include "engine/blocking_io.h"
#include "engine/replay.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kFramesLeft = 64;  // to whatever else is read meanwhile

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
    ahead.leaves.reserve(ahead.batch.record_count);
    for (std::uint32_t pass = 0; pass < kDepthMax; ++pass) {
        ahead.leaves.clear();
        std::vector<PageId> inner;
        RecordReader records(ahead.batch, RecordReader::Crcs::kCovered);
        LogRecordView record;
        for (;;) {
            const Result<bool> more = records.next(record);
            if (!more || !*more) break;  // what is wrong with it, replay says
            ahead.erases_ranges |= record.type == RecordType::kDeleteRange;
            PageId missing;
            const PageId leaf = find_leaf(record, missing);
            ahead.leaves.push_back(leaf);
            if (leaf) want(leaf, ahead);
            if (!missing) continue;
            want(missing, ahead);
            if (inner.empty() || inner.back() != missing) inner.push_back(missing);
        }
        keep_reading();
        if (inner.empty() || !come(inner)) break;
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

// 0: the tree is so small that a look ahead costs more than it saves, or the record is of no row.
PageId Replay::find_leaf(const LogRecordView& record, PageId& missing) {
    if (!of_row(record)) {
        last_table_ = nullptr;
        return {};
    }
    TableEntry* const table = table_of(record.table);
    if (table == nullptr || record.key.size() != table->schema.key_bytes()) return {};
    const Tree& tree = table->tree;
    const bool small = storage_.pool.resident(tree.root()) && tree.depth() < 3;
    if (small || table->system()) return {};
    const Tree::Ahead found = tree.leaf_for(record.key.data());
    missing = found.missing;
    return found.leaf;
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

}  // namespace bidstore
