#include "shm/error.h"

#include <array>

namespace bidstore {
namespace {

// In the order of the numbers; a name without a number, or a number without a name, does not build.
constexpr std::array<std::string_view, kErrorCount> kErrorNames{
    "Ok",           "NotFound",       "Exists",          "Precondition", "BelowFloor",
    "AboveCeiling", "OutOfRange",     "SnapshotExpired", "TimedOut",     "Busy",
    "Disconnected", "UnknownOutcome", "Denied",          "Invalid",      "TooLarge",
    "NoSuchTable",  "TableExists",    "SchemaMismatch",  "Corruption",   "IoError",
    "NoSpace",      "ReadOnly",       "Fenced",          "Stopping",     "VersionMismatch",
    "NotBidstore",  "Locked",         "Unsupported",     "Protocol",     "NoSuchPage",
    "SessionGap",   "TooManyClients"};
static_assert(!kErrorNames.back().empty(), "an error has no name");
static_assert(static_cast<std::uint32_t>(Error::kTooManyClients) == kErrorCount - 1);

}  // namespace

std::string_view error_name(Error error) {
    // Errors arrive as numbers from other processes, so a number without a name is not our mistake.
    const auto index = static_cast<std::uint32_t>(error);
    return index < kErrorNames.size() ? kErrorNames[index] : "Unknown";
}

}  // namespace bidstore
