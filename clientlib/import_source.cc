#include "clientlib/import_source.h"

#include "clientlib/import_csv.h"
#include "clientlib/import_json.h"
#include "clientlib/import_lines.h"

namespace bidstore {

Result<std::unique_ptr<RecordSource>> open_source(const std::string& path, SourceFormat format) {
    const bool csv_name = path.ends_with(".csv") || path.ends_with(".csv.gz");
    const bool csv = format == SourceFormat::kCsv || (format == SourceFormat::kByName && csv_name);
    auto lines = LineReader::open(path, csv ? whole_csv_records : nullptr);
    if (!lines) return lines.failure();
    if (csv) return make_csv_source(std::move(*lines), path);
    return make_json_source(std::move(*lines));
}

}  // namespace bidstore
