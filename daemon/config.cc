#include "daemon/config.h"

#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <span>
#include <sstream>
#include <string_view>
#include <type_traits>
#include <utility>

#include "engine/wal.h"

namespace bidstore {
namespace {

constexpr std::uint64_t kKiB = 1ull << 10;
constexpr std::uint64_t kMiB = 1ull << 20;
constexpr std::uint64_t kGiB = 1ull << 30;
constexpr std::uint64_t kJournalBytesMin = 2 * kMiB;  // a quarter of the least pool
constexpr std::uint64_t kTiB = 1ull << 40;
constexpr std::uint64_t kMicrosecond = 1'000;
constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kHour = 3'600 * kSecond;
constexpr std::uint64_t kDay = 24 * kHour;
constexpr std::uint64_t kEngineLingerNs = 400 * kMicrosecond;  // bursts of a fast device
constexpr std::uint32_t kSlotsMax = 65'536;  // the engine looks at each after a publication
constexpr std::size_t kSocketPathMax = 107;  // sockaddr_un::sun_path with its end

struct Unit {
    std::string_view name;
    std::uint64_t factor;
};
constexpr Unit kSizeUnits[] = {
    {"TiB", kTiB}, {"GiB", kGiB}, {"MiB", kMiB}, {"KiB", kKiB}, {"B", 1}};
constexpr Unit kTimeUnits[] = {{"d", kDay},    {"h", kHour},         {"min", 60 * kSecond},
                               {"s", kSecond}, {"ms", kMillisecond}, {"us", kMicrosecond},
                               {"ns", 1}};

// The largest unit that divides the value, as an operator would write it.
std::string with_unit(std::uint64_t value, std::span<const Unit> units) {
    for (const Unit& unit : units) {
        if (value != 0 && value % unit.factor == 0) {
            return std::to_string(value / unit.factor) + std::string(unit.name);
        }
    }
    return "0" + std::string(units.back().name);
}

// "6GiB" or "500us": digits, then one of the units; no fractions, no blanks, no overflow.
bool parse_with_unit(std::string_view text, std::span<const Unit> units, std::uint64_t& value) {
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc{} || rest == text.data()) return false;
    const std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
    for (const Unit& unit : units) {
        if (suffix == unit.name) return !__builtin_mul_overflow(value, unit.factor, &value);
    }
    return value == 0 && suffix.empty();
}

// ---- one setting --------------------------------------------------------------------------------

enum class Kind : std::uint8_t { kText, kMode, kList, kSize, kTime, kCount, kBool, kWord };

// A setting: how it is written, what is allowed, and where it goes. `set` gets a value that was
// checked; for kWord it is the index of the word.
struct Setting {
    std::string_view key;
    Kind kind;
    std::int64_t smallest = 0;
    std::int64_t largest = 0;
    void (*set)(Config&, std::int64_t) = nullptr;
    std::string Config::*text = nullptr;
    std::vector<std::string> Config::*list = nullptr;
    std::vector<std::string_view> words;
};

template <auto Field>
void store(Config& config, std::int64_t value) {
    using Value = std::remove_reference_t<decltype(config.*Field)>;
    config.*Field = static_cast<Value>(value);
}

Setting text_setting(std::string_view key, std::string Config::*field) {
    return {.key = key, .kind = Kind::kText, .text = field, .words = {}};
}
Setting list_setting(std::string_view key, std::vector<std::string> Config::*field) {
    return {.key = key, .kind = Kind::kList, .list = field, .words = {}};
}
template <auto Field>
Setting number_setting(std::string_view key, Kind kind, std::uint64_t smallest,
                       std::uint64_t largest) {
    return {.key = key,
            .kind = kind,
            .smallest = static_cast<std::int64_t>(smallest),
            .largest = static_cast<std::int64_t>(largest),
            .set = store<Field>,
            .words = {}};
}
template <auto Field>
Setting word_setting(std::string_view key, std::vector<std::string_view> words) {
    return {.key = key, .kind = Kind::kWord, .set = store<Field>, .words = std::move(words)};
}

// In the order of systemd/bidstored.toml.
const std::vector<Setting>& settings() {
    static const std::vector<Setting> all = {
        text_setting("directory", &Config::directory),
        text_setting("socket", &Config::socket),
        number_setting<&Config::socket_mode>("socket_mode", Kind::kMode, 0, 0777),
        list_setting("readers", &Config::readers),
        list_setting("writers", &Config::writers),
        list_setting("admins", &Config::admins),
        number_setting<&Config::pool_bytes>("pool_bytes", Kind::kSize, 8 * kMiB, 4 * kTiB),
        number_setting<&Config::max_data_bytes>("max_data_bytes", Kind::kSize, 8 * kMiB, 8 * kTiB),
        number_setting<&Config::directory_bytes>("directory_bytes", Kind::kSize, 4 * kKiB, kTiB),
        word_setting<&Config::huge_pages>("huge_pages", {"off", "try", "on"}),
        number_setting<&Config::pin_recent_ns>("pin_recent", Kind::kTime, 0, kDay),
        number_setting<&Config::pin_recent_percent>("pin_recent_percent", Kind::kCount, 0, 90),
        number_setting<&Config::seal_pool_writes>("seal_pool_writes", Kind::kBool, 0, 1),
        // -1 is written as such; the range is checked with the sign.
        {.key = "engine_cpu",
         .kind = Kind::kCount,
         .smallest = -1,
         .largest = 1023,
         .set = store<&Config::engine_cpu>,
         .words = {}},
        word_setting<&Config::spin>("idle", {"adaptive", "spin"}),
        word_setting<&Config::disk>("disk", {"auto", "io_uring", "threads"}),
        number_setting<&Config::log_segment_bytes>("log_segment_bytes", Kind::kSize, kMiB, kGiB),
        number_setting<&Config::log_segment_count>("log_segment_count", Kind::kCount, 3, 4096),
        number_setting<&Config::journal_bytes>("journal_bytes", Kind::kSize, kJournalBytesMin,
                                               64 * kGiB),
        number_setting<&Config::group_commit_bytes>("group_commit_bytes", Kind::kSize, 4 * kKiB,
                                                    8 * kMiB),
        number_setting<&Config::group_commit_interval_ns>("group_commit_interval", Kind::kTime, 0,
                                                          kSecond),
        number_setting<&Config::recovery_log_bytes>("recovery_log_bytes", Kind::kSize, 4 * kMiB,
                                                    4 * kTiB),
        number_setting<&Config::checkpoint_interval_ns>("checkpoint_interval", Kind::kTime,
                                                        10 * kMillisecond, kDay),
        number_setting<&Config::max_snapshot_age_ns>("max_snapshot_age", Kind::kTime,
                                                     50 * kMillisecond, 3'600 * kSecond),
        number_setting<&Config::max_held_bytes>("max_held_bytes", Kind::kSize, kMiB, kTiB),
        number_setting<&Config::session_age_ns>("session_age", Kind::kTime, kHour, 3'650 * kDay),
        number_setting<&Config::max_clients>("max_clients", Kind::kCount, 1, 4096),
        number_setting<&Config::max_clients_per_user>("max_clients_per_user", Kind::kCount, 0,
                                                      4096),
        number_setting<&Config::slots_per_client>("slots_per_client", Kind::kCount, 1, 4096),
        number_setting<&Config::call_slots_per_client>("call_slots_per_client", Kind::kCount, 32,
                                                       65'536),
        number_setting<&Config::ring_bytes>("ring_bytes", Kind::kSize, kMiB, 256 * kMiB),
        number_setting<&Config::handshake_timeout_ns>("handshake_timeout", Kind::kTime,
                                                      10 * kMillisecond, 60 * kSecond),
        number_setting<&Config::stop_timeout_ns>("stop_timeout", Kind::kTime, kSecond,
                                                 3'600 * kSecond),
    };
    return all;
}

std::span<const Unit> units_of(Kind kind) {
    if (kind == Kind::kTime) return kTimeUnits;
    return kSizeUnits;
}

std::string octal(std::uint64_t value) {
    std::ostringstream text;
    text << "0" << std::oct << value;
    return text.str();
}

std::string show(const Setting& setting, std::int64_t value) {
    if (setting.kind == Kind::kMode) return "\"" + octal(static_cast<std::uint64_t>(value)) + "\"";
    if (setting.kind != Kind::kSize && setting.kind != Kind::kTime) return std::to_string(value);
    return "\"" + with_unit(static_cast<std::uint64_t>(value), units_of(setting.kind)) + "\"";
}

// What may stand there, for the message.
std::string allowed(const Setting& setting) {
    std::string range;
    if (setting.kind == Kind::kSize || setting.kind == Kind::kTime ||
        setting.kind == Kind::kCount || setting.kind == Kind::kMode) {
        range =
            " from " + show(setting, setting.smallest) + " to " + show(setting, setting.largest);
    }
    switch (setting.kind) {
        case Kind::kText:
            return "a non-empty text";
        case Kind::kMode:
            return "access bits as octal digits in quotes," + range;
        case Kind::kList:
            return "a list of user names or numbers, and of groups as \"@name\"";
        case Kind::kSize:
            return "a size with B, KiB, MiB, GiB or TiB," + range;
        case Kind::kTime:
            return "a duration with ns, us, ms, s, min, h or d," + range;
        case Kind::kCount:
            return "a whole number" + range;
        case Kind::kBool:
            return "true or false";
        case Kind::kWord:
            break;
    }
    std::string words = "one of";
    for (const std::string_view word : setting.words) words += " \"" + std::string(word) + "\"";
    return words;
}

std::string text_of(const toml::node& node) {
    std::ostringstream text;
    node.visit([&](const auto& value) { text << value; });
    return text.str();
}

// The value as a number, whatever way it is written; false when it is not of the setting's kind.
bool number_of(const Setting& setting, const toml::node& node, std::int64_t& number) {
    const auto integer = node.value_exact<std::int64_t>();
    const auto text = node.value_exact<std::string>();
    std::uint64_t value = 0;
    switch (setting.kind) {
        case Kind::kSize:
        case Kind::kTime:
            if (!text || !parse_with_unit(*text, units_of(setting.kind), value)) return false;
            number = static_cast<std::int64_t>(std::min<std::uint64_t>(value, INT64_MAX));
            return true;
        case Kind::kMode: {
            if (!text || text->empty()) return false;
            const char* end = text->data() + text->size();
            const auto [rest, error] = std::from_chars(text->data(), end, value, 8);
            number = static_cast<std::int64_t>(value & INT64_MAX);
            return error == std::errc{} && rest == end;
        }
        case Kind::kBool:
            if (!node.is_boolean()) return false;
            number = node.value_or(false) ? 1 : 0;
            return true;
        case Kind::kWord: {
            if (!text) return false;
            const auto found = std::find(setting.words.begin(), setting.words.end(), *text);
            number = found - setting.words.begin();
            return found != setting.words.end();
        }
        case Kind::kCount:
            if (!integer) return false;
            number = *integer;
            return true;
        case Kind::kText:
        case Kind::kList:
            break;
    }
    return false;
}

bool set_list(const Setting& setting, const toml::node& node, Config& config) {
    const toml::array* array = node.as_array();
    if (array == nullptr) return false;
    std::vector<std::string> names;
    for (const toml::node& element : *array) {
        if (const auto number = element.value_exact<std::int64_t>(); number && *number >= 0) {
            names.push_back(std::to_string(*number));
        } else if (const auto name = element.value_exact<std::string>(); name && !name->empty()) {
            names.push_back(*name);
        } else {
            return false;
        }
    }
    config.*setting.list = std::move(names);
    return true;
}

bool set_value(const Setting& setting, const toml::node& node, Config& config) {
    if (setting.kind == Kind::kList) return set_list(setting, node, config);
    if (setting.kind == Kind::kText) {
        const auto text = node.value_exact<std::string>();
        if (!text || text->empty()) return false;
        config.*setting.text = *text;
        return true;
    }
    std::int64_t number = 0;
    if (!number_of(setting, node, number)) return false;
    if (setting.kind != Kind::kWord && (number < setting.smallest || number > setting.largest)) {
        return false;
    }
    setting.set(config, number);
    return true;
}

// ---- unknown settings ---------------------------------------------------------------------------

// How many letters must be added, dropped or replaced to get from one word to the other.
std::size_t edit_distance(std::string_view left, std::string_view right) {
    std::vector<std::size_t> row(right.size() + 1);
    for (std::size_t i = 0; i <= right.size(); ++i) row[i] = i;
    for (std::size_t l = 0; l < left.size(); ++l) {
        std::size_t diagonal = row[0];
        row[0] = l + 1;
        for (std::size_t r = 0; r < right.size(); ++r) {
            const std::size_t replaced = diagonal + (left[l] == right[r] ? 0 : 1);
            diagonal = row[r + 1];
            row[r + 1] = std::min({replaced, row[r] + 1, row[r + 1] + 1});
        }
    }
    return row.back();
}

std::string_view nearest_key(std::string_view key) {
    const auto& all = settings();
    const auto nearest =
        std::min_element(all.begin(), all.end(), [&](const Setting& left, const Setting& right) {
            return edit_distance(key, left.key) < edit_distance(key, right.key);
        });
    return nearest->key;
}

const Setting* find_setting(std::string_view key) {
    for (const Setting& setting : settings()) {
        if (setting.key == key) return &setting;
    }
    return nullptr;
}

// `place` says where it stands: "FILE:LINE: " or "--set: ".
Status apply_one(const std::string& place, std::string_view key, const toml::node& node,
                 Config& config) {
    const Setting* setting = find_setting(key);
    if (setting == nullptr) {
        return {Error::kInvalid, place + "unknown setting \"" + std::string(key) +
                                     "\"; the nearest known one is \"" +
                                     std::string(nearest_key(key)) +
                                     "\" (all are in bidstored.toml, the example)"};
    }
    if (set_value(*setting, node, config)) return {};
    return {Error::kInvalid,
            place + std::string(key) + " = " + text_of(node) + ": must be " + allowed(*setting)};
}

Status apply_table(const std::string& file, const toml::table& table, Config& config) {
    for (const auto& [key, node] : table) {
        const std::string place = file + ":" + std::to_string(key.source().begin.line) + ": ";
        if (Status status = apply_one(place, key.str(), node, config); !status) return status;
    }
    return {};
}

Result<toml::table> parse_toml(std::string_view text, const std::string& name) {
    try {
        return toml::parse(text, name);
    } catch (const toml::parse_error& error) {  // the library's way to say it; ends here
        return {Error::kInvalid, name + ":" + std::to_string(error.source().begin.line) +
                                     ": not valid TOML: " + std::string(error.description())};
    }
}

// key=value, where the value is TOML, or a text without its quotes.
Status apply_override(const std::string& argument, Config& config) {
    const std::size_t equals = argument.find('=');
    if (equals == std::string::npos || equals == 0) {
        return {Error::kInvalid, "--set " + argument + ": must be key=value"};
    }
    const std::string key = argument.substr(0, equals);
    const std::string value = argument.substr(equals + 1);
    auto table = parse_toml("value = " + value, "--set " + key);
    if (!table) table = parse_toml("value = '" + value + "'", "--set " + key);
    if (!table) return table.failure();
    const toml::node* node = table->get("value");
    if (node == nullptr || table->size() != 1) {
        return {Error::kInvalid, "--set " + argument + ": must be one key=value"};
    }
    return apply_one("--set: ", key, *node, config);
}

// ---- relations between settings -----------------------------------------------------------------

Status refuse(const std::string& what) { return {Error::kInvalid, what}; }

std::string size_text(std::uint64_t value) { return with_unit(value, kSizeUnits); }
std::string time_text(std::uint64_t value) { return with_unit(value, kTimeUnits); }

Status check_paths(const Config& config) {
    if (config.socket.size() > kSocketPathMax) {
        return refuse("socket = \"" + config.socket + "\": the kernel allows " +
                      std::to_string(kSocketPathMax) + " bytes, these are " +
                      std::to_string(config.socket.size()) + ": choose a shorter path");
    }
    return {};
}

Status check_sizes(const Config& config) {
    for (const auto& [key, value] : {std::pair{"pool_bytes", config.pool_bytes},
                                     std::pair{"max_data_bytes", config.max_data_bytes},
                                     std::pair{"log_segment_bytes", config.log_segment_bytes},
                                     std::pair{"journal_bytes", config.journal_bytes}}) {
        if (value % kPageBytes != 0) {
            return refuse(std::string(key) + " = " + size_text(value) +
                          ": must be a multiple of a page (4KiB)");
        }
    }
    if (!is_power_of_two(config.ring_bytes)) {
        return refuse("ring_bytes = " + size_text(config.ring_bytes) + ": must be a power of two");
    }
    // What a checkpoint has to write cannot be evicted before, and readers may hold older versions.
    if (config.journal_bytes > config.pool_bytes / 2) {
        return refuse("journal_bytes = " + size_text(config.journal_bytes) +
                      ": must be at most half of pool_bytes (" + size_text(config.pool_bytes) +
                      "), since changed pages stay in the pool until a checkpoint wrote them");
    }
    if (config.group_commit_bytes > config.log_segment_bytes / 4) {
        return refuse("group_commit_bytes = " + size_text(config.group_commit_bytes) +
                      ": must be at most a quarter of log_segment_bytes (" +
                      size_text(config.log_segment_bytes) + "), since a batch fills no more");
    }
    const std::uint64_t batch = std::min<std::uint64_t>(config.log_segment_bytes, kBatchBytesMax);
    if (config.recovery_log_bytes < 4 * batch) {
        return refuse("recovery_log_bytes = " + size_text(config.recovery_log_bytes) +
                      ": must be at least " + size_text(4 * batch) +
                      " (four times log_segment_bytes, or 16MiB), since that much may be on its "
                      "way while a checkpoint is made");
    }
    return {};
}

Status check_counts(const Config& config) {
    const std::uint64_t slots = std::uint64_t{config.max_clients} * config.slots_per_client;
    if (slots > kSlotsMax) {
        return refuse("max_clients * slots_per_client = " + std::to_string(slots) +
                      ": must be at most " + std::to_string(kSlotsMax) +
                      ", since the engine looks at every slot after each batch");
    }
    if (config.checkpoint_interval_ns < config.group_commit_interval_ns) {
        return refuse("checkpoint_interval = " + time_text(config.checkpoint_interval_ns) +
                      ": must not be below group_commit_interval (" +
                      time_text(config.group_commit_interval_ns) + ")");
    }
    return {};
}

// `place` starts the messages.
Result<Config> finish(const std::string& place, Config config) {
    if (config.journal_bytes == 0) {
        config.journal_bytes =
            align_up(std::clamp(config.pool_bytes / 4, kJournalBytesMin, 256 * kMiB), kPageBytes);
    }
    if (config.directory_bytes == 0) config.directory_bytes = config.pool_bytes / 16;
    for (const auto check : {check_paths, check_sizes, check_counts}) {
        const Status status = check(config);
        if (!status) return {status.error(), place + status.failure().what};
    }
    return config;
}

Status apply_overrides(const Overrides& overrides, Config& config) {
    for (const std::string& argument : overrides) {
        if (Status status = apply_override(argument, config); !status) return status;
    }
    return {};
}

}  // namespace

Result<Config> load_config(const std::string& file, const Overrides& overrides) {
    std::ifstream stream(file);
    if (!stream) {
        return {Error::kInvalid, file + ": cannot be read: " + std::strerror(errno) +
                                     " (an example is bidstored.toml in the package)"};
    }
    std::ostringstream text;
    text << stream.rdbuf();
    auto table = parse_toml(text.str(), file);
    if (!table) return table.failure();
    Config config;
    if (Status status = apply_table(file, *table, config); !status) return status.failure();
    if (Status status = apply_overrides(overrides, config); !status) return status.failure();
    return finish(file + ": ", std::move(config));
}

Result<Config> dev_config(const std::string& directory, const Overrides& overrides) {
    Config config;
    config.directory = directory + "/data";
    config.socket = directory + "/bidstore.sock";
    config.socket_mode = 0600;
    config.admins = {std::to_string(geteuid()), "0"};
    config.pool_bytes = 256 * kMiB;
    config.max_data_bytes = 4 * kGiB;
    config.huge_pages = HugePages::kOff;
    // Daemon and clients share a user here, so only the seal keeps clients from a writable mapping.
    config.seal_pool_writes = true;
    config.log_segment_bytes = 4 * kMiB;
    config.log_segment_count = 4;
    config.max_clients = 32;
    if (Status status = apply_overrides(overrides, config); !status) return status.failure();
    return finish("", std::move(config));
}

std::vector<std::string> setting_names() {
    std::vector<std::string> names;
    for (const Setting& setting : settings()) names.emplace_back(setting.key);
    return names;
}

EngineOptions engine_options(const Config& config) {
    EngineOptions options;
    options.log_segment_bytes = config.log_segment_bytes;
    options.log_segment_count = config.log_segment_count;
    options.journal_bytes = config.journal_bytes;
    options.group_commit_bytes = config.group_commit_bytes;
    options.group_commit_interval_ns = config.group_commit_interval_ns;
    options.recovery_log_bytes = config.recovery_log_bytes;
    options.checkpoint_interval_ns = config.checkpoint_interval_ns;
    options.max_snapshot_age_ns = config.max_snapshot_age_ns;
    // In a small pool less: a client that holds all of it holds up all others.
    options.max_held_bytes = std::min(config.max_held_bytes, config.pool_bytes / 4);
    options.pin_recent_us = config.pin_recent_ns / kMicrosecond;
    options.pin_recent_share = config.pin_recent_percent / 100.0;
    options.session_age_us = config.session_age_ns / kMicrosecond;
    options.spin = config.spin;
    options.linger_ns = kEngineLingerNs;
    return options;
}

PoolShape pool_shape(const Config& config) {
    PoolShape shape;
    shape.frame_count = static_cast<std::uint32_t>(config.pool_bytes / kPageBytes) + 1;
    shape.page_count = static_cast<std::uint32_t>(config.max_data_bytes / kPageBytes);
    shape.slot_count = config.max_clients * config.slots_per_client;
    shape.max_snapshot_age_ns = config.max_snapshot_age_ns;
    shape.directory_bytes = config.directory_bytes;
    return shape;
}

}  // namespace bidstore
