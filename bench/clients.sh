# The workload `clients` of bench/run.sh, which sources it: readers of many processes, the daemon
# when nothing is asked of it, writers beside a long scan; over one store.

clients="$binaries/bench_clients"
[[ -x "$clients" ]] || fail_usage "--binaries $binaries: bench_clients is not there"

busy="$(busy_percent)"
if ((busy > 10)); then
    echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
fi
if [[ -n "$reserve_huge_pages" ]]; then reserve_huge_pages; fi
start_daemon
echo "filling in $rows rows; the pool lies on huge pages by $(pool_huge_percent) %"
run "$clients" --mode fill --rows "$rows" || fail "the rows were not filled in"
run "$clients" --mode run --rows "$rows" --seconds "$seconds" --rounds "$rounds" \
    --daemon "$daemon" || fail "the run failed"
if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
