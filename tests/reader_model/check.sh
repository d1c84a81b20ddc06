#!/usr/bin/env bash
# Runs the models of the reader protocol (shm/reader_slot.h, shm/page_map.h) through SPIN: those of
# the protocol as it is must hold, and each deliberate fault must be found. Exits with 77, which
# ctest counts as skipped, where spin is missing.
#
#   bash tests/reader_model/check.sh [--long]
#
#   announce.pml  begin of a snapshot against the scan of the slots; explicit store buffers
#   order.pml     unlink, generation, overwrite; revocation, overwrite: stores in any order
#   core.pml      page map, chains, batches, reclaim, eviction, watched entries, revocation, readers
#                 that let go of their frames or wait without any; sequentially consistent
#   ids.pml       page ids that are freed and used again
#
# Every search is complete (collapse compression, no hashing) for the sizes given: one reader, two
# pages, three or four frames, csns up to 2 or 3, one eviction, one revocation. --long adds larger
# ones: minutes and gigabytes; those marked bitstate leave states out where hashes collide, so they
# find faults but prove nothing.
set -euo pipefail

models="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
for tool in spin gcc; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: $tool is missing (Debian package $tool)"
        exit 77
    fi
done
long="${1:-}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
runs=0

# search FOLDER EXPECTED MODEL "DEFINES" ["COMPILER FLAGS"]: one line of result, and a file `wrong`
# in FOLDER when it is not as expected: `holds` or `fails`.
search() {
    local folder="$1" expected="$2" model="$3" defines="$4" flags="${5:--DCOLLAPSE}"
    mkdir "$folder"
    cd "$folder"
    cp "$models/$model" .
    local found=nothing states=0
    # shellcheck disable=SC2086  # defines and flags are lists
    if spin -a $defines "$model" >log 2>&1 &&
        gcc -O1 -w -DSAFETY -DMEMLIM=9000 -DVECTORSZ=2048 $flags -o pan pan.c >>log 2>&1; then
        ./pan -m200000 -E -w26 >log 2>&1 || true
        grep -q "errors: 0" log && found=holds
        grep -q "errors: 1" log && found=fails
        grep -q "search depth too small\|out of memory\|reached -DMEMLIM" log && found=unfinished
        states="$(awk '/states, stored/ { print $1 }' log)"
    fi
    printf '%-10s %-12s %s (%s states)\n' "$found" "$model" "$defines" "$states"
    if [[ "$found" != "$expected" ]]; then
        echo "  ^ expected: $expected"
        tail -n 20 log | sed 's/^/    /'
        touch wrong
    fi
}

# In the background, as many at a time as there are processors.
check() {
    while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
    runs=$((runs + 1))
    (search "$work/$runs" "$@") &
}

small="-DNR=1 -DREADS=1 -DMAXC=2 -DNF=3"
medium="-DNR=1 -DREADS=1 -DMAXC=3 -DNF=4"

# The longest first.
check holds core.pml "$medium -DNO_REVOKE -DWATCH -DWATCH_ONE"
check holds core.pml "$small -DWATCH -DRENEW -DREST"
check holds core.pml "$medium -DNO_EVICT -DWATCH -DWATCH_ONE"
check holds core.pml "$medium -DNO_REVOKE"
check holds announce.pml ""
check holds announce.pml "-DPSO"
check holds order.pml "-DWHAT=0"
check holds order.pml "-DWHAT=1"
check holds ids.pml ""

# A reader that takes the bit for a part of the frame's number; an engine that stores an entry again
# after something else was put there, as a thread beside it would.
check fails core.pml "$small -DNO_REVOKE -DNO_EVICT -DWATCH -DV_NOMASK"
check fails core.pml "$small -DNO_REVOKE -DWATCH -DWATCH_ONE -DV_WATCH_LATE"
# Evicted pages judged wrongly; frames looked up before they are announced.
check fails core.pml "$medium -DNO_REVOKE -DV_EVICT_NOCSN"
check fails core.pml "$medium -DNO_REVOKE -DRENEW -DV_LOOKED_ALL"
check fails core.pml "$medium -DNO_REVOKE -DRENEW -DV_LOOKED_LATE"
check fails core.pml "$medium -DNO_REVOKE -DRENEW -DREST -DV_REST_LOOKUP"
# Slots judged wrongly; published, revoked, announced in the wrong order.
check fails core.pml "$small -DNO_REVOKE -DV_NOPIN"
check fails core.pml "$small -DNO_REVOKE -DV_VISFIRST"
check fails core.pml "$small -DNO_EVICT -DV_REVOKE_LATE"
check fails announce.pml "-DV_RELEASE"
check fails announce.pml "-DV_NOFENCE"
check fails announce.pml "-DPSO -DV_NORELEASE"
check fails order.pml "-DWHAT=0 -DV_F1"
check fails order.pml "-DWHAT=0 -DV_F2"
check fails order.pml "-DWHAT=1 -DV_RFENCE"
check fails ids.pml "-DV_NOTOMB"
check fails ids.pml "-DV_REUSE"

if [[ "$long" == --long ]]; then
    check holds core.pml "$medium"
    check holds core.pml "$medium -DNO_REVOKE -DWATCH"
    check holds core.pml "$medium -DNO_REVOKE -DPIPE=1 -DWATCH -DWATCH_ONE -DRENEW -DREST"
    check holds core.pml "-DNR=2 -DREADS=1 -DMAXC=2 -DNF=3 -DPIPE=1 -DNO_REVOKE -DWATCH -DWATCH_ONE"
    check holds core.pml "$medium -DWATCH -DRENEW -DREST" "-DBITSTATE"
fi
wait
wrong="$(find "$work" -name wrong | wc -l)"
echo "$runs searches, $wrong not as expected"
((wrong == 0))
