#include "clientlib/load_rows.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace bidstore {
namespace {

constexpr std::size_t kBufferBytes = 512u << 10;

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

Result<RowsHeader> rows_header(const Schema& schema, std::uint64_t rows, bool sorted) {
    if (schema.has_variable()) {
        return {Error::kInvalid, schema.name() + ": binary rows have a fixed size, and this table "
                                                 "has variable-length columns: load JSON or CSV"};
    }
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
    return header;
}

bool RowsFile::looks_like_one(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    std::uint64_t magic = 0;
    const bool read = read_whole(descriptor, static_cast<std::byte*>(static_cast<void*>(&magic)),
                                 sizeof magic) == sizeof magic;
    ::close(descriptor);
    return read && magic == kRowsMagic;
}

Result<RowsFile> RowsFile::open(const std::string& path, const Schema& schema) {
    auto wanted = rows_header(schema, 0, false);
    if (!wanted) return wanted.failure();
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return {Error::kIoError, path + ": " + std::strerror(errno)};
    RowsHeader header{};
    RowsFile file(path, descriptor, header);
    auto* to = static_cast<std::byte*>(static_cast<void*>(&file.header_));
    if (read_whole(descriptor, to, sizeof header) != static_cast<ssize_t>(sizeof header) ||
        file.header_.magic != kRowsMagic) {
        return {Error::kInvalid, path + ": not a file of binary rows"};
    }
    header = file.header_;
    if (header.version != kRowsVersion) {
        return {Error::kVersionMismatch, path + ": binary rows of version " +
                                             std::to_string(header.version) +
                                             ", this program knows version 1"};
    }
    if (header.key_bytes != wanted->key_bytes || header.value_bytes != wanted->value_bytes ||
        header.schema_fingerprint != wanted->schema_fingerprint) {
        return {Error::kSchemaMismatch,
                path + ": its rows are not those of table " + schema.name() +
                    ": columns, key or time column differ; write the file anew for this table"};
    }
    struct stat found {};
    const std::uint64_t needed = sizeof header + header.rows * file.row_bytes();
    if (::fstat(descriptor, &found) == 0 && S_ISREG(found.st_mode) &&
        static_cast<std::uint64_t>(found.st_size) != needed) {
        return {Error::kInvalid, path + ": has " + std::to_string(found.st_size) +
                                     " bytes where its header promises " + std::to_string(needed)};
    }
    file.buffer_.resize(std::max(kBufferBytes / file.row_bytes(), std::size_t{1}) *
                        file.row_bytes());
    return file;
}

RowsFile::RowsFile(std::string path, int descriptor, const RowsHeader& header)
    : path_(std::move(path)), descriptor_(descriptor), header_(header) {}
RowsFile::RowsFile(RowsFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      header_(other.header_),
      rows_read_(other.rows_read_),
      buffer_(std::move(other.buffer_)) {}
RowsFile& RowsFile::operator=(RowsFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(header_, other.header_);
    std::swap(rows_read_, other.rows_read_);
    std::swap(buffer_, other.buffer_);
    return *this;
}
RowsFile::~RowsFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

Result<std::span<const std::byte>> RowsFile::next() {
    const std::uint64_t left = header_.rows - rows_read_;
    const std::uint64_t rows = std::min<std::uint64_t>(left, buffer_.size() / row_bytes());
    if (rows == 0) return std::span<const std::byte>{};
    const ssize_t got = read_whole(descriptor_, buffer_.data(), rows * row_bytes());
    if (got < 0) return {Error::kIoError, path_ + ": " + std::strerror(errno)};
    if (static_cast<std::uint64_t>(got) != rows * row_bytes()) {
        return {Error::kInvalid, path_ + ": ends after row " +
                                     std::to_string(rows_read_ + static_cast<std::uint64_t>(got) /
                                                                     row_bytes()) +
                                     " of " + std::to_string(header_.rows)};
    }
    rows_read_ += rows;
    return std::span<const std::byte>(buffer_.data(), rows * row_bytes());
}

}  // namespace bidstore
