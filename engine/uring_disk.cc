#include "engine/uring_disk.h"

#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "engine/request_queue.h"
#include "shm/base.h"

namespace bidstore {

namespace {

// Requests that may be prepared before they are handed over together.
constexpr unsigned kSubmitTogether = 16;
constexpr unsigned kSubmitFirst = 4;  // by then a device that has nothing to do gets them
constexpr unsigned kReapTogether = 64;
constexpr int kPunchMode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr std::uint64_t kSliceBytes = 1ull << 30;  // the kernel's limit for one registered buffer
constexpr std::uint64_t kSlicesMax = 16'384;       // and for their number

// Best first. With DEFER_TASKRUN completions are posted by the thread that asks for them and by
// nothing else, so they never interrupt the engine; TASKRUN_FLAG tells by a flag in shared memory
// that there are some, so a poll() that finds none makes no system call. SINGLE_ISSUER, which
// DEFER_TASKRUN needs, binds the ring to a thread; R_DISABLED puts that off to the first call.
constexpr unsigned kSetupFlags[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    0,
};

Status unsupported(int number) {
    return {Error::kUnsupported,
            "io_uring is not available: " + std::generic_category().message(number) + " (errno " +
                std::to_string(number) +
                "). Allow it (sysctl kernel.io_uring_disabled = 0; in a container a seccomp "
                "profile with io_uring_setup, io_uring_enter and io_uring_register; enough "
                "LimitNOFILE and LimitMEMLOCK), or set disk = \"threads\""};
}

// Sets the ring up with the best flags that this kernel takes, and says which these were.
Result<unsigned> set_up(io_uring& ring, unsigned entries) {
    int number = 0;
    for (const unsigned flags : kSetupFlags) {
        io_uring_params parameters{};
        parameters.flags = flags;
        number = -::io_uring_queue_init_params(entries, &ring, &parameters);
        if (number == EINVAL) continue;
        if (number != 0) break;
        if (parameters.features & IORING_FEAT_EXT_ARG) return flags;
        ::io_uring_queue_exit(&ring);  // older than Linux 5.11: cannot wait with a timeout
        number = ENOSYS;
        break;
    }
    return unsupported(number).failure();
}

class UringDiskImpl final : public Disk {
  public:
    UringDiskImpl(FileSet files, std::uint32_t queue_depth)
        : files_(std::move(files)), queue_depth_(queue_depth) {}
    ~UringDiskImpl() override;

    Status start();

    void submit(DiskRequest& request) override;
    int poll(std::uint64_t timeout_ns) override;
    std::uint32_t in_flight() const override { return in_flight_; }
    void set_wake_descriptor(int descriptor) override;
    Result<std::uint64_t> size_bytes(StoreFile file) override { return files_.size_bytes(file); }
    Status resize(StoreFile file, std::uint64_t size_bytes) override {
        return files_.resize(file, size_bytes);
    }
    Result<bool> backed(StoreFile file, std::uint64_t offset_bytes,
                        std::uint64_t length_bytes) override {
        return files_.backed(file, offset_bytes, length_bytes);
    }
    std::string path(StoreFile file) const override { return files_.path(file); }
    Result<bool> register_memory(std::byte* base, std::uint64_t size_bytes) override;

  private:
    void bind_to_thread();
    int registered_slice(const std::byte* buffer, std::uint32_t length) const;
    io_uring_sqe* next_entry();
    void start_waiting();
    void prepare(io_uring_sqe& entry, DiskRequest& request) const;
    bool start_cut(const DiskRequest& request);
    int end_cut();
    void flush();
    void arm_wake();
    void wait(std::uint64_t timeout_ns);
    int run_completions();
    void reap();
    void on_entry(void* data, int result);
    void on_request(DiskRequest& request, int result);
    void complete(DiskRequest& request, std::int64_t result);

    FileSet files_;
    const std::uint32_t queue_depth_;
    io_uring ring_{};
    bool ring_exists_ = false;
    bool ring_disabled_ = false;     // until the first call binds it to its thread
    bool files_registered_ = false;  // the kernel knows them as 0, 1, 2
    // Memory that the kernel knows, in slices of kSliceBytes; 0 bytes: none.
    const std::byte* memory_ = nullptr;
    std::uint64_t memory_bytes_ = 0;
    bool polling_ = false;
    SpinManners manners_;
    bool woken_ = false;       // the wake descriptor was readable since poll() began
    bool wake_armed_ = false;  // the kernel watches a wake descriptor for us
    int wake_ = -1;
    std::uint32_t in_flight_ = 0;
    std::uint32_t in_kernel_ = 0;  // of these, in the ring's queues or beyond
    RequestQueue waiting_;         // for a place among queue_depth_
    // The cut that is under way: the kernel's rings know none before Linux 6.9, so a thread does
    // it, and what is in the ring is a watch on its news.
    std::thread cutter_;
    int cut_news_ = -1;  // eventfd
    int cut_result_ = 0;
    DoneRequests done_;
};

Status UringDiskImpl::start() {
    const Result<unsigned> flags = set_up(ring_, queue_depth_);
    if (!flags) return flags.failure();
    ring_exists_ = true;
    ring_disabled_ = (*flags & IORING_SETUP_R_DISABLED) != 0;
    int descriptors[kStoreFileCount];
    for (std::uint32_t i = 0; i < kStoreFileCount; ++i) {
        descriptors[i] = files_.descriptor(static_cast<StoreFile>(i));
    }
    // Saves a little per request; where it is refused, plain descriptors do.
    files_registered_ = ::io_uring_register_files(&ring_, descriptors, kStoreFileCount) == 0;
    return {};
}

UringDiskImpl::~UringDiskImpl() {
    while (!waiting_.empty()) waiting_.pop().in_flight = false;
    while (in_kernel_ > 0) {
        if (::io_uring_submit_and_wait(&ring_, 1) == -EEXIST) break;  // not the ring's thread
        reap();
        while (!waiting_.empty()) waiting_.pop().in_flight = false;  // rests of short transfers
    }
    done_.drop();
    // The kernel takes its time to end a ring; the files, and with them the lock, go at once.
    if (files_registered_ && in_kernel_ == 0) ::io_uring_unregister_files(&ring_);
    if (memory_bytes_ > 0 && in_kernel_ == 0) ::io_uring_unregister_buffers(&ring_);
    if (ring_exists_) ::io_uring_queue_exit(&ring_);
    if (cutter_.joinable()) end_cut();
}

void UringDiskImpl::bind_to_thread() {
    if (!ring_disabled_) return;
    // By hand: liburing 2.3 declares io_uring_enable_rings() and forgot to export it.
    const long failed =
        ::syscall(__NR_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    CHECK_OP(failed, ==, 0);
    ring_disabled_ = false;
}

void UringDiskImpl::submit(DiskRequest& request) {
    CHECK(!request.in_flight);
    if (request.buffer != nullptr) CHECK_OP(request.length_bytes, <=, kMaxTransferBytes);
    bind_to_thread();
    request.in_flight = true;
    request.done_bytes = 0;
    ++in_flight_;
    waiting_.push(request);
    start_waiting();
    // A durable write has somebody waiting for it; others go out together, at poll() at the latest,
    // the first of them earlier: the device is at work while the rest is prepared.
    const unsigned ready = ::io_uring_sq_ready(&ring_);
    const unsigned together = in_kernel_ > ready ? kSubmitTogether : kSubmitFirst;
    if (request.durable || ready >= together) flush();
}

io_uring_sqe* UringDiskImpl::next_entry() {
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    if (entry) return entry;
    flush();
    return ::io_uring_get_sqe(&ring_);
}

void UringDiskImpl::start_waiting() {
    while (!waiting_.empty() && in_kernel_ < queue_depth_) {
        io_uring_sqe* const entry = next_entry();
        if (!entry) return;  // the kernel takes nothing now; poll() tries again
        DiskRequest& request = waiting_.pop();
        const bool cut = request.kind == DiskRequest::Kind::kCut;
        if (cut && !start_cut(request)) {
            ::io_uring_prep_nop(entry);  // its answer finds the failure in cut_result_
            ::io_uring_sqe_set_data(entry, &request);
        } else {
            prepare(*entry, request);
        }
        ++in_kernel_;
    }
}

// Cutting waits for all direct I/O of the file, which is no business of the caller's.
bool UringDiskImpl::start_cut(const DiskRequest& request) {
    CHECK(!cutter_.joinable());  // at most one at a time
    cut_result_ = -ENOMEM;
    cut_news_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (cut_news_ < 0) {
        cut_result_ = -errno;
        return false;
    }
    try {
        cutter_ = std::thread([this, file = request.file, size_bytes = request.offset_bytes] {
            cpu_set_t anywhere;  // and not where the engine is pinned
            std::memset(&anywhere, 0xff, sizeof anywhere);
            static_cast<void>(::sched_setaffinity(0, sizeof anywhere, &anywhere));
            cut_result_ = files_.cut(file, size_bytes);
            const std::uint64_t one = 1;
            static_cast<void>(!::write(cut_news_, &one, sizeof one));
        });
    } catch (const std::system_error& failed) {
        cut_result_ = -failed.code().value();
        return false;
    }
    return true;
}

int UringDiskImpl::end_cut() {
    if (cutter_.joinable()) cutter_.join();  // it has told its news
    if (cut_news_ >= 0) ::close(cut_news_);
    cut_news_ = -1;
    return cut_result_;
}

Result<bool> UringDiskImpl::register_memory(std::byte* base, std::uint64_t size_bytes) {
    CHECK_OP(memory_bytes_, ==, 0);
    bind_to_thread();
    if (size_bytes > kSliceBytes * kSlicesMax) return false;
    std::vector<iovec> slices;
    for (std::uint64_t at = 0; at < size_bytes; at += kSliceBytes) {
        slices.push_back({base + at, std::min(kSliceBytes, size_bytes - at)});
    }
    const auto count = static_cast<unsigned>(slices.size());
    if (const int error = ::io_uring_register_buffers(&ring_, slices.data(), count); error != 0) {
        return {Error::kIoError,
                "the kernel does not lock " + std::to_string(size_bytes) +
                    " bytes of memory for io_uring (" + std::strerror(-error) +
                    "): raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=) above the pool's size"};
    }
    memory_ = base;
    memory_bytes_ = size_bytes;
    return true;
}

// The slice that holds the whole buffer, or -1.
int UringDiskImpl::registered_slice(const std::byte* buffer, std::uint32_t length) const {
    if (memory_bytes_ == 0 || std::less<>()(buffer, memory_)) return -1;
    const auto begin = static_cast<std::uint64_t>(buffer - memory_);
    const std::uint64_t end = begin + length;
    if (end > memory_bytes_ || begin / kSliceBytes != (end - 1) / kSliceBytes) return -1;
    return static_cast<int>(begin / kSliceBytes);
}

void UringDiskImpl::prepare(io_uring_sqe& entry, DiskRequest& request) const {
    const int file =
        files_registered_ ? static_cast<int>(request.file) : files_.descriptor(request.file);
    std::byte* const rest = static_cast<std::byte*>(request.buffer) + request.done_bytes;
    const std::uint32_t length = request.length_bytes - request.done_bytes;
    const std::uint64_t offset = request.offset_bytes + request.done_bytes;
    const bool has_bytes = length > 0 && request.buffer != nullptr;
    const int slice = has_bytes ? registered_slice(rest, length) : -1;
    switch (request.kind) {
        case DiskRequest::Kind::kRead:
            if (slice >= 0) {
                ::io_uring_prep_read_fixed(&entry, file, rest, length, offset, slice);
            } else {
                ::io_uring_prep_read(&entry, file, rest, length, offset);
            }
            break;
        case DiskRequest::Kind::kWrite:
        case DiskRequest::Kind::kGrow:  // the kernel hands it to a thread of its own
            ::io_uring_prep_write(&entry, file, rest, length, offset);
            if (request.durable) entry.rw_flags = RWF_DSYNC;
            break;
        case DiskRequest::Kind::kPunch:
        case DiskRequest::Kind::kExtend:  // to a thread, too
            ::io_uring_prep_fallocate(&entry, file,
                                      request.kind == DiskRequest::Kind::kPunch ? kPunchMode : 0,
                                      static_cast<off_t>(offset), static_cast<off_t>(length));
            break;
        case DiskRequest::Kind::kSync:
            ::io_uring_prep_fsync(&entry, file, IORING_FSYNC_DATASYNC);
            break;
        case DiskRequest::Kind::kCut:
            ::io_uring_prep_poll_add(&entry, cut_news_, POLLIN);
            ::io_uring_sqe_set_data(&entry, &request);
            return;
    }
    if (files_registered_) entry.flags |= IOSQE_FIXED_FILE;
    ::io_uring_sqe_set_data(&entry, &request);
}

// What the kernel does not take now stays in the ring's queue and goes with the next call.
void UringDiskImpl::flush() {
    const int taken = ::io_uring_submit(&ring_);
    CHECK(taken >= 0 || taken == -EAGAIN || taken == -EBUSY || taken == -EINTR ||
          taken == -ENOMEM);  // anything else is a misuse of the ring
}

void UringDiskImpl::set_wake_descriptor(int descriptor) {
    bind_to_thread();
    if (wake_armed_) {
        if (io_uring_sqe* const entry = next_entry()) {
            ::io_uring_prep_cancel(entry, &wake_, 0);
            ::io_uring_sqe_set_data(entry, nullptr);
        }
    }
    wake_ = descriptor;
}

// One shot at a time, armed only when we are about to sleep: it then tells also of a doorbell that
// rang before.
void UringDiskImpl::arm_wake() {
    if (wake_ < 0 || wake_armed_) return;
    io_uring_sqe* const entry = next_entry();
    if (!entry) return;
    ::io_uring_prep_poll_add(entry, wake_, POLLIN);
    ::io_uring_sqe_set_data(entry, &wake_);
    wake_armed_ = true;
}

int UringDiskImpl::poll(std::uint64_t timeout_ns) {
    CHECK(!polling_);  // a completion must not wait for another one
    if (in_flight_ == 0 && timeout_ns == 0) return 0;
    bind_to_thread();
    polling_ = true;
    woken_ = false;
    if (timeout_ns == 0 && ::io_uring_sq_ready(&ring_) > 0) flush();
    int run = run_completions();
    if (run == 0 && timeout_ns > 0 && !woken_) {
        wait(timeout_ns);
        run = run_completions();
    }
    if (timeout_ns == 0 && in_flight_ > 0) manners_.polled(run > 0);
    polling_ = false;
    return run;
}

void UringDiskImpl::wait(std::uint64_t timeout_ns) {
    arm_wake();
    __kernel_timespec timeout{static_cast<std::int64_t>(timeout_ns / 1'000'000'000),
                              static_cast<long long>(timeout_ns % 1'000'000'000)};
    io_uring_cqe* ignored = nullptr;
    const int result = ::io_uring_submit_and_wait_timeout(&ring_, &ignored, 1, &timeout, nullptr);
    CHECK(result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN ||
          result == -EBUSY || result == -ENOMEM);
}

// Completions are copied out of the ring first and run afterwards, so that they may submit.
int UringDiskImpl::run_completions() {
    reap();
    start_waiting();
    const int run = done_.run(in_flight_);
    if (::io_uring_sq_ready(&ring_) > 0) flush();
    return run;
}

void UringDiskImpl::reap() {
    io_uring_cqe* entries[kReapTogether];
    unsigned count = kReapTogether;
    while (count == kReapTogether) {
        count = ::io_uring_peek_batch_cqe(&ring_, entries, kReapTogether);
        for (unsigned i = 0; i < count; ++i) {
            on_entry(::io_uring_cqe_get_data(entries[i]), entries[i]->res);
        }
        ::io_uring_cq_advance(&ring_, count);
    }
}

void UringDiskImpl::on_entry(void* data, int result) {
    if (data == nullptr) return;  // the answer to taking the wake descriptor back
    if (data != &wake_) {
        --in_kernel_;
        on_request(*static_cast<DiskRequest*>(data), result);
        return;
    }
    CHECK(result != -EBADF);  // the caller closed it before it was taken back
    wake_armed_ = false;
    woken_ = true;
}

void UringDiskImpl::on_request(DiskRequest& request, int result) {
    if (request.kind == DiskRequest::Kind::kCut) {
        complete(request, end_cut());
    } else if (result == -EINTR || result == -EAGAIN) {
        waiting_.push(request);
    } else if (result < 0 || request.kind == DiskRequest::Kind::kSync) {
        complete(request, result);
    } else if (request.kind == DiskRequest::Kind::kPunch ||
               request.kind == DiskRequest::Kind::kExtend) {
        complete(request, request.length_bytes);
    } else if (result == 0 && request.length_bytes > 0) {
        complete(request, request.kind == DiskRequest::Kind::kRead ? -ENODATA : -EIO);
    } else {
        request.done_bytes += static_cast<std::uint32_t>(result);
        if (request.done_bytes < request.length_bytes) {
            waiting_.push(request);  // a short transfer goes on where it stopped
        } else {
            complete(request, request.length_bytes);
        }
    }
}

void UringDiskImpl::complete(DiskRequest& request, std::int64_t result) {
    request.result = result;
    done_.push(request);
}

}  // namespace

Result<std::unique_ptr<Disk>> UringDisk::open(FileSet files, std::uint32_t queue_depth) {
    CHECK(queue_depth >= 1 && queue_depth <= 4096);
    auto disk = std::make_unique<UringDiskImpl>(std::move(files), queue_depth);
    if (const Status started = disk->start(); !started) return started.failure();
    return std::unique_ptr<Disk>(std::move(disk));
}

Status UringDisk::probe() {
    io_uring ring{};
    const Result<unsigned> flags = set_up(ring, 4);
    if (!flags) return flags.failure();
    ::io_uring_queue_exit(&ring);
    return {};
}

}  // namespace bidstore
