#include "clientlib/import_csv.h"

#include <algorithm>
#include <utility>

#include "clientlib/import_json.h"

namespace bidstore {
namespace {

// A quoted field over more lines than this is taken for a forgotten quote.
constexpr std::size_t kRecordBytesMax = 1u << 20;

std::string_view without_carriage_return(std::string_view record) {
    return record.substr(0, record.size() - (record.ends_with('\r') ? 1 : 0));
}

class CsvSource final : public RecordSource {
  public:
    explicit CsvSource(LineReader lines) : lines_(std::move(lines)) {}

    Result<bool> read_header(const std::string& name);
    Result<std::uint32_t> resolve(std::string_view path) override;
    Result<bool> next() override;
    Status find(std::uint32_t path, FieldForm form, Field& field) override;
    std::string_view text() const override { return record_; }
    std::uint64_t line() const override { return first_line_; }
    Result<bool> next_block(TextBlock& block) override { return lines_.next_block(block); }
    std::unique_ptr<RecordSource> for_blocks() const override {
        auto source = std::make_unique<CsvSource>(LineReader());
        source->header_text_ = header_text_;
        source->header_ = header_;
        source->refused_ = refused_;
        return source;
    }
    void begin(TextBlock& block) override { lines_.begin(block); }
    std::uint64_t lines_read() const override { return lines_.line(); }
    Failure cannot_go_on(const Failure& reason, std::uint64_t line) const override {
        return lines_.cannot_go_on(reason, line);
    }
    std::string_view preamble() const override { return header_text_; }
    std::uint64_t bytes_read() const override { return lines_.bytes_read(); }
    std::uint64_t bytes_total() const override { return lines_.bytes_total(); }

  private:
    Result<bool> read_record();

    LineReader lines_;
    std::string header_text_;
    std::vector<std::string> header_;
    bool refused_ = false;                  // a file of refused records: kRefusedCsvMark
    std::string_view record_;               // where it was read, or in joined_
    std::string joined_;                    // of more than one line
    std::vector<std::string_view> fields_;  // in record_, or in unescaped_
    std::string unescaped_;
    std::uint64_t first_line_ = 0;
};

// One record into record_ and fields_, over as many lines as its quotes span.
Result<bool> CsvSource::read_record() {
    record_ = {};
    joined_.clear();
    first_line_ = lines_.line() + 1;
    std::string_view line;
    for (;;) {
        auto more = lines_.next(line);
        if (!more) return more;
        if (!*more && record_.empty()) return false;
        if (!*more) return {Error::kInvalid, "a quoted field is not closed before the file ends"};
        if (refused_ && joined_.empty() && line.starts_with(kRefusedCsvReason)) {  // a reason
            first_line_ = lines_.line() + 1;
            continue;
        }
        record_ = joined_.empty() ? line : joined_.append(line);
        const std::string_view whole = without_carriage_return(record_);
        // Nothing but a quote closes a field that is open.
        const bool still_open = !joined_.empty() && line.find('"') == std::string_view::npos;
        const CsvScan scan = still_open ? CsvScan::kOpen : scan_csv(whole, fields_, unescaped_);
        if (scan != CsvScan::kOpen) record_ = whole;
        if (scan == CsvScan::kComplete) return true;
        if (scan == CsvScan::kStray) {
            return {Error::kInvalid,
                    "a quote inside a field; write the field in quotes and the "
                    "quote twice"};
        }
        if (record_.size() > kRecordBytesMax) {
            return {Error::kInvalid, "a quoted field is not closed within 1 MiB"};
        }
        if (joined_.empty()) joined_ = record_;
        joined_ += '\n';
        record_ = joined_;
    }
}

Result<bool> CsvSource::read_header(const std::string& name) {
    auto more = read_record();
    refused_ = more.ok() && *more && record_ == kRefusedCsvMark;
    if (refused_) more = read_record();
    if (!more && more.error() == Error::kInvalid) {
        return {Error::kInvalid,
                name + ":" + std::to_string(first_line_) + ": " + more.failure().what};
    }
    if (!more) return more;
    if (!*more) return {Error::kInvalid, name + ": is empty; a CSV file begins with a header line"};
    constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
    header_text_ = record_;
    header_.assign(fields_.begin(), fields_.end());
    if (header_.front().starts_with(kByteOrderMark)) header_.front().erase(0, 3);
    return true;
}

Result<std::uint32_t> CsvSource::resolve(std::string_view path) {
    for (std::size_t i = 0; i < header_.size(); ++i) {
        if (header_[i] == path) return static_cast<std::uint32_t>(i);
    }
    return {Error::kInvalid, "no column \"" + std::string(path) +
                                 "\" in the header: " + header_text_.substr(0, 200)};
}

Result<bool> CsvSource::next() {
    for (;;) {
        auto more = read_record();
        if (!more || !*more) return more;
        if (!record_.empty()) break;  // an empty line
    }
    if (!valid_utf8(record_)) return {Error::kInvalid, "not UTF-8"};
    if (fields_.size() != header_.size()) {
        return {Error::kInvalid, std::to_string(fields_.size()) + " fields where the header has " +
                                     std::to_string(header_.size())};
    }
    return true;
}

Status CsvSource::find(std::uint32_t path, FieldForm, Field& field) {
    field.text = fields_[path];
    field.missing = field.text.empty();
    return {};
}

// A field in quotes, of which the first is in front of `at`; goes behind the last one. False: there
// is none.
bool scan_quoted(std::string_view text, std::size_t& at, std::string_view& field,
                 std::string& unescaped) {
    const std::size_t begin = unescaped.size();
    for (std::size_t from = at;; from = at) {
        const std::size_t quote = text.find('"', from);
        if (quote == std::string_view::npos) return false;
        field = text.substr(from, quote - from);
        at = quote + 1;
        const bool doubled = at < text.size() && text[at] == '"';
        if (!doubled && unescaped.size() == begin) return true;
        unescaped.append(field);
        if (!doubled) break;
        unescaped += '"';
        ++at;
    }
    field = std::string_view(unescaped).substr(begin);
    return true;
}

}  // namespace

CsvScan scan_csv(std::string_view text, std::vector<std::string_view>& fields,
                 std::string& unescaped) {
    fields.clear();
    unescaped.clear();
    unescaped.reserve(text.size());  // fields in it stay where they are
    for (std::size_t at = 0;; ++at) {
        std::string_view& field = fields.emplace_back();
        if (at < text.size() && text[at] == '"') {
            ++at;
            if (!scan_quoted(text, at, field, unescaped)) return CsvScan::kOpen;
        } else {
            field = text.substr(at, text.find(',', at) - at);
            at += field.size();
            if (field.find('"') != std::string_view::npos) return CsvScan::kStray;
        }
        if (at == text.size()) return CsvScan::kComplete;
        if (text[at] != ',') return CsvScan::kStray;
    }
}

std::size_t whole_csv_records(std::string_view text) {
    if (text.find('"') == std::string_view::npos) return text.size();
    std::vector<std::string_view> fields;
    std::string unescaped;
    std::size_t whole = 0;
    for (std::size_t from = 0;;) {
        const std::size_t end = text.find('\n', from);
        if (end == std::string_view::npos) return whole;
        from = end + 1;
        const std::string_view record = text.substr(whole, end - whole);
        const bool open =
            record.size() <= kRecordBytesMax &&
            scan_csv(without_carriage_return(record), fields, unescaped) == CsvScan::kOpen;
        // Nothing but a quote closes it, or that it is too long.
        if (open) from = std::min(text.find('"', from), whole + kRecordBytesMax + 1);
        if (!open) whole = from;
    }
}

Result<std::unique_ptr<RecordSource>> make_csv_source(LineReader lines, const std::string& name) {
    auto source = std::make_unique<CsvSource>(std::move(lines));
    auto header = source->read_header(name);
    if (!header) return header.failure();
    return std::unique_ptr<RecordSource>(std::move(source));
}

}  // namespace bidstore
