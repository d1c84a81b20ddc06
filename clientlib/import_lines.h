// The lines of a file that may be compressed.
//
// Who:    the record sources, one thread.
// Owns:   the descriptor.
// Bounds: a line is at most kLineBytesMax; a longer one is passed over and reported.
// Copies: none: a line lies where it was read, with kLinePaddingBytes behind it that may be read
//         (and mean nothing), for parsers that load more than they look at.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "shm/error.h"

namespace bidstore {

inline constexpr std::size_t kLineBytesMax = 16u << 20;
inline constexpr std::size_t kLinePaddingBytes = 64;

class LineReader {
  public:
    // "-" is standard input.
    static Result<LineReader> open(const std::string& path);
    LineReader(LineReader&&) noexcept;
    LineReader& operator=(LineReader&&) noexcept;
    ~LineReader();

    // The next line without its "\n", valid until the next call; false at the end. kInvalid: the
    // line was too long and is passed over. kIoError, kCorruption: no more lines.
    Result<bool> next(std::string_view& line);

    std::uint64_t line() const { return line_; }  // of the newest line, counted from 1
    // Of the file as it is stored, as far as it was asked for: some of it may be lines to come.
    std::uint64_t bytes_read() const { return bytes_read_; }
    std::uint64_t bytes_total() const { return bytes_total_; }

  private:
    struct Gzip;  // keeps zlib out of this header
    LineReader(std::string path, std::unique_ptr<Gzip> gzip, std::uint64_t bytes_total);
    Result<bool> fill();
    Result<bool> pass_over();

    std::string path_;
    std::unique_ptr<Gzip> gzip_;
    std::vector<char> buffer_;  // its last kLinePaddingBytes are never filled
    std::size_t begin_ = 0;     // unread bytes of the buffer: [begin_, end_)
    std::size_t end_ = 0;
    std::uint64_t line_ = 0;
    std::uint64_t bytes_read_ = 0;
    std::uint64_t bytes_total_ = 0;
};

}  // namespace bidstore
