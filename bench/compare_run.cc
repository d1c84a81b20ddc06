#include "bench/compare_run.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <new>
#include <sstream>
#include <thread>
#include <utility>

#include "bench/compare_engine.h"
#include "bench/cpu_time.h"
#include "bench/histogram.h"
#include "bench/machine.h"
#include "bench/measure.h"
#include "bench/tick_clock.h"

namespace bench {
namespace {

constexpr std::uint32_t kRepeatMax = 9;
constexpr double kWarmUpShare = 0.5;  // of --seconds, before what counts
constexpr std::uint64_t kNumberMask = (std::uint64_t{1} << 40) - 1;  // of a value's word

// What one thread did in one repetition, latencies in ticks.
struct Tally {
    std::array<Histogram, kKinds> kinds;
    std::uint64_t not_yet = 0;
    Histogram& operator[](Kind kind) { return kinds[static_cast<std::size_t>(kind)]; }
};

struct ThreadState {
    std::array<Tally, kRepeatMax + 1> phases;  // the first one warms up
    // By kind: the last phase in which such an operation ended.
    std::array<std::atomic<std::int32_t>, kKinds> ended_in{};
    std::uint64_t adds = 0;
    std::uint64_t sum = 0;  // of all that was read, so that no read can be left out
    // All rows of its own below were acknowledged.
    alignas(64) std::atomic<std::uint64_t> settled{0};
};

// Shared by the processes of a run.
struct Control {
    alignas(64) std::atomic<std::uint32_t> ready{0};
    alignas(64) std::atomic<std::int32_t> phase{-1};  // -1: wait, 0: warm up, 1 up: count
    alignas(64) std::atomic<std::uint64_t> next_row{0};
    alignas(64) std::atomic<std::uint64_t> settled_row{0};  // all rows below were acknowledged
    ThreadState* threads = nullptr;  // at the same place in all processes: forks of one
};

template <class T>
T* shared_memory(std::size_t count) {
    void* memory = ::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for the tallies");
    return static_cast<T*>(memory);
}

// Without sync a write may be acknowledged before it is visible, for a moment.
template <class Condition>
bool soon(Condition condition) {
    const std::uint64_t give_up = now_ns() + 60'000'000'000;  // of a device that stalls, too
    while (!condition()) {
        if (now_ns() > give_up) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

// ---- one thread ---------------------------------------------------------------------------------

class Worker {
    static constexpr std::uint64_t kNone = ~std::uint64_t{0};
    static constexpr std::uint64_t kSettledEvery = 16;

  public:
    Worker(Engine& engine, Control& control, const Setting& setting, const Shape& shape,
           std::uint32_t index, std::int32_t phases)
        : control_(control),
          state_(control.threads[index]),
          shape_(shape),
          phases_(phases),
          chooser_(*setting.workload, shape, index + 1),
          session_(engine.session({.sync = setting.sync, .depth = setting.depth})),
          threads_(setting.threads),
          starts_(setting.depth + 1) {}

    void run() {
        control_.ready.fetch_add(1);
        while (control_.phase.load() < 0)
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        last_ = now_ticks();
        for (;;) {
            const std::int32_t phase = control_.phase.load(std::memory_order_relaxed);
            if (phase >= phases_) break;
            phase_ = phase;
            step(state_.phases[static_cast<std::size_t>(phase)]);
        }
        while (session_->acknowledged(true) > 0) {
        }
        check_last();
    }

  private:
    void step(Tally& tally) {
        switch (chooser_.operation()) {
            case Operation::kGet:
                get(tally);
                return done(tally, Kind::kGet);
            case Operation::kMultiGet:
                multi_get(tally);
                return done(tally, Kind::kGet);
            case Operation::kScanNewest: {
                const Found found = session_->scan_newest(chooser_.entity(), kScanRows);
                if (found.rows == 0) fail("a scan found nothing");
                state_.sum += found.sum;
                return done(tally, Kind::kScan);
            }
            case Operation::kScanFrom: {
                const std::uint64_t limit = 1 + chooser_.below(100);
                state_.sum += session_->scan_from(key_of(chooser_.row(head())), limit).sum;
                return done(tally, Kind::kScan);
            }
            case Operation::kInsert:
                return insert(tally);
            case Operation::kUpdate:
                return update(tally, chooser_.row(head()));
            case Operation::kReadModifyWrite:
                return update(tally, get(tally));
            case Operation::kAdd: {
                ++state_.adds;
                return write(tally, {Write::Kind::kAdd, {chooser_.below(kCounters), 0}, 1});
            }
        }
    }

    void done(Tally& tally, Kind kind) {
        const std::uint64_t now = now_ticks();
        tally[kind].add(now - last_);
        last_ = now;
        note_ended(kind);
    }
    void note_ended(Kind kind) {
        state_.ended_in[static_cast<std::size_t>(kind)].store(phase_, std::memory_order_relaxed);
    }

    RowKey key_of(std::uint64_t number) const {
        return {shape_.entity(number), shape_.time(number)};
    }
    std::uint64_t head() const { return control_.settled_row.load(std::memory_order_relaxed); }

    // Now and then, since it looks at every thread.
    void note_settled(std::size_t acknowledged) {
        if (numbers_.empty()) return;
        for (std::size_t i = 0; i < acknowledged; ++i) numbers_.pop_front();
        state_.settled.store(numbers_.empty() ? kNone : numbers_.front());
        if (++acknowledgements_ % kSettledEvery != 0) return;
        std::uint64_t settled = control_.next_row.load();
        for (std::uint32_t i = 0; i < threads_; ++i) {
            settled = std::min(settled, control_.threads[i].settled.load());
        }
        control_.settled_row.store(settled, std::memory_order_relaxed);
    }

    // The number of the row that was read.
    std::uint64_t get(Tally& tally) {
        const std::uint64_t number = chooser_.row(head());
        const Found found = session_->get(key_of(number));
        state_.sum += found.sum;
        if (found.rows == 0) {
            missing(tally, number);
        } else if ((found.sum / kValueWords & kNumberMask) != number) {
            fail("a row has the value of another one");
        }
        return number;
    }

    void missing(Tally& tally, std::uint64_t number) {
        if (number < shape_.rows) fail("a row that was loaded is not there");
        ++tally.not_yet;
    }

    void multi_get(Tally& tally) {
        std::array<RowKey, kKeysTogether> keys{};
        for (RowKey& key : keys) key = key_of(chooser_.row(head()));
        const Found found = session_->multi_get(keys);
        tally.not_yet += keys.size() - found.rows;
        state_.sum += found.sum;
    }

    void insert(Tally& tally) {
        // Below what it will be, until it is known.
        if (numbers_.empty()) state_.settled.store(control_.next_row.load());
        inserted_ = control_.next_row.fetch_add(1);
        numbers_.push_back(inserted_);
        write(tally, {Write::Kind::kRow, key_of(inserted_), inserted_});
    }

    // The row's number stays in the lower bits of its words.
    void update(Tally& tally, std::uint64_t number) {
        const std::uint64_t word = number | chooser_.below(1 << 16) << 40;
        write(tally, {Write::Kind::kRow, key_of(number), word});
    }

    void write(Tally& tally, const Write& write) {
        starts_[begun_++ % starts_.size()] = last_;
        session_->submit(write);
        const std::size_t settled = session_->acknowledged(begun_ - ended_ >= starts_.size());
        const std::uint64_t now = now_ticks();
        for (std::size_t i = 0; i < settled; ++i) {
            tally[Kind::kWrite].add(now - starts_[ended_++ % starts_.size()]);
        }
        if (settled > 0) note_ended(Kind::kWrite);
        last_ = now;
        note_settled(settled);
    }

    // What was acknowledged last can be read.
    void check_last() {
        if (inserted_ == 0) return;
        const bool there =
            soon([&] { return session_->get(key_of(inserted_)).sum == inserted_ * kValueWords; });
        if (!there) fail("an acknowledged row is not there");
    }

    Control& control_;
    ThreadState& state_;
    const Shape& shape_;
    std::int32_t phases_;
    Chooser chooser_;
    std::unique_ptr<Session> session_;
    std::uint32_t threads_;
    std::vector<std::uint64_t> starts_;  // of the writes under way
    std::deque<std::uint64_t> numbers_;  // of the rows among them
    std::uint64_t acknowledgements_ = 0;
    std::uint64_t begun_ = 0;
    std::uint64_t ended_ = 0;
    std::int32_t phase_ = 0;
    std::uint64_t last_ = 0;
    std::uint64_t inserted_ = 0;
};

// ---- what the processes hold --------------------------------------------------------------------

// Its own share of memory, shared pages shared out; and reserved huge pages, which no share counts.
std::pair<std::uint64_t, std::uint64_t> resident_bytes_of(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/smaps_rollup");
    std::uint64_t share = 0;
    std::uint64_t huge = 0;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string name;
        std::uint64_t kib = 0;
        words >> name >> kib;
        if (name == "Pss:") share += kib << 10;
        if (name == "Private_Hugetlb:" || name == "Shared_Hugetlb:") huge += kib << 10;
    }
    return {share, huge};
}

std::uint64_t disk_bytes_of(const std::string& directory) {
    std::uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
        struct stat status {};
        if (::lstat(entry.path().c_str(), &status) != 0) continue;  // gone meanwhile
        if (S_ISREG(status.st_mode)) bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
    }
    return bytes;
}

// ---- the run ------------------------------------------------------------------------------------

class Runner {
  public:
    explicit Runner(const RunOptions& options)
        : options_(options),
          shape_{options.rows, options.entities},
          ns_per_tick_(measure_ns_per_tick()),
          control_(new (shared_memory<Control>(1)) Control) {
        control_->threads = shared_memory<ThreadState>(kThreadsMax);
        control_->next_row = shape_.rows;
        control_->settled_row = shape_.rows;
    }

    void run() {
        std::vector<std::uint32_t> raw =
            synced_writes_ns(options_.directory, shape_.small() ? 300 : kSyncedWrites);
        raw_sync_ns_ = quantile_us(raw, 0.5) * 1e3;
        say("loading " + std::to_string(shape_.rows) + " rows");
        const std::string store = options_.directory + "/store";
        std::filesystem::create_directory(store);
        engine_ = make(store);
        engine_->start();
        engine_->connect();
        const std::uint64_t begin = now_ns();
        engine_->load();
        engine_->settle();
        load_seconds_ = static_cast<double>(now_ns() - begin) / 1e9;
        checksum_ = read_all(*engine_, true);
        say("  loaded and looked through, " + std::to_string(load_seconds_) + " s");
        for (const Setting& setting : options_.settings) measure(setting);
        check_counters();
        engine_->disconnect();
        engine_.reset();
    }

    static constexpr std::uint32_t kThreadsMax = 512;

  private:
    static void say(const std::string& text) {
        std::printf("%s\n", text.c_str());
        std::fflush(stdout);
    }

    std::unique_ptr<Engine> make(const std::string& store) const {
        static const std::map<std::string, std::unique_ptr<Engine> (*)(const EngineOptions&)>
            makers = {
                {"bidstore", make_bidstore},    {"leveldb", make_leveldb}, {"lmdb", make_lmdb},
                {"redis", make_redis},          {"rocksdb", make_rocksdb}, {"sqlite", make_sqlite},
                {"wiredtiger", make_wiredtiger}};
        // Rows take up to 1.7 times their bytes in a tree that grew; then what is written.
        double writing = 0;
        for (const Setting& setting : options_.settings) {
            if (has_writes(*setting.workload)) writing += options_.seconds * (options_.repeat + 1);
        }
        const auto mib = [](double count) { return static_cast<std::uint64_t>(count) << 20; };
        EngineOptions options{store, options_.binaries, shape_, 0, 0};
        options.memory_bytes =
            shape_.rows * 272 * 17 / 10 + mib(64 + std::min(writing * 240, 4096.));
        options.disk_bytes = options.memory_bytes * 2 + mib(1024);
        return makers.at(options_.engine)(options);
    }

    // Every row, and gets with a fixed seed. All engines have to come to the same sum; all pages
    // are in memory and mapped afterwards.
    std::uint64_t read_all(Engine& engine, bool check) const {
        const auto session = engine.session({.sync = false, .depth = 1});
        Found all;
        for (std::uint64_t entity = 0; entity < shape_.entity_count; ++entity) {
            const Found found = session->scan_newest(entity, ~std::uint64_t{0} >> 2);
            all.rows += found.rows;
            all.sum += found.sum;
        }
        if (!check) return all.sum;
        std::uint64_t expected = 0;
        for (std::uint64_t i = 0; i < shape_.rows; ++i) expected += shape_.time(i) + i;
        if (all.rows != shape_.rows || all.sum != expected) {
            fail(options_.engine + " does not have the rows that were loaded");
        }
        Random random(7);
        std::array<RowKey, kKeysTogether> keys{};
        for (int i = 0; i < 20'000; ++i) {
            const std::uint64_t number = random.below(shape_.rows);
            const RowKey key{shape_.entity(number), shape_.time(number)};
            all.sum = all.sum * 31 + session->get(key).sum;
            keys[static_cast<std::size_t>(i) % keys.size()] = key;
            if (i % 1'000 != 999) continue;
            all.sum = all.sum * 31 + session->multi_get(keys).sum;
            all.sum = all.sum * 31 + session->scan_newest(key.entity, kScanRows).sum;
            if (session->get({key.entity, key.time + 1}).rows != 0) {
                fail(options_.engine + " has a row that was not loaded");
            }
        }
        return all.sum;
    }

    void measure(const Setting& wanted) {
        Setting setting = wanted;
        if (!engine_->many_processes()) setting.processes = 1;
        setting.processes = std::min(setting.processes, setting.threads);
        for (std::uint32_t i = 0; i < setting.threads; ++i) {
            new (&control_->threads[i]) ThreadState{};
            control_->threads[i].settled = ~std::uint64_t{0};
        }
        control_->ready = 0;
        control_->phase = -1;
        Result result;
        result.engine = options_.engine;
        result.workload = setting.workload->name;
        result.setting = setting;
        result.rows = shape_.rows;
        result.checksum = checksum_;
        result.load_seconds = load_seconds_;
        result.raw_sync_ns = raw_sync_ns_;
        if (setting.processes == 1) {
            std::vector<std::jthread> threads = start_threads(setting, 0, setting.threads);
            watch(setting, {::getpid()}, result);
        } else {
            engine_->disconnect();
            const std::vector<pid_t> workers = start_processes(setting);
            watch(setting, workers, result);
            for (const pid_t worker : workers) {
                int status = 0;
                ::waitpid(worker, &status, 0);
                if (status != 0) fail("a client process failed");
            }
            engine_->connect();
        }
        for (std::uint32_t i = 0; i < setting.threads; ++i) adds_ += control_->threads[i].adds;
        write_result(options_.results, result);
        std::vector<double> rates;
        for (const Measured& measured : result.repeats) rates.push_back(measured.ops_per_s);
        std::printf("  %-9s sync %d, %u threads, depth %u, %u processes: %.0f ops/s\n",
                    result.workload.c_str(), setting.sync ? 1 : 0, setting.threads, setting.depth,
                    setting.processes, median(rates));
        std::fflush(stdout);
    }

    std::vector<std::jthread> start_threads(const Setting& setting, std::uint32_t first,
                                            std::uint32_t last) {
        std::vector<std::jthread> threads;
        for (std::uint32_t i = first; i < last; ++i) {
            threads.emplace_back([this, &setting, i] {
                Worker(*engine_, *control_, setting, shape_, i,
                       static_cast<std::int32_t>(options_.repeat) + 1)
                    .run();
            });
        }
        return threads;
    }

    std::vector<pid_t> start_processes(const Setting& setting) {
        std::vector<pid_t> workers;
        std::fflush(stdout);
        const pid_t parent = ::getpid();
        for (std::uint32_t i = 0; i < setting.processes; ++i) {
            const pid_t worker = ::fork();
            if (worker < 0) fail("fork failed");
            if (worker > 0) {
                workers.push_back(worker);
                continue;
            }
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (::getppid() != parent) ::_exit(1);
            engine_->connect();
            read_all(*engine_, false);
            start_threads(setting, setting.threads * i / setting.processes,
                          setting.threads * (i + 1) / setting.processes)
                .clear();
            engine_->disconnect();
            ::_exit(0);
        }
        return workers;
    }

    std::uint64_t cpu_ns(const std::vector<pid_t>& clients) const {
        std::uint64_t sum = 0;
        for (const pid_t process : clients) sum += cpu_ns_of(process);
        for (const pid_t process : engine_->servers()) sum += cpu_ns_of(process);
        return sum;
    }

    // Leads the threads through the phases, and looks at what they cost.
    void watch(const Setting& setting, const std::vector<pid_t>& clients, Result& result) {
        const std::uint64_t give_up = now_ns() + 600'000'000'000;
        while (control_->ready.load() < setting.threads) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            if (now_ns() > give_up) fail("the clients do not begin");
        }
        const auto pass = [](double seconds) {
            std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
        };
        control_->phase = 0;
        pass(options_.seconds * kWarmUpShare);
        for (std::uint32_t repeat = 1; repeat <= options_.repeat; ++repeat) {
            const std::uint64_t cpu = cpu_ns(clients);
            const std::uint64_t begin = now_ns();
            control_->phase = static_cast<std::int32_t>(repeat);
            pass(options_.seconds);
            wait_for_all_kinds(setting, static_cast<std::int32_t>(repeat));
            const double seconds = static_cast<double>(now_ns() - begin) / 1e9;
            const std::uint64_t cpu_used = cpu_ns(clients) - cpu;
            if (repeat == options_.repeat) note_sizes(clients, result);
            if (repeat == options_.repeat) {
                control_->phase = static_cast<std::int32_t>(repeat) + 1;
            }
            result.repeats.push_back(gather(setting, repeat, seconds, cpu_used, result));
        }
    }

    // Synced writes may take longer than a short repetition: it lasts until one of each kind of
    // operation has ended in it.
    void wait_for_all_kinds(const Setting& setting, std::int32_t phase) const {
        const Workload& workload = *setting.workload;
        const bool wanted[kKinds] = {has_gets(workload), has_scans(workload), has_writes(workload)};
        const auto ended = [&](std::size_t kind) {
            for (std::uint32_t i = 0; i < setting.threads; ++i) {
                if (control_->threads[i].ended_in[kind] == phase) return true;
            }
            return !wanted[kind];
        };
        const std::uint64_t give_up = now_ns() + 60'000'000'000;
        while (!ended(0) || !ended(1) || !ended(2)) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            if (now_ns() > give_up) fail("no operation ended for a minute");
        }
    }

    void note_sizes(const std::vector<pid_t>& clients, Result& result) const {
        std::uint64_t huge = 0;
        std::vector<pid_t> processes = clients;
        for (const pid_t server : engine_->servers()) processes.push_back(server);
        for (const pid_t process : processes) {
            const auto [share, pages] = resident_bytes_of(process);
            result.resident_bytes += share;
            huge = std::max(huge, pages);
        }
        result.resident_bytes += huge;
        result.disk_bytes = disk_bytes_of(options_.directory);
    }

    Measured gather(const Setting& setting, std::uint32_t repeat, double seconds,
                    std::uint64_t cpu_used, Result& result) {
        const auto all = std::make_unique<Tally>();
        for (std::uint32_t i = 0; i < setting.threads; ++i) {
            const Tally& tally = control_->threads[i].phases[repeat];
            for (std::size_t kind = 0; kind < kKinds; ++kind)
                all->kinds[kind].add(tally.kinds[kind]);
            all->not_yet += tally.not_yet;
        }
        std::uint64_t operations = 0;
        for (const Histogram& kind : all->kinds) operations += kind.count();
        const auto count = static_cast<double>(std::max<std::uint64_t>(operations, 1));
        const bool together = setting.workload->rest == Operation::kMultiGet;
        const double keys = together ? static_cast<double>(kKeysTogether) : 1;
        result.not_yet += all->not_yet;
        Measured measured;
        measured.ops_per_s = count / seconds;
        measured.cpu_ns_per_op = static_cast<double>(cpu_used) / count;
        for (std::size_t kind = 0; kind < kKinds; ++kind) {
            for (std::size_t i = 0; i < kQuantileCount; ++i) {
                measured.quantile_ns[kind][i] =
                    all->kinds[kind].quantile(kQuantiles[i]) * ns_per_tick_ / keys;
            }
        }
        return measured;
    }

    // Every add that was acknowledged is in the counters, and nothing else.
    void check_counters() const {
        const auto session = engine_->session({.sync = false, .depth = 1});
        std::uint64_t sum = 0;
        const bool all = soon([&] {
            sum = 0;
            for (std::uint64_t i = 0; i < kCounters; ++i) sum += session->counter(i);
            return sum == adds_;
        });
        if (all) return;
        fail(options_.engine + ": counters have " + std::to_string(sum) + " of " +
             std::to_string(adds_) + " adds");
    }

    const RunOptions& options_;
    Shape shape_;
    double ns_per_tick_;
    Control* control_;
    std::unique_ptr<Engine> engine_;
    double raw_sync_ns_ = 0;
    double load_seconds_ = 0;
    std::uint64_t checksum_ = 0;
    std::uint64_t adds_ = 0;
};

}  // namespace

const std::vector<std::string>& engine_names() {
    static const std::vector<std::string> names = {"bidstore",   "rocksdb", "leveldb", "lmdb",
                                                   "wiredtiger", "sqlite",  "redis"};
    return names;
}

void run_engine(const RunOptions& options) { Runner(options).run(); }

}  // namespace bench
