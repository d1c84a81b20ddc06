#include "clientlib/compact.h"

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "clientlib/attach.h"

namespace bidstore {
namespace {

Failure step_failure(const Answer& answer) {
    switch (answer.error) {
        case Error::kBusy:
            return {Error::kBusy, "another client compacts this store: one at a time; try again "
                                  "later (one that asks for no step for ten minutes is given up "
                                  "then)"};
        case Error::kDenied:
            return {Error::kDenied, "compaction needs the rights of an admin"};
        case Error::kCorruption:
            if (answer.failed_operation == kNoOperation) break;
            return {answer.error, "page " + std::to_string(answer.failed_operation) +
                                      " is damaged or nobody's: compaction stopped there; verify "
                                      "the store (bidstored --verify) and restore a backup"};
        case Error::kIoError:
            if (answer.failed_operation == kNoOperation) break;
            return {answer.error, "page " + std::to_string(answer.failed_operation) +
                                      " could not be read, or not be written elsewhere: compaction "
                                      "stopped there and nothing is lost; the daemon's log names "
                                      "the place; look at the device, then run it again"};
        case Error::kTimedOut:
            return {answer.error, "no step was asked for in ten minutes, while others waited for "
                                  "what a compaction keeps, so the daemon gave this one up; what "
                                  "was moved stays moved: run it again"};
        default:
            break;
    }
    return {answer.error, "compaction was refused: " + std::string(error_name(answer.error))};
}

CompactionStep step_of(const Answer& answer) {
    const auto value = [&](CompactResult which) {
        return answer.result[static_cast<std::uint32_t>(which)];
    };
    const auto count = [&](CompactResult which) {
        return static_cast<std::uint64_t>(value(which));
    };
    CompactionStep step;
    step.state = static_cast<CompactState>(value(CompactResult::kState));
    step.moved = count(CompactResult::kMoved);
    step.looked = count(CompactResult::kLooked);
    step.left = count(CompactResult::kLeft);
    step.given_back = count(CompactResult::kGivenBack);
    step.file_bytes = count(CompactResult::kFileBytes);
    step.stays = value(CompactResult::kStays) >= 0;
    step.table = TableId{static_cast<std::uint32_t>(value(CompactResult::kStaysFor))};
    return step;
}

}  // namespace

Compaction::Compaction(std::shared_ptr<Connection> connection)
    : connection_(std::move(connection)) {}
Compaction::Compaction(Compaction&&) noexcept = default;
Compaction& Compaction::operator=(Compaction&&) noexcept = default;
Compaction::~Compaction() = default;

Result<Compaction> Compaction::begin(const AttachOptions& options, Deadline deadline) {
    AttachOptions as_admin = options;
    as_admin.rights = Rights::kAdmin;
    auto connection =
        connect_to_daemon(as_admin, SessionBytes{}, options.wait_for_daemon, deadline);
    if (!connection.ok()) return connection.failure();
    return Compaction(std::move(*connection));
}

Result<CompactionStep> Compaction::step(std::uint32_t pages, Deadline deadline) {
    const CompactRequest request{pages, 0};
    const std::optional<Call> call = connection_->claim_call();
    if (!call || !connection_->post(RecordKind::kCompact, std::as_bytes(std::span(&request, 1)),
                                    *call, 0, 0)) {
        return {Error::kBusy, "compaction: no room in the ring of this process"};
    }
    while (!connection_->wait_slice(*call, deadline)) {
        if (connection_->hung_up()) {
            return {Error::kDisconnected,
                    "the daemon ended the connection; what was moved stays moved: run it again"};
        }
        if (std::chrono::steady_clock::now() < deadline) continue;
        connection_->forget_call(*call);
        return {Error::kTimedOut, "a step of the compaction had no answer before the deadline"};
    }
    const Answer answer = connection_->answer(*call);
    connection_->release_call(*call);
    if (answer.error != Error::kOk) return step_failure(answer);
    if (answer.result_count < kCompactResults) {
        return {Error::kProtocol, "the daemon answered a step of the compaction with too little"};
    }
    return step_of(answer);
}

}  // namespace bidstore
