// Numbered transactions, each of which also writes its number into a marker row. So the marker says
// how many of them a store holds, and its content must be exactly what the model has after that
// many: all of a transaction or none, no phantom, nothing twice.
//
// Who: crash_test, failing_disk_test.
#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim.h"

namespace bidstore::numbered {

using Rows = std::map<std::vector<std::byte>, std::vector<std::byte>>;

struct Content {
    Rows fixed;
    Rows variable;
    std::uint64_t marker = 0;
};

inline Schema fixed_schema() {
    auto schema = Schema::make("fixed",
                               {{"id", ColumnType::kU32, 0},
                                {"count", ColumnType::kI64, 0},
                                {"pad", ColumnType::kFixed, 120}},
                               1);
    CHECK(schema.ok());
    return *schema;
}

inline Schema variable_schema() {
    auto schema = Schema::make(
        "variable",
        {{"id", ColumnType::kU32, 0}, {"n", ColumnType::kU64, 0}, {"text", ColumnType::kText, 0}},
        1);
    CHECK(schema.ok());
    return *schema;
}

inline std::vector<std::byte> key_of(std::uint64_t id) {
    std::vector<std::byte> key(4);
    encode_key_integer(key.data(), id, 4, false);
    return key;
}

// Makes transaction number n of a seed, against the content before it, and applies it there.
class Workload {
  public:
    Workload(std::uint64_t seed, TableId fixed, TableId variable)
        : seed_(seed), fixed_(fixed), variable_(variable) {}

    TransactionBytes make(std::uint64_t number, Content& content) const {
        std::mt19937_64 random(seed_ * 1'000'003 + number);
        TransactionBytes bytes;
        const std::uint64_t operations = 1 + random() % 6;
        for (std::uint64_t i = 0; i < operations; ++i) add_operation(random, bytes, content);
        put_variable(bytes, content, kMarker, number, "marker");
        content.marker = number;
        return bytes;
    }
    static constexpr std::uint32_t kMarker = 1'000'000;

  private:
    void put_variable(TransactionBytes& bytes, Content& content, std::uint32_t id, std::uint64_t n,
                      const std::string& text) const {
        const Schema schema = variable_schema();
        RowBuilder builder(schema);
        CHECK(builder.set_unsigned(0, id).ok());
        CHECK(builder.set_unsigned(1, n).ok());
        CHECK(builder.set_bytes(2, std::as_bytes(std::span(text.data(), text.size()))).ok());
        const auto value = builder.value();
        CHECK(value.ok());
        bytes.operation(OperationKind::kPut, variable_, key_of(id), *value);
        content.variable[key_of(id)] = {value->begin(), value->end()};
    }

    // Of two to six pages, each unlike the others.
    static std::string large_text(std::mt19937_64& random) {
        std::string text(4'100 + random() % 18'000, ' ');
        const std::uint64_t first = random() % 26;
        for (std::size_t i = 0; i < text.size(); ++i) {
            text[i] = static_cast<char>('a' + (first + i / 1'000) % 26);
        }
        return text;
    }

    void add_operation(std::mt19937_64& random, TransactionBytes& bytes, Content& content) const {
        const auto id = static_cast<std::uint32_t>(random() % 400);
        switch (random() % 11) {
            case 10:
                put_variable(bytes, content, id, random(), large_text(random));
                break;
            case 0:
            case 1:
            case 2:
            case 3:
                put_variable(bytes, content, id, random(), std::string(random() % 1500, 'v'));
                break;
            case 4:
            case 5: {
                std::vector<std::byte> value(fixed_schema().fixed_bytes(),
                                             static_cast<std::byte>(random()));
                bytes.operation(OperationKind::kPut, fixed_, key_of(id), value);
                content.fixed[key_of(id)] = value;
                break;
            }
            case 6:
            case 7: {
                AddBody body{};
                body.column = 1;
                body.delta = static_cast<std::int64_t>(random() % 100) - 50;
                auto& row = content.fixed[key_of(id)];
                row.resize(fixed_schema().fixed_bytes());
                std::int64_t count = 0;
                std::memcpy(&count, row.data(), sizeof count);
                if (__builtin_add_overflow(count, body.delta, &count)) return;
                std::memcpy(row.data(), &count, sizeof count);
                bytes.add(fixed_, key_of(id), body, kCreate);
                break;
            }
            case 8:
                bytes.operation(OperationKind::kDelete, variable_, key_of(id), {}, kIfPresent);
                content.variable.erase(key_of(id));
                break;
            default: {
                const auto end = key_of(id + random() % 40);
                bytes.operation(OperationKind::kDeleteRange, variable_, key_of(id), end);
                content.variable.erase(content.variable.lower_bound(key_of(id)),
                                       content.variable.lower_bound(end));
                break;
            }
        }
    }

    std::uint64_t seed_;
    TableId fixed_;
    TableId variable_;
};

struct Life {
    std::uint64_t submitted = 0;
    std::uint64_t acknowledged = 0;
    Error refusal = Error::kOk;
};

// Runs transactions [first, last] with a few in flight until done, refused or crashed. Of several
// under way the later ones may be taken though the first was refused: one alone keeps the numbers.
inline Life run(SimStore& store, SimClient& client, const Workload& workload, Content content,
                std::uint64_t first, std::uint64_t last, std::size_t under_way = 2) {
    Life life{first - 1, first - 1};
    std::deque<std::uint32_t> waiting;
    while (life.acknowledged < last && !store.disk->crashed()) {
        while (life.submitted < last && waiting.size() < under_way) {
            const auto token = client.submit(workload.make(life.submitted + 1, content).bytes());
            if (!token) break;
            ++life.submitted;
            waiting.push_back(*token);
        }
        const bool fenced = store.round() == EngineRound::kFenced;
        while (!waiting.empty()) {
            const auto answer = client.answer(waiting.front());
            if (!answer) break;
            waiting.pop_front();
            life.refusal = answer->error;
            if (answer->error != Error::kOk) return life;
            ++life.acknowledged;
        }
        if (fenced) break;
    }
    return life;
}

inline Content content_after(const Workload& workload, std::uint64_t number) {
    Content content;
    for (std::uint64_t n = 1; n <= number; ++n) workload.make(n, content);
    return content;
}

inline Content read_content(SimStore& store, TableId fixed, TableId variable) {
    Content content;
    content.fixed = store.rows(fixed);
    content.variable = store.rows(variable);
    const auto marker = content.variable.find(key_of(Workload::kMarker));
    if (marker != content.variable.end()) {
        content.marker = column_integer(variable_schema(), 1, nullptr, marker->second);
    }
    return content;
}

inline constexpr TableId kFixed{16};
inline constexpr TableId kVariable{17};

}  // namespace bidstore::numbered
