# `bench/run.sh regress BASE`, which sources it: the micro benchmarks and bidstore's own workloads
# of another commit and of this tree, in turn, round by round: both meet the same machine.

base="${1:-}"
[[ -n "$base" ]] || fail_usage "regress wants a commit to compare with"
shift
rows=1000000
rounds=5
seconds=1
while [[ $# -gt 0 ]]; do
    case "$1" in
        --rows) rows="${2:-}"; shift ;;
        --rounds) rounds="${2:-}"; shift ;;
        --seconds) seconds="${2:-}"; shift ;;
        --help | -h) usage; exit 0 ;;
        *) fail_usage "unknown option $1" ;;
    esac
    shift || fail_usage "the last option lacks its value"
done

# build_programs TREE FOLDER
build_programs() {
    if ! { cmake -S "$1" -B "$2" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBIDSTORE_TESTS=OFF \
        -DBIDSTORE_BENCH=ON && cmake --build "$2" -j "${JOBS:-$(nproc)}" --target bidstored \
        --target bidstore-bench --target bench_micro; } </dev/null >"$work/build.log" 2>&1; then
        tail -30 "$work/build.log" >&2
        fail "the build of $1 failed (has it bench_micro and bidstore-bench?)"
    fi
}

# one_round SIDE FOLDER ROUND
one_round() {
    run "$2/bin/bench_micro" --benchmark_min_time=0.2 --benchmark_format=json \
        --benchmark_out="$work/micro.$1.$3.json" >/dev/null 2>&1 || fail "bench_micro of $1 failed"
    run "$2/bin/bidstore-bench" mix:sync=0:threads=2 mix:sync=1:threads=2:depth=32 get:threads=1 \
        multiget:threads=1 write:sync=1:threads=8 count:sync=1:threads=2:depth=32 \
        --engines bidstore --rows "$rows" --seconds "$seconds" --repeat 1 --no-machine \
        --directory "$work" --json "$work/driver.$1.$3.json" >"$work/driver.log" 2>&1 ||
        { cat "$work/driver.log" >&2; fail "bidstore-bench of $1 failed"; }
}

run_regress() {
    git -C "$root" rev-parse --verify --quiet "$base^{commit}" >/dev/null ||
        fail_usage "regress: \"$base\" is no commit"
    # A copy without the repository's knowledge: nothing is left in it when this is cut off.
    mkdir "$work/base"
    git -C "$root" archive "$base" | tar -x -C "$work/base"
    echo "building $base and this tree (Release)"
    build_programs "$work/base" "$work/base/build-bench"
    build_programs "$root" "$root/build-bench"
    for ((round = 0; round < rounds; ++round)); do
        echo "round $((round + 1)) of $rounds"
        one_round base "$work/base/build-bench" "$round"
        one_round here "$root/build-bench" "$round"
    done
    python3 "$root/bench/regress.py" "$work" "$rounds" "$base"
}
