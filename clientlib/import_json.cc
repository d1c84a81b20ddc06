#include "clientlib/import_json.h"

#include <simdjson.h>

#include <array>
#include <charconv>
#include <utility>
#include <vector>

#include "clientlib/import_decode.h"

namespace bidstore {
namespace {

namespace ondemand = simdjson::ondemand;

// One step of a path: a member's name, or an index into an array.
struct PathStep {
    std::string member;
    std::size_t index = 0;
    bool is_index = false;
};
using Path = std::vector<PathStep>;

Failure malformed(std::string_view path) {
    return {Error::kInvalid, "path \"" + std::string(path) +
                                 "\": write member names with dots and [0] for the first element "
                                 "of an array, as in spots[0].formats"};
}

// Reads "[12]" at the front of `rest`.
bool read_index(std::string_view& rest, std::size_t& index) {
    const char* end_of_text = rest.data() + rest.size();
    const auto [end, error] = std::from_chars(rest.data() + 1, end_of_text, index);
    if (error != std::errc() || end == end_of_text || *end != ']') return false;
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()) + 1);
    return true;
}

Result<Path> parse_path(std::string_view text) {
    Path path;
    std::string_view rest = text;
    bool name_wanted = true;
    while (name_wanted || !rest.empty()) {
        PathStep step;
        if (!name_wanted && rest.front() == '[') {
            step.is_index = true;
            if (!read_index(rest, step.index)) return malformed(text);
        } else {
            if (!name_wanted && rest.front() != '.') return malformed(text);
            if (!name_wanted) rest.remove_prefix(1);
            step.member = rest.substr(0, rest.find_first_of(".["));
            if (step.member.empty()) return malformed(text);
            rest.remove_prefix(step.member.size());
        }
        name_wanted = false;
        path.push_back(std::move(step));
    }
    return path;
}

std::string_view trim(std::string_view token) {
    while (!token.empty() && (token.back() == ' ' || token.back() == '\t' || token.back() == '\r' ||
                              token.back() == '\n')) {
        token.remove_suffix(1);
    }
    return token;
}

class JsonSource final : public RecordSource {
  public:
    explicit JsonSource(LineReader lines) : lines_(std::move(lines)) {}

    Result<std::uint32_t> resolve(std::string_view path) override;
    Result<bool> next() override;
    Status find(std::uint32_t path, FieldForm form, Field& field) override;
    std::string_view text() const override { return line_; }
    std::uint64_t line() const override { return lines_.line(); }
    Result<bool> next_block(TextBlock& block) override { return lines_.next_block(block); }
    std::unique_ptr<RecordSource> for_blocks() const override {
        return make_json_source(LineReader());
    }
    void begin(TextBlock& block) override { lines_.begin(block); }
    std::uint64_t lines_read() const override { return lines_.line(); }
    Failure cannot_go_on(const Failure& reason, std::uint64_t line) const override {
        return lines_.cannot_go_on(reason, line);
    }
    std::uint64_t bytes_read() const override { return lines_.bytes_read(); }
    std::uint64_t bytes_total() const override { return lines_.bytes_total(); }

  private:
    Result<bool> check_line();
    bool find_plain(const Path& path, Field& field);
    Status find_as_written(const Path& path, FieldForm form, Field& field);
    simdjson::error_code walk(const Path& path, ondemand::value& value);
    simdjson::error_code read(ondemand::value value, FieldForm form, Field& field);
    simdjson::error_code join(ondemand::array list, Field& field);
    simdjson::error_code scalar(ondemand::value value, Field& field);

    LineReader lines_;
    std::string_view line_;  // where it was read
    std::vector<Path> paths_;
    simdjson::dom::parser checker_;  // proves the whole line, and gives what needs no second look
    simdjson::dom::element root_;
    ondemand::parser parser_;  // gives numbers and parts of the line as they are written
    ondemand::document document_;
    bool parsed_again_ = false;  // document_ is of this line
    std::array<char, 24> digits_{};
    std::string joined_;
};

Result<std::uint32_t> JsonSource::resolve(std::string_view path) {
    auto parsed = parse_path(path);
    if (!parsed) return parsed.failure();
    paths_.push_back(std::move(*parsed));
    return static_cast<std::uint32_t>(paths_.size() - 1);
}

Result<bool> JsonSource::next() {
    do {
        auto more = lines_.next(line_);
        if (!more || !*more) return more;
        if (line_.ends_with('\r')) line_.remove_suffix(1);
    } while (line_.empty() || line_.front() == '#');
    return check_line();
}

Result<bool> JsonSource::check_line() {
    static_assert(kLinePaddingBytes >= simdjson::SIMDJSON_PADDING);
    parsed_again_ = false;
    // realloc_if_needed = false: the padding is there.
    if (const auto error = checker_.parse(line_.data(), line_.size(), false).get(root_)) {
        return {Error::kInvalid, std::string("not JSON: ") + simdjson::error_message(error)};
    }
    if (!root_.is_object()) return {Error::kInvalid, "not a JSON object: " + in_quotes(line_)};
    return true;
}

// Strings, booleans, null, what is not there, and integers, which have but one way to be written.
// False: it takes a second look.
bool JsonSource::find_plain(const Path& path, Field& field) {
    namespace dom = simdjson::dom;
    dom::element value = root_;
    for (const PathStep& step : path) {
        simdjson::error_code error{};
        if (step.is_index) {
            dom::array list;
            error = value.get_array().get(list);
            if (!error) error = list.at(step.index).get(value);
        } else {
            dom::object object;
            error = value.get_object().get(object);
            if (!error) error = object.at_key(step.member).get(value);
        }
        // A member of something that is no object (null, say) is as missing as one not there.
        if (error) return true;
    }
    switch (value.type()) {
        case dom::element_type::STRING:
            field.missing = false;
            return !value.get_string().get(field.text);
        case dom::element_type::INT64:
        case dom::element_type::UINT64: {
            char* const end = digits_.data() + digits_.size();
            const bool is_signed = value.type() == dom::element_type::INT64;
            const auto written = is_signed
                                     ? std::to_chars(digits_.data(), end, std::int64_t{value})
                                     : std::to_chars(digits_.data(), end, std::uint64_t{value});
            field = {false, {digits_.data(), written.ptr}};
            return field.text != "0";  // it may be written as -0
        }
        case dom::element_type::BOOL:
            field = {false, bool{value} ? "true" : "false"};
            return true;
        case dom::element_type::NULL_VALUE:
            return true;
        case dom::element_type::ARRAY:
        case dom::element_type::OBJECT:
        case dom::element_type::DOUBLE:
            return false;
    }
    return false;
}

simdjson::error_code JsonSource::walk(const Path& path, ondemand::value& value) {
    document_.rewind();
    if (const auto error = document_.get_value().get(value)) return error;
    for (const PathStep& step : path) {
        if (step.is_index) {
            ondemand::array list;
            if (const auto error = value.get_array().get(list)) return error;
            if (const auto error = list.at(step.index).get(value)) return error;
        } else {
            ondemand::object object;
            if (const auto error = value.get_object().get(object)) return error;
            if (const auto error = object.find_field_unordered(step.member).get(value)) {
                return error;
            }
        }
    }
    return simdjson::SUCCESS;
}

simdjson::error_code JsonSource::scalar(ondemand::value value, Field& field) {
    ondemand::json_type type{};
    if (const auto error = value.type().get(type)) return error;
    field.missing = type == ondemand::json_type::null;
    if (field.missing) return simdjson::SUCCESS;
    if (type == ondemand::json_type::string) return value.get_string().get(field.text);
    if (type == ondemand::json_type::array || type == ondemand::json_type::object) {
        return simdjson::INCORRECT_TYPE;
    }
    field.text = trim(value.raw_json_token());
    return simdjson::SUCCESS;
}

simdjson::error_code JsonSource::join(ondemand::array list, Field& field) {
    joined_.clear();
    for (auto element : list) {
        ondemand::value value;
        Field part;
        if (const auto error = element.get(value)) return error;
        if (const auto error = scalar(value, part)) return error;
        if (!joined_.empty()) joined_ += ',';
        joined_ += part.text;
    }
    field = {false, joined_};
    return simdjson::SUCCESS;
}

simdjson::error_code JsonSource::read(ondemand::value value, FieldForm form, Field& field) {
    if (form == FieldForm::kJson) {
        field.missing = false;
        return simdjson::to_json_string(value).get(field.text);
    }
    ondemand::json_type type{};
    if (const auto error = value.type().get(type)) return error;
    if (form == FieldForm::kList && type == ondemand::json_type::array) {
        ondemand::array list;
        if (const auto error = value.get_array().get(list)) return error;
        return join(list, field);
    }
    return scalar(value, field);
}

Status JsonSource::find(std::uint32_t path, FieldForm form, Field& field) {
    field = {};
    if (form != FieldForm::kJson && find_plain(paths_[path], field)) return {};
    return find_as_written(paths_[path], form, field);
}

Status JsonSource::find_as_written(const Path& path, FieldForm form, Field& field) {
    field = {};
    if (!parsed_again_) {
        const simdjson::padded_string_view padded(line_.data(), line_.size(),
                                                  line_.size() + kLinePaddingBytes);
        if (const auto error = parser_.iterate(padded).get(document_)) {
            return {Error::kInvalid, std::string("not JSON: ") + simdjson::error_message(error)};
        }
        parsed_again_ = true;
    }
    ondemand::value value;
    auto error = walk(path, value);
    if (error == simdjson::NO_SUCH_FIELD || error == simdjson::INDEX_OUT_OF_BOUNDS ||
        error == simdjson::INCORRECT_TYPE) {
        return {};
    }
    if (!error) error = read(value, form, field);
    if (error == simdjson::INCORRECT_TYPE) {
        return {Error::kInvalid, "is an array or object; decode it as \"list\" or \"json\""};
    }
    if (error) return {Error::kInvalid, simdjson::error_message(error)};
    return {};
}

}  // namespace

std::unique_ptr<RecordSource> make_json_source(LineReader lines) {
    return std::make_unique<JsonSource>(std::move(lines));
}

bool valid_utf8(std::string_view text) { return simdjson::validate_utf8(text); }

}  // namespace bidstore
