#include "engine/file_set.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

#include "engine/aligned_buffer.h"
#include "shm/base.h"

namespace bidstore {

namespace {

constexpr std::uint64_t kFillBytes = 1u << 20;

// Runs a system call again when a signal cut it off.
template <class Call>
auto retried(Call call) {
    auto result = call();
    while (result < 0 && errno == EINTR) result = call();
    return result;
}

int open_file(const std::string& path, bool direct, bool look_only) {
    const int flags =
        (look_only ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC | (direct ? O_DIRECT : 0);
    return retried([&] { return ::open(path.c_str(), flags, 0600); });
}

}  // namespace

Result<FileSet> FileSet::open(const std::string& directory, const Options& options) {
    FileSet files;
    files.directory_ = directory;
    files.direct_ = options.direct;
    if (const Status opened = files.open_files(options); !opened) return opened.failure();
    if (options.look_only) return files;
    if (const Status locked = files.lock(options); !locked) return locked.failure();
    if (const Status synced = files.sync_directory(); !synced) return synced.failure();
    return files;
}

Status FileSet::open_files(const Options& options) {
    for (std::uint32_t i = 0; i < kStoreFileCount; ++i) {
        const auto file = static_cast<StoreFile>(i);
        descriptors_[i] = open_file(path(file), direct_, options.look_only);
        if (descriptors_[i] < 0 && errno == EINVAL && direct_) {
            direct_ = false;
            if (options.log) {
                options.log(4, "the file system of " + path(file) +
                                   " refuses O_DIRECT: files are used through the page cache, "
                                   "which costs memory and speed; put them on ext4 or xfs");
            }
            descriptors_[i] = open_file(path(file), false, options.look_only);
        }
        if (descriptors_[i] < 0) return failure(file, "opening", errno);
    }
    return {};
}

bool FileSet::try_lock(StoreFile file) const {
    return retried([&] { return ::flock(descriptor(file), LOCK_EX | LOCK_NB); }) == 0;
}

Status FileSet::lock(const Options& options) const {
    std::uint64_t waited_ms = 0;
    for (const StoreFile file : {StoreFile::kData, StoreFile::kLog, StoreFile::kJournal}) {
        if (const Status locked = lock(file, options, waited_ms); !locked) return locked;
    }
    return {};
}

// `waited_ms` counts for all files together.
Status FileSet::lock(StoreFile file, const Options& options, std::uint64_t& waited_ms) const {
    constexpr std::uint64_t kPauseMs = 5;
    bool said = false;
    for (; !try_lock(file); waited_ms += kPauseMs) {
        if (errno != EWOULDBLOCK) return failure(file, "locking", errno);
        if (waited_ms >= options.lock_wait_ms) {
            const pid_t owner = dead_owner(file);
            if (owner == 0 && try_lock(file)) break;
            if (owner == 0) {
                return {Error::kLocked, path(file) +
                                            " is in use by another daemon: stop that "
                                            "one, or give this one another data "
                                            "directory"};
            }
            const std::string held = path(file) + " is locked by what process " +
                                     std::to_string(owner) +
                                     ", which ended, had asked the device for: ";
            if (waited_ms >= options.dead_lock_wait_ms) {
                return {Error::kLocked, held + "it does not complete; look at the device"};
            }
            if (!said && options.log) options.log(4, held + "waits for it");
            said = true;
        }
        const timespec pause{0, kPauseMs * 1'000'000};
        ::nanosleep(&pause, nullptr);
    }
    return {};
}

// The process that locked the file, if it is known and gone; else 0.
pid_t FileSet::dead_owner(StoreFile file) const {
    struct stat found {};
    if (::fstat(descriptor(file), &found) != 0) return 0;
    char device[32];
    std::snprintf(device, sizeof device, "%02x:%02x:", ::major(found.st_dev),
                  ::minor(found.st_dev));
    const std::string place = device + std::to_string(found.st_ino);
    // "3: FLOCK  ADVISORY  WRITE 10752 fe:00:1116289 0 EOF"; who waits for a lock has "->" more.
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
        std::istringstream words(line);
        std::string number, kind, advisory, access, where;
        pid_t owner = 0;
        if (!(words >> number >> kind >> advisory >> access >> owner >> where)) continue;
        if (kind != "FLOCK" || where != place) continue;
        return owner > 0 && ::kill(owner, 0) != 0 && errno == ESRCH ? owner : 0;
    }
    return 0;
}

FileSet::FileSet(FileSet&& other) noexcept
    : directory_(std::move(other.directory_)),
      descriptors_(std::exchange(other.descriptors_, {-1, -1, -1})),
      direct_(other.direct_) {}

FileSet& FileSet::operator=(FileSet&& other) noexcept {
    std::swap(directory_, other.directory_);
    std::swap(descriptors_, other.descriptors_);
    std::swap(direct_, other.direct_);
    return *this;
}

FileSet::~FileSet() {
    for (const int descriptor : descriptors_) {
        if (descriptor >= 0) ::close(descriptor);
    }
}

std::string FileSet::path(StoreFile file) const { return directory_ + "/" + store_file_name(file); }

Status FileSet::failure(StoreFile file, const char* operation, int number) const {
    const bool full = number == ENOSPC || number == EDQUOT || number == EFBIG;
    return {full ? Error::kNoSpace : Error::kIoError,
            std::string(operation) + " " + path(file) + ": " +
                std::generic_category().message(number) + " (errno " + std::to_string(number) +
                ")"};
}

Result<std::uint64_t> FileSet::size_bytes(StoreFile file) const {
    struct stat facts {};
    if (::fstat(descriptor(file), &facts) != 0) return failure(file, "looking at", errno).failure();
    return static_cast<std::uint64_t>(facts.st_size);
}

// An unfinished growth is taken back on failure, so that a full device leaves the file as it was.
// A crash half-way leaves a longer file, which recovery takes for free space.
Status FileSet::resize(StoreFile file, std::uint64_t size_bytes) const {
    CHECK(size_bytes % kPageBytes == 0);
    const Result<std::uint64_t> old = this->size_bytes(file);
    if (!old) return old.failure();
    const auto cut = [&](std::uint64_t to) {
        return retried([&] { return ::ftruncate(descriptor(file), static_cast<off_t>(to)); });
    };
    if (size_bytes < *old && cut(size_bytes) != 0) return failure(file, "cutting", errno);
    if (size_bytes > *old) {
        const Status filled = fill_with_zeros(file, *old, size_bytes);
        if (!filled) {
            static_cast<void>(cut(*old));  // the failure reported is the first one
            return filled;
        }
    }
    if (retried([&] { return ::fsync(descriptor(file)); }) != 0) {
        return failure(file, "syncing", errno);
    }
    return sync_directory();
}

// A file system that does not tell of holes has none, as far as we are concerned.
Result<bool> FileSet::backed(StoreFile file, std::uint64_t offset_bytes,
                             std::uint64_t length_bytes) const {
    const off_t hole = ::lseek(descriptor(file), static_cast<off_t>(offset_bytes), SEEK_HOLE);
    if (hole >= 0) return static_cast<std::uint64_t>(hole) >= offset_bytes + length_bytes;
    if (errno == ENXIO) return false;  // the file ends before that
    if (errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS) return true;
    return failure(file, "looking for holes in", errno).failure();
}

int FileSet::punch(StoreFile file, std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
    return allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_bytes, length_bytes);
}

int FileSet::extend(StoreFile file, std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
    return allocate(file, 0, offset_bytes, length_bytes);
}

int FileSet::allocate(StoreFile file, int mode, std::uint64_t offset_bytes,
                      std::uint64_t length_bytes) const {
    const int failed = retried([&] {
        return ::fallocate(descriptor(file), mode, static_cast<off_t>(offset_bytes),
                           static_cast<off_t>(length_bytes));
    });
    return failed == 0 ? 0 : -errno;
}

int FileSet::cut(StoreFile file, std::uint64_t size_bytes) const {
    const int failed =
        retried([&] { return ::ftruncate(descriptor(file), static_cast<off_t>(size_bytes)); });
    return failed == 0 ? 0 : -errno;
}

Status FileSet::fill_with_zeros(StoreFile file, std::uint64_t from, std::uint64_t to) const {
    // Asks for the room first: in one piece where the file system can, and refused before anything
    // is written where there is none. File systems without it just take the writes.
    const int reserved = retried([&] {
        return ::fallocate(descriptor(file), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(from),
                           static_cast<off_t>(to - from));
    });
    if (reserved != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
        return failure(file, "growing", errno);
    }
    // A size that is no whole block was left by a crash: first completed, since O_DIRECT cannot.
    std::uint64_t at = align_up(from, kPageBytes);
    const auto aligned = static_cast<off_t>(at);
    if (at != from && retried([&] { return ::ftruncate(descriptor(file), aligned); }) != 0) {
        return failure(file, "growing", errno);
    }
    const AlignedBuffer zeros(kFillBytes);
    while (at < to) {
        const std::uint64_t part = std::min(kFillBytes, to - at);
        const ssize_t written = retried(
            [&] { return ::pwrite(descriptor(file), zeros.data(), part, static_cast<off_t>(at)); });
        if (written <= 0) return failure(file, "growing", written < 0 ? errno : ENOSPC);
        at += static_cast<std::uint64_t>(written);
    }
    return {};
}

// A new file, or its new size, is only durable with its directory entry.
Status FileSet::sync_directory() const {
    const int directory =
        retried([&] { return ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    int number = directory < 0 ? errno : 0;
    if (directory >= 0) {
        if (retried([&] { return ::fsync(directory); }) != 0) number = errno;
        ::close(directory);
    }
    if (number == 0) return {};
    return {Error::kIoError, "syncing directory " + directory_ + ": " +
                                 std::generic_category().message(number) + " (errno " +
                                 std::to_string(number) + ")"};
}

}  // namespace bidstore
