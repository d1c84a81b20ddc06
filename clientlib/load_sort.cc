#include "clientlib/load_sort.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <queue>
#include <utility>

#include "engine/page/key.h"

namespace bidstore {
namespace {

constexpr std::size_t kWriteBytes = 1u << 20;
constexpr std::size_t kReadBytes = 256u << 10;
constexpr std::uint64_t kLeftOut = 4096;  // rows, between two calls of meanwhile_
constexpr std::size_t kValueLengthBytes = sizeof(std::uint32_t);  // see value_length()

std::uint32_t value_length(const std::byte* row) {
    std::uint32_t length = 0;
    std::memcpy(&length, row, sizeof length);
    return length;
}

Failure file_failure(const std::string& directory, const char* what) {
    const int number = errno;
    if (number == EMFILE) {
        return {Error::kTooLarge,
                "sorting: as many temporary files as this process may have open (ulimit -n) are "
                "not enough for so many rows: raise --memory, or that limit"};
    }
    return {number == ENOSPC ? Error::kNoSpace : Error::kIoError,
            "sorting: " + std::string(what) + " a temporary file in " + directory + ": " +
                std::strerror(number) + "; name another directory with --temp-dir"};
}

Failure lost_rows(const std::string& directory, const std::string& what) {
    return {Error::kIoError, "sorting: " + what + " of a temporary file in " + directory +
                                 "; look at that file system, or name another directory with "
                                 "--temp-dir"};
}

}  // namespace

// A sorted run: written once, then read once from its beginning.
class RowSorter::Run {
  public:
    explicit Run(int descriptor) : descriptor_(descriptor) {}
    ~Run() { ::close(descriptor_); }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    bool write(std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            const ssize_t done = ::write(descriptor_, bytes.data(), bytes.size());
            if (done < 0 && errno == EINTR) continue;
            if (done < 0) return false;
            const auto count = static_cast<std::size_t>(done);
            left_bytes_ += count;
            written_crc_ = crc32c(bytes.data(), count, written_crc_);
            bytes = bytes.subspan(count);
        }
        return true;
    }
    bool rewind() { return ::lseek(descriptor_, 0, SEEK_SET) == 0; }

    // The next row (length, key, value), valid until the next call; nullptr at the end, or with
    // failed() set. Rows are to be believed when the end was reached without it.
    const std::byte* next(std::uint32_t key_bytes) {
        position_ += row_bytes_;
        row_bytes_ = 0;
        if (!have(kValueLengthBytes + key_bytes)) return nullptr;
        const std::size_t whole = kValueLengthBytes + key_bytes + value_length(at());
        if (whole > end_ - position_ + left_bytes_) {  // of no row that was written
            fail(Fault::kChanged);
            return nullptr;
        }
        if (!have(whole)) return nullptr;
        row_bytes_ = whole;
        return at();
    }
    const std::byte* at() const { return buffer_.data() + position_; }
    bool failed() const { return fault_ != Fault::kNone; }
    // failed() that way: the file ended before what was written to it.
    bool cut_short() const { return fault_ == Fault::kCutShort; }
    // failed() that way: other bytes came back than were written.
    bool changed() const { return fault_ == Fault::kChanged; }

  private:
    enum class Fault : std::uint8_t { kNone, kSystem, kCutShort, kChanged };
    bool fail(Fault fault) {
        fault_ = fault;
        return false;
    }
    // Whether so many bytes are in the buffer from position_ on, after reading more.
    bool have(std::size_t bytes) {
        if (end_ - position_ >= bytes) return true;
        if (buffer_.size() < std::max(kReadBytes, bytes)) {
            buffer_.resize(std::max(kReadBytes, bytes));
        }
        std::memmove(buffer_.data(), buffer_.data() + position_, end_ - position_);
        end_ -= position_;
        position_ = 0;
        while (end_ < bytes) {
            const ssize_t got = ::read(descriptor_, buffer_.data() + end_, buffer_.size() - end_);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return fail(Fault::kSystem);
            if (got == 0) {
                if (left_bytes_ > 0 || end_ > 0) return fail(Fault::kCutShort);
                return read_crc_ == written_crc_ ? false : fail(Fault::kChanged);
            }
            const auto count = static_cast<std::size_t>(got);
            read_crc_ = crc32c(buffer_.data() + end_, count, read_crc_);
            left_bytes_ -= std::min<std::uint64_t>(left_bytes_, count);
            end_ += count;
        }
        return true;
    }

    const int descriptor_;
    std::vector<std::byte> buffer_;
    std::size_t position_ = 0;
    std::size_t end_ = 0;
    std::size_t row_bytes_ = 0;
    std::uint64_t left_bytes_ = 0;  // written, and not read yet
    std::uint32_t written_crc_ = 0;  // CRC-32C of all that was written
    std::uint32_t read_crc_ = 0;     // and of what was read so far
    Fault fault_ = Fault::kNone;
};

RowSorter::RowSorter(std::uint32_t key_bytes, std::uint64_t memory_bytes, std::string directory,
                     bool last_wins, Meanwhile meanwhile)
    : key_bytes_(key_bytes),
      memory_bytes_(std::max<std::uint64_t>(memory_bytes, 1u << 20)),
      directory_(std::move(directory)),
      last_wins_(last_wins),
      meanwhile_(std::move(meanwhile)) {}
RowSorter::~RowSorter() = default;

Status RowSorter::add(std::span<const std::byte> key, std::span<const std::byte> value) {
    const std::size_t bytes = kValueLengthBytes + key.size() + value.size();
    const std::uint64_t used = rows_.size() + index_.size() * sizeof(Row);
    if (!index_.empty() && used + bytes + sizeof(Row) > memory_bytes_) {
        if (Status spilled = spill(); !spilled) return spilled;
    }
    // Reserved once, so that growing never holds the rows twice.
    if (rows_.capacity() == 0) {
        rows_.reserve(memory_bytes_);
        index_.reserve(memory_bytes_ / 64);
    }
    ++rows_in_;
    index_.push_back({key_head(key.data(), key_bytes_), rows_.size()});
    const auto length = static_cast<std::uint32_t>(value.size());
    const auto length_bytes = std::as_bytes(std::span(&length, 1));
    rows_.insert(rows_.end(), length_bytes.begin(), length_bytes.end());
    rows_.insert(rows_.end(), key.begin(), key.end());
    rows_.insert(rows_.end(), value.begin(), value.end());
    return {};
}

// By key, then by arrival: the last of equal ones came last.
bool RowSorter::less(const Row& left, const Row& right) const {
    if (left.head != right.head) return left.head < right.head;
    if (key_bytes_ > 8) {
        const int order =
            compare_keys(rows_.data() + left.offset + kValueLengthBytes + 8,
                         rows_.data() + right.offset + kValueLengthBytes + 8, key_bytes_ - 8);
        if (order != 0) return order < 0;
    }
    return left.offset < right.offset;
}

Status RowSorter::sort() {
    if (Status go_on = meanwhile_(); !go_on) return go_on;
    const auto in_order = [this](const Row& left, const Row& right) { return less(left, right); };
    if (!std::is_sorted(index_.begin(), index_.end(), in_order)) {
        std::sort(index_.begin(), index_.end(), in_order);
    }
    return meanwhile_();
}

Status RowSorter::spill() {
    const int descriptor = ::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (descriptor < 0) return file_failure(directory_, "making");
    runs_.push_back(std::make_unique<Run>(descriptor));
    Run& run = *runs_.back();
    if (Status sorted = sort(); !sorted) return sorted;
    std::vector<std::byte> out;
    out.reserve(kWriteBytes + kReadBytes);
    for (const Row& row : index_) {
        const std::byte* from = rows_.data() + row.offset;
        out.insert(out.end(), from, from + kValueLengthBytes + key_bytes_ + value_length(from));
        if (out.size() < kWriteBytes) continue;
        if (!run.write(out)) return file_failure(directory_, "writing");
        out.clear();
        if (Status go_on = meanwhile_(); !go_on) return go_on;
    }
    if (!run.write(out) || !run.rewind()) return file_failure(directory_, "writing");
    rows_.clear();
    index_.clear();
    return {};
}

Failure RowSorter::twice(const std::byte* key) const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (std::uint32_t i = 0; i < key_bytes_; ++i) {
        const auto byte = static_cast<unsigned>(key[i]);
        text += {kDigits[byte >> 4], kDigits[byte & 15]};
    }
    return {Error::kExists, "the key " + text + " is there twice; with --last-wins the last row of "
                            "a key is loaded"};
}

Status RowSorter::drain(const Take& take) {
    if (runs_.empty()) return drain_memory(take);
    if (!index_.empty()) {
        if (Status spilled = spill(); !spilled) return spilled;
    }
    rows_ = {};
    index_ = {};
    return merge(take);
}

Status RowSorter::drain_memory(const Take& take) {
    if (Status sorted = sort(); !sorted) return sorted;
    for (std::size_t i = 0; i < index_.size(); ++i) {
        const std::byte* row = rows_.data() + index_[i].offset;
        const std::byte* key = row + kValueLengthBytes;
        if (i + 1 < index_.size()) {
            const std::byte* next = rows_.data() + index_[i + 1].offset + kValueLengthBytes;
            if (keys_equal(key, next, key_bytes_)) {
                if (!last_wins_) return twice(key);
                continue;
            }
        }
        if (Status taken = take({key, key_bytes_}, {key + key_bytes_, value_length(row)}); !taken) {
            return taken;
        }
    }
    return {};
}

Status RowSorter::merge(const Take& take) {
    using Entry = std::pair<const std::byte*, std::size_t>;  // row, index of its run
    const auto later = [this](const Entry& left, const Entry& right) {
        const int order = compare_keys(left.first + kValueLengthBytes,
                                       right.first + kValueLengthBytes, key_bytes_);
        return order != 0 ? order > 0 : left.second > right.second;
    };
    std::priority_queue<Entry, std::vector<Entry>, decltype(later)> heads(later);
    const auto push = [&](std::size_t run) -> Status {
        if (const std::byte* row = runs_[run]->next(key_bytes_)) {
            heads.emplace(row, run);
        } else if (runs_[run]->cut_short()) {
            return lost_rows(directory_, "the end is missing");
        } else if (runs_[run]->changed()) {
            return lost_rows(directory_, "other bytes came back than were written, out");
        } else if (runs_[run]->failed()) {
            return file_failure(directory_, "reading");
        }
        return {};
    };
    for (std::size_t run = 0; run < runs_.size(); ++run) {
        if (Status pushed = push(run); !pushed) return pushed;
    }
    std::uint64_t rows_out = 0;
    std::uint64_t left_out = 0;
    std::vector<std::byte> waiting;  // the row before, until the next one has another key
    const auto give = [&]() -> Status {
        if (waiting.empty()) return {};
        const std::byte* key = waiting.data() + kValueLengthBytes;
        return take({key, key_bytes_}, {key + key_bytes_, value_length(waiting.data())});
    };
    while (!heads.empty()) {
        const auto [row, run] = heads.top();
        heads.pop();
        ++rows_out;
        const std::byte* key = row + kValueLengthBytes;
        const bool same =
            !waiting.empty() && keys_equal(waiting.data() + kValueLengthBytes, key, key_bytes_);
        if (same && !last_wins_) return twice(key);
        if (!same) {
            if (Status given = give(); !given) return given;
        } else if (++left_out % kLeftOut == 0) {
            if (Status go_on = meanwhile_(); !go_on) return go_on;
        }
        waiting.assign(row, row + kValueLengthBytes + key_bytes_ + value_length(row));
        if (Status pushed = push(run); !pushed) return pushed;
    }
    if (rows_out != rows_in_) {
        return lost_rows(directory_, std::to_string(rows_out) + " rows came, not " +
                                         std::to_string(rows_in_) + ", out");
    }
    return give();
}

}  // namespace bidstore
