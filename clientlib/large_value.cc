#include "clientlib/large_value.h"

#include <algorithm>
#include <numeric>

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
        ids_ = pages_of(*reference);
        if (Status found = find_pages(); !found.ok()) return found.failure();
        join_pages(value);
        return value;
    }

    // The column's bytes, whole: those of the row; or the value in its pages, where it lies there
    // without a gap, until somebody waits; or in `buffer`.
    Result<ColumnContent> content(std::vector<std::byte>& buffer,
                                  const std::function<void()>& before_wait) {
        const Schema& schema = table_.schema;
        const ColumnContent content =
            RowView(schema, row_.value).content(schema.variable_index(column_));
        if (!content.is_reference) return content;
        const auto reference = ValueReference::load(content.bytes);
        if (!reference) return damaged("its reference is malformed");
        ids_ = pages_of(*reference);
        std::span<const std::byte> bytes = in_place(reference->length_bytes);
        if (bytes.empty()) {
            buffer.resize(reference->length_bytes);
            if (Status came = copy_pages(buffer, before_wait); !came.ok()) return came.failure();
            bytes = buffer;
        }
        if (crc32c(bytes.data(), bytes.size()) != reference->crc) {
            return damaged("its checksum is not the row's");
        }
        return ColumnContent{bytes, false};
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

    static std::vector<PageId> pages_of(const ValueReference& reference) {
        std::vector<PageId> ids;
        for (const ExtentRun& run : reference.all_runs()) {
            for (std::uint32_t i = 0; i < run.pages; ++i) ids.push_back(PageId{run.first + i});
        }
        return ids;
    }

    // A page found stays where it is until the snapshot ends, also when it is evicted meanwhile: so
    // each has to be found only once.
    Status find_pages() {
        pages_.resize(ids_.size());
        std::vector<PageId> missing;
        for (;;) {
            missing.clear();
            look(missing);
            if (missing.empty()) return {};
            if (Status came = request(missing); !came.ok()) return came;
        }
    }

    void look(std::vector<PageId>& missing) {
        for (std::size_t i = 0; i < ids_.size(); ++i) {
            if (pages_[i] == nullptr) pages_[i] = find(ids_[i]);
            if (pages_[i] == nullptr) missing.push_back(ids_[i]);
        }
    }

    // Empty where a page is missing or lies elsewhere.
    std::span<const std::byte> in_place(std::size_t bytes) const {
        const std::byte* const begin = find(ids_.front());
        if (begin == nullptr) return {};
        for (std::size_t i = 1; i < ids_.size(); ++i) {
            if (find(ids_[i]) != begin + i * kPageBytes) return {};
        }
        return {begin, bytes};
    }

    // A page that was copied is needed no more, so each has to be there only once. They are asked
    // for as many at a time as a pool of any size has room for.
    Status copy_pages(std::span<std::byte> to, const std::function<void()>& before_wait) {
        const std::size_t together = std::max(kPagesPerRequest, state_.pages_ahead_max());
        std::vector<std::size_t> left(ids_.size());
        std::iota(left.begin(), left.end(), std::size_t{0});
        std::vector<PageId> missing;
        for (;;) {
            missing.clear();
            std::erase_if(left, [&](std::size_t i) {
                if (missing.size() == together) return false;
                const std::byte* page = find(ids_[i]);
                if (page == nullptr) {
                    missing.push_back(ids_[i]);
                    return false;
                }
                const auto part = to.subspan(i * kPageBytes);
                racy_copy(part.data(), page, std::min(part.size(), kPageBytes));
                return true;
            });
            if (left.empty()) return {};
            before_wait();
            if (Status came = request(missing); !came.ok()) return came;
        }
    }

    const std::byte* find(PageId id) const {
        const PageVersion found = extent_page(state_.connection->pool(), id);
        if (found.page != nullptr) state_.touches->note(id, found.entry);
        return found.page;
    }

    Status request(std::span<const PageId> missing) const {
        if (!state_.valid()) return expired_failure();
        const Status came = request_pages(state_, table_, missing, row_.key.data());
        if (came.error() == Error::kNoSuchPage) return damaged("a page of it is not allocated");
        if (!came.ok()) return {came.error(), where() + came.failure().what};
        return {};
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

namespace {

Status usable(const RawRow& row) {
    if (row.reader == nullptr || !row.reader->holding()) {
        return {Error::kInvalid, "this row's snapshot has ended: take a new one"};
    }
    // The pages that it uses are marked in a segment that a child does not have.
    if (row.reader->generation != fork_generation()) return forked_failure();
    return {};
}

}  // namespace

Result<LargeValue> large_value(const RawRow& row, std::uint32_t column) {
    if (Status good = usable(row); !good.ok()) return good.failure();
    const Schema& schema = row.table->schema;
    if (column >= schema.columns().size() || !is_variable(schema.columns()[column].type)) {
        return {Error::kInvalid, "column " + std::to_string(column) + " of table " + schema.name() +
                                     " has a fixed width"};
    }
    return LargeReader(row, column).read();
}

RawCopy stored_row(const RawRow& row) {
    RawCopy copy{std::vector<std::byte>(row.key.size()), std::vector<std::byte>(row.value.size())};
    racy_copy(copy.key.data(), row.key.data(), row.key.size());
    if (!row.value.empty()) racy_copy(copy.value.data(), row.value.data(), row.value.size());
    return copy;
}

Result<RawCopy> whole_row(const RawRow& row, const std::function<void()>& before_wait) {
    RawCopy copy = stored_row(row);  // what is read from here on holds still
    const Schema& schema = row.table->schema;
    const RowView view(schema, copy.value);
    if (!view.has_references()) return copy;
    if (Status good = usable(row); !good.ok()) return good.failure();
    const RawRow held{copy.key, copy.value, row.reader, row.table};
    std::vector<std::vector<std::byte>> buffers(view.count());
    std::vector<ColumnContent> contents(view.count());
    const std::function<void()> let_go = [&] {
        for (std::size_t i = 0; i < contents.size(); ++i) {
            std::span<const std::byte>& bytes = contents[i].bytes;
            if (!view.content(static_cast<std::uint32_t>(i)).is_reference) continue;
            if (bytes.empty() || bytes.data() == buffers[i].data()) continue;
            buffers[i].resize(bytes.size());
            racy_copy(buffers[i].data(), bytes.data(), bytes.size());
            bytes = buffers[i];
        }
        if (before_wait) before_wait();
    };
    for (std::uint32_t column = 0; column < schema.columns().size(); ++column) {
        if (!is_variable(schema.columns()[column].type)) continue;
        const std::uint32_t index = schema.variable_index(column);
        auto content = LargeReader(held, column).content(buffers[index], let_go);
        if (!content.ok()) return content.failure();
        contents[index] = *content;
    }
    std::vector<std::byte> whole(row_value_bytes(schema, contents));
    write_row_value(whole.data(), schema, held.value.first(schema.fixed_bytes()), contents);
    copy.value = std::move(whole);
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
