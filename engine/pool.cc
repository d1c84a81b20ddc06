#include "engine/pool.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/page/catalog_schema.h"
#include "shm/hot_path.h"

namespace bidstore {

namespace {

// Of one search for cold pages: a round stays short also among pages that cannot go.
constexpr std::uint64_t kLooksMax = 8'192;
constexpr std::uint32_t kRunLooksMax = 4'096;  // of one search for neighbouring free frames

bool lies_in(const std::vector<std::uint64_t>& ascending, std::uint64_t from, std::uint64_t to) {
    const auto first = std::lower_bound(ascending.begin(), ascending.end(), from);
    return first != ascending.end() && *first < to;
}

}  // namespace

void HeldSnapshots::clear() {
    csns.clear();
    looked.clear();
    pinned_from = kNobody;
}

void HeldSnapshots::sort() {
    std::sort(csns.begin(), csns.end());
    std::sort(looked.begin(), looked.end());
}

bool HeldSnapshots::any_in(std::uint64_t from, std::uint64_t to) const {
    return to > pinned_from || lies_in(csns, from, to);
}

bool HeldSnapshots::any_reading(std::uint64_t from, std::uint64_t to) const {
    return to > pinned_from || lies_in(looked, from, to);
}

Pool::Pool(PoolSegment& segment)
    : segment_(segment),
      writer_(segment),
      directory_(segment.directory(), segment.header().bucket_count, segment.page_map(),
                 segment.header().page_count),
      page_count_(segment.header().page_count),
      frame_count_(segment.header().frame_count - 1),
      newest_(page_count_, kNoFrame),
      info_(segment.header().frame_count),
      free_place_(segment.header().frame_count),
      changed_((page_count_ + 63) / 64, 0),
      taken_(changed_.size(), 0),
      eviction_(frame_count_) {
    free_.reserve(frame_count_);
    for (std::uint32_t frame = frame_count_; frame >= 1; --frame) put_free(frame);
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

std::uint32_t Pool::frame_at(PageId page, Csn csn) const {
    std::uint32_t frame = newest_[page.value];
    while (frame != kNoFrame && info_[frame].csn > csn.value) frame = writer_.older(frame);
    return frame;
}

const std::byte* Pool::version_at(PageId page, Csn csn) const {
    const std::uint32_t frame = frame_at(page, csn);
    return frame == kNoFrame ? nullptr : segment_.frame(FrameId{frame});
}

void Pool::set_state(std::uint32_t frame, State from, State to) {
    CHECK_OP(static_cast<int>(info_[frame].state), ==, static_cast<int>(from));
    info_[frame].state = to;
}

std::uint32_t Pool::take_frame(PageId page, State state) {
    CHECK(!free_.empty());  // room was secured before
    return take_frame(free_.back(), page, state);
}

std::uint32_t Pool::take_frame(std::uint32_t frame, PageId page, State state) {
    const std::uint32_t last = free_.back();
    free_[free_place_[frame]] = last;
    free_place_[last] = free_place_[frame];
    free_.pop_back();
    set_state(frame, State::kFree, state);
    Info& info = info_[frame];
    info.page = page.value;
    info.newer = kNoFrame;
    info.copy = kNoFrame;
    info.successor = 0;
    info.referenced = true;
    info.evicted = false;
    info.unwritten = false;
    info.extent = false;
    info.rows_entered = false;
    return frame;
}

void Pool::put_free(std::uint32_t frame) {
    free_place_[frame] = static_cast<std::uint32_t>(free_.size());
    free_.push_back(frame);
}

// The first of `frames` neighbouring free frames, or of as many as a bounded search found.
std::uint32_t Pool::free_run(std::uint32_t frames) {
    std::uint32_t best = free_.back();
    std::uint32_t best_length = 1;
    std::uint32_t length = 0;
    for (std::uint32_t looks = 0; looks < kRunLooksMax && best_length < frames; ++looks) {
        if (run_hand_ > frame_count_) {
            run_hand_ = 1;
            length = 0;
        }
        length = info_[run_hand_].state == State::kFree ? length + 1 : 0;
        if (length > best_length) {
            best_length = length;
            best = run_hand_ + 1 - length;
        }
        ++run_hand_;
    }
    run_hand_ = best + best_length;
    return best;
}

bool Pool::all_free(std::uint32_t frame, std::uint32_t frames) const {
    if (frame + frames - 1 > frame_count_) return false;
    for (std::uint32_t i = 0; i < frames; ++i) {
        if (info_[frame + i].state != State::kFree) return false;
    }
    return true;
}

std::uint32_t Pool::take_extent_frame(PageId page, State state, std::uint32_t more) {
    CHECK(!free_.empty());  // room was secured before
    std::uint32_t frame = last_extent_frame_ + 1;
    // Another value may begin right behind the last one's pages: it wants as many frames.
    const std::uint32_t wanted = extent_pages_left_ > 0 ? 1 : more + 1;
    const bool follows = last_extent_frame_ != kNoFrame &&
                         page.value == last_extent_page_.value + 1 && all_free(frame, wanted);
    if (!follows) frame = more == 0 ? free_.back() : free_run(more + 1);
    take_frame(frame, page, state);
    info_[frame].extent = true;
    last_extent_page_ = page;
    last_extent_frame_ = frame;
    extent_pages_left_ = more;
    return frame;
}

void Pool::begin_batch(Csn csn) {
    CHECK_OP(open_csn_, ==, 0);
    CHECK_OP(csn.value, >, visible_);
    open_csn_ = csn.value;
    open_.csn = csn.value;
}

void Pool::mark_changed(PageId page) {
    if (changed(page)) return;
    changed_[page.value / 64] |= std::uint64_t{1} << (page.value % 64);
    ++changed_count_;
}

std::byte* Pool::writable(PageId page) {
    CHECK(open_csn_ != 0);
    const std::uint32_t base = newest_[page.value];
    CHECK(base != kNoFrame);
    // The header says it as well as info_ does, and is what the caller comes for.
    std::byte* const newest = segment_.frame(FrameId{base});
    if (VersionWriter::csn_of(newest) == open_csn_) return newest;
    CHECK(!info_[base].extent);  // written once
    if (in_place_) return take_over(base);
    const bool copied = info_[base].copy != kNoFrame;
    const std::uint32_t frame =
        copied ? std::exchange(info_[base].copy, kNoFrame) : take_frame(page, State::kUnpublished);
    std::byte* bytes = segment_.frame(FrameId{frame});
    if (copied) {
        set_state(frame, State::kCopied, State::kUnpublished);
        VersionWriter::stamp(bytes, open_csn_);
    } else {
        VersionWriter::fill(bytes, open_csn_, newest);
    }
    writer_.link(frame, base);
    info_[frame].csn = open_csn_;
    info_[frame].rows_entered = info_[base].rows_entered;
    info_[base].newer = frame;
    newest_[page.value] = frame;
    eviction_.replace(base, frame);
    kept_push(open_.frames, frame);
    mark_changed(page);
    return bytes;
}

std::byte* Pool::take_over(std::uint32_t frame) {
    CHECK(writer_.older(frame) == kNoFrame);
    set_state(frame, State::kPublished, State::kUnpublished);
    std::byte* bytes = segment_.frame(FrameId{frame});
    VersionWriter::stamp(bytes, open_csn_);
    info_[frame].csn = open_csn_;
    info_[frame].referenced = true;
    kept_push(open_.frames, frame);
    mark_changed(PageId{info_[frame].page});
    return bytes;
}

void Pool::copy_ahead(PageId page) {
    const std::uint32_t base = newest_[page.value];
    CHECK(base != kNoFrame);
    if (info_[base].csn == open_csn_ || info_[base].copy != kNoFrame) return;
    const std::uint32_t frame = take_frame(page, State::kCopied);
    const std::byte* content = segment_.frame(FrameId{base});
    VersionWriter::fill(segment_.frame(FrameId{frame}), VersionWriter::csn_of(content), content);
    writer_.link(frame, kNoFrame);
    info_[base].copy = frame;
    copied_.push_back(base);
}

void Pool::forget_copies() {
    for (const std::uint32_t base : copied_) {
        const std::uint32_t frame = std::exchange(info_[base].copy, kNoFrame);
        if (frame == kNoFrame) continue;
        set_state(frame, State::kCopied, State::kFree);
        put_free(frame);
    }
    copied_.clear();
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
    info_[frame].rows_entered = true;
    newest_[page.value] = frame;
    eviction_.admit(frame, page, false);  // it will show what it becomes
    kept_push(open_.frames, frame);
    mark_changed(page);
    return bytes;
}

void Pool::extent_page(PageId page, std::span<const std::byte> bytes, std::uint32_t more) {
    CHECK(newest_[page.value] == kNoFrame);
    CHECK(open_csn_ != 0);
    const std::uint32_t frame = take_extent_frame(page, State::kUnpublished, more);
    VersionWriter::fill_extent(segment_.frame(FrameId{frame}), bytes.data(), bytes.size());
    eviction_.admit(frame, page, false);
    writer_.link(frame, kNoFrame);
    info_[frame].csn = open_csn_;
    newest_[page.value] = frame;
    kept_push(open_.frames, frame);
    mark_changed(page);
}

void Pool::end_batch() {
    CHECK(open_csn_ != 0);
    kept_push(unpublished_, std::move(open_));
    open_ = BatchFrames{};
    if (!spare_batches_.empty()) {
        open_ = std::move(spare_batches_.back());
        spare_batches_.pop_back();
    }
    open_csn_ = 0;
    directory_.fetch();  // publish() writes there
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
        const PageId page{info_[frame].page};
        // A version that a later batch has replaced has no credit of its own any more.
        const bool newest = newest_[page.value] == frame;
        writer_.map(page, frame, newest && eviction_.watched(frame));
        const std::uint32_t old = writer_.older(frame);
        if (old == kNoFrame) continue;
        set_state(old, State::kPublished, State::kRetired);
        info_[old].successor = batch.csn;
        kept_push(retired_, old);
    }
    for (const std::uint32_t frame : batch.ended) {
        set_state(frame, State::kPublished, State::kRetired);
        info_[frame].successor = batch.csn;
        kept_push(retired_, frame);
    }
    if (batch.drops_table) writer_.drops_table(batch.csn);
    visible_ = batch.csn;
    writer_.publish(visible_);
    directory_.settle();
    batch.frames.clear();
    batch.ended.clear();
    batch.drops_table = false;
    kept_push(spare_batches_, std::move(batch));
}

void Pool::advance_visible(Csn csn) {
    CHECK(!has_unpublished());
    CHECK_OP(csn.value, >, visible_);
    visible_ = csn.value;
    writer_.publish(visible_);
}

FrameId Pool::begin_load(PageId page, bool extent, std::uint32_t more) {
    CHECK(newest_[page.value] == kNoFrame);
    const std::uint32_t frame =
        extent ? take_extent_frame(page, State::kLoading, more) : take_frame(page, State::kLoading);
    writer_.link(frame, kNoFrame);
    return FrameId{frame};
}

void Pool::loaded(FrameId frame) {
    Info& info = info_[frame.value];
    CHECK(newest_[info.page] == kNoFrame);
    set_state(frame.value, State::kLoading, State::kPublished);
    // A page of an extent does not say since when it is there: every snapshot counts for it.
    info.csn = info.extent ? 1 : VersionWriter::csn_of(segment_.frame(frame));
    info.referenced = false;  // being asked for once is what brought it here
    newest_[info.page] = frame.value;
    const bool inner =
        !info.extent && page_header(const_frame(frame.value)).type == PageType::kInner;
    eviction_.admit(frame.value, PageId{info.page}, inner);
    writer_.map(PageId{info.page}, frame.value, eviction_.watched(frame.value));
}

void Pool::load_failed(FrameId frame) {
    set_state(frame.value, State::kLoading, State::kFree);
    put_free(frame.value);
}

// Takes a retired version out of its chain: its newer neighbour now leads to its older one. A freed
// page of an extent has neither: the page is no longer there.
void Pool::unlink(std::uint32_t frame) {
    const PageId page{info_[frame].page};
    if (newest_[page.value] == frame) {
        writer_.map(page, kNoFrame);
        newest_[page.value] = kNoFrame;
        eviction_.leave(frame);
        if (changed(page)) {  // it holds no frame until a checkpoint any more
            changed_[page.value / 64] &= ~(std::uint64_t{1} << (page.value % 64));
            --changed_count_;
        }
    }
    const std::uint32_t newer = info_[frame].newer;
    const std::uint32_t below = writer_.older(frame);
    if (newer != kNoFrame) writer_.link(newer, below);
    if (below != kNoFrame) info_[below].newer = newer;
}

bool Pool::seen_by(const HeldSnapshots& held, std::uint32_t frame) const {
    const Info& info = info_[frame];
    return info.evicted ? held.any_reading(info.csn, info.successor)
                        : held.any_in(info.csn, info.successor);
}

std::uint64_t Pool::kept_for(const HeldSnapshots& held) const {
    constexpr std::size_t kLookedAt = 1024;  // of each list: some tens of microseconds
    if (held.empty()) return 0;
    std::uint64_t kept = 0;
    for (const auto* frames : {&retired_, &kept_}) {
        const std::size_t step = frames->size() / kLookedAt + 1;
        for (std::size_t i = 0; i < frames->size(); i += step) {
            if (seen_by(held, (*frames)[i])) kept += step;
        }
    }
    return kept;
}

// Downwards, so that what takes the place of a freed one was looked at before, or is new.
void Pool::look_again(const HeldSnapshots& held, std::uint32_t looks) {
    if (looks >= kept()) {
        looks = kept();
        kept_hand_ = kept_.size();
    }
    for (; looks > 0; --looks) {
        if (kept_hand_ == 0 || kept_hand_ > kept_.size()) kept_hand_ = kept_.size();
        const std::uint32_t frame = kept_[--kept_hand_];
        if (seen_by(held, frame)) continue;
        unlink(frame);
        kept_push(round_, frame);
        kept_[kept_hand_] = kept_.back();
        kept_.pop_back();
    }
}

std::uint32_t Pool::reclaim(const HeldSnapshots& held, std::uint32_t kept_looks) {
    if (retired() == 0) return 0;
    const HotPath hot("reclaim");
    round_.clear();
    look_again(held, kept_looks);
    // What slots in PIN_ALL keep is soon judged by snapshots; an evicted page's successor is the
    // next publication, which may not have happened yet. Neither is looked at before.
    const std::uint64_t judged = std::min(visible_, held.pinned_from);
    const auto end = std::upper_bound(
        retired_.begin(), retired_.end(), judged,
        [this](std::uint64_t csn, std::uint32_t frame) { return csn < info_[frame].successor; });
    for (auto next = retired_.begin(); next != end; ++next) {
        if (seen_by(held, *next)) {
            kept_push(kept_, *next);
            continue;
        }
        unlink(*next);
        kept_push(round_, *next);
    }
    retired_.erase(retired_.begin(), end);
    if (round_.empty()) return 0;
    writer_.next_generation();  // one step serves the round
    for (const std::uint32_t frame : round_) {
        set_state(frame, State::kRetired, State::kFree);
        if (info_[frame].evicted) --evicted_;
        put_free(frame);
    }
    return static_cast<std::uint32_t>(round_.size());
}

void Pool::evict(PageId page, Csn csn) {
    const std::uint32_t frame = newest_[page.value];
    CHECK(writer_.older(frame) == kNoFrame);
    CHECK_OP(info_[frame].copy, ==, kNoFrame);
    set_state(frame, State::kPublished, State::kRetired);
    writer_.map(page, kNoFrame);
    newest_[page.value] = kNoFrame;
    eviction_.leave(frame);
    info_[frame].successor = csn.value;
    info_[frame].evicted = true;
    ++evicted_;
    retired_.push_back(frame);
}

void Pool::keep_unwritten(PageId page) { info_[newest_[page.value]].unwritten = changed(page); }

void Pool::end_extent_page(PageId page) {
    if (!changed(page)) return;
    info_[newest_[page.value]].unwritten = true;
    kept_push(open_.ended, newest_[page.value]);
}

bool Pool::settled(PageId page, Csn covered) const {
    const std::uint32_t frame = newest_[page.value];
    if (frame == kNoFrame || info_[frame].state != State::kPublished) return false;
    return info_[frame].newer == kNoFrame && writer_.older(frame) == kNoFrame &&
           info_[frame].csn <= covered.value && !changed(page);
}

bool Pool::evictable(std::uint32_t frame, Csn covered) const {
    const Info& info = info_[frame];
    if (info.state != State::kPublished || info.newer != kNoFrame) return false;
    if (in_use_ && info.used == use_) return false;
    if (writer_.older(frame) != kNoFrame || info.csn > covered.value) return false;
    if (bit(changed_, PageId{info.page}) || bit(taken_, PageId{info.page})) return false;
    if (info.unwritten) return false;
    if (info.extent) return true;
    const PageHeader& header = page_header(const_frame(frame));
    // A batch that is sealed puts its sessions' rows, whose way it cannot read then.
    if (header.type == PageType::kInner && header.table_id == kSessionsTable.value) return false;
    return header.type != PageType::kMeta;
}

// What the hands ask of the pages they come to.
class Pool::Hands {
  public:
    Hands(Pool& pool, Csn covered, const RecentTest& recent)
        : pool_(pool), covered_(covered), recent_(recent) {}
    Eviction::Look look(std::uint32_t frame) {
        Info& info = pool_.info_[frame];
        const PageHeader& header = page_header(pool_.const_frame(frame));
        Eviction::Look look;
        look.may_go = pool_.evictable(frame, covered_);
        look.touched = info.referenced;
        info.referenced = false;
        if (info.extent) return look;  // has no header
        look.inner = header.type == PageType::kInner;
        look.recent = header.type == PageType::kLeaf && recent_ && recent_(header);
        return look;
    }
    void comes(std::uint32_t frame) const {
        if (frame != 0) prefetch_line(pool_.const_frame(frame));
    }
    void watch(std::uint32_t frame, bool watched) {
        const PageId page{pool_.info_[frame].page};
        // One that is not published yet is told when it is.
        if (pool_.writer_.mapped(page) == frame) pool_.writer_.watch(page, watched);
    }

  private:
    Pool& pool_;
    Csn covered_;
    const RecentTest& recent_;
};

const std::vector<PageId>& Pool::eviction_candidates(std::uint32_t count, Csn covered,
                                                     const RecentTest& recent) {
    const std::uint64_t looks = std::min<std::uint64_t>(
        2ull * frame_count_, std::max<std::uint64_t>(kLooksMax, 4ull * count));
    Hands hands(*this, covered, recent);
    chosen_.clear();
    eviction_.choose(count, looks, hands, chosen_);
    candidates_.clear();
    for (const std::uint32_t frame : chosen_) candidates_.push_back(PageId{info_[frame].page});
    return candidates_;
}

bool Pool::touched(PageId page) {
    if (page.value >= page_count_ || newest_[page.value] == kNoFrame) return false;
    const std::uint32_t frame = newest_[page.value];
    if (eviction_.touch(frame) && writer_.mapped(page) != kNoFrame) writer_.watch(page, false);
    return !info_[frame].rows_entered;
}

std::uint64_t Pool::begin_checkpoint() {
    CHECK_OP(taken_count_, ==, 0);
    std::swap(changed_, taken_);
    std::swap(changed_count_, taken_count_);
    std::uint64_t known = 0;
    const auto begin = [&](const BatchFrames& batch) {
        for (const std::uint32_t frame : batch.frames) {
            const PageId page{info_[frame].page};
            known += !changed(page) && version_at(page, Csn{visible_}) != nullptr;
            mark_changed(page);
        }
    };
    for (const BatchFrames& batch : unpublished_) begin(batch);
    begin(open_);
    return known;
}

void Pool::settle(std::uint32_t first_word, std::uint32_t words) {
    std::fill_n(taken_.begin() + first_word, words, 0);
    if (first_word + words == taken_.size()) taken_count_ = 0;
}

void Pool::check_invariants() const {
    std::size_t in_use = 0;
    for (std::uint32_t frame = 1; frame <= frame_count_; ++frame) {
        const Info& info = info_[frame];
        CHECK_OP(eviction_.holds(frame), ==, newest_[info.page] == frame);
        if (info.state == State::kFree) continue;
        ++in_use;
        if (info.state == State::kPublished && newest_[info.page] == frame) {
            CHECK_OP(writer_.watched(PageId{info.page}), ==, eviction_.watched(frame));
        }
        // Equal: an extent that the batch which brought it freed.
        if (info.state == State::kRetired) CHECK_OP(info.successor, >=, info.csn);
        if (info.newer != kNoFrame) CHECK_OP(writer_.older(info.newer), ==, frame);
        const std::uint32_t below = writer_.older(frame);
        if (below != kNoFrame && info.state != State::kRetired) {
            CHECK_OP(info_[below].page, ==, info.page);
            CHECK_OP(info_[below].csn, <, info.csn);
        }
    }
    CHECK_OP(in_use + free_.size(), ==, frame_count_);
    CHECK(std::is_sorted(retired_.begin(), retired_.end(), [this](auto left, auto right) {
        return info_[left].successor < info_[right].successor;
    }));
    eviction_.check_invariants();
}

}  // namespace bidstore
