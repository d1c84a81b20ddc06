// Who waits for which pages: by a model, and what it costs that a client goes.
#include "engine/page_waits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kClients = 4;
constexpr std::uint32_t kPages = 12;  // few, so that most pages have several who wait
constexpr std::uint32_t kCallSlots = 64;

class PageWaitsTest : public ::testing::Test {
  protected:
    void SetUp() override {
        store = std::make_unique<SimStore>(small_store(), std::make_unique<SimDisk>(), 1);
        ASSERT_TRUE(store->open().ok());
        for (std::uint32_t i = 0; i < kClients; ++i) {
            clients.push_back(&store->connect(Rights::kReader));
        }
        waits = std::make_unique<PageWaits>(store->engine->core().port());
    }

    std::unique_ptr<SimStore> store;
    std::vector<SimClient*> clients;
    std::unique_ptr<PageWaits> waits;
};

// What is expected of one request.
struct Asked {
    std::uint32_t client = 0;
    std::uint32_t slot = 0;
    std::uint32_t generation = 0;
    std::map<std::uint32_t, std::uint32_t> missing;  // position to page
    Error error = Error::kOk;                        // of the first page that failed
    std::set<std::uint32_t> failed;                  // positions: those of one page fail together
    bool forgotten = false;

    void finish(const std::set<std::uint32_t>& positions, Error with) {
        for (const std::uint32_t position : positions) missing.erase(position);
        if (with == Error::kOk || error != Error::kOk || positions.empty()) return;
        error = with;
        failed = positions;
    }
    bool open() const { return !forgotten && !missing.empty(); }
};

class ModelRun {
  public:
    ModelRun(PageWaits& waits, std::vector<SimClient*>& clients, std::uint64_t seed)
        : waits_(waits), clients_(clients), random_(seed) {}

    void run(std::uint32_t steps) {
        for (std::uint32_t step = 0; step < steps && !testing::Test::HasFailure(); ++step) {
            const std::uint64_t kind = any(10);
            if (kind < 6) ask();
            if (kind >= 6 && kind < 9) load(static_cast<std::uint32_t>(any(kPages)) + 1);
            if (kind == 9) forget(static_cast<std::uint32_t>(any(kClients)));
            check();
        }
        for (std::uint32_t page = 1; page <= kPages; ++page) load(page);
        check();
        EXPECT_EQ(waits_.open(), 0u);
    }

  private:
    std::uint64_t any(std::uint64_t below) { return random_() % below; }

    void ask() {
        const auto client = static_cast<std::uint32_t>(any(kClients));
        std::set<std::uint32_t> taken;
        for (const Asked& asked : asked_) {
            if (asked.client == client && asked.open()) taken.insert(asked.slot);
        }
        if (taken.size() == kCallSlots) return;
        auto slot = static_cast<std::uint32_t>(any(kCallSlots));
        while (taken.contains(slot)) slot = (slot + 1) % kCallSlots;
        // Of the slot only the newest call can be looked at.
        std::erase_if(asked_, [&](const Asked& other) {
            return other.client == client && other.slot == slot;
        });
        Asked asked{client, slot, ++generation_, {}, Error::kOk, {}, false};
        const auto count = static_cast<std::uint32_t>(any(4) == 0 ? any(kPagesPerRequest) : any(4));
        for (std::uint32_t i = 0; i <= count; ++i) {
            asked.missing[i] = static_cast<std::uint32_t>(any(kPages)) + 1;
        }
        const std::uint32_t request =
            waits_.begin({clients_[client]->id(), slot, generation_}, count + 1);
        for (const auto& [position, page] : std::map(asked.missing)) {
            if (any(4) == 0) {
                const Error error = any_error();
                asked.finish({position}, error);
                waits_.finish(request, position, error);
            } else {
                waits_.wait_for(PageId{page}, request, position);
            }
        }
        asked_.push_back(asked);
    }
    void load(std::uint32_t page) {
        const Error error = any_error();
        for (Asked& asked : asked_) {
            if (asked.forgotten) continue;
            std::set<std::uint32_t> positions;
            for (const auto& [position, missing] : asked.missing) {
                if (missing == page) positions.insert(position);
            }
            asked.finish(positions, error);
        }
        waits_.on_loaded(PageId{page}, error);
    }
    void forget(std::uint32_t client) {
        for (Asked& asked : asked_) {
            if (asked.client == client && asked.open()) asked.forgotten = true;
        }
        waits_.forget(clients_[client]->id());
    }
    void check() {
        std::size_t open = 0;
        for (const Asked& asked : asked_) {
            open += asked.open();
            const CallSlot& slot = clients_[asked.client]->segment().calls()[asked.slot];
            const bool answered = is_answered(slot, asked.generation);
            ASSERT_EQ(answered, !asked.forgotten && asked.missing.empty());
            if (!answered) continue;
            const Answer answer = read_answer(slot);
            EXPECT_EQ(answer.error, asked.error);
            const bool named = asked.error == Error::kOk
                                   ? answer.failed_operation == kNoOperation
                                   : asked.failed.contains(answer.failed_operation);
            EXPECT_TRUE(named) << answer.failed_operation;
        }
        EXPECT_EQ(waits_.open(), open);
    }
    Error any_error() {
        const Error errors[] = {Error::kOk, Error::kOk, Error::kOk, Error::kIoError,
                                Error::kCorruption};
        return errors[any(5)];
    }

    PageWaits& waits_;
    std::vector<SimClient*>& clients_;
    std::mt19937_64 random_;
    std::vector<Asked> asked_;
    std::uint32_t generation_ = 0;
};

// Whoever is passed over waits for ever, and whoever is answered twice reads the wrong page.
TEST_F(PageWaitsTest, EachRequestIsAnsweredOnceWithTheLastOfItsPages) {
    for (std::uint64_t seed = 0; seed < 60 && !HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        for (SimClient* client : clients) {
            for (std::uint32_t slot = 0; slot < kCallSlots; ++slot) {
                client->segment().calls()[slot].answered_generation.store(0);
            }
        }
        ModelRun(*waits, clients, seed).run(300);
    }
}

// Each connection that went was looked for among all pages and all who waited for them.
TEST_F(PageWaitsTest, AClientThatGoesCostsWhatItWaitedForItself) {
    constexpr std::uint32_t kOthers = 100'000 / kPagesPerRequest;
    const auto ask = [&](std::uint64_t client_id, std::uint32_t slot, std::uint32_t count) {
        const std::uint32_t request = waits->begin({client_id, slot, 1}, count);
        for (std::uint32_t i = 0; i < count; ++i) {
            waits->wait_for(PageId{1 + (slot + i) % 500}, request, i);
        }
    };
    for (std::uint32_t i = 0; i < kOthers; ++i) ask(1000 + i % 40, i / 40, kPagesPerRequest);
    ask(7, 0, 2);
    ask(7, 1, 1);
    for (std::uint32_t i = 0; i < 40; ++i) ask(1000 + i, 99, 1);
    EXPECT_EQ(waits->open(), kOthers + 42);
    EXPECT_EQ(waits->forget(7), 3u);
    EXPECT_EQ(waits->open(), kOthers + 40);
    EXPECT_EQ(waits->forget(7), 0u);
    for (std::uint32_t page = 1; page <= 500; ++page) waits->on_loaded(PageId{page}, Error::kOk);
    EXPECT_EQ(waits->open(), 0u);
}

}  // namespace
}  // namespace bidstore
