// A scheduler of tasks in one thread, and the Atom that asks it at every access who goes on
// (shm/atom.h): the product's own code, in interleavings that one seed decides.
//
// What a schedule may do: at each access of an Atom, at each fence and where a task says so, any
// other task may go on. A store that is weaker than seq_cst waits in the store buffer of its task
// until the scheduler lets it out, in order; its own task sees it, the others do not. A
// read-modify-write, a seq_cst store, and a fence that releases, wait until the buffer is empty.
// That is x86 for atomic words, and less for what is written between them: bytes that are not
// atomic are seen at once, before stores that went ahead of them.
// What it cannot show: loads that go ahead of loads, and buffered stores that overtake each other.
//
// Who:    one Schedule at a time. Outside of run() an Atom is an ordinary one.
// Errors: a task that goes on for too long, and tasks that all wait for each other, end the
//         schedule with failure(); so does the first fail() of a task.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "shm/hot_path.h"

namespace bidstore {

class Schedule {
  public:
    // How the next task is chosen. A priority (random, and changed at a few random steps: PCT)
    // finds what needs one task to stand still for long; even chances find what needs many turns.
    enum class Order : std::uint8_t { kEven, kPriorities };

    Schedule(std::uint64_t seed, Order order) : random_(seed), order_(order) {}
    Schedule(const Schedule&) = delete;
    Schedule& operator=(const Schedule&) = delete;

    void task(std::function<void()> body) {
        auto task = std::make_unique<Task>();
        task->body = std::move(body);
        task->priority = random_();
        tasks_.push_back(std::move(task));
    }
    // Runs all tasks to their ends. False: failure() says why not.
    bool run();
    const std::string& failure() const { return failure_; }
    std::uint64_t steps() const { return steps_; }

    // ---- in a task ----
    static Schedule* current() { return current_; }
    // Any task may go on here.
    static void step() {
        if (current_ != nullptr) current_->hand_over();
    }
    // Goes on when `ready` says so. `ready` looks at what is stored, buffers left out.
    static void wait_until(std::function<bool()> ready) {
        Schedule& schedule = *current_;
        schedule.running_->ready = std::move(ready);
        schedule.hand_over();
    }
    // The schedule went wrong. This task, as all others, stops where it is and is not unwound: what
    // it holds on the heap is lost.
    static void fail(const char* why) {
        Schedule& schedule = *current_;
        if (schedule.failure_.empty()) schedule.failure_ = why;
        schedule.running_->ready = [] { return false; };
        schedule.hand_over();
    }
    std::uint64_t random(std::uint64_t below) { return random_() % below; }

    // ---- planted ----
    void forget_exchanges() { exchanges_ = false; }  // they are stores like others
    void forget_fences() { fences_ = false; }

    // ---- for Atom ----
    bool exchanges() const { return exchanges_; }
    bool fences() const { return fences_; }
    void put(void* word, std::uint64_t value, std::uint32_t bytes) {
        const ColdPath cold;
        running_->buffer.push_back({word, value, bytes});
    }
    // The newest store to the word that its own task has not let out.
    const std::uint64_t* own(const void* word) const {
        const auto& buffer = running_->buffer;
        const auto found = std::find_if(buffer.rbegin(), buffer.rend(),
                                        [&](const Store& store) { return store.word == word; });
        return found == buffer.rend() ? nullptr : &found->value;
    }
    void let_out() {
        while (!running_->buffer.empty()) let_out_one(*running_);
    }

  private:
    static constexpr std::size_t kStackBytes = 256u << 10;
    static constexpr std::uint64_t kStepsMax = 200'000;
    static constexpr std::uint32_t kLetOutPart = 4;      // one choice in so many is a store
    static constexpr std::uint32_t kReorderedPart = 50;  // one step in so many changes a priority

    using Stack = std::unique_ptr<std::byte[]>;

    struct Store {
        void* word;
        std::uint64_t value;
        std::uint32_t bytes;
    };
    struct Task {
        std::function<void()> body;
        std::function<bool()> ready;  // none: it can go on
        Stack stack;
        ucontext_t context{};
        std::deque<Store> buffer;
        std::uint64_t priority = 0;
        bool done = false;
    };

    // Used again: fresh ones would be mapped, and touched, by each schedule.
    static std::vector<Stack>& spare_stacks() {
        static std::vector<Stack> spare;
        return spare;
    }
    static Stack take_stack() {
        std::vector<Stack>& spare = spare_stacks();
        if (spare.empty()) return Stack(new std::byte[kStackBytes]);
        Stack stack = std::move(spare.back());
        spare.pop_back();
        return stack;
    }
    // Stopped in the middle: what they hold on the heap is still theirs, and nobody's to report.
    static std::vector<std::unique_ptr<Task>>& abandoned() {
        static std::vector<std::unique_ptr<Task>> tasks;
        return tasks;
    }
    static void let_out_one(Task& task) {
        const Store store = task.buffer.front();
        task.buffer.pop_front();
        if (store.bytes == 8) {
            reinterpret_cast<std::atomic<std::uint64_t>*>(store.word)->store(store.value);
        } else {
            reinterpret_cast<std::atomic<std::uint32_t>*>(store.word)
                ->store(static_cast<std::uint32_t>(store.value));
        }
    }
    // The hot path that a task is on is its own.
    void hand_over() {
        const ColdPath cold;
        swapcontext(&running_->context, &home_);
    }
    static void begin() {
        Task& task = *current_->running_;
        task.body();
        current_->let_out();
        task.done = true;
        current_->hand_over();
    }
    Task* choose();

    std::mt19937_64 random_;
    Order order_;
    std::vector<std::unique_ptr<Task>> tasks_;
    std::vector<Task*> able_;  // of choose()
    std::vector<Task*> storing_;
    Task* running_ = nullptr;
    ucontext_t home_{};
    std::string failure_;
    std::uint64_t steps_ = 0;
    bool exchanges_ = true;
    bool fences_ = true;
    static inline Schedule* current_ = nullptr;
};

// nullptr: none can go on.
inline Schedule::Task* Schedule::choose() {
    std::vector<Task*>& able = able_;
    std::vector<Task*>& storing = storing_;
    able.clear();
    storing.clear();
    for (const auto& task : tasks_) {
        if (!task->buffer.empty()) storing.push_back(task.get());
        if (!task->done && (!task->ready || task->ready())) able.push_back(task.get());
    }
    if (!storing.empty() && (able.empty() || random(kLetOutPart) == 0)) {
        let_out_one(*storing[random(storing.size())]);
        return choose();
    }
    if (able.empty()) return nullptr;
    if (order_ == Order::kEven) return able[random(able.size())];
    const auto best = std::max_element(able.begin(), able.end(), [](const Task* a, const Task* b) {
        return a->priority < b->priority;
    });
    if (random(kReorderedPart) == 0) (*best)->priority = random_();
    return *best;
}

inline bool Schedule::run() {
    current_ = this;
    for (const auto& task : tasks_) {
        task->stack = take_stack();
        getcontext(&task->context);
        task->context.uc_stack.ss_sp = task->stack.get();
        task->context.uc_stack.ss_size = kStackBytes;
        makecontext(&task->context, begin, 0);
    }
    while (failure_.empty()) {
        running_ = choose();
        if (running_ == nullptr) break;
        running_->ready = nullptr;
        if (++steps_ > kStepsMax) failure_ = "a task goes on for ever";
        swapcontext(&home_, &running_->context);
    }
    current_ = nullptr;
    const bool done =
        std::all_of(tasks_.begin(), tasks_.end(), [](const auto& task) { return task->done; });
    if (failure_.empty() && !done) failure_ = "tasks wait for each other";
    for (auto& task : tasks_) {
        if (task->done) {
            spare_stacks().push_back(std::move(task->stack));
        } else {
            abandoned().push_back(std::move(task));
        }
    }
    tasks_.clear();
    return failure_.empty();
}

// std::atomic, with the scheduler's say. Words of four and of eight bytes.
template <class T>
class Atom {
  public:
    static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
    static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;

    Atom() = default;
    constexpr Atom(T value) : value_(value) {}
    Atom(const Atom&) = delete;
    Atom& operator=(const Atom&) = delete;

    T load(std::memory_order = std::memory_order_seq_cst) const {
        Schedule::step();
        if (Schedule::current() != nullptr) {
            if (const std::uint64_t* own = Schedule::current()->own(this)) return from_bits(*own);
        }
        return value_.load();
    }
    void store(T value, std::memory_order order = std::memory_order_seq_cst) {
        Schedule::step();
        if (Schedule::current() != nullptr && order != std::memory_order_seq_cst) {
            Schedule::current()->put(this, to_bits(value), sizeof(T));
            return;
        }
        change();
        value_.store(value);
    }
    T exchange(T value, std::memory_order = std::memory_order_seq_cst) {
        Schedule* const schedule = Schedule::current();
        if (schedule != nullptr && !schedule->exchanges()) {
            const T before = load();
            store(value, std::memory_order_relaxed);
            return before;
        }
        Schedule::step();
        change();
        return value_.exchange(value);
    }
    bool compare_exchange_weak(T& expected, T value, std::memory_order) {
        Schedule::step();
        change();
        return value_.compare_exchange_strong(expected, value);
    }
    T fetch_add(T value, std::memory_order = std::memory_order_seq_cst) {
        Schedule::step();
        change();
        return value_.fetch_add(value);
    }
    T fetch_sub(T value, std::memory_order = std::memory_order_seq_cst) {
        Schedule::step();
        change();
        return value_.fetch_sub(value);
    }
    // What is stored, for a test: no access of a task.
    T stored() const { return value_.load(); }

  private:
    static void change() {
        if (Schedule::current() != nullptr) Schedule::current()->let_out();
    }
    static std::uint64_t to_bits(T value) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, &value, sizeof value);
        return bits;
    }
    static T from_bits(std::uint64_t bits) {
        T value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }
    std::atomic<T> value_;
};

template <std::memory_order order>
void memory_fence() {
    Schedule::step();
    Schedule* const schedule = Schedule::current();
    if (order == std::memory_order_acquire || schedule == nullptr) return;
    if (schedule->fences()) schedule->let_out();
}

}  // namespace bidstore
