# The workload `values` of bench/run.sh, which sources it: values of 4 KiB to 1 MiB put, read,
# replaced and deleted, one at a time; beside RocksDB with blob files, and beside synced writes of
# as many bytes to a file on the same file system.

command -v fio >/dev/null || fail "fio is not installed (daemon/install_packages.sh installs it)"
values="$binaries/bench_values"
[[ -x "$values" ]] || fail_usage "--binaries $binaries: bench_values is not there"
values_mib=64  # of each size; twice that is written

start_values_daemon() {
    rm -rf "$work/store"
    "$binaries/bidstored" --dev "$work/store" --set pool_bytes=1536MiB --set max_data_bytes=4GiB \
        --set journal_bytes=256MiB --set log_segment_bytes=64MiB --set ring_bytes=4MiB \
        --set huge_pages=try >"$work/daemon.log" 2>&1 &
    daemon=$!
    wait_for_daemon
}

# A synced write at a time over a file that is there.
bare_writes() {
    local bytes="$1"
    run fio --name=values --filename="$work/bare" --size=256m --ioengine=psync --direct=1 \
        --sync=dsync --rw=randwrite --bs="$bytes" --overwrite=1 --time_based --runtime=1 \
        --output-format=json --output="$work/fio.json" >/dev/null 2>&1 || fail "fio failed"
    python3 - "$work/fio.json" "$bytes" >>"$results" <<'PYTHON'
import json, sys
text = open(sys.argv[1]).read()
write = json.loads(text[text.index("{"):])["jobs"][0]["write"]
latency = write["clat_ns"]["percentile"]
print("device", sys.argv[2], "put", write["total_ios"], write["runtime"] / 1e3,
      latency["50.000000"] / 1e3, latency["99.000000"] / 1e3)
PYTHON
}

report_values() {
    python3 - "$results" <<'PYTHON'
import statistics, sys
found = {}
for line in open(sys.argv[1]):
    store, size, operation, *numbers = line.split()
    found.setdefault((int(size), operation, store), []).append(tuple(map(float, numbers)))
def ratio(size, operation):
    pairs = zip(found[(size, operation, "bidstore")], found[(size, operation, "rocksdb")])
    return statistics.median(ours[2] / theirs[2] for ours, theirs in pairs)
def middle(size, operation, store):
    rounds = found[(size, operation, store)]
    each = [(count * size / seconds / 1e6, p50, p99) for count, seconds, p50, p99 in rounds]
    return tuple(statistics.median(column) for column in zip(*each))
print("\n%8s %-8s %32s   %32s   %32s   %s" % ("", "", "bidstore", "RocksDB, blob files",
      "synced writes, bare", "of RocksDB's p50"))
print("%8s %-8s" % ("bytes", "") + ("   %10s %10s %10s" % ("MB/s", "p50 us", "p99 us")) * 3)
for size in sorted({key[0] for key in found}):
    for operation in ("put", "replace", "read", "delete"):
        row = "%8d %-8s" % (size, operation)
        columns = [middle(size, operation, store) for store in ("bidstore", "rocksdb")]
        if operation in ("put", "replace"): columns.append(middle(size, "put", "device"))
        for mb, p50, p99 in columns: row += "   %10.0f %10.1f %10.1f" % (mb, p50, p99)
        if len(columns) == 2: row += " " * 35
        print(row + "   %.2f" % ratio(size, operation))
print("\nMedians of the rounds, also of the ratio within each. One client, one operation at a "
      "time, each\nwrite durable when it returns. MB/s of a delete: bytes of the values deleted.")
PYTHON
}

busy="$(busy_percent)"
if ((busy > 10)); then
    echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
fi
: >"$results"
for ((round = 0; round < rounds; ++round)); do
    start_values_daemon
    run "$values" --store bidstore --mib "$values_mib" --results "$results" ||
        fail "bidstore failed"
    end_process "$daemon"
    daemon=""
    rm -rf "$work/store"
    run "$values" --store rocksdb --mib "$values_mib" --directory "$work/rocksdb" \
        --results "$results" || fail "RocksDB failed"
    rm -rf "$work/rocksdb"
    for bytes in 4096 16384 65536 262144 1048576; do bare_writes "$bytes"; done
    rm -f "$work/bare"
done
report_values
if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
