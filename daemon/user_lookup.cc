#include "daemon/user_lookup.h"

#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>

#include "engine/clock.h"

namespace bidstore {
namespace {

constexpr int kNice = 10;
// A line of the database, and the groups of a user. Linux has no more groups for a process.
constexpr std::size_t kEntryBytesMax = 1u << 20;
constexpr std::size_t kGroupsMax = 65536;

Failure no_lookup(const char* what, int error) {
    return {Error::kIoError, std::string("a thread that asks the user database (") + what +
                                 "): " + std::strerror(error)};
}

Failure no_answer(uid_t user, const std::string& why) {
    return {Error::kIoError, "the host's user database cannot say which groups user " +
                                 std::to_string(user) + " is in (" + why +
                                 "): mend it (NSS), or "
                                 "name the user itself in the daemon's config"};
}

}  // namespace

struct UserLookup::State {
    struct User {
        std::optional<Result<Groups>> answer;
        std::uint64_t since_ns = 0;  // of the answer, or when it was last asked for
    };
    void run();
    // The next user whom somebody still waits for; nothing at the end.
    std::optional<uid_t> next(std::unique_lock<std::mutex>& lock);

    Database database;
    std::uint64_t forget_ns = 0;
    Descriptor bell;  // eventfd
    std::mutex mutex;
    std::condition_variable changed;
    std::unordered_map<uid_t, User> users;
    std::deque<uid_t> questions;
    bool ending = false;
};

void UserLookup::State::run() {
    pthread_setname_np(pthread_self(), "user lookup");
    // Of this thread alone, on Linux. Where that is not allowed it is as eager as the others.
    setpriority(PRIO_PROCESS, 0, kNice);
    std::unique_lock lock(mutex);
    while (const auto user = next(lock)) {
        lock.unlock();
        Result<Groups> answer = database(*user);
        lock.lock();
        users[*user] = {std::move(answer), HostClock().monotonic_ns()};
        const std::uint64_t one = 1;
        // It fails only when it is readable already.
        [[maybe_unused]] const ssize_t told = write(bell.number(), &one, sizeof one);
    }
}

std::optional<uid_t> UserLookup::State::next(std::unique_lock<std::mutex>& lock) {
    for (;;) {
        changed.wait(lock, [this] { return ending || !questions.empty(); });
        if (ending) return std::nullopt;
        const uid_t user = questions.front();
        questions.pop_front();
        if (HostClock().monotonic_ns() - users[user].since_ns < forget_ns) return user;
        users.erase(user);
    }
}

UserLookup::UserLookup(std::shared_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<UserLookup>> UserLookup::start(Database database, std::uint64_t forget_ns) {
    std::unique_ptr<UserLookup> lookup(new UserLookup(std::make_shared<State>()));
    State& state = *lookup->state_;
    state.database = std::move(database);
    state.forget_ns = forget_ns;
    state.bell = Descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!state.bell) return no_lookup("eventfd", errno);
    try {
        std::thread([shared = lookup->state_] { shared->run(); }).detach();
    } catch (const std::system_error& error) {
        return no_lookup("more may be allowed by LimitNPROC", error.code().value());
    }
    return lookup;
}

UserLookup::~UserLookup() {
    const std::lock_guard lock(state_->mutex);
    state_->ending = true;
    state_->changed.notify_all();
}

std::optional<Result<UserLookup::Groups>> UserLookup::groups_of(uid_t user) {
    const std::lock_guard lock(state_->mutex);
    const std::uint64_t now = HostClock().monotonic_ns();  // not before an answer that is there
    auto& users = state_->users;
    auto found = users.find(user);
    if (found != users.end() && found->second.answer) {
        if (now - found->second.since_ns < kKeptNs) return found->second.answer;
        users.erase(found);
        found = users.end();
    }
    if (found == users.end()) {
        if (users.size() >= kUsersMax) {
            std::erase_if(users, [](const auto& known) { return known.second.answer.has_value(); });
        }
        if (users.size() >= kUsersMax) return std::nullopt;
        found = users.try_emplace(user).first;
        state_->questions.push_back(user);
        state_->changed.notify_one();
    }
    found->second.since_ns = now;
    return std::nullopt;
}

int UserLookup::descriptor() const { return state_->bell.number(); }

void UserLookup::clear_descriptor() {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = read(state_->bell.number(), &count, sizeof count);
}

std::string UserLookup::late(uid_t user) {
    const std::string id = std::to_string(user);
    return "the host's user database (NSS: LDAP, sssd) has not said in time which groups user " +
           id + " is in: see whether \"id " + id +
           "\" answers, or name the user itself in the daemon's config";
}

Result<UserLookup::Groups> UserLookup::host_database(uid_t user) {
    passwd entry{};
    passwd* found = nullptr;
    std::vector<char> text(4096);
    int error = 0;
    while ((error = getpwuid_r(user, &entry, text.data(), text.size(), &found)) == ERANGE &&
           text.size() < kEntryBytesMax) {
        text.resize(text.size() * 4);
    }
    if (found == nullptr) {
        // Some of the ways in which databases say that there is no such user.
        const bool unknown = error == 0 || error == ENOENT || error == ESRCH;
        if (unknown) return Groups{};
        return no_answer(user, std::strerror(error));
    }
    // It puts the group that it is given before those that it finds: none, since a connection's own
    // is known without it, and one user's may have several.
    constexpr auto kNone = static_cast<gid_t>(-1);
    Groups groups(64);
    for (;;) {
        auto count = static_cast<int>(groups.size());
        const bool fits = getgrouplist(entry.pw_name, kNone, groups.data(), &count) >= 0;
        const std::size_t before = groups.size();
        groups.resize(static_cast<std::size_t>(count));
        if (fits) break;
        if (groups.size() <= before || groups.size() > kGroupsMax) {
            return no_answer(user, "it lists too many");
        }
    }
    std::erase(groups, kNone);
    return groups;
}

}  // namespace bidstore
