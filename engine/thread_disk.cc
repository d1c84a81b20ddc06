#include "engine/thread_disk.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "engine/request_queue.h"
#include "shm/base.h"

namespace bidstore {

namespace {

class ThreadDiskImpl final : public Disk {
  public:
    ThreadDiskImpl(FileSet files, int news) : files_(std::move(files)), news_(news) {}
    ~ThreadDiskImpl() override;

    void start(std::uint32_t thread_count);

    void submit(DiskRequest& request) override;
    int poll(std::uint64_t timeout_ns) override;
    std::uint32_t in_flight() const override { return in_flight_; }
    void set_wake_descriptor(int descriptor) override { wake_ = descriptor; }
    Result<std::uint64_t> size_bytes(StoreFile file) override { return files_.size_bytes(file); }
    Status resize(StoreFile file, std::uint64_t size_bytes) override {
        return files_.resize(file, size_bytes);
    }
    Result<bool> backed(StoreFile file, std::uint64_t offset_bytes,
                        std::uint64_t length_bytes) override {
        return files_.backed(file, offset_bytes, length_bytes);
    }
    std::string path(StoreFile file) const override { return files_.path(file); }

  private:
    void work();
    void execute(DiskRequest& request) const;
    ssize_t transfer_rest(const DiskRequest& request) const;
    int run_completions();
    void wait(std::uint64_t timeout_ns);

    FileSet files_;
    const int news_;  // eventfd: a completion came while the owner slept
    int wake_ = -1;
    std::uint32_t in_flight_ = 0;  // the owner's count
    bool polling_ = false;
    SpinManners manners_;
    DoneRequests reaped_;

    std::mutex mutex_;  // guards what follows
    std::condition_variable work_came_;
    RequestQueue waiting_;
    RequestQueue done_;
    bool asleep_ = false;  // the owner is in wait(): a completion rings `news_`
    bool stopping_ = false;

    std::vector<std::thread> threads_;
};

void ThreadDiskImpl::start(std::uint32_t thread_count) {
    threads_.reserve(thread_count);
    for (std::uint32_t i = 0; i < thread_count; ++i) threads_.emplace_back([this] { work(); });
}

ThreadDiskImpl::~ThreadDiskImpl() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        while (!waiting_.empty()) waiting_.pop().in_flight = false;
    }
    work_came_.notify_all();
    for (std::thread& thread : threads_) thread.join();  // they finish what they have begun
    while (!done_.empty()) done_.pop().in_flight = false;
    reaped_.drop();
    ::close(news_);
}

void ThreadDiskImpl::submit(DiskRequest& request) {
    CHECK(!request.in_flight);
    if (request.buffer != nullptr) CHECK_OP(request.length_bytes, <=, kMaxTransferBytes);
    request.in_flight = true;
    request.done_bytes = 0;
    ++in_flight_;
    {
        const std::lock_guard lock(mutex_);
        waiting_.push(request);
    }
    work_came_.notify_one();
}

int ThreadDiskImpl::poll(std::uint64_t timeout_ns) {
    CHECK(!polling_);  // a completion must not wait for another one
    if (in_flight_ == 0 && timeout_ns == 0) return 0;
    polling_ = true;
    int run = run_completions();
    if (run == 0 && timeout_ns > 0) {
        wait(timeout_ns);
        run = run_completions();
    }
    if (timeout_ns == 0 && in_flight_ > 0) manners_.polled(run > 0);
    polling_ = false;
    return run;
}

int ThreadDiskImpl::run_completions() {
    {
        const std::lock_guard lock(mutex_);
        while (!done_.empty()) reaped_.push(done_.pop());
    }
    return reaped_.run(in_flight_);
}

void ThreadDiskImpl::wait(std::uint64_t timeout_ns) {
    {
        const std::lock_guard lock(mutex_);
        if (!done_.empty()) return;
        asleep_ = true;
    }
    pollfd sources[2] = {{news_, POLLIN, 0}, {wake_, POLLIN, 0}};  // a negative one is skipped
    const timespec timeout{static_cast<time_t>(timeout_ns / 1'000'000'000),
                           static_cast<long>(timeout_ns % 1'000'000'000)};
    static_cast<void>(::ppoll(sources, 2, &timeout, nullptr));  // a signal just ends the wait
    {
        const std::lock_guard lock(mutex_);
        asleep_ = false;
    }
    std::uint64_t count = 0;
    static_cast<void>(!::read(news_, &count, sizeof count));  // empty when the wait timed out
}

void ThreadDiskImpl::work() {
    std::unique_lock lock(mutex_);
    while (true) {
        work_came_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        DiskRequest& request = waiting_.pop();
        lock.unlock();
        execute(request);
        lock.lock();
        done_.push(request);
        if (!asleep_) continue;
        asleep_ = false;  // one ring is enough
        const std::uint64_t one = 1;
        static_cast<void>(!::write(news_, &one, sizeof one));
    }
}

void ThreadDiskImpl::execute(DiskRequest& request) const {
    if (request.kind == DiskRequest::Kind::kSync) {
        int failed = ::fdatasync(files_.descriptor(request.file));
        while (failed != 0 && errno == EINTR) failed = ::fdatasync(files_.descriptor(request.file));
        request.result = failed == 0 ? 0 : -errno;
        return;
    }
    const auto moves_no_bytes = [&](int failed) {
        request.result = failed < 0 ? failed : static_cast<std::int64_t>(request.length_bytes);
    };
    switch (request.kind) {
        case DiskRequest::Kind::kPunch:
            return moves_no_bytes(
                files_.punch(request.file, request.offset_bytes, request.length_bytes));
        case DiskRequest::Kind::kExtend:
            return moves_no_bytes(
                files_.extend(request.file, request.offset_bytes, request.length_bytes));
        case DiskRequest::Kind::kCut:
            return moves_no_bytes(files_.cut(request.file, request.offset_bytes));
        case DiskRequest::Kind::kRead:
        case DiskRequest::Kind::kWrite:
        case DiskRequest::Kind::kGrow:
        case DiskRequest::Kind::kSync:
            break;
    }
    while (request.done_bytes < request.length_bytes) {
        const ssize_t moved = transfer_rest(request);
        if (moved < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (moved <= 0) {
            const bool read = request.kind == DiskRequest::Kind::kRead;
            request.result = moved < 0 ? -errno : read ? -ENODATA : -EIO;
            return;
        }
        request.done_bytes += static_cast<std::uint32_t>(moved);
    }
    request.result = request.length_bytes;
}

ssize_t ThreadDiskImpl::transfer_rest(const DiskRequest& request) const {
    const iovec rest{static_cast<std::byte*>(request.buffer) + request.done_bytes,
                     request.length_bytes - request.done_bytes};
    const int descriptor = files_.descriptor(request.file);
    const auto offset = static_cast<off_t>(request.offset_bytes + request.done_bytes);
    if (request.kind == DiskRequest::Kind::kRead) return ::preadv2(descriptor, &rest, 1, offset, 0);
    return ::pwritev2(descriptor, &rest, 1, offset, request.durable ? RWF_DSYNC : 0);
}

}  // namespace

Result<std::unique_ptr<Disk>> ThreadDisk::open(FileSet files, std::uint32_t thread_count) {
    CHECK(thread_count >= 1 && thread_count <= 64);
    const int news = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (news < 0) {
        return {Error::kUnsupported,
                "eventfd: " + std::generic_category().message(errno) + "; raise LimitNOFILE"};
    }
    auto disk = std::make_unique<ThreadDiskImpl>(std::move(files), news);
    disk->start(thread_count);
    return std::unique_ptr<Disk>(std::move(disk));
}

}  // namespace bidstore
