// The import: reads a source to its end, maps every record to rows and hands them to a sink.
//
// Who:    the tool's `import` (whose sink writes to the store) and tests (whose sink collects).
// Order:  rows reach the sink in the order of the source; StoreSink writes those of one key so.
// Errors: bad records go to a RefusalLog, which decides whether the import goes on. A source that
//         cannot be read further or a sink that fails ends it.
// Again:  an import that was cut short can be run again from the start: rows of mode "put" are then
//         written a second time with the same bytes. Counters of mode "add" count twice.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "clientlib/import_rows.h"
#include "clientlib/import_source.h"
#include "shm/error.h"

namespace bidstore {

// The policy for the index-th of several inputs: each gets a file of its own for refused records,
// numbered from the second.
std::string errors_for(const std::string& policy, std::size_t index);

// kInvalid when a file that would be written for refused records is one that is read ("-" is
// standard input): opening it would empty it. Asked before anything is opened for writing.
Status errors_beside_inputs(const std::string& policy, const std::vector<std::string>& inputs,
                            const std::string& mapping);

// Where refused records go: stops the import, passes over them, or writes them to a file, each
// behind a comment line with its place and reason, so that it can be put right and read again.
// Those of CSV stand behind kRefusedCsvMark and the header.
class RefusalLog {
  public:
    // "stop", "skip", or the name of a file to write; `source` names the log that is read.
    static Result<RefusalLog> make(const std::string& policy, const std::string& source);
    RefusalLog(RefusalLog&&) noexcept = default;
    RefusalLog& operator=(RefusalLog&&) noexcept = default;

    // Fails when the import has to end: with "source:line: reason".
    Status refuse(std::uint64_t line, std::string_view text, const Failure& reason,
                  std::string_view preamble);
    std::uint64_t count() const { return count_; }
    // The first few, for the summary.
    const std::vector<std::string>& examples() const { return examples_; }
    // Everything written is in the file.
    Status finish();

  private:
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    RefusalLog() = default;
    bool stop_ = false;
    std::string source_;
    std::string path_;
    std::unique_ptr<std::FILE, Close> file_;
    std::uint64_t count_ = 0;
    std::vector<std::string> examples_;
};

// The rows of one record, and where it came from.
struct MappedRecord {
    std::span<const MappedRow> rows;
    std::uint64_t line = 0;
    std::string_view text;
};

class RowSink {
  public:
    virtual ~RowSink() = default;
    // Takes all rows of the record or none of them; copies what it keeps.
    virtual Status write(const MappedRecord& record) = 0;
    // Everything taken is written (or refused, as the sink's RefusalLog says).
    virtual Status finish() = 0;
};

struct ImportTotals {
    std::uint64_t records = 0;  // read, good and bad
    std::uint64_t rows = 0;     // handed to the sink
    std::uint64_t refused = 0;
    std::uint64_t bytes_read = 0;   // of the file as stored
    std::uint64_t bytes_total = 0;  // 0: not known
};

// Reads to the end. `progress`, when given, is called after every record.
Status run_import(RecordSource& source, RowMapper& mapper, RowSink& sink, RefusalLog& refusals,
                  ImportTotals& totals,
                  const std::function<void(const ImportTotals&)>& progress = {});

// 1234567 as "1,234,567".
std::string grouped(std::uint64_t number);

// "412,000 rows, 103,000 rows/s, 36 %, 0:07 left" for a terminal.
std::string progress_line(const ImportTotals& totals, double elapsed_seconds);

}  // namespace bidstore
