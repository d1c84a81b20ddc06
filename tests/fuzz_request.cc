// What a client may put into its ring, as the engine takes it: transactions, page requests, steps
// of loads and of compactions (shm/message.h); and what one may write into its segment that means
// harm. Each request is answered or cuts its client off, with a reason; the store stays sound, and
// another client goes on; when both have gone nothing of them stays.
//
// Input: steps one after another: a byte for the kind, one for the rights on a new connection, a
// u16 for the length, then the payload. Most kinds are requests; a few are
//   plant     a record as the payload has it, with any call slot, generation, number and length
//   poke      a u64 at any place of the segment: slots, marks, control words, ring, calls
//   rounds    of the engine, with what was begun still on its way
//   burst     the requests that follow are not waited for
#include <cstdio>

#include "tests/fuzz.h"
#include "tests/planted_record.h"
#include "tests/sim.h"
#include "tests/sim_rest.h"

namespace bidstore {
namespace {

constexpr std::uint32_t kRequestsMax = 32;
constexpr std::uint32_t kRoundsMax = 400;
constexpr std::uint32_t kPokedRounds = 20;  // nobody can say when a poked client has its answer

// Kinds from kFirstStep on; all others are requests.
constexpr std::uint8_t kFirstStep = 240;
enum class Step : std::uint8_t { kPlant, kPoke, kRounds, kBurst, kSteps };

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
        for (std::uint32_t i = 0; i < kRequestsMax && !input.empty(); ++i) step(input);
        store_.run_until([] { return false; }, kPokedRounds);
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
        store_.engine->core().storage().pool.check_invariants();
        for (const auto& [client, reason] : store_.clients.cut_off_clients) {
            CHECK(!reason.empty());
            CHECK_OP(client, !=, good_->id());
        }
        store_.disconnect_all();
        const std::string stays = come_to_rest(store_);
        if (!stays.empty()) std::fprintf(stderr, "%s\n", stays.c_str());
        CHECK(stays.empty());
    }

  private:
    // The hostile one may be an admin and drop tables: the good one makes itself another.
    TableId table_of_good() {
        if (store_.engine->core().storage().catalog->find(table_) != nullptr) return table_;
        return store_.create_table(
            *good_, *Schema::make("others_of_the_good",
                                  {{"id", ColumnType::kU64, 0}, {"n", ColumnType::kI64, 0}}, 1));
    }
    bool cut_off() const { return store_.clients.cut_off_clients.contains(bad_->id()); }
    void step(FuzzInput& input) {
        const auto kind = input.take<std::uint8_t>();
        const auto rights = input.take<std::uint8_t>();
        const auto payload = input.take_bytes(input.take<std::uint16_t>());
        if (bad_ == nullptr || cut_off() || rights > 127) {
            if (bad_ != nullptr) store_.disconnect(*bad_);
            bad_ = &store_.connect(static_cast<Rights>(1 + rights % 3));
            poked_ = false;
        }
        const auto step = static_cast<Step>(kind - kFirstStep);
        if (kind < kFirstStep || step >= Step::kSteps) return request(kind, payload);
        const void* bytes = payload.data();
        FuzzInput fields(static_cast<const std::uint8_t*>(bytes), payload.size());
        if (step == Step::kPlant) plant(planted(fields));
        if (step == Step::kPoke) poke(fields);
        if (step == Step::kRounds) rounds(1 + fields.take<std::uint8_t>() % 8);
        if (step == Step::kBurst) burst_ = 1 + fields.take<std::uint8_t>() % 16;
    }
    void rounds(std::uint32_t count) {
        store_.run_until([] { return false; }, count);
    }
    void request(std::uint8_t kind, std::span<const std::byte> payload) {
        // The producer believes its own segment; this one is not to be believed any more.
        if (poked_) return plant(usual(kind, payload));
        const auto token = submit(kind, payload);
        if (!token) return;
        if (burst_ > 0) {
            --burst_;
            return;
        }
        const auto over = [&] { return bad_->answer(*token).has_value() || cut_off(); };
        CHECK(store_.run_until(over, kRoundsMax));
    }

    static PlantedRecord planted(FuzzInput& fields) {
        PlantedRecord record;
        record.length_bytes = fields.take<std::uint32_t>();
        record.kind = static_cast<RecordKind>(fields.take<std::uint16_t>());
        record.call_slot = fields.take<std::uint32_t>();
        record.call_generation = fields.take<std::uint32_t>();
        record.write_number = fields.take<std::uint64_t>();
        record.decided_below = fields.take<std::uint64_t>();
        record.payload.assign(fields.rest().begin(), fields.rest().end());
        return record;
    }
    PlantedRecord usual(std::uint8_t kind, std::span<const std::byte> payload) {
        constexpr RecordKind kKinds[] = {RecordKind::kTransaction, RecordKind::kTransaction,
                                         RecordKind::kLoad, RecordKind::kPageRequest};
        PlantedRecord record;
        record.kind = kKinds[kind % 4];
        record.call_slot = ++planted_ % bad_->segment().call_slot_count();
        record.write_number = bad_->last_number() + 1;
        record.payload.assign(payload.begin(), payload.end());
        return record;
    }
    // Where the next claim would be, and behind it the claim goes on.
    void plant(const PlantedRecord& record) {
        ClientSegment& segment = bad_->segment();
        const std::uint64_t claimed = segment.ring_control().claim.load();
        const std::uint32_t ring_units_all = segment.ring_bytes() / kRingUnitBytes;
        const std::uint32_t unit = static_cast<std::uint32_t>(claimed) & (ring_units_all - 1);
        const std::uint32_t units = ring_units(sizeof(RecordHeader) + record.payload.size());
        if (unit + units > ring_units_all) return;
        poked_ = true;
        record.write_to(segment.ring() + std::size_t{unit} * kRingUnitBytes);
        const auto position = static_cast<std::uint32_t>(claimed) + units;
        segment.ring_control().claim.store((claimed >> 32) << 32 | position);
        if (burst_ > 0) --burst_;
        if (burst_ == 0) rounds(kPokedRounds);
    }
    void poke(FuzzInput& fields) {
        ClientSegment& segment = bad_->segment();
        const void* end = segment.calls() + segment.call_slot_count();
        const auto bytes =
            static_cast<std::size_t>(static_cast<const std::byte*>(end) - segment.base());
        const auto offset = fields.take<std::uint32_t>();
        const auto value = fields.take<std::uint64_t>();
        poked_ = true;
        std::memcpy(segment.base() + offset % (bytes - sizeof value), &value, sizeof value);
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
    bool poked_ = false;         // the segment of the bad one
    std::uint32_t planted_ = 0;  // requests of one that is poked
    std::uint32_t burst_ = 0;    // requests still that are not waited for
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
