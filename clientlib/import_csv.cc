#include "clientlib/import_csv.h"

#include <utility>

#include "clientlib/import_json.h"

namespace bidstore {
namespace {

// A quoted field over more lines than this is taken for a forgotten quote.
constexpr std::size_t kRecordBytesMax = 1u << 20;

class CsvSource final : public RecordSource {
  public:
    explicit CsvSource(LineReader lines) : lines_(std::move(lines)) {}

    Result<bool> read_header(const std::string& name);
    Result<std::uint32_t> resolve(std::string_view path) override;
    Result<bool> next() override;
    Result<Field> find(std::uint32_t path, FieldForm form) override;
    std::string_view text() const override { return record_; }
    std::uint64_t line() const override { return first_line_; }
    std::string_view preamble() const override { return header_text_; }
    std::uint64_t bytes_read() const override { return lines_.bytes_read(); }
    std::uint64_t bytes_total() const override { return lines_.bytes_total(); }

  private:
    Result<bool> read_record();

    LineReader lines_;
    std::string header_text_;
    std::vector<std::string> header_;
    std::string record_;
    std::vector<std::string> fields_;
    std::uint64_t first_line_ = 0;
};

// One record into record_ and fields_, over as many lines as its quotes span.
Result<bool> CsvSource::read_record() {
    record_.clear();
    first_line_ = lines_.line() + 1;
    std::string_view line;
    for (;;) {
        auto more = lines_.next(line);
        if (!more) return more;
        if (!*more && record_.empty()) return false;
        if (!*more) return {Error::kInvalid, "a quoted field is not closed before the file ends"};
        record_ += line;
        const bool carriage_return = record_.ends_with('\r');
        const std::size_t length = record_.size() - (carriage_return ? 1 : 0);
        const CsvScan scan = scan_csv(std::string_view(record_).substr(0, length), fields_);
        if (scan != CsvScan::kOpen && carriage_return) record_.pop_back();
        if (scan == CsvScan::kComplete) return true;
        if (scan == CsvScan::kStray) {
            return {Error::kInvalid,
                    "a quote inside a field; write the field in quotes and the "
                    "quote twice"};
        }
        if (record_.size() > kRecordBytesMax) {
            return {Error::kInvalid, "a quoted field is not closed within 1 MiB"};
        }
        record_ += '\n';
    }
}

Result<bool> CsvSource::read_header(const std::string& name) {
    auto more = read_record();
    if (!more && more.error() == Error::kInvalid) {
        return {Error::kInvalid, name + ":1: " + more.failure().what};
    }
    if (!more) return more;
    if (!*more) return {Error::kInvalid, name + ": is empty; a CSV file begins with a header line"};
    constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
    header_text_ = record_;
    header_ = fields_;
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

Result<Field> CsvSource::find(std::uint32_t path, FieldForm) {
    const std::string& text = fields_[path];
    return Field{text.empty(), text};
}

}  // namespace

CsvScan scan_csv(std::string_view text, std::vector<std::string>& fields) {
    std::size_t at = 0;
    // Strings of the record before are written over: most have the memory already.
    for (std::size_t count = 1;; ++count) {
        if (fields.size() < count) fields.emplace_back();
        std::string& field = fields[count - 1];
        if (at < text.size() && text[at] == '"') {
            field.clear();
            for (++at;; at += 2) {
                const std::size_t quote = text.find('"', at);
                if (quote == std::string_view::npos) return CsvScan::kOpen;
                field += text.substr(at, quote - at);
                at = quote;
                if (at + 1 >= text.size() || text[at + 1] != '"') break;
                field += '"';
            }
            ++at;
        } else {
            const std::size_t comma = std::min(text.find(',', at), text.size());
            field = text.substr(at, comma - at);
            at = comma;
            if (field.find('"') != std::string::npos) return CsvScan::kStray;
        }
        if (at == text.size()) {
            fields.resize(count);
            return CsvScan::kComplete;
        }
        if (text[at] != ',') return CsvScan::kStray;
        ++at;
    }
}

Result<std::unique_ptr<RecordSource>> make_csv_source(LineReader lines, const std::string& name) {
    auto source = std::make_unique<CsvSource>(std::move(lines));
    auto header = source->read_header(name);
    if (!header) return header.failure();
    return std::unique_ptr<RecordSource>(std::move(source));
}

}  // namespace bidstore
