// CSV as RFC 4180 has it: a header line with the columns' names, fields between commas, fields with
// commas, quotes or line ends in double quotes, a quote inside them doubled.
//
// Errors: a record with another number of fields than the header, a stray or unclosed quote, or
//         bytes that are not UTF-8 is refused.
// Again:  in a file of refused records (kRefusedCsvMark, the header, then each behind its reason),
//         lines that begin with kRefusedCsvReason are passed over; in others they are records.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "clientlib/import_lines.h"
#include "clientlib/import_source.h"
#include "shm/error.h"

namespace bidstore {

enum class CsvScan : std::uint8_t {
    kComplete,  // fields are all there
    kOpen,      // the text ends inside quotes: the record goes on in the next line
    kStray,     // a quote where none may be
};

// The first line of a file of refused records, which RefusalLog writes.
inline constexpr std::string_view kRefusedCsvMark =
    "# Refused by bidstore: each record stands behind its reason and can be read again from here.";

// What a reason in it begins with: more than a record may begin with by chance.
inline constexpr std::string_view kRefusedCsvReason = "# refused: ";

// Takes `text` (one record, without its last line end) apart. Fields lie in it, or in `unescaped`
// when a quote in them was doubled.
CsvScan scan_csv(std::string_view text, std::vector<std::string_view>& fields,
                 std::string& unescaped);

// How many bytes of the text, which ends with a line, are whole records.
std::size_t whole_csv_records(std::string_view text);

// Reads the header. `name` is for messages.
Result<std::unique_ptr<RecordSource>> make_csv_source(LineReader lines, const std::string& name);

}  // namespace bidstore
