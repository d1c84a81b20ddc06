#include "engine/pool.h"

#include <algorithm>
#include <cstring>

namespace bidstore {

namespace {

constexpr std::uint64_t kLooksMax = 65'536;  // of one search for cold pages

}  // namespace

namespace {

bool lies_in(const std::vector<std::uint64_t>& ascending, std::uint64_t from, std::uint64_t to) {
    const auto first = std::lower_bound(ascending.begin(), ascending.end(), from);
    return first != ascending.end() && *first < to;
}

}  // namespace

bool HeldSnapshots::any_in(std::uint64_t from, std::uint64_t to) const {
    return lies_in(csns, from, to);
}

bool HeldSnapshots::any_reading(std::uint64_t from, std::uint64_t to) const {
    return lies_in(looked, from, to);
}

Pool::Pool(PoolSegment& segment)
    : segment_(segment),
      writer_(segment),
      page_count_(segment.header().page_count),
      frame_count_(segment.header().frame_count - 1),
      newest_(page_count_, kNoFrame),
      info_(segment.header().frame_count),
      changed_bits_(page_count_, false) {
    free_.reserve(frame_count_);
    for (std::uint32_t frame = frame_count_; frame >= 1; --frame) free_.push_back(frame);
}

std::uint64_t Pool::file_uuid() const {
    std::uint64_t uuid = 0;
    std::memcpy(&uuid, segment_.header().file_uuid, sizeof uuid);
    return uuid;
}

const std::byte* Pool::newest(PageId page) {
    DCHECK(page.value < page_count_);
    const std::uint32_t frame = newest_[page.value];
    if (frame == kNoFrame) return nullptr;
    info_[frame].referenced = true;
    looked_at_ += info_[frame].used != use_;
    info_[frame].used = use_;
    return segment_.frame(FrameId{frame});
}

bool Pool::published(PageId page) const { return writer_.mapped(page) != kNoFrame; }

const std::byte* Pool::version_at(PageId page, Csn csn) const {
    std::uint32_t frame = newest_[page.value];
    while (frame != kNoFrame && info_[frame].csn > csn.value) frame = writer_.older(frame);
    return frame == kNoFrame ? nullptr : segment_.frame(FrameId{frame});
}

void Pool::set_state(std::uint32_t frame, State from, State to) {
    CHECK_OP(static_cast<int>(info_[frame].state), ==, static_cast<int>(from));
    info_[frame].state = to;
}

std::uint32_t Pool::take_frame(PageId page, State state) {
    CHECK(!free_.empty());  // room was secured before
    const std::uint32_t frame = free_.back();
    free_.pop_back();
    set_state(frame, State::kFree, state);
    info_[frame].page = page.value;
    info_[frame].newer = kNoFrame;
    info_[frame].successor = 0;
    info_[frame].referenced = true;
    info_[frame].evicted = false;
    info_[frame].unwritten = false;
    return frame;
}

void Pool::begin_batch(Csn csn) {
    CHECK_OP(open_csn_, ==, 0);
    CHECK_OP(csn.value, >, visible_);
    open_csn_ = csn.value;
    open_.csn = csn.value;
}

void Pool::mark_changed(PageId page) {
    if (changed_bits_[page.value]) return;
    changed_bits_[page.value] = true;
    changed_.push_back(page.value);
}

std::byte* Pool::writable(PageId page) {
    const std::uint32_t base = newest_[page.value];
    CHECK(base != kNoFrame);
    if (info_[base].csn == open_csn_) return segment_.frame(FrameId{base});
    CHECK(open_csn_ != 0);
    const std::uint32_t frame = take_frame(page, State::kUnpublished);
    std::byte* bytes = segment_.frame(FrameId{frame});
    VersionWriter::fill(bytes, open_csn_, segment_.frame(FrameId{base}));
    writer_.link(frame, base);
    info_[frame].csn = open_csn_;
    info_[base].newer = frame;
    newest_[page.value] = frame;
    open_.frames.push_back(frame);
    mark_changed(page);
    return bytes;
}

std::byte* Pool::first_version(PageId page) {
    CHECK(newest_[page.value] == kNoFrame);
    CHECK(open_csn_ != 0);
    const std::uint32_t frame = take_frame(page, State::kUnpublished);
    std::byte* bytes = segment_.frame(FrameId{frame});
    VersionWriter::fill(bytes, open_csn_, nullptr);
    PageHeader& header = page_header(bytes);
    header.page_id = page.value;
    header.file_uuid = file_uuid();
    writer_.link(frame, kNoFrame);
    info_[frame].csn = open_csn_;
    newest_[page.value] = frame;
    open_.frames.push_back(frame);
    mark_changed(page);
    return bytes;
}

void Pool::end_batch() {
    CHECK(open_csn_ != 0);
    unpublished_.push_back(std::move(open_));
    open_ = BatchFrames{};
    open_csn_ = 0;
}

Csn Pool::oldest_unpublished() const {
    CHECK(has_unpublished());
    return Csn{unpublished_.empty() ? open_csn_ : unpublished_.front().csn};
}

void Pool::publish() {
    CHECK(!unpublished_.empty());
    BatchFrames batch = std::move(unpublished_.front());
    unpublished_.erase(unpublished_.begin());
    CHECK_OP(batch.csn, >, visible_);
    for (const std::uint32_t frame : batch.frames) {
        set_state(frame, State::kUnpublished, State::kPublished);
        writer_.map(PageId{info_[frame].page}, frame);
        const std::uint32_t old = writer_.older(frame);
        if (old == kNoFrame) continue;
        set_state(old, State::kPublished, State::kRetired);
        info_[old].successor = batch.csn;
        retired_.push_back(old);
    }
    visible_ = batch.csn;
    writer_.publish(visible_);
}

void Pool::advance_visible(Csn csn) {
    CHECK(!has_unpublished());
    CHECK_OP(csn.value, >, visible_);
    visible_ = csn.value;
    writer_.publish(visible_);
}

FrameId Pool::begin_load(PageId page) {
    CHECK(newest_[page.value] == kNoFrame);
    const std::uint32_t frame = take_frame(page, State::kLoading);
    writer_.link(frame, kNoFrame);
    return FrameId{frame};
}

void Pool::loaded(FrameId frame) {
    Info& info = info_[frame.value];
    CHECK(newest_[info.page] == kNoFrame);
    set_state(frame.value, State::kLoading, State::kPublished);
    info.csn = VersionWriter::csn_of(segment_.frame(frame));
    newest_[info.page] = frame.value;
    writer_.map(PageId{info.page}, frame.value);
}

void Pool::load_failed(FrameId frame) {
    set_state(frame.value, State::kLoading, State::kFree);
    free_.push_back(frame.value);
}

// Takes a retired version out of its chain: its newer neighbour now leads to its older one.
void Pool::unlink(std::uint32_t frame) {
    const std::uint32_t newer = info_[frame].newer;
    const std::uint32_t below = writer_.older(frame);
    if (newer != kNoFrame) writer_.link(newer, below);
    if (below != kNoFrame) info_[below].newer = newer;
}

// Moves those of `frames` that nobody needs to `round`.
void Pool::sort_out(const HeldSnapshots& held, std::vector<std::uint32_t>& frames,
                    std::vector<std::uint32_t>& kept, std::vector<std::uint32_t>& round) {
    std::vector<std::uint32_t> still_kept;
    for (const std::uint32_t frame : frames) {
        const Info& info = info_[frame];
        // An evicted page's successor is the next publication, which may not have happened yet.
        const bool needed = info.evicted ? held.any_reading(info.csn, info.successor)
                                         : held.any_in(info.csn, info.successor);
        if (info.successor > visible_ || needed) {
            still_kept.push_back(frame);
            continue;
        }
        unlink(frame);
        round.push_back(frame);
    }
    frames.clear();
    kept.insert(kept.end(), still_kept.begin(), still_kept.end());
}

std::uint32_t Pool::reclaim(const HeldSnapshots& held, bool thorough) {
    if (held.pin_all || retired() == 0) return 0;
    std::vector<std::uint32_t> round;
    if (thorough) {
        std::vector<std::uint32_t> before = std::move(kept_);
        kept_.clear();
        sort_out(held, before, kept_, round);
    }
    sort_out(held, retired_, kept_, round);
    if (round.empty()) return 0;
    writer_.next_generation();  // one step serves the round
    for (const std::uint32_t frame : round) {
        set_state(frame, State::kRetired, State::kFree);
        if (info_[frame].evicted) --evicted_;
        free_.push_back(frame);
    }
    return static_cast<std::uint32_t>(round.size());
}

void Pool::evict(PageId page, Csn csn) {
    const std::uint32_t frame = newest_[page.value];
    CHECK(writer_.older(frame) == kNoFrame);
    set_state(frame, State::kPublished, State::kRetired);
    writer_.map(page, kNoFrame);
    newest_[page.value] = kNoFrame;
    info_[frame].successor = csn.value;
    info_[frame].evicted = true;
    ++evicted_;
    retired_.push_back(frame);
}

void Pool::keep_unwritten(PageId page) {
    info_[newest_[page.value]].unwritten = changed(page);
}

bool Pool::evictable(std::uint32_t frame, Csn covered) const {
    const Info& info = info_[frame];
    if (info.state != State::kPublished || info.newer != kNoFrame) return false;
    if (in_use_ && info.used == use_) return false;
    if (writer_.older(frame) != kNoFrame || info.csn > covered.value) return false;
    if (changed_bits_[info.page] || info.unwritten) return false;
    return page_header(static_cast<const std::byte*>(segment_.frame(FrameId{frame}))).type !=
           PageType::kMeta;
}

std::vector<PageId> Pool::eviction_candidates(std::uint32_t count, Csn covered) {
    std::vector<PageId> pages;
    const std::uint64_t looks = std::min<std::uint64_t>(
        2ull * frame_count_, std::max<std::uint64_t>(kLooksMax, 4ull * count));
    for (std::uint64_t looked = 0; looked < looks && pages.size() < count; ++looked) {
        const std::uint32_t frame = hand_;
        hand_ = hand_ == frame_count_ ? 1 : hand_ + 1;
        if (!evictable(frame, covered)) continue;
        if (!info_[frame].referenced) pages.push_back(PageId{info_[frame].page});
        info_[frame].referenced = false;
    }
    // A second lap may have come by the same page again.
    std::sort(pages.begin(), pages.end());
    pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
    return pages;
}

void Pool::settle(Csn csn) {
    std::size_t kept = 0;
    for (const std::uint32_t page : changed_) {
        const std::uint32_t frame = newest_[page];
        if (frame != kNoFrame && info_[frame].csn > csn.value) {
            changed_[kept++] = page;
        } else {
            changed_bits_[page] = false;
        }
    }
    changed_.resize(kept);
}

void Pool::check_invariants() const {
    std::size_t in_use = 0;
    for (std::uint32_t frame = 1; frame <= frame_count_; ++frame) {
        const Info& info = info_[frame];
        if (info.state == State::kFree) continue;
        ++in_use;
        if (info.state == State::kRetired) CHECK_OP(info.successor, >, info.csn);
        if (info.newer != kNoFrame) CHECK_OP(writer_.older(info.newer), ==, frame);
        const std::uint32_t below = writer_.older(frame);
        if (below != kNoFrame && info.state != State::kRetired) {
            CHECK_OP(info_[below].page, ==, info.page);
            CHECK_OP(info_[below].csn, <, info.csn);
        }
    }
    CHECK_OP(in_use + free_.size(), ==, frame_count_);
}

}  // namespace bidstore
