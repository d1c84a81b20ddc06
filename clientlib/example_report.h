// What the example's processes leave in a directory outside the store: a journal of what was
// acknowledged to them, and their measurements.
//
//   NAME.journal   "+ number user advertiser price" for an acknowledged win, "? ..." for one whose
//                  outcome stayed unknown, "+ time auction" for an acknowledged request
//   NAME.result    "key value" per line; histograms as "key bucket count"
//
// Who: each process writes its own files; the audit reads all of them.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "clientlib/example_tables.h"

namespace example {

std::string hex(const Id& id);
// All 32 digits, or zeros when there are others.
Id parse_hex(std::string_view text);

// Nanoseconds in buckets of a quarter of a power of two.
class Latency {
  public:
    void add(std::uint64_t ns);
    void merge(std::uint32_t bucket, std::uint64_t count) { buckets_[bucket] += count; }
    std::uint64_t count() const;
    // The value below which `share` (0 to 1) of them lie, in microseconds; 0 without any.
    double quantile_us(double share) const;
    const std::map<std::uint32_t, std::uint64_t>& buckets() const { return buckets_; }

  private:
    std::map<std::uint32_t, std::uint64_t> buckets_;
};

// The measurements of one process, or of several added up.
struct Measurements {
    std::map<std::string, double> numbers;
    std::map<std::string, Latency> latencies;

    bool write(const std::string& path) const;
    bool merge(const std::string& path);
};

// Lines of acknowledged writes; in the file once flush() says so.
class Journal {
  public:
    explicit Journal(const std::string& path) : file_(std::fopen(path.c_str(), "we")) {}
    bool open() const { return file_ != nullptr; }
    bool line(const std::string& text) {
        return std::fprintf(file_.get(), "%s\n", text.c_str()) > 0;
    }
    bool flush() { return std::fflush(file_.get()) == 0; }

  private:
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace example
