# The workload `misses` of bench/run.sh, which sources it: random reads of a table four times as
# large as the pool, beside fio on the very same file, round by round.

command -v fio >/dev/null || fail "fio is not installed (daemon/install_packages.sh installs it)"
misses="$binaries/bench_misses"
[[ -x "$misses" ]] || fail_usage "--binaries $binaries: bench_misses is not there"
data_file="$work/store/data/data"

# The data are four times the pool: 15 rows of 264 bytes to a page, filled in the order of keys.
pool=$((rows / 15 / 4 / 256))
pool_huge_pages="$(huge_pages_for "$pool")"

start_small_daemon() {
    ((pool >= 16)) || fail "misses wants at least 245760 rows, for a pool of 16 MiB"
    "$binaries/bidstored" --dev "$work/store" --set "pool_bytes=${pool}MiB" \
        --set "max_data_bytes=$((pool * 6 + 64))MiB" --set "journal_bytes=$((pool / 2))MiB" \
        --set log_segment_bytes=64MiB --set log_segment_count=8 --set huge_pages=try \
        >"$work/daemon.log" 2>&1 &
    daemon=$!
    wait_for_daemon
}

# fio_round NAME DEPTH [OPTION...]: a line as bench_misses writes them.
fio_round() {
    local name="$1" depth="$2"
    shift 2
    run fio --name=misses --filename="$data_file" --readonly --ioengine=io_uring --direct=1 \
        --rw=randread --bs=4k --norandommap --randrepeat=0 --iodepth="$depth" \
        --time_based --runtime="$seconds" --output-format=json --output="$work/fio.json" "$@" \
        >/dev/null 2>&1 || fail "fio failed"
    python3 - "$work/fio.json" "$name" "$depth" >>"$results" <<'PYTHON' || fail "fio said nothing"
import json, sys
text = open(sys.argv[1]).read()
job = json.loads(text[text.index("{"):])["jobs"][0]
read = job["read"]
jobs = int(job["job options"].get("numjobs", 1)) if "job options" in job else 1
cpu_us = (job["usr_cpu"] + job["sys_cpu"]) * 1e4 * jobs / read["iops"]
points = read["clat_ns"]["percentile"]
print(sys.argv[2], sys.argv[3], read["iops"], 0, cpu_us,
      points["50.000000"] / 1e3, points["99.000000"] / 1e3)
PYTHON
}

our_round() {
    run "$misses" --mode "$1" --depth "$2" --rows "$rows" --seconds "$seconds" \
        --results "$results" --daemon "$daemon" || fail "mode $1 of bench_misses failed"
}

busy="$(busy_percent)"
if ((busy > 10)); then
    echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
fi
if [[ -n "$reserve_huge_pages" ]]; then reserve_huge_pages; fi
start_small_daemon
huge_percent="$(pool_huge_percent)"
if ((huge_percent < 100)); then
    echo "  the pool lies on small pages ($huge_percent % huge): --huge-pages reserves huge ones"
fi
echo "loading $rows rows"
: >"$results"
run "$misses" --mode load --rows "$rows" --results "$results" || fail "the load failed"
for depth in 1 4 16 64; do
    echo "depth $depth: fio, prefetch and get, long multi_get, fio's threads, gets," \
        "fio in bursts, multi_get, $rounds times"
    for ((round = 0; round < rounds; ++round)); do
        fio_round fio "$depth"
        our_round ahead "$depth"
        our_round many "$depth"
        fio_round fio-threads "$depth" --iodepth=1 --numjobs="$depth" --thread --group_reporting
        our_round gets "$depth"
        fio_round fio-burst "$depth" --iodepth_batch="$depth" --iodepth_batch_complete_min="$depth"
        our_round batches "$depth"
    done
done
"$misses" --mode report --results "$results"
if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
