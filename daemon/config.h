// The settings of the daemon: read from a TOML file or made for --dev, checked, and nothing else.
//
// Who:    main reads them once, at start; they do not change afterwards.
// Errors: kInvalid; the message names file, line, setting, the value found and what is allowed. An
//         unknown setting is refused with the nearest known one, so that a misspelt one is not
//         silently the default.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "shm/error.h"
#include "shm/segment.h"

namespace bidstore {

enum class DiskKind : std::uint8_t {
    kAuto,  // io_uring, and threads where the host forbids it
    kUring,
    kThreads,
};

// The comment of each setting is in systemd/bidstored.toml, where the operator reads it.
struct Config {
    std::string directory = "/var/lib/bidstore";
    std::string socket = "/run/bidstore/bidstore.sock";
    std::uint32_t socket_mode = 0666;
    // User names or numbers, and groups as "@name"; names are looked up by AccessRules.
    std::vector<std::string> readers;
    std::vector<std::string> writers;
    std::vector<std::string> admins = {"root"};

    std::uint64_t pool_bytes = 4ull << 30;
    std::uint64_t max_data_bytes = 64ull << 30;
    std::uint64_t directory_bytes = 0;  // 0 until loaded: then a sixteenth of the pool
    HugePages huge_pages = HugePages::kTry;
    bool seal_pool_writes = false;

    int engine_cpu = -1;
    bool spin = false;
    DiskKind disk = DiskKind::kAuto;

    std::uint64_t log_segment_bytes = 16ull << 20;
    std::uint32_t log_segment_count = 8;
    std::uint64_t journal_bytes = 0;  // 0 until loaded: then a quarter of the pool, at most 256 MiB
    std::uint64_t group_commit_bytes = 64ull << 10;
    std::uint64_t group_commit_interval_ns = 0;
    std::uint64_t recovery_log_bytes = 1ull << 30;
    std::uint64_t checkpoint_interval_ns = 30'000'000'000;

    std::uint64_t max_snapshot_age_ns = 5'000'000'000;
    std::uint64_t max_held_bytes = 256ull << 20;
    std::uint64_t pin_recent_ns = 60'000'000'000;
    std::uint32_t pin_recent_percent = 50;
    std::uint64_t session_age_ns = 7ull * 86'400'000'000'000;
    std::uint32_t max_clients = 64;
    std::uint32_t max_clients_per_user = 0;
    std::uint32_t slots_per_client = 128;
    std::uint32_t call_slots_per_client = 512;
    std::uint64_t ring_bytes = 4ull << 20;
    std::uint64_t handshake_timeout_ns = 2'000'000'000;
    std::uint64_t stop_timeout_ns = 60'000'000'000;
};

// Settings given on the command line as key=value; they win over the file.
using Overrides = std::vector<std::string>;

Result<Config> load_config(const std::string& file, const Overrides& overrides);
// For development: no root, no huge pages, everything in `directory`, small.
Result<Config> dev_config(const std::string& directory, const Overrides& overrides);

// The names of all settings, in the order of the example file.
std::vector<std::string> setting_names();

// What the engine and the pool are told.
EngineOptions engine_options(const Config& config);
PoolShape pool_shape(const Config& config);

}  // namespace bidstore
