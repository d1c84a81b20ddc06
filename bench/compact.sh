# The workload `compact` of bench/run.sh, which sources it: commits and gets beside an online
# compaction of a file that is three quarters empty, and without one, in the same run.

compact="$binaries/bench_compact"
[[ -x "$compact" ]] || fail_usage "--binaries $binaries: bench_compact is not there"

busy="$(busy_percent)"
if ((busy > 10)); then
    echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
fi
for ((round = 1; round <= rounds; ++round)); do
    rm -rf "$work/store"
    "$binaries/bidstored" --dev "$work/store" --set pool_bytes=256MiB \
        --set "max_data_bytes=$((mib * 2 + 256))MiB" --set log_segment_bytes=16MiB \
        >"$work/daemon.log" 2>&1 &
    daemon=$!
    wait_for_daemon
    run "$compact" --mode fill --mib "$mib" || fail "the rows were not filled in"
    before="$(du -m "$work/store/data/data" | cut -f1)"
    echo "round $round of $rounds"
    run "$compact" --mode run --mib "$mib" --seconds "$seconds" --threads "$threads" \
        --rate "$rate" || fail "the run failed"
    echo "du: $before MiB before, $(du -m "$work/store/data/data" | cut -f1) MiB after"
    kill -KILL "$daemon"
    wait "$daemon" 2>/dev/null || true
    daemon=""
done
if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
