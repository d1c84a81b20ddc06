// Reader slots: how a reading thread announces its snapshot, and how the engine knows which
// versions nobody can see any more.
//
// Who:    one thread at a time owns a slot (SlotOwner); the engine thread watches and revokes.
// Owns:   nothing; the segments outlive the views.
// Order:  see the argument below; each access says its part.
// Crash:  an owner that stops anywhere leaves a word that keeps the versions it could see, until
//         the engine revokes the episode; then the slot no longer counts.
// Trust:  slots are in the client segment: the engine judges what it loads and believes nothing.
//
// A slot's word is kSlotIdle, kSlotPinAll, or the csn s of the snapshot held. Its episode is one
// more at each begin, so that a revocation names exactly one stay in the slot:
//
//           exchange(PIN_ALL)          store(s)              store(IDLE)
//     IDLE ------------------> PIN_ALL ---------> snapshot s ----------> IDLE
//                                 ^                  |
//                                 +-- pin_all() -----+   (a walk that was disturbed)
//
// Why a snapshot that begins cannot be missed, from both sides:
//
//   reader                                    engine
//   R1  word.exchange(PIN_ALL, seq_cst)       E1  visible.store(c, release)
//   R2  s = visible.load(seq_cst)             E2  fence(seq_cst)
//   R3  word.store(s, release)                E3  word.load(acquire), episode.load(acquire)
//
//   In the single order of seq_cst operations either R1 comes before E2 or E2 before R1.
//   - R1 before E2: the load E3 sees PIN_ALL or something later of this slot. PIN_ALL keeps every
//     version that s can see (below); s, written by R3, keeps the versions of s; something later
//     than R3 needs nothing of this snapshot.
//   - E2 before R1: R2 comes after R1, thus after E2, and sees visible >= c. The engine reclaims
//     only versions whose successor is visible before E2, with csn_w <= c <= s: this snapshot reads
//     the successor, or something newer.
//   So either the engine sees the reader, or the reader sees the engine. With R1 a release store
//   and R2 an acquire load neither need happen: the store waits in the store buffer while the load
//   is answered (tests/reader_slot_test.cc watches that happen). Word before episode at E3: the
//   episode is written before the word, so it is at least as new as the word, and an episode newer
//   than the word began after E2 and needs nothing that this scan judges.
//
// What PIN_ALL keeps: the engine does not know s, but a csn b that s is not below. It is s itself
// when a scan saw s in this episode. Else it is what was visible at the last scan before the one
// that saw the episode first: that one did not see R1, so its E2 came before R1, and R2 saw what
// was visible then, or later. s >= b, so what s sees has no successor, or one above b: every
// version with a successor above b is kept, and nothing else. A snapshot that begins keeps what was
// replaced since the last scan but one, and slots that begin one after the other keep no more than
// that, for each episode has its own b. One that stays in PIN_ALL, or slots with one snapshot that
// take turns there, keep what that sees and everything newer, until that is more than their client
// may have kept for it (ClientPort::revoke_greediest()).
//
// Why a revoked snapshot is never believed, from both sides:
//
//   reader                                    engine
//   R4  loads from frames                     E4  revoked[slot].store(n)
//   R5  fence(acquire)                        E5  fence(release)
//   R6  revoked[slot].load() < n              E6  stores to frames it had kept for the slot
//
//   If R4 saw anything that E6 wrote, then by the fences R6 sees what E4 wrote, and valid() is
//   false. So when valid() is true all that was loaded before it was still the snapshot's.
//
// Why an evicted page's frame may be reused under a snapshot that could see it, from both sides:
//
//   reader                                    engine
//   R7  loads from frames looked up so far    E7   page_map[P] = none (release)
//   R8  v = visible.load(acquire)             E8   visible.store(e, release), e the eviction's csn
//   R9  looked.store(v, release)              E9   looked.load(acquire) >= e
//   R10 page_map[P].load, from now on         E10  stores to the frame that P had
//
//   The same bytes can be read again from the file, so all that matters is whether the reader still
//   uses the frame. E9 saw what R9 stored: R7 is over before E10. And R8 saw e or later, thus E7:
//   R10 does not find the frame any more. A reader that has not stored `looked` since it began has
//   looked up its frames at its snapshot's csn or later, so the greater of word and looked counts.
//   `looked` is true of the thread for ever, whatever the episode. Replaced versions are not in the
//   file: they are judged by the word alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "shm/atom.h"
#include "shm/base.h"
#include "shm/layout.h"

namespace bidstore {

// `looked` of a reader that waits: it uses no frame at all, and looks none up before resume().
inline constexpr std::uint64_t kLookedNothing = ~std::uint64_t{0};

// A reading thread's side of its slot. Process-local, one thread at a time, not copied while a
// snapshot is held.
class SlotOwner {
  public:
    // Takes over an idle slot. Episodes go on above what the slot shows: what was revoked before
    // its segment was announced (another process may have had the slot's number; prepare() put it
    // there) and those of former owners in this process. Never above what is revoked by now: that
    // may be a detach, which ends all that this connection may still begin and scans the slot no
    // more. Of a segment whose memory was given back it shows 0, which is dead, too.
    SlotOwner(ReaderSlot& slot, const Published& published, const RevokedEntry& revoked)
        : slot_(&slot),
          published_(&published),
          revoked_(&revoked),
          episode_(slot.episode.load(std::memory_order_relaxed)) {
        // Its last owner may have ended in the middle of a wait. Begin() makes it known.
        slot.looked.store(0, std::memory_order_relaxed);
    }

    // Takes a snapshot of everything visible now. No snapshot is held in this slot yet.
    Csn begin() {
        DCHECK(!snapshot_);
        // Release: whoever sees the episode sees that the one before ended. The exchange puts it
        // out before the word.
        slot_->episode.store(++episode_, std::memory_order_release);
        slot_->word.exchange(kSlotPinAll, std::memory_order_seq_cst);          // R1
        snapshot_ = Csn{published_->visible.load(std::memory_order_seq_cst)};  // R2
        slot_->word.store(snapshot_.value, std::memory_order_release);         // R3
        return snapshot_;
    }

    // Was all that was loaded since begin() the snapshot's? Data are used, then this is checked,
    // then they are believed. Once false, false until the next begin().
    bool valid() const {
        memory_fence<std::memory_order_acquire>();                    // R5
        return revoked_->load(std::memory_order_relaxed) < episode_;  // R6
    }

    // Lets the versions go. Release: the loads from frames are done before the engine can see it.
    void end() {
        slot_->word.store(kSlotIdle, std::memory_order_release);
        snapshot_ = Csn{};
    }

    // Keeps every version that the snapshot sees, and all newer ones, for a moment
    // (shm/page_map.h). Always followed by unpin(), soon: the engine revokes an episode that stays
    // in PIN_ALL. The fence: what is loaded from here on is as new as at the last scan (E2) before
    // the exchange, whatever the loads are.
    void pin_all() {
        slot_->word.exchange(kSlotPinAll, std::memory_order_seq_cst);
        memory_fence<std::memory_order_seq_cst>();
    }
    void unpin() { slot_->word.store(snapshot_.value, std::memory_order_release); }

    // The caller uses no frame any more that it looked up so far; the snapshot stays, and what it
    // needs is looked up again. Lets go of pages that were evicted meanwhile: a snapshot may so
    // read any number of pages, however few the pool holds. False: nothing was published since the
    // last time, nothing was done, and frames in use may stay in use.
    bool renew() {
        const std::uint64_t now = published_->visible.load(std::memory_order_acquire);  // R8
        if (now == std::max(looked_, snapshot_.value)) return false;
        looked_ = now;
        slot_->looked.store(now, std::memory_order_release);  // R9
        return true;
    }
    // The caller uses no frame, and looks none up before resume(): a reader that waits for a page
    // must not be what keeps the frames.
    void rest() { slot_->looked.store(kLookedNothing, std::memory_order_release); }
    // Announces itself anew, as begin() does: the engine's scan sees what stands in `looked`, or
    // this thread sees what was visible at the scan, and looks up no page evicted before it.
    void resume() {
        slot_->looked.exchange(snapshot_.value, std::memory_order_seq_cst);
        looked_ = published_->visible.load(std::memory_order_seq_cst);
        slot_->looked.store(looked_, std::memory_order_release);
    }
    // Whether renew() would do something.
    bool behind() const {
        const std::uint64_t now = published_->visible.load(std::memory_order_relaxed);
        return now != std::max(looked_, snapshot_.value);
    }

    Csn snapshot() const { return snapshot_; }  // 0: none is held
    std::uint64_t episode() const { return episode_; }

  private:
    ReaderSlot* slot_;
    const Published* published_;
    const RevokedEntry* revoked_;
    std::uint64_t episode_;
    Csn snapshot_;
    std::uint64_t looked_ = 0;  // as stored in the slot
};

// What the engine saw in a slot.
struct SlotSighting {
    std::uint64_t word = kSlotIdle;
    std::uint64_t episode = 0;
    std::uint64_t looked = 0;

    // Does the slot count at all? `revoked` is the engine's own newest revoked episode of it.
    bool counts(std::uint64_t revoked) const { return word != kSlotIdle && episode > revoked; }
    bool pins_all() const { return word == kSlotPinAll; }
    // Does a counting slot keep a version of csn `from` whose successor has csn `to`? From
    // inclusive, to exclusive. In PIN_ALL its snapshot is not below `bound`.
    bool keeps(Csn from, Csn to, Csn bound) const {
        return pins_all() ? to > bound : word >= from.value && word < to.value;
    }
};

// The engine's side of all slots. Engine thread only.
class SlotWatcher {
  public:
    // E2. Once per scan, after publishing: what becomes visible later is not judged by this scan.
    static void begin_scan() { memory_fence<std::memory_order_seq_cst>(); }

    // E3. Word, then episode. E9.
    static SlotSighting look(const ReaderSlot& slot) {
        SlotSighting sighting;
        sighting.word = slot.word.load(std::memory_order_acquire);
        sighting.episode = slot.episode.load(std::memory_order_acquire);
        sighting.looked = slot.looked.load(std::memory_order_acquire);
        return sighting;
    }

    // Looks again at a slot that was seen in PIN_ALL. An episode that changed after the fence does
    // not count: it comes back idle.
    static SlotSighting look_again(const ReaderSlot& slot, const SlotSighting& first) {
        const SlotSighting second = look(slot);
        return second.episode == first.episode ? second : SlotSighting{};
    }

    // E4, E5. From its return on `episode` and all before it no longer count, and frames kept for
    // them may be overwritten. Never decreases.
    static void revoke(RevokedEntry& revoked, std::uint64_t episode) {
        if (revoked.load(std::memory_order_relaxed) < episode) {
            revoked.store(episode, std::memory_order_relaxed);
        }
        memory_fence<std::memory_order_release>();
    }

    // Prepares a slot for a new owner, before its segment is announced: idle, episodes above all
    // that are dead.
    static void prepare(ReaderSlot& slot, const RevokedEntry& revoked) {
        slot.episode.store(revoked.load(std::memory_order_relaxed), std::memory_order_relaxed);
        slot.word.store(kSlotIdle, std::memory_order_relaxed);
        slot.looked.store(0, std::memory_order_relaxed);
    }
};

}  // namespace bidstore
