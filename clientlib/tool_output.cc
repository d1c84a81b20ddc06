#include "clientlib/tool_output.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "clientlib/import_json.h"

namespace bidstore {
namespace {

bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Characters, not bytes, so that columns line up.
std::size_t width_of(std::string_view text) {
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return !continues_character(c); }));
}

}  // namespace

std::string json_string(std::string_view text) {
    const bool utf8 = valid_utf8(text);
    std::string out = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out.append(1, '\\').append(1, c);
        } else if (byte < 0x20) {
            std::array<char, 8> escaped{};
            std::snprintf(escaped.data(), escaped.size(), "\\u%04x", byte);
            out += escaped.data();
        } else if (byte >= 0x80 && !utf8) {
            out += "\\ufffd";
        } else {
            out += c;
        }
    }
    return out + "\"";
}

JsonLine& JsonLine::raw(std::string_view name, std::string_view json) {
    if (!members_.empty()) members_ += ",";
    members_.append(json_string(name)).append(":").append(json);
    return *this;
}

JsonLine& JsonLine::text(std::string_view name, std::string_view value) {
    return raw(name, json_string(value));
}

JsonLine& JsonLine::number(std::string_view name, std::uint64_t value) {
    return raw(name, std::to_string(value));
}

TextTable::TextTable(std::vector<std::string> header) : header_(std::move(header)) {
    for (std::string& name : header_) {
        right_.push_back(name.starts_with('>'));
        if (right_.back()) name.erase(0, 1);
        widths_.push_back(width_of(name));
    }
}

void TextTable::add(std::vector<std::string> cells) {
    cells.resize(header_.size());
    for (std::size_t i = 0; i < cells.size(); ++i) {
        widths_[i] = std::max(widths_[i], width_of(cells[i]));
    }
    rows_.push_back(std::move(cells));
}

std::string TextTable::line(const std::vector<std::string>& cells) const {
    std::string out;
    for (std::size_t i = 0; i < cells.size(); ++i) {
        const std::size_t width = width_of(cells[i]);
        const std::string space(widths_[i] > width ? widths_[i] - width : 0, ' ');
        out += right_[i] ? space + cells[i] : cells[i] + space;
        out += "  ";
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return out + "\n";
}

std::string TextTable::str(bool with_header) const {
    std::string out = with_header ? line(header_) : "";
    for (const auto& row : rows_) out += line(row);
    return out;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string clipped(std::string_view text, std::size_t width) {
    std::string out;
    std::size_t characters = 0;
    for (const char c : text) {
        if (!continues_character(c) && ++characters > width) {
            while (continues_character(out.back())) out.pop_back();
            out.pop_back();
            return out + "…";
        }
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '.' : c;
    }
    return out;
}

}  // namespace bidstore
