# The workload `seed` of bench/run.sh, which sources it: gets, scans and durable puts as bidders
# make them, over a table that is larger than the pool.

seed="$binaries/bench_seed"
[[ -x "$seed" ]] || fail_usage "--binaries $binaries: bench_seed is not there"

# In MiB: 14 rows of 272 bytes to a page.
data=$((rows / 14 / 256 + 1))
pool="${pool_mib:-$((data / 4))}"
((pool >= 16)) || fail_usage "seed wants a pool of 16 MiB at least: --pool, or more --rows"
journal=$((pool / 2 < 2048 ? pool / 2 : 2048))

busy="$(busy_percent)"
if ((busy > 10)); then
    echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
fi
"$binaries/bidstored" --dev "$work/store" --set "pool_bytes=${pool}MiB" \
    --set "max_data_bytes=$((data * 3 / 2 + 512))MiB" --set "journal_bytes=${journal}MiB" \
    --set log_segment_bytes=64MiB --set log_segment_count=32 --set huge_pages=try \
    >"$work/daemon.log" 2>&1 &
daemon=$!
wait_for_daemon
echo "$rows rows, $data MiB of leaves, a pool of $pool MiB; loading"
run "$seed" --mode load --rows "$rows" || fail "the load failed"
echo "data file: $(($(stat -c %s "$work/store/data/data") / 1048576)) MiB"
run "$seed" --mode run --rows "$rows" --threads "$threads" --warm "$warm" --seconds "$seconds" \
    ${full_scan[@]+"${full_scan[@]}"} || fail "the workload failed"
if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
