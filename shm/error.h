// One list of errors for daemon, clients and tool, and the Result that carries them.
//
// A CHECK is for our own mistakes; Result is for what the world or a peer does. Errors that cross
// shared memory travel as the number, so the numbers never change meaning.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "shm/base.h"

namespace bidstore {

enum class Error : std::uint32_t {
    kOk = 0,
    kNotFound = 1,            // no such row
    kExists = 2,              // insert of a key that is there
    kPrecondition = 3,        // a present/absent/equals precondition did not hold
    kBelowFloor = 4,          // an add would have gone below its floor
    kAboveCeiling = 5,        // an add would have gone above its ceiling
    kOutOfRange = 6,          // a value does not fit its column's type
    kSnapshotExpired = 7,     // the lease ended: take a new snapshot
    kTimedOut = 8,            // the deadline passed; a write's outcome is unknown
    kBusy = 9,                // ring, log or pool full for now: try again
    kDisconnected = 10,       // the daemon went away and did not come back in time
    kUnknownOutcome = 11,     // sent, never answered: applied or not
    kDenied = 12,             // the rights of this connection do not allow it
    kInvalid = 13,            // an argument makes no sense; the message says which
    kTooLarge = 14,           // row, transaction or key beyond its limit
    kNoSuchTable = 15,        // never made, or dropped
    kTableExists = 16,        // a table of that name is there
    kSchemaMismatch = 17,     // program and catalog differ; the message names the column
    kCorruption = 18,         // bytes read are not the bytes written
    kIoError = 19,            // the device refused; the message names file, offset and errno
    kNoSpace = 20,            // the file system or the configured size is full
    kReadOnly = 21,           // the store accepts no writes now
    kFenced = 22,             // the log failed: the daemon is going down to recover
    kStopping = 23,           // the daemon is shutting down
    kVersionMismatch = 24,    // client and daemon, or file and daemon, are of different versions
    kNotBidstore = 25,        // the file or segment is something else, or of another store
    kLocked = 26,             // another daemon owns the file
    kUnsupported = 27,        // this kernel or build cannot do it
    kProtocol = 28,           // the peer broke the protocol
    kNoSuchPage = 29,         // the page is free, or not yet published
    kSessionGap = 30,         // a write number was skipped
    kTooManyClients = 31,     // the daemon's limit of connections is reached
};
inline constexpr std::uint32_t kErrorCount = 32;

// The name without its k, for logs and JSON: "NotFound".
std::string_view error_name(Error error);

struct Failure {
    Error code = Error::kOk;
    std::string what;  // names the thing and the remedy, for people
};

// A value or a failure. Not for hot paths that fail often: the message may allocate. Asking for the
// one that is not there ends the process.
//
// A plain union: std::variant does the same, and half of a debug build went into instantiating it
// for every T.
template <class T>
class [[nodiscard]] Result {
  public:
    Result(T value) : ok_(true) { std::construct_at(&value_, std::move(value)); }
    Result(Failure failure) : ok_(false) { std::construct_at(&failure_, std::move(failure)); }
    Result(Error code, std::string what) : Result(Failure{code, std::move(what)}) {}
    Result(Result&& other) noexcept : ok_(other.ok_) { construct_from(std::move(other)); }
    Result(const Result& other) requires std::copy_constructible<T> : ok_(other.ok_) {
        construct_from(other);
    }
    Result& operator=(Result&& other) noexcept {
        if (this == &other) return *this;
        destroy();
        ok_ = other.ok_;
        construct_from(std::move(other));
        return *this;
    }
    Result& operator=(const Result& other) requires std::copy_constructible<T> {
        return *this = Result(other);
    }
    ~Result() { destroy(); }

    bool ok() const { return ok_; }
    explicit operator bool() const { return ok_; }
    T& operator*() {
        CHECK(ok_);
        return value_;
    }
    const T& operator*() const {
        CHECK(ok_);
        return value_;
    }
    T* operator->() { return &**this; }
    const T* operator->() const { return &**this; }
    Error error() const { return ok_ ? Error::kOk : failure_.code; }
    const Failure& failure() const {
        CHECK(!ok_);
        return failure_;
    }

  private:
    template <class Other>
    void construct_from(Other&& other) {
        if (ok_) {
            std::construct_at(&value_, std::forward<Other>(other).value_);
        } else {
            std::construct_at(&failure_, std::forward<Other>(other).failure_);
        }
    }
    void destroy() {
        if (ok_) {
            std::destroy_at(&value_);
        } else {
            std::destroy_at(&failure_);
        }
    }

    union {
        T value_;
        Failure failure_;
    };
    bool ok_;
};

template <>
class [[nodiscard]] Result<void> {
  public:
    Result() = default;
    Result(Failure failure) : failure_(std::move(failure)) {}
    Result(Error code, std::string what) : failure_{code, std::move(what)} {}

    bool ok() const { return failure_.code == Error::kOk; }
    explicit operator bool() const { return ok(); }
    Error error() const { return failure_.code; }
    const Failure& failure() const { return failure_; }

  private:
    Failure failure_;
};
using Status = Result<void>;

}  // namespace bidstore
