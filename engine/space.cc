#include "engine/space.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/extent_map.h"

namespace bidstore {

const std::uint64_t* meta_bitmap(const std::byte* page) { return chunk_meta(page).used; }

Space::Space(Pool& pool, Disk& disk) : pool_(pool), disk_(disk), growth_(disk) {
    reserve_tables(page_map_chunks());
}

bool Space::fixed(PageId page) {
    const std::uint32_t chunk = chunk_of(page);
    if (page.value < kSuperblockCopies || page == meta_page(chunk)) return true;
    return chunk % kDirectoryChunks == 0 && page == directory_page(chunk / kDirectoryChunks);
}

// Of the largest file. What no chunk has touched takes no memory, and a chunk that is taken into
// use in the middle of a transaction would else have all that is there copied, now and then.
void Space::reserve_tables(std::uint32_t chunks) {
    const std::size_t pages = std::size_t{chunks} * kChunkPages;
    for (auto* bits : {&available_, &known_, &loaded_, &dropped_, &extent_, &in_file_}) {
        bits->reserve(pages / 64);
    }
    crc_.reserve(pages);
    newest_.reserve(pages);
    available_count_.reserve(chunks);
    run_bounds_.reserve(chunks);
    closed_.reserve(chunks);
    punched_.reserve(chunks);
}

void Space::resize_tables(std::uint32_t chunks) {
    const std::size_t pages = std::size_t{chunks} * kChunkPages;
    if (crc_.size() >= pages) return;
    for (auto* bits : {&available_, &known_, &loaded_, &dropped_, &extent_, &in_file_}) {
        bits->resize(pages / 64, 0);
    }
    crc_.resize(pages, 0);
    newest_.resize(pages, 0);
    available_count_.resize(chunks, 0);
    run_bounds_.resize(chunks);
    closed_.resize(chunks, false);
    punched_.resize(chunks, false);
}

std::byte* Space::writable(PageId page) {
    // A page that was there before the running checkpoint is one that it makes known.
    if (!pool_.changed(page) && (checkpoint_running_ || known(page))) ++known_changed_;
    return pool_.writable(page);
}

void Space::set_used(PageId page, bool used) {
    std::byte* meta = writable(meta_page(chunk_of(page)));
    set_bit(chunk_meta(meta).used, page.value % kChunkPages, used);
}

bool Space::take_in_chunk(std::uint32_t chunk, std::uint32_t from_word, PageId& page) {
    if (available_count_[chunk] == 0 || closed_[chunk]) return false;
    std::uint64_t* words = &available_[std::size_t{chunk} * kWordsPerChunk];
    for (std::uint32_t i = 0; i < kWordsPerChunk; ++i) {
        const std::uint32_t word = (from_word + i) % kWordsPerChunk;
        if (words[word] == 0) continue;
        const auto bit_index = static_cast<std::uint32_t>(std::countr_zero(words[word]));
        words[word] &= words[word] - 1;
        run_bounds_.lower(chunk, --available_count_[chunk]);
        --available_total_;
        page = PageId{chunk * kChunkPages + word * 64 + bit_index};
        return true;
    }
    return false;
}

PageId Space::take_near(PageId near) {
    PageId page;
    const std::uint32_t home = chunk_of(near);
    if (home < chunk_count_ && take_in_chunk(home, near.value % kChunkPages / 64, page))
        return page;
    for (std::uint32_t i = 0; i < chunk_count_; ++i) {
        const std::uint32_t chunk = (hint_chunk_ + i) % chunk_count_;
        if (!take_in_chunk(chunk, 0, page)) continue;
        hint_chunk_ = chunk;
        return page;
    }
    return PageId{};
}

PageId Space::allocate(PageType type, TableId table, PageId near) {
    const PageId page = take_near(near);
    CHECK(page.value != 0);  // secure() went before
    set_used(page, true);
    PageHeader& header = page_header(pool_.first_version(page));
    header.type = type;
    header.table_id = table.value;
    return page;
}

// A page below two inner nodes, as only a file has it that somebody wrote, comes here twice, and
// may have become another one meanwhile.
bool Space::in_use(PageId page) const {
    if (chunk_of(page) >= chunk_count_ || is_extent(page)) return false;
    const std::byte* meta = pool_.newest_of(meta_page(chunk_of(page)));
    return (meta_bitmap(meta)[page.value % kChunkPages / 64] >> (page.value % 64)) & 1;
}

void Space::free(PageId page) {
    CHECK(!fixed(page));
    if (!in_use(page)) return;
    PageHeader& header = page_header(writable(page));
    CHECK(header.type != PageType::kFree);
    header.type = PageType::kFree;
    header.count = 0;
    set_used(page, false);
    quarantine_.push_back({page, pool_.open_csn()});
}

void Space::drop(PageId page) {
    CHECK(!fixed(page));
    if (!in_use(page)) return;
    set_used(page, false);
    set_bit(dropped_.data(), page.value, true);
    if (pool_.resident(page)) pool_.keep_unwritten(page);
    quarantine_.push_back({page, pool_.open_csn()});
}

bool Space::secure(std::uint32_t pages) {
    if (available_total_ < pages) reopen();
    while (available_total_ < pages && ready_backed() > 0) add_chunk(chunk_count_);
    return available_total_ >= pages;
}

// Punched chunks that come before a backed one are taken into use with it.
std::uint64_t Space::new_chunk_frames(std::uint64_t pages, std::uint64_t more_chunks) const {
    const std::uint64_t missing = pages - std::min(pages, available_total_);
    const std::uint64_t wanted = (missing > 0 ? grow_frames(missing) : 0) + more_chunks;
    std::uint64_t backed = 0;
    std::uint64_t before_last = 0;
    std::uint64_t holes = 0;
    for (std::uint32_t chunk = chunk_count_; chunk < growth_.chunks() && backed < wanted; ++chunk) {
        if (punched(chunk)) {
            ++holes;
        } else {
            ++backed;
            before_last = holes;
        }
    }
    return wanted + before_last;
}

// One eighth of the file, so that the number of growths stays small; 1 to kGrowChunksMax.
std::uint32_t Space::ahead_chunks(std::uint32_t chunks) {
    return std::clamp(chunks / 8, 1u, kGrowChunksMax);
}

std::uint64_t Space::in_reach() const {
    return available_total_ + std::uint64_t{ready_backed()} * (kChunkPages - 2);
}

std::uint32_t Space::growth_wanted(std::uint64_t pages) const {
    const std::uint32_t limit = chunks_limit();
    if (growth_.chunks() >= limit) return 0;
    const std::uint64_t missing = pages - std::min(pages, in_reach());
    const std::uint32_t ahead = ahead_chunks(growth_.chunks());
    return std::min(limit, growth_.chunks() + std::max(ahead, grow_frames(missing)));
}

bool Space::grow(std::uint64_t pages) {
    if (!wants_growth(pages)) return false;
    if (punched_count_ + ready_punched_ > 0) {
        fill_chunk();
        return true;
    }
    const std::uint32_t chunks = growth_wanted(pages);
    if (chunks != 0) growth_.start(chunks);
    return chunks != 0;
}

std::uint32_t Space::first_punched() const {
    const auto first = std::find(punched_.begin(), punched_.end(), true);
    return static_cast<std::uint32_t>(first - punched_.begin());
}

std::uint32_t Space::fill_before(std::uint32_t chunk) {
    if (fill_refused_ || first_punched() >= chunk) return 0;
    fill_chunk();
    return filling_;
}

void Space::fill_chunk() {
    filling_ = first_punched();
    growth_.fill(first_usable_byte(filling_), (filling_ + std::uint64_t{1}) * kChunkBytes);
}

bool Space::take_growth(Status& status) {
    if (!growth_.take_result(status)) return false;
    if (!growth_.filled()) return true;
    fill_refused_ = !status;
    if (!status) return true;
    punched_[filling_] = false;
    if (filling_ >= chunk_count_) {
        --ready_punched_;
        return true;
    }
    --punched_count_;
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const PageId page{filling_ * kChunkPages + i};
        if (!fixed(page)) make_available(page);
    }
    return true;
}

void Space::add_chunk(std::uint32_t chunk) {
    resize_tables(chunk + 1);
    std::byte* meta = pool_.first_version(meta_page(chunk));
    page_header(meta).type = PageType::kMeta;
    chunk_count_ = chunk + 1;
    if (punched_[chunk]) {
        --ready_punched_;
        ++punched_count_;
    }
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const PageId page{chunk * kChunkPages + i};
        if (fixed(page)) {
            set_bit(chunk_meta(meta).used, i, true);
        } else if (!punched_[chunk]) {
            make_available(page);
        }
    }
}

// ---- bulk loads ----

PageRun Space::reserve(std::uint32_t pages, std::uint32_t at_least) {
    for (std::uint32_t i = 0; i < chunk_count_; ++i) {
        const std::uint32_t chunk = (reserve_hint_ + i) % chunk_count_;
        if (available_count_[chunk] < std::max(at_least, 1u) || closed_[chunk]) continue;
        reserve_hint_ = chunk;
        PageRun run;
        if (!take_in_chunk(chunk, 0, run.first)) continue;
        run.count = 1;
        while (run.count < pages) {
            const PageId next{run.first.value + run.count};
            if (chunk_of(next) != chunk || !bit(available_, next)) break;
            set_bit(available_.data(), next.value, false);
            run_bounds_.lower(chunk, --available_count_[chunk]);
            --available_total_;
            ++run.count;
        }
        return run;
    }
    return {};
}

void Space::give_back(const PageRun& run) {
    for (std::uint32_t i = 0; i < run.count; ++i) {
        const PageId page{run.first.value + i};
        set_bit(loaded_.data(), page.value, false);
        crc_[page.value] = 0;
        make_available(page);
    }
}

void Space::written(PageId page, const std::byte* image) {
    crc_[page.value] = page_header(image).crc;
    newest_[page.value] = newest_in(image);
    set_bit(loaded_.data(), page.value, true);
}

void Space::attach(const PageRun& run) {
    std::uint64_t* bitmap = chunk_meta(writable(meta_page(chunk_of(run.first)))).used;
    const std::uint32_t first = run.first.value % kChunkPages;  // the run lies in one chunk
    for (std::uint32_t at = first; at < first + run.count;) {
        const std::uint32_t in_word = std::min(64 - at % 64, first + run.count - at);
        const std::uint64_t ones = in_word == 64 ? ~std::uint64_t{0} : (1ull << in_word) - 1;
        bitmap[at / 64] |= ones << (at % 64);
        at += in_word;
    }
}

// ---- compaction ----

void Space::close_chunk(std::uint32_t chunk) {
    if (closed_[chunk]) return;
    closed_[chunk] = true;
    ++closed_count_;
    available_total_ -= available_count_[chunk];
}

void Space::open_chunk(std::uint32_t chunk) {
    if (!closed_[chunk]) return;
    closed_[chunk] = false;
    --closed_count_;
    available_total_ += available_count_[chunk];
}

void Space::reopen() {
    for (std::uint32_t chunk = 0; closed_count_ > 0; ++chunk) open_chunk(chunk);
}

PageId Space::next_used(std::uint32_t chunk, PageId from) const {
    const std::byte* meta = pool_.newest(meta_page(chunk));
    const ExtentMap extents(chunk_meta(meta));
    for (PageId page{from.value + 1}; chunk_of(page) == chunk; ++page.value) {
        const std::uint32_t at = page.value % kChunkPages;
        const bool used = (meta_bitmap(meta)[at / 64] >> (at % 64)) & 1;
        if (used && !fixed(page) && !extents.in_extent(at)) return page;
    }
    return PageId{};
}

std::uint32_t Space::usable_pages(std::uint32_t chunk) {
    std::uint32_t pages = kChunkPages;
    for (std::uint32_t i = 0; i < 4; ++i) pages -= fixed(PageId{chunk * kChunkPages + i});
    return pages;
}

std::uint32_t Space::used_in(std::uint32_t chunk) const {
    const std::uint64_t* words =
        meta_bitmap(static_cast<const std::byte*>(pool_.newest(meta_page(chunk))));
    std::uint32_t used = 0;
    for (std::uint32_t i = 0; i < kWordsPerChunk; ++i) used += std::popcount(words[i]);
    return used - (kChunkPages - usable_pages(chunk));
}

bool Space::known_empty(std::uint32_t chunk) const {
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const PageId page{chunk * kChunkPages + i};
        if (known(page) && !fixed(page)) return false;
    }
    return true;
}

bool Space::punch_chunk(std::uint32_t chunk) {
    CHECK(growth_.idle());
    if (chunk == 0 || available_count_[chunk] < usable_pages(chunk)) return false;
    if (!known_empty(chunk)) return false;
    take_all_available(chunk);
    punched_[chunk] = true;
    ++punched_count_;
    growth_.punch(first_usable_byte(chunk), (chunk + std::uint64_t{1}) * kChunkBytes);
    return true;
}

// Of a chunk that gives no pages from now on.
void Space::take_all_available(std::uint32_t chunk) {
    std::fill_n(available_.begin() + std::ptrdiff_t{chunk} * kWordsPerChunk, kWordsPerChunk, 0);
    if (closed_[chunk]) {
        closed_[chunk] = false;
        --closed_count_;
    } else {
        available_total_ -= available_count_[chunk];
    }
    available_count_[chunk] = 0;
    run_bounds_.lower(chunk, 0);
}

bool Space::retire_last_chunk(Csn covered) {
    const std::uint32_t last = chunk_count_ - 1;
    if (last == 0) return false;
    if (!punched_[last] && available_count_[last] < usable_pages(last)) return false;
    if (!pool_.settled(meta_page(last), covered)) return false;
    take_all_available(last);
    if (punched_[last]) {
        --punched_count_;
        ++ready_punched_;
    }
    chunk_count_ = last;
    return true;
}

std::uint32_t Space::chunks_worth_keeping() const {
    std::uint32_t chunks = chunk_count_;
    std::uint64_t reach = available_total_;
    for (; chunks < growth_.chunks() && reach < growth_mark(chunks); ++chunks) {
        reach += kChunkPages - 2;
    }
    return chunks;
}

void Space::cut(std::uint32_t to_chunks, std::uint64_t file_bytes) {
    growth_.cut(to_chunks, file_bytes);
    for (std::uint32_t chunk = to_chunks; chunk < punched_.size(); ++chunk) {
        if (punched_[chunk]) --ready_punched_;
        punched_[chunk] = false;
    }
}

bool Space::extend(std::uint32_t chunks) {
    const std::uint32_t ready = growth_.chunks();
    if (ready >= chunks_limit()) return false;
    growth_.extend(ready + std::min(chunks, chunks_limit() - ready));
    return true;
}

bool Space::fill_punched() {
    if (punched_count_ == 0 || fill_refused_) return false;
    fill_chunk();
    return true;
}

void Space::take_chunks(std::uint32_t chunks) {
    for (; chunks > 0 && chunk_count_ < growth_.chunks(); --chunks) add_chunk(chunk_count_);
}

void Space::format_first_chunk() {
    growth_.set_chunks(1);
    add_chunk(0);
}

void Space::make_available(PageId page) {
    set_bit(dropped_.data(), page.value, false);
    set_bit(loaded_.data(), page.value, false);  // dropped before a checkpoint knew it
    if (!known(page)) crc_[page.value] = 0;
    set_bit(available_.data(), page.value, true);
    set_bit(extent_.data(), page.value, false);
    set_bit(in_file_.data(), page.value, false);
    run_bounds_.raise(chunk_of(page), run_around(page));
    ++available_count_[chunk_of(page)];
    if (!closed_[chunk_of(page)]) ++available_total_;
}

bool Space::allocated(PageId page) const {
    if (chunk_of(page) >= chunk_count_ || fixed(page)) return false;
    const std::byte* meta = pool_.newest_shown(meta_page(chunk_of(page)));
    if (meta == nullptr) return false;
    return (meta_bitmap(meta)[page.value % kChunkPages / 64] >> (page.value % 64)) & 1;
}

void Space::settle_chunk(std::uint32_t chunk, const std::uint64_t* used) {
    std::memcpy(&known_[std::size_t{chunk} * kWordsPerChunk], used, kWordsPerChunk * 8);
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const PageId page{chunk * kChunkPages + i};
        if (known(page)) {
            set_bit(loaded_.data(), page.value, false);
            continue;
        }
        // A page of an extent that is not in this checkpoint is new, or still read by its CRC.
        if (bit(loaded_, page) || bit(extent_, page)) continue;
        newest_[page.value] = 0;
        if (!bit(dropped_, page)) crc_[page.value] = 0;  // else it may still be read
    }
}

std::uint32_t Space::newest_in(const std::byte* page) {
    const PageHeader& header = page_header(page);
    if (header.type != PageType::kLeaf || header.time_max == 0) return 0;
    if (header.time_shift == 0 || header.time_shift >= 64) return kNewestUnknown;
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(header.time_max >> header.time_shift, kNewestUnknown));
}

void Space::learn_newest(PageId page) {
    if (!known(page) || bit(extent_, page) || newest_[page.value] != kNewestUnknown) return;
    newest_[page.value] = newest_in(pool_.newest_of(page));
}

void Space::encode_newest(const std::uint32_t* newest, ChunkMeta& meta) {
    const ExtentMap extents(meta);
    meta.newest = 0;
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const bool of_leaf = newest[i] != kNewestUnknown && !extents.in_extent(i);
        if (of_leaf) meta.newest = std::max(meta.newest, newest[i]);
    }
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const bool known = newest[i] != kNewestUnknown;
        const std::uint32_t age = extents.in_extent(i) ? newest[i] >> kExtentNewestShift
                                  : known ? std::min(meta.newest - newest[i], kNewestAgeUnknown)
                                          : kNewestAgeUnknown;
        for (std::uint32_t byte = 0; byte < 3; ++byte) {
            meta.newest_age[i][byte] = static_cast<std::uint8_t>(age >> (8 * byte));
        }
    }
}

void Space::decode_newest(const ChunkMeta& meta, std::uint32_t* newest) {
    const ExtentMap extents(meta);
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        std::uint32_t age = 0;
        for (std::uint32_t byte = 0; byte < 3; ++byte) {
            age |= std::uint32_t{meta.newest_age[i][byte]} << (8 * byte);
        }
        if (extents.in_extent(i)) {  // the last unit that it may mean
            newest[i] = age << kExtentNewestShift | ((1u << kExtentNewestShift) - 1);
            continue;
        }
        const bool known = age != kNewestAgeUnknown && age <= meta.newest;
        newest[i] = known ? meta.newest - age : kNewestUnknown;
    }
}

void Space::settle_page(PageId page, std::uint32_t crc, std::uint32_t newest) {
    crc_[page.value] = crc;
    if (!bit(extent_, page)) {
        newest_[page.value] = newest;
    } else {
        set_bit(in_file_.data(), page.value, true);  // its time is that of its row: stamp_extent()
    }
}

const char* Space::chunk_fault(std::uint32_t chunk, const ChunkMeta& meta) {
    const ExtentMap extents(meta);
    for (std::uint32_t i = 0; i < 4; ++i) {  // as usable_pages()
        if (!fixed(PageId{chunk * kChunkPages + i})) continue;
        const bool used = (meta.used[i / 64] >> (i % 64)) & 1;
        if (!used || extents.in_extent(i)) return "a page with a fixed place is free, or a value's";
    }
    return extents.fault();
}

Status Space::adopt_chunk(std::uint32_t chunk, const ChunkMeta& meta) {
    if (const char* fault = chunk_fault(chunk, meta)) return {Error::kCorruption, fault};
    resize_tables(chunk + 1);
    chunk_count_ = std::max(chunk_count_, chunk + 1);
    growth_.set_chunks(chunk_count_);
    std::memcpy(&crc_[std::size_t{chunk} * kChunkPages], meta.page_crc, sizeof meta.page_crc);
    decode_newest(meta, &newest_[std::size_t{chunk} * kChunkPages]);
    const ExtentMap extents(meta);
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        set_bit(extent_.data(), chunk * kChunkPages + i, extents.in_extent(i));
        set_bit(in_file_.data(), chunk * kChunkPages + i, extents.in_extent(i));
    }
    settle_chunk(chunk, meta.used);
    if (known_empty(chunk)) {
        const Result<bool> backed =
            disk_.backed(StoreFile::kData, first_usable_byte(chunk), hole_bytes(chunk));
        if (!backed) return backed.failure();
        punched_[chunk] = !*backed;
        punched_count_ += !*backed;
    }
    for (std::uint32_t i = 0; i < kChunkPages; ++i) {
        const PageId page{chunk * kChunkPages + i};
        if (!known(page) && !punched_[chunk]) make_available(page);
    }
    return {};
}

}  // namespace bidstore
