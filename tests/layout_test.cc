// The shared layout, field by field, against tests/golden/layout.txt: a change of the ABI is a
// visible difference in review. BIDSTORE_UPDATE_GOLDEN=1 writes the file anew; then bump
// kAbiVersion when the meaning of a field changed, and bring shm/ABI.md up to date.
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "engine/page/page.h"
#include "shm/error.h"
#include "shm/layout.h"
#include "shm/message.h"
#include "shm/stats.h"
#include "tests/client_fields.h"
#include "tests/golden_dump.h"

namespace bidstore {
namespace {

std::vector<Struct> pool_structs() {
    return {
        {"Published",
         sizeof(Published),
         alignof(Published),
         {FIELD(Published, visible), FIELD(Published, reuse_gen), FIELD(Published, dropped),
          FIELD(Published, reserved)}},
        {"EngineState",
         sizeof(EngineState),
         alignof(EngineState),
         {FIELD(EngineState, heartbeat_ns), FIELD(EngineState, sleeping), FIELD(EngineState, mode),
          FIELD(EngineState, reserved)}},
        {"PoolHeader",
         sizeof(PoolHeader),
         alignof(PoolHeader),
         {FIELD(PoolHeader, magic),
          FIELD(PoolHeader, abi_version),
          FIELD(PoolHeader, page_bytes),
          FIELD(PoolHeader, fingerprint),
          FIELD(PoolHeader, segment_bytes),
          FIELD(PoolHeader, instance_id),
          FIELD(PoolHeader, file_uuid),
          FIELD(PoolHeader, frame_count),
          FIELD(PoolHeader, page_count),
          FIELD(PoolHeader, slot_count),
          FIELD(PoolHeader, catalog_root),
          FIELD(PoolHeader, page_map_offset),
          FIELD(PoolHeader, descriptors_offset),
          FIELD(PoolHeader, revoked_offset),
          FIELD(PoolHeader, stats_offset),
          FIELD(PoolHeader, frames_offset),
          FIELD(PoolHeader, max_snapshot_age_ns),
          FIELD(PoolHeader, directory_offset),
          FIELD(PoolHeader, bucket_count),
          FIELD(PoolHeader, reserved),
          FIELD(PoolHeader, published),
          FIELD(PoolHeader, engine)}},
        {"FrameDescriptor",
         sizeof(FrameDescriptor),
         alignof(FrameDescriptor),
         {FIELD(FrameDescriptor, older)}},
        {"DirectoryBucket",
         sizeof(DirectoryBucket),
         alignof(DirectoryBucket),
         {FIELD(DirectoryBucket, entry)}},
        {"Histogram",
         sizeof(Histogram),
         alignof(Histogram),
         {FIELD(Histogram, count), FIELD(Histogram, sum), FIELD(Histogram, bucket)}},
        {"StatsPage",
         sizeof(StatsPage),
         alignof(StatsPage),
         {FIELD(StatsPage, stats_version), FIELD(StatsPage, counter_count),
          FIELD(StatsPage, histogram_count), FIELD(StatsPage, reserved), FIELD(StatsPage, counter),
          FIELD(StatsPage, histogram)}},
        {"PageHeader",
         sizeof(PageHeader),
         alignof(PageHeader),
         {FIELD(PageHeader, csn), FIELD(PageHeader, page_id), FIELD(PageHeader, crc),
          FIELD(PageHeader, file_uuid), FIELD(PageHeader, count), FIELD(PageHeader, free_offset),
          FIELD(PageHeader, type), FIELD(PageHeader, level), FIELD(PageHeader, live_bytes),
          FIELD(PageHeader, table_id), FIELD(PageHeader, time_shift), FIELD(PageHeader, reserved0),
          FIELD(PageHeader, time_min), FIELD(PageHeader, time_max), FIELD(PageHeader, floor)}},
    };
}

std::vector<Struct> message_structs() {
    return {
        {"Hello",
         sizeof(Hello),
         alignof(Hello),
         {FIELD(Hello, magic), FIELD(Hello, abi_version), FIELD(Hello, rights),
          FIELD(Hello, fingerprint), FIELD(Hello, session_id)}},
        {"Welcome",
         sizeof(Welcome),
         alignof(Welcome),
         {FIELD(Welcome, magic), FIELD(Welcome, abi_version), FIELD(Welcome, error),
          FIELD(Welcome, fingerprint), FIELD(Welcome, session_id), FIELD(Welcome, message)}},
        {"PageRequest",
         sizeof(PageRequest),
         alignof(PageRequest),
         {FIELD(PageRequest, count), FIELD(PageRequest, page_id)}},
        {"TransactionHeader",
         sizeof(TransactionHeader),
         alignof(TransactionHeader),
         {FIELD(TransactionHeader, operation_count), FIELD(TransactionHeader, durability)}},
        {"OperationHeader",
         sizeof(OperationHeader),
         alignof(OperationHeader),
         {FIELD(OperationHeader, kind), FIELD(OperationHeader, flags),
          FIELD(OperationHeader, key_bytes), FIELD(OperationHeader, table_id),
          FIELD(OperationHeader, body_bytes), FIELD(OperationHeader, reserved)}},
        {"ColumnValue",
         sizeof(ColumnValue),
         alignof(ColumnValue),
         {FIELD(ColumnValue, column), FIELD(ColumnValue, reserved),
          FIELD(ColumnValue, value_bytes)}},
        {"TableAttributes",
         sizeof(TableAttributes),
         alignof(TableAttributes),
         {FIELD(TableAttributes, retain_us), FIELD(TableAttributes, reserved)}},
        {"AddBody",
         sizeof(AddBody),
         alignof(AddBody),
         {FIELD(AddBody, column), FIELD(AddBody, has_floor), FIELD(AddBody, has_ceiling),
          FIELD(AddBody, reserved), FIELD(AddBody, delta), FIELD(AddBody, floor),
          FIELD(AddBody, ceiling)}},
        {"LoadRequest",
         sizeof(LoadRequest),
         alignof(LoadRequest),
         {FIELD(LoadRequest, step), FIELD(LoadRequest, reserved), FIELD(LoadRequest, rows)}},
        {"CompactRequest",
         sizeof(CompactRequest),
         alignof(CompactRequest),
         {FIELD(CompactRequest, pages), FIELD(CompactRequest, reserved)}},
    };
}

std::vector<Struct> all_structs() {
    std::vector<Struct> all = pool_structs();
    for (Struct& each : client_structs()) all.push_back(std::move(each));
    for (Struct& each : message_structs()) all.push_back(std::move(each));
    return all;
}

struct Constant {
    const char* name;
    std::uint64_t value;
};

#define CONSTANT(name) \
    Constant { #name, static_cast < std::uint64_t>(name) }

std::vector<Constant> constants() {
    return {
        CONSTANT(kAbiVersion),
        CONSTANT(kPoolMagic),
        CONSTANT(kClientMagic),
        CONSTANT(kHelloMagic),
        CONSTANT(kPageBytes),
        CONSTANT(kSlotIdle),
        CONSTANT(kSlotPinAll),
        CONSTANT(kNoFrame),
        CONSTANT(kRingUnitBytes),
        CONSTANT(kCallResults),
        CONSTANT(kStatsVersion),
        CONSTANT(kCounterCount),
        CONSTANT(kHistogramCount),
        CONSTANT(kHistogramBuckets),
        CONSTANT(kTransactionBytesMax),
        CONSTANT(kOperationsMax),
        CONSTANT(kPagesPerRequest),
        CONSTANT(EngineMode::kStarting),
        CONSTANT(EngineMode::kServing),
        CONSTANT(EngineMode::kReadOnly),
        CONSTANT(EngineMode::kStopping),
        CONSTANT(EngineMode::kFenced),
        CONSTANT(RecordKind::kPadding),
        CONSTANT(RecordKind::kPageRequest),
        CONSTANT(RecordKind::kTransaction),
        CONSTANT(RecordKind::kAborted),
        CONSTANT(RecordKind::kLoad),
        CONSTANT(RecordKind::kCompact),
        CONSTANT(Rights::kReader),
        CONSTANT(Rights::kWriter),
        CONSTANT(Rights::kAdmin),
        CONSTANT(Durability::kDurable),
        CONSTANT(Durability::kRelaxed),
        CONSTANT(OperationKind::kCheckPresent),
        CONSTANT(OperationKind::kCheckAbsent),
        CONSTANT(OperationKind::kCheckEquals),
        CONSTANT(OperationKind::kPut),
        CONSTANT(OperationKind::kInsert),
        CONSTANT(OperationKind::kUpdate),
        CONSTANT(OperationKind::kAdd),
        CONSTANT(OperationKind::kDelete),
        CONSTANT(OperationKind::kDeleteRange),
        CONSTANT(OperationKind::kCreateTable),
        CONSTANT(OperationKind::kDropTable),
        CONSTANT(OperationKind::kSetTable),
        CONSTANT(kWantResult),
        CONSTANT(kCreate),
        CONSTANT(kIfPresent),
        CONSTANT(kLayoutFingerprint),
    };
}

std::string dump() {
    std::ostringstream out;
    for (const Constant& each : constants()) {
        out << each.name << " = 0x" << std::hex << each.value << std::dec << "\n";
    }
    for (const Struct& each : all_structs()) {
        out << "\n" << each.name << " size " << each.size << " align " << each.alignment << "\n";
        out << dump_fields(each.fields);
    }
    out << "\ncounters\n";
    for (std::size_t i = 0; i < kCounterNames.size(); ++i) {
        out << "  " << i << " " << kCounterNames[i].name << "\n";
    }
    out << "\nhistograms\n";
    for (std::size_t i = 0; i < kHistogramNames.size(); ++i) {
        out << "  " << i << " " << kHistogramNames[i] << "\n";
    }
    out << "\nerrors\n";
    for (std::uint32_t i = 0; i < kErrorCount; ++i) {
        out << "  " << i << " " << error_name(static_cast<Error>(i)) << "\n";
    }
    return out.str();
}

TEST(Layout, IsThatOfTheGoldenFile) { expect_golden("layout.txt", dump()); }

// The names of the structs that a header defines, one line each: "struct alignas(...) Name {".
std::vector<std::string> struct_names(const std::string& path) {
    std::istringstream text{read_text(path)};
    std::vector<std::string> names;
    for (std::string line; std::getline(text, line);) {
        if (line.rfind("struct ", 0) != 0 || line.find(" {") != line.size() - 2) continue;
        const std::string head = line.substr(0, line.size() - 2);
        names.push_back(head.substr(head.rfind(' ') + 1));
    }
    return names;
}

// A struct that is not in the dump could change unseen.
TEST(Layout, DumpNamesEveryStructOfTheHeaders) {
    const std::string printed = dump();
    for (const char* header : {"/shm/layout.h", "/shm/message.h"}) {
        const std::vector<std::string> names = struct_names(kSourceRoot + header);
        EXPECT_GT(names.size(), 4u) << header;
        for (const std::string& name : names) {
            EXPECT_NE(printed.find("\n" + name + " size "), std::string::npos) << name;
        }
    }
}

TEST(Layout, FieldsFollowEachOtherWithoutGaps) {
    for (const Struct& each : all_structs()) {
        const std::size_t end = end_without_gaps(each.name, each.fields);
        EXPECT_LE(end, each.size) << each.name;
        EXPECT_LT(each.size - end, each.alignment) << each.name << ": a field is not listed";
    }
}

TEST(Layout, WordsOfDifferentWritersShareNoCacheLine) {
    EXPECT_EQ(sizeof(ReaderSlot), kCacheLineBytes);
    EXPECT_NE(offsetof(RingControl, claim) / kCacheLineBytes,
              offsetof(RingControl, head) / kCacheLineBytes);
    EXPECT_NE(offsetof(RingControl, head) / kCacheLineBytes,
              offsetof(RingControl, answered) / kCacheLineBytes);
    EXPECT_NE(offsetof(PoolHeader, published) / kCacheLineBytes,
              offsetof(PoolHeader, engine) / kCacheLineBytes);
    EXPECT_EQ(sizeof(CallSlot) % kCacheLineBytes, 0u);
}

}  // namespace
}  // namespace bidstore
