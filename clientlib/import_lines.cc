#include "clientlib/import_lines.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>

namespace bidstore {
namespace {

// Above twice gzbuffer(), so that a plain file is read straight into it.
constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

}  // namespace

struct LineReader::Gzip {
    explicit Gzip(gzFile opened) : file(opened) {}
    ~Gzip() { gzclose_r(file); }
    Gzip(const Gzip&) = delete;
    Gzip& operator=(const Gzip&) = delete;
    gzFile file;  // reads plain files as they are
};

LineReader::LineReader(std::string path, std::unique_ptr<Gzip> gzip, std::uint64_t bytes_total)
    : path_(std::move(path)),
      gzip_(std::move(gzip)),
      buffer_(kBufferBytes + kLinePaddingBytes),
      bytes_total_(bytes_total) {}
LineReader::LineReader(LineReader&&) noexcept = default;
LineReader& LineReader::operator=(LineReader&&) noexcept = default;
LineReader::~LineReader() = default;

Result<LineReader> LineReader::open(const std::string& path) {
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
    gzbuffer(file, 256u << 10);
    const bool regular = known && S_ISREG(status.st_mode);
    return LineReader(name, std::make_unique<Gzip>(file),
                      regular ? static_cast<std::uint64_t>(status.st_size) : 0);
}

// More bytes behind those that are unread, which move to the front; false at the end of the file.
Result<bool> LineReader::fill() {
    if (begin_ > 0) std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    if (end_ + kLinePaddingBytes == buffer_.size()) buffer_.resize(2 * buffer_.size());
    const std::size_t room = buffer_.size() - kLinePaddingBytes - end_;
    const int got = gzread(gzip_->file, buffer_.data() + end_, static_cast<unsigned>(room));
    int code = Z_OK;
    const char* message = gzerror(gzip_->file, &code);
    // A cut .gz gives what is there and Z_BUF_ERROR; its last bytes are not a line to trust.
    if (got < 0 || code == Z_BUF_ERROR) {
        const bool device = code == Z_ERRNO;
        return {device ? Error::kIoError : Error::kCorruption,
                path_ + ": cannot be read on behind line " + std::to_string(line_) + ": " +
                    (device ? std::strerror(errno) : message)};
    }
    const z_off_t offset = gzoffset(gzip_->file);  // a system call: not for every line
    bytes_read_ = offset < 0 ? 0 : static_cast<std::uint64_t>(offset);
    end_ += static_cast<std::size_t>(got);
    return got > 0;
}

Result<bool> LineReader::next(std::string_view& line) {
    line = {};
    for (std::size_t seen = 0;;) {
        const char* from = buffer_.data() + begin_;
        const void* newline = std::memchr(from + seen, '\n', end_ - begin_ - seen);
        if (newline != nullptr) {
            line = {from, static_cast<std::size_t>(static_cast<const char*>(newline) - from)};
            begin_ += line.size() + 1;
            break;
        }
        seen = end_ - begin_;
        if (seen > kLineBytesMax) return pass_over();
        auto more = fill();
        if (!more) return more;
        if (*more) continue;
        if (seen == 0) return false;
        line = {buffer_.data() + begin_, seen};  // the last one, without a line's end
        begin_ = end_;
        break;
    }
    ++line_;
    if (line.size() > kLineBytesMax) {
        line = {};
        return {Error::kInvalid, "line longer than " + std::to_string(kLineBytesMax) + " bytes"};
    }
    return true;
}

// What is left of a line that is too long.
Result<bool> LineReader::pass_over() {
    ++line_;
    for (;;) {
        const char* from = buffer_.data() + begin_;
        const void* newline = std::memchr(from, '\n', end_ - begin_);
        if (newline != nullptr) {
            begin_ += static_cast<std::size_t>(static_cast<const char*>(newline) - from) + 1;
            break;
        }
        begin_ = end_;
        auto more = fill();
        if (!more) return more;
        if (!*more) break;
    }
    return {Error::kInvalid, "line longer than " + std::to_string(kLineBytesMax) + " bytes"};
}

}  // namespace bidstore
