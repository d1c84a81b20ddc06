#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests. Needs no terminal and no input; ends with
# ctest's summary, the skipped tests with their reasons, what each part took, and a line
# "N passed, N failed".
#
#   bash tests/run.sh                       each test once: the fast ones, the hostile clients and
#                                           the headers under the address and undefined
#                                           sanitizers, the others in a debug build; those with
#                                           threads once more under the thread sanitizer; each
#                                           fuzz target for some seconds
#   bash tests/run.sh --debug               all tests, debug build, nothing else
#   bash tests/run.sh --release             all tests, release build, nothing else
#   bash tests/run.sh --sanitize KIND       one sanitizer alone: address,undefined or thread
#   bash tests/run.sh --filter REGEX        only tests whose name fits (ctest -R); debug build
#                                           unless --release or --sanitize say otherwise
#   bash tests/run.sh --sim HOURS           the simulation alone, release build, on all cores for so
#                                           many hours (0.1 is six minutes); SEED=N names the first
#                                           seed, else the clock does, and it is printed
#   bash tests/run.sh --hostile SECONDS     clients that mean harm beside honest ones, with a daemon
#                                           under the address sanitizer; SEED=N repeats one
#   bash tests/run.sh --kills [N]           kills the daemon N times in a row under load, 1000 if
#                                           not said, and holds what is left against notes kept
#                                           outside of it; SEED=N repeats the choices of one
#   bash tests/run.sh --fuzz [SECONDS]      each fuzz target (tests/fuzz_*.cc) for so many seconds,
#                                           or 15, on average, slow ones for longer; what it finds
#                                           stays in build/address/found
#   bash tests/run.sh --mutants             plants bugs in a copy of the engine (tests/mutants/),
#                                           one at a time: the simulation, or the tests that a bug
#                                           names, has to find each of them
#   bash tests/run.sh --coverage            all tests, or those of --filter, in a build that counts;
#                                           then which share of the lines and branches of shm/ and
#                                           engine/ ran, file by file, the lowest last
#   bash tests/run.sh --build-times         no tests: the time of a clean debug build of everything
#                                           but tests and bench, and of a rebuild after a change of
#                                           one .cc file
#   bash tests/run.sh --help                this text
#
# Builds are kept below build/, one folder per kind. JOBS=N sets how many compilers and tests run
# side by side (default: as many as there are cores). DEBUG_INFO=-g makes debug builds for a
# debugger; lines alone (-g1), which is what traces need, save a quarter of the compilers' time.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
jobs="${JOBS:-$(nproc)}"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
passed_total=0
failed_total=0
took=""
# A build that fails counts as a failure, and the last line is there all the same.
set -E
stopped() {
    echo "run.sh: stopped at line $1: what is above says why"
    echo "$passed_total passed, $((failed_total + 1)) failed"
    exit 1
}
trap 'stopped $LINENO' ERR

usage() { sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed -e '$d' -e 's/^# \{0,1\}//'; }

# timed NAME COMMAND...: what it took is said at the end.
timed() {
    local name="$1" begin="$SECONDS"
    shift
    "$@"
    local status=$?  # where the caller asks for it, and nothing ends at a failure
    took+="${took:+, }$name $((SECONDS - begin)) s"
    return "$status"
}

fail_usage() {
    echo "run.sh: $1 (--help says what there is)" >&2
    exit 2
}

# configure FOLDER TYPE SANITIZE [OPTION...]
configure() {
    local folder="$1" type="$2" sanitize="$3"
    shift 3
    cmake -S "$root" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE="$type" -DSANITIZE="$sanitize" \
        -DCMAKE_CXX_FLAGS_DEBUG="${DEBUG_INFO:--g1}" "$@" >"$scratch/configure" 2>&1 ||
        { cat "$scratch/configure"; return 1; }
}

# The thread sanitizer of this compiler needs the classic memory layout. Where the layout cannot be
# chosen (some containers), it is tried as it is.
fixed_layout=()
if setarch -R true 2>/dev/null; then fixed_layout=(setarch -R); fi
launcher=()

# From ctest's detailed log: one line per skipped test, with the reason that the test printed.
skipped_with_reasons() {
    awk '
        /^[0-9]+\/[0-9]+ Testing: / { name = $3; reason = ""; next }
        /: Skipped$/ { if ((getline reason_line) > 0) reason = reason_line; next }
        # A script: ctest itself logs exit code 77 as "Test Passed."
        /^skipped: / && name != "" { print "skipped: " name ": " substr($0, 10); name = ""; next }
        /^\[  SKIPPED \]/ {
            if (name != "") print "skipped: " name ": " (reason == "" ? "no reason given" : reason)
            name = ""
        }' "$1"
}

# How many seeds of the simulation fitted their time (CMakeLists.txt).
simulated_seeds() {
    awk '/^[0-9]+ seeds$/ { seeds += $1; parts += 1 }
        END { if (parts) print "simulation: " seeds " seeds in " parts " parts" }' "$1"
}

# From what ctest printed: each test that failed, and the end of what it said. It is printed again
# below all stages, since who sees the end of a long log alone wants to know them, too.
failed_with_output() {  # LOG TITLE
    awk -v title="$2" -v most=40 '
        function flush(line) {
            if (name == "") return
            print "FAILED: " name " (" title ")"
            for (line = count > most ? count - most + 1 : 1; line <= count; ++line)
                print "    " substr(said[line], 1, 300)
            name = ""
        }
        /^ *Start +[0-9]+: / || /^ *[0-9]+\/[0-9]+ Test +#/ || /^[0-9]+% tests passed/ { flush() }
        /^ *[0-9]+\/[0-9]+ Test +#.*\*\*\*/ && !/\*\*\*Skipped/ {
            name = $0; sub(/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: */, "", name); count = 0; next
        }
        name != "" && NF { said[++count] = $0 }
        END { flush() }' "$1"
}

# FOLDER TITLE [CTEST OPTION...]: adds to the totals.
run_tests() { timed "its tests" count_tests "$@"; }

count_tests() {
    local folder="$1" title="$2"
    shift 2
    echo "=== $title"
    local ended=0
    "${launcher[@]}" ctest --test-dir "$folder" -j "$jobs" --output-on-failure \
        --no-tests=error "$@" </dev/null 2>&1 | tee "$scratch/log" || ended="${PIPESTATUS[0]}"
    local passed failed
    passed="$(grep -cE '^ *[0-9]+/[0-9]+ Test +#.* Passed ' "$scratch/log" || true)"
    failed="$(grep -cE '^ *[0-9]+/[0-9]+ Test +#.*\*\*\*' "$scratch/log" || true)"
    local skipped
    skipped="$(grep -cE '^ *[0-9]+/[0-9]+ Test +#.*\*\*\*Skipped' "$scratch/log" || true)"
    failed=$((failed - skipped))
    # Nothing ran at all: that is a failure, too.
    if [[ $((passed + failed + skipped)) -eq 0 ]]; then failed=1; fi
    skipped_with_reasons "$folder/Testing/Temporary/LastTest.log" || true
    simulated_seeds "$folder/Testing/Temporary/LastTest.log" || true
    failed_with_output "$scratch/log" "$title" >>"$scratch/failures"
    # 8: some tests failed. With anything else, it did not come to the last one.
    if [[ $ended -ne 0 && $ended -ne 8 ]]; then
        failed=$((failed + 1))
        echo "FAILED: ctest itself ($title) ended with $ended" >>"$scratch/failures"
    fi
    echo "=== $title: $passed passed, $failed failed, $skipped skipped"
    passed_total=$((passed_total + passed))
    failed_total=$((failed_total + failed))
}

# Under the launcher, too: a build runs each test binary once, to ask for the names of its tests.
build() {  # FOLDER [OPTION...]
    timed "$1" "${launcher[@]}" cmake --build "$@" -j "$jobs" </dev/null
}

stage_all() {  # TYPE FOLDER
    configure "$2" "$1" none
    build "$2"
    run_tests "$2" "all tests, $1" "${select[@]}"
}

# Libraries come in units of many sources here, in half of the time, since all is compiled in one
# go. The thread sanitizer's build is of one source each, so that one that includes too little of
# the project is seen; of the headers that are precompiled, tests/tidy_test.cc says it.
units=(-DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=17)

# By clang: g++ takes twice as long for what is sanitized.
configure_sanitized() {  # FOLDER SANITIZE [OPTION...]
    local cache="$1/CMakeCache.txt"
    # A folder of g++'s that is given another compiler forgets all other settings.
    if [[ -f "$cache" ]] && ! grep -q '^CMAKE_CXX_COMPILER:.*[/=]clang' "$cache"; then
        rm "$cache"
    fi
    configure "$1" Debug "$2" -DBIDSTORE_BENCH=OFF -DCMAKE_CXX_COMPILER=clang++ "${units[@]}" \
        "${@:3}"
}

# What the address sanitizer is not run over, or does not show.
stage_plain() {
    configure build/plain Debug none "${units[@]}"
    build build/plain --target tests_plain
    run_tests build/plain "slow and plain tests, Debug" -L 'slow|plain' -LE address \
        "${select[@]}"
}

export ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1

# Also what the fuzz targets are linked with: to compile it once more took longer than they run.
configure_address() {
    configure_sanitized build/address address,undefined -DBIDSTORE_FUZZ=ON
}

stage_address() {
    configure_address
    build build/address --target tests_address
    run_tests build/address "fast tests, address and undefined sanitizers" -L 'fast|address' \
        "${select[@]}"
}

campaign() {  # BINARY HOW_LONG=N SEED_NAME
    if env "$2" ${SEED:+"$3=$SEED"} "$1" </dev/null; then
        passed_total=1
    else
        failed_total=1
    fi
}

run_hostile() {  # SECONDS
    configure_address
    build build/address --target hostile_test
    campaign build/address/tests/hostile_test BIDSTORE_HOSTILE="$1" BIDSTORE_HOSTILE_SEED
}

run_kills() {  # N
    configure build/debug Debug none
    build build/debug --target kill_campaign_test
    campaign build/debug/tests/kill_campaign_test BIDSTORE_KILLS="$1" BIDSTORE_KILL_SEED
}

stage_thread() {
    launcher=("${fixed_layout[@]}")
    configure_sanitized build/thread thread -DCMAKE_UNITY_BUILD=OFF  # see above
    build build/thread --target tests_threads
    TSAN_OPTIONS=halt_on_error=1 \
        run_tests build/thread "tests with threads, thread sanitizer" -L threads "${select[@]}"
    launcher=()
}

# How much of the time a target has: what opens a store or an engine for each input needs more of it
# than what parses some bytes a hundred thousand times a second.
fuzz_share() {  # TARGET
    case "$1" in
        recovery | request) echo 8 ;;
        handshake | reads) echo 5 ;;
        config | mapping) echo 1 ;;
        *) echo 2 ;;
    esac
}

# What a target tries beyond its corpus is kept in the build, and goes on from there the next time.
# Each target has a process of its own; `jobs` of them run side by side, the longest first.
run_fuzz() {  # SECONDS
    local folder=build/address target shares=0 count=0
    configure_address
    build "$folder" --target fuzz_targets
    for target in tests/fuzz_*.cc; do
        target="$(basename "$target" .cc)"
        if [[ $target == fuzz_replay ]]; then continue; fi
        count=$((count + 1))
        shares=$((shares + $(fuzz_share "${target#fuzz_}")))
    done
    echo "=== fuzz targets: $1 s each on average, clang's address and undefined sanitizers"
    for target in tests/fuzz_*.cc; do
        target="$(basename "$target" .cc)"
        if [[ $target == fuzz_replay ]]; then continue; fi
        target="${target#fuzz_}"
        # Rounded up: to libFuzzer 0 s are no limit.
        echo "$((($1 * count * $(fuzz_share "$target") + shares - 1) / shares)) $target"
    done | sort -rn | xargs -P "$jobs" -L 1 bash -c '
        cd "$1"; mkdir -p "corpus/$4" "found/$4"
        if "tests/fuzz_$4" -max_total_time="$3" -timeout=25 -rss_limit_mb=2048 -max_len=20000 \
            -verbosity=0 -print_final_stats=1 -artifact_prefix="$PWD/found/$4/" \
            "corpus/$4" "$2/tests/corpus/$4" </dev/null >"found/$4.log" 2>&1
        then echo "passed: fuzz $4:" \
            "$(sed -n "s/^stat::number_of_executed_units: *//p" "found/$4.log") runs in $3 s"
        else echo "FAILED: fuzz $4: the input is in build/address/found/$4/; run it again with" \
            "build/address/tests/fuzz_$4 FILE"; tail -n 40 "found/$4.log"; fi
        ' fuzz "$root/$folder" "$root" 2>&1 | tee "$scratch/log" || true
    local targets passed
    targets="$(find tests -maxdepth 1 -name 'fuzz_*.cc' ! -name fuzz_replay.cc | wc -l)"
    passed="$(grep -c '^passed: fuzz ' "$scratch/log" || true)"
    grep '^FAILED: fuzz ' "$scratch/log" >>"$scratch/failures" || true
    passed_total=$((passed_total + passed))
    failed_total=$((failed_total + targets - passed))
}

# Left out are branches that only an exception takes, and those of CHECK, whose other way ends the
# process. What a process ran counts when it ends by itself, not by a signal or _exit. All programs
# share the objects of the libraries; the tests in the list have code of shm/ and engine/page/ that
# is all in headers, and all others would add nothing but the time to read them.
run_coverage() {
    local folder=build/coverage objects=() name
    configure "$folder" Debug none -DBIDSTORE_BENCH=OFF -DBIDSTORE_COVERAGE=ON \
        -DCMAKE_CXX_FLAGS_DEBUG=-O0
    build "$folder"
    find "$folder" -name '*.gcda' -delete
    run_tests "$folder" "all tests, with counts" "${select[@]}"
    for name in shm engine_page engine client daemon \
        {ring,reader_slot,page_map,key_directory,call_slot,doorbell,stats}_test \
        {segment,page,leaf,inner,schema,rebuild}_test; do
        if [[ -d "$folder/CMakeFiles/$name.dir" ]]; then
            objects+=("$folder/CMakeFiles/$name.dir")
        fi
    done
    trap 'rm -rf "$scratch" "$root"/*.gcov' EXIT  # what it leaves when it is ended
    gcovr --root "$root" --filter "$root/shm/" --filter "$root/engine/" \
        --exclude-throw-branches --exclude-unreachable-branches \
        --exclude-branches-by-pattern '.*CHECK(_OP)?\(.*' -j "$jobs" \
        --csv "$folder/files.csv" --txt "$folder/lines.txt" --print-summary "${objects[@]}" \
        >"$scratch/summary"
    echo "=== shm/ and engine/: the files that ran least, by lines"
    # file, lines, of these ran, share, branches, of these ran, share, functions
    tail -n +2 "$folder/files.csv" | sort -t, -k4,4g | awk -F, 'NR <= 25 {
        printf "%5.1f %% of %4d lines, %5.1f %% of %4d branches  %s\n",
            $4 * 100, $2, $7 * 100, $5, $1 }'
    grep -E '^(lines|branches):' "$scratch/summary"
    echo "each file: $folder/files.csv; lines that never ran: $folder/lines.txt"
}

seconds_of() {  # COMMAND...
    local begin end
    begin="$(date +%s.%N)"
    "$@" >"$scratch/timed" 2>&1 || { cat "$scratch/timed" >&2; return 1; }
    end="$(date +%s.%N)"
    awk -v begin="$begin" -v end="$end" 'BEGIN { printf "%.1f s", end - begin }'
}

print_build_times() {
    local folder=build/times touched=daemon/server.cc
    rm -rf "$folder"
    # A cache of compiled files would measure itself.
    export CCACHE_DISABLE=1
    configure "$folder" Debug none -DBIDSTORE_TESTS=OFF -DBIDSTORE_BENCH=OFF
    echo "clean debug build of everything but tests and bench, $jobs jobs:" \
        "$(seconds_of build "$folder")"
    # The time stamp alone decides for ninja; the content stays.
    touch "$touched"
    echo "rebuild after a change of $touched: $(seconds_of build "$folder")"
    rm -rf "$folder"
}

# One process a core, each with seeds of its own; one that fails says how to run it again.
run_simulation() {  # HOURS
    local folder=build/simulation seconds base workers=()
    seconds="$(awk -v hours="$1" 'BEGIN { printf "%d", hours * 3600 }')"
    base="${SEED:-$(date +%s)0000000}"
    configure "$folder" Release none -DBIDSTORE_BENCH=OFF
    build "$folder" --target sim_run
    echo "=== simulation: $jobs processes, $seconds s, seeds from $base"
    local worker failed=0
    for ((worker = 0; worker < jobs; ++worker)); do
        "$folder/tests/sim_run" --seed "$((base + worker * 1000000000))" --seeds 0 \
            --seconds "$seconds" --progress </dev/null > >(sed -u "s/^/[$worker] /") 2>&1 &
        workers+=($!)
    done
    for worker in "${workers[@]}"; do
        if wait "$worker"; then passed_total=$((passed_total + 1)); else failed=$((failed + 1)); fi
    done
    failed_total=$((failed_total + failed))
}

mode=default
hours=0
seconds=0
kills=0
select=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        --help | -h) usage; exit 0 ;;
        --debug) mode=debug ;;
        --release) mode=release ;;
        --build-times) mode=build-times ;;
        --mutants) mode=mutants ;;
        --coverage) mode=coverage ;;
        --sim)
            [[ "${2:-}" =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail_usage "--sim: how many hours?"
            mode=sim
            hours="$2"
            shift ;;
        --fuzz)
            mode=fuzz
            seconds=15
            if [[ "${2:-}" =~ ^[0-9]+$ ]]; then
                seconds="$2"
                shift
            fi ;;
        --kills)
            mode=kills
            kills=1000
            if [[ "${2:-}" =~ ^[1-9][0-9]*$ ]]; then
                kills="$2"
                shift
            fi ;;
        --hostile)
            [[ "${2:-}" =~ ^[0-9]+$ ]] || fail_usage "--hostile: how many seconds?"
            mode=hostile
            seconds="$2"
            shift ;;
        --sanitize)
            case "${2:-}" in
                address,undefined) mode=address ;;
                thread) mode=thread ;;
                *) fail_usage "--sanitize: address,undefined or thread" ;;
            esac
            shift ;;
        --filter)
            [[ -n "${2:-}" ]] || fail_usage "--filter: a regular expression is missing"
            select=(-R "$2")
            [[ $mode != default ]] || mode=debug
            shift ;;
        *) fail_usage "unknown option $1" ;;
    esac
    shift
done

bash daemon/install_packages.sh

case "$mode" in
    build-times) print_build_times; exit 0 ;;
    mutants) rm -rf "$scratch"; exec bash tests/mutants.sh ;;
    debug) stage_all Debug build/debug ;;
    release) stage_all Release build/release ;;
    address) stage_address ;;
    thread) stage_thread ;;
    sim) run_simulation "$hours" ;;
    hostile) run_hostile "$seconds" ;;
    kills) run_kills "$kills" ;;
    fuzz) run_fuzz "$seconds" ;;
    coverage) run_coverage ;;
    default)
        stage_address
        stage_plain
        stage_thread
        if [[ ${#select[@]} -eq 0 ]]; then timed "all of fuzzing" run_fuzz 15; fi ;;
esac

if [[ -s $scratch/failures ]]; then head -n 400 "$scratch/failures"; fi
echo "took $SECONDS s: $took"
echo "$passed_total passed, $failed_total failed"
if [[ $failed_total -ne 0 ]]; then exit 1; fi
