// Decoders: what turns a piece of text in a log into the value of a column.
//
// Who:    the import, and whoever reads the same logs (example bidder, tests). Pure functions.
// Errors: kInvalid with what the text should have been ("not a uuid"); never half a value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/page/schema.h"
#include "shm/error.h"

namespace bidstore {

// The names in mapping files are in the comments; import_mapping.cc reads them.
enum class Decode : std::uint8_t {
    kText,          // "text": a string as it is, a number or boolean as written
    kInteger,       // "integer": decimal, with or without a sign
    kFloat,         // "float"
    kBoolean,       // "boolean": true or 1 is 1, false or 0 is 0
    kFloatSeconds,  // "float_seconds": 1326240000.066617, to the table's time unit
    kMilliseconds,  // "milliseconds" since the epoch, to the table's time unit
    kMicroseconds,  // "microseconds" since the epoch, to the table's time unit
    kHex,           // "hex": two digits a byte
    kUuid,          // "uuid": 16 bytes; leading zeros dropped inside the groups are put back
    kBase64,        // "base64", padded or not
    kBase64Url,     // "base64url", padded or not
    kHost,          // "host": the host name of a URL, in lower case
    kList,          // "list": the scalars of a JSON array joined with commas
    kJson,          // "json": the member as JSON text
    kRawJson,       // "raw_json": the whole line; needs no path
};

// Groups of 8-4-4-4-12 hex digits, each at least one digit long, left-padded with zeros:
// "22451750-35b6-1-15e8-82bbc185161" reads as 22451750-35b6-0001-15e8-082bbc185161. Without
// hyphens all 32 digits must be there.
Result<std::string> decode_uuid(std::string_view text);

Result<std::string> decode_hex(std::string_view text);
// Into `room`, which grows as needed and is used again; `bytes` lie in it.
Status decode_hex(std::string_view text, std::string& room, std::string_view& bytes);

enum class Base64Alphabet : std::uint8_t { kStandard, kUrl };  // + and /, or - and _
// Bits left over behind the last byte must be zero, so that two different texts never give the
// same bytes.
Result<std::string> decode_base64(std::string_view text, Base64Alphabet alphabet);
Status decode_base64(std::string_view text, Base64Alphabet alphabet, std::string& room,
                     std::string_view& bytes);

// Decimal seconds to microseconds or nanoseconds, computed on the digits: no digit passes through
// a double. Finer digits than the unit's are rounded to the nearest.
Result<std::uint64_t> decode_seconds(std::string_view text, TimeUnit unit);

// A whole number of 1/per_second seconds (1,000: milliseconds) to the unit.
Result<std::uint64_t> decode_ticks(std::string_view text, std::uint64_t per_second, TimeUnit unit);

// "http://user@WWW.Example.com:8080/a?b" gives "www.example.com". A text without "://" is read as
// if it began behind it. Real logs have "file:///C:/..." too: no host, an empty text.
std::string decode_host(std::string_view url);

Result<std::uint64_t> decode_unsigned(std::string_view text);
Result<std::int64_t> decode_signed(std::string_view text);
Result<double> decode_float(std::string_view text);

// For messages: in quotes, control characters shown as '.', cut after 60 bytes.
std::string in_quotes(std::string_view text);

}  // namespace bidstore
