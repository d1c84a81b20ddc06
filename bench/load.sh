# The workload `load` of bench/run.sh, which sources it: bulk loads of the same rows by bidstore and
# by RocksDB, and as many bytes written to the bare device, round by round; then rows that are not
# sorted, JSON lines beside the bare parser, and CSV.

command -v fio >/dev/null || fail "fio is not installed (daemon/install_packages.sh installs it)"
load="$binaries/bench_load"
rocksdb="$binaries/bench_load_rocksdb"
[[ -x "$load" && -x "$rocksdb" ]] ||
    fail_usage "--binaries $binaries: bench_load or bench_load_rocksdb is not there"

# The pool is small: a load goes past it.
load_pool=1024
lines=$((rows / 10 > 1000 ? rows / 10 : 1000))
file_mib=$((rows / 14 / 256 + 1))  # 14 rows to a page

start_load_daemon() {
    rm -rf "$work/store"
    "$binaries/bidstored" --dev "$work/store" --set "pool_bytes=${load_pool}MiB" \
        --set "max_data_bytes=$((file_mib + 256))MiB" >"$work/daemon.log" 2>&1 &
    daemon=$!
    for _ in {1..1200}; do
        [[ -S "$BIDSTORE_SOCKET" ]] && return
        running "$daemon" || fail "the daemon did not start"
        sleep 0.05
    done
    fail "the daemon does not listen"
}

# timed NAME ROWS COMMAND...: its wall time and processor time go to the results.
timed() {
    local name="$1" count="$2"
    shift 2
    run "$load" --mode time --name "$name" --rows "$count" --daemon "${daemon:-0}" \
        --results "$results" -- "$@" >"$work/command.log" 2>&1 ||
        { cat "$work/command.log" >&2; fail "$name failed"; }
}

# load_round NAME ROWS FILE [OPTION...]: into a new store, counted afterwards.
load_round() {
    local name="$1" count="$2" file="$3"
    shift 3
    start_load_daemon
    "$binaries/bidstore" table create load --column 'key:fixed(16)' --column 'value:fixed(256)' \
        --key key >/dev/null
    timed "$name" "$count" "$binaries/bidstore" --timeout 60 load load "$file" "$@"
    local found
    found="$("$binaries/bidstore" --timeout 60 count load)"
    ((found == count)) || fail "$name: $found rows of $count are there"
    kill -KILL "$daemon"
    wait "$daemon" 2>/dev/null || true
    daemon=""
    rm -rf "$work/store"
}

# rocksdb_round NAME ROWS FILE OPTION...: into a new database.
rocksdb_round() {
    local name="$1" count="$2" file="$3"
    shift 3
    mkdir -p "$work/rocksdb"
    timed "$name" "$count" "$rocksdb" --file "$file" --directory "$work/rocksdb/db" "$@"
    rm -rf "$work/rocksdb"
}

# As many bytes as the pages of the loaded table have, and a sync, past the page cache.
device_round() {
    run fio --name=load --filename="$work/device" --ioengine=io_uring --direct=1 --rw=write \
        --bs=256k --iodepth=16 --size="${file_mib}m" --end_fsync=1 --output-format=json \
        --output="$work/fio.json" >/dev/null 2>&1 || fail "fio failed"
    rm -f "$work/device"
    python3 - "$work/fio.json" "$rows" >>"$results" <<'PYTHON' || fail "fio said nothing"
import json, sys
text = open(sys.argv[1]).read()
job = json.loads(text[text.index("{"):])["jobs"][0]
seconds = job["job_runtime"] / 1e3
print("device", sys.argv[2], seconds, (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds)
PYTHON
}

busy="$(busy_percent)"
if ((busy > 10)); then
    echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
fi
: >"$results"
echo "making $rows rows"
run "$load" --mode sorted --rows "$rows" --file "$work/sorted.rows" || fail "no rows"
for ((round = 0; round < rounds; ++round)); do
    echo "round $((round + 1)) of $rounds: device, bidstore, RocksDB"
    device_round
    load_round sorted "$rows" "$work/sorted.rows" --sorted
    rocksdb_round rocksdb-ingest "$rows" "$work/sorted.rows" --how ingest
    rocksdb_round rocksdb-direct "$rows" "$work/sorted.rows" --how ingest --direct
    rocksdb_round rocksdb-batches "$rows" "$work/sorted.rows" --how batches --direct
done
rm -f "$work/sorted.rows"
echo "rows that are not sorted"
run "$load" --mode shuffled --rows "$rows" --file "$work/shuffled.rows" || fail "no rows"
for ((round = 0; round < rounds; ++round)); do
    load_round shuffled "$rows" "$work/shuffled.rows" --memory 1024 --temp-dir "$work"
done
rm -f "$work/shuffled.rows"
echo "$lines JSON lines, beside the parser alone, and as many of CSV"
cat >"$work/load.toml" <<'TOML'
[[table]]
name = "load"
mode = "put"
key = ["key"]
columns = [
    { name = "key", type = "fixed(16)", path = "key", decode = "hex" },
    { name = "value", type = "fixed(256)", path = "value", decode = "base64" },
]
TOML
run "$load" --mode json --rows "$lines" --file "$work/load.jsonl" || fail "no lines"
run "$load" --mode csv --rows "$lines" --file "$work/load.csv" || fail "no lines"
for ((round = 0; round < rounds; ++round)); do
    run "$load" --mode parse --rows "$lines" --file "$work/load.jsonl" --name parser \
        --results "$results" || fail "the parser failed"
    load_round json "$lines" "$work/load.jsonl" --mapping "$work/load.toml" --sorted
    load_round csv "$lines" "$work/load.csv" --mapping "$work/load.toml" --sorted
done
"$load" --mode report --results "$results"
if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
