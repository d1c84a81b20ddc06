#include "daemon/closer.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>

#include "engine/clock.h"

namespace bidstore {
namespace {

constexpr long kFirstNudgeNs = 200'000;
constexpr long kNudgeNs = 2'000'000;  // from then on
// Nobody else sends it to us, and where it is not handled it does nothing.
constexpr int kNudge = SIGURG;

// Signals to the thread that it was made for, while it closes something. A signal that is not
// ignored ends what lingers; the file that is being closed is closed all the same.
class Nudges {
  public:
    // Called in that thread.
    Nudges() {
        sigevent event{};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = kNudge;
        event._sigev_un._tid = gettid();
        made_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    }
    ~Nudges() {
        if (made_) timer_delete(timer_);
    }
    Nudges(const Nudges&) = delete;
    Nudges& operator=(const Nudges&) = delete;
    bool made() const { return made_; }
    void begin() { set(kFirstNudgeNs, kNudgeNs); }
    void end() { set(0, 0); }

  private:
    void set(long first_ns, long interval_ns) {
        const itimerspec times{.it_interval = {.tv_sec = 0, .tv_nsec = interval_ns},
                               .it_value = {.tv_sec = 0, .tv_nsec = first_ns}};
        timer_settime(timer_, 0, &times, nullptr);
    }
    timer_t timer_{};
    bool made_ = false;
};

Failure no_thread(int error) {
    return {Error::kIoError, std::string("a thread that closes connections: ") +
                                 std::strerror(error) +
                                 " (more may be allowed by LimitNPROC and LimitSIGPENDING)"};
}

}  // namespace

struct Closer::State {
    void run();

    std::mutex mutex;
    std::condition_variable changed;
    struct Handed {
        Descriptor descriptor;
        std::uint64_t since_ns = 0;
    };
    // By user, who stands here while one of theirs waits or is being closed.
    std::unordered_map<uid_t, std::deque<Handed>> users;
    std::deque<uid_t> turns;               // users that wait for a thread
    std::multiset<std::uint64_t> waiting;  // since when, for each that is not closed yet
    std::size_t begun = 0;                 // threads
    int error = 0;                         // errno of one that has no timer
    bool ending = false;
};

// A thread of the closer: until the end of the process or, after that of the closer, until all that
// it was given is closed.
void Closer::State::run() {
    pthread_setname_np(pthread_self(), "closer");
    sigset_t nudge;
    sigemptyset(&nudge);
    sigaddset(&nudge, kNudge);
    // Whoever started the daemon may have blocked it.
    pthread_sigmask(SIG_UNBLOCK, &nudge, nullptr);
    Nudges nudges;
    const int no_timer = nudges.made() ? 0 : errno;
    std::unique_lock lock(mutex);
    ++begun;
    if (no_timer != 0) error = no_timer;
    changed.notify_all();
    while (no_timer == 0) {
        changed.wait(lock, [this] { return ending || !turns.empty(); });
        if (turns.empty()) return;
        const uid_t user = turns.front();
        turns.pop_front();
        Handed handed = std::move(users[user].front());
        users[user].pop_front();
        lock.unlock();
        nudges.begin();
        // A peer whose messages were not read is told of that instead of what we sent it last. One
        // or two are what an honest one may have sent; each may hold what lingers by itself, and
        // with the close all the others end together.
        char byte = 0;
        const int socket = handed.descriptor.number();
        for (int i = 0; i < 2 && recv(socket, &byte, sizeof byte, MSG_DONTWAIT) > 0;) ++i;
        handed.descriptor = Descriptor();
        nudges.end();
        lock.lock();
        waiting.erase(waiting.find(handed.since_ns));
        if (users[user].empty()) {
            users.erase(user);
        } else {
            turns.push_back(user);  // this thread goes on, so nobody need be woken for it
        }
    }
}

Closer::Closer(std::shared_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Closer>> Closer::start() {
    struct sigaction nothing {};
    nothing.sa_handler = [](int) {};
    if (sigaction(kNudge, &nothing, nullptr) != 0) return no_thread(errno);
    std::unique_ptr<Closer> closer(new Closer(std::make_shared<State>()));
    State& state = *closer->state_;
    for (std::size_t i = 0; i < kThreads; ++i) {
        try {
            std::thread([shared = closer->state_] { shared->run(); }).detach();
        } catch (const std::system_error& error) {
            return no_thread(error.code().value());
        }
    }
    std::unique_lock lock(state.mutex);
    state.changed.wait(lock, [&] { return state.begun == kThreads; });
    if (state.error != 0) return no_thread(state.error);
    return closer;
}

Closer::~Closer() {
    const std::lock_guard lock(state_->mutex);
    state_->ending = true;
    state_->changed.notify_all();
}

void Closer::close(uid_t user, Descriptor descriptor) {
    const std::uint64_t now_ns = HostClock().monotonic_ns();
    const std::lock_guard lock(state_->mutex);
    state_->waiting.insert(now_ns);
    const auto [own, first] = state_->users.try_emplace(user);
    own->second.push_back({std::move(descriptor), now_ns});
    if (!first) return;  // it has its place among the turns, or a thread, which puts it there
    state_->turns.push_back(user);
    state_->changed.notify_one();
}

std::size_t Closer::waiting() const {
    const std::lock_guard lock(state_->mutex);
    return state_->waiting.size();
}

std::uint64_t Closer::oldest_ns() const {
    const std::lock_guard lock(state_->mutex);
    return state_->waiting.empty() ? HostClock().monotonic_ns() : *state_->waiting.begin();
}

}  // namespace bidstore
