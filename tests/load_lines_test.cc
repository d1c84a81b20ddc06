// Lines of several blocks by several threads: what reaches the sink is what one thread would give.
#include "clientlib/load_lines.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "clientlib/import_csv.h"
#include "clientlib/load_rows.h"
#include "tests/processes.h"

namespace bidstore {
namespace {

// A line's own number is its key, so that a row tells where it came from.
constexpr char kMapping[] = R"([[table]]
name = "t"
key = ["k"]
columns = [
    { name = "k", type = "u64", path = "k" },
    { name = "s", type = "text", path = "s" },
])";

struct Row {
    std::uint64_t key = 0;
    std::uint64_t line = 0;
    std::size_t text_bytes = 0;
    friend bool operator==(const Row&, const Row&) = default;
};

class Sink final : public PackedSink {
  public:
    Sink(const Schema& schema, std::uint64_t fail_at, std::chrono::microseconds pause)
        : schema_(schema), fail_at_(fail_at), pause_(pause) {}
    Status write(std::span<const std::byte> packed, std::span<const std::uint64_t> lines) override {
        for (const std::uint64_t line : lines) {
            if (line == fail_at_) return {Error::kNoSpace, "no room"};
            const PackedRow row = take_row(schema_, packed);
            rows.push_back({column_integer(schema_, 0, row.key.data(), row.value), line,
                            column_bytes(schema_, 1, row.key.data(), row.value).size()});
        }
        EXPECT_TRUE(packed.empty());
        std::this_thread::sleep_for(pause_);
        return {};
    }
    std::vector<Row> rows;

  private:
    const Schema& schema_;
    const std::uint64_t fail_at_;
    const std::chrono::microseconds pause_;
};

std::string line_of(std::uint64_t number, std::size_t text_bytes = 90) {
    return "{\"k\":" + std::to_string(number) + ",\"s\":\"" + std::string(text_bytes, 'x') +
           "\"}\n";
}
std::string lines_of(std::uint64_t from, std::uint64_t to) {
    std::string text;
    for (std::uint64_t i = from; i <= to; ++i) text += line_of(i);
    return text;
}
constexpr std::uint64_t kLines = 20'000;  // some eight blocks

std::size_t threads_now() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& each :
         std::filesystem::directory_iterator("/proc/self/task")) {
        ++count;
    }
    return count;
}
// The kernel's list may still have one that was joined a moment ago.
bool only_threads(std::size_t count) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (threads_now() > count && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return threads_now() <= count;
}

class LoadLines : public testing::TestWithParam<unsigned> {
  protected:
    // A sanitizer's own thread begins with the first one.
    static void SetUpTestSuite() {
        std::thread([] {}).join();
    }
    std::string write_file(const std::string& name, const std::string& content) {
        std::ofstream(work_.file(name), std::ios::binary) << content;
        return work_.file(name);
    }
    // Of a file that was written; rows, totals and the status stay.
    Status load(const std::string& path, const std::string& errors = "stop",
                std::uint64_t fail_at = 0, std::chrono::microseconds pause = {}) {
        auto mapping = parse_mapping(kMapping, "mapping");
        auto schema = mapping_schema(mapping->tables.front());
        auto source = open_source(path, SourceFormat::kByName);
        auto refusals = RefusalLog::make(errors, "log");
        if (!source || !refusals) return {Error::kIoError, "not opened"};
        Sink sink(*schema, fail_at, pause);
        totals_ = {};
        const std::size_t threads = threads_now();
        const Status status =
            load_lines({**source, *mapping, *schema, sink, *refusals, totals_}, GetParam());
        EXPECT_TRUE(only_threads(threads)) << "a thread is left";
        rows_ = std::move(sink.rows);
        return status;
    }
    // Rows of the lines in order, but for those that are left out.
    void expect_rows(std::uint64_t to, const std::vector<std::uint64_t>& without = {}) {
        std::size_t at = 0;
        for (std::uint64_t line = 1; line <= to; ++line) {
            if (std::find(without.begin(), without.end(), line) != without.end()) continue;
            ASSERT_LT(at, rows_.size()) << "line " << line;
            ASSERT_EQ(rows_[at].line, line);
            ASSERT_EQ(rows_[at].key, line);
            ++at;
        }
        EXPECT_EQ(at, rows_.size());
    }

    WorkDirectory work_;
    ImportTotals totals_;
    std::vector<Row> rows_;
};

TEST_P(LoadLines, KeepTheirOrderAcrossBlocks) {
    const Status status =
        load(write_file("log", lines_of(1, kLines)), "stop", 0, std::chrono::microseconds(300));
    ASSERT_TRUE(status.ok()) << status.failure().what;
    expect_rows(kLines);
    EXPECT_EQ(totals_.records, kLines);
    EXPECT_EQ(totals_.rows, kLines);
    EXPECT_EQ(totals_.refused, 0u);
    EXPECT_EQ(totals_.bytes_read, totals_.bytes_total);
}

TEST_P(LoadLines, MayBeLongerThanABlock) {
    const std::string text =
        lines_of(1, 100) + line_of(101, 900'000) + line_of(102, 700'000) + lines_of(103, kLines);
    const Status status = load(write_file("log", text));
    ASSERT_TRUE(status.ok()) << status.failure().what;
    expect_rows(kLines);
    EXPECT_EQ(rows_[100].text_bytes, 900'000u);
    EXPECT_EQ(rows_[101].text_bytes, 700'000u);
    EXPECT_EQ(rows_[102].text_bytes, 90u);
}

TEST_P(LoadLines, ThatAreTooLongArePassedOverAndCounted) {
    const std::string first(kLineBytesMax + kTextBlockBytes * 2, 'x');
    const std::string second(kLineBytesMax + 1, 'y');
    const std::string text = lines_of(1, 5) + first + "\n" + lines_of(7, kLines) + second + "\n";
    const Status status = load(write_file("log", text), work_.file("refused"));
    ASSERT_TRUE(status.ok()) << status.failure().what;
    expect_rows(kLines, {6});
    EXPECT_EQ(read_whole_file(work_.file("refused")),
              "# log:6: line longer than 16777216 bytes\n\n"
              "# log:20001: line longer than 16777216 bytes\n\n");
}

TEST_P(LoadLines, NamesBadOnesOfEveryBlock) {
    std::string text, refused;
    std::vector<std::uint64_t> bad;
    for (std::uint64_t line = 1; line <= kLines; ++line) {
        if (line % 997 != 0) {
            text += line_of(line);
            continue;
        }
        text += "{\"k\":\"x\"}\n";
        bad.push_back(line);
        refused += "# log:" + std::to_string(line) +
                   ": column k: not an integer from 0 to 2^64-1: \"x\"\n{\"k\":\"x\"}\n";
    }
    const std::string log = write_file("log", text);
    const Status skipped = load(log, work_.file("refused"));
    ASSERT_TRUE(skipped.ok()) << skipped.failure().what;
    expect_rows(kLines, bad);
    EXPECT_EQ(read_whole_file(work_.file("refused")), refused);
    EXPECT_EQ(totals_.refused, bad.size());
    EXPECT_EQ(totals_.records, kLines);

    const Status stopped = load(log);
    EXPECT_EQ(stopped.error(), Error::kInvalid);
    EXPECT_TRUE(stopped.failure().what.starts_with("log:997: ")) << stopped.failure().what;
    expect_rows(996);
}

TEST_P(LoadLines, EndWhereTheSinkFails) {
    const std::string log = write_file("log", lines_of(1, kLines));
    for (const std::uint64_t line : {std::uint64_t{1}, kLines / 2, kLines}) {
        const Status status = load(log, "skip", line);
        EXPECT_EQ(status.error(), Error::kNoSpace);
        expect_rows(line - 1);
    }
}

TEST_P(LoadLines, TheLastNeedsNoEnd) {
    std::string text = lines_of(1, kLines);
    text.pop_back();
    ASSERT_TRUE(load(write_file("log", text)).ok());
    expect_rows(kLines);

    text.pop_back();  // in its middle
    const Status cut = load(write_file("log", text));
    EXPECT_EQ(cut.error(), Error::kInvalid);
    EXPECT_TRUE(cut.failure().what.starts_with("log:20000: not JSON: ")) << cut.failure().what;
    expect_rows(kLines - 1);
}

TEST_P(LoadLines, OfACutArchiveEndWithTheLineThatWasGood) {
    const std::string path = work_.file("log.gz");
    gzFile file = gzopen(path.c_str(), "wb0");
    const std::string text = lines_of(1, kLines);
    gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    const Status status = load(path);
    EXPECT_EQ(status.error(), Error::kCorruption);
    ASSERT_GT(rows_.size(), 1000u);
    EXPECT_NE(status.failure().what.find("cannot be read on behind line " +
                                         std::to_string(rows_.size()) + ": "),
              std::string::npos)
        << status.failure().what;
    expect_rows(rows_.size());
}

// Records of three lines each: a block may end in none of them, whatever stands between quotes.
TEST_P(LoadLines, OfCsvRecordsStayTogether) {
    constexpr std::uint64_t kRecords = 8'000;  // some five blocks
    std::string text = "k,s\n";
    std::string middle;
    for (int i = 0; i < 40; ++i) middle += "\"\"x,";
    for (std::uint64_t i = 1; i <= kRecords; ++i) {
        text += std::to_string(i) + ",\"a\r\n" + middle + "\nb\"\r\n";
        if (i == 3000) text += "3000,a\"b\n";  // a stray quote ends with its line
    }
    const Status status = load(write_file("log.csv", text), work_.file("refused"));
    ASSERT_TRUE(status.ok()) << status.failure().what;
    ASSERT_EQ(rows_.size(), kRecords);
    for (std::uint64_t i = 1; i <= kRecords; ++i) {
        const Row expected{i, 2 + (i - 1) * 3 + (i > 3000 ? 1 : 0), 1 + 2 + 120 + 2};
        ASSERT_EQ(rows_[i - 1], expected) << i << ": " << rows_[i - 1].line;
    }
    const std::string refused = read_whole_file(work_.file("refused"));
    EXPECT_NE(refused.find("\nk,s\n# refused: log:9002: a quote"), std::string::npos) << refused;
}

TEST_P(LoadLines, OfAFileOfRefusedCsvRecordsPassOverTheReasons) {
    constexpr std::uint64_t kRecords = 9'000;  // some three blocks
    std::string text = std::string(kRefusedCsvMark) + "\nk,s\n";
    for (std::uint64_t i = 1; i <= kRecords; ++i) {
        text += "# refused: log:7: column k: not an integer: 'x'" + std::string(30, ',') + "\n";
        text += std::to_string(i) + ",\"a\n# b\"\n";
    }
    const Status status = load(write_file("log.csv", text));
    ASSERT_TRUE(status.ok()) << status.failure().what;
    ASSERT_EQ(rows_.size(), kRecords);
    for (std::uint64_t i = 1; i <= kRecords; ++i) {
        ASSERT_EQ(rows_[i - 1], (Row{i, 1 + 3 * i, 5}));
    }
}

INSTANTIATE_TEST_SUITE_P(Threads, LoadLines, testing::Values(1u, 2u, 5u));

}  // namespace
}  // namespace bidstore
