#include "clientlib/import_blocks.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace bidstore {
namespace {

constexpr std::size_t kGzipBytes = 128u << 10;  // read at once
constexpr Bytef kGzipMagic[] = {0x1f, 0x8b};
constexpr std::size_t kInflatedBytesMax = 1u << 30;  // by one call: zlib counts in 32 bits

}  // namespace

// A descriptor's bytes, inflated when they begin as gzip does: members one after another, then
// nothing or zeros. zlib's own reader of files takes whatever else follows for the end, and a
// damaged head of the second of many members so for the end of the log.
struct BlockReader::Gzip {
    explicit Gzip(int opened) : fd(opened), in(kGzipBytes) {}
    ~Gzip() {
        if (state != State::kBegin && state != State::kPlain) inflateEnd(&stream);
        ::close(fd);
    }
    Gzip(const Gzip&) = delete;
    Gzip& operator=(const Gzip&) = delete;

    // At least one byte, unless the file is at its end.
    Result<std::size_t> read(char* to, std::size_t room);
    // Of the file as it is stored, without what waits in `in`.
    std::uint64_t offset() const { return read_bytes - stream.avail_in; }

  private:
    enum class State : std::uint8_t {
        kBegin,    // nothing was read
        kPlain,    // not gzip
        kMember,   // in a member
        kBetween,  // behind a member: the end, another one, or zeros
        kZeros,    // behind zeros: more of them, or the end
    };
    Result<bool> fill(std::size_t wanted);
    Status begin();
    Status step_behind_member(bool& ended);
    Failure strange() const {
        return {Error::kCorruption,
                "byte " + std::to_string(offset()) + " of the file: behind a gzip member is " +
                    "neither another one nor zeros: the file is damaged, or not gzip alone"};
    }
    static Result<std::size_t> read_file(int fd, void* to, std::size_t room);

    const int fd;
    std::vector<Bytef> in;
    z_stream stream{};
    State state = State::kBegin;
    std::uint64_t read_bytes = 0;  // of the file
};

Result<std::size_t> BlockReader::Gzip::read_file(int fd, void* to, std::size_t room) {
    for (;;) {
        const ssize_t got = ::read(fd, to, room);
        if (got >= 0) return static_cast<std::size_t>(got);
        if (errno != EINTR) return {Error::kIoError, std::strerror(errno)};
    }
}

// Whether so many bytes wait in `in`; fewer only at the end of the file.
Result<bool> BlockReader::Gzip::fill(std::size_t wanted) {
    if (stream.avail_in >= wanted) return true;
    if (stream.avail_in > 0) std::memmove(in.data(), stream.next_in, stream.avail_in);
    stream.next_in = in.data();
    while (stream.avail_in < wanted) {
        auto got = read_file(fd, in.data() + stream.avail_in, in.size() - stream.avail_in);
        if (!got) return got.failure();
        if (*got == 0) return false;
        stream.avail_in += static_cast<uInt>(*got);
        read_bytes += *got;
    }
    return true;
}

Status BlockReader::Gzip::begin() {
    auto two = fill(2);
    if (!two) return two.failure();
    const bool gzip = *two && stream.next_in[0] == kGzipMagic[0] &&
                      stream.next_in[1] == kGzipMagic[1];
    if (gzip && inflateInit2(&stream, MAX_WBITS + 16) != Z_OK) {
        return {Error::kIoError, "no memory to read it"};
    }
    state = gzip ? State::kMember : State::kPlain;
    return {};
}

Status BlockReader::Gzip::step_behind_member(bool& ended) {
    auto more = fill(1);
    if (!more) return more.failure();
    ended = !*more;
    if (ended) return {};
    if (*stream.next_in == 0) {
        state = State::kZeros;
        ++stream.next_in;
        --stream.avail_in;
        return {};
    }
    auto two = fill(2);
    if (!two) return two.failure();
    if (state == State::kZeros || !*two || stream.next_in[0] != kGzipMagic[0] ||
        stream.next_in[1] != kGzipMagic[1]) {
        return strange();
    }
    inflateReset(&stream);
    state = State::kMember;
    return {};
}

Result<std::size_t> BlockReader::Gzip::read(char* to, std::size_t room) {
    if (state == State::kBegin) {
        if (Status begun = begin(); !begun) return begun.failure();
    }
    if (state == State::kPlain && stream.avail_in > 0) {
        const std::size_t part = std::min<std::size_t>(room, stream.avail_in);
        std::memcpy(to, stream.next_in, part);
        stream.next_in += part;
        stream.avail_in -= static_cast<uInt>(part);
        return part;
    }
    if (state == State::kPlain) {
        auto got = read_file(fd, to, room);
        if (got) read_bytes += *got;
        return got;
    }
    stream.avail_out = static_cast<uInt>(std::min<std::size_t>(room, kInflatedBytesMax));
    const uInt all = stream.avail_out;
    stream.next_out = static_cast<Bytef*>(static_cast<void*>(to));
    while (stream.avail_out > 0) {
        if (state != State::kMember) {
            bool ended = false;
            Status next = step_behind_member(ended);
            if (!next && stream.avail_out == all) return next.failure();
            if (!next || ended) break;  // the same again at the next call
            continue;
        }
        auto more = fill(1);
        if (!more) return more.failure();
        const int code = inflate(&stream, Z_NO_FLUSH);
        if (code == Z_STREAM_END) {
            state = State::kBetween;
        } else if (code == Z_MEM_ERROR) {
            return {Error::kIoError, "no memory to read it"};
        } else if (code != Z_OK && code != Z_BUF_ERROR) {
            return {Error::kCorruption, "byte " + std::to_string(offset()) + " of the file: " +
                                            (stream.msg != nullptr ? stream.msg : "not gzip")};
        } else if (!*more) {
            return {Error::kCorruption, "unexpected end of file"};
        }
    }
    return static_cast<std::size_t>(all - stream.avail_out);
}

BlockReader::BlockReader(std::string name, std::unique_ptr<Gzip> gzip, std::uint64_t bytes_total,
                         WholeRecords whole_records)
    : name_(std::move(name)),
      gzip_(std::move(gzip)),
      whole_records_(whole_records),
      bytes_total_(bytes_total) {}
BlockReader::BlockReader(BlockReader&&) noexcept = default;
BlockReader& BlockReader::operator=(BlockReader&&) noexcept = default;
BlockReader::~BlockReader() = default;

Result<BlockReader> BlockReader::open(const std::string& path, WholeRecords whole_records) {
    const bool standard_input = path == "-";
    const std::string name = standard_input ? "standard input" : path;
    const int fd =
        standard_input ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return {Error::kIoError, name + ": cannot be opened: " + std::strerror(errno)};
    struct stat status {};
    const bool known = ::fstat(fd, &status) == 0;
    if (known && S_ISDIR(status.st_mode)) {
        ::close(fd);
        return {Error::kIoError, name + ": is a directory; name a file"};
    }
    const bool regular = known && S_ISREG(status.st_mode);
    return BlockReader(name, std::make_unique<Gzip>(fd),
                       regular ? static_cast<std::uint64_t>(status.st_size) : 0, whole_records);
}

Failure BlockReader::cannot_go_on(const Failure& reason, std::uint64_t line) const {
    return {reason.code,
            name_ + ": cannot be read on behind line " + std::to_string(line) + ": " + reason.what};
}

// False at the end of the file.
Result<bool> BlockReader::read_some(char* to, std::size_t room, std::size_t& got) {
    got = 0;
    if (ended_) return false;
    auto read = gzip_->read(to, room);
    if (!read) return read.failure();
    got = *read;
    bytes_read_ = gzip_->offset();
    ended_ = got == 0;
    return got > 0;
}

void BlockReader::keep_rest(TextBlock& block, std::size_t from) {
    rest_.assign(block.bytes.data() + from, block.size - from);
    block.size = from;
}

Result<bool> BlockReader::next(TextBlock& block) {
    block.too_long = false;
    const std::size_t least = rest_.size() + kTextBlockBytes + kLinePaddingBytes;
    if (block.bytes.size() < least) block.bytes.resize(least);
    std::memcpy(block.bytes.data(), rest_.data(), rest_.size());
    block.size = rest_.size();
    rest_.clear();
    for (;;) {
        const std::size_t room = block.bytes.size() - kLinePaddingBytes - block.size;
        std::size_t got = 0;
        auto more = read_some(block.bytes.data() + block.size, room, got);
        if (!more) return more;
        block.size += got;
        if (!*more) return block.size > 0;
        const std::size_t newline = block.text().rfind('\n');
        const std::size_t lines = newline == std::string_view::npos ? 0 : newline + 1;
        const std::string_view whole_lines = block.text().substr(0, lines);
        const std::size_t whole =
            whole_records_ != nullptr ? whole_records_(whole_lines) : whole_lines.size();
        if (whole > 0) {
            keep_rest(block, whole);
            return true;
        }
        if (block.size - lines > kLineBytesMax) return pass_over(block, lines);
        if (got == room) block.bytes.resize(2 * block.bytes.size());
    }
}

// Lines up to there are a block, if a record is not whole, too; the line behind them is too long.
Result<bool> BlockReader::pass_over(TextBlock& block, std::size_t lines) {
    block.size = lines;
    block.too_long = true;
    std::string passed(kTextBlockBytes, '\0');
    for (;;) {
        std::size_t got = 0;
        auto more = read_some(passed.data(), passed.size(), got);
        if (!more) return more;
        const std::size_t newline = std::string_view(passed.data(), got).find('\n');
        if (*more && newline == std::string_view::npos) continue;
        if (*more) rest_.assign(passed, newline + 1, got - newline - 1);
        return true;
    }
}

}  // namespace bidstore
