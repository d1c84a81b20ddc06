// Power loss and process death at every disk operation of a workload, recoveries included.
//
// One client sends numbered transactions, each of which also writes its number into a marker row.
// So after a crash the marker says how many of them the store holds, and the content must be
// exactly what the model has after that many: all of a transaction or none, no phantom, nothing
// twice; and at least as many as were acknowledged. The four promises:
//   1 every acknowledged transaction is there      2 every other is there whole or not at all
//   3 the verifier finds nothing                   4 recovery run again finds the same content
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/sim.h"

namespace bidstore {
namespace {

using Rows = std::map<std::vector<std::byte>, std::vector<std::byte>>;

struct Content {
    Rows fixed;
    Rows variable;
    std::uint64_t marker = 0;
};

Schema fixed_schema() {
    auto schema = Schema::make("fixed",
                               {{"id", ColumnType::kU32, 0},
                                {"count", ColumnType::kI64, 0},
                                {"pad", ColumnType::kFixed, 120}},
                               1);
    CHECK(schema.ok());
    return *schema;
}

Schema variable_schema() {
    auto schema = Schema::make(
        "variable",
        {{"id", ColumnType::kU32, 0}, {"n", ColumnType::kU64, 0}, {"text", ColumnType::kText, 0}},
        1);
    CHECK(schema.ok());
    return *schema;
}

std::vector<std::byte> key_of(std::uint64_t id) {
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

// A slice of 1: each round copies one page for the checkpoint, and commits go on in between.
SimStoreOptions crash_store(std::uint32_t checkpoint_slice = 16) {
    SimStoreOptions options = small_store();
    options.engine.checkpoint_slice = checkpoint_slice;
    options.frames = 700;
    options.engine.checkpoint_interval_ns = 100'000;  // some rounds: many checkpoints
    return options;
}

struct Life {
    std::uint64_t submitted = 0;
    std::uint64_t acknowledged = 0;
};

// Runs transactions [first, last] with a few in flight until done or crashed.
Life run(SimStore& store, SimClient& client, const Workload& workload, Content content,
         std::uint64_t first, std::uint64_t last) {
    Life life{first - 1, first - 1};
    std::deque<std::uint32_t> waiting;
    while (life.acknowledged < last && !store.disk->crashed()) {
        while (life.submitted < last && waiting.size() < 2) {
            const auto token = client.submit(workload.make(life.submitted + 1, content).bytes());
            if (!token) break;
            ++life.submitted;
            waiting.push_back(*token);
        }
        if (store.round() == EngineRound::kFenced) break;
        while (!waiting.empty()) {
            const auto answer = client.answer(waiting.front());
            if (!answer) break;
            waiting.pop_front();
            if (answer->error != Error::kOk) return life;
            ++life.acknowledged;
        }
    }
    return life;
}

Content content_after(const Workload& workload, std::uint64_t number) {
    Content content;
    for (std::uint64_t n = 1; n <= number; ++n) workload.make(n, content);
    return content;
}

Content read_content(SimStore& store, TableId fixed, TableId variable) {
    Content content;
    content.fixed = store.rows(fixed);
    content.variable = store.rows(variable);
    const auto marker = content.variable.find(key_of(Workload::kMarker));
    if (marker != content.variable.end()) {
        content.marker = column_integer(variable_schema(), 1, nullptr, marker->second);
    }
    return content;
}

constexpr TableId kFixed{16};
constexpr TableId kVariable{17};

// Opens what a crash left and checks the promises; returns the marker.
std::uint64_t check_recovered(std::unique_ptr<SimDisk> disk, const Workload& workload,
                              const Life& life, std::unique_ptr<SimStore>* keep = nullptr) {
    auto again = disk->clone(7);
    auto store = std::make_unique<SimStore>(crash_store(), std::move(disk), 5);
    const Status opened = store->open();
    if (!opened.ok()) {
        ADD_FAILURE() << opened.failure().what;
        return 0;
    }
    EXPECT_EQ(store->verify(), "");
    const Content found = read_content(*store, kFixed, kVariable);
    EXPECT_GE(found.marker, life.acknowledged) << "an acknowledged transaction is missing";
    EXPECT_LE(found.marker, life.submitted);
    const Content expected = content_after(workload, found.marker);
    EXPECT_EQ(found.fixed, expected.fixed);
    EXPECT_EQ(found.variable, expected.variable);
    if (keep != nullptr) {
        *keep = std::move(store);
        return found.marker;
    }
    SimStore second(crash_store(), std::move(again), 6);
    EXPECT_TRUE(second.open().ok());
    const Content twice = read_content(second, kFixed, kVariable);
    EXPECT_EQ(twice.fixed, found.fixed);
    EXPECT_EQ(twice.variable, found.variable);
    return found.marker;
}

struct Outcome {
    Life life;
    std::unique_ptr<SimDisk> power;
    std::unique_ptr<SimDisk> process;
    std::uint64_t steps = 0;
    bool tables_made = false;
};

// The workload from new files, with a crash at `step` (0: none).
Outcome crash_run(std::uint64_t seed, std::uint64_t transactions, std::uint64_t step,
                  std::uint32_t checkpoint_slice = 16) {
    SimDiskOptions options;
    options.seed = seed;
    SimStore store(crash_store(checkpoint_slice), std::make_unique<SimDisk>(options), seed);
    if (step != 0) store.disk->crash_at(step);
    Outcome outcome;
    if (store.open().ok()) {
        SimClient& client = store.connect();
        const auto make = [&](const Schema& schema) {
            const std::string encoded = schema.encode();
            TransactionBytes bytes;
            bytes.operation(OperationKind::kCreateTable, TableId{}, {},
                            std::as_bytes(std::span(encoded.data(), encoded.size())));
            return store.commit(client, bytes).error == Error::kOk;
        };
        outcome.tables_made = make(fixed_schema()) && make(variable_schema());
        if (outcome.tables_made) {
            const Workload workload(seed, kFixed, kVariable);
            outcome.life = run(store, client, workload, {}, 1, transactions);
            if (step == 0) store.stop();
        }
    }
    outcome.steps = store.disk->steps();
    outcome.power = store.disk->power_loss(seed + step);
    outcome.process = store.disk->process_crash(seed + step);
    return outcome;
}

std::uint64_t stride() {
    const char* set = std::getenv("BIDSTORE_CRASH_STRIDE");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : 1;
}

void crash_at_every_step(std::uint64_t seed, std::uint64_t transactions,
                         std::uint32_t checkpoint_slice) {
    const Outcome whole = crash_run(seed, transactions, 0, checkpoint_slice);
    ASSERT_EQ(whole.life.acknowledged, transactions);
    ASSERT_GT(whole.steps, 300u);
    std::uint64_t recovered = 0;
    for (std::uint64_t step = 1; step <= whole.steps; step += stride()) {
        SCOPED_TRACE("crash at step " + std::to_string(step) + " of " +
                     std::to_string(whole.steps) + ", seed " + std::to_string(seed));
        Outcome crashed = crash_run(seed, transactions, step, checkpoint_slice);
        if (!crashed.tables_made) continue;  // OpeningCanBeCutOffAnywhere has these
        const Workload workload(seed, kFixed, kVariable);
        check_recovered(std::move(crashed.power), workload, crashed.life);
        check_recovered(std::move(crashed.process), workload, crashed.life);
        ++recovered;
        if (::testing::Test::HasFailure()) break;
    }
    EXPECT_GT(recovered, whole.steps / stride() / 2);
}

TEST(Crash, EveryDiskStepKeepsThePromises) { crash_at_every_step(1, 200, 16); }

TEST(Crash, EveryDiskStepWithCommitsBetweenTheSlicesOfCheckpointsKeepsThePromises) {
    crash_at_every_step(3, 150, 1);
}

TEST(Crash, OpeningCanBeCutOffAnywhere) {
    for (std::uint64_t step = 1; step < 200; ++step) {
        SCOPED_TRACE("crash at step " + std::to_string(step));
        Outcome crashed = crash_run(2, 1, step);
        for (auto* disk : {&crashed.power, &crashed.process}) {
            SimStore store(crash_store(), std::move(*disk), 5);
            const Status opened = store.open();
            ASSERT_TRUE(opened.ok()) << opened.failure().what;
            EXPECT_EQ(store.verify(), "");
        }
        if (crashed.life.acknowledged == 1) break;
    }
}

// Crash, recover, crash in the recovery, recover, work on, crash: three lives deep, by seed.
TEST(Crash, RecoveriesCrashToo) {
    for (std::uint64_t seed = 10; seed < 40; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        std::mt19937_64 random(seed);
        const Workload workload(seed, kFixed, kVariable);
        Outcome first = crash_run(seed, 40, 150 + random() % 300);
        if (!first.tables_made) continue;
        auto disk = random() % 2 ? std::move(first.power) : std::move(first.process);
        for (int attempt = 0; attempt < 2; ++attempt) {
            SimStore cut(crash_store(), std::move(disk), seed);
            cut.disk->crash_at(1 + random() % 40);
            static_cast<void>(cut.open());
            disk =
                random() % 2 ? cut.disk->power_loss(random()) : cut.disk->process_crash(random());
        }
        std::unique_ptr<SimStore> store;
        const std::uint64_t marker = check_recovered(std::move(disk), workload, first.life, &store);
        if (HasFailure()) break;
        Content content = content_after(workload, marker);
        SimClient& client = store->connect();
        store->disk->crash_at(store->disk->steps() + 20 + random() % 200);
        const Life life = run(*store, client, workload, content, marker + 1, marker + 40);
        check_recovered(store->disk->power_loss(random()), workload, life);
        if (HasFailure()) break;
    }
}

}  // namespace
}  // namespace bidstore
