# The workload `checkpoint` of bench/run.sh, which sources it: durable commits while checkpoints
# come and go, at a fixed rate and at full speed, over a table whose every page changes between two
# of them.

checkpoint="$binaries/bench_checkpoint"
[[ -x "$checkpoint" ]] || fail_usage "--binaries $binaries: bench_checkpoint is not there"

# In MiB: 15 rows of 264 bytes to a page. All of the table fits the pool twice, and its changes fit
# the journal.
data=$((rows / 15 / 256 + 1))

# start_checkpoint_daemon [SETTING...]
start_checkpoint_daemon() {
    local settings=()
    for setting in "$@"; do settings+=(--set "$setting"); done
    "$binaries/bidstored" --dev "$work/store" --set "pool_bytes=$((data * 4 + 512))MiB" \
        --set "max_data_bytes=$((data * 2 + 512))MiB" --set huge_pages=try "${settings[@]}" \
        >"$work/daemon.log" 2>&1 &
    daemon=$!
    wait_for_daemon
}
# What others wrote before is written back meanwhile, not while we measure.
load_table() {
    run "$checkpoint" --mode load --rows "$rows" || fail "the load failed"
    sync
}
write_table() {
    run "$checkpoint" --mode run --rows "$rows" --seconds "$seconds" "$@" ||
        fail "the workload failed"
}

busy="$(busy_percent)"
if ((busy > 10)); then
    echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
fi
echo "$rows rows, $data MiB of leaves; $rate commits/s, a checkpoint every 8 s"
start_checkpoint_daemon "journal_bytes=$((data * 2 + 64))MiB" log_segment_bytes=64MiB \
    log_segment_count=16 checkpoint_interval=8s
load_table
# The first checkpoint still has to do with the load.
write_table --rate "$rate" --warm 13

end_process "$daemon"
rm -rf "$work/store"
echo
echo "full speed, with a log of 64 MiB and a journal of 32 MiB"
start_checkpoint_daemon journal_bytes=32MiB log_segment_bytes=4MiB log_segment_count=16 \
    checkpoint_interval=8s
load_table
write_table
if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
