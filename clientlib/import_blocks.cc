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

struct BlockReader::Gzip {
    explicit Gzip(gzFile opened) : file(opened) {}
    ~Gzip() { gzclose_r(file); }
    Gzip(const Gzip&) = delete;
    Gzip& operator=(const Gzip&) = delete;
    gzFile file;  // reads plain files as they are
};

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
    gzFile file = gzdopen(fd, "rb");
    if (file == nullptr) {
        ::close(fd);
        return {Error::kIoError, name + ": no memory to read it"};
    }
    // Twice this is less than a block, so that a plain file is read straight into it.
    gzbuffer(file, 64u << 10);
    const bool regular = known && S_ISREG(status.st_mode);
    return BlockReader(name, std::make_unique<Gzip>(file),
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
    const int read = gzread(gzip_->file, to, static_cast<unsigned>(room));
    int code = Z_OK;
    const char* message = gzerror(gzip_->file, &code);
    // A cut .gz gives what is there and Z_BUF_ERROR; its last bytes are not a line to trust.
    if (read < 0 || code == Z_BUF_ERROR) {
        const bool device = code == Z_ERRNO;
        return {device ? Error::kIoError : Error::kCorruption,
                device ? std::strerror(errno) : message};
    }
    const z_off_t offset = gzoffset(gzip_->file);
    bytes_read_ = offset < 0 ? 0 : static_cast<std::uint64_t>(offset);
    got = static_cast<std::size_t>(read);
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
