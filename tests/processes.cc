#include "tests/processes.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <thread>
#include <utility>

namespace bidstore {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPause = std::chrono::milliseconds(2);
constexpr mode_t kForAll = 0755;
constexpr int kThrew = 120;

void remove_place(const std::string& path) {
    ::umount2(path.c_str(), MNT_DETACH);  // fails where nothing is mounted
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
}

// ---- janitor ------------------------------------------------------------------------------------

// Takes away the directories and mounts of a test that was killed. It learns of them through a
// pipe, whose end means that the test, and what it forked, is gone.
class Janitor {
  public:
    static Janitor& get() {
        static Janitor janitor;
        return janitor;
    }
    void remember(const std::string& path) const { say('+' + path + '\n'); }
    void forget(const std::string& path) const { say('-' + path + '\n'); }

  private:
    Janitor() {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) return;
        if (::fork() == 0) {
            ::close(ends[1]);
            serve(ends[0]);
        }
        ::close(ends[0]);
        pipe_ = ends[1];
    }

    void say(const std::string& line) const {
        if (::write(pipe_, line.data(), line.size()) < 0) ADD_FAILURE() << "the janitor is gone";
    }

    // In a session of its own, holding nothing that somebody may wait for to close.
    [[noreturn]] static void serve(int pipe) {
        ::setsid();
        const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
        for (int number = 0; number <= 2; ++number) ::dup2(nothing, number);
        std::string text;
        char buffer[4096];
        for (ssize_t got = 1; got != 0;) {
            got = ::read(pipe, buffer, sizeof buffer);
            if (got > 0) text.append(buffer, static_cast<std::size_t>(got));
            if (got < 0 && errno != EINTR) break;
        }
        std::set<std::string> places;
        std::istringstream lines(text);
        for (std::string line; std::getline(lines, line);) {
            if (line[0] == '+') places.insert(line.substr(1));
            if (line[0] == '-') places.erase(line.substr(1));
        }
        for (const std::string& place : places) remove_place(place);
        ::_exit(0);
    }

    int pipe_ = -1;
};

// In a new process: it is to end with the test. The parent may have died just before.
void die_with(pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
}

std::vector<char*> as_arguments(const std::vector<std::string>& command) {
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    return arguments;
}

}  // namespace

bool eventually(const std::function<bool()>& holds, std::chrono::milliseconds end) {
    const auto deadline = Clock::now() + end;
    while (!holds()) {
        if (Clock::now() >= deadline) return false;
        std::this_thread::sleep_for(kPause);
    }
    return true;
}

std::string read_whole_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

// ---- places -------------------------------------------------------------------------------------

WorkDirectory::WorkDirectory() {
    std::string pattern = "/var/tmp/bidstore-test-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) {
        ADD_FAILURE() << pattern << ": " << std::strerror(errno);
        return;
    }
    path_ = pattern;
    Janitor::get().remember(path_);
    ::chmod(path_.c_str(), kForAll);
}

WorkDirectory::~WorkDirectory() {
    if (path_.empty()) return;
    remove_place(path_);
    Janitor::get().forget(path_);
}

SmallFileSystem::SmallFileSystem(std::uint64_t size_bytes) {
    const std::string options = "mode=0755,size=" + std::to_string(size_bytes);
    if (::mount("bidstore-test", path().c_str(), "tmpfs", 0, options.c_str()) == 0) return;
    why_ = std::string("mounting a small file system: ") + std::strerror(errno);
}

SmallFileSystem::~SmallFileSystem() {
    if (mounted()) ::umount2(path().c_str(), MNT_DETACH);
}

void SmallFileSystem::resize(std::uint64_t size_bytes) {
    const std::string options = "size=" + std::to_string(size_bytes);
    EXPECT_EQ(::mount(nullptr, path().c_str(), "tmpfs", MS_REMOUNT, options.c_str()), 0)
        << std::strerror(errno);
}

// ---- processes ----------------------------------------------------------------------------------

Process Process::run(const std::vector<std::string>& command, const std::string& output) {
    std::vector<char*> arguments = as_arguments(command);
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid != 0) return Process(pid);
    die_with(parent);
    const int file = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    const int nothing = ::open("/dev/null", O_RDONLY);
    ::dup2(nothing, 0);
    ::dup2(file, 1);
    ::dup2(file, 2);
    ::execv(arguments[0], arguments.data());
    ::dprintf(2, "%s: %s\n", arguments[0], std::strerror(errno));
    ::_exit(127);
}

Process Process::fork(const std::function<int()>& body) {
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid != 0) return Process(pid);
    die_with(parent);
    // Nothing of it may get back into the test that this is a copy of.
    try {
        ::_exit(body());
    } catch (const std::exception& error) {
        ::dprintf(2, "a forked process ends: %s\n", error.what());
    }
    ::_exit(kThrew);
}

Process::Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

Process& Process::operator=(Process&& other) noexcept {
    if (this == &other) return *this;
    kill();
    pid_ = std::exchange(other.pid_, -1);
    return *this;
}

// Looks without reaping, so that wait() still learns how it ended.
bool Process::running() {
    if (pid_ < 0) return false;
    siginfo_t info{};
    const int found = ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
    return found == 0 && info.si_pid == 0;
}

void Process::signal(int number) const {
    ASSERT_GT(pid_, 0) << "no process";
    EXPECT_EQ(::kill(pid_, number), 0) << std::strerror(errno);
}

bool Process::wait_until_stopped() const {
    siginfo_t info{};
    const int seen = WSTOPPED | WEXITED | WNOHANG | WNOWAIT;
    const bool heard = eventually([&] {
        const bool asked = ::waitid(P_PID, static_cast<id_t>(pid_), &info, seen) == 0;
        return !asked || info.si_pid != 0;
    });
    return heard && info.si_code == CLD_STOPPED;
}

void Process::kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
}

std::optional<ExitStatus> Process::wait(std::chrono::milliseconds end) {
    if (pid_ < 0 || !eventually([&] { return !running(); }, end)) return std::nullopt;
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool become(uid_t user) {
    const gid_t group = user;
    if (::setgroups(0, nullptr) != 0 || ::setresgid(group, group, group) != 0 ||
        ::setresuid(user, user, user) != 0) {
        return false;
    }
    // It was lost with the user; and this process stays traceable, as a plain client would be.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::prctl(PR_SET_DUMPABLE, 1);
    return ::geteuid() == user;
}

Finished run_to_end(const std::vector<std::string>& command) {
    const WorkDirectory place;
    Process process = Process::run(command, place.file("output"));
    const std::optional<ExitStatus> status = process.wait(std::chrono::minutes(5));
    return {status.value_or(-1), read_whole_file(place.file("output"))};
}

// ---- daemons ------------------------------------------------------------------------------------

RealDaemon::RealDaemon(std::vector<std::string> settings)
    : directory_(own_.path()), settings_(std::move(settings)) {}

RealDaemon::RealDaemon(std::string directory, std::vector<std::string> settings)
    : directory_(std::move(directory)), settings_(std::move(settings)) {}

// Small, so that starting takes little; what a test wants otherwise comes after and wins.
std::vector<std::string> RealDaemon::command() const {
    std::vector<std::string> words = {program_, "--dev", directory_};
    std::vector<std::string> all = {"pool_bytes=32MiB", "max_data_bytes=1GiB",
                                    "log_segment_bytes=1MiB"};
    all.insert(all.end(), settings_.begin(), settings_.end());
    for (const std::string& setting : all) {
        words.push_back("--set");
        words.push_back(setting);
    }
    return words;
}

void RealDaemon::set(const std::string& setting) {
    const std::string key = setting.substr(0, setting.find('=') + 1);
    std::erase_if(settings_, [&](const std::string& other) { return other.starts_with(key); });
    settings_.push_back(setting);
}

void RealDaemon::spawn() {
    process_.kill();
    log_begin_ += log().size();
    process_ = Process::run(command(), own_.file("daemon.log"));
}

bool RealDaemon::start() {
    if (start_or_end()) return true;
    ADD_FAILURE() << "the daemon does not serve; it says:\n" << log();
    return false;
}

bool RealDaemon::start_or_end() {
    spawn();
    const bool heard = eventually([&] { return logged("serving on ") || !process_.running(); });
    return heard && process_.running();
}

ExitStatus RealDaemon::start_and_fail() {
    spawn();
    const std::optional<ExitStatus> status = process_.wait();
    EXPECT_TRUE(status) << "the daemon goes on; it says:\n" << log();
    process_.kill();
    return status.value_or(-1);
}

ExitStatus RealDaemon::stop() {
    process_.signal(SIGTERM);
    const std::optional<ExitStatus> status = process_.wait();
    EXPECT_TRUE(status) << "the daemon does not stop; it says:\n" << log();
    process_.kill();
    return status.value_or(-1);
}

void RealDaemon::pause() const {
    process_.signal(SIGSTOP);
    process_.wait_until_stopped();
}

void RealDaemon::resume() const { process_.signal(SIGCONT); }

std::string RealDaemon::log() const {
    const std::string all = read_whole_file(own_.file("daemon.log"));
    return all.substr(std::min(log_begin_, all.size()));
}

std::string RealDaemon::threads() const {
    std::string lines;
    std::error_code gone;
    const std::string tasks = "/proc/" + std::to_string(pid()) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks, gone)) {
        std::string stat = read_whole_file(task.path().string() + "/stat");
        stat.erase(0, stat.rfind(')') + 1);
        std::istringstream words(stat);
        const std::vector<std::string> fields(std::istream_iterator<std::string>(words), {});
        if (fields.size() < 13) continue;
        lines += "thread " + task.path().filename().string() + ": " + fields[0] + ", user " +
                 fields[11] + ", system " + fields[12] + "\n";
    }
    return lines;
}

// ---- handshakes by hand -------------------------------------------------------------------------

Hello good_hello(Rights rights) {
    Hello hello{};
    hello.magic = kHelloMagic;
    hello.abi_version = kAbiVersion;
    hello.rights = static_cast<std::uint32_t>(rights);
    hello.fingerprint = kLayoutFingerprint;
    return hello;
}

Descriptor raw_connect(const std::string& socket) {
    Descriptor made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket.copy(address.sun_path, sizeof address.sun_path - 1);
    const auto* general = static_cast<const sockaddr*>(static_cast<const void*>(&address));
    if (::connect(made.number(), general, sizeof address) != 0) return {};
    return made;
}

RawGreeting greet(const std::string& socket, const void* bytes, std::size_t length_bytes) {
    RawGreeting greeting;
    greeting.socket = raw_connect(socket);
    if (!greeting.socket) return greeting;
    if (::send(greeting.socket.number(), bytes, length_bytes, MSG_NOSIGNAL) < 0) return greeting;
    pollfd wait{greeting.socket.number(), POLLIN, 0};
    ::poll(&wait, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count()));
    iovec part{&greeting.welcome, sizeof greeting.welcome};
    alignas(cmsghdr) char control[256] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got =
        ::recvmsg(greeting.socket.number(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    greeting.answered = got == static_cast<ssize_t>(sizeof greeting.welcome);
    if (got <= 0) return greeting;
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
         header = CMSG_NXTHDR(&message, header)) {
        for (std::size_t at = CMSG_LEN(0); at < header->cmsg_len; at += sizeof(int)) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(header) + (at - CMSG_LEN(0)), sizeof number);
            greeting.descriptors.emplace_back(number);
        }
    }
    return greeting;
}

RawGreeting greet(const std::string& socket, const Hello& hello) {
    return greet(socket, &hello, sizeof hello);
}

RawGreeting greet_patiently(const std::string& socket, const Hello& hello) {
    RawGreeting greeting;
    eventually([&] {
        greeting = greet(socket, hello);
        const auto error = static_cast<Error>(greeting.welcome.error);
        return greeting.answered && error != Error::kTimedOut && error != Error::kBusy;
    });
    return greeting;
}

bool send_descriptors(const Descriptor& socket, std::span<const std::byte> bytes,
                      const std::vector<int>& numbers) {
    std::vector<std::byte> text(bytes.begin(), bytes.end());
    iovec part{text.data(), text.size()};
    std::vector<std::byte> control(CMSG_SPACE(numbers.size() * sizeof(int)));
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(numbers.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), numbers.data(), numbers.size() * sizeof(int));
    return ::sendmsg(socket.number(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) ==
           static_cast<ssize_t>(bytes.size());
}

Lingering::Lingering(std::chrono::seconds linger) {
    const Descriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* general = static_cast<sockaddr*>(static_cast<void*>(&address));
    socklen_t bytes = sizeof address;
    const int small = 4096;  // or each would take some MB
    ::setsockopt(listener.number(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    EXPECT_EQ(::bind(listener.number(), general, sizeof address), 0);
    EXPECT_EQ(::listen(listener.number(), 1), 0);
    EXPECT_EQ(::getsockname(listener.number(), general, &bytes), 0);
    connection = Descriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ::setsockopt(connection.number(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    EXPECT_EQ(::connect(connection.number(), general, sizeof address), 0);
    peer = Descriptor(::accept4(listener.number(), nullptr, nullptr, SOCK_CLOEXEC));
    const std::vector<char> some(1 << 16);
    while (::send(connection.number(), some.data(), some.size(), MSG_DONTWAIT) > 0) continue;
    const struct linger how { .l_onoff = 1, .l_linger = static_cast<int>(linger.count()) };
    EXPECT_EQ(::setsockopt(connection.number(), SOL_SOCKET, SO_LINGER, &how, sizeof how), 0);
}

}  // namespace bidstore
