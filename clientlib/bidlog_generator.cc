// bidstore-genlog: writes a made-up bid log (see bidlog.h) to a file or standard output.

#include <unistd.h>
#include <zlib.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "clientlib/bidlog.h"

namespace {

// "-" is standard output; ".gz" at the end of the name compresses.
class Output {
  public:
    explicit Output(const std::string& path) {
        const bool compress = path.ends_with(".gz");
        // "T": zlib writes the bytes as they are.
        file_ = path == "-" ? gzdopen(dup(1), "wT") : gzopen(path.c_str(), compress ? "wb" : "wT");
        if (file_ != nullptr) gzbuffer(file_, 256u << 10);
    }
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;
    ~Output() { close(); }

    bool open() const { return file_ != nullptr; }
    bool write(std::string_view text) {
        return gzwrite(file_, text.data(), static_cast<unsigned>(text.size())) ==
               static_cast<int>(text.size());
    }
    bool close() {
        const bool good = file_ == nullptr || gzclose(file_) == Z_OK;
        file_ = nullptr;
        return good;
    }

  private:
    gzFile file_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Writes a made-up log of bid requests, one JSON object per line, with the shape\n"
                 "of a captured one. The same seed gives the same log.", "bidstore-genlog"};
    bidstore::BidLogOptions options;
    std::uint64_t rows = 20'000;
    std::uint64_t start_seconds = options.start_us / 1'000'000;
    std::string path = "-";
    app.add_option("--rows", rows, "How many requests")->capture_default_str();
    app.add_option("--seed", options.seed, "What it is made from")->capture_default_str();
    app.add_option("--start", start_seconds, "Time of the first, seconds since 1970")
        ->capture_default_str();
    app.add_option("--rate", options.requests_per_second, "Requests a second")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("FILE", path, "Where to; a name ending in .gz is compressed")
        ->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    options.start_us = start_seconds * 1'000'000;

    bidstore::BidLog log(options);
    Output output(path);
    bool good = output.open();
    for (std::uint64_t i = 0; good && i < rows; ++i) {
        good = output.write(std::string(log.next()) + "\n");
    }
    if (good && output.close()) return 0;
    std::fprintf(stderr, "bidstore-genlog: %s: %s\n", path.c_str(), std::strerror(errno));
    return 5;
}
