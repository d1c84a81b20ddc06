# bidstore beside its peers, for bench/run.sh, which sources it: the options are bidstore-bench's,
# but for those named below; run_compare runs it.

# The standard set. With --sync 0 nobody waits for his write either (--depth 32); with --sync 1 a
# thread waits for each, unless a depth is named.
standard_set=(mix:sync=0:threads=4 mix:sync=1:threads=4:depth=32 mix:sync=1:threads=8
    mix:sync=1:threads=32 get:threads=1 get:threads=4 multiget:threads=1 scan:threads=1
    write:sync=1:threads=64 write:sync=1:threads=4:depth=32 write:sync=1:threads=1
    count:sync=1:threads=4:depth=32 ycsb-a ycsb-b ycsb-c ycsb-d ycsb-e ycsb-f)

((${#compare_options[@]} > 0)) && compare_options=() || compare_options=("${standard_set[@]}")
while [[ $# -gt 0 ]]; do
    case "$1" in
        --huge-pages) reserve_huge_pages=yes ;;
        --picture) picture="${2:-}"; shift ;;
        --binaries) binaries="${2:-}"; shift ;;
        --json) json="${2:-}"; shift ;;
        --rows) rows="${2:-}"; shift ;;
        --rows=*) rows="${1#--rows=}" ;;
        --help | -h) usage; exit 0 ;;
        *) compare_options+=("$1") ;;
    esac
    shift || fail_usage "the last option lacks its value"
done

run_compare() {
    local compare="$binaries/bidstore-bench"
    [[ -x "$compare" ]] || fail_usage "--binaries $binaries: bidstore-bench is not there"
    # What bidstore-bench gives the pool at most, besides the rows: compare_run.cc.
    local pool=$((rows * 272 * 17 / 10 / 1048576 + 4096 + 64))
    pool_huge_pages=$((pool / 2 + pool * 3 / 2048 + 4))
    busy="$(busy_percent)"
    if ((busy > 10)); then
        echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
    fi
    if [[ -n "$reserve_huge_pages" ]]; then reserve_huge_pages; fi
    run "$compare" "${compare_options[@]}" --rows "$rows" --json "$work/results.json" ||
        fail "bidstore-bench failed"
    if [[ -n "$json" ]]; then cp "$work/results.json" "$json"; fi
    if [[ -n "$picture" ]]; then
        python3 "$root/bench/compare_picture.py" "$work/results.json" "$picture"
    fi
    if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
}
