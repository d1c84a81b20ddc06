// The pool: frames, page versions, publishing, reclaim, loading and eviction.
//
// Life of a frame:
//
//   free ──new_version/first_version──► unpublished ──publish──► published ──superseded──► retired
//     ▲                                                              │                        │
//     │◄────────────── load failed ── loading ──loaded──────────────►│                        │
//     │                                  ▲                           │ evict                  │
//     │                       free ──load┘                           ▼                        │
//     └──────────────────────────── reclaim ◄──────────────────── retired ◄───────────────────┘
//
//   unpublished  belongs to a batch that is not durable yet; reachable only through newest()
//   published    page_map or an older link leads to it: immutable until reclaimed
//   retired      a version with a successor (or an evicted page): free as soon as no announced
//                snapshot lies in [csn, successor), or may lie there (HeldSnapshots)
//
// Pages of extents (engine/page/row.h) have one version for as long as they are allocated, and no
// header: their csn is known here alone. A freed one stays readable until its quarantine is over.
//
// Who:    the engine thread alone; readers see what it stores to page map, links and frames.
// Owns:   the bookkeeping beside the segment, never the segment.
// Errors: taking a frame that is not there is our own mistake (CHECK): room is secured before.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/eviction.h"
#include "engine/page/page.h"
#include "shm/base.h"
#include "shm/key_directory.h"
#include "shm/segment.h"
#include "shm/version_writer.h"

namespace bidstore {

// The snapshots that a scan of the reader slots found announced and not revoked.
struct HeldSnapshots {
    std::vector<std::uint64_t> csns;  // ascending
    // Of the same slots: when its reader looked up all frames that it may be using (ascending, each
    // at least its snapshot's csn). What judges evicted pages, see shm/reader_slot.h.
    std::vector<std::uint64_t> looked;
    // The snapshots of slots in PIN_ALL are not known, but none is below this csn: what was
    // replaced or evicted above it may be theirs (shm/reader_slot.h).
    static constexpr std::uint64_t kNobody = ~std::uint64_t{0};
    std::uint64_t pinned_from = kNobody;

    void clear();
    void sort();  // after csns and looked were filled in any order
    bool empty() const { return csns.empty() && pinned_from == kNobody; }
    // Whether a snapshot may lie in [from, to).
    bool any_in(std::uint64_t from, std::uint64_t to) const;
    // Whether somebody may be using the frame of a page with csn `from`, evicted at `to`.
    bool any_reading(std::uint64_t from, std::uint64_t to) const;
    // Whether a snapshot may lie below csn.
    bool any_below(std::uint64_t csn) const {
        return pinned_from < csn || (!csns.empty() && csns.front() < csn);
    }
};

class Pool {
  public:
    explicit Pool(PoolSegment& segment);

    std::uint32_t page_count() const { return page_count_; }
    std::uint32_t frame_count() const { return frame_count_; }  // usable ones
    std::uint32_t free_frames() const { return static_cast<std::uint32_t>(free_.size()); }
    std::uint64_t visible() const { return visible_; }
    // First 8 bytes of the file's uuid, as page headers carry it.
    std::uint64_t file_uuid() const;

    // ---- reading ----
    // Newest version, unpublished ones counted; nullptr when the page is not in the pool.
    const std::byte* newest(PageId page);
    // The same, of a page that is there, and no use of it.
    const std::byte* newest_of(PageId page) const {
        return segment_.frame(FrameId{newest_[page.value]});
    }
    // The version a snapshot at csn sees, or nullptr; only for csns that are held, see reclaim.
    const std::byte* version_at(PageId page, Csn csn) const;
    bool resident(PageId page) const { return newest_[page.value] != kNoFrame; }
    // Starts to load the page's first `bytes` into the processor's cache, when it is there.
    [[gnu::always_inline]] void prefetch(PageId page, std::size_t bytes) const {
        const std::uint32_t frame = newest_[page.value];
        if (frame != kNoFrame) prefetch_bytes(segment_.frame(FrameId{frame}), bytes);
    }
    // Published, and not just allocated by an unpublished batch.
    bool published(PageId page) const;

    // Between the two, pages that newest() gave out are not evicted: what was looked at before room
    // was made is still there when it is changed.
    void begin_use() {
        ++use_;
        in_use_ = true;
        looked_at_ = 0;
    }
    void end_use() { in_use_ = false; }
    // Different pages that newest() gave out since begin_use().
    std::uint32_t looked_at() const { return looked_at_; }

    // ---- the open batch ----
    void begin_batch(Csn csn);
    Csn open_csn() const { return Csn{open_csn_}; }  // 0: none open
    // The open batch's private version of a resident page, copied at the first call.
    std::byte* writable(PageId page);
    // While nobody reads (recovery): writable() gives a page's only version itself, which the batch
    // then takes over. No page has another one when this begins.
    void change_in_place(bool yes) { in_place_ = yes; }
    // The newest published version; where changes are made in place, what there is.
    const std::byte* newest_shown(PageId page) const {
        if (!in_place_) return version_at(page, Csn{visible_});
        return resident(page) ? newest_of(page) : nullptr;
    }
    // A zeroed first version of a page that has none; header id, csn and uuid are set.
    std::byte* first_version(PageId page);
    // Page versions of the open batch so far.
    std::uint64_t open_versions() const { return open_.frames.size(); }
    // The only version of a page of an extent: `bytes` and zeros. Frames that lie side by side are
    // sought for pages that do; `more` pages behind it will be asked for next.
    void extent_page(PageId page, std::span<const std::byte> bytes, std::uint32_t more);
    // The open batch drops a table: its publication says so, too.
    void drop_table() { open_.drops_table = true; }
    // Closes the open batch: it joins the unpublished ones.
    void end_batch();
    bool has_unpublished() const { return open_csn_ != 0 || !unpublished_.empty(); }
    // Csn of the oldest unpublished batch, the open one counted.
    Csn oldest_unpublished() const;
    // Publishes the oldest closed batch: page map entries, then visible (release).
    void publish();
    // A change of very many pages in one batch copies them ahead, a few at a time: a free frame
    // gets the resident page's content now, and the next writable() of the page takes it, whoever
    // asks. Needs a free frame, and a page that is never evicted. Does nothing when the page has a
    // copy already or changed in this batch.
    void copy_ahead(PageId page);
    // Frames of copies that nobody took are free again.
    void forget_copies();
    // Makes an empty csn visible; only with nothing unpublished.
    void advance_visible(Csn csn);

    // ---- loading ----
    // A frame to read the page into; the caller calls loaded() or load_failed() afterwards.
    // `more`: as in extent_page(), for pages of extents.
    FrameId begin_load(PageId page, bool extent = false, std::uint32_t more = 0);
    std::byte* frame_bytes(FrameId frame) { return segment_.frame(frame); }
    // The frame holds a checked image: publishes it.
    void loaded(FrameId frame);
    void load_failed(FrameId frame);

    // ---- reclaim and eviction ----
    // Frees the retired versions that nobody of `held` needs (a scan made after the newest
    // publication); returns how many. Of those that a snapshot kept in an earlier round, at most
    // `kept_looks` are looked at again, where the last look ended: a stalled reader, or a
    // checkpoint, may keep very many.
    std::uint32_t reclaim(const HeldSnapshots& held, std::uint32_t kept_looks);
    std::uint32_t kept() const { return static_cast<std::uint32_t>(kept_.size()); }
    std::uint32_t retired() const {
        return static_cast<std::uint32_t>(retired_.size() + kept_.size());
    }
    // Of these, evicted pages: their frames come back as soon as no reader looks at them.
    std::uint32_t evicted() const { return evicted_; }
    // How many of the retired versions these snapshots need; about, where there are very many.
    std::uint64_t kept_for(const HeldSnapshots& held) const;
    // Drops the page (its only version is published) out of the pool; readers of snapshots below
    // `csn`, the next publication, may still use the frame.
    void evict(PageId page, Csn csn);
    // The resident page is no checkpoint's any more, but snapshots still see it: unless the file
    // holds its newest version, that stays in the pool until evict().
    void keep_unwritten(PageId page);
    // The open batch frees the resident page of an extent. Where the file does not have its
    // content, snapshots from its life, from its csn to that of the batch, still see it in its
    // frame; when none of these is left the frame is reclaimed as a replaced version is.
    void end_extent_page(PageId page);
    // Whether the page is there for snapshots of the past alone, after end_extent_page().
    bool retiring(PageId page) const {
        return resident(page) && info_[newest_[page.value]].state == State::kRetired;
    }
    // Whether the page is in the pool with one version alone, which is published, and which a
    // finished checkpoint at `covered` has.
    bool settled(PageId page, Csn covered) const;
    // Whether the leaf's newest row is younger than pin_recent.
    using RecentTest = std::function<bool(const PageHeader& leaf)>;
    // Up to `count` pages that are to be evicted, by engine/eviction.h; the caller evicts all of
    // them. `covered`: newest csn of a finished checkpoint. Valid until the next call.
    const std::vector<PageId>& eviction_candidates(std::uint32_t count, Csn covered,
                                                   const RecentTest& recent);
    // A client marked a use of the page; of a page that is not there it means nothing. True: it is
    // there, and the key directory was not told of its rows.
    bool touched(PageId page);
    // Frames that are kept free ahead of need.
    std::uint32_t low_frames() const { return std::max(16u, frame_count_ / 64); }
    // Whether the key directory was told of the resident page's rows. It is told of those of a new
    // page one by one; of those of a page that was read, by whoever sees fit.
    bool rows_entered(PageId page) const { return info_[newest_[page.value]].rows_entered; }
    void set_rows_entered(PageId page) { info_[newest_[page.value]].rows_entered = true; }
    Eviction& eviction() { return eviction_; }
    KeyDirectoryWriter& directory() { return directory_; }
    const KeyDirectoryWriter& directory() const { return directory_; }

    // ---- changed pages ----
    // Whether the page changed since the last checkpoint began; unpublished changes count.
    bool changed(PageId page) const { return bit(changed_, page); }
    std::uint64_t changed_count() const { return changed_count_; }
    // A checkpoint of everything published begins: what changed so far is for it to take, and the
    // changes of unpublished batches are the first ones behind it. Returns how many pages of these
    // have a published version. None is running.
    std::uint64_t begin_checkpoint();
    // Pages that the running checkpoint takes, or that changed behind it for the first time: 64 of
    // them from page 64 * word on, a bit each.
    std::uint64_t taken(std::uint32_t word) const { return taken_[word]; }
    std::uint32_t page_words() const { return static_cast<std::uint32_t>(taken_.size()); }
    std::uint64_t taken_count() const { return taken_count_; }
    // The running checkpoint is done with all of these pages; with the last word it has ended.
    void settle(std::uint32_t first_word, std::uint32_t words);

    // Whether the page has a version older than its newest one.
    bool has_older(PageId page) const {
        return newest_[page.value] != kNoFrame && writer_.older(newest_[page.value]) != kNoFrame;
    }
    // Newest version's csn of a resident page, unpublished ones counted.
    Csn newest_csn(PageId page) const { return Csn{info_[newest_[page.value]].csn}; }
    // Of what version_at() gives, which is there.
    Csn version_csn(PageId page, Csn csn) const { return Csn{info_[frame_at(page, csn)].csn}; }

    void check_invariants() const;

  private:
    enum class State : std::uint8_t {
        kFree,
        kUnpublished,
        kPublished,
        kRetired,
        kLoading,
        kCopied,  // ahead of writable(); no link leads to it
    };
    struct Info {
        std::uint64_t csn = 0;        // of the content
        std::uint64_t successor = 0;  // csn that superseded it; retired frames only
        std::uint32_t page = 0;
        std::uint32_t newer = kNoFrame;
        std::uint32_t copy = kNoFrame;  // of its content, made ahead
        std::uint32_t used = 0;  // the use (begin_use) that asked for it last
        State state = State::kFree;
        bool referenced = false;
        bool evicted = false;  // retired, and its page can be read again from the file
        bool unwritten = false;  // no checkpoint will write it: keep_unwritten()
        bool extent = false;     // a page without header
        bool rows_entered = false;  // into the key directory
    };
    struct BatchFrames {
        std::uint64_t csn = 0;
        std::vector<std::uint32_t> frames;
        bool drops_table = false;
        std::vector<std::uint32_t> ended;  // of extents that the batch freed: end_extent_page()
    };

    std::uint32_t take_frame(PageId page, State state);
    std::uint32_t take_frame(std::uint32_t frame, PageId page, State state);
    std::uint32_t take_extent_frame(PageId page, State state, std::uint32_t more);
    bool all_free(std::uint32_t frame, std::uint32_t frames) const;
    std::uint32_t free_run(std::uint32_t frames);
    void put_free(std::uint32_t frame);
    std::uint32_t frame_at(PageId page, Csn csn) const;
    void set_state(std::uint32_t frame, State from, State to);
    static bool bit(const std::vector<std::uint64_t>& bits, PageId page) {
        return (bits[page.value / 64] >> (page.value % 64)) & 1;
    }
    std::byte* take_over(std::uint32_t frame);
    void mark_changed(PageId page);
    bool seen_by(const HeldSnapshots& held, std::uint32_t frame) const;
    const std::byte* const_frame(std::uint32_t frame) const {
        return segment_.frame(FrameId{frame});
    }
    bool evictable(std::uint32_t frame, Csn covered) const;
    class Hands;
    void unlink(std::uint32_t frame);
    void look_again(const HeldSnapshots& held, std::uint32_t looks);

    PoolSegment& segment_;
    VersionWriter writer_;
    KeyDirectoryWriter directory_;
    std::uint32_t page_count_;
    std::uint32_t frame_count_;
    std::uint64_t visible_ = 0;
    std::uint64_t open_csn_ = 0;
    bool in_place_ = false;
    BatchFrames open_;
    std::vector<BatchFrames> unpublished_;    // oldest first; at most two
    std::vector<BatchFrames> spare_batches_;  // their memory, for the next ones
    std::vector<std::uint32_t> newest_;       // per page
    std::vector<Info> info_;                  // per frame
    std::vector<std::uint32_t> copied_;       // frames that have a copy, or had one
    std::vector<std::uint32_t> free_;
    std::vector<std::uint32_t> free_place_;  // per frame that is free: where in free_
    PageId last_extent_page_;                // the newest page of an extent, and its frame
    std::uint32_t last_extent_frame_ = kNoFrame;
    std::uint32_t extent_pages_left_ = 0;    // that were to follow it
    std::uint32_t run_hand_ = 1;          // where the last search for neighbouring frames ended
    std::vector<std::uint32_t> retired_;  // not judged yet; ascending by successor
    std::vector<std::uint32_t> kept_;     // by a snapshot, in an earlier round
    std::uint32_t evicted_ = 0;           // of retired_ and kept_
    std::size_t kept_hand_ = 0;           // below it they are looked at next, downwards
    std::vector<std::uint32_t> round_;    // to be freed in this round
    std::vector<std::uint64_t> changed_;  // bit per page
    std::vector<std::uint64_t> taken_;    // bit per page: by the running checkpoint
    std::uint64_t changed_count_ = 0;
    std::uint64_t taken_count_ = 0;
    Eviction eviction_;  // of the newest versions' frames
    std::vector<std::uint32_t> chosen_;  // by eviction_candidates(), as frames and as pages
    std::vector<PageId> candidates_;
    std::uint32_t use_ = 0;
    std::uint32_t looked_at_ = 0;
    bool in_use_ = false;
};

// From here to the end of the scope, what is looked at stays in the pool.
class PagesInUse {
  public:
    explicit PagesInUse(Pool& pool) : pool_(pool) { pool_.begin_use(); }
    ~PagesInUse() { pool_.end_use(); }
    PagesInUse(const PagesInUse&) = delete;
    PagesInUse& operator=(const PagesInUse&) = delete;

  private:
    Pool& pool_;
};

}  // namespace bidstore
