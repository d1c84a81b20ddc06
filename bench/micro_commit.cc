// A batch of the engine, whole: so many transactions are in a client's ring; it takes, evaluates
// and applies them, logs, publishes and answers, over a disk that is memory and answers at once. By
// one thread, which is client and engine in turn. Part of bench_micro.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/measure.h"
#include "bench/rows.h"
#include "engine/clock.h"
#include "engine/engine.h"
#include "engine/page/schema.h"
#include "engine/request_queue.h"
#include "shm/call_slot.h"
#include "shm/message.h"
#include "shm/ring.h"
#include "shm/segment.h"

namespace bench {
namespace {

using bidstore::DiskRequest;
using bidstore::StoreFile;

constexpr std::uint32_t kFrames = 32'768;  // 128 MiB: all rows, and versions of them
constexpr std::uint64_t kRows = 100'000;   // 28 MiB
constexpr std::uint32_t kBatchMost = 256;  // transactions under way
constexpr std::uint32_t kRingBytes = 1u << 20;
constexpr std::uint32_t kCallSlots = 2 * kBatchMost;

class MemoryDisk final : public bidstore::Disk {
  public:
    void submit(DiskRequest& request) override {
        request.in_flight = true;
        ++in_flight_;
        std::vector<std::byte>& file = of(request.file);
        const std::size_t end = request.offset_bytes + request.length_bytes;
        const bool grows =
            request.kind == DiskRequest::Kind::kGrow || request.kind == DiskRequest::Kind::kExtend;
        if (grows && file.size() < end) file.resize(end);
        request.result = request.length_bytes;
        if (request.kind == DiskRequest::Kind::kCut) {
            file.resize(request.offset_bytes);
        } else if (end > file.size()) {
            request.result = -ENODATA;
        } else if (request.kind == DiskRequest::Kind::kRead) {
            std::memcpy(request.buffer, file.data() + request.offset_bytes, request.length_bytes);
        } else if (request.kind == DiskRequest::Kind::kWrite) {
            std::memcpy(file.data() + request.offset_bytes, request.buffer, request.length_bytes);
        }
        done_.push(request);
    }
    int poll(std::uint64_t) override { return done_.run(in_flight_); }
    std::uint32_t in_flight() const override { return in_flight_; }
    void set_wake_descriptor(int) override {}
    bidstore::Result<std::uint64_t> size_bytes(StoreFile file) override {
        return std::uint64_t{of(file).size()};
    }
    bidstore::Status resize(StoreFile file, std::uint64_t size_bytes) override {
        of(file).resize(size_bytes);
        return {};
    }
    bidstore::Result<bool> backed(StoreFile, std::uint64_t, std::uint64_t) override { return true; }
    std::string path(StoreFile file) const override { return bidstore::store_file_name(file); }

  private:
    std::vector<std::byte>& of(StoreFile file) { return files_[static_cast<std::size_t>(file)]; }
    std::array<std::vector<std::byte>, bidstore::kStoreFileCount> files_;
    bidstore::DoneRequests done_;
    std::uint32_t in_flight_ = 0;
};

// Of one client, which nobody has to wake.
class OneClient final : public bidstore::Clients {
  public:
    bool take(bidstore::ClientCommand& command) override {
        if (!attach) return false;
        command = *std::exchange(attach, std::nullopt);
        return true;
    }
    void attached(std::uint64_t, bidstore::Error error, std::uint64_t) override {
        if (error != bidstore::Error::kOk) fail("the engine does not take the client");
        welcome = true;
    }
    void detached(std::uint64_t) override {}
    void cut_off(std::uint64_t, bidstore::CutOff, std::string_view reason) override {
        fail("the engine cut the client off: " + std::string(reason));
    }
    std::uint32_t wake(bidstore::Atom<std::uint32_t>&, std::uint32_t, std::uint32_t) override {
        return 0;
    }
    void drain_doorbell() override {}

    std::optional<bidstore::ClientCommand> attach;
    bool welcome = false;
};

template <class T>
void append(std::vector<std::byte>& to, const T& object) {
    const std::size_t at = to.size();
    to.resize(at + sizeof object);
    std::memcpy(to.data() + at, &object, sizeof object);
}

class EngineOfOne {
  public:
    EngineOfOne() : pool_(make_pool()), segment_(make_segment()) {
        bidstore::EngineOptions options;
        options.log_segment_bytes = 16u << 20;
        options.journal_bytes = 64u << 20;
        options.spin = true;  // a round never sleeps
        options.random = [this] { return random_.below(~std::uint64_t{0}); };
        auto opened = bidstore::Engine::open(options, disk_, clock_, clients_, pool_);
        if (!opened.ok()) fail(opened.failure().what);
        engine_ = std::move(*opened);
        attach();
        make_table();
        while (next_row_ < kRows) put_batch(kBatchMost);
    }

    // So many transactions, each putting another row, at random once all are there.
    void put_batch(std::uint32_t transactions) {
        for (std::uint32_t i = 0; i < transactions; ++i) {
            const std::uint64_t row = next_row_ < kRows ? next_row_++ : random_.below(kRows);
            const std::uint64_t key[2] = {__builtin_bswap64(row % 1'000),
                                          __builtin_bswap64(row / 1'000)};
            fill_value(value_.data(), row);
            send(bidstore::OperationKind::kPut, table_, std::as_bytes(std::span(key)), value_);
        }
        finish();
    }

  private:
    static bidstore::PoolSegment make_pool() {
        bidstore::PoolShape shape;
        shape.frame_count = kFrames + 1;
        shape.page_count = 2 * kFrames;
        shape.slot_count = 4;
        shape.instance_id = 1;
        shape.directory_bytes = 4u << 20;
        auto made = bidstore::PoolSegment::create(shape, bidstore::HugePages::kOff, false);
        if (!made.ok()) fail(made.failure().what);
        return std::move(*made);
    }
    static bidstore::ClientSegment make_segment() {
        bidstore::ClientShape shape;
        shape.slot_count = 4;
        shape.call_slot_count = kCallSlots;
        shape.ring_bytes = kRingBytes;
        shape.rights = bidstore::Rights::kAdmin;
        shape.session_id[0] = 1;
        shape.instance_id = 1;
        auto made = bidstore::ClientSegment::create(shape);
        if (!made.ok()) fail(made.failure().what);
        return std::move(*made);
    }

    void attach() {
        const bidstore::ClientHeader& header = segment_.header();
        bidstore::ClientCommand command;
        command.kind = bidstore::ClientCommand::Kind::kAttach;
        command.client_id = 1;
        command.rights = bidstore::Rights::kAdmin;
        command.session.bytes[0] = 1;
        command.segment = {segment_.base(),       segment_.first_slot(),
                           segment_.slot_count(), segment_.call_slot_count(),
                           segment_.ring_bytes(), header.slots_offset,
                           header.marks_offset,   header.ring_control_offset,
                           header.ring_offset,    header.calls_offset};
        clients_.attach = command;
        while (!clients_.welcome) round();
        ring_.emplace(segment_.ring_control(), segment_.ring(), segment_.ring_bytes());
    }

    void make_table() {
        auto schema = bidstore::Schema::make("rows",
                                             {{"entity", bidstore::ColumnType::kU64, 0},
                                              {"time", bidstore::ColumnType::kU64, 0},
                                              {"value", bidstore::ColumnType::kFixed, kValueBytes}},
                                             2);
        if (!schema.ok()) fail(schema.failure().what);
        const std::string encoded = schema->encode();
        const bidstore::TableAttributes attributes{};
        send(bidstore::OperationKind::kCreateTable, bidstore::TableId{},
             std::as_bytes(std::span(&attributes, 1)), std::as_bytes(std::span(encoded)));
        finish();
        table_.value = static_cast<std::uint32_t>(last_.result[0]);
    }

    // A transaction of one operation into the ring, as the client library puts it there.
    void send(bidstore::OperationKind kind, bidstore::TableId table, std::span<const std::byte> key,
              std::span<const std::byte> body) {
        bytes_.clear();
        append(bytes_, bidstore::TransactionHeader{1, bidstore::Durability::kDurable});
        bidstore::OperationHeader operation{};
        operation.kind = kind;
        operation.key_bytes = static_cast<std::uint16_t>(key.size());
        operation.body_bytes = static_cast<std::uint32_t>(body.size());
        operation.table_id = table.value;
        append(bytes_, operation);
        bytes_.insert(bytes_.end(), key.begin(), key.end());
        bytes_.insert(bytes_.end(), body.begin(), body.end());
        bytes_.resize(bidstore::align_up(bytes_.size(), 8));
        bidstore::ClaimRequest request;
        request.kind = bidstore::RecordKind::kTransaction;
        request.payload_bytes = static_cast<std::uint32_t>(bytes_.size());
        request.call_slot = sent_ % kCallSlots;
        request.call_generation = sent_ / kCallSlots + 1;
        request.number_reference = number_;
        request.decided_below = answered_ + 1;
        const auto claim = ring_->try_claim(request);
        if (!claim) fail("the ring is full");
        std::memcpy(claim.payload, bytes_.data(), bytes_.size());
        ring_->commit(claim);
        number_ = claim.write_number;
        ++sent_;
    }

    // Runs the engine until all that was sent is answered.
    void finish() {
        while (answered_ < sent_) {
            round();
            for (; answered_ < sent_; ++answered_) {
                const bidstore::CallSlot& slot = segment_.calls()[answered_ % kCallSlots];
                const std::uint32_t generation = answered_ / kCallSlots + 1;
                if (!bidstore::is_answered(slot, generation)) break;
                last_ = bidstore::read_answer(slot);
                if (last_.error != bidstore::Error::kOk) fail("a transaction was refused");
            }
        }
    }

    void round() {
        if (engine_->run_once(0) == bidstore::EngineRound::kFenced) fail(engine_->fence_reason());
    }

    Random random_{1};
    MemoryDisk disk_;
    bidstore::HostClock clock_;
    OneClient clients_;
    bidstore::PoolSegment pool_;
    bidstore::ClientSegment segment_;
    std::unique_ptr<bidstore::Engine> engine_;
    std::optional<bidstore::RingProducer> ring_;
    bidstore::TableId table_;
    std::array<std::byte, kValueBytes> value_{};
    std::vector<std::byte> bytes_;
    bidstore::Answer last_;
    std::uint64_t next_row_ = 0;
    std::uint64_t number_ = 0;
    std::uint32_t sent_ = 0;
    std::uint32_t answered_ = 0;
};

// Of rows all over the table: nearly each transaction changes a page of its own. The time is that
// of a whole batch; items are transactions.
void commit_batch(benchmark::State& state) {
    static EngineOfOne engine;  // filled once, for all of them
    const auto transactions = static_cast<std::uint32_t>(state.range(0));
    for (auto _ : state) engine.put_batch(transactions);
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()) * transactions);
}
BENCHMARK(commit_batch)->ArgName("transactions")->Arg(1)->Arg(16)->Arg(256);

}  // namespace
}  // namespace bench
