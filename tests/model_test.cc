// Trees and transactions against a model, by seed: several clients write at once, snapshots are
// held across commits, evictions and checkpoints in a small pool, and are read the way a client
// reads: through the page map, the version chains and the shared search.
//
// The model keeps, for every key, all its values with the place in the serial order from which on
// they hold. That order is told by a witness: each transaction ends with an add of 1 to one shared
// row, and the sum is its place. So transactions of different clients may meet in any order, and
// the model still knows what each must have seen. A refused transaction has no place of its own:
// the same refusal must follow from one of the states that it can have seen.
//
// One table has a retention: its rows with a time of long ago are dead when they are written.
// Beside all that tables are loaded in bulk, read, and dropped, and the file is compacted.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>

#include "shm/stats.h"
#include "tests/model.h"
#include "tests/model_keeper.h"
#include "tests/model_maker.h"
#include "tests/sim.h"
#include "tests/snapshot_reader.h"

namespace bidstore {
namespace {

// ---- the run ------------------------------------------------------------------------------------

struct Totals {
    std::uint64_t applied = 0;
    std::uint64_t refused = 0;
    std::uint64_t reads = 0;
    std::uint64_t direct = 0;  // rows that the key directory led to
    std::uint64_t misses = 0;
    std::uint64_t expired = 0;
    std::uint64_t evictions = 0;
    std::uint64_t checkpoints = 0;
    std::uint64_t dead = 0;  // pages of rows that expired
    ModelKeeper::Totals keeper;
};

// The floor comes to lie between the times of long ago and all others.
constexpr std::uint64_t kRetainedUs = 1'700'000'000'000'000 - 3'600'000'000;

class ModelRun {
  public:
    ModelRun(std::uint64_t seed, Totals& totals)
        : random_(seed), totals_(totals), keeper_(random_, totals.keeper) {
        options_ = small_store();
        options_.frames = static_cast<std::uint32_t>(430 + random_() % 250);
        // Room for a few keys, for some, for all.
        const std::uint64_t directories[] = {0, 4'096, 1u << 20};
        options_.directory_bytes = directories[random_() % 3];
        const std::uint64_t intervals[] = {100'000, 2'000'000, 30'000'000'000};
        options_.engine.checkpoint_interval_ns = intervals[seed % 3];
        options_.engine.checkpoint_slice = seed % 2 == 0 ? 1 : 16;
        options_.engine.group_commit_interval_ns = seed % 4 == 3 ? 50'000 : 0;
        keys_ = static_cast<std::uint32_t>(600 + random_() % 700);
        seed_ = seed;
    }

    void run(std::uint32_t moves) {
        SimDiskOptions disk;
        disk.seed = seed_;
        open(std::make_unique<SimDisk>(disk));
        if (testing::Test::HasFatalFailure()) return;
        for (std::uint32_t i = 0; kTables > i; ++i) {
            tables_[i] = store_->create_table(*writers_[0].client, schemas()[i]);
        }
        Maker maker(random_, keys_);
        retain(maker);
        fill(maker);
        for (std::uint32_t move = 0; move < moves && !failed(); ++move) make_move(maker);
        finish_life();
        if (!failed()) restart();
    }

  private:
    struct Pending {
        std::uint32_t token = 0;
        std::uint64_t number = 0;
        std::vector<Operation> operations;
    };
    struct Done {
        std::vector<Operation> operations;
        Answer answer;
        std::int64_t after = 0;  // refused: behind this place of its own client
    };
    struct Writer {
        SimClient* client = nullptr;
        std::deque<Pending> pending;
        std::vector<Done> refused;    // since its last applied one
        std::int64_t last_place = 0;  // of its last applied one
    };

    bool failed() const { return testing::Test::HasFailure(); }

    void open(std::unique_ptr<SimDisk> disk) {
        store_ = std::make_unique<SimStore>(options_, std::move(disk), seed_);
        const Status opened = store_->open();
        ASSERT_TRUE(opened.ok()) << opened.failure().what;
        auto descriptor = store_->pool->open_read_only();
        ASSERT_TRUE(descriptor.ok()) << descriptor.failure().what;
        auto view = PoolView::map(std::move(*descriptor));
        ASSERT_TRUE(view.ok()) << view.failure().what;
        view_.emplace(std::move(*view));
        for (Writer& writer : writers_) {
            writer = Writer{};
            writer.client = &store_->connect();
            writer.last_place = model_.newest();
        }
        keeper_.open(*store_, *view_);
    }

    // From the first row of long ago on, and before anybody looks, such rows are dead.
    void retain(Maker& maker) {
        const TableAttributes attributes{kRetainedUs, 0};
        TransactionBytes bytes;
        bytes.operation(OperationKind::kSetTable, tables_[kRetained], {},
                        std::as_bytes(std::span(&attributes, 1)));
        ASSERT_EQ(store_->commit(*writers_[0].client, bytes).error, Error::kOk);
        submit(writers_[0], maker.rows(0), Durability::kDurable);
        settle();
        const auto floor = [&] {
            return store_->engine->core().storage().catalog->find(tables_[kRetained])->tree.floor();
        };
        ASSERT_TRUE(store_->run_until([&] { return floor() > Maker::kLongAgo; }));
        model_.bury_below(kRetained, Maker::kLongAgo);
    }

    // More rows than the pool holds.
    void fill(Maker& maker) {
        for (std::uint32_t id = 1; id < keys_ && !failed(); ++id) {
            Writer& writer = writers_[id % writers_.size()];
            submit(writer, maker.rows(id), Durability::kDurable);
            while (writers_[(id + 1) % writers_.size()].pending.size() >= 8 && !failed()) round();
        }
        settle();
    }

    void make_move(Maker& maker) {
        const std::uint64_t choice = random_() % 100;
        if (choice < 50) {
            submit(maker);
        } else if (choice < 58) {
            begin_snapshot();
        } else if (choice < 84) {
            read(maker);
        } else if (choice < 94 && !snapshots_.empty()) {
            end_snapshot(random_() % snapshots_.size());
        } else if (choice == 99) {
            settle();
        }
        round();
    }

    void round() {
        const EngineRound result = store_->round();
        ASSERT_NE(result, EngineRound::kFenced) << store_->engine->fence_reason();
        if (keeps_) keeper_.step();
        collect();
    }

    void submit(Maker& maker) {
        Writer& writer = writers_[random_() % writers_.size()];
        if (writer.pending.size() >= 5) return;
        submit(writer, maker.transaction(),
               random_() % 4 == 0 ? Durability::kRelaxed : Durability::kDurable);
    }

    void submit(Writer& writer, std::vector<Operation> operations, Durability durability) {
        Pending pending;
        pending.operations = std::move(operations);
        const std::uint64_t below =
            writer.pending.empty() ? writer.client->last_number() + 1 : writer.pending[0].number;
        writer.client->set_decided_below(below);
        const auto token =
            writer.client->submit(encode(pending.operations, tables_, durability).bytes());
        ASSERT_TRUE(token.has_value());
        pending.token = *token;
        pending.number = writer.client->last_number();
        writer.pending.push_back(std::move(pending));
    }

    // Takes the answers that are there, and lets the model follow as far as the order is known.
    void collect() {
        for (Writer& writer : writers_) {
            for (auto at = writer.pending.begin(); at != writer.pending.end();) {
                const auto answer = writer.client->answer(at->token);
                if (!answer) {
                    ++at;
                    continue;
                }
                take(writer, *at, *answer);
                at = writer.pending.erase(at);
            }
        }
        follow();
    }

    void take(Writer& writer, Pending& pending, const Answer& answer) {
        Done done{std::move(pending.operations), answer, 0};
        if (answer.error != Error::kOk) {
            ++totals_.refused;
            refused_.push_back({&writer - writers_.data(), pending.number, std::move(done)});
            return;
        }
        ASSERT_GE(answer.result_count, 1u);
        const std::int64_t place = answer.result[answer.result_count - 1];
        places_[&writer - writers_.data()][pending.number] = place;
        ASSERT_TRUE(waiting_.emplace(place, std::move(done)).second) << "place taken twice";
    }

    void follow() {
        while (!waiting_.empty() && waiting_.begin()->first == model_.newest() + 1) {
            const Done& done = waiting_.begin()->second;
            Evaluation evaluation = model_.evaluation(model_.newest());
            const Outcome expected = evaluation.run(done.operations);
            EXPECT_EQ(expected.error, Error::kOk)
                << "the model refuses operation " << expected.failed << " of place "
                << model_.newest() + 1 << ": " << error_name(expected.error);
            const std::vector<std::int64_t> results(done.answer.result,
                                                    done.answer.result + done.answer.result_count);
            EXPECT_EQ(results, expected.results) << "place " << model_.newest() + 1;
            EXPECT_GE(done.answer.csn, model_.newest_csn());
            model_.apply(evaluation, done.answer.csn);
            ++totals_.applied;
            waiting_.erase(waiting_.begin());
        }
    }

    // Nothing in flight any more: everything is known, and refusals can be judged.
    void settle() {
        store_->run_until([&] {
            collect();
            return std::all_of(writers_.begin(), writers_.end(),
                               [](const Writer& writer) { return writer.pending.empty(); });
        });
        for (const Writer& writer : writers_) ASSERT_TRUE(writer.pending.empty()) << "no answer";
        ASSERT_TRUE(waiting_.empty()) << "a place of the order is missing";
        for (const Refused& refused : refused_) judge(refused);
        refused_.clear();
    }

    struct Refused {
        std::ptrdiff_t writer;
        std::uint64_t number;
        Done done;
    };

    // Between its client's transactions before and after it there is a state that refuses it so.
    void judge(const Refused& refused) {
        const Answer& answer = refused.done.answer;
        const auto& places = places_[refused.writer];
        const auto after = places.upper_bound(refused.number);
        const std::int64_t high = after == places.end() ? model_.newest() : after->second - 1;
        const std::int64_t low = after == places.begin() ? first_place_ : std::prev(after)->second;
        for (std::int64_t place = low; place <= high; ++place) {
            const Outcome outcome = model_.evaluation(place).run(refused.done.operations);
            if (outcome.error == answer.error && outcome.failed == answer.failed_operation) return;
        }
        // A wide range, or several large values, may need more frames than a small pool has.
        const bool range = std::any_of(refused.done.operations.begin(),
                                       refused.done.operations.end(), [](const Operation& each) {
                                           return each.kind == OperationKind::kDeleteRange ||
                                                  each.body.size() > kRowBytesMax ||
                                                  each.content.size() > 2'000;
                                       });
        if (range && answer.error == Error::kTooLarge) return;
        ADD_FAILURE() << "number " << refused.number << " of writer " << refused.writer
                      << " was refused with " << error_name(answer.error) << " at operation "
                      << answer.failed_operation << ", which no state from " << low << " to "
                      << high << " explains";
    }

    void begin_snapshot() {
        if (snapshots_.size() >= 3) return;
        SimClient& client = *writers_[random_() % writers_.size()].client;
        for (std::uint32_t slot = 0; slot < client.segment().slot_count(); ++slot) {
            const bool used = std::any_of(snapshots_.begin(), snapshots_.end(), [&](const auto& s) {
                return &s->client() == &client && s->slot_index() == slot;
            });
            if (used) continue;
            // All answers up to what is visible are here, so the model knows this csn.
            collect();
            snapshots_.push_back(std::make_unique<SimSnapshot>(*store_, *view_, client, slot));
            return;
        }
    }

    void end_snapshot(std::size_t index) {
        totals_.misses += snapshots_[index]->misses();
        snapshots_.erase(snapshots_.begin() + static_cast<std::ptrdiff_t>(index));
    }

    void read(Maker& maker) {
        if (snapshots_.empty()) return;
        const std::size_t index = random_() % snapshots_.size();
        SimSnapshot& snapshot = *snapshots_[index];
        const auto table = static_cast<std::uint32_t>(random_() % 3);
        const bool held = random_() % 3 == 0 ? compare_range(snapshot, maker, table)
                                             : compare_rows(snapshot, maker, table);
        EXPECT_EQ(snapshot.trouble(), "");
        if (held) {
            ++totals_.reads;
        } else {
            ++totals_.expired;
            end_snapshot(index);
        }
    }

    PageId root(std::uint32_t table) {
        return store_->engine->core().storage().catalog->find(tables_[table])->tree.root();
    }

    bool compare_rows(SimSnapshot& snapshot, Maker& maker, std::uint32_t table) {
        const TreeShape shape(schemas()[table], tables_[table]);
        for (int i = 0; i < 4; ++i) {
            const Bytes key = maker.some_key(table);
            const auto direct = snapshot.by_directory(schemas()[table], shape, root(table), key);
            auto value = snapshot.get(shape, root(table), key);
            if (direct && value && snapshot.valid()) {
                ++totals_.direct;
                EXPECT_EQ(direct, *value) << "by the directory, table " << table << " at csn "
                                          << snapshot.csn();
            }
            if (value && *value && !alive(snapshot, table, key, **value)) value->reset();
            if (value && *value) *value = snapshot.whole(schemas()[table], **value);
            collect();
            if (!value || !snapshot.valid()) return false;
            EXPECT_EQ(*value, model_.get(table, key, model_.place_of(snapshot.csn())))
                << "table " << table << " at csn " << snapshot.csn();
        }
        return true;
    }

    // Pages do not say which of their rows are dead: the root's floor does.
    bool alive(SimSnapshot& snapshot, std::uint32_t table, const Bytes& key, const Bytes& value) {
        const std::byte* top = snapshot.page(root(table));
        return top != nullptr && schemas()[table].live(key.data(), value, floor_of(top));
    }
    void keep_alive(SimSnapshot& snapshot, std::uint32_t table, std::map<Bytes, Bytes>& rows) {
        std::erase_if(
            rows, [&](const auto& row) { return !alive(snapshot, table, row.first, row.second); });
    }

    // Writers go on between the leaves.
    bool compare_range(SimSnapshot& snapshot, Maker& maker, std::uint32_t table) {
        const TreeShape shape(schemas()[table], tables_[table]);
        const bool whole = random_() % 8 == 0;
        const Bytes from = whole ? key_of(table, 0) : maker.some_key(table);
        Bytes to = whole ? Bytes{} : maker.some_key(table);
        if (!to.empty() && to < from) to = {};
        auto found = whole && random_() % 2 == 0
                         ? snapshot.backwards(shape, root(table))
                         : snapshot.range(shape, root(table), from, to, [&] {
                               if (random_() % 3 == 0) submit(maker);
                               if (random_() % 2 == 0) round();
                               return true;
                           });
        if (found) keep_alive(snapshot, table, *found);
        if (found) found = snapshot.whole(schemas()[table], std::move(*found));
        collect();
        if (!found || !snapshot.valid()) return false;
        const auto expected = model_.range(table, from, to, model_.place_of(snapshot.csn()));
        EXPECT_EQ(difference(*found, expected), "")
            << "table " << table << " at csn " << snapshot.csn();
        return true;
    }

    // With nobody writing; some leaves at a time, since a snapshot holds all that it has seen.
    std::map<Bytes, Bytes> all_rows(std::uint32_t table) {
        const TreeShape shape(schemas()[table], tables_[table]);
        std::map<Bytes, Bytes> all;
        int revoked = 0;
        for (Bytes from = key_of(table, 0);;) {
            int leaves = 0;
            SimSnapshot snapshot(*store_, *view_, *writers_[0].client, 0);
            auto found = snapshot.range(shape, root(table), from, {}, [&] { return ++leaves < 6; });
            const Bytes last = found && !found->empty() ? found->rbegin()->first : from;
            if (found) keep_alive(snapshot, table, *found);
            if (found && !snapshot.valid()) found.reset();
            if (found) found = snapshot.whole(schemas()[table], std::move(*found));
            EXPECT_EQ(snapshot.trouble(), "");
            if (!found) {
                // A full pool has few frames for what a snapshot misses: what is evicted meanwhile
                // stays for it. Once revoked, it left many.
                if (++revoked < 3) continue;
                ADD_FAILURE() << "a short snapshot of a quiet store was revoked again and again";
                return all;
            }
            all.insert(found->begin(), found->end());
            if (leaves < 6) return all;
            from = last;
        }
    }

    void compare_newest() {
        for (std::uint32_t table = 0; table < kTables; ++table) {
            EXPECT_EQ(difference(all_rows(table), model_.range(table, {}, {}, model_.newest())), "")
                << "table " << table;
        }
        EXPECT_EQ(store_->verify(), "");
        store_->engine->core().storage().pool.check_invariants();
    }

    void finish_life() {
        if (failed()) return;
        settle();
        // What was answered as relaxed is in this one's batch or before it.
        submit(writers_[0], Maker::with_witness({}), Durability::kDurable);
        settle();
        while (!snapshots_.empty()) end_snapshot(0);
        while (!keeper_.idle() && !failed()) round();
        if (failed()) return;
        keeps_ = false;
        compare_newest();
        keeps_ = true;
        const StatsPage& stats = view_->stats();
        const auto counted = [&](Counter counter) {
            return stats.counter[static_cast<std::uint32_t>(counter)].load();
        };
        totals_.evictions += counted(Counter::kEvictions);
        totals_.checkpoints += counted(Counter::kCheckpoints);
        totals_.dead += counted(Counter::kPagesExpired);
        EXPECT_EQ(counted(Counter::kHostileEvents), 0u);
    }

    // After a clean stop, a power loss or a kill, all of it is there and goes on.
    void restart() {
        std::unique_ptr<SimDisk> disk;
        const std::uint64_t way = seed_ % 3;
        if (way != 0 && keeper_.idle()) keeper_.begin_load_if_none_is_there();
        for (int i = 0; way != 0 && i < 20; ++i) round();
        if (way == 0) {
            EXPECT_TRUE(store_->stop());
            disk = store_->disk->clone(seed_);
        } else {
            disk = way == 1 ? store_->disk->power_loss(seed_) : store_->disk->process_crash(seed_);
        }
        places_ = {};
        first_place_ = model_.newest();
        view_.reset();
        open(std::move(disk));
        if (failed()) return;
        compare_newest();
        Maker maker(random_, keys_);
        for (std::uint32_t move = 0; move < 60 && !failed(); ++move) make_move(maker);
        finish_life();
    }

    Random random_;
    Totals& totals_;
    ModelKeeper keeper_;
    bool keeps_ = true;
    std::uint64_t seed_ = 0;
    std::uint32_t keys_ = 0;
    SimStoreOptions options_;
    std::unique_ptr<SimStore> store_;
    std::optional<PoolView> view_;
    std::array<Writer, 3> writers_;
    std::array<TableId, kTables> tables_{};
    Model model_;
    std::map<std::int64_t, Done> waiting_;  // applied, by place; an earlier place is not known yet
    std::map<std::ptrdiff_t, std::map<std::uint64_t, std::int64_t>> places_;  // by writer, number
    std::int64_t first_place_ = 0;  // where this life began
    std::vector<Refused> refused_;
    std::vector<std::unique_ptr<SimSnapshot>> snapshots_;
};

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* set = std::getenv(name);
    return set != nullptr ? std::strtoull(set, nullptr, 10) : otherwise;
}

TEST(Model, EverySnapshotAndEveryAnswerIsThatOfTheSerialOrder) {
    const std::uint64_t first = from_environment("BIDSTORE_MODEL_SEED", 1);
    const std::uint64_t seeds = from_environment("BIDSTORE_MODEL_SEEDS", 40);
    Totals totals;
    for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        ModelRun(seed, totals).run(420);
        if (HasFailure()) break;
    }
    if (HasFailure() || seeds < 20) return;
    // It was a test of what it says.
    EXPECT_GT(totals.applied, 500 * seeds);
    EXPECT_GT(totals.refused, 100 * seeds);
    EXPECT_GT(totals.reads, 50 * seeds);
    EXPECT_GT(totals.direct, 20 * seeds);
    EXPECT_GT(totals.misses, 10 * seeds);
    EXPECT_GT(totals.evictions, 50 * seeds);
    EXPECT_GT(totals.checkpoints, 3 * seeds);
    EXPECT_LT(totals.expired, totals.reads / 5);
    EXPECT_GT(totals.keeper.loaded, seeds);
    EXPECT_GT(totals.keeper.dropped, seeds / 2);
    EXPECT_GT(totals.keeper.compactions, seeds);
    EXPECT_GT(totals.keeper.moved, seeds);
    EXPECT_GT(totals.dead, 0u);
    RecordProperty("pages_moved", static_cast<int>(totals.keeper.moved));
    RecordProperty("pages_expired", static_cast<int>(totals.dead));
    RecordProperty("applied", static_cast<int>(totals.applied));
    RecordProperty("refused", static_cast<int>(totals.refused));
    RecordProperty("reads", static_cast<int>(totals.reads));
    RecordProperty("misses", static_cast<int>(totals.misses));
    RecordProperty("expired", static_cast<int>(totals.expired));
    RecordProperty("evictions", static_cast<int>(totals.evictions));
}

// An emptied leaf is freed, and the leaf beside it takes over: that one must be there as well.
TEST(Model, RowsPutBackIntoLeavesThatWereEmptiedFindTheirPlace) {
    SimStoreOptions options = small_store();
    options.frames = 400;
    SimStore store(options, std::make_unique<SimDisk>(), 4);
    ASSERT_TRUE(store.open().ok());
    SimClient& client = store.connect();
    const Schema schema = made(
        Schema::make("wide", {{"id", ColumnType::kU32, 0}, {"pad", ColumnType::kFixed, 2040}}, 1));
    const TableId table = store.create_table(client, schema);
    const Bytes row(schema.fixed_bytes(), std::byte{1});  // one fills a leaf
    constexpr std::uint32_t kRows = 900;
    const auto key = [](std::uint32_t id) { return key_of(0, id); };
    for (std::uint32_t id = 0; id < kRows; ++id) {
        TransactionBytes bytes;
        bytes.operation(OperationKind::kPut, table, key(id), row);
        ASSERT_EQ(store.commit(client, bytes).error, Error::kOk);
    }
    Random random(4);
    for (int i = 0; i < 300; ++i) {
        const auto id = static_cast<std::uint32_t>(random() % (kRows - 4));
        TransactionBytes bytes;
        if (i % 2 == 0) {
            bytes.operation(OperationKind::kDelete, table, key(id), {});
            bytes.operation(OperationKind::kDelete, table, key(id + 1), {});
            bytes.operation(OperationKind::kPut, table, key(id + 1), row);
            bytes.operation(OperationKind::kPut, table, key(id), row);
        } else {
            bytes.operation(OperationKind::kDeleteRange, table, key(id), key(id + 4));
            for (std::uint32_t put = 0; put < 4; ++put) {
                bytes.operation(OperationKind::kInsert, table, key(id + put), row);
            }
        }
        ASSERT_EQ(store.commit(client, bytes).error, Error::kOk) << i;
    }
    EXPECT_EQ(store.verify(), "");
    store.engine->core().storage().pool.check_invariants();
}

}  // namespace
}  // namespace bidstore
