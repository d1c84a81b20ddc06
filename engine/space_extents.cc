// Space for extents: runs of neighbouring pages, found, taken, and freed with their rows or, when
// these are dead, by metadata alone.
#include <algorithm>
#include <bit>
#include <functional>
#include <utility>

#include "engine/extent_map.h"
#include "engine/space.h"

namespace bidstore {
namespace {

// So many chunks that take no further owner are passed in a search for parts of an extent. Of the
// others each look makes a bound exact, or the best run longer.
constexpr std::uint32_t kRefusedMax = 1'024;

// How many bits in a chunk's words are set from this one on, and before it.
std::uint32_t ones_from(const std::uint64_t* words, std::uint32_t from) {
    std::uint32_t at = from;
    while (at < kChunkPages) {
        const auto ones = static_cast<std::uint32_t>(std::countr_one(words[at / 64] >> (at % 64)));
        const bool to_the_end = ones == 64 - at % 64;
        at += ones;
        if (!to_the_end) break;
    }
    return at - from;
}
std::uint32_t ones_before(const std::uint64_t* words, std::uint32_t end) {
    std::uint32_t at = end;
    while (at > 0) {
        const std::uint64_t below = words[(at - 1) / 64] << (63 - (at - 1) % 64);
        const auto ones = static_cast<std::uint32_t>(std::countl_one(below));
        at -= ones;
        if (ones == 0 || at % 64 != 0) break;
    }
    return end - at;
}

// The first free run of `wanted` pages in a chunk, or the longest one; pages 0 when none is free.
ExtentRun run_in(const std::uint64_t* words, std::uint32_t wanted) {
    ExtentRun best{0, 0};
    for (std::uint32_t i = 0; i < kChunkPages && best.pages < wanted;) {
        const std::uint64_t rest = words[i / 64] >> (i % 64);
        if (rest == 0) {
            i = (i / 64 + 1) * 64;
            continue;
        }
        i += static_cast<std::uint32_t>(std::countr_zero(rest));
        const std::uint32_t length = ones_from(words, i);
        if (length > best.pages) best = {i, std::min(length, wanted)};
        i += length;
    }
    return best;
}

PageId first_page(ExtentRun run) { return PageId{run.first}; }

}  // namespace

// ---- finding room ----

// Whether the chunk has a place for the table among the owners of its extents, those counted that
// are reserved, and all tables that are being loaded: where they have reserved pages need not be
// remembered.
bool Space::takes_owner(std::uint32_t chunk, TableId table) const {
    const ExtentMap map(chunk_meta(pool_.newest_of(meta_page(chunk))));
    if (map.owns(table)) return true;
    std::vector<std::uint32_t> coming;
    for (const auto& list : {std::cref(reserved_), std::cref(copies_)}) {
        for (const ReservedExtent& extent : list.get()) {
            const auto lies_here = [&](ExtentRun run) {
                return chunk_of(first_page(run)) == chunk;
            };
            if (std::none_of(extent.runs.begin(), extent.runs.end(), lies_here)) continue;
            const std::uint32_t owner = extent.need.table.value;
            if (owner == table.value) return true;
            const bool counted = map.owns(extent.need.table) ||
                                 std::find(coming.begin(), coming.end(), owner) != coming.end();
            if (!counted) coming.push_back(owner);
        }
    }
    const auto loading = std::count_if(loading_.begin(), loading_.end(), [&](TableId each) {
        return each != table && !map.owns(each);
    });
    return map.owners() + coming.size() + static_cast<std::size_t>(loading) < kExtentOwners;
}

// A run of `pages` free pages, or the longest of those looked at; pages 0 when none is free.
ExtentRun Space::find_run(const ExtentNeed& need, std::uint32_t pages, std::uint32_t from_chunk) {
    ExtentRun best{0, 0};
    std::uint32_t refused = 0;  // by chunks that have as many owners as they may
    const auto look = [&](std::uint32_t from, std::uint32_t to, bool for_all) {
        for (std::uint32_t chunk = from; best.pages < pages; ++chunk) {
            chunk = run_bounds_.next(chunk, to, for_all ? pages - 1 : best.pages);
            if (chunk >= to) break;
            if (closed_[chunk]) continue;
            if (!takes_owner(chunk, need.table)) {
                if (!for_all && ++refused > kRefusedMax) break;
                continue;
            }
            ++run_looks_;
            const ExtentRun found = run_in(&available_[std::size_t{chunk} * kWordsPerChunk], pages);
            if (found.pages < pages) run_bounds_.lower(chunk, found.pages);
            if (found.pages > best.pages) best = {chunk * kChunkPages + found.first, found.pages};
        }
    };
    const std::uint32_t middle = from_chunk % chunk_count_;
    for (const bool for_all : {true, false}) {
        look(middle, chunk_count_, for_all);
        look(0, middle, for_all);
    }
    if (best.pages == pages) extent_hint_ = chunk_of(first_page(best));
    return best;
}

// How many available pages lie side by side where this one is.
std::uint32_t Space::run_around(PageId page) const {
    const std::uint64_t* words = &available_[std::size_t{chunk_of(page)} * kWordsPerChunk];
    const std::uint32_t index = page.value % kChunkPages;
    return ones_before(words, index) + ones_from(words, index);
}

void Space::take_run(ExtentRun run) {
    for (std::uint32_t i = 0; i < run.pages; ++i) {
        set_bit(available_.data(), run.first + i, false);
    }
    const std::uint32_t chunk = chunk_of(first_page(run));
    available_count_[chunk] = static_cast<std::uint16_t>(available_count_[chunk] - run.pages);
    run_bounds_.lower(chunk, available_count_[chunk]);
    available_total_ -= run.pages;
}

void Space::return_run(ExtentRun run) {
    for (std::uint32_t i = 0; i < run.pages; ++i) make_available(PageId{run.first + i});
}

// None when that takes more runs.
std::vector<ExtentRun> Space::take_runs(const ExtentNeed& need, std::uint32_t runs_max,
                                        std::uint32_t from_chunk) {
    std::vector<ExtentRun> runs;
    std::uint32_t left = need.pages;
    while (left > 0 && runs.size() < runs_max) {
        const ExtentRun run = find_run(need, left, from_chunk);
        if (run.pages * (runs_max - runs.size()) < left) break;  // no later one is longer
        take_run(run);
        runs.push_back(run);
        left -= run.pages;
    }
    if (left == 0) return runs;
    for (const ExtentRun& run : runs) return_run(run);
    return {};
}

bool Space::reserve_extent(const ExtentNeed& need, std::uint32_t runs_max) {
    std::vector<ExtentRun> runs = take_runs(need, runs_max, extent_hint_);
    if (runs.empty()) return false;
    reserved_.push_back({need, std::move(runs)});
    return true;
}

bool Space::reserve_extents(std::span<const ExtentNeed> needs, std::uint32_t runs_max) {
    CHECK(reserved_.empty());
    const ColdPath cold;  // a large value has lists of runs, and costs far more than these
    for (std::size_t i = 0; i < needs.size();) {
        if (reserve_extent(needs[i], runs_max)) {
            ++i;
            continue;
        }
        // A new chunk has room for any value in one run.
        if (closed_count_ > 0) {
            reopen();
        } else if (ready_backed() > 0) {
            add_chunk(chunk_count_);
        } else {
            release_extents();
            return false;
        }
    }
    return true;
}

void Space::release_extents() {
    for (const ReservedExtent& extent : reserved_) {
        for (const ExtentRun& run : extent.runs) return_run(run);
    }
    reserved_.clear();
}

// ---- bulk loads ----

std::vector<ExtentRun> Space::reserve_runs(const ExtentNeed& need) {
    if (std::find(loading_.begin(), loading_.end(), need.table) == loading_.end()) {
        loading_.push_back(need.table);
    }
    return take_runs(need, kServingRunsMax, extent_hint_);
}

// Until it is attached a run is told by its times: 0 means that the page before is of the same one.
// A time of 0 becomes 1, for metadata may say "newer than it is".
void Space::written_extent(PageId page, const std::byte* bytes, bool first, std::uint32_t newest) {
    crc_[page.value] = crc32c(bytes, kPageBytes);
    newest_[page.value] = first ? std::max(newest, 1u) : 0;
    set_bit(loaded_.data(), page.value, true);
}

void Space::attach_extents(TableId table, const PageRun& run) {
    attach(run);
    ExtentMapEdit map(chunk_meta(writable(meta_page(chunk_of(run.first)))));
    for (std::uint32_t at = run.first.value, end = at + run.count; at < end;) {
        std::uint32_t pages = 1;
        while (at + pages < end && newest_[at + pages] == 0) ++pages;
        map.take(table, at % kChunkPages, pages);
        for (; pages > 0; --pages, ++at) {
            set_bit(extent_.data(), at, true);
            set_bit(in_file_.data(), at, true);
        }
    }
}

// ---- copies ----

bool Space::reserve_copy(const ExtentNeed& need, std::uint32_t runs_max,
                         std::vector<ExtentRun>& runs) {
    runs = take_runs(need, runs_max, 0);
    if (runs.empty()) return false;
    copies_.push_back({need, runs});
    return true;
}

void Space::copied(PageId page, std::uint32_t crc) {
    crc_[page.value] = crc;
    set_bit(loaded_.data(), page.value, true);
}

void Space::give_back_copy(std::span<const ExtentRun> runs) {
    std::erase_if(copies_, [&](const auto& copy) { return copy.runs[0] == runs[0]; });
    for (const ExtentRun& run : runs) return_run(run);
}

void Space::attach_copy(TableId table, std::span<const ExtentRun> runs, std::uint32_t newest) {
    std::erase_if(copies_, [&](const auto& copy) { return copy.runs[0] == runs[0]; });
    for (const ExtentRun& run : runs) {
        set_run(table, run, newest);
        for (std::uint32_t i = 0; i < run.pages; ++i) {
            set_bit(in_file_.data(), run.first + i, true);
        }
    }
    wrote_past_checkpoint();
}

// ---- in the open batch ----

void Space::set_run(TableId table, ExtentRun run, std::uint32_t newest) {
    ChunkMeta& meta = chunk_meta(writable(meta_page(chunk_of(first_page(run)))));
    ExtentMapEdit(meta).take(table, run.first % kChunkPages, run.pages);
    for (std::uint32_t i = 0; i < run.pages; ++i) {
        set_bit(meta.used, (run.first + i) % kChunkPages, true);
        set_bit(extent_.data(), run.first + i, true);
        set_bit(in_file_.data(), run.first + i, false);
    }
    newest_[run.first] = newest;
}

ValueReference Space::allocate_extent(TableId table, std::span<const std::byte> value,
                                      std::uint32_t newest) {
    const ColdPath cold;
    const ExtentNeed need{table, extent_pages(static_cast<std::uint32_t>(value.size()))};
    const auto found = std::find_if(reserved_.begin(), reserved_.end(),
                                    [&](const auto& extent) { return extent.need == need; });
    CHECK(found != reserved_.end());  // reserve_extents() went before
    ValueReference reference;
    reference.length_bytes = static_cast<std::uint32_t>(value.size());
    reference.crc = crc32c(value.data(), value.size());
    for (const ExtentRun& run : found->runs) {
        reference.runs[reference.run_count++] = run;
        set_run(table, run, newest);
        for (std::uint32_t i = 0; i < run.pages; ++i) {
            const std::size_t bytes = std::min(value.size(), kPageBytes);
            pool_.extent_page(PageId{run.first + i}, value.first(bytes), run.pages - 1 - i);
            value = value.subspan(bytes);
        }
    }
    reserved_.erase(found);
    return reference;
}

bool Space::has_extent(TableId table, const ValueReference& reference) const {
    return std::ranges::all_of(reference.all_runs(), [&](const ExtentRun& run) {
        const PageId first = first_page(run);
        if (chunk_of(first) >= chunk_count_) return false;
        return ExtentMap(chunk_meta(pool_.newest_of(meta_page(chunk_of(first)))))
            .has_run(table, first.value % kChunkPages, run.pages);
    });
}

// A greater time at once, for a checkpoint of an earlier batch may write what a later one, perhaps
// lost, said: metadata may say "newer than it is", which costs time, but never "older". A lower
// one, where the file can tell it from that, waits for a checkpoint that has its batch.
void Space::stamp_extent(const ValueReference& reference, std::uint32_t newest) {
    const ColdPath cold;
    for (const ExtentRun& run : reference.all_runs()) {
        lower_time(first_page(run));
        std::uint32_t& known = newest_[run.first];
        if (known >> kExtentNewestShift > newest >> kExtentNewestShift) {
            // What an earlier batch said stays, or a batch after the other puts it off for ever.
            const auto [lower, fresh] =
                lower_.try_emplace(run.first, Lower{newest, pool_.open_csn()});
            if (!fresh) lower->second.newest = std::max(lower->second.newest, newest);
        } else {
            lower_.erase(run.first);
            if (known >= newest) continue;
            known = newest;
        }
        writable(meta_page(chunk_of(first_page(run))));
    }
}

// Each when its chunk's metadata is composed, or it is looked at before that: all of them at the
// checkpoint's start would hold up a round.
void Space::lower_time(PageId first) {
    const auto lower = lower_.find(first.value);
    if (lower == lower_.end() || !due(lower->second)) return;
    newest_[first.value] = lower->second.newest;
    lower_.erase(lower);
    ++lowered_;
}

void Space::free_run(ExtentRun run) {
    ChunkMeta& meta = chunk_meta(writable(meta_page(chunk_of(first_page(run)))));
    const std::uint32_t index = run.first % kChunkPages;
    CHECK(ExtentMap(meta).first_of_run(index));
    CHECK_OP(ExtentMap(meta).run_pages(index), ==, run.pages);
    ExtentMapEdit(meta).give_back(index);
    lower_time(first_page(run));  // a checkpoint of a batch before may still have the extent
    lower_.erase(run.first);
    for (std::uint32_t i = 0; i < run.pages; ++i) {
        const PageId page{run.first + i};
        set_bit(meta.used, index + i, false);
        if (pool_.resident(page)) pool_.end_extent_page(page);
        quarantine_.push_back({page, pool_.open_csn()});
    }
}

void Space::free_extent(const ValueReference& reference) {
    for (const ExtentRun& run : reference.all_runs()) free_run(run);
}

std::uint32_t Space::free_dead_extents(std::uint32_t chunk, const DeadExtent& dead) {
    const ExtentMap map(chunk_meta(pool_.newest_of(meta_page(chunk))));
    std::vector<ExtentRun> runs;
    for (std::uint32_t i = 0; map.any() && i < kChunkPages; ++i) {
        if (!map.first_of_run(i)) continue;
        const std::uint32_t first = chunk * kChunkPages + i;
        const std::uint32_t newest = extent_newest(PageId{first});
        if (dead(map.owner(i), newest)) runs.push_back({first, map.run_pages(i)});
    }
    std::uint32_t pages = 0;
    for (const ExtentRun& run : runs) {
        free_run(run);
        pages += run.pages;
    }
    return pages;
}

std::vector<TableId> Space::extent_owners(std::uint32_t chunk) const {
    std::vector<TableId> owners;
    const ChunkMeta& meta = chunk_meta(pool_.newest_of(meta_page(chunk)));
    for (const std::uint32_t owner : meta.extent_owner) {
        if (owner != 0) owners.push_back(TableId{owner});
    }
    return owners;
}

bool Space::has_extents(std::uint32_t chunk) const {
    return ExtentMap(chunk_meta(pool_.newest_of(meta_page(chunk)))).any();
}

}  // namespace bidstore
