#include "clientlib/tool_options.h"

#include <cstdio>

#include "clientlib/tool_output.h"

namespace bidstore {

ToolExit exit_code(Error error) {
    switch (error) {
        case Error::kOk: return kExitOk;
        case Error::kNotFound:
        case Error::kNoSuchTable: return kExitNotFound;
        case Error::kInvalid: return kExitUsage;
        case Error::kTimedOut:
        case Error::kDisconnected:
        case Error::kBusy:
        case Error::kStopping:
        case Error::kUnknownOutcome:
        case Error::kSnapshotExpired: return kExitUnreachable;
        case Error::kExists:
        case Error::kPrecondition:
        case Error::kBelowFloor:
        case Error::kAboveCeiling:
        case Error::kOutOfRange:
        case Error::kDenied:
        case Error::kTooLarge:
        case Error::kTableExists:
        case Error::kSchemaMismatch:
        case Error::kReadOnly:
        case Error::kVersionMismatch:
        case Error::kUnsupported:
        case Error::kLocked:
        case Error::kSessionGap:
        case Error::kTooManyClients: return kExitRefused;
        case Error::kCorruption:
        case Error::kIoError:
        case Error::kNoSpace:
        case Error::kFenced:
        case Error::kNotBidstore:
        case Error::kProtocol:
        case Error::kNoSuchPage: return kExitIo;
    }
    return kExitIo;
}

Result<Store> ToolOptions::attach(Rights rights) const {
    AttachOptions options;
    options.socket = socket;
    options.rights = rights;
    return Store::attach(options, deadline());
}

int ToolOptions::fail(const Failure& failure) const {
    if (json) {
        JsonLine line;
        line.text("error", error_name(failure.code)).text("message", failure.what);
        std::fprintf(stderr, "%s\n", line.str().c_str());
    } else {
        std::fprintf(stderr, "bidstore: %s\n", failure.what.c_str());
    }
    return exit_code(failure.code);
}

}  // namespace bidstore
