// Bulk loads in the simulation: rows as records, a client that sends them step by step, and a store
// to load into.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/tree_check.h"
#include "shm/message.h"
#include "tests/sim.h"

namespace bidstore {

using LoadRows = std::map<std::vector<std::byte>, std::vector<std::byte>>;

inline Schema load_schema(const std::string& name, bool variable) {
    std::vector<Column> columns{{"id", ColumnType::kFixed, 16},
                                {"time", ColumnType::kTimestamp, 0},
                                {"pad", ColumnType::kFixed, 248}};
    if (variable) columns.back() = {"text", ColumnType::kText, 0};
    auto schema = Schema::make(name, columns, 1, 1);
    CHECK(schema.ok());
    return *schema;
}

// `count` rows; of `variable` ones some so long that a leaf takes no second.
inline LoadRows make_load_rows(const Schema& schema, std::uint32_t count, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    LoadRows rows;
    while (rows.size() < count) {
        RowBuilder builder(schema);
        std::vector<std::byte> key(16);
        for (auto& byte : key) byte = static_cast<std::byte>(random());
        CHECK(builder.set_bytes(0, key).ok());
        CHECK(builder.set_unsigned(1, random() % 1'000'000).ok());
        const std::size_t longest = random() % 20 == 0 ? 3'000 : 200;
        std::string text(schema.has_variable() ? random() % longest : 248,
                         static_cast<char>('a' + random() % 26));
        CHECK(builder.set_bytes(2, std::as_bytes(std::span(text.data(), text.size()))).ok());
        const auto value = builder.value();
        CHECK(value.ok());
        rows[key] = {value->begin(), value->end()};
    }
    return rows;
}

// Rows of a `variable` schema, most of them with texts that no leaf has room for: up to `longest`
// bytes, short ones in between.
inline LoadRows make_wide_rows(const Schema& schema, std::uint32_t count, std::size_t longest,
                               std::uint64_t seed) {
    std::mt19937_64 random(seed);
    LoadRows rows;
    while (rows.size() < count) {
        RowBuilder builder(schema);
        std::vector<std::byte> key(16);
        for (auto& byte : key) byte = static_cast<std::byte>(random());
        CHECK(builder.set_bytes(0, key).ok());
        CHECK(builder.set_unsigned(1, random() % 1'000'000).ok());
        // As many of each order of magnitude; the longest one comes first.
        std::size_t length = longest;
        if (!rows.empty()) length = random() % ((longest >> random() % 8) + 1);
        std::string text(length, static_cast<char>('a' + random() % 26));
        for (std::size_t i = 0; i < text.size(); i += 64) text[i] = static_cast<char>(random());
        CHECK(builder.set_bytes(2, std::as_bytes(std::span(text.data(), text.size()))).ok());
        const auto value = builder.value();
        CHECK(value.ok());
        rows[key] = {value->begin(), value->end()};
    }
    return rows;
}

// One step of a load as bytes.
class LoadBytes {
  public:
    explicit LoadBytes(LoadStep step, std::uint64_t rows = 0) {
        header_.step = step;
        header_.rows = rows;
    }
    static LoadBytes begin(const Schema& schema) {
        LoadBytes step(LoadStep::kBegin);
        const std::string encoded = schema.encode();
        step.append(encoded.data(), encoded.size());
        return step;
    }
    LoadBytes& row(bool variable, std::span<const std::byte> key,
                   std::span<const std::byte> value) {
        const auto length = static_cast<std::uint32_t>(value.size());
        if (variable) append(&length, sizeof length);
        append(key.data(), key.size());
        append(value.data(), value.size());
        ++header_.rows;
        return *this;
    }
    void append(const void* from, std::size_t length) {
        if (length == 0) return;
        body_.resize(body_.size() + length);
        std::memcpy(body_.data() + body_.size() - length, from, length);
    }
    std::size_t size() const { return body_.size(); }
    std::vector<std::byte> bytes() const {
        std::vector<std::byte> all(sizeof header_ + body_.size());
        std::memcpy(all.data(), &header_, sizeof header_);
        if (!body_.empty()) std::memcpy(all.data() + sizeof header_, body_.data(), body_.size());
        return all;
    }

  private:
    LoadRequest header_{};
    std::vector<std::byte> body_;
};

// Sends the steps of one load, a few under way, without waiting: step() after step().
class LoadClient {
  public:
    LoadClient(SimClient& client, const Schema& schema, const LoadRows& rows) : client_(client) {
        steps_.push_back(LoadBytes::begin(schema));
        LoadBytes packed(LoadStep::kRows);
        for (const auto& [key, value] : rows) {
            const std::size_t bytes = packed.size() + key.size() + value.size();
            if (packed.size() > 0 && bytes + 64 > kLoadBytesMax) {
                steps_.push_back(packed);
                packed = LoadBytes(LoadStep::kRows);
            }
            packed.row(schema.has_variable(), key, value);
            if (packed.size() < 20'000) continue;
            steps_.push_back(packed);
            packed = LoadBytes(LoadStep::kRows);
        }
        if (packed.size() > 0) steps_.push_back(packed);
        steps_.push_back(LoadBytes(LoadStep::kFinish, rows.size()));
    }

    // Sends what has room and looks for answers; true at the end.
    bool step() {
        while (next_ < steps_.size() && error_ == Error::kOk) {
            const auto token = client_.submit_load(steps_[next_].bytes());
            if (!token) break;
            waiting_.push_back(*token);
            ++next_;
        }
        while (!waiting_.empty()) {
            const auto answer = client_.answer(waiting_.front());
            if (!answer) break;
            waiting_.pop_front();
            ++answered_;
            if (answer->error != Error::kOk && error_ == Error::kOk) error_ = answer->error;
        }
        return waiting_.empty() && (next_ == steps_.size() || error_ != Error::kOk);
    }
    Error error() const { return error_; }
    // The last step was answered with kOk.
    bool loaded() const { return error_ == Error::kOk && answered_ == steps_.size(); }
    std::size_t answered() const { return answered_; }
    std::size_t steps() const { return steps_.size(); }

  private:
    SimClient& client_;
    std::vector<LoadBytes> steps_;
    std::size_t next_ = 0;
    std::size_t answered_ = 0;
    std::deque<std::uint32_t> waiting_;
    Error error_ = Error::kOk;
};

inline Error run_load(SimStore& store, SimClient& client, const Schema& schema,
                      const LoadRows& rows) {
    LoadClient load(client, schema, rows);
    if (!store.run_until([&] { return load.step(); })) return Error::kTimedOut;
    return load.error();
}

inline TableEntry* table_named(SimStore& store, const std::string& name) {
    return store.engine->core().storage().catalog->find(std::string_view(name));
}

// Hidden ones that are not dropped yet, and dropped ones that still have pages.
inline std::size_t unfinished_tables(SimStore& store) {
    Catalog& catalog = *store.engine->core().storage().catalog;
    std::size_t count = catalog.dropping().size();
    for (const TableEntry* table : catalog.all()) count += table->hidden() ? 1 : 0;
    return count;
}

class BulkLoadTest : public ::testing::Test {
  protected:
    BulkLoadTest() : BulkLoadTest(small_store(), {}) {}
    BulkLoadTest(const SimStoreOptions& options, const SimDiskOptions& disk)
        : store_(options, std::make_unique<SimDisk>(disk), 3) {
        EXPECT_TRUE(store_.open().ok());
        client_ = &store_.connect();
    }
    void settle() {
        EXPECT_TRUE(store_.run_until([&] { return unfinished_tables(store_) == 0; }));
    }
    Answer step(SimClient& client, const LoadBytes& bytes) {
        const auto token = client.submit_load(bytes.bytes());
        CHECK(token.has_value());
        std::optional<Answer> answer;
        store_.run_until([&] { return (answer = client.answer(*token)).has_value(); });
        CHECK(answer.has_value());
        return *answer;
    }
    Answer step(const LoadBytes& bytes) { return step(*client_, bytes); }
    TreeReport report(const TableEntry& table) {
        return check_tree(table.schema, table.id, table.tree.root(),
                          [&](PageId page) {
                              CHECK(store_.engine->core().storage().bring_in(page).ok());
                              return store_.engine->core().storage().pool.newest(page);
                          },
                          {});
    }
    Space& space() { return store_.engine->core().storage().space; }
    // Nothing of a load is left but what was there before.
    void expect_gone(const std::string& name) {
        settle();
        EXPECT_EQ(table_named(store_, name), nullptr);
        EXPECT_EQ(store_.verify(), "");
        // Writes that were under way end first.
        store_.run_until(
            [&] { return unused_pages() == space().available() + space().quarantined(); });
        EXPECT_EQ(unused_pages(), space().available() + space().quarantined());
    }
    // Pages that the newest bitmaps do not have: each must be available, or on its way there.
    std::uint64_t unused_pages() {
        std::uint64_t unused = 0;
        for (std::uint32_t chunk = 0; chunk < space().chunk_count(); ++chunk) {
            const auto* bits =
                meta_bitmap(store_.engine->core().storage().pool.newest(meta_page(chunk)));
            for (std::uint32_t i = 0; i < kChunkPages / 64; ++i) {
                unused += static_cast<std::uint64_t>(__builtin_popcountll(~bits[i]));
            }
        }
        return unused;
    }

    SimStore store_;
    SimClient* client_;
};

}  // namespace bidstore
