// The disk seam: the few asynchronous file operations that the engine needs.
//
// Three halves stand behind it and pass the same tests: UringDisk (io_uring), ThreadDisk
// (pread/pwrite in threads, for hosts that forbid io_uring) and the simulated disk of the tests.
//
// Who:       the engine thread alone calls it; completions run on that thread, inside poll().
// Owns:      nothing of the caller: a DiskRequest and its buffer belong to the caller and stay
//            untouched until its completion ran.
// Alignment: offset, length and buffer address are multiples of kPageBytes (O_DIRECT).
// Order:     requests are not ordered among each other. A write is durable only when its kWrite
//            with durable = true completed, or when a kSync of that file completed that was
//            submitted after the write had completed.
// Errors:    result is the number of bytes transferred, always the whole length, or -errno: short
//            transfers are continued by the implementation. A read past the end of the file
//            completes with -ENODATA.
// Deadline:  no request waits for another request; a device that hangs is the caller's to notice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "shm/error.h"

namespace bidstore {

// The files of a store.
enum class StoreFile : std::uint8_t { kData = 0, kLog = 1, kJournal = 2 };
inline constexpr std::uint32_t kStoreFileCount = 3;
// "data", "log", "journal".
const char* store_file_name(StoreFile file);

struct DiskRequest {
    enum class Kind : std::uint8_t {
        kRead,
        kWrite,  // inside the file
        kSync,
        // A write of zeros that begins at or before the end of the file and makes it longer, or
        // fills a hole in it. Other requests go on meanwhile. A full file system: -ENOSPC, and the
        // file may have grown by a part. New size and blocks are durable with the next kSync.
        kGrow,
        // Room on the device for this range, which begins at or before the end of the file, without
        // writing there: the file is at least so long then, holes in the range are filled, and what
        // is added reads as zeros. For pages that are about to be written whole. No buffer. A full
        // file system: as kGrow. -EOPNOTSUPP where the file system cannot. Durable with the next
        // kSync; until then a crash may leave the old size and the holes.
        kExtend,
        // Gives the blocks of this range back to the file system; it reads as zeros from then on,
        // durably so with the next kSync, and the file keeps its size. No buffer. -EOPNOTSUPP where
        // the file system cannot. A hole is filled by kGrow before anything else is written there.
        kPunch,
        // The file ends at offset_bytes from then on, durably so with the next kSync. No buffer and
        // no length; no other request concerns what is cut off. At most one at a time.
        kCut,
    };
    Kind kind = Kind::kRead;
    StoreFile file = StoreFile::kData;
    bool durable = false;             // of a write: on stable storage when it completes (RWF_DSYNC)
    bool in_flight = false;           // kept by the disk; true from submit() to the completion
    std::uint32_t length_bytes = 0;   // 0 for kSync and kCut; with a buffer at most
                                      // kMaxTransferBytes
    std::uint64_t offset_bytes = 0;
    void* buffer = nullptr;
    std::int64_t result = 0;          // bytes, or -errno
    // Called once from poll(), with in_flight already false; may submit again, this request too.
    void (*completed)(DiskRequest& request, void* context) = nullptr;
    void* context = nullptr;
    // The disk's own while in flight (queue link, progress of a short transfer).
    DiskRequest* next = nullptr;
    std::uint32_t done_bytes = 0;
};

inline constexpr std::uint32_t kMaxTransferBytes = 8u << 20;

class Disk {
  public:
    virtual ~Disk() = default;

    // Takes the request; never blocks. More requests than the device queue holds are queued here.
    virtual void submit(DiskRequest& request) = 0;

    // Runs completions that are there, perhaps not all of them; with none there, waits up to
    // timeout_ns for one, or for the wake descriptor, or (timeout_ns = 0) not at all. Returns the
    // number of completions run: 0 says that none is left.
    virtual int poll(std::uint64_t timeout_ns) = 0;

    // Requests submitted and not completed.
    virtual std::uint32_t in_flight() const = 0;

    // poll() also returns early when this descriptor becomes readable (the doorbell); -1 for none.
    // The caller keeps and drains it.
    virtual void set_wake_descriptor(int descriptor) = 0;

    // Size of the file. Synchronous: open and recovery only.
    virtual Result<std::uint64_t> size_bytes(StoreFile file) = 0;

    // Makes the file exactly this long and the new size durable; what is added reads as zeros and
    // is physically written (so that later writes need no allocation). Synchronous: done at format
    // and in recovery, never while the engine serves. kNoSpace leaves the file as it was.
    virtual Status resize(StoreFile file, std::uint64_t size_bytes) = 0;

    // Whether all of the range was written: writes there cannot meet a full file system. False
    // where there is a hole in it, or room that kExtend made and nobody wrote to. Synchronous:
    // open only.
    virtual Result<bool> backed(StoreFile file, std::uint64_t offset_bytes,
                                std::uint64_t length_bytes) = 0;

    // For messages: where the file is.
    virtual std::string path(StoreFile file) const = 0;

    // Memory that most requests will use as their buffer, known to the kernel from now on, so that
    // each of them costs less (io_uring: registered buffers; they count as locked memory). It
    // outlives the disk. False: the disk knows no such thing. A failure says why the kernel does
    // not take it, and the remedy; all goes on as without. By the thread that calls everything
    // else.
    virtual Result<bool> register_memory([[maybe_unused]] std::byte* base,
                                         [[maybe_unused]] std::uint64_t size_bytes) {
        return false;
    }
};

}  // namespace bidstore
