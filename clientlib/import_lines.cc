#include "clientlib/import_lines.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>

namespace bidstore {

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
      buffer_(std::size_t{256} << 10),
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

// More bytes into the empty buffer; false at the end of the file.
Result<bool> LineReader::fill() {
    const int got = gzread(gzip_->file, buffer_.data(), static_cast<unsigned>(buffer_.size()));
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
    begin_ = 0;
    end_ = static_cast<std::size_t>(got);
    return got > 0;
}

Result<bool> LineReader::next(std::string& line) {
    line.clear();
    bool too_long = false;
    bool any = false;
    for (;;) {
        if (begin_ == end_) {
            auto more = fill();
            if (!more) return more;
            if (!*more) break;
        }
        any = true;
        const char* from = buffer_.data() + begin_;
        const auto* newline = static_cast<const char*>(std::memchr(from, '\n', end_ - begin_));
        const std::size_t length =
            newline != nullptr ? static_cast<std::size_t>(newline - from) : end_ - begin_;
        too_long = too_long || line.size() + length > kLineBytesMax;
        if (!too_long) line.append(from, length);
        begin_ += length + (newline != nullptr ? 1 : 0);
        if (newline != nullptr) break;
    }
    if (!any) return false;
    ++line_;
    if (too_long) {
        line.clear();
        return {Error::kInvalid, "line longer than " + std::to_string(kLineBytesMax) + " bytes"};
    }
    return true;
}

}  // namespace bidstore
