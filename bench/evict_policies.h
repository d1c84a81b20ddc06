// Replacement policies to compare with: LRU, CLOCK, SIEVE, S3-FIFO, and the optimum.
//
// Each is a class with `bool access(std::uint32_t page)`, which says whether the page was there and
// has it there afterwards; the optimum also hears when each access comes again. Written for
// clearness: these numbers are ratios, not times.
//
// Who: bench/evict_replay.cc alone, one thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <queue>
#include <utility>
#include <vector>

namespace bench {

inline constexpr std::uint32_t kNowhere = ~std::uint32_t{0};

// Pages in a doubly linked order; front is the oldest.
class PageList {
  public:
    explicit PageList(std::uint32_t pages) : ahead_(pages, kNowhere), behind_(pages, kNowhere) {}
    std::uint32_t size() const { return size_; }
    std::uint32_t front() const { return front_; }
    std::uint32_t back() const { return back_; }
    std::uint32_t behind(std::uint32_t page) const { return behind_[page]; }

    void push_back(std::uint32_t page) {
        ahead_[page] = back_;
        behind_[page] = kNowhere;
        (back_ == kNowhere ? front_ : behind_[back_]) = page;
        back_ = page;
        ++size_;
    }
    void remove(std::uint32_t page) {
        (ahead_[page] == kNowhere ? front_ : behind_[ahead_[page]]) = behind_[page];
        (behind_[page] == kNowhere ? back_ : ahead_[behind_[page]]) = ahead_[page];
        --size_;
    }
    std::uint32_t pop_front() {
        const std::uint32_t page = front_;
        remove(page);
        return page;
    }

  private:
    std::vector<std::uint32_t> ahead_;
    std::vector<std::uint32_t> behind_;
    std::uint32_t front_ = kNowhere;
    std::uint32_t back_ = kNowhere;
    std::uint32_t size_ = 0;
};

class Lru {
  public:
    Lru(std::uint32_t pages, std::uint32_t room)
        : room_(room), there_(pages, false), list_(pages) {}
    bool access(std::uint32_t page) {
        const bool hit = there_[page];
        if (hit) {
            list_.remove(page);
        } else if (list_.size() == room_) {
            there_[list_.pop_front()] = false;
        }
        there_[page] = true;
        list_.push_back(page);
        return hit;
    }

  private:
    std::uint32_t room_;
    std::vector<bool> there_;
    PageList list_;
};

class ClockOfPages {
  public:
    ClockOfPages(std::uint32_t pages, std::uint32_t room)
        : room_(room), there_(pages, false), used_(pages, false), list_(pages) {}
    bool access(std::uint32_t page) {
        if (there_[page]) {
            used_[page] = true;
            return true;
        }
        if (list_.size() == room_) evict();
        there_[page] = true;
        used_[page] = false;
        list_.push_back(page);
        return false;
    }

  private:
    void evict() {
        for (;;) {
            const std::uint32_t page = list_.pop_front();
            if (!used_[page]) {
                there_[page] = false;
                return;
            }
            used_[page] = false;
            list_.push_back(page);
        }
    }
    std::uint32_t room_;
    std::vector<bool> there_;
    std::vector<bool> used_;
    PageList list_;
};

// SIEVE (Zhang et al., NSDI 2024): as clock, but what the hand spares stays where it is.
class Sieve {
  public:
    Sieve(std::uint32_t pages, std::uint32_t room)
        : room_(room), there_(pages, false), used_(pages, false), list_(pages) {}
    bool access(std::uint32_t page) {
        if (there_[page]) {
            used_[page] = true;
            return true;
        }
        if (list_.size() == room_) evict();
        there_[page] = true;
        used_[page] = false;
        list_.push_back(page);
        return false;
    }

  private:
    void evict() {
        std::uint32_t page = hand_ == kNowhere ? list_.front() : hand_;
        while (used_[page]) {
            used_[page] = false;
            page = list_.behind(page);
            if (page == kNowhere) page = list_.front();
        }
        hand_ = list_.behind(page);
        there_[page] = false;
        list_.remove(page);
    }
    std::uint32_t room_;
    std::vector<bool> there_;
    std::vector<bool> used_;
    PageList list_;
    std::uint32_t hand_ = kNowhere;
};

// S3-FIFO (Yang et al., SOSP 2023): a tenth small, a ghost as long as main, as in the paper.
class S3Fifo {
  public:
    S3Fifo(std::uint32_t pages, std::uint32_t room)
        : room_(room),
          small_room_(std::max(1u, room / 10)),
          place_(pages, kOut),
          count_(pages, 0),
          small_(pages),
          main_(pages),
          ghost_(pages) {}
    bool access(std::uint32_t page) {
        if (place_[page] == kSmall || place_[page] == kMain) {
            count_[page] = std::min<std::uint8_t>(3, count_[page] + 1);
            return true;
        }
        const bool known = place_[page] == kGhost;
        if (known) ghost_.remove(page);
        if (known) place_[page] = kOut;
        while (small_.size() + main_.size() >= room_) evict();
        place_[page] = known ? kMain : kSmall;
        count_[page] = 0;
        (known ? main_ : small_).push_back(page);
        return false;
    }

  private:
    enum Place : std::uint8_t { kOut, kSmall, kMain, kGhost };
    void evict() {
        if (small_.size() >= small_room_ || main_.size() == 0) {
            evict_small();
        } else {
            evict_main();
        }
    }
    void evict_small() {
        while (small_.size() > 0) {
            const std::uint32_t page = small_.pop_front();
            if (count_[page] > 1) {
                place_[page] = kMain;
                count_[page] = 0;
                main_.push_back(page);
                if (main_.size() > room_ - small_room_) return evict_main();
                continue;
            }
            if (ghost_.size() >= room_ - small_room_ && ghost_.size() > 0) {
                place_[ghost_.pop_front()] = kOut;
            }
            place_[page] = kGhost;
            ghost_.push_back(page);
            return;
        }
    }
    void evict_main() {
        while (main_.size() > 0) {
            const std::uint32_t page = main_.pop_front();
            if (count_[page] == 0) {
                place_[page] = kOut;
                return;
            }
            --count_[page];
            main_.push_back(page);
        }
    }
    std::uint32_t room_;
    std::uint32_t small_room_;
    std::vector<Place> place_;
    std::vector<std::uint8_t> count_;
    PageList small_;
    PageList main_;
    PageList ghost_;
};

// Belady's optimum: the page that is needed last goes.
class Optimum {
  public:
    Optimum(std::uint32_t pages, std::uint32_t room) : room_(room), next_(pages, 0) {}
    // `again`: the position of this page's next access, or kNowhere.
    bool access(std::uint32_t page, std::uint32_t again) {
        const bool hit = next_[page] != 0;
        if (!hit && size_ == room_) evict();
        size_ += !hit;
        next_[page] = again;
        far_.emplace(again, page);
        return hit;
    }

  private:
    void evict() {
        for (;;) {
            const auto [again, page] = far_.top();
            far_.pop();
            if (next_[page] != again) continue;  // it was accessed since
            next_[page] = 0;
            --size_;
            return;
        }
    }
    std::uint32_t room_;
    std::uint32_t size_ = 0;
    std::vector<std::uint32_t> next_;  // 0: not there
    std::priority_queue<std::pair<std::uint32_t, std::uint32_t>> far_;
};

}  // namespace bench
