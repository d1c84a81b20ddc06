#include "clientlib/load_rows.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "shm/message.h"

namespace bidstore {
namespace {

constexpr std::size_t kBufferBytes = 512u << 10;
constexpr std::size_t kLengthBytes = sizeof(std::uint32_t);

// All of it, or what is there before the end; -1 with errno.
ssize_t read_whole(int descriptor, std::byte* to, std::size_t length) {
    std::size_t done = 0;
    while (done < length) {
        const ssize_t got = ::read(descriptor, to + done, length - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) break;
        done += static_cast<std::size_t>(got);
    }
    return static_cast<ssize_t>(done);
}

}  // namespace

Result<std::uint64_t> rows_fingerprint(const Schema& schema) {
    auto nameless = Schema::make("rows", schema.columns(), schema.key_columns(),
                                 schema.time_column(), schema.time_unit());
    if (!nameless) return nameless.failure();
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const char letter : nameless->encode()) {
        hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3;
    }
    return hash;
}

Result<RowsHeader> rows_header(const Schema& schema, std::uint64_t rows, bool sorted,
                               std::uint64_t rows_bytes) {
    auto fingerprint = rows_fingerprint(schema);
    if (!fingerprint) return fingerprint.failure();
    RowsHeader header{};
    header.magic = kRowsMagic;
    header.version = kRowsVersion;
    header.flags = sorted ? kRowsSorted : 0;
    header.key_bytes = schema.key_bytes();
    header.value_bytes = schema.fixed_bytes();
    header.rows = rows;
    header.schema_fingerprint = *fingerprint;
    header.rows_bytes = schema.has_variable() ? rows_bytes : 0;
    return header;
}

// Not opened unless it is a file: whoever writes into a pipe sees each open and close of it.
bool RowsFile::looks_like_one(const std::string& path) {
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) return false;
    const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!descriptor) return false;
    std::uint64_t magic = 0;
    return ::pread(descriptor.number(), &magic, sizeof magic, 0) == ssize_t{sizeof magic} &&
           magic == kRowsMagic;
}

// ---- opening ------------------------------------------------------------------------------------

RowsFile::RowsFile(std::string path, Descriptor descriptor, const Schema& schema)
    : path_(std::move(path)), descriptor_(std::move(descriptor)), schema_(schema) {}

Result<RowsFile> RowsFile::open(const std::string& path, const Schema& schema) {
    Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!descriptor) return {Error::kIoError, path + ": " + std::strerror(errno)};
    RowsFile file(path, std::move(descriptor), schema);
    if (Status checked = file.check_header(); !checked) return checked.failure();
    if (Status checked = file.check_length(); !checked) return checked.failure();
    file.unread_ = file.bytes_total_;
    file.buffer_.resize(file.has_variable()
                            ? kBufferBytes
                            : std::max(kBufferBytes / file.row_bytes(), std::size_t{1}) *
                                  file.row_bytes());
    return file;
}

Status RowsFile::check_header() {
    auto wanted = rows_header(schema_, 0, false);
    if (!wanted) return wanted.failure();
    auto* to = static_cast<std::byte*>(static_cast<void*>(&header_));
    const ssize_t got = read_whole(descriptor_.number(), to, sizeof header_);
    if (got != ssize_t{sizeof header_} || header_.magic != kRowsMagic) {
        return {Error::kInvalid, path_ + ": not a file of binary rows"};
    }
    if (header_.version != kRowsVersion) {
        return {Error::kVersionMismatch, path_ + ": binary rows of version " +
                                             std::to_string(header_.version) +
                                             ", this program knows version 1"};
    }
    if (header_.key_bytes != wanted->key_bytes || header_.value_bytes != wanted->value_bytes ||
        header_.schema_fingerprint != wanted->schema_fingerprint) {
        return {Error::kSchemaMismatch,
                path_ + ": its rows are not those of table " + schema_.name() +
                    ": columns, key or time column differ; write the file anew for this table"};
    }
    const bool zeros = std::ranges::all_of(header_.reserved, [](auto byte) { return byte == 0; });
    if (!zeros || (header_.rows_bytes != 0 && !has_variable())) {
        return {Error::kInvalid, path_ + ": its header has bytes where version 1 has zeros"};
    }
    return {};
}

// Of a pipe nobody knows the length beforehand.
Status RowsFile::check_length() {
    bytes_total_ = header_.rows_bytes;
    if (!has_variable() && __builtin_mul_overflow(header_.rows, row_bytes(), &bytes_total_)) {
        return {Error::kInvalid, path_ + ": its header promises more bytes than a file can have"};
    }
    const std::uint64_t needed = sizeof header_ + bytes_total_;
    struct stat found {};
    if (::fstat(descriptor_.number(), &found) != 0 || !S_ISREG(found.st_mode)) return {};
    const auto has = static_cast<std::uint64_t>(found.st_size);
    if (has == needed) return {};
    return {Error::kInvalid, path_ + ": has " + std::to_string(has) +
                                 " bytes where its header promises " + std::to_string(needed)};
}

// ---- reading ------------------------------------------------------------------------------------

Result<std::span<const std::byte>> RowsFile::next() {
    // What is there of a row that the buffer cut goes to its front.
    std::memmove(buffer_.data(), buffer_.data() + given_, end_ - given_);
    end_ -= given_;
    given_ = 0;
    while (rows_read_ < header_.rows) {
        if (Status filled = fill(); !filled) return filled.failure();
        std::size_t wanted = 0;
        if (Status whole = split(wanted); !whole) return whole.failure();
        if (given_ > 0) return std::span<const std::byte>(buffer_.data(), given_);
        if (unread_ == 0) return wrong_row("goes on behind the end of all rows");
        if (wanted > buffer_.size()) buffer_.resize(wanted);
    }
    if (end_ > 0 || unread_ > 0) {
        return {Error::kInvalid, path_ + ": has more bytes of rows than its " +
                                     std::to_string(header_.rows) + " rows"};
    }
    return std::span<const std::byte>{};
}

Status RowsFile::fill() {
    const std::size_t bytes = std::min<std::uint64_t>(buffer_.size() - end_, unread_);
    const ssize_t got = read_whole(descriptor_.number(), buffer_.data() + end_, bytes);
    if (got < 0) return {Error::kIoError, path_ + ": " + std::strerror(errno)};
    unread_ -= static_cast<std::uint64_t>(got);
    end_ += static_cast<std::size_t>(got);
    if (static_cast<std::size_t>(got) == bytes) return {};
    return {Error::kInvalid, path_ + ": ends after " + std::to_string(bytes_read()) + " of " +
                                 std::to_string(bytes_total_) + " bytes of rows"};
}

// Counts the whole rows of the buffer as given out. `wanted`: bytes of the one behind them, as far
// as it tells.
Status RowsFile::split(std::size_t& wanted) {
    wanted = row_bytes();
    if (!has_variable()) {
        const std::size_t rows = end_ / wanted;
        given_ = rows * wanted;
        rows_read_ += rows;
        return {};
    }
    for (; rows_read_ < header_.rows; ++rows_read_) {
        const std::byte* at = buffer_.data() + given_;
        wanted = kLengthBytes + header_.key_bytes;
        if (end_ - given_ < wanted) return {};
        std::uint32_t value_bytes = 0;
        std::memcpy(&value_bytes, at, sizeof value_bytes);
        if (value_bytes > kTransactionBytesMax) {
            return wrong_row("has a value of " + std::to_string(value_bytes) +
                             " bytes, if it were right: more than a row can have");
        }
        const std::span<const std::byte> value(at + wanted, value_bytes);
        wanted += value_bytes;
        if (end_ - given_ < wanted) return {};
        if (!schema_.valid_value(value)) {
            return wrong_row("has a value of " + std::to_string(value_bytes) +
                             " bytes that is none of table " + schema_.name() +
                             ": the lengths in it do not fit its columns");
        }
        given_ += wanted;
    }
    return {};
}

PackedRow take_row(const Schema& schema, std::span<const std::byte>& rows) {
    const std::size_t key_bytes = schema.key_bytes();
    std::uint32_t value_bytes = schema.fixed_bytes();
    std::size_t key_at = 0;
    if (schema.has_variable()) {
        std::memcpy(&value_bytes, rows.data(), sizeof value_bytes);
        key_at = kLengthBytes;
    }
    const PackedRow row{rows.subspan(key_at, key_bytes),
                        rows.subspan(key_at + key_bytes, value_bytes)};
    rows = rows.subspan(key_at + key_bytes + value_bytes);
    return row;
}

Failure RowsFile::wrong_row(const std::string& what) const {
    return {Error::kInvalid, path_ + ": row " + std::to_string(rows_read_ + 1) + " of " +
                                 std::to_string(header_.rows) + " " + what};
}

}  // namespace bidstore
