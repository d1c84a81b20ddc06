#include "clientlib/load_lines.h"

#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace bidstore {
namespace {

// A record that gives no rows.
struct RefusedRecord {
    std::size_t rows_before = 0;
    std::uint64_t line = 0;  // in the block
    std::string text;
    Failure reason;
};

// What became of a block. Used again.
struct MappedBlock {
    std::uint64_t number = 0;
    std::uint64_t bytes_read = 0;  // of the file when the block was read
    Failure unreadable;            // instead of a block

    std::vector<std::byte> rows;
    std::vector<std::size_t> ends;     // of each row in `rows`
    std::vector<std::uint64_t> lines;  // in the block
    std::vector<RefusedRecord> refused;
    std::uint64_t records = 0;
    std::uint64_t line_count = 0;
};

// What one thread has for itself.
class BlockMapper {
  public:
    static Result<BlockMapper> make(const LineLoad& load) {
        BlockMapper made(load.schema.has_variable(), load.source.for_blocks());
        const Schema* const schemas[] = {&load.schema};
        auto mapper = RowMapper::make(load.mapping, schemas, *made.source_);
        if (!mapper) return mapper.failure();
        made.mapper_ = std::make_unique<RowMapper>(std::move(*mapper));
        return made;
    }

    void map(TextBlock& text, MappedBlock& block);

  private:
    BlockMapper(bool variable, std::unique_ptr<RecordSource> source)
        : variable_(variable), source_(std::move(source)) {}
    void pack(const MappedRow& row, MappedBlock& block) const;

    bool variable_;
    std::unique_ptr<RecordSource> source_;
    std::unique_ptr<RowMapper> mapper_;
};

void BlockMapper::pack(const MappedRow& row, MappedBlock& block) const {
    if (variable_) {
        const auto value_bytes = static_cast<std::uint32_t>(row.value.size());
        const auto bytes = std::as_bytes(std::span(&value_bytes, 1));
        block.rows.insert(block.rows.end(), bytes.begin(), bytes.end());
    }
    block.rows.insert(block.rows.end(), row.key.begin(), row.key.end());
    block.rows.insert(block.rows.end(), row.value.begin(), row.value.end());
    block.ends.push_back(block.rows.size());
    block.lines.push_back(source_->line());
}

void BlockMapper::map(TextBlock& text, MappedBlock& block) {
    block.rows.clear();
    block.ends.clear();
    block.lines.clear();
    block.refused.clear();
    block.records = 0;
    source_->begin(text);
    for (;;) {
        auto more = source_->next();
        if (more.ok() && !*more) break;
        ++block.records;
        Failure reason = more.ok() ? Failure{} : more.failure();
        if (more.ok()) {
            auto rows = mapper_->map();
            if (!rows)
                reason = rows.failure();
            else
                for (const MappedRow& row : *rows) pack(row, block);
        }
        if (reason.code == Error::kOk) continue;
        block.refused.push_back(
            {block.ends.size(), source_->line(), std::string(source_->text()), std::move(reason)});
    }
    block.line_count = source_->lines_read();
}

// Threads that take blocks of one source in turn and give their rows in the same order.
class BlockLine {
  public:
    explicit BlockLine(const LineLoad& load)
        : load_(load), lines_before_(load.source.lines_read()) {}

    // Without memory the process ends: others wait for this thread's turn.
    void work(BlockMapper& mapper) noexcept {
        TextBlock text;
        MappedBlock block;
        while (take(text, block)) {
            if (block.unreadable.code == Error::kOk) mapper.map(text, block);
            if (!give_in_turn(block)) return;
        }
    }
    Status status() const { return status_; }  // after all threads

  private:
    bool take(TextBlock& text, MappedBlock& block);
    bool give_in_turn(MappedBlock& block);
    Status give(MappedBlock& block);
    Status give_rows(MappedBlock& block, std::size_t from, std::size_t to);

    const LineLoad& load_;
    std::mutex reading_;  // of the source and the next two
    std::uint64_t taken_ = 0;
    bool ended_ = false;  // or no more blocks are wanted

    std::mutex giving_;  // of the rest, sink and refusals
    std::condition_variable turn_;
    std::uint64_t given_ = 0;
    std::uint64_t lines_before_;
    Status status_;
};

// False: there are no more, or none are wanted.
bool BlockLine::take(TextBlock& text, MappedBlock& block) {
    const std::lock_guard lock(reading_);
    if (ended_) return false;
    auto more = load_.source.next_block(text);
    ended_ = !more || !*more;
    if (more.ok() && !*more) return false;
    block.unreadable = more.ok() ? Failure{} : more.failure();
    block.number = taken_++;
    block.bytes_read = load_.source.bytes_read();
    return true;
}

// False: the load is over.
bool BlockLine::give_in_turn(MappedBlock& block) {
    {
        std::unique_lock lock(giving_);
        // Blocks in front of this one are with threads that work on them.
        turn_.wait(lock, [&] { return given_ == block.number || !status_; });
        if (!status_) return false;
        status_ = give(block);
        ++given_;
        turn_.notify_all();
        if (status_) return true;
    }
    const std::lock_guard lock(reading_);
    ended_ = true;
    return false;
}

Status BlockLine::give(MappedBlock& block) {
    if (block.unreadable.code != Error::kOk) {
        return load_.source.cannot_go_on(block.unreadable, lines_before_);
    }
    for (std::uint64_t& line : block.lines) line += lines_before_;
    ImportTotals& totals = load_.totals;
    totals.records += block.records;
    std::size_t given = 0;
    for (const RefusedRecord& record : block.refused) {
        if (Status written = give_rows(block, given, record.rows_before); !written) return written;
        given = record.rows_before;
        Status go_on = load_.refusals.refuse(lines_before_ + record.line, record.text,
                                             record.reason, load_.source.preamble());
        if (!go_on) return go_on;
    }
    if (Status written = give_rows(block, given, block.ends.size()); !written) return written;
    lines_before_ += block.line_count;
    totals.refused = load_.refusals.count();
    totals.bytes_read = block.bytes_read;
    if (load_.progress) load_.progress(totals);
    return {};
}

Status BlockLine::give_rows(MappedBlock& block, std::size_t from, std::size_t to) {
    if (from == to) return {};
    load_.totals.rows += to - from;
    const std::size_t begin = from == 0 ? 0 : block.ends[from - 1];
    const auto rows = std::span(block.rows).subspan(begin, block.ends[to - 1] - begin);
    return load_.sink.write(rows, std::span(block.lines).subspan(from, to - from));
}

}  // namespace

Status load_lines(const LineLoad& load, unsigned threads) {
    CHECK(threads > 0 && threads <= kLoadThreadsMax);
    load.totals.bytes_total = load.source.bytes_total();
    std::vector<BlockMapper> mappers;
    for (unsigned i = 0; i < threads; ++i) {
        auto mapper = BlockMapper::make(load);
        if (!mapper) return mapper.failure();
        mappers.push_back(std::move(*mapper));
    }
    BlockLine line(load);
    {
        std::vector<std::jthread> others;
        for (unsigned i = 1; i < threads; ++i) {
            try {
                others.emplace_back([&line, &mapper = mappers[i]] { line.work(mapper); });
            } catch (const std::system_error&) {
                break;  // no more threads for this user: those that are there do it
            }
        }
        line.work(mappers.front());
    }
    Status logged = load.refusals.finish();
    load.totals.refused = load.refusals.count();
    return line.status().ok() ? logged : line.status();
}

}  // namespace bidstore
