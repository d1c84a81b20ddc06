// What the tool prints: aligned tables for people, one JSON object per line for programs.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bidstore {

// In double quotes, escaped; bytes that are not UTF-8 become U+FFFD.
std::string json_string(std::string_view text);

// An object, member by member.
class JsonLine {
  public:
    JsonLine& text(std::string_view name, std::string_view value);
    JsonLine& number(std::string_view name, std::uint64_t value);
    // JSON as it is: a number, an object, an array.
    JsonLine& raw(std::string_view name, std::string_view json);
    std::string str() const { return "{" + members_ + "}"; }

  private:
    std::string members_;
};

// Columns as wide as their widest cell, two spaces apart.
class TextTable {
  public:
    // A name that begins with '>' (not printed) aligns its column to the right.
    explicit TextTable(std::vector<std::string> header);
    void add(std::vector<std::string> cells);
    bool empty() const { return rows_.empty(); }
    // Forgets the rows but keeps the widths, so that what follows lines up.
    void clear() { rows_.clear(); }
    std::string str(bool with_header) const;

  private:
    std::string line(const std::vector<std::string>& cells) const;
    std::vector<std::string> header_;
    std::vector<bool> right_;
    std::vector<std::size_t> widths_;
    std::vector<std::vector<std::string>> rows_;
};

// What has passed, for a line about it.
double seconds_since(std::chrono::steady_clock::time_point start);

// At most `width` characters, the last one "…" when something was cut; control characters as '.'.
std::string clipped(std::string_view text, std::size_t width);

}  // namespace bidstore
