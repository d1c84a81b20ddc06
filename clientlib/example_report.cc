#include "clientlib/example_report.h"

#include <fstream>
#include <sstream>

#include "shm/stats.h"

namespace example {

std::string hex(const Id& id) {
    std::string text;
    for (const std::uint8_t byte : id.data) {
        text += "0123456789abcdef"[byte >> 4];
        text += "0123456789abcdef"[byte & 15];
    }
    return text;
}

Id parse_hex(std::string_view text) {
    Id id;
    for (std::size_t i = 0; i < 32 && text.size() == 32; ++i) {
        const std::size_t digit = std::string_view("0123456789abcdef").find(text[i]);
        if (digit == std::string_view::npos) return {};
        id.data[i / 2] = static_cast<std::uint8_t>(id.data[i / 2] << 4 | digit);
    }
    return id;
}

void Latency::add(std::uint64_t ns) { ++buckets_[bidstore::histogram_bucket(ns)]; }

std::uint64_t Latency::count() const {
    std::uint64_t sum = 0;
    for (const auto& [bucket, count] : buckets_) sum += count;
    return sum;
}

double Latency::quantile_us(double share) const {
    const double wanted = share * static_cast<double>(count());
    double below = 0;
    for (const auto& [bucket, count] : buckets_) {
        const auto here = static_cast<double>(count);
        if (below + here >= wanted) {
            const auto first = static_cast<double>(bidstore::histogram_bucket_first(bucket));
            const auto last = static_cast<double>(bidstore::histogram_bucket_first(bucket + 1));
            return (first + (last - first) * (wanted - below) / here) / 1e3;
        }
        below += here;
    }
    return 0;
}

bool Measurements::write(const std::string& path) const {
    std::ofstream file(path);
    file.precision(17);
    for (const auto& [name, number] : numbers) file << name << ' ' << number << '\n';
    for (const auto& [name, latency] : latencies) {
        for (const auto& [bucket, count] : latency.buckets()) {
            file << name << ' ' << bucket << ' ' << count << '\n';
        }
    }
    file.flush();
    return file.good();
}

bool Measurements::merge(const std::string& path) {
    std::ifstream file(path);
    if (!file) return false;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string name;
        double first = 0;
        std::uint64_t count = 0;
        words >> name >> first;
        if (words >> count) {
            latencies[name].merge(static_cast<std::uint32_t>(first), count);
        } else {
            numbers[name] += first;
        }
    }
    return true;
}

}  // namespace example
