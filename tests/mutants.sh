#!/usr/bin/env bash
# Plants bugs, one at a time, and demands that the simulation, or the tests that a bug names, find
# every one. Called by `tests/run.sh --mutants`.
#
#   bash tests/mutants.sh [NAME...]         these, or all of tests/mutants/*.patch
#
# A mutant is a patch of the engine below a sentence that says what is wrong with it. It is applied
# to a copy of the sources under build/mutants, built there, and run over seeds from 1 until one
# fails (SEEDS=N, default 2000 at most; a line "first seed: N" in the patch begins elsewhere). What
# no seed can see has a line "test: PROGRAM FILTER": these tests are run in place of the simulation,
# without the mutant and with it, and have to fail with it alone; so has a seed. Tests that do not
# end say nothing. The tree itself is never touched, whatever happens. One that no longer applies,
# does not compile, or is not found is a failure: the last line is "N passed, N failed".
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
seeds="${SEEDS:-2000}"
jobs="${JOBS:-$(nproc)}"
patience="${PATIENCE:-300}"  # seconds, for the tests of one
scratch="$root/build/mutants"
source="$scratch/source"
folders=(shm engine clientlib daemon tests systemd)
passed=0
failed=0
# The copy lies inside of a repository, which is none of git's business here.
export GIT_CEILING_DIRECTORIES="$scratch"

# What is the same keeps its time, so that a second run builds little. What a run that was ended
# left changed gets a new one, or its object would pass for that of the sources.
copy_sources() {
    mkdir -p "$source"
    local file
    (cd "$root" && find "${folders[@]}" CMakeLists.txt -type f) | while read -r file; do
        cmp -s "$root/$file" "$source/$file" && continue
        mkdir -p "$(dirname "$source/$file")"
        cp "$root/$file" "$source/$file"
    done
    (cd "$source" && find . -type f) | while read -r file; do
        [[ -e "$root/$file" ]] || rm "$source/$file"
    done
}

build() {  # TARGET
    cmake --build "$scratch/build" --target "$1" -j "$jobs" >"$scratch/log" 2>&1
}

# At least one of these tests is there, and all of them pass. 124: they did not end.
tests_pass() {  # PROGRAM FILTER
    local status=0
    timeout "$patience" "$scratch/build/tests/$1" --gtest_filter="$2" </dev/null \
        >"$scratch/log" 2>&1 || status=$?
    [[ $status -eq 0 ]] || return "$status"
    grep -q '^\[  PASSED  \] [1-9]' "$scratch/log"
}

# What the tests of a mutant that is built say of it.
test_verdict() {  # NAME PROGRAM FILTER
    local status=0
    tests_pass "$2" "$3" || status=$?
    if [[ $status -eq 0 ]]; then
        echo "SURVIVED: $1: $(head -n 1 "$root/tests/mutants/$1.patch") ($2 $3)"
        failed=$((failed + 1))
    elif [[ $status -eq 124 ]]; then
        echo "DOES NOT END: $1: $2 $3 took more than $patience s, which says nothing"
        failed=$((failed + 1))
    else
        echo "caught: $1: by $2: $({ grep -m 1 -E 'FAILED|CHECK' "$scratch/log" || true; })"
        passed=$((passed + 1))
    fi
}

# What the simulation says of the mutant that is built, in a line.
verdict() {  # NAME FIRST_SEED
    local status=0 begin found seed words
    begin="$(date +%s.%N)"
    "$scratch/build/tests/sim_run" --seed "$2" --seeds "$seeds" --no-shrink </dev/null \
        >"$scratch/log" 2>&1 || status=$?
    found="$(awk -v begin="$begin" -v end="$(date +%s.%N)" \
        'BEGIN { printf "%.1f s", end - begin }')"
    seed="$(sed -n 's/^seed \([0-9]*\) fails: .*/\1/p' "$scratch/log")"
    words="$({ grep -E 'CHECK|fails' "$scratch/log" || true; } | tail -n 2 | tr '\n' ' ' |
        sed 's/seed [0-9]* fails: //' | cut -c1-160)"
    if [[ $status -eq 1 && -n $seed ]] &&
        ! "$scratch/sound_sim_run" --seed "$seed" --seeds 1 --no-shrink >"$scratch/log" 2>&1; then
        echo "FAILS WITHOUT IT: $1: seed $seed has to pass without the mutant"
        failed=$((failed + 1))
    elif [[ $status -eq 1 && -n $seed ]]; then
        echo "caught: $1: by seed $seed in $found: $words"
        passed=$((passed + 1))
    else
        echo "SURVIVED: $1: $(head -n 1 "$root/tests/mutants/$1.patch")" \
            "($seeds seeds from $2 in $found, exit code $status)"
        failed=$((failed + 1))
    fi
}

try() {  # NAME
    local patch="$root/tests/mutants/$1.patch" first program filter
    first="$(sed -n 's/^first seed: \([0-9]*\)$/\1/p' "$patch")"
    program="$(sed -n 's/^test: \([a-z0-9_]*\) .*$/\1/p' "$patch")"
    filter="$(sed -n 's/^test: [a-z0-9_]* \(.*\)$/\1/p' "$patch")"
    if [[ -n $program ]] && ! { build "$program" && tests_pass "$program" "$filter"; }; then
        echo "NO TEST OF IT: $1: $program $filter has to pass without the mutant"
        failed=$((failed + 1))
        return
    fi
    if ! (cd "$source" && git apply "$patch") 2>"$scratch/log"; then
        echo "NO LONGER APPLIES: $1: $(head -n 1 "$scratch/log"); mend the patch"
        failed=$((failed + 1))
        return
    fi
    if build "${program:-sim_run}"; then
        if [[ -n $program ]]; then
            test_verdict "$1" "$program" "$filter"
        else
            verdict "$1" "${first:-1}"
        fi
    else
        echo "DOES NOT COMPILE: $1: $(grep -m 1 'error' "$scratch/log"); mend the patch"
        failed=$((failed + 1))
    fi
    (cd "$source" && git apply -R "$patch")
}

copy_sources
cmake -S "$source" -B "$scratch/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DBIDSTORE_BENCH=OFF \
    >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
if ! build sim_run || ! "$scratch/build/tests/sim_run" --seeds 50 >"$scratch/log" 2>&1; then
    tail -n 20 "$scratch/log"
    echo "mutants.sh: without a mutant it has to build, and to find nothing: see above"
    echo "0 passed, 1 failed"
    exit 1
fi
cp "$scratch/build/tests/sim_run" "$scratch/sound_sim_run"
if [[ $# -eq 0 ]]; then
    for patch in "$root"/tests/mutants/*.patch; do try "$(basename "$patch" .patch)"; done
else
    for name in "$@"; do try "$name"; done
fi
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
