// The key directory: an advisory hash from (table, key) to the leaf page that holds the row, so
// that a point read waits for one line of it instead of for a descent through the tree.
//
//   bucket:  entry | entry | ... 8 of them, a cache line       buckets 2i and 2i + 1 are a pair
//   entry:   tag (24) | row (8) | leaf page id (32)            one word, 0: none
//
//   A key hashes to a bucket and to a tag. What does not fit there goes to the other bucket of the
//   pair, and when that is full as well somebody's entry is displaced.
//
// Who:    the engine thread writes (KeyDirectoryWriter), alone; any thread of a client reads.
// Order:  none is needed: an entry is one word, and nothing is believed because of it.
// Trust:  whatever an entry says is a hint. A reader looks the page up as any other, under its
//         snapshot, checks that it is a leaf of its table and that the key is in it, and otherwise
//         goes by the tree (clientlib/read.cc). So entries may be missing, old, of another key
//         with the same tag, or garbage: that costs time, never an answer.
// Life:   an entry holds as long as the key stays on its page, in the pool or not. Rows that are
//         inserted in front of it shift its row number: then the page is searched.
// Crash:  a new pool begins with an empty directory. Pages enter their rows soon after they came;
//         where others had to go for them, when they are used again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#define XXH_INLINE_ALL  // header only
#include <xxhash.h>

#include "shm/atom.h"
#include "shm/base.h"
#include "shm/layout.h"

namespace bidstore {

// Where a key's row may be.
struct RowHint {
    PageId leaf;            // none: the directory does not know
    std::uint32_t row = 0;  // modulo 256
};

// Where a key's entry is, if it has one: its bucket, and what tells it from others in the pair.
struct DirectoryPlace {
    std::uint64_t bucket = 0;
    std::uint32_t tag = 0;  // never 0
};

namespace directory_entry {

inline constexpr std::uint32_t kRowShift = 32;
inline constexpr std::uint32_t kTagShift = 40;

inline std::uint64_t make(std::uint32_t tag, PageId leaf, std::uint32_t row) {
    return std::uint64_t{tag} << kTagShift | std::uint64_t{row & 0xff} << kRowShift | leaf.value;
}
inline std::uint32_t tag(std::uint64_t entry) {
    return static_cast<std::uint32_t>(entry >> kTagShift);
}
inline PageId leaf(std::uint64_t entry) { return PageId{static_cast<std::uint32_t>(entry)}; }
inline std::uint32_t row(std::uint64_t entry) {
    return static_cast<std::uint32_t>(entry >> kRowShift) & 0xff;
}

}  // namespace directory_entry

// The upper bits of the hash choose the bucket, the lower ones are the tag.
[[gnu::always_inline]] inline DirectoryPlace directory_place(TableId table, const std::byte* key,
                                                             std::size_t key_bytes,
                                                             std::uint64_t bucket_count) {
    // With the length known the hash is a few multiplications.
    const std::uint64_t hash = key_bytes == 16 ? XXH3_64bits_withSeed(key, 16, table.value)
                                               : XXH3_64bits_withSeed(key, key_bytes, table.value);
    __extension__ using Wide = unsigned __int128;
    return {static_cast<std::uint64_t>((Wide{hash} * bucket_count) >> 64),
            static_cast<std::uint32_t>(hash & 0xffffff) | 1};
}

// The reader's side.
class KeyDirectory {
  public:
    KeyDirectory(const DirectoryBucket* buckets, std::uint64_t bucket_count)
        : buckets_(buckets), bucket_count_(bucket_count) {}

    // Where to look, and the line on its way. Reads no shared memory.
    [[gnu::always_inline]] DirectoryPlace aim(TableId table, const std::byte* key,
                                              std::size_t key_bytes) const {
        const DirectoryPlace place = directory_place(table, key, key_bytes, bucket_count_);
        prefetch_line(&buckets_[place.bucket]);
        return place;
    }

    [[gnu::always_inline]] RowHint find(const DirectoryPlace& place) const {
        std::uint64_t entry = in_bucket(place.bucket, place.tag);
        if (entry == 0) [[unlikely]]
            entry = in_bucket(place.bucket ^ 1, place.tag);
        return {directory_entry::leaf(entry), directory_entry::row(entry)};
    }

  private:
    // Without a branch: in which of the eight places it is would be guessed wrong most of the time.
    [[gnu::always_inline]] std::uint64_t in_bucket(std::uint64_t bucket, std::uint32_t tag) const {
        std::uint64_t found = 0;
#pragma GCC unroll 8
        for (const Atom<std::uint64_t>& word : buckets_[bucket].entry) {
            const std::uint64_t entry = word.load(std::memory_order_relaxed);
            found = directory_entry::tag(entry) == tag ? entry : found;
        }
        return found;
    }

    const DirectoryBucket* buckets_;
    std::uint64_t bucket_count_;
};

// The engine's side. What it is told is written some calls later, when the line that it goes to has
// come into the cache; settle() writes all of it. Lines are fetched kTogether at a time and nothing
// between: each is in a page of its own, for which the processor looks up the address first, and it
// does that for many at once only when they follow each other closely.
class KeyDirectoryWriter {
  public:
    KeyDirectoryWriter(DirectoryBucket* buckets, std::uint64_t bucket_count,
                       const PageMapEntry* page_map, std::uint32_t page_count)
        : buckets_(buckets),
          bucket_count_(bucket_count),
          page_map_(page_map),
          page_count_(page_count) {}

    // The key's row is in this leaf from now on.
    void enter(TableId table, const std::byte* key, std::size_t key_bytes, PageId leaf,
               std::uint32_t row) {
        const DirectoryPlace place = directory_place(table, key, key_bytes, bucket_count_);
        add({place, directory_entry::make(place.tag, leaf, row), true});
    }
    // The key has no row any more.
    void forget(TableId table, const std::byte* key, std::size_t key_bytes, PageId leaf) {
        const DirectoryPlace place = directory_place(table, key, key_bytes, bucket_count_);
        add({place, directory_entry::make(place.tag, leaf, 0), false});
    }
    // Has the lines come of what was told so far.
    void fetch() {
        for (; fetched_ != added_; ++fetched_) {
            prefetch_line(&buckets_[waiting_[fetched_ % kWaiting].place.bucket]);
        }
    }
    void settle() {
        fetch();
        while (settled_ != added_) write_next();
    }

    // What is written so far, as readers see it.
    KeyDirectory written() const { return {buckets_, bucket_count_}; }

    std::uint64_t bucket_count() const { return bucket_count_; }
    std::uint64_t entered() const { return entered_; }      // entries in use
    std::uint64_t displaced() const { return displaced_; }  // for want of room, so far

  private:
    static constexpr std::uint32_t kTogether = 16;
    static constexpr std::uint32_t kWaiting = 2 * kTogether;  // half of them with lines on the way
    static constexpr std::uint32_t kVictimLooks = 4;

    struct News {
        DirectoryPlace place;
        std::uint64_t entry = 0;
        bool there = false;  // false: forget it
    };

    void add(const News& news) {
        waiting_[added_++ % kWaiting] = news;
        if (added_ - fetched_ < kTogether && added_ - settled_ < kWaiting) return;
        fetch();
        while (added_ - settled_ > kTogether) write_next();
    }

    void write_next() { write(waiting_[settled_++ % kWaiting]); }

    // Nothing is read on the strength of an entry, so relaxed stores do; its words are ours alone.
    Atom<std::uint64_t>& word(std::uint64_t bucket, std::uint32_t i) {
        return buckets_[bucket ^ (i / kBucketEntries)].entry[i % kBucketEntries];
    }

    void write(const News& news) {
        std::uint32_t empty = kPairEntries;
        for (std::uint32_t i = 0; i < kPairEntries; ++i) {
            Atom<std::uint64_t>& at = word(news.place.bucket, i);
            const std::uint64_t entry = at.load(std::memory_order_relaxed);
            if (entry == 0 && empty == kPairEntries) empty = i;
            if (directory_entry::tag(entry) != news.place.tag) {
                // Of its own bucket an entry leaves no gap in front: the other one is looked at
                // only when this one is full.
                if (i + 1 == kBucketEntries && empty != kPairEntries && news.there) break;
                continue;
            }
            if (news.there) {
                if (entry != news.entry) at.store(news.entry, std::memory_order_relaxed);
                return;
            }
            if (directory_entry::leaf(entry) == directory_entry::leaf(news.entry)) {
                at.store(0, std::memory_order_relaxed);
                --entered_;
            }
            return;
        }
        if (!news.there) return;
        if (empty == kPairEntries) {
            empty = victim(news.place.bucket);
            ++displaced_;
        } else {
            ++entered_;
        }
        word(news.place.bucket, empty).store(news.entry, std::memory_order_relaxed);
    }

    // One whose page is not in the pool, among a few; else the first of these.
    std::uint32_t victim(std::uint64_t bucket) {
        hand_ += kVictimLooks + 1;
        for (std::uint32_t look = 0; look < kVictimLooks; ++look) {
            const std::uint32_t i = (hand_ + look) % kPairEntries;
            const PageId leaf =
                directory_entry::leaf(word(bucket, i).load(std::memory_order_relaxed));
            if (leaf.value >= page_count_) return i;
            const PageMapEntry& mapped = page_map_[leaf.value];
            if ((mapped.load(std::memory_order_relaxed) & kFrameMask) == kNoFrame) return i;
        }
        return hand_ % kPairEntries;
    }

    static constexpr std::uint32_t kPairEntries = 2 * kBucketEntries;

    DirectoryBucket* buckets_;
    std::uint64_t bucket_count_;
    const PageMapEntry* page_map_;
    std::uint32_t page_count_;
    std::array<News, kWaiting> waiting_{};
    std::uint32_t added_ = 0;    // to waiting_, modulo 2^32
    std::uint32_t fetched_ = 0;  // of these: their lines are on the way
    std::uint32_t settled_ = 0;  // and these are written
    std::uint64_t entered_ = 0;
    std::uint64_t displaced_ = 0;
    std::uint32_t hand_ = 0;
};

}  // namespace bidstore
