// The lines of a file that may be compressed, or of one of its blocks.
//
// Who:    the record sources, one thread.
// Bounds: a line is at most kLineBytesMax; a longer one is passed over and reported.
// Copies: none: a line lies where it was read, with kLinePaddingBytes behind it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "clientlib/import_blocks.h"
#include "shm/error.h"

namespace bidstore {

class LineReader {
  public:
    // Of a file, block after block. "-" is standard input.
    static Result<LineReader> open(const std::string& path,
                                   BlockReader::WholeRecords whole_records = nullptr);
    // Of blocks that begin() gives; there are no lines before.
    LineReader() = default;

    // From here on the lines of the block, counted from 1, and no others. `block` gets the memory
    // of the one before.
    void begin(TextBlock& block);
    // The lines of the file that next() has not given yet, in blocks; false at the end.
    Result<bool> next_block(TextBlock& block);

    // The next line without its "\n", valid until the next call; false at the end. kInvalid: the
    // line was too long and is passed over. kIoError, kCorruption: no more lines.
    Result<bool> next(std::string_view& line);

    std::uint64_t line() const { return line_; }  // of the newest line, counted from 1
    // Of the file as it is stored, as far as it was asked for: some of it may be lines to come.
    std::uint64_t bytes_read() const { return file_ ? file_->bytes_read() : 0; }
    std::uint64_t bytes_total() const { return file_ ? file_->bytes_total() : 0; }
    Failure cannot_go_on(const Failure& reason, std::uint64_t line) const {
        return file_ ? file_->cannot_go_on(reason, line) : reason;
    }

  private:
    explicit LineReader(BlockReader file) : file_(std::move(file)) {}

    std::optional<BlockReader> file_;
    TextBlock block_;
    std::size_t begin_ = 0;  // lines of the block from here on were not given
    std::uint64_t line_ = 0;
};

}  // namespace bidstore
