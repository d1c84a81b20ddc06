// The three files of a store in one directory: opening, locking, sizes.
//
// Who:    the real disks own one; nobody else touches its descriptors.
// Lock:   an exclusive flock on each file, held while the FileSet lives, so that two daemons never
//         write one store. It ends with the process, however that ends, but not before the kernel
//         is done with what the process left under way: open() waits for that. Who only looks takes
//         none, and sees what another process writes meanwhile.
// Direct: O_DIRECT, which keeps the kernel's page cache out. A file system that refuses it is
//         used buffered, and the operator is told; durable writes are synced either way.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "engine/disk.h"
#include "shm/error.h"

namespace bidstore {

// As EngineOptions::log: level as in syslog (4 warning), one line.
using OperatorLog = std::function<void(int level, const std::string& line)>;

class FileSet {
  public:
    struct Options {
        bool direct = true;  // false: buffered, without a word about it
        OperatorLog log;     // may be empty
        std::uint64_t lock_wait_ms = 2000;
        // The same where the owner is a process that ended: the kernel keeps its lock until what it
        // had under way is done, which takes as long as the device does.
        std::uint64_t dead_lock_wait_ms = 30'000;
        bool look_only = false;  // no lock, no writes, and no file is made
    };

    // Opens the files, made empty where they are missing (the directory must exist). kLocked names
    // the file that another process has.
    static Result<FileSet> open(const std::string& directory, const Options& options);

    FileSet(FileSet&& other) noexcept;
    FileSet& operator=(FileSet&& other) noexcept;
    ~FileSet();

    int descriptor(StoreFile file) const { return descriptors_[static_cast<unsigned>(file)]; }
    std::string path(StoreFile file) const;
    bool direct() const { return direct_; }

    // As in Disk.
    Result<std::uint64_t> size_bytes(StoreFile file) const;
    Status resize(StoreFile file, std::uint64_t size_bytes) const;
    Result<bool> backed(StoreFile file, std::uint64_t offset_bytes,
                        std::uint64_t length_bytes) const;
    // kPunch, kExtend and kCut, by whichever thread: 0, or -errno.
    int punch(StoreFile file, std::uint64_t offset_bytes, std::uint64_t length_bytes) const;
    int extend(StoreFile file, std::uint64_t offset_bytes, std::uint64_t length_bytes) const;
    int cut(StoreFile file, std::uint64_t size_bytes) const;

  private:
    int allocate(StoreFile file, int mode, std::uint64_t offset_bytes,
                 std::uint64_t length_bytes) const;
    FileSet() = default;
    Status open_files(const Options& options);
    Status lock(const Options& options) const;
    Status lock(StoreFile file, const Options& options, std::uint64_t& waited_ms) const;
    bool try_lock(StoreFile file) const;
    pid_t dead_owner(StoreFile file) const;
    Status sync_directory() const;
    Status failure(StoreFile file, const char* operation, int number) const;
    Status fill_with_zeros(StoreFile file, std::uint64_t from, std::uint64_t to) const;

    std::string directory_;
    std::array<int, kStoreFileCount> descriptors_{-1, -1, -1};
    bool direct_ = true;
};

}  // namespace bidstore
