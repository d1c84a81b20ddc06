// The text of a file that may be compressed, in blocks of whole records.
//
// Who:    LineReader, or the threads of a load, one at a time.
// Owns:   the descriptor. What is left of a record that a block's end cut goes into the next one.
// Bounds: a block is kTextBlockBytes, or as much as its only record has; a line is at most
//         kLineBytesMax: a longer one is passed over and reported.
// Copies: a record lies where it was read, with kLinePaddingBytes behind it that may be read (and
//         mean nothing), for parsers that load more than they look at.
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
// So that text and rows of a block stay in a core's cache from reading to sending.
inline constexpr std::size_t kTextBlockBytes = 256u << 10;

struct TextBlock {
    std::vector<char> bytes;  // room for more than the text
    std::size_t size = 0;     // of the text
    bool too_long = false;    // behind the text is a line that was passed over

    std::string_view text() const { return {bytes.data(), size}; }
};

class BlockReader {
  public:
    // How many bytes of the text, which ends with a line, are whole records. 0: more is needed.
    using WholeRecords = std::size_t (*)(std::string_view text);

    // "-" is standard input. Without `whole_records` every line is one.
    static Result<BlockReader> open(const std::string& path, WholeRecords whole_records = nullptr);
    BlockReader(BlockReader&&) noexcept;
    BlockReader& operator=(BlockReader&&) noexcept;
    ~BlockReader();

    // The next block, whose memory is used again; false at the end, and from then on. The last
    // line of the file need not have an end. kIoError, kCorruption (a .gz that is damaged or cut,
    // or goes on behind its last member with anything but zeros): no more blocks; the message is
    // the reason alone, for cannot_go_on().
    Result<bool> next(TextBlock& block);
    // What to say when lines up to this one were good.
    Failure cannot_go_on(const Failure& reason, std::uint64_t line) const;

    // Of the file as it is stored, as far as it was read.
    std::uint64_t bytes_read() const { return bytes_read_; }
    std::uint64_t bytes_total() const { return bytes_total_; }  // 0: not known

  private:
    struct Gzip;  // keeps zlib out of this header
    BlockReader(std::string name, std::unique_ptr<Gzip> gzip, std::uint64_t bytes_total,
                WholeRecords whole_records);
    Result<bool> read_some(char* to, std::size_t room, std::size_t& got);
    Result<bool> pass_over(TextBlock& block, std::size_t lines);
    void keep_rest(TextBlock& block, std::size_t from);

    std::string name_;
    std::unique_ptr<Gzip> gzip_;
    WholeRecords whole_records_;
    std::string rest_;  // read, and behind the end of the newest block
    bool ended_ = false;
    std::uint64_t bytes_read_ = 0;
    std::uint64_t bytes_total_ = 0;
};

}  // namespace bidstore
