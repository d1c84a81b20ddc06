#!/usr/bin/env bash
# Builds bidstore (Release), starts a daemon of its own, and measures it.
#
#   bash bench/run.sh first-look [--huge-pages] [--rows N] [--seconds S] [--json FILE]
#                                [--binaries DIR]
#   bash bench/run.sh misses [--huge-pages] [--rows N] [--seconds S] [--rounds N] [--binaries DIR]
#   bash bench/run.sh seed [--rows N] [--pool MIB] [--threads N] [--warm S] [--seconds S]
#                          [--full-scan] [--binaries DIR]
#   bash bench/run.sh load [--rows N] [--rounds N] [--binaries DIR]
#   bash bench/run.sh values [--rounds N] [--binaries DIR]
#   bash bench/run.sh recover [--huge-pages] [--log-mib N] [--rows N] [--shapes "NAME ..."]
#                             [--pool MIB] [--rounds N] [--binaries DIR]
#   bash bench/run.sh checkpoint [--rows N] [--rate N] [--seconds S] [--binaries DIR]
#   bash bench/run.sh compact [--mib N] [--threads N] [--rate N] [--seconds S] [--rounds N]
#                             [--binaries DIR]
#
#   bash bench/run.sh clients [--huge-pages] [--rows N] [--seconds S] [--rounds N]
#                             [--binaries DIR]
#
#   bash bench/run.sh evict [--bid-log FILE] [--trace FILE] [--binaries DIR]
#
#   bash bench/run.sh compare [--huge-pages] [--picture FILE] [--binaries DIR] [OPTION...]
#   bash bench/run.sh WORKLOAD... [--huge-pages] [--picture FILE] [--binaries DIR] [OPTION...]
#   bash bench/run.sh regress BASE [--rows N] [--rounds N] [--seconds S]
#
#   compare         bidstore beside RocksDB, LevelDB, LMDB, WiredTiger, SQLite and Redis: the
#                   standard set of workloads; half an hour with 10 million rows
#   WORKLOAD        mix, get, multiget, scan, write, count, ycsb-a to ycsb-f, with settings of their
#                   own behind colons (mix:sync=1:threads=8); OPTION is one of bidstore-bench:
#                   --rows --entities --sync --threads --depth --seconds --repeat --processes
#                   --engines --json --directory
#   --picture FILE  the results as an SVG
#   regress         another commit against this tree, pair by pair: micro benchmarks, and bidstore's
#                   own workloads (1000000 rows, 5 rounds)
#   evict           hit ratios of the eviction policy on page traces, beside LRU, CLOCK, SIEVE,
#                   S3-FIFO and the optimum, at several pool sizes
#   --bid-log FILE  bid requests, one JSON object a line, gzip or not (default: made up)
#   --trace FILE    a trace more: one page number a line
#   first-look      gets, scans and durable writes as a bidder makes them, the system calls of a
#                   second of reads, and the bare machine beside them, with the targets
#   misses          random reads of rows that are not in the pool, 1 to 64 at a time, beside fio on
#                   the same file; rows of 8 + 256 bytes, a pool of a quarter of them
#   seed            gets, scans and durable puts of bidders, over a table larger than the pool:
#                   hit ratio, throughput, latencies
#   load            bulk loads of sorted rows, beside RocksDB and the bare device; of rows that are
#                   not sorted, JSON lines (beside the parser alone) and CSV
#   checkpoint      latency of durable commits at a fixed rate, with a checkpoint under way and
#                   without; and at full speed with a small log and journal
#   values          values of 4 KiB to 1 MiB put, read in place, replaced and deleted, beside
#                   RocksDB with blob files and beside synced writes to the bare file system
#   compact         what an online compaction of a file that is three quarters empty costs the
#                   durable commits and gets beside it, and what it gives back
#   clients         gets by 1 to 16 processes; what the daemon takes when nothing is asked of it;
#                   durable writers beside a reader in the middle of a long scan
#   --mib N         of compact, rows and large values (default 512)
#   --rate N        of checkpoint, commits a second (default 20000); of compact, pages a second
#                   (default 5000)
#   recover         how long a start takes that has --log-mib MiB of log to replay, beside a plain
#                   read of that log
#   --log-mib N     of recover (default 1024)
#   --shapes        of recover, what was written: rows, updates, columns, adds, transactions,
#                   values; or journal: a daemon that is killed in the last step of a checkpoint
#                   (default: all of them)
#   --pool MIB      of seed (default: a quarter of the rows) and recover (default: so large that no
#                   checkpoint comes in between)
#   --threads N     of seed, that work (default 16); of compact, that write (default 4)
#   --warm S        of seed, before what is measured (default 20)
#   --full-scan     of seed: measure once more while somebody scans the whole table
#   --huge-pages    reserve huge pages for the pool, and give them back at the end (root alone may);
#                   without it the pool takes those that are free, if they suffice
#   --rows N        rows to load, of 16 + 256 bytes (default 10000000: about 4 GiB of pages; of
#                   misses and seed 4000000: 1 GiB; of recover and clients 2000000, of checkpoint
#                   1000000)
#   --seconds S     how long the writers write (default 5); a round of misses (default 2); what
#                   seed measures (default 20), each part of checkpoint (default 40), and the time
#                   without a compaction (default 5); each setting of clients (default 1)
#   --rounds N      of misses, load, values, recover, compact and clients (default 3)
#   --json FILE     all values, for programs
#   --binaries DIR  use these programs instead of installing packages and building
#
# The store lies in a directory of its own below $TMPDIR (default /var/tmp: the store wants a disk);
# it and every process started here are gone at the end, also after a failure. bench/README.md says
# what a fair run is.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
rows=10000000
seconds=5
reserve_huge_pages=""
rounds=3
json=""
binaries=""
pool_mib=""
threads=16
rate=20000
warm=20
log_mib=1024
mib=512
shapes="rows updates columns adds transactions values journal"
full_scan=()
replay_options=()
compare_options=()
picture=""

usage() { sed -n '2,/^set -euo/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
fail_usage() {
    echo "bench: $* (--help says what there is)" >&2
    exit 2
}

workload="${1:-}"
case "$workload" in
    first-look | evict) shift ;;
    load | values) shift ;;
    compare | regress) shift ;;
    mix* | get* | multiget* | scan* | write* | count* | ycsb-*)
        # Left where they are: all of them are for bidstore-bench.
        workload=compare
        compare_options=(own)
        ;;
    misses) shift; rows=4000000; seconds=2 ;;
    seed) shift; rows=4000000; seconds=20 ;;
    recover) shift; rows=2000000 ;;
    checkpoint) shift; rows=1000000; seconds=40 ;;
    compact) shift; rate=5000; threads=4 ;;
    clients) shift; rows=2000000; seconds=1 ;;
    --help | -h) usage; exit 0 ;;
    *)
        fail_usage "unknown workload \"$workload\"; there is: compare, regress, first-look," \
            "evict, misses, seed, load, values, recover, checkpoint, compact, clients, and the" \
            "workloads of compare by themselves"
        ;;
esac
if [[ "$workload" == compare || "$workload" == regress ]]; then
    source "$root/bench/$workload.sh"
fi
while [[ $# -gt 0 ]]; do
    case "$1" in
        --huge-pages) reserve_huge_pages=yes ;;
        --rows) rows="${2:-}"; shift ;;
        --seconds) seconds="${2:-}"; shift ;;
        --rounds) rounds="${2:-}"; shift ;;
        --json) json="${2:-}"; shift ;;
        --bid-log | --trace) replay_options+=("$1" "${2:-}"); shift ;;
        --pool) pool_mib="${2:-}"; shift ;;
        --threads) threads="${2:-}"; shift ;;
        --log-mib) log_mib="${2:-}"; shift ;;
        --mib) mib="${2:-}"; shift ;;
        --shapes) shapes="${2:-}"; shift ;;
        --warm) warm="${2:-}"; shift ;;
        --rate) rate="${2:-}"; shift ;;
        --full-scan) full_scan=(--full-scan) ;;
        --binaries) binaries="${2:-}"; shift ;;
        --help | -h) usage; exit 0 ;;
        *) fail_usage "unknown option $1" ;;
    esac
    shift || fail_usage "the last option lacks its value"
done
if ! [[ "$rows" =~ ^[0-9]{4,9}$ ]] || ((10#$rows < 1000)); then
    fail_usage "--rows wants 1000 to 999999999, not \"$rows\""
fi
if ! [[ "$seconds" =~ ^[0-9]{1,4}$ ]] || ((10#$seconds < 1)); then
    fail_usage "--seconds wants a whole number from 1 up, not \"$seconds\""
fi
if ! [[ "$rounds" =~ ^[1-9][0-9]{0,2}$ ]]; then
    fail_usage "--rounds wants 1 to 999, not \"$rounds\""
fi
if ! [[ "$warm" =~ ^[1-9][0-9]{0,3}$ ]]; then
    fail_usage "--warm wants a whole number from 1 up, not \"$warm\""
fi
if ! [[ "$rate" =~ ^[1-9][0-9]{0,5}$ ]]; then
    fail_usage "--rate wants 1 to 999999 a second, not \"$rate\""
fi
if ! [[ "$threads" =~ ^[1-9][0-9]{0,2}$ ]] || ((threads > 120)); then
    fail_usage "--threads wants 1 to 120, not \"$threads\""
fi
if ! [[ "$pool_mib" =~ ^([1-9][0-9]{1,6})?$ ]]; then
    fail_usage "--pool wants MiB, 16 or more, not \"$pool_mib\""
fi
if ! [[ "$log_mib" =~ ^[1-9][0-9]{1,4}$ ]]; then
    fail_usage "--log-mib wants 10 to 99999, not \"$log_mib\""
fi
if ! [[ "$mib" =~ ^[1-9][0-9]{1,4}$ ]]; then
    fail_usage "--mib wants 10 to 99999, not \"$mib\""
fi
for shape in $shapes; do
    [[ " rows updates columns adds transactions values journal " == *" $shape "* ]] ||
        fail_usage "--shapes: there is no shape \"$shape\""
done
rows=$((10#$rows))
seconds=$((10#$seconds))

# ---- programs ----------------------------------------------------------------------------------

if [[ -z "$binaries" && "$workload" == regress ]]; then
    bash "$root/daemon/install_packages.sh"
elif [[ -z "$binaries" ]]; then
    bash "$root/daemon/install_packages.sh"
    echo "building (Release) in build-bench ..."
    mkdir -p "$root/build-bench"
    build_log="$root/build-bench/bench-build.log"
    if ! { cmake -S "$root" -B "$root/build-bench" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DBIDSTORE_TESTS=OFF -DBIDSTORE_BENCH=ON &&
        cmake --build "$root/build-bench" -j "${JOBS:-$(nproc)}"; } \
        </dev/null >"$build_log" 2>&1; then
        tail -30 "$build_log" >&2
        echo "bench: the build failed" >&2
        exit 1
    fi
    binaries="$root/build-bench/bin"
fi
driver="$binaries/bench_driver"
[[ "$workload" == regress || (-x "$driver" && -x "$binaries/bidstored") ]] ||
    fail_usage "--binaries $binaries: bidstored or bench_driver is not there"

if [[ "$workload" == evict ]]; then
    exec "$binaries/bench_evict_replay" ${replay_options[@]+"${replay_options[@]}"}
fi

work="$(mktemp -d "${TMPDIR:-/var/tmp}/bidstore-bench.XXXXXX")"
export BIDSTORE_SOCKET="$work/store/bidstore.sock"
results="$work/results"
huge_pages_added=0
daemon=""
child=""  # the driver, or strace with the driver below it

# ---- processes ---------------------------------------------------------------------------------

running() { [[ -n "$1" ]] && kill -0 "$1" 2>/dev/null; }

# Ends the process, and with SIGKILL when it does not go within some seconds.
end_process() {
    local pid="$1"
    running "$pid" || return 0
    kill -TERM "$pid" 2>/dev/null || true
    for _ in {1..300}; do
        running "$pid" || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
clean_up() {
    local code=$?
    trap - EXIT
    end_process "$child"
    # Its data are thrown away: a final checkpoint would be for nothing.
    if running "$daemon"; then
        kill -KILL "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$work"
    give_back_huge_pages || code=1
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "bench: $1" >&2
    tail -n 20 "$work/daemon.log" >&2 2>/dev/null || true
    exit 1
}

# run COMMAND...: in the background, so that a signal ends it at once.
run() {
    "$@" &
    child=$!
    local code=0
    wait "$child" || code=$?
    child=""
    return "$code"
}

# driver_mode MODE: appends to the results.
driver_mode() {
    run "$driver" --mode "$1" --rows "$rows" --seconds "$seconds" --results "$results" \
        --directory "$work" || fail "mode $1 of the driver failed"
}

# Room in MiB for the rows at the fill that splits leave behind, for the versions of one batch
# beside another, and for what the writers add.
pool=$((rows * 272 * 17 / 10 / 1048576 + 512))
# The same in huge pages of 2 MiB, with the tables in front: 3 KiB to a MiB, a key directory of a
# sixteenth, and a little.
huge_pages_for() {  # MIB
    echo $(($1 / 2 + $1 / 32 + $1 * 3 / 2048 + 8))
}
pool_huge_pages="$(huge_pages_for "$pool")"

wait_for_daemon() {
    for _ in {1..1200}; do
        [[ -S "$BIDSTORE_SOCKET" ]] && return
        running "$daemon" || fail "the daemon did not start"
        sleep 0.1
    done
    fail "the daemon does not listen"
}

start_daemon() {
    local journal=$((pool / 2 < 2048 ? pool / 2 : 2048))
    "$binaries/bidstored" --dev "$work/store" --set "pool_bytes=${pool}MiB" \
        --set "max_data_bytes=$((pool * 2))MiB" --set "journal_bytes=${journal}MiB" \
        --set log_segment_bytes=64MiB --set log_segment_count=32 --set huge_pages=try \
        >"$work/daemon.log" 2>&1 &
    daemon=$!
    wait_for_daemon
}

# ---- huge pages --------------------------------------------------------------------------------

huge_pages_file=/proc/sys/vm/nr_hugepages

# Adds to those of the machine what the pool needs and is not free.
reserve_huge_pages() {
    local free before after
    free="$(awk '/^HugePages_Free/ { print $2 }' /proc/meminfo)"
    before="$(cat "$huge_pages_file")"
    local missing=$((pool_huge_pages - free))
    ((missing > 0)) || return 0
    [[ -w "$huge_pages_file" ]] ||
        fail_usage "--huge-pages: only root may reserve them; $pool_huge_pages must be free"
    # Pages that lie scattered make none: moved together first, where the kernel can.
    echo 1 >/proc/sys/vm/compact_memory 2>/dev/null || true
    huge_pages_added="$missing"
    echo $((before + missing)) >"$huge_pages_file"
    after="$(cat "$huge_pages_file")"
    huge_pages_added=$((after - before))
    ((huge_pages_added == missing)) ||
        fail "only $huge_pages_added of $missing huge pages could be reserved: free some memory"
}

give_back_huge_pages() {
    ((huge_pages_added > 0)) || return 0
    local now
    now="$(cat "$huge_pages_file")"
    echo $((now > huge_pages_added ? now - huge_pages_added : 0)) >"$huge_pages_file" || {
        echo "bench: $huge_pages_added huge pages could not be given back; see $huge_pages_file" >&2
        return 1
    }
    huge_pages_added=0
}

# How much of the daemon's pool lies on huge pages, in percent: reserved ones, which are the page
# size of the mapping, or transparent ones, which its map of the pool counts.
pool_huge_percent() {
    awk '/bidstore-pool/ { pool = 1 }
        /^VmFlags/ { pool = 0 }
        pool && $1 == "Size:" { size = $2 }
        pool && $1 == "KernelPageSize:" && $2 >= 2048 { huge = size }
        pool && $1 == "ShmemPmdMapped:" && $2 > 0 { huge = $2 }
        END { print (size > 0 ? int(100 * huge / size + 0.5) : 0) }' "/proc/$daemon/smaps"
}

# The share of processor time, in percent, that somebody else takes while nothing of ours runs.
busy_percent() {
    local before after
    before=($(head -n 1 /proc/stat))
    sleep 1
    after=($(head -n 1 /proc/stat))
    local total=0 field
    for field in {1..8}; do total=$((total + after[field] - before[field])); done
    local idle=$((after[4] + after[5] - before[4] - before[5]))
    echo $((total > 0 ? 100 - 100 * idle / total : 0))
}

# System calls of a reading process between the two markers that it writes.
count_system_calls() {
    local trace="$work/trace"
    run strace -f -e trace=all -o "$trace" "$driver" --mode reader --rows "$rows" --seconds 1 \
        --results "$results" 2>/dev/null ||
        fail "the reader under strace failed (may this user trace its own processes?)"
    awk '/reading ended/ { ended = 1; exit } begun { calls++ } /reading begins/ { begun = 1 }
        END { if (!begun || !ended) exit 1; print calls + 0 }' "$trace" ||
        fail "the reader's markers are not in the trace"
}

# ---- the run -----------------------------------------------------------------------------------

if [[ "$workload" == compare || "$workload" == regress ]]; then
    "run_$workload"
    exit 0
fi
if [[ "$workload" =~ ^(misses|seed|values|recover|checkpoint|compact|clients)$ ]]; then
    source "$root/bench/$workload.sh"
    exit 0
fi
if [[ "$workload" == load ]]; then
    source "$root/bench/load.sh"
    exit 0
fi
busy="$(busy_percent)"
echo "other_load_percent $busy" >"$results"
if ((busy > 10)); then
    echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
fi
if [[ -n "$reserve_huge_pages" ]]; then reserve_huge_pages; fi
echo "the bare machine"
driver_mode machine
start_daemon
huge_percent="$(pool_huge_percent)"
echo "pool_huge_percent $huge_percent" >>"$results"
if ((huge_percent < 100)); then
    echo "  the pool lies on small pages ($huge_percent % huge): reads cost up to a half more." \
        "--huge-pages reserves what it needs, or: sysctl -w vm.nr_hugepages=$pool_huge_pages"
fi
echo "loading $rows rows"
driver_mode load
echo "one reader"
driver_mode read
echo "durable writers of single rows"
driver_mode write
echo "system calls of a reader"
calls="$(count_system_calls)"
echo "reader_system_calls $calls" >>"$results"
echo "  $calls in a second"
driver_report=("$driver" --mode report --results "$results")
if [[ -n "$json" ]]; then driver_report+=(--json "$json"); fi
"${driver_report[@]}"
if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
