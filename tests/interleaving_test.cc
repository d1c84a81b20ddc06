// The shared-memory protocols in interleavings that a seed decides (tests/schedule.h): the code of
// shm/, of Pool and of ClientPort, compiled with an Atom that the scheduler stops at every access.
// Each test also plants a mistake, which has to be found.
#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "engine/client_port.h"
#include "engine/pool.h"
#include "shm/call_slot.h"
#include "shm/doorbell.h"
#include "shm/page_map.h"
#include "shm/reader_slot.h"
#include "shm/ring.h"
#include "tests/schedule.h"
#include "tests/sim_clock.h"

namespace bidstore {
namespace {

std::uint32_t bells_rung;

}  // namespace

// In the place of shm/doorbell.cc: a bell without a descriptor.
void ring_doorbell(int) { ++bells_rung; }

namespace {

constexpr std::uint64_t kFirstSeed = 1;

// Runs `world` under so many seeds, half of them with priorities. Returns how many failed; says
// which, unless failures are what is wanted.
template <class World, class Plant>
std::uint64_t failures(std::uint64_t seeds, Plant plant) {
    const char* only = std::getenv("SEED");
    const std::uint64_t first = only != nullptr ? std::strtoull(only, nullptr, 10) : kFirstSeed;
    if (only != nullptr) seeds = 1;
    std::uint64_t failed = 0;
    for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
        Schedule schedule(seed, seed % 2 ? Schedule::Order::kEven : Schedule::Order::kPriorities);
        World world(schedule, plant);
        const char* wrong = schedule.run() ? world.left_wrong() : schedule.failure().c_str();
        if (wrong == nullptr) continue;
        ++failed;
        if (plant == Plant::kNone) {
            ADD_FAILURE() << "seed " << seed << ": " << wrong << " (SEED=" << seed
                          << " repeats it)";
        }
        if (plant != Plant::kNone || failed == 3) break;
    }
    return failed;
}

// ---- readers against the engine -----------------------------------------------------------------

enum class ReadPlant {
    kNone,
    kReclaimBlind,      // slots are not looked at
    kExchangeIsStore,   // R1
    kNoFence,           // E2, E5 and next_generation()
    kWalkUnchecked,     // reuse_gen is not asked
    kFillLate,          // a page is mapped before it is filled
    kVisibleFirst,      // before the page map
    kEvictedTooEarly,   // judged by a csn that is visible already
    kNotValidated,      // valid() is not asked
    kUnpinnedSnapshot,  // a reader that ends before it has used what it found
    kPinnedFromNow,     // slots in PIN_ALL keep what is replaced after the scan alone
    kPinUnchecked,      // the first walk under PIN_ALL does not ask reuse_gen
};

class NoClients final : public Clients {
  public:
    bool take(ClientCommand&) override { return false; }
    void attached(std::uint64_t, Error, std::uint64_t) override {}
    void detached(std::uint64_t) override {}
    void cut_off(std::uint64_t, CutOff, std::string_view) override { ++cut_off_; }
    std::uint32_t wake(Atom<std::uint32_t>&, std::uint32_t, std::uint32_t) override { return 0; }
    void drain_doorbell() override {}
    std::uint32_t cut_off_ = 0;
};

template <class T>
T must(Result<T> made) {
    if (!made) throw std::runtime_error(made.failure().what);
    return std::move(*made);
}

// Pages 1 and 2 change in the same batches, or alone; their content says which page and csn it is.
class ReadWorld {
  public:
    ReadWorld(Schedule& schedule, ReadPlant plant)
        : schedule_(schedule),
          plant_(plant),
          segment_(fresh_segment()),
          view_(shared_view()),
          stats_(segment_.stats()),
          pool_(segment_),
          port_(clients_, segment_, clock_, stats_, kLimits),
          memory_(kClientBytes / sizeof(Line)) {
        if (plant == ReadPlant::kExchangeIsStore) schedule.forget_exchanges();
        if (plant == ReadPlant::kNoFence) schedule.forget_fences();
        attach();
        batch(3, true);
        publish();
        checkpoint();
        schedule.task([this] { serve(); });
        for (std::uint32_t slot = 0; slot < kReaders; ++slot) {
            schedule.task([this, slot] { read(slot); });
        }
    }

    // What should not be so when all tasks are done; nullptr: nothing.
    const char* left_wrong() {
        while (pool_.has_unpublished()) pool_.publish();
        pool_.advance_visible(Csn{next_csn_++});  // evictions may have been the last
        pool_.reclaim(port_.scan(), kAll);
        pool_.check_invariants();
        constexpr auto kHostile = static_cast<std::uint32_t>(Counter::kHostileEvents);
        if (segment_.stats().counter[kHostile].stored() != 0) return "an honest reader was accused";
        std::uint32_t resident = 0;
        for (const PageId page : kPages) resident += pool_.resident(page);
        const bool all = pool_.free_frames() + resident == pool_.frame_count();
        return all ? nullptr : "frames are lost";
    }

  private:
    static constexpr std::uint32_t kReaders = 2;
    static constexpr std::uint32_t kSnapshots = 3;
    static constexpr std::uint32_t kEngineTurns = 40;
    static constexpr std::uint32_t kWalks = 6;
    static constexpr std::uint32_t kAll = ~0u;
    static constexpr std::array kPages{PageId{1}, PageId{2}};
    static constexpr PoolShape kShape{.frame_count = 8,
                                      .page_count = 64,
                                      .slot_count = kReaders,
                                      .instance_id = 1,
                                      .directory_bytes = 2 * sizeof(DirectoryBucket)};
    static constexpr LeaseLimits kLimits{.max_snapshot_age_ns = 1'000'000'000,
                                         .max_pin_all_ns = 1'000'000'000};
    static constexpr std::size_t kRingBytes = 1024;
    static constexpr std::size_t kClientBytes = 16 * 1024;
    struct alignas(kCacheLineBytes) Line {
        std::byte bytes[kCacheLineBytes];
    };
    struct Content {
        std::uint64_t page;
        std::uint64_t csn;
        friend bool operator==(const Content&, const Content&) = default;
    };
    struct Use {
        const std::byte* frame = nullptr;
        Content wanted{};
    };

    // To make and map one takes longer than a schedule does, so all of them share it.
    static PoolSegment& shared_segment() {
        static PoolSegment segment = must(PoolSegment::create(kShape, HugePages::kOff, false));
        return segment;
    }
    static const PoolView& shared_view() {
        shared_segment().announce();
        static const PoolView view = must(PoolView::map(must(shared_segment().open_read_only())));
        return view;
    }
    static PoolSegment& fresh_segment() {
        PoolSegment& segment = shared_segment();
        const auto clear = [](auto* from, std::size_t count) {
            std::memset(static_cast<void*>(from), 0, count * sizeof *from);
        };
        clear(&segment.header().published, 1);
        clear(segment.page_map(), kShape.page_count);
        clear(segment.descriptors(), kShape.frame_count);
        clear(segment.revoked(), kShape.slot_count);
        clear(&segment.stats(), 1);
        clear(segment.directory(), segment.header().bucket_count);
        clear(segment.frame(FrameId{0}), kShape.frame_count * kPageBytes);
        return segment;
    }

    void attach() {
        ClientCommand command;
        command.kind = ClientCommand::Kind::kAttach;
        command.client_id = 1;
        AttachedSegment& segment = command.segment;
        segment.base = memory_[0].bytes;
        segment.slot_count = kReaders;
        segment.call_slot_count = 1;
        segment.ring_bytes = kRingBytes;
        segment.marks_offset = segment.slots_offset + kReaders * sizeof(ReaderSlot);
        segment.ring_control_offset = segment.marks_offset + kReaders * sizeof(TouchMarks);
        segment.ring_offset = segment.ring_control_offset + sizeof(RingControl);
        segment.calls_offset = segment.ring_offset + kRingBytes;
        CHECK_OP(segment.calls_offset + sizeof(CallSlot), <=, kClientBytes);
        slots_ = reinterpret_cast<ReaderSlot*>(segment.base);
        port_.attach(command, 0);
    }

    void pause() {
        for (std::uint64_t steps = schedule_.random(8); steps > 0; --steps) Schedule::step();
    }

    // ---- the engine ----
    static constexpr std::size_t kContentAt = 128;  // behind the header
    static Content content_of(const std::byte* frame) {
        Content content;
        std::memcpy(&content, frame + kContentAt, sizeof content);
        return content;
    }
    void batch(std::uint32_t mask, bool first = false) {
        const Csn csn{next_csn_++};
        pool_.begin_batch(csn);
        for (const PageId page : kPages) {
            if (((mask >> (page.value - 1)) & 1) == 0) continue;
            if (!first && !pool_.resident(page)) continue;
            std::byte* bytes = first ? pool_.first_version(page) : pool_.writable(page);
            const Content content{page.value, csn.value};
            std::memcpy(bytes + kContentAt, &content, sizeof content);
            history_[page.value].push_back(csn.value);
        }
        pool_.end_batch();
        ++unpublished_;
    }
    void publish() {
        if (plant_ == ReadPlant::kVisibleFirst) {
            VersionWriter(segment_).publish(pool_.oldest_unpublished().value);
        }
        pool_.publish();
        --unpublished_;
    }
    void checkpoint() {
        pool_.begin_checkpoint();
        for (const PageId page : kPages) {
            if (pool_.resident(page)) file_[page.value] = pool_.newest_csn(page).value;
        }
        pool_.settle(0, pool_.page_words());
    }
    void evict(PageId page) {
        if (!pool_.settled(page, Csn{pool_.visible()})) return;
        const bool of_its_own = !pool_.has_unpublished();
        const Csn csn = of_its_own ? Csn{next_csn_++} : pool_.oldest_unpublished();
        const bool early = plant_ == ReadPlant::kEvictedTooEarly;
        pool_.evict(page, early ? Csn{pool_.visible()} : csn);
        if (of_its_own) pool_.advance_visible(csn);
    }
    void load(PageId page) {
        if (pool_.resident(page) || pool_.free_frames() == 0) return;
        const FrameId frame = pool_.begin_load(page);
        std::byte* bytes = pool_.frame_bytes(frame);
        const Content content{page.value, file_[page.value]};
        const bool late = plant_ == ReadPlant::kFillLate;
        VersionWriter::fill(bytes, content.csn, nullptr);
        if (!late) std::memcpy(bytes + kContentAt, &content, sizeof content);
        pool_.loaded(frame);
        pause();
        if (late) std::memcpy(bytes + kContentAt, &content, sizeof content);
    }
    void reclaim() {
        HeldSnapshots held = port_.scan();
        if (plant_ == ReadPlant::kPinnedFromNow && held.pinned_from != HeldSnapshots::kNobody) {
            held.pinned_from = pool_.visible();
        }
        pool_.reclaim(plant_ == ReadPlant::kReclaimBlind ? nobody_ : held, kAll);
    }
    void replace_one() {
        if (pool_.free_frames() >= 2) batch(1 + static_cast<std::uint32_t>(schedule_.random(2)));
        if (unpublished_ > 0) publish();
        reclaim();
    }
    void serve() {
        for (std::uint32_t turn = 0; turn < kEngineTurns; ++turn) {
            if (walks_) {
                replace_one();
                continue;
            }
            const PageId page = kPages[schedule_.random(kPages.size())];
            switch (schedule_.random(12)) {
                case 0:
                case 1:
                case 2:
                    if (unpublished_ < 2 && pool_.free_frames() >= 2) {
                        batch(1 + static_cast<std::uint32_t>(schedule_.random(3)));
                    }
                    break;
                case 3:
                case 4:
                case 5:
                    if (unpublished_ > 0) publish();
                    break;
                case 6:
                    if (unpublished_ == 0) checkpoint();
                    evict(page);
                    break;
                case 7:
                    load(page);
                    break;
                case 8:
                    if (schedule_.random(4) == 0) {
                        clock_.advance_ns(kLimits.max_snapshot_age_ns + 1);
                    }
                    break;
                default:
                    reclaim();
            }
        }
    }

    // ---- a reader ----
    Content truth(PageId page, Csn snapshot) const {
        Content content{page.value, 0};
        for (const std::uint64_t csn : history_[page.value]) {
            if (csn <= snapshot.value) content.csn = csn;
        }
        return content;
    }
    PageVersion version_of(PageId page, SlotOwner& owner) {
        const bool planted =
            plant_ == ReadPlant::kWalkUnchecked || plant_ == ReadPlant::kPinUnchecked;
        if (!planted) return version_at(view_, owner, page);
        page_walk::Step step = page_walk::walk(view_, page, owner.snapshot());
        if (!step.disturbed || plant_ == ReadPlant::kWalkUnchecked) return step.version;
        owner.pin_all();
        step = page_walk::walk(view_, page, owner.snapshot());
        owner.unpin();
        return step.version;
    }
    void look_up(SlotOwner& owner, std::array<Use, kPages.size()>& uses) {
        for (std::size_t i = 0; i < kPages.size(); ++i) {
            const PageVersion found = version_of(kPages[i], owner);
            uses[i] = {found.page, truth(kPages[i], owner.snapshot())};
            if (found.lookup == PageLookup::kNoVersion && owner.valid()) {
                Schedule::fail("a page has no version that a valid snapshot sees");
            }
        }
    }
    // Reads, and then asks whether it was right to.
    void use(const SlotOwner& owner, const std::array<Use, kPages.size()>& uses) {
        pause();
        bool right = true;
        for (const Use& use : uses) {
            if (use.frame != nullptr) right &= content_of(use.frame) == use.wanted;
        }
        const bool believed = plant_ == ReadPlant::kNotValidated || owner.valid();
        if (believed && !right) Schedule::fail("a valid snapshot saw a page that is not its own");
    }
    void read(std::uint32_t slot) {
        SlotOwner owner(slots_[slot], view_.published(), view_.revoked()[slot]);
        Csn newest;
        for (std::uint32_t n = 0; n < kSnapshots; ++n) {
            owner.begin();
            if (owner.snapshot() < newest) Schedule::fail("a snapshot goes back");
            newest = owner.snapshot();
            std::array<Use, kPages.size()> uses;
            for (std::uint32_t walk = 0; walks_ && walk < kWalks; ++walk) {
                look_up(owner, uses);
                use(owner, uses);
            }
            look_up(owner, uses);
            if (plant_ == ReadPlant::kUnpinnedSnapshot) {
                owner.end();
                use(owner, uses);
                continue;
            }
            use(owner, uses);
            const std::uint64_t then = schedule_.random(3);
            if (then == 1) owner.renew();
            if (then == 2) {
                owner.rest();
                pause();
                owner.resume();
            }
            if (then != 0) {
                look_up(owner, uses);
                use(owner, uses);
            }
            owner.end();
        }
    }

    Schedule& schedule_;
    const ReadPlant plant_;
    // Versions come and go faster, under readers that walk to theirs again and again.
    const bool walks_ = schedule_.random(2) == 0;
    PoolSegment& segment_;
    const PoolView& view_;
    NoClients clients_;
    SimClock clock_;
    StatsWriter stats_;
    Pool pool_;
    ClientPort port_;
    std::vector<Line> memory_;
    ReaderSlot* slots_ = nullptr;
    const HeldSnapshots nobody_;
    std::uint64_t next_csn_ = 1;
    std::uint32_t unpublished_ = 0;
    std::array<std::vector<std::uint64_t>, 3> history_;
    std::array<std::uint64_t, 3> file_{};
};

TEST(Interleaving, ReadersSeeTheirSnapshotWhateverTheEngineDoes) {
    EXPECT_EQ(failures<ReadWorld>(3000, ReadPlant::kNone), 0u);
}

TEST(Interleaving, MistakesOfReadersAndEngineAreFound) {
    for (const ReadPlant plant :
         {ReadPlant::kReclaimBlind, ReadPlant::kExchangeIsStore, ReadPlant::kNoFence,
          ReadPlant::kWalkUnchecked, ReadPlant::kFillLate, ReadPlant::kVisibleFirst,
          ReadPlant::kEvictedTooEarly, ReadPlant::kNotValidated, ReadPlant::kUnpinnedSnapshot,
          ReadPlant::kPinnedFromNow, ReadPlant::kPinUnchecked}) {
        EXPECT_NE(failures<ReadWorld>(20'000, plant), 0u) << static_cast<int>(plant);
    }
}

// ---- the ring -----------------------------------------------------------------------------------

enum class RingPlant {
    kNone,
    kCommitEarly,  // before the record is written
    kNumberAside,  // write numbers are counted beside the claim, not in it
    kClaimStored,  // by a load and a store, not in one exchange
    kHeadEarly,    // units are given back before their record is taken
    kNotZeroed,    // or with what was in them
    kMarkUndone,   // a request that was taken ahead does not stay marked
};

// Two producers and the engine, on a ring that a few records fill.
class RingWorld {
  public:
    RingWorld(Schedule& schedule, RingPlant plant)
        : schedule_(schedule), plant_(plant), consumer_(control_, ring(), kBytes) {
        init_ring(control_, 0);
        for (std::uint32_t producer = 0; producer < kProducers; ++producer) {
            schedule.task([this, producer] { produce(producer); });
        }
        schedule.task([this] { consume(); });
    }
    const char* left_wrong() const {
        return writes_ + requests_ == kProducers * kRecords ? nullptr : "records are lost";
    }

  private:
    static constexpr std::uint32_t kProducers = 2;
    static constexpr std::uint32_t kRecords = 8;
    static constexpr std::uint32_t kUnits = 16;
    static constexpr std::uint32_t kBytes = kUnits * kRingUnitBytes;
    static constexpr std::uint32_t kPayloadMax = 160;
    struct alignas(kRingUnitBytes) Unit {
        std::byte bytes[kRingUnitBytes] = {};
    };

    std::byte* ring() { return ring_[0].bytes; }
    static std::byte pattern(std::uint32_t producer, std::uint32_t record) {
        return static_cast<std::byte>(1 + producer * kRecords + record);
    }
    void produce(std::uint32_t producer) {
        RingProducer ring_producer(control_, ring(), kBytes);
        for (std::uint32_t record = 0; record < kRecords; ++record) {
            ClaimRequest request;
            request.kind =
                schedule_.random(2) ? RecordKind::kTransaction : RecordKind::kPageRequest;
            request.payload_bytes = 1 + static_cast<std::uint32_t>(schedule_.random(kPayloadMax));
            request.call_slot = producer;
            request.call_generation = record;
            const bool aside =
                plant_ == RingPlant::kNumberAside && request.kind == RecordKind::kTransaction;
            const std::uint64_t number = aside ? 1 + numbers_.fetch_add(1) : 0;
            RingClaim claim;
            for (;;) {
                const std::uint32_t head = control_.head.stored();
                claim = plant_ == RingPlant::kClaimStored ? claim_by_store(request)
                                                          : ring_producer.try_claim(request);
                if (claim) break;
                Schedule::wait_until([this, head] { return control_.head.stored() != head; });
            }
            if (plant_ == RingPlant::kCommitEarly) ring_producer.commit(claim);
            for (std::uint32_t at = 0; at < claim.payload_bytes; ++at) {
                if (at % 32 == 0) Schedule::step();
                claim.payload[at] = pattern(producer, record);
            }
            if (number != 0) claim.header->write_number = number;
            if (plant_ != RingPlant::kCommitEarly) ring_producer.commit(claim);
        }
    }

    RingClaim claim_by_store(const ClaimRequest& request) {
        RingControl own{};
        own.claim.store(control_.claim.load());
        own.head.store(control_.head.load());
        const RingClaim claim = RingProducer(own, ring(), kBytes).try_claim(request);
        control_.claim.store(own.claim.load());
        return claim;
    }

    RecordHeader& record_at(std::uint32_t position) {
        return *reinterpret_cast<RecordHeader*>(ring_[position % kUnits].bytes);
    }
    bool news() { return record_at(consumer_.position()).length_bytes.stored() != 0; }
    void give_back_early() {
        const std::uint32_t bytes = record_at(consumer_.position()).length_bytes.load();
        control_.head.store(consumer_.position() + ring_units(bytes));
    }
    // From this position up to the consumer's, after its take.
    void put_back(std::uint32_t position, const std::array<Unit, kUnits>& before) {
        for (; position != consumer_.position(); ++position) {
            std::uint32_t word = 0;
            std::memcpy(&word, before[position % kUnits].bytes, sizeof word);
            record_at(position).length_bytes.store(word);
        }
    }
    void undo_mark(const TakenRecord& taken) {
        for (std::uint32_t unit = 0; unit < kUnits; ++unit) {
            RecordHeader& header = record_at(unit);
            const bool its = header.call_slot == taken.call_slot &&
                             header.call_generation == taken.call_generation;
            if (its && header.kind == RecordKind::kAborted) header.kind = taken.kind;
        }
    }
    void consume() {
        std::array<std::byte, kBytes> buffer;
        while (writes_ + requests_ < kProducers * kRecords) {
            TakenRecord record;
            const bool ahead = schedule_.random(3) == 0;
            const std::uint32_t position = consumer_.position();
            const std::array<Unit, kUnits> before = ring_;
            if (plant_ == RingPlant::kHeadEarly) give_back_early();
            const TakeResult result = ahead ? consumer_.take_page_request(buffer, record)
                                            : consumer_.take(buffer, record);
            if (result == TakeResult::kHostile) Schedule::fail("honest producers are accused");
            if (plant_ == RingPlant::kNotZeroed) put_back(position, before);
            if (plant_ == RingPlant::kMarkUndone && ahead) undo_mark(record);
            if (result == TakeResult::kRecord) check(record);
            if (result == TakeResult::kRecord && schedule_.random(2) == 0) continue;
            consumer_.publish_head();
            if (result == TakeResult::kEmpty && !ahead) {
                Schedule::wait_until([this] { return news(); });
            }
        }
    }
    void check(const TakenRecord& record) {
        const std::uint32_t producer = record.call_slot;
        const std::uint32_t number = record.call_generation;
        for (const std::byte byte : record.payload) {
            if (byte != pattern(producer, number)) {
                Schedule::fail("a record was taken before it was written");
            }
        }
        if (taken_[producer][number]) Schedule::fail("a record was taken twice");
        taken_[producer][number] = true;
        if (record.kind == RecordKind::kPageRequest) {
            ++requests_;
            return;
        }
        if (record.write_number != ++writes_) Schedule::fail("writes are not in the ring's order");
        if (number < next_write_[producer]) Schedule::fail("writes overtake each other");
        next_write_[producer] = number + 1;
    }

    Schedule& schedule_;
    const RingPlant plant_;
    RingControl control_{};
    std::array<Unit, kUnits> ring_;
    RingConsumer consumer_;
    std::uint64_t writes_ = 0;
    std::uint64_t requests_ = 0;
    Atom<std::uint64_t> numbers_ = 0;
    bool taken_[kProducers][kRecords] = {};
    std::uint32_t next_write_[kProducers] = {};
};

TEST(Interleaving, RecordsAreTakenWholeOnceAndInTheirOrder) {
    EXPECT_EQ(failures<RingWorld>(2000, RingPlant::kNone), 0u);
}

TEST(Interleaving, MistakesOfProducersAreFound) {
    for (const RingPlant plant :
         {RingPlant::kCommitEarly, RingPlant::kNumberAside, RingPlant::kMarkUndone}) {
        EXPECT_NE(failures<RingWorld>(2000, plant), 0u) << static_cast<int>(plant);
    }
}

// Where a debug build has them, the producer's own checks may find it first.
TEST(Interleaving, UnitsOfTheRingWithTwoOwnersAreFound) {
    for (const RingPlant plant :
         {RingPlant::kClaimStored, RingPlant::kHeadEarly, RingPlant::kNotZeroed}) {
        EXPECT_EXIT(
            {
                if (failures<RingWorld>(2000, plant) == 0) std::_Exit(0);
                std::abort();
            },
            ::testing::KilledBySignal(SIGABRT), "")
            << static_cast<int>(plant);
    }
}

// ---- sleepers: call slots and the doorbell ------------------------------------------------------

enum class CallPlant {
    kNone,
    kWaitersFirst,   // E4 before E1 and E2
    kLookBefore,     // the engine looks at its rings, and then says that it sleeps
    kNoBellFence,    // neither side has a fence between what it says and where it looks
    kAnsweredFirst,  // C1 behind C4: the thread falls asleep behind the wake
};

// Threads that post and sleep until their answer, and the engine, which sleeps when there is none.
class CallWorld {
  public:
    CallWorld(Schedule& schedule, CallPlant plant) : plant_(plant), sleep_(engine_) {
        if (plant == CallPlant::kNoBellFence) schedule.forget_fences();
        bells_rung = 0;
        for (std::uint32_t thread = 0; thread < kThreads; ++thread) {
            schedule.task([this, thread] { call(thread); });
        }
        schedule.task([this] { serve(); });
    }
    const char* left_wrong() const {
        return control_.waiters.stored() == 0 ? nullptr : "somebody is said to wait";
    }

  private:
    static constexpr std::uint32_t kThreads = 2;
    static constexpr std::uint32_t kCalls = 5;

    // A futex: compares with what is stored, and then sleeps until it is woken.
    bool futex_wait(Atom<std::uint32_t>& word, std::uint32_t expected, std::uint32_t thread) {
        memory_fence<std::memory_order_seq_cst>();  // a system call
        if (plant_ == CallPlant::kAnsweredFirst) expected = word.stored();
        if (word.stored() != expected) return true;
        woken_[thread] = false;
        Schedule::wait_until([this, thread] { return woken_[thread]; });
        return true;
    }
    void call(std::uint32_t thread) {
        for (std::uint32_t generation = 1; generation <= kCalls; ++generation) {
            posted_[thread].store(generation, std::memory_order_release);
            ring_if_sleeping(engine_, -1);
            const AwaitedCall awaited{&slots_[thread], thread, generation};
            wait_for_answer_by(
                control_, {&awaited, 1},
                [this, thread](Atom<std::uint32_t>& word, std::uint32_t expected, std::uint32_t) {
                    return futex_wait(word, expected, thread);
                });
            const Answer answer = read_answer(slots_[thread], generation);
            if (answer.csn != generation) Schedule::fail("an answer is not that of its call");
        }
    }

    bool any_posted() const {
        bool any = false;
        for (std::uint32_t thread = 0; thread < kThreads; ++thread) {
            any |= posted_[thread].load(std::memory_order_acquire) != given_[thread];
        }
        return any;
    }
    void wake(std::uint32_t bits) {
        for (std::uint32_t thread = 0; thread < kThreads; ++thread) {
            woken_[thread] |= (bits & call_bit(thread)) != 0;
        }
    }
    void give_answers() {
        const bool early = plant_ == CallPlant::kWaitersFirst;
        const bool nobody = early && control_.waiters.load(std::memory_order_relaxed) == 0;
        for (std::uint32_t thread = 0; thread < kThreads; ++thread) {
            const std::uint32_t posted = posted_[thread].load(std::memory_order_acquire);
            if (posted == given_[thread]) continue;
            given_[thread] = posted;
            answers_.give(slots_.data(), thread, posted, Error::kOk, posted);
        }
        const std::uint32_t bits = answers_.finish(control_);
        if (bits != 0 && !nobody) wake(bits);
    }
    void serve() {
        while (given_ != std::array<std::uint32_t, kThreads>{kCalls, kCalls}) {
            give_answers();
            const bool before = any_posted();
            sleep_.announce();
            const bool news = plant_ == CallPlant::kLookBefore ? before : any_posted();
            if (!news && given_ != std::array<std::uint32_t, kThreads>{kCalls, kCalls}) {
                Schedule::wait_until([] { return bells_rung > 0; });
            }
            sleep_.cancel();
            bells_rung = 0;
        }
    }

    const CallPlant plant_;
    EngineState engine_{};
    EngineSleep sleep_;
    RingControl control_{};
    std::array<CallSlot, kThreads> slots_{};
    std::array<Atom<std::uint32_t>, kThreads> posted_{};
    std::array<std::uint32_t, kThreads> given_{};
    bool woken_[kThreads] = {};
    Answers answers_;
};

TEST(Interleaving, NoSleeperIsForgotten) {
    EXPECT_EQ(failures<CallWorld>(2000, CallPlant::kNone), 0u);
}

TEST(Interleaving, MistakesAboutSleepersAreFound) {
    for (const CallPlant plant : {CallPlant::kWaitersFirst, CallPlant::kLookBefore,
                                  CallPlant::kNoBellFence, CallPlant::kAnsweredFirst}) {
        EXPECT_NE(failures<CallWorld>(20'000, plant), 0u) << static_cast<int>(plant);
    }
}

}  // namespace
}  // namespace bidstore
