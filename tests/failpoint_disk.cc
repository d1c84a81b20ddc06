#include "tests/failpoint_disk.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "engine/format.h"
#include "shm/base.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kLookForHoldNs = 1'000'000;
constexpr std::uint64_t kSuperblocksEnd = 2 * kPageBytes;  // both copies

[[noreturn]] void die() {
    ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();
}

DiskStep step_of(const DiskRequest& request) {
    using Kind = DiskRequest::Kind;
    if (request.kind == Kind::kGrow || request.kind == Kind::kExtend) return DiskStep::kGrow;
    if (request.kind == Kind::kPunch) return DiskStep::kPunch;
    if (request.kind == Kind::kCut) return DiskStep::kCut;
    const auto one_of = [&](DiskStep read, DiskStep write, DiskStep sync) {
        if (request.kind == Kind::kRead) return read;
        return request.kind == Kind::kWrite ? write : sync;
    };
    if (request.file == StoreFile::kLog) {
        return one_of(DiskStep::kLogRead, DiskStep::kLogWrite, DiskStep::kLogSync);
    }
    if (request.file == StoreFile::kJournal) {
        return one_of(DiskStep::kJournalRead, DiskStep::kJournalWrite, DiskStep::kJournalSync);
    }
    const bool superblock = request.offset_bytes < kSuperblocksEnd;
    return one_of(DiskStep::kPageRead,
                  superblock ? DiskStep::kSuperblockWrite : DiskStep::kPageWrite,
                  DiskStep::kDataSync);
}

template <class Names>
std::size_t index_of(const Names& names, const std::string& name) {
    const auto found = std::find(names.begin(), names.end(), name);
    CHECK(found != names.end());  // the test wrote it by text()
    return static_cast<std::size_t>(found - names.begin());
}

}  // namespace

std::string Failpoint::text() const {
    return std::string(kDiskStepNames[static_cast<std::size_t>(step)]) + ' ' +
           std::to_string(number) + ' ' +
           std::string(kDiskMomentNames[static_cast<std::size_t>(moment)]);
}

Failpoint Failpoint::parse(const std::string& text) {
    std::istringstream words(text);
    std::string step;
    std::string moment;
    Failpoint failpoint;
    if (!(words >> step >> failpoint.number >> moment)) return {};
    failpoint.step = static_cast<DiskStep>(index_of(kDiskStepNames, step));
    failpoint.moment = static_cast<DiskMoment>(index_of(kDiskMomentNames, moment));
    return failpoint;
}

FailpointDisk::FailpointDisk(std::unique_ptr<Disk> below, std::string directory)
    : below_(std::move(below)), directory_(std::move(directory)) {
    std::ifstream file(directory_ + "/failpoint");
    std::string line;
    if (std::getline(file, line)) failpoint_ = Failpoint::parse(line);
}

// Whether this operation, which is counted, is the one.
bool FailpointDisk::hit(DiskStep step) {
    const std::uint64_t of_all = ++counted_[static_cast<std::size_t>(DiskStep::kAny)];
    const std::uint64_t of_kind = ++counted_[static_cast<std::size_t>(step)];
    if (failpoint_.number == 0) return false;
    if (failpoint_.step == DiskStep::kAny) return of_all == failpoint_.number;
    return failpoint_.step == step && of_kind == failpoint_.number;
}

bool FailpointDisk::is_held(DiskStep step) {
    std::ifstream hold(directory_ + "/hold");
    std::string name;
    if (!(hold >> name) || index_of(kDiskStepNames, name) != static_cast<std::size_t>(step)) {
        return false;
    }
    std::ofstream(directory_ + "/held");
    return true;
}

// The errno that this operation fails with; 0: it does not.
int FailpointDisk::error_of(DiskStep step) {
    std::ifstream file(directory_ + "/fail");
    std::string line;
    std::getline(file, line);
    if (line != fail_) fail_counted_ = 0;
    fail_ = line;
    std::istringstream words(line);
    std::string name;
    int number = 0;
    if (!(words >> name >> number)) return 0;
    if (index_of(kDiskStepNames, name) != static_cast<std::size_t>(step)) return 0;
    std::uint64_t nth = 0;
    if (words >> nth) {
        std::string on;
        const bool and_later = words >> on && on == "on";
        if (++fail_counted_ < nth || (fail_counted_ > nth && !and_later)) return 0;
    }
    std::ofstream(directory_ + "/failed");
    return number;
}

void FailpointDisk::submit(DiskRequest& request) {
    const DiskStep step = step_of(request);
    if (hit(step)) return submit_last(request);
    if (const int number = error_of(step); number != 0) {
        request.in_flight = true;
        request.result = -number;
        failed_.push_back(&request);
        return;
    }
    if (!is_held(step)) return below_->submit(request);
    request.in_flight = true;
    held_.push_back(&request);
}

int FailpointDisk::run_failed() {
    int run = 0;
    for (DiskRequest* request : std::exchange(failed_, {})) {
        request->in_flight = false;
        ++run;
        if (request->completed) request->completed(*request, request->context);
    }
    return run;
}

void FailpointDisk::submit_last(DiskRequest& request) {
    if (failpoint_.moment == DiskMoment::kBefore) die();
    DiskRequest* last = &request;
    if (failpoint_.moment == DiskMoment::kHalf) {
        const auto pages = static_cast<std::uint32_t>(request.length_bytes / kPageBytes / 2);
        if (request.kind != DiskRequest::Kind::kWrite || pages == 0) die();
        half_ = request;
        half_.length_bytes = pages * kPageBytes;
        request.in_flight = true;  // for ever
        last = &half_;
    }
    completed_ = std::exchange(last->completed, [](DiskRequest& completed, void* disk) {
        static_cast<FailpointDisk*>(disk)->on_last(completed);
    });
    context_ = std::exchange(last->context, this);
    below_->submit(*last);
}

void FailpointDisk::on_last(DiskRequest& request) {
    if (failpoint_.moment == DiskMoment::kHalf || failpoint_.moment == DiskMoment::kDone) die();
    request.completed = completed_;
    request.context = context_;
    completed_(request, context_);
    if (failpoint_.moment == DiskMoment::kTaken) die();
    last_round_ = true;
}

int FailpointDisk::poll(std::uint64_t timeout_ns) {
    if (last_round_) die();
    if (!failed_.empty()) return run_failed();
    if (held_.empty()) return below_->poll(timeout_ns);
    if (!std::filesystem::exists(directory_ + "/hold")) {
        for (DiskRequest* request : std::exchange(held_, {})) {
            request->in_flight = false;
            below_->submit(*request);
        }
    }
    return below_->poll(std::min(timeout_ns, kLookForHoldNs));
}

Status FailpointDisk::resize(StoreFile file, std::uint64_t size_bytes) {
    const bool last = hit(DiskStep::kResize);
    if (last && failpoint_.moment < DiskMoment::kDone) die();
    Status status = below_->resize(file, size_bytes);
    if (last) die();
    return status;
}

}  // namespace bidstore
