#include "clientlib/large_value.h"

#include <algorithm>

#include "clientlib/snapshot.h"
#include "engine/page/row.h"

namespace bidstore {
namespace {

std::string hex(std::span<const std::byte> bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (const std::byte byte : bytes) {
        text += kDigits[std::to_integer<unsigned>(byte) >> 4];
        text += kDigits[std::to_integer<unsigned>(byte) & 15];
    }
    return text;
}

}  // namespace

// ---- finding it ----

class LargeReader {
  public:
    LargeReader(const RawRow& row, std::uint32_t column)
        : row_(row), state_(*row.reader), table_(*row.table), column_(column) {}

    Result<LargeValue> read() {
        const Schema& schema = table_.schema;
        const ColumnContent content =
            RowView(schema, row_.value).content(schema.variable_index(column_));
        LargeValue value;
        if (!content.is_reference) {
            value.size_bytes_ = static_cast<std::uint32_t>(content.bytes.size());
            if (!content.bytes.empty()) value.spans_.push_back(content.bytes);
            return value;
        }
        const auto reference = ValueReference::load(content.bytes);
        if (!reference) return damaged("its reference is malformed");
        value.size_bytes_ = reference->length_bytes;
        value.crc_ = reference->crc;
        state_.rows_out = true;  // what is found stays, also while others are waited for
        if (Status found = find_pages(*reference); !found.ok()) return found.failure();
        join_pages(value);
        return value;
    }

    // The bytes do not have their checksum, under a snapshot that is still valid.
    Failure damaged(const char* how) const {
        if (!state_.valid()) return expired_failure();
        return {Error::kCorruption, where() + how + "; stop the daemon and verify the data file"};
    }

  private:
    std::string where() const {
        return "table " + table_.schema.name() + ": column " +
               table_.schema.columns()[column_].name + " of key " + hex(row_.key) + ": ";
    }

    // A page found stays where it is until the snapshot ends, also when it is evicted meanwhile: so
    // each has to be found only once.
    Status find_pages(const ValueReference& reference) {
        for (const ExtentRun& run : reference.all_runs()) {
            for (std::uint32_t i = 0; i < run.pages; ++i) ids_.push_back(PageId{run.first + i});
        }
        pages_.resize(ids_.size());
        std::vector<PageId> missing;
        for (;;) {
            missing.clear();
            look(missing);
            if (missing.empty()) return {};
            if (!state_.valid()) return expired_failure();
            const Status came = request_pages(state_, table_, missing, row_.key.data());
            if (came.error() == Error::kNoSuchPage) return damaged("a page of it is not allocated");
            if (!came.ok()) return {came.error(), where() + came.failure().what};
        }
    }

    void look(std::vector<PageId>& missing) {
        const PoolView& pool = state_.connection->pool();
        for (std::size_t i = 0; i < ids_.size(); ++i) {
            if (pages_[i] != nullptr) continue;
            const PageVersion found = extent_page(pool, ids_[i]);
            pages_[i] = found.page;
            if (found.page != nullptr) {
                state_.touches->note(ids_[i], found.entry);
            } else {
                missing.push_back(ids_[i]);
            }
        }
    }

    void join_pages(LargeValue& value) const {
        std::size_t left = value.size_bytes_;
        const std::byte* end = nullptr;
        for (const std::byte* page : pages_) {
            const std::size_t part = std::min(left, kPageBytes);
            if (page == end) {
                auto& last = value.spans_.back();
                last = {last.data(), last.size() + part};
            } else {
                value.spans_.emplace_back(page, part);
            }
            end = page + kPageBytes;
            left -= part;
        }
    }

    const RawRow& row_;
    ReaderState& state_;
    const TableInfo& table_;
    const std::uint32_t column_;
    std::vector<PageId> ids_;
    std::vector<const std::byte*> pages_;
};

// ---- using it ----

void LargeValue::copy_to(std::byte* to) const {
    for (const auto& span : spans_) {
        racy_copy(to, span.data(), span.size());
        to += span.size();
    }
}

std::span<const std::byte> LargeValue::span_or_copy(std::vector<std::byte>& buffer) const {
    if (spans_.empty()) return {};
    if (contiguous()) return spans_.front();
    buffer.resize(size_bytes_);
    copy_to(buffer.data());
    return buffer;
}

bool LargeValue::intact() const {
    if (!crc_) return true;
    std::uint32_t crc = 0;
    for (const auto& span : spans_) crc = crc32c(span.data(), span.size(), crc);
    return crc == *crc_;
}

Result<LargeValue> large_value(const RawRow& row, std::uint32_t column) {
    if (row.reader == nullptr || !row.reader->holding()) {
        return {Error::kInvalid, "this row's snapshot has ended: take a new one"};
    }
    // The pages that it uses are marked in a segment that a child does not have.
    if (row.reader->generation != fork_generation()) return forked_failure();
    const Schema& schema = row.table->schema;
    if (column >= schema.columns().size() || !is_variable(schema.columns()[column].type)) {
        return {Error::kInvalid, "column " + std::to_string(column) + " of table " + schema.name() +
                                     " has a fixed width"};
    }
    return LargeReader(row, column).read();
}

namespace {

// Frames looked up while it lives stay the reader's; afterwards those that were copied need not.
class Keep {
  public:
    explicit Keep(ReaderState& state) : state_(state), before_(state.rows_out) {
        state_.rows_out = true;
    }
    ~Keep() { state_.rows_out = before_; }
    Keep(const Keep&) = delete;
    Keep& operator=(const Keep&) = delete;

  private:
    ReaderState& state_;
    const bool before_;
};

}  // namespace

Result<RawCopy> whole_row(const RawRow& row) {
    RawCopy copy{std::vector<std::byte>(row.key.size()), {}};
    racy_copy(copy.key.data(), row.key.data(), row.key.size());
    // What is read from here on holds still.
    std::vector<std::byte> stored(row.value.size());
    if (!stored.empty()) racy_copy(stored.data(), row.value.data(), stored.size());
    const Schema& schema = row.table->schema;
    const RowView view(schema, stored);
    if (!view.has_references()) {
        copy.value = std::move(stored);
        return copy;
    }
    const Keep keep(*row.reader);
    std::vector<std::vector<std::byte>> buffers(view.count());
    std::vector<ColumnContent> contents(view.count());
    const RawRow held{copy.key, stored, row.reader, row.table};
    for (std::uint32_t column = 0; column < schema.columns().size(); ++column) {
        if (!is_variable(schema.columns()[column].type)) continue;
        auto value = large_value(held, column);
        if (!value.ok()) return value.failure();
        const std::uint32_t index = schema.variable_index(column);
        contents[index] = {value->span_or_copy(buffers[index]), false};
        if (!value->intact()) {
            return LargeReader(held, column).damaged("its checksum is not the row's");
        }
    }
    copy.value.resize(row_value_bytes(schema, contents));
    write_row_value(copy.value.data(), schema, std::span(stored).first(schema.fixed_bytes()),
                    contents);
    return copy;
}

void note_absent_pages(const RawRow& row, std::vector<PageId>& pages) {
    const Schema& schema = row.table->schema;
    if (!schema.has_variable()) return;
    const PoolView& pool = row.reader->connection->pool();
    RowView(schema, row.value).each_reference([&](std::uint32_t, const ValueReference& reference) {
        for (const ExtentRun& run : reference.all_runs()) {
            for (std::uint32_t i = 0; i < run.pages; ++i) {
                const PageId page{run.first + i};
                if (extent_page(pool, page).page == nullptr) pages.push_back(page);
            }
        }
    });
}

RawCopy whole_or_fail(const RawRow& row) {
    auto whole = whole_row(row);
    if (whole.ok()) return std::move(*whole);
    row.reader->fail_value(whole.failure());
    return {std::vector<std::byte>(row.key.size()), {}};
}

std::span<const std::byte> large_view(const RawRow& row, std::uint32_t column) {
    auto value = large_value(row, column);
    if (!value.ok()) {
        if (row.reader != nullptr) row.reader->fail_value(value.failure());
        return {};
    }
    if (value->spans().empty()) return {};
    if (value->contiguous()) return value->spans().front();
    row.reader->assembled.emplace_back();
    return value->span_or_copy(row.reader->assembled.back());
}

}  // namespace bidstore
