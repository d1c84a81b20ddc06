// What a client may put into its ring, as the engine takes it: transactions, page requests, steps
// of loads and of compactions (shm/message.h). Each is answered or cuts its client off; the store
// stays sound, and another client goes on.
//
// Input: requests one after another: a byte for the kind, one for the rights on a new connection, a
// u16 for the length, then the payload.
#include <cstdio>

#include "tests/fuzz.h"
#include "tests/sim.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRequestsMax = 32;
constexpr std::uint32_t kRoundsMax = 400;

Schema rows_schema() {
    return *Schema::make(
        "rows",
        {{"id", ColumnType::kU64, 0}, {"n", ColumnType::kI64, 0}, {"t", ColumnType::kText, 0}}, 1);
}

SimStoreOptions options() {
    SimStoreOptions options = small_store();
    options.frames = 500;
    options.pages = 8 * kChunkPages;
    return options;
}

// A store with one table, made once.
struct Made {
    Made() {
        SimStore store(options(), std::make_unique<SimDisk>(), 1);
        CHECK(store.open().ok());
        table = store.create_table(store.connect(), rows_schema());
        CHECK(store.stop());
        disk = store.disk->clone(1);
    }
    TableId table;
    std::unique_ptr<SimDisk> disk;
};

class Target {
  public:
    explicit Target(const Made& made)
        : store_(options(), made.disk->clone(1), 2), table_(made.table) {
        CHECK(store_.open().ok());
        good_ = &store_.connect();
    }

    void run(FuzzInput input) {
        for (std::uint32_t i = 0; i < kRequestsMax && !input.empty(); ++i) request(input);
        TransactionBytes bytes;
        AddBody add{};
        add.column = 1;
        add.delta = 1;
        std::byte key[8] = {};
        bytes.add(table_of_good(), key, add, kWantResult | kCreate);
        const Answer answer = store_.commit(*good_, bytes);
        // The sum is what the other one may have made of the row.
        CHECK(answer.error == Error::kOk || answer.error == Error::kOutOfRange);
        const std::string broken = store_.verify();
        if (!broken.empty()) std::fprintf(stderr, "%s\n", broken.c_str());
        CHECK(broken.empty());
    }

  private:
    // The hostile one may be an admin and drop tables: the good one makes itself another.
    TableId table_of_good() {
        if (store_.engine->core().storage().catalog->find(table_) != nullptr) return table_;
        return store_.create_table(
            *good_, *Schema::make("others_of_the_good",
                                  {{"id", ColumnType::kU64, 0}, {"n", ColumnType::kI64, 0}}, 1));
    }
    void request(FuzzInput& input) {
        const auto kind = input.take<std::uint8_t>();
        const auto rights = input.take<std::uint8_t>();
        const auto payload = input.take_bytes(input.take<std::uint16_t>());
        const bool gone =
            bad_ == nullptr || store_.clients.cut_off_clients.contains(bad_->id()) || rights > 127;
        if (gone) {
            if (bad_ != nullptr) store_.disconnect(*bad_);
            bad_ = &store_.connect(static_cast<Rights>(1 + rights % 3));
        }
        const auto token = submit(kind, payload);
        if (!token) return;
        const auto over = [&] {
            return bad_->answer(*token).has_value() ||
                   store_.clients.cut_off_clients.contains(bad_->id());
        };
        store_.run_until(over, kRoundsMax);
    }
    std::optional<std::uint32_t> submit(std::uint8_t kind, std::span<const std::byte> payload) {
        switch (kind % 4) {
            case 0:
            case 1:
                return bad_->submit(payload);
            case 2:
                return bad_->submit_load(payload);
            default: {
                PageId pages[kPagesPerRequest];
                std::uint32_t count = 0;
                for (; payload.size() >= 4 && count < kPagesPerRequest; ++count) {
                    std::memcpy(&pages[count].value, payload.data(), 4);
                    payload = payload.subspan(4);
                }
                if (count == 0) return bad_->submit_compact(kind);
                return bad_->request_pages(std::span(pages).first(count));
            }
        }
    }

    SimStore store_;
    SimClient* good_ = nullptr;
    SimClient* bad_ = nullptr;
    TableId table_;
};

}  // namespace
}  // namespace bidstore

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    static const bidstore::Made* const made = new bidstore::Made;
    bidstore::Target target(*made);
    target.run({data, size_bytes});
    return 0;
}
