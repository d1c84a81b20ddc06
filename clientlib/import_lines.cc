#include "clientlib/import_lines.h"

#include <cstring>
#include <utility>

namespace bidstore {

Result<LineReader> LineReader::open(const std::string& path,
                                    BlockReader::WholeRecords whole_records) {
    auto file = BlockReader::open(path, whole_records);
    if (!file) return file.failure();
    return LineReader(std::move(*file));
}

void LineReader::begin(TextBlock& block) {
    std::swap(block_, block);
    begin_ = 0;
    line_ = 0;
}

Result<bool> LineReader::next_block(TextBlock& block) {
    if (begin_ == block_.size && !block_.too_long) {
        if (!file_) return false;
        return file_->next(block);
    }
    std::swap(block_, block);
    block.size -= begin_;
    std::memmove(block.bytes.data(), block.bytes.data() + begin_, block.size);
    block_ = {};
    begin_ = 0;
    return true;
}

Result<bool> LineReader::next(std::string_view& line) {
    line = {};
    while (begin_ == block_.size) {
        if (block_.too_long) {
            block_.too_long = false;
            ++line_;
            return {Error::kInvalid,
                    "line longer than " + std::to_string(kLineBytesMax) + " bytes"};
        }
        auto more = next_block(block_);
        if (!more) return cannot_go_on(more.failure(), line_);
        begin_ = 0;
        if (*more) continue;
        block_.size = 0;
        return false;
    }
    const char* from = block_.bytes.data() + begin_;
    const std::size_t left = block_.size - begin_;
    const void* newline = std::memchr(from, '\n', left);
    const std::size_t length =
        newline != nullptr ? static_cast<std::size_t>(static_cast<const char*>(newline) - from)
                           : left;
    begin_ += length + (newline != nullptr ? 1 : 0);
    ++line_;
    if (length > kLineBytesMax) {
        return {Error::kInvalid, "line longer than " + std::to_string(kLineBytesMax) + " bytes"};
    }
    line = {from, length};
    return true;
}

}  // namespace bidstore
