// Compaction in the simulation: a store with room in the middle, and a client that asks for steps.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "shm/message.h"
#include "tests/sim.h"

namespace bidstore {

using CompactionRows = std::map<std::vector<std::byte>, std::vector<std::byte>>;

inline Schema compaction_schema(const char* name = "rows") {
    auto schema =
        Schema::make(name, {{"id", ColumnType::kU32, 0}, {"pad", ColumnType::kFixed, 500}}, 1);
    CHECK(schema.ok());
    return *schema;
}

inline std::vector<std::byte> row_key(std::uint32_t id) {
    std::vector<std::byte> key(4);
    encode_key_integer(key.data(), id, 4, false);
    return key;
}

inline std::vector<std::byte> row_value(std::uint32_t id, std::uint32_t round = 0) {
    std::vector<std::byte> value(500, static_cast<std::byte>(id * 7 + round));
    std::memcpy(value.data(), &id, sizeof id);
    return value;
}

// Rows with a value of any length.
inline Schema value_schema(const char* name = "values") {
    auto schema =
        Schema::make(name, {{"id", ColumnType::kU32, 0}, {"body", ColumnType::kBytes, 0}}, 1);
    CHECK(schema.ok());
    return *schema;
}

// Bytes that say whose they are, of which round, and where.
inline std::vector<std::byte> wide_row(std::uint32_t id, std::uint32_t round, std::size_t length) {
    std::vector<std::byte> body(length);
    std::uint64_t word = id * 2'654'435'761u + round;
    for (std::size_t i = 0; i < length; ++i) {
        if (i % 512 == 0) word = word * 6'364'136'223'846'793'005u + 1'442'695'040'888'963'407u;
        body[i] = static_cast<std::byte>(word >> 8 * (i % 8));
    }
    const Schema schema = value_schema();
    RowBuilder builder(schema);
    CHECK(builder.set_bytes(1, body).ok());
    const auto value = builder.value();
    CHECK(value.ok());
    return {value->begin(), value->end()};
}

// Puts rows [first, last), twenty at a time; those that were acknowledged go into `rows`.
inline void put_rows(SimStore& store, SimClient& client, TableId table, std::uint32_t first,
                     std::uint32_t last, CompactionRows& rows, std::uint32_t round = 0) {
    while (first < last) {
        TransactionBytes put;
        CompactionRows written;
        for (std::uint32_t i = 0; i < 20 && first < last; ++i, ++first) {
            written[row_key(first)] = row_value(first, round);
            put.operation(OperationKind::kPut, table, row_key(first), row_value(first, round));
        }
        if (store.commit(client, put).error != Error::kOk) return;
        for (const auto& [key, value] : written) rows[key] = value;
    }
}

inline Error erase_rows(SimStore& store, SimClient& client, TableId table, std::uint32_t first,
                        std::uint32_t last, CompactionRows& rows) {
    TransactionBytes erase;
    erase.operation(OperationKind::kDeleteRange, table, row_key(first), row_key(last));
    const Error error = store.commit(client, erase).error;
    if (error != Error::kOk) return error;
    rows.erase(rows.lower_bound(row_key(first)), rows.lower_bound(row_key(last)));
    return error;
}

// The free pages of all chunks before this one, until they are given back: what is allocated
// meanwhile lies behind them.
inline std::vector<PageRun> hold_pages_before(Space& space, std::uint32_t chunk) {
    std::vector<PageRun> held;
    std::vector<PageRun> behind;
    for (PageRun run; (run = space.reserve(kChunkPages, 1)).count > 0;) {
        (chunk_of(run.first) < chunk ? held : behind).push_back(run);
    }
    for (const PageRun& run : behind) space.give_back(run);
    return held;
}

inline void give_back(Space& space, std::vector<PageRun>& held) {
    for (const PageRun& run : held) space.give_back(run);
    held.clear();
}

// A table whose root lies in the last chunk.
inline TableId create_late_table(SimStore& store, SimClient& client, const Schema& schema) {
    Storage& storage = store.engine->core().storage();
    const std::uint32_t last = storage.space.chunk_count() - 1;
    std::vector<PageRun> held = hold_pages_before(storage.space, last);
    const TableId late = store.create_table(client, schema);
    give_back(storage.space, held);
    CHECK_OP(chunk_of(storage.catalog->find(late)->tree.root()), >=, last);
    return late;
}

// One step after the other, without waiting: advance() after advance().
class CompactClient {
  public:
    explicit CompactClient(SimClient& client, std::uint32_t pages = 16)
        : client_(client), pages_(pages) {}

    // Asks again when the last answer is there; true at the end.
    bool advance() {
        if (done()) return true;
        if (!token_) token_ = client_.submit_compact(pages_);
        if (!token_) return false;
        const auto answer = client_.answer(*token_);
        if (!answer) return false;
        token_.reset();
        last_ = *answer;
        ++steps_;
        moved_ += value(CompactResult::kMoved);
        return done();
    }
    bool done() const {
        return steps_ > 0 && (last_.error != Error::kOk || state() == CompactState::kDone);
    }
    Error error() const { return last_.error; }
    const Answer& last() const { return last_; }
    CompactState state() const { return static_cast<CompactState>(value(CompactResult::kState)); }
    std::uint64_t value(CompactResult which) const {
        return static_cast<std::uint64_t>(last_.result[static_cast<std::uint32_t>(which)]);
    }
    std::uint64_t moved() const { return moved_; }
    std::uint32_t steps() const { return steps_; }

  private:
    SimClient& client_;
    std::uint32_t pages_;
    std::optional<std::uint32_t> token_;
    Answer last_{};
    std::uint64_t moved_ = 0;
    std::uint32_t steps_ = 0;
};

// With time going by, so that leases and checkpoints come to their ends.
inline bool compact(SimStore& store, CompactClient& compaction, std::uint32_t rounds) {
    return store.run_until(
        [&] {
            store.clock.advance_ns(1'000'000);
            return compaction.advance();
        },
        rounds);
}
inline void settle(SimStore& store) {
    for (int i = 0; i < 20; ++i) {
        store.clock.advance_ns(500'000'000);
        store.run_until([] { return false; }, 20);
    }
}

inline std::uint64_t data_bytes(SimStore& store) {
    return *store.disk->size_bytes(StoreFile::kData);
}

}  // namespace bidstore
