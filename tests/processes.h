// Real processes for tests: daemons, clients of their own, and what they leave behind.
//
// Who:    the main thread of a test starts and signals; what is started dies with that thread.
// Owns:   each object its process, directory or mount, and takes it away in its destructor. When
//         the test itself is killed, a process that outlives it does so (Janitor, processes.cc).
// Errors: reported to GoogleTest, with the daemon's log; what waits ends after kPatience.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shm/layout.h"
#include "shm/segment.h"

namespace bidstore {

// Longer than anything takes on a busy machine; waiting so long is a failure.
inline constexpr std::chrono::seconds kPatience{30};

// Asks again every few milliseconds until it holds. False: not before the end.
bool eventually(const std::function<bool()>& holds,
                std::chrono::milliseconds end = std::chrono::milliseconds(kPatience));

std::string read_whole_file(const std::string& path);

// Below /var/tmp, which is a disk where /tmp may be memory; open for other users to enter.
class WorkDirectory {
  public:
    WorkDirectory();
    ~WorkDirectory();
    WorkDirectory(const WorkDirectory&) = delete;
    WorkDirectory& operator=(const WorkDirectory&) = delete;
    const std::string& path() const { return path_; }
    std::string file(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

// A memory file system of limited size, mounted in a directory of its own. Needs root.
class SmallFileSystem {
  public:
    explicit SmallFileSystem(std::uint64_t size_bytes);
    ~SmallFileSystem();
    SmallFileSystem(const SmallFileSystem&) = delete;
    SmallFileSystem& operator=(const SmallFileSystem&) = delete;
    // False where this host does not let us mount: why() says so.
    bool mounted() const { return why_.empty(); }
    const std::string& why() const { return why_; }
    const std::string& path() const { return directory_.path(); }
    void resize(std::uint64_t size_bytes);

  private:
    WorkDirectory directory_;
    std::string why_;
};

// How a process ended: its exit code, or 128 + the signal that ended it, as shells count.
using ExitStatus = int;

class Process {
  public:
    Process() = default;
    // A program with its output and errors appended to a file.
    static Process run(const std::vector<std::string>& command, const std::string& output);
    // A copy of this process that runs `body` and exits with what it returns. It must not use what
    // it inherited of stores and daemons. An exception ends it, with code 120.
    static Process fork(const std::function<int()>& body);
    Process(Process&& other) noexcept;
    Process& operator=(Process&& other) noexcept;
    ~Process() { kill(); }

    pid_t pid() const { return pid_; }
    bool running();
    void signal(int number) const;
    // Until it stands still after a SIGSTOP, its own or ours. False: it ended.
    bool wait_until_stopped() const;
    // SIGKILL, and gone when it returns; nothing when it is gone already.
    void kill();
    std::optional<ExitStatus> wait(
        std::chrono::milliseconds end = std::chrono::milliseconds(kPatience));

  private:
    explicit Process(pid_t pid) : pid_(pid) {}
    pid_t pid_ = -1;
};

inline constexpr uid_t kNobody = 65534;
// In a process that is root and was forked: another user for the rest of its life, without any
// right of root.
bool become(uid_t user);

// What a program said and how it ended.
struct Finished {
    ExitStatus status = -1;
    std::string output;
};
Finished run_to_end(const std::vector<std::string>& command);

// A bidstored of the build under test in a directory of its own, with `settings` as --set.
class RealDaemon {
  public:
    explicit RealDaemon(std::vector<std::string> settings = {});
    // The same with the data somewhere else.
    RealDaemon(std::string directory, std::vector<std::string> settings);

    // True once it serves; otherwise it is a failure of the test, with the log.
    bool start();
    // The same where it may end before it serves: false then.
    bool start_or_end();
    // Starts it where it is expected to refuse: how it ended.
    ExitStatus start_and_fail();
    // How it ended by itself; nothing when it goes on until the end of this time.
    std::optional<ExitStatus> wait(std::chrono::milliseconds end) { return process_.wait(end); }
    void kill() { process_.kill(); }
    // SIGTERM; how it ended.
    ExitStatus stop();
    // Stopped by SIGSTOP, and going on.
    void pause() const;
    void resume() const;

    // From the next start on, in place of an earlier value.
    void set(const std::string& setting);
    // Another program than bidstored, which takes the same arguments: of build/tests.
    void run_as(const std::string& program) { program_ = BIDSTORE_BUILD_DIR "/tests/" + program; }
    bool running() { return process_.running(); }
    pid_t pid() const { return process_.pid(); }
    const std::string& directory() const { return directory_; }
    std::string data_directory() const { return directory_ + "/data"; }
    std::string socket() const { return directory_ + "/bidstore.sock"; }
    // What it said since its last start.
    std::string log() const;
    bool logged(const std::string& text) const { return log().find(text) != std::string::npos; }
    std::vector<std::string> command() const;
    // A line for each thread: its state (R: it runs or would like to), and the hundredths of a
    // second that it has run. Tells one that hangs from one that the host does not let run.
    std::string threads() const;

  private:
    void spawn();
    WorkDirectory own_;
    std::string directory_;
    std::vector<std::string> settings_;
    std::string program_ = BIDSTORE_BINARY_DIR "/bidstored";
    Process process_;
    std::size_t log_begin_ = 0;
};

// A handshake by hand: what the daemon says to a Hello that no library of ours would send.
struct RawGreeting {
    Descriptor socket;
    bool answered = false;  // false: the daemon hung up without a word
    Welcome welcome{};
    std::vector<Descriptor> descriptors;  // pool, client segment, doorbell
};
Hello good_hello(Rights rights);
Descriptor raw_connect(const std::string& socket);
RawGreeting greet(const std::string& socket, const void* bytes, std::size_t length_bytes);
RawGreeting greet(const std::string& socket, const Hello& hello);
// Again while the daemon says, or lets us see by a hangup, that it or we were too slow: that proves
// nothing of it on a busy machine.
RawGreeting greet_patiently(const std::string& socket, const Hello& hello);
// A message with descriptors. False: it cannot be sent.
bool send_descriptors(const Descriptor& socket, std::span<const std::byte> bytes,
                      const std::vector<int>& numbers);
// A connection whose last close takes so long, since its peer, which goes on living somewhere,
// reads nothing.
struct Lingering {
    explicit Lingering(std::chrono::seconds linger);
    Descriptor peer;
    Descriptor connection;
};

}  // namespace bidstore
