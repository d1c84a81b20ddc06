// JSON lines: one object per line. Empty lines and lines that begin with '#' (the reasons in a file
// of refused lines) are passed over.
//
// Errors: a line is checked as a whole, also where no path leads: escapes, commas, UTF-8.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "clientlib/import_lines.h"
#include "clientlib/import_source.h"
#include "shm/error.h"

namespace bidstore {

std::unique_ptr<RecordSource> make_json_source(LineReader lines);

bool valid_utf8(std::string_view text);

}  // namespace bidstore
