#include "engine/storage.h"

#include <algorithm>
#include <array>

#include "engine/tree_check.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kPassesMax = 16;  // more than the credit of any page (engine/eviction.h)
constexpr std::uint64_t kFramesPerSearch = 8'192;  // Pool::eviction_candidates() passes that many

}  // namespace

Storage::Storage(Disk& the_disk, Clock& the_clock, PoolSegment& the_segment, StatsWriter& the_stats,
                 PageLoader::Done loaded)
    : disk(the_disk),
      clock(the_clock),
      segment(the_segment),
      stats(the_stats),
      pool(the_segment),
      space(pool, the_disk),
      loader(pool, space, the_disk, the_clock, the_stats,
             [this](const std::byte* page) { return content_fault(page); },
             [this](PageId page, Error error, const std::string& message, bool news) {
                 if (page == awaited_ && error != Error::kOk) awaited_failure_ = {error, message};
                 if (error == Error::kOk && !recovering) space.learn_newest(page);
                 loaded_(page, error, message, news);
                 if (error == Error::kOk) came(page);
             }),
      leaves_to_enter_(kLeavesWaiting),
      loaded_(std::move(loaded)) {}

void Storage::adopt(const Superblock& known, ChunkDirectory directory) {
    superblock = known;
    checkpointer =
        std::make_unique<Checkpointer>(pool, space, disk, superblock, std::move(directory));
    loader.set_covered(checkpointer->covered());
    catalog = std::make_unique<Catalog>(space, PageId{superblock.catalog_root});
}

// Who changes pages believes what they say. Pages whose table is gone nobody changes any more.
const char* Storage::content_fault(const std::byte* page) const {
    if (catalog == nullptr) return nullptr;
    const TableEntry* table = catalog->find_with_pages(TableId{page_header(page).table_id});
    if (table == nullptr) return nullptr;
    const TreeShape& shape = table->tree.shape();
    if (const char* fault = tree_page_fault(page, table->schema, shape)) return fault;
    if (page_header(page).type != PageType::kInner) return nullptr;
    return children_fault(InnerView(page, shape.inner), table->id);
}

// No child comes or goes without a change to its parent, and what has changed is in the pool: a
// node that is read from the file is as new as its children.
const char* Storage::children_fault(const InnerView& node, TableId table) const {
    std::array<std::uint32_t, kFanOutMax> children;
    const TableEntry* const sessions = catalog->find(kSessionsTable);
    const PageId roots[] = {catalog->catalog().tree.root(),
                            sessions == nullptr ? PageId{} : sessions->tree.root()};
    for (std::uint32_t i = 0; i < node.count(); ++i) {
        const PageId child = node.child(i);
        children[i] = child.value;
        if (!space.may_be_in_tree(child)) {
            return "an inner node has a child that is no page of a tree in use";
        }
        const bool others = pool.resident(child) &&
                            page_header(pool.newest_of(child)).table_id != table.value;
        if (others || child == roots[0] || child == roots[1]) {
            return "an inner node has a child that is another table's";
        }
    }
    const auto end = children.begin() + node.count();
    std::sort(children.begin(), end);
    const bool twice = std::adjacent_find(children.begin(), end) != end;
    return twice ? "an inner node has the same child twice" : nullptr;
}

// Replay asks the directory at once. Later a page that came stays while there is room, and its rows
// are entered; where others have to go for it, it shows first that it is used again. Most are not,
// and would cost the directory entries of pages that are.
void Storage::came(PageId page) {
    if (catalog == nullptr) return;
    if (recovering) return enter_rows_of(page);
    if (pool.free_frames() > 2 * pool.low_frames()) enter_rows_later(page);
}

// The directory leads to the rows of the leaf from now on. That is no use of the page.
void Storage::enter_rows_of(PageId page) {
    if (!is_resident_leaf(page) || pool.rows_entered(page)) return;
    pool.set_rows_entered(page);
    const std::byte* bytes = pool.newest_of(page);
    const TableEntry* table = catalog->find(TableId{page_header(bytes).table_id});
    if (table == nullptr || page == table->tree.root()) return;
    const LeafLayout& layout = table->tree.shape().leaf;
    const LeafView rows(bytes, layout);
    for (std::uint32_t row = 0; row < rows.count(); ++row) {
        pool.directory().enter(table->id, rows.key(row), layout.key_bytes, page, row);
    }
}

bool Storage::is_resident_leaf(PageId page) const {
    if (!pool.resident(page) || space.is_extent(page)) return false;
    return page_header(pool.newest_of(page)).type == PageType::kLeaf;
}

// Nobody waits for that, but for the next page of a burst somebody does.
void Storage::enter_rows_later(PageId page) {
    if (!is_resident_leaf(page)) return;
    leaves_to_enter_.push_back(page);  // full: for the oldest, which a sample may mark again
}

bool Storage::enter_rows(std::uint32_t leaves) {
    const bool any = !leaves_to_enter_.empty();
    for (; leaves > 0 && !leaves_to_enter_.empty(); --leaves) {
        enter_rows_of(leaves_to_enter_.front());
        leaves_to_enter_.pop_front();
    }
    return any;
}

Status Storage::bring_in(PageId page) {
    const std::uint64_t deadline = clock.monotonic_ns() + kWaitNs;
    const Error wanted = loader.want(page);
    if (wanted == Error::kOk) return {};
    if (wanted == Error::kIoError || wanted == Error::kCorruption) {
        return {wanted, loader.failure_of(page) + " (a moment ago)"};
    }
    if (wanted != Error::kBusy) {
        return {Error::kCorruption,
                "page " + std::to_string(page.value) + " is referred to, but not allocated"};
    }
    awaited_ = page;  // others may come, or fail, in the same poll
    awaited_failure_ = {};
    while (loader.on_its_way(page)) {
        if (recovering) make_frames(reserved_frames + 8);
        loader.start_now(page);
        loader.pump(reserved_frames);
        if (loader.loading() == 0 && pool.free_frames() == 0) {
            return {Error::kTooLarge, "no frame for page " + std::to_string(page.value) + ": all " +
                                          std::to_string(pool.frame_count()) +
                                          " of the pool are in use; raise pool_bytes"};
        }
        disk.poll(1'000'000);
        if (clock.monotonic_ns() > deadline) {
            return {Error::kIoError, "page " + std::to_string(page.value) + " of " +
                                         disk.path(StoreFile::kData) + " was not read in 30 s"};
        }
    }
    return awaited_failure_;
}

Status Storage::checkpoint(const CheckpointTarget& target) {
    std::uint64_t deadline = clock.monotonic_ns() + kWaitNs;
    checkpointer->start(target);
    while (checkpointer->running()) {
        at_work();
        const bool worked = checkpointer->pump({});
        if (!checkpointer->failure().empty()) {
            const bool small = checkpointer->journal_too_short();
            return {small ? Error::kTooLarge : Error::kIoError, checkpointer->failure()};
        }
        if (worked || disk.poll(1'000'000) > 0) deadline = clock.monotonic_ns() + kWaitNs;
        if (clock.monotonic_ns() > deadline) {
            return {Error::kIoError,
                    "checkpoint: no answer from " + disk.path(StoreFile::kData) + " in 30 s"};
        }
    }
    loader.set_covered(checkpointer->covered());
    return {};
}

// False: there is no more to be had.
bool Storage::grow(std::uint64_t pages, Status& grown) {
    if (space.any_punched()) {
        if (!space.grow(pages)) return false;
        grown = await_growth();
        if (grown.error() != Error::kNoSpace) return true;
    }
    const std::uint32_t chunks = space.growth_wanted(pages);
    if (chunks == 0) return !grown.ok();
    // What the dead process had grown is there still, also on a file system that is full now. The
    // rest comes without zeros: a checkpoint writes the pages that are used, and syncs the new
    // size, before it refers to them.
    space.extend(chunks - space.growth().chunks());
    grown = await_growth();
    return true;
}

Status Storage::await_growth() {
    const std::uint64_t deadline = clock.monotonic_ns() + kWaitNs;
    while (space.growth().running()) {
        disk.poll(1'000'000);
        if (clock.monotonic_ns() <= deadline) continue;
        return {Error::kIoError,
                "growth: no answer from " + disk.path(StoreFile::kData) + " in 30 s"};
    }
    Status grown;
    space.take_growth(grown);
    return grown;
}

Status Storage::secure_space(std::uint32_t pages, std::span<const ExtentNeed> extents) {
    const auto secured = [&] {
        if (!space.reserve_extents(extents, kValueRunsMax)) return false;
        if (space.secure(pages)) return true;
        space.release_extents();
        return false;
    };
    while (!secured()) {
        // At least one chunk more, also when there are pages enough, but in too many pieces.
        Status grown;
        if (!grow(std::max<std::uint64_t>(pages, space.in_reach() + 1), grown)) {
            return {Error::kNoSpace, disk.path(StoreFile::kData) +
                                         " is at its limit: raise max_data_bytes or pool_bytes"};
        }
        if (!grown && (space.growth().failed() || !secured())) return grown;
        if (!grown) break;
    }
    return {};
}

void Storage::make_frames(std::uint64_t frames) {
    // A page that was used often is passed several times before it goes, so a search that finds
    // nothing is made again, until the hands went over all pages as often as that.
    const std::uint64_t vain_max = 1 + kPassesMax * pool.frame_count() / kFramesPerSearch;
    for (std::uint64_t vain = 0; pool.free_frames() < frames && vain < vain_max; ++vain) {
        const auto missing = static_cast<std::uint32_t>(frames - pool.free_frames());
        const auto& pages = pool.eviction_candidates(missing + 64, checkpointer->covered(), {});
        if (pages.empty()) continue;
        vain = 0;
        evict(pages, Csn{pool.visible()});
        reclaim({}, kAll);
    }
}

bool Storage::recent(const PageHeader& leaf) const {
    if (leaf.time_max == 0) return false;
    const TableEntry* table = catalog->find(TableId{leaf.table_id});
    if (table == nullptr) return false;
    const bool nanoseconds = table->schema.time_unit() == TimeUnit::kNanoseconds;
    const std::uint64_t newest_us = nanoseconds ? leaf.time_max / 1000 : leaf.time_max;
    const std::uint64_t now_us = clock.wall_us();
    const std::uint64_t apart_us = newest_us < now_us ? now_us - newest_us : newest_us - now_us;
    return apart_us < pin_recent_us;
}

void Storage::evict(const std::vector<PageId>& pages, Csn csn) {
    for (const PageId page : pages) pool.evict(page, csn);
    stats.add(Counter::kEvictions, pages.size());
}

void Storage::reclaim(const HeldSnapshots& held, std::uint32_t kept_looks) {
    stats.add(Counter::kReclaimedVersions, pool.reclaim(held, kept_looks));
}

}  // namespace bidstore
