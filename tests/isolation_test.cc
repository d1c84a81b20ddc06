// A client that means harm: what it holds of the daemon's memory it can read, and nothing else.
//
// The daemon runs as the test's user; the hostile client as another one, which takes root.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>

#include "tests/real_store.h"
#include "tests/shared_memory.h"

namespace bidstore {
namespace {

constexpr uid_t kStranger = 65533;
const bool kRoot = ::geteuid() == 0;
const char* const kNeedsRoot = "needs root, to be another user than the daemon";
constexpr int kSealExec = 0x20;  // F_SEAL_EXEC, of newer headers
constexpr int kSeals[] = {F_SEAL_SEAL,  F_SEAL_SHRINK,       F_SEAL_GROW,
                          F_SEAL_WRITE, F_SEAL_FUTURE_WRITE, kSealExec};
// Of a process here the descriptors are below that.
constexpr int kDescriptorsMax = 64;

// A list of attempts, each of which has to fail; what succeeded is told. What fails since this host
// has no such thing was not refused, and does not count.
class Attempts {
  public:
    void must_fail(const char* what, bool succeeded) {
        const int error = errno;
        constexpr int kMissing[] = {ENOENT, ESRCH, ENOSYS};
        const bool missing =
            std::find(std::begin(kMissing), std::end(kMissing), error) != std::end(kMissing);
        if (!succeeded && missing) return;
        ++refused_;
        if (!succeeded && error != 0) return;
        ::dprintf(2, "this worked, or failed without an errno: %s\n", what);
        ++worked_;
    }
    void must_fail(const std::string& what, const std::function<bool()>& attempt) {
        errno = 0;
        must_fail(what.c_str(), attempt());
    }
    // As the exit code of a child: 0 when nothing worked, and at least `least` things were refused.
    int verdict(int least) const {
        if (refused_ < least) ::dprintf(2, "%d attempts, not %d\n", refused_, least);
        return worked_ == 0 && refused_ >= least ? 0 : 1;
    }

  private:
    int refused_ = 0;
    int worked_ = 0;
};

std::uint64_t size_of(int descriptor) {
    struct stat facts {};
    return ::fstat(descriptor, &facts) == 0 ? static_cast<std::uint64_t>(facts.st_size) : 0;
}

bool opens(const std::string& path, int flags) {
    errno = 0;
    const Descriptor opened(::open(path.c_str(), flags | O_CLOEXEC));
    return static_cast<bool>(opened);
}

bool maps(int descriptor, int protection, off_t offset = 0) {
    errno = 0;
    void* memory = ::mmap(nullptr, kPageBytes, protection, MAP_SHARED, descriptor, offset);
    if (memory == MAP_FAILED) return false;
    ::munmap(memory, kPageBytes);
    return true;
}

// What else than content a file has, by its descriptor: nobody changes it, not even who may write.
void try_to_reshape(Attempts& attempts, int descriptor) {
    const auto size = static_cast<off_t>(size_of(descriptor));
    const auto call = [&](const std::string& what, auto attempt) {
        attempts.must_fail(what, [&] { return attempt() == 0; });
    };
    if (size > 0) call("shrinking", [&] { return ::ftruncate(descriptor, size - 4096); });
    call("truncating", [&] { return ::ftruncate(descriptor, 0); });
    call("extending", [&] { return ::ftruncate(descriptor, size + 4096); });
    call("allocating", [&] { return ::fallocate(descriptor, 0, 0, size + 4096); });
    for (const int seal : kSeals) {
        call("adding the seal " + std::to_string(seal),
             [&] { return ::fcntl(descriptor, F_ADD_SEALS, seal); });
    }
    call("opening to all", [&] { return ::fchmod(descriptor, 0666); });
    call("owning", [&] { return ::fchown(descriptor, ::geteuid(), ::getegid()); });
}

// Everything that changes a file by its descriptor.
void try_to_change(Attempts& attempts, int descriptor) {
    try_to_reshape(attempts, descriptor);
    attempts.must_fail("punching a hole", [&] {
        return ::fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0;
    });
    attempts.must_fail("writing", [&] { return ::pwrite(descriptor, "x", 1, 0) == 1; });
}

// By a path that leads to a file which somebody has open or mapped.
void try_to_reopen(Attempts& attempts, const std::string& path) {
    for (const int flags : {O_RDWR, O_WRONLY, O_WRONLY | O_TRUNC}) {
        attempts.must_fail(path, [&] { return opens(path, flags); });
    }
    attempts.must_fail("truncating " + path, [&] { return ::truncate(path.c_str(), 0) == 0; });
    attempts.must_fail("opening to all " + path, [&] { return ::chmod(path.c_str(), 0666) == 0; });
}

// A range of memory as /proc/PID/map_files names it.
std::string range_name(const void* memory, std::size_t bytes) {
    const auto begin = std::bit_cast<std::uintptr_t>(memory);
    char name[40];
    std::snprintf(name, sizeof name, "%zx-%zx", std::size_t{begin}, begin + bytes);
    return name;
}

// The kernel writes past the protection of a mapping for who writes into its own memory by file or
// by process_vm_writev (as a debugger does), if the mapping could be made writable at all.
void try_to_force(Attempts& attempts, void* memory) {
    ::prctl(PR_SET_DUMPABLE, 1);  // lost with the change of user; its own memory is closed else
    const Descriptor own(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    char byte = 0;
    const void* at = memory;
    const auto place = static_cast<off_t>(std::bit_cast<std::uintptr_t>(at));
    if (::pread(own.number(), &byte, 1, place) != 1) {
        return attempts.must_fail("reading its own memory, which is allowed", true);
    }
    errno = 0;
    attempts.must_fail("forcing a write", ::pwrite(own.number(), &byte, 1, place) == 1);
    iovec ours{&byte, 1};
    iovec theirs{memory, 1};
    errno = 0;
    attempts.must_fail("writing its own memory from outside",
                       ::process_vm_writev(::getpid(), &ours, 1, &theirs, 1, 0) == 1);
}

// By mappings: new ones, and ones that were made to be read.
void try_to_map(Attempts& attempts, int descriptor, off_t offset = 0) {
    attempts.must_fail("mapping writable", maps(descriptor, PROT_READ | PROT_WRITE, offset));
    attempts.must_fail("mapping write-only", maps(descriptor, PROT_WRITE, offset));
    void* memory = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, descriptor, offset);
    if (memory == MAP_FAILED) return attempts.must_fail("reading, which is allowed", true);
    errno = 0;
    attempts.must_fail("making its mapping writable",
                       ::mprotect(memory, kPageBytes, PROT_READ | PROT_WRITE) == 0);
    errno = 0;
    attempts.must_fail("punching through its mapping",
                       ::madvise(memory, kPageBytes, MADV_REMOVE) == 0);
    try_to_force(attempts, memory);
    try_to_reopen(attempts, "/proc/self/map_files/" + range_name(memory, kPageBytes));
    ::munmap(memory, kPageBytes);
}

// Where its parts are: page map, what is revoked, statistics, key directory, the last frame.
std::vector<off_t> parts_of(int pool) {
    const PoolView view = need(PoolView::map(Descriptor(::dup(pool))));
    const auto page_of = [&](const void* part) {
        const void* begin = &view.header();
        const auto offset = static_cast<const char*>(part) - static_cast<const char*>(begin);
        return static_cast<off_t>(offset - offset % std::ptrdiff_t{kPageBytes});
    };
    return {page_of(view.page_map()), page_of(view.revoked()), page_of(&view.stats()),
            page_of(view.directory()), page_of(view.frame(view.frame_count() - 1))};
}

// The mappings that a process has of our segments, or of one kind, for who may see them.
std::vector<std::string> mappings_of(const std::string& process,
                                     const std::string& segment = "bidstore-") {
    std::vector<std::string> ranges;
    std::ifstream maps("/proc/" + process + "/maps");
    for (std::string line; std::getline(maps, line);) {
        if (line.find("memfd:" + segment) == std::string::npos) continue;
        ranges.push_back(line.substr(0, line.find(' ')));
    }
    return ranges;
}

// A descriptor of another process, by its number there: as a file, and as one of our own.
void try_to_take(Attempts& attempts, pid_t process, int number) {
    const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(number);
    attempts.must_fail(path, [&] { return opens(path, O_RDONLY); });
    try_to_reopen(attempts, path);
    const Descriptor handle(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
    if (!handle) return;  // a host that gives out no handles has this way closed for all
    attempts.must_fail("taking " + path, [&] {
        const Descriptor taken(
            static_cast<int>(::syscall(SYS_pidfd_getfd, handle.number(), number, 0)));
        return static_cast<bool>(taken);
    });
}

// Whether a stranger sees at all that the process is there (hidepid of proc(5)).
bool shows(pid_t process) {
    return ::access(("/proc/" + std::to_string(process)).c_str(), F_OK) == 0;
}

// Another process: its descriptors, its mappings, its memory, its control.
void try_to_reach(Attempts& attempts, pid_t process, const std::vector<std::string>& mappings) {
    const std::string place = "/proc/" + std::to_string(process);
    for (int number = 0; number < kDescriptorsMax; ++number) {
        try_to_take(attempts, process, number);
    }
    for (const std::string& range : mappings) {
        try_to_reopen(attempts, place + "/map_files/" + range);
    }
    attempts.must_fail("the memory of another process", opens(place + "/mem", O_RDWR));
    attempts.must_fail("a mapping of another process", opens(place + "/maps", O_RDONLY));
    char byte = 0;
    iovec ours{&byte, 1};
    iovec theirs{&byte, 1};
    errno = 0;
    attempts.must_fail("reading another process's memory",
                       ::process_vm_readv(process, &ours, 1, &theirs, 1, 0) == 1);
    errno = 0;
    attempts.must_fail("writing another process's memory",
                       ::process_vm_writev(process, &ours, 1, &theirs, 1, 0) == 1);
    errno = 0;
    attempts.must_fail("tracing another process",
                       ::ptrace(PTRACE_SEIZE, process, nullptr, nullptr) == 0);
    errno = 0;
    attempts.must_fail("stopping another process", ::kill(process, SIGSTOP) == 0);
}

class Isolation : public testing::Test {
  protected:
    // As the service is set up: other users connect, the pool is not sealed against its own user.
    void begin(const std::vector<std::string>& settings) {
        for (const std::string& setting : settings) daemon_.set(setting);
        if (!daemon_.start()) throw std::runtime_error("no daemon");
        store_.emplace(attach(daemon_));
        table_.emplace(make_table<Counted>(*store_));
        Transaction put;
        put.put(*table_, {.id = 1, .amount = 42});
        need(store_->commit(put, soon()));
    }
    // The store, and who attached before, are as they were.
    void expect_unharmed() {
        EXPECT_TRUE(daemon_.running());
        const auto rows = all_rows(*store_, *table_);
        ASSERT_EQ(rows.size(), 1u);
        EXPECT_EQ(rows[0].amount, 42);
        EXPECT_EQ(store_->reconnects(), 0u);
        Transaction add;
        add.add<&Counted::round>(*table_, table_->key(1u), 1);
        EXPECT_TRUE(is_ok(store_->commit(add, soon())));
    }

    RealDaemon daemon_;
    std::optional<Store> store_;
    std::optional<Table<Counted>> table_;
};

const std::vector<std::string> kService = {"socket_mode=\"0666\"", "seal_pool_writes=false",
                                           "readers=[\"nobody\"]"};

TEST_F(Isolation, ClientOfAnotherUserCannotWriteThePoolByAnyWay) {
    if (!kRoot) GTEST_SKIP() << kNeedsRoot;
    begin(kService);
    Process hostile = Process::fork([&] {
        if (!become(kNobody)) return 2;
        const RawGreeting greeting = greet_patiently(daemon_.socket(), good_hello(Rights::kReader));
        if (greeting.descriptors.size() != 3) return 3;
        const int pool = greeting.descriptors[0].number();
        Attempts attempts;
        try_to_change(attempts, pool);
        try_to_reshape(attempts, greeting.descriptors[1].number());
        try_to_reshape(attempts, greeting.descriptors[2].number());
        try_to_map(attempts, pool);
        try_to_reopen(attempts, "/proc/self/fd/" + std::to_string(pool));
        try_to_reopen(attempts, "/dev/fd/" + std::to_string(pool));
        // One that was opened again to be read is no better.
        const std::string path = "/proc/self/fd/" + std::to_string(pool);
        const Descriptor again(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (again) try_to_map(attempts, again.number());
        return attempts.verdict(50);
    });
    EXPECT_EQ(hostile.wait(), 0);
    expect_unharmed();
}

TEST_F(Isolation, NoPartOfThePoolIsLessClosedThanItsHead) {
    if (!kRoot) GTEST_SKIP() << kNeedsRoot;
    begin(kService);
    Process hostile = Process::fork([&] {
        if (!become(kNobody)) return 2;
        const RawGreeting greeting = greet_patiently(daemon_.socket(), good_hello(Rights::kReader));
        if (greeting.descriptors.size() != 3) return 3;
        const int pool = greeting.descriptors[0].number();
        Attempts attempts;
        for (const off_t part : parts_of(pool)) {
            try_to_map(attempts, pool, part);
            errno = 0;
            attempts.must_fail("writing", ::pwrite(pool, "x", 1, part) == 1);
            errno = 0;
            attempts.must_fail("punching a hole",
                               ::fallocate(pool, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, part,
                                           kPageBytes) == 0);
        }
        return attempts.verdict(60);
    });
    EXPECT_EQ(hostile.wait(), 0);
    expect_unharmed();
}

// What a client tells of what it has.
struct Victim {
    std::atomic<bool> told{false};
    int descriptor = -1;    // of its segment
    char mapping[40] = {};  // of the same
};

// What two clients hold of the daemon's is not each other's: neither their segments, nor a way to
// them through the daemon, which has all of them open.
TEST_F(Isolation, ClientCannotReachAnotherClientsSegment) {
    if (!kRoot) GTEST_SKIP() << kNeedsRoot;
    begin({"socket_mode=\"0666\"", "seal_pool_writes=false", "writers=[\"nobody\", 65533]"});
    SharedMemory<Victim> held;
    Process victim = Process::fork([&] {
        if (!become(kStranger)) return 2;
        RawGreeting greeting = greet_patiently(daemon_.socket(), good_hello(Rights::kWriter));
        if (greeting.descriptors.size() != 3) return 3;
        const ClientSegment segment = need(ClientSegment::map(std::move(greeting.descriptors[1])));
        held->descriptor = segment.descriptor();
        mappings_of("self", "bidstore-client").at(0).copy(held->mapping, sizeof held->mapping - 1);
        held->told = true;
        ::pause();
        return 0;
    });
    ASSERT_TRUE(eventually([&] { return held->told.load(); }));
    ASSERT_LT(held->descriptor, kDescriptorsMax);
    const auto of_daemon = mappings_of(std::to_string(daemon_.pid()));
    ASSERT_EQ(of_daemon.size(), 3u);  // the pool, the victim's segment and ours
    Process hostile = Process::fork([&] {
        if (!become(kNobody)) return 2;
        RawGreeting greeting = greet_patiently(daemon_.socket(), good_hello(Rights::kWriter));
        if (greeting.descriptors.size() != 3) return 3;
        Attempts attempts;
        try_to_reach(attempts, victim.pid(), {held->mapping});
        try_to_reach(attempts, daemon_.pid(), of_daemon);
        for (const pid_t process : {victim.pid(), daemon_.pid()}) {
            const std::string place = "/proc/" + std::to_string(process);
            attempts.must_fail("mappings as files", opens(place + "/map_files", O_RDONLY));
            attempts.must_fail("descriptors as files", opens(place + "/fd", O_RDONLY));
        }
        // Its own segment it has by descriptor, and may write; that, too, is the daemon's file.
        const int own = greeting.descriptors[1].number();
        try_to_reshape(attempts, own);
        try_to_reopen(attempts, "/proc/self/fd/" + std::to_string(own));
        const ClientSegment segment = need(ClientSegment::map(std::move(greeting.descriptors[1])));
        try_to_reopen(attempts,
                      "/proc/self/map_files/" + mappings_of("self", "bidstore-client").at(0));
        return attempts.verdict(shows(daemon_.pid()) ? 700 : 10);
    });
    EXPECT_EQ(hostile.wait(), 0);
    victim.kill();
    expect_unharmed();
}

TEST_F(Isolation, ClientOfAnotherUserCannotReachDaemonFilesOrOtherClients) {
    if (!kRoot) GTEST_SKIP() << kNeedsRoot;
    begin(kService);
    const pid_t test = ::getpid();  // a client, too
    const auto of_daemon = mappings_of(std::to_string(daemon_.pid()));
    const auto of_test = mappings_of("self");
    ASSERT_EQ(of_daemon.size(), 2u);
    ASSERT_EQ(of_test.size(), 2u);
    const char* const kFiles[] = {"/data", "/log", "/journal"};
    for (const char* name : kFiles) EXPECT_TRUE(opens(daemon_.data_directory() + name, O_RDONLY));
    Process hostile = Process::fork([&] {
        if (!become(kNobody)) return 2;
        Attempts attempts;
        try_to_reach(attempts, daemon_.pid(), of_daemon);
        try_to_reach(attempts, test, of_test);
        for (const char* name : kFiles) {
            attempts.must_fail("a file of the store",
                               opens(daemon_.data_directory() + name, O_RDONLY));
        }
        errno = 0;
        attempts.must_fail("removing the socket", ::unlink(daemon_.socket().c_str()) == 0);
        return attempts.verdict(shows(daemon_.pid()) ? 700 : 10);
    });
    EXPECT_EQ(hostile.wait(), 0);
    expect_unharmed();
}

// Its own segment is the client's to write, but not to cut: the daemon reads from it.
TEST_F(Isolation, ClientCannotCutItsOwnSegmentUnderTheDaemon) {
    begin({});
    const RawGreeting greeting = greet_patiently(daemon_.socket(), good_hello(Rights::kReader));
    ASSERT_EQ(greeting.descriptors.size(), 3u);
    const int segment = greeting.descriptors[1].number();
    const auto size = static_cast<off_t>(size_of(segment));
    EXPECT_EQ(::ftruncate(segment, 0), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(::ftruncate(segment, size + 4096), -1);
    EXPECT_EQ(errno, EPERM);
    for (const int seal : kSeals) {
        EXPECT_EQ(::fcntl(segment, F_ADD_SEALS, seal), -1) << seal;
        // Linux before 6.3 does not know the last one.
        EXPECT_TRUE(errno == EPERM || (errno == EINVAL && seal == kSealExec)) << errno;
    }
    // Filled with nonsense and full of holes it harms its owner alone.
    const std::vector<char> nonsense(static_cast<std::size_t>(size), '\xa5');
    EXPECT_EQ(::pwrite(segment, nonsense.data(), nonsense.size(), 0), size);
    EXPECT_TRUE(eventually([&] { return counter(*store_, Counter::kClients) == 1; }));
    EXPECT_EQ(::fallocate(segment, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size), 0);
    EXPECT_GE(counter(*store_, Counter::kHostileEvents), 1u);
    EXPECT_EQ(counter(*store_, Counter::kClientsDropped), 1u);
    EXPECT_TRUE(daemon_.logged("cut off")) << daemon_.log();
    expect_unharmed();
}

// For development daemon and client are one user: then the seal keeps the pool from being mapped
// writable, even by a descriptor that was opened again.
TEST_F(Isolation, SealKeepsTheSameUserFromMappingThePoolWritable) {
    begin({"seal_pool_writes=true"});
    const RawGreeting greeting = greet_patiently(daemon_.socket(), good_hello(Rights::kReader));
    ASSERT_EQ(greeting.descriptors.size(), 3u);
    const int pool = greeting.descriptors[0].number();
    EXPECT_FALSE(maps(pool, PROT_READ | PROT_WRITE));
    void* memory = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, pool, 0);
    ASSERT_NE(memory, MAP_FAILED);
    for (const std::string& path :
         {"fd/" + std::to_string(pool), "map_files/" + range_name(memory, kPageBytes)}) {
        SCOPED_TRACE(path);
        const Descriptor again(::open(("/proc/self/" + path).c_str(), O_RDWR | O_CLOEXEC));
        if (!again) {
            EXPECT_NE(errno, ENOENT);
            continue;
        }
        EXPECT_FALSE(maps(again.number(), PROT_READ | PROT_WRITE));
        EXPECT_EQ(errno, EPERM);
        EXPECT_EQ(::pwrite(again.number(), "x", 1, 0), -1);
        EXPECT_EQ(errno, EPERM);
        EXPECT_EQ(::ftruncate(again.number(), 0), -1);
        for (const int seal : kSeals) {
            EXPECT_EQ(::fcntl(again.number(), F_ADD_SEALS, seal), -1) << seal;
        }
    }
    EXPECT_EQ(::mprotect(memory, kPageBytes, PROT_READ | PROT_WRITE), -1);
    EXPECT_EQ(errno, EACCES);
    ::munmap(memory, kPageBytes);
    expect_unharmed();
}

// ---- rights -------------------------------------------------------------------------------------

// In a child that is somebody else: the exit code is the error that attaching ends with.
ExitStatus attach_as(const RealDaemon& daemon, uid_t user, Rights rights, std::string& message) {
    WorkDirectory place;
    const std::string file = place.file("message");
    const Descriptor out(::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    Process child = Process::fork([&] {
        if (!become(user)) return 255;
        const auto store = Store::attach({.socket = daemon.socket(), .rights = rights}, soon());
        if (!store.ok()) ::dprintf(out.number(), "%s", store.failure().what.c_str());
        return static_cast<int>(store.error());
    });
    const ExitStatus status = child.wait().value_or(-1);
    message = read_whole_file(file);
    return status;
}

TEST_F(Isolation, OnlyWhoTheConfigNamesConnectsAndWithItsRightsAlone) {
    if (!kRoot) GTEST_SKIP() << kNeedsRoot;
    begin({"socket_mode=\"0666\"", "readers=[\"nobody\"]", "writers=[65532]"});
    constexpr uid_t kWriter = 65532;
    constexpr auto kDenied = static_cast<ExitStatus>(Error::kDenied);
    std::string message;
    EXPECT_EQ(attach_as(daemon_, kNobody, Rights::kReader, message), 0) << message;
    EXPECT_EQ(attach_as(daemon_, kNobody, Rights::kWriter, message), kDenied);
    EXPECT_NE(message.find("add it to \"writers\""), std::string::npos) << message;
    EXPECT_EQ(attach_as(daemon_, kWriter, Rights::kWriter, message), 0) << message;
    EXPECT_EQ(attach_as(daemon_, kWriter, Rights::kAdmin, message), kDenied);
    EXPECT_NE(message.find("add it to \"admins\""), std::string::npos) << message;
    EXPECT_EQ(attach_as(daemon_, kStranger, Rights::kReader, message), kDenied);
    EXPECT_NE(message.find("user 65533 may not be reader"), std::string::npos) << message;
    EXPECT_TRUE(daemon_.logged("(user 65533) refused")) << daemon_.log();
    expect_unharmed();
}

TEST_F(Isolation, SocketThatIsClosedToAUserSaysSo) {
    if (!kRoot) GTEST_SKIP() << kNeedsRoot;
    begin({"socket_mode=\"0600\"", "readers=[\"nobody\"]"});
    std::string message;
    EXPECT_EQ(attach_as(daemon_, kNobody, Rights::kReader, message),
              static_cast<ExitStatus>(Error::kDenied));
    EXPECT_NE(message.find("permission denied"), std::string::npos) << message;
    EXPECT_NE(message.find(daemon_.socket()), std::string::npos) << message;
}

TEST_F(Isolation, ReaderOfAnotherUserReadsInPlaceAndCannotWrite) {
    if (!kRoot) GTEST_SKIP() << kNeedsRoot;
    begin(kService);
    Process client = Process::fork([&] {
        if (!become(kNobody)) return 2;
        Store store = need(Store::attach({.socket = daemon_.socket()}, soon()));
        Reader reader = need(store.reader());
        const auto table = need(store.open<Counted>(soon()));
        const Snapshot snapshot = need(reader.snapshot(soon()));
        const auto row = need(table.peek(snapshot, 1u));
        if (!row || row->get<&Counted::amount>() != 42 || !snapshot.valid()) return 3;
        Transaction put;
        put.put(table, {.id = 1});
        if (store.commit(put, soon()).error() != Error::kDenied) return 4;
        return store.create_table<Event>(soon()).error() == Error::kDenied ? 0 : 5;
    });
    EXPECT_EQ(client.wait(), 0);
    expect_unharmed();
}

}  // namespace
}  // namespace bidstore
