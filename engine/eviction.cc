#include "engine/eviction.h"

#include <algorithm>
#include <bit>

namespace bidstore {
namespace {

// Of the pool: enough to see a page twice, too little to miss it elsewhere.
constexpr std::uint32_t kProbationPart = 10;
// A page that was read for somebody must not go before he has looked at it: more pages than can be
// on their way at once come before it, also in a small pool.
constexpr std::uint32_t kProbationLeast = 256;

std::uint32_t hash_of(PageId page) {
    const std::uint64_t mixed = (std::uint64_t{page.value} + 1) * 0x9e3779b97f4a7c15;
    return static_cast<std::uint32_t>(mixed >> 32);
}

}  // namespace

Eviction::Eviction(std::uint32_t frame_count)
    : frame_count_(frame_count),
      probation_share_(std::max(1 + frame_count / kProbationPart,
                                std::min(kProbationLeast, frame_count / 4))),
      entries_(frame_count + 1) {
    set_recent_share(0.5);
    // Remembers as many pages as main holds. Room for twice that, since hashes crowd.
    memory_span_ = frame_count - probation_share_;
    memory_.resize(std::max(kMemoryWays, std::bit_ceil(2 * frame_count)));
    memory_mask_ = static_cast<std::uint32_t>(memory_.size()) - kMemoryWays;
}

Eviction::Group Eviction::group_of(PageId page) {
    const std::uint32_t part = (hash_of(page) >> 8) % kDuelPart;
    if (part == 0) return Group::kMoving;
    return part == 1 ? Group::kStaying : Group::kFollowing;
}

Eviction::Queue& Eviction::queue_of(Place place, PageId page) {
    CHECK(place != Place::kNone);
    if (place == Place::kProbation) return probation_;
    return place == Place::kMain ? main_[static_cast<std::size_t>(group_of(page))] : recent_;
}

bool Eviction::stays_in_place(Group group) const {
    return group == Group::kFollowing ? duel_ < 0 : group == Group::kStaying;
}

void Eviction::push(std::uint32_t frame, Place place) {
    Entry& entry = entries_[frame];
    entry.place = place;
    Queue& queue = queue_of(entry);
    entry.ahead = queue.back;
    entry.behind = 0;
    if (queue.back != 0) entries_[queue.back].behind = frame;
    if (queue.front == 0) queue.front = frame;
    queue.back = frame;
    ++queue.size;
}

void Eviction::unlink(std::uint32_t frame) {
    Entry& entry = entries_[frame];
    Queue& queue = queue_of(entry);
    if (queue.hand == frame) queue.hand = entry.behind;
    (entry.ahead != 0 ? entries_[entry.ahead].behind : queue.front) = entry.behind;
    (entry.behind != 0 ? entries_[entry.behind].ahead : queue.back) = entry.ahead;
    entry.place = Place::kNone;
    --queue.size;
}

void Eviction::admit(std::uint32_t frame, PageId page, bool inner) {
    Entry& entry = entries_[frame];
    CHECK(entry.place == Place::kNone);
    entry = Entry{};
    entry.page = page.value;
    entry.credit_max = kLeafCredit;
    set_inner(entry, inner);
    const Group group = group_of(page);
    if (group == Group::kMoving) duel_ = std::max(-kDuelMax, duel_ - 1);
    if (group == Group::kStaying) duel_ = std::min(kDuelMax, duel_ + 1);
    const bool known = recall(page);
    push(frame, known || inner ? Place::kMain : Place::kProbation);
}

void Eviction::replace(std::uint32_t frame, std::uint32_t by) {
    Entry& entry = entries_[frame];
    CHECK(entry.place != Place::kNone);
    CHECK(entries_[by].place == Place::kNone);
    Queue& queue = queue_of(entry);
    if (queue.hand == frame) queue.hand = by;
    (entry.ahead != 0 ? entries_[entry.ahead].behind : queue.front) = by;
    (entry.behind != 0 ? entries_[entry.behind].ahead : queue.back) = by;
    entries_[by] = entry;
    entry.place = Place::kNone;
}

void Eviction::leave(std::uint32_t frame) {
    Entry& entry = entries_[frame];
    if (entry.place == Place::kNone) return;
    unlink(frame);
    inner_count_ -= entry.inner;
}

void Eviction::go(std::uint32_t frame) {
    Entry& entry = entries_[frame];
    if (entry.place == Place::kProbation) remember(PageId{entry.page});
    queue_of(entry).spared = 0;
    leave(frame);
}

std::uint32_t Eviction::main_size() const {
    return main_[0].size + main_[1].size + main_[2].size;
}

// The hand that moves next: probation gives up what it has above its share.
std::uint32_t Eviction::next_frame() const {
    const bool none_in_main = main_size() == 0;
    if (probation_.size >= probation_share_ || none_in_main) {
        if (probation_.size > 0) return probation_.front;
    }
    return none_in_main ? 0 : next_of_main();
}

// Of the group that is furthest above its part of main; but not of one whose hand went round and
// found nothing, while there is another.
std::uint32_t Eviction::next_of_main() const {
    const auto all = static_cast<std::int64_t>(main_size());
    Group best = Group::kFollowing;
    std::uint64_t best_rounds = ~std::uint64_t{0};
    std::int64_t best_excess = 0;
    for (const Group group : {Group::kFollowing, Group::kMoving, Group::kStaying}) {
        const Queue& queue = main_[static_cast<std::size_t>(group)];
        if (queue.size == 0) continue;
        const std::int64_t parts = group == Group::kFollowing ? kDuelPart - 2 : 1;
        const std::int64_t excess = (queue.size * std::int64_t{kDuelPart} - all * parts) / parts;
        const std::uint64_t rounds = queue.spared / queue.size;
        if (rounds > best_rounds || (rounds == best_rounds && excess <= best_excess)) continue;
        best = group;
        best_rounds = rounds;
        best_excess = excess;
    }
    const Queue& queue = main_[static_cast<std::size_t>(best)];
    // Where what is spared moves to the back, the hand would never come past the back.
    return queue.hand != 0 && stays_in_place(best) ? queue.hand : queue.front;
}

// The hand passes on.
void Eviction::spare(std::uint32_t frame) {
    Entry& entry = entries_[frame];
    if (entry.place == Place::kMain) ++queue_of(entry).spared;
    if (entry.place == Place::kMain && stays_in_place(group_of(PageId{entry.page}))) {
        queue_of(entry).hand = entry.behind;
    } else {
        move(frame, Place::kMain);
    }
}

// A new page is known by what it becomes, and a root may change.
void Eviction::set_inner(Entry& entry, bool inner) {
    if (entry.inner == inner) return;
    entry.inner = inner;
    entry.credit_max = inner ? kInnerCredit : kLeafCredit;
    entry.credit = inner ? kInnerCredit : std::min(entry.credit, kLeafCredit);
    inner_count_ += inner ? 1 : -1;
}

bool Eviction::pass(std::uint32_t frame, const Look& look) {
    Entry& entry = entries_[frame];
    set_inner(entry, look.inner);
    if (look.touched) touch(frame);
    if (look.recent && !entry.inner && recent_.size < recent_max_) {
        move(frame, Place::kRecent);
        return false;
    }
    // A page that was changed, or is being used, is as good as one that was touched.
    if (look.may_go && entry.credit == 0) return true;
    if (entry.inner && !inner_protected()) entry.credit = std::min(entry.credit, kLeafCredit);
    if (entry.place == Place::kProbation && !entry.inner) {
        entry.credit = 0;  // what it showed there brought it here
    } else if (look.may_go) {
        --entry.credit;
    }
    spare(frame);
    return false;
}

Eviction::Memory* Eviction::memory_of(PageId page) {
    return &memory_[hash_of(page) & memory_mask_];
}

void Eviction::remember(PageId page) {
    Memory* set = memory_of(page);
    Memory* oldest = set;
    for (std::uint32_t way = 0; way < kMemoryWays; ++way) {
        if (left_ - set[way].left_at > left_ - oldest->left_at) oldest = &set[way];
    }
    *oldest = {page.value, left_++};
}

bool Eviction::recall(PageId page) {
    Memory* set = memory_of(page);
    for (std::uint32_t way = 0; way < kMemoryWays; ++way) {
        if (set[way].page != page.value || page.value == 0) continue;
        const bool lately = left_ - set[way].left_at <= memory_span_;
        set[way] = {};
        return lately;
    }
    return false;
}

Eviction::Sizes Eviction::sizes() const {
    return {probation_.size, main_size(), recent_.size, inner_count_};
}

void Eviction::check_invariants() const {
    std::uint32_t inner = 0;
    const auto check_queue = [&](const Queue& queue, Place place) {
        std::uint32_t size = 0;
        std::uint32_t before = 0;
        for (std::uint32_t frame = queue.front; frame != 0; frame = entries_[frame].behind) {
            const Entry& entry = entries_[frame];
            CHECK(entry.place == place);
            CHECK_OP(entry.ahead, ==, before);
            CHECK_OP(entry.credit, <=, entry.credit_max);
            inner += entry.inner;
            before = frame;
            ++size;
        }
        CHECK_OP(size, ==, queue.size);
        CHECK_OP(before, ==, queue.back);
    };
    check_queue(probation_, Place::kProbation);
    for (const Queue& queue : main_) check_queue(queue, Place::kMain);
    check_queue(recent_, Place::kRecent);
    CHECK_OP(inner, ==, inner_count_);
}

}  // namespace bidstore
