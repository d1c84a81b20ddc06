// Sources of records: JSON lines and CSV, plain or gzip, from a file or standard input.
//
// Who:    one thread; the import reads one source at a time.
// Order:  records come as the file has them; a record's texts are valid until the next call.
// Errors: next() returns kInvalid for a bad record and goes on behind it at the next call; any
//         other error (kIoError, kCorruption for a damaged or cut .gz) is final.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "clientlib/import_blocks.h"
#include "shm/error.h"

namespace bidstore {

// What a record holds at a path.
struct Field {
    bool missing = true;      // not there, JSON null, or an empty CSV field
    std::string_view text{};  // a string unescaped, a number or boolean as written
};

enum class FieldForm : std::uint8_t {
    kScalar,  // a JSON array or object is an error
    kList,    // an array's scalars joined with commas; a scalar as it is
    kJson,    // the member's JSON text
};

class RecordSource {
  public:
    virtual ~RecordSource() = default;

    // Before the first record: gives the number that find() takes. kInvalid when the source can
    // tell that no record has it (a name that is not in the CSV header) or the path is malformed.
    virtual Result<std::uint32_t> resolve(std::string_view path) = 0;

    // Goes to the next record; false at the end.
    virtual Result<bool> next() = 0;

    // Of the current record. The text is valid until the next call.
    virtual Status find(std::uint32_t path, FieldForm form, Field& field) = 0;
    virtual std::string_view text() const = 0;  // as it is in the file, without the line's end
    virtual std::uint64_t line() const = 0;     // of its first line, counted from 1

    // What stands in front of the records in a file of refused ones: the CSV header.
    virtual std::string_view preamble() const { return {}; }

    // ---- in several threads: blocks are taken here, and read by sources of their own ----

    // The records from here on as a block of text, and so on; false at the end. Instead of next().
    virtual Result<bool> next_block(TextBlock& block) = 0;
    // A source for another thread, whose records are those of blocks that begin() gives it. Paths
    // are not resolved in it.
    virtual std::unique_ptr<RecordSource> for_blocks() const = 0;
    // The block's records are the next ones, lines are counted from 1 again. `block` gets the
    // memory of the one before.
    virtual void begin(TextBlock& block) = 0;
    virtual std::uint64_t lines_read() const = 0;  // of the file or the block, by next()
    // What to say when next_block() failed behind that line of the file.
    virtual Failure cannot_go_on(const Failure& reason, std::uint64_t line) const = 0;

    // How far the file was read, in bytes as stored (compressed); total 0: not known.
    virtual std::uint64_t bytes_read() const = 0;
    virtual std::uint64_t bytes_total() const = 0;
};

enum class SourceFormat : std::uint8_t { kByName, kJson, kCsv };

// "-" is standard input. kByName: CSV when the name ends in .csv or .csv.gz, else JSON lines.
// gzip is recognised by its first bytes, whatever the name.
Result<std::unique_ptr<RecordSource>> open_source(const std::string& path, SourceFormat format);

}  // namespace bidstore
