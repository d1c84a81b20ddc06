#!/usr/bin/env bash
# Runs the models of the reader protocol (shm/reader_slot.h, shm/page_map.h) through SPIN: those of
# the protocol as it is must hold, and each deliberate fault must be found. Exits with 77, which
# ctest counts as skipped, where spin is missing.
#
#   bash tests/reader_model/check.sh [--long]
#
#   announce.pml  begin of a snapshot against the scan of the slots; explicit store buffers
#   order.pml     unlink, generation, overwrite; revocation, overwrite: stores in any order
#   core.pml      page map, chains, batches, rounds of reclaim, second looks at slots, pinned walks,
#                 eviction, fills, watched entries, revocation, detach, readers that let go of their
#                 frames or wait without any, and what that leaves in the slot for the next snapshot
#                 and the next owner; sequentially consistent
#   places.pml    pages of extents, and leaves dropped unread: their frame, file, quarantine
#   ids.pml       page ids that are freed and used again, and what the key directory leads to then
#   drops.pml     dropped tables, and the roots that readers remember
#
# Every search is complete (collapse compression, no hashing) for the sizes given: one reader (two
# owners of a slot where one is detached, or ends), two pages, three to six frames, csns up to 2 to
# 5, one eviction, one revocation. --long adds larger ones: minutes and gigabytes; those marked
# bitstate leave states out where hashes collide, so they find faults but prove nothing.
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
    # Most searches take less time than the compiler does, or than clearing a large table.
    local found=nothing states=0 optimize=-O0 table=18
    if [[ "$expected" == holds ]]; then
        table=22
        [[ "$model" == core.pml ]] && optimize=-O1
        [[ "$long" == --long ]] && table=26
    fi
    # shellcheck disable=SC2086  # defines and flags are lists
    if spin -a $defines "$model" >log 2>&1 &&
        gcc $optimize -w -DSAFETY -DMEMLIM=9000 -DVECTORSZ=2048 $flags -o pan pan.c >>log 2>&1; then
        ./pan -m200000 -E -w$table >log 2>&1 || true
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
chain="-DNR=1 -DREADS=1 -DMAXC=4 -DNF=5 -DONE"  # several versions of a page go in one round
rounds="-DNR=1 -DREADS=1 -DMAXC=5 -DNF=6 -DONE -DPIPE=1"  # three disturb one walk
twice="-DNR=1 -DREADS=2 -DMAXC=2 -DNF=3"
next="-DNR=1 -DREADS=2 -DNF=3 -DEVICT -DRENEW -DREST -DOWNER"  # what an owner leaves in its slot
owners="-DNR=2 -DREADS=2 -DMAXC=2 -DNF=3 -DDETACH"

# The longest first.
# Two csns more, so that one may come between two snapshots. Batches of one page, one at a time:
# this is about the frames that a reader uses, not about what a batch has; --long has them all.
check holds core.pml "$next -DMAXC=3 -DONE -DPIPE=1"
check holds core.pml "$medium -DEVICT"
check holds core.pml "$owners"
check holds core.pml "$next -DMAXC=2 -DACCUSE"
check holds core.pml "$small -DEVICT -DREVOKE -DWATCH -DRENEW -DREST"
check holds core.pml "$medium -DREVOKE"
check holds core.pml "$rounds"
check holds core.pml "$chain -DREVOKE"
check holds core.pml "$twice -DACCUSE -DREVOKE"
check holds places.pml ""
check holds places.pml "-DDROP"
check holds announce.pml ""
check holds announce.pml "-DPSO"
check holds order.pml "-DWHAT=0"
check holds order.pml "-DWHAT=1"
check holds ids.pml ""
check holds ids.pml "-DDROP"
check holds drops.pml ""

# The walk: without its generation; never pinned; pinned, and without it in the first walk; a reader
# that takes the bit for a part of the frame's number.
check fails core.pml "$medium -DV_NO_GEN"
check fails core.pml "$rounds -DV_NO_PIN_WALK"
check fails core.pml "$chain -DV_UNCHECKED_FIRST"
check fails core.pml "$small -DEVICT -DWATCH -DV_NOMASK"
# A round: the generation moves after frames were written over, before the first unlinking, before
# the last one; versions are not unlinked; kept for the wrong snapshots; two rounds from one scan.
check fails core.pml "$medium -DV_GEN_LATE"
check fails core.pml "$medium -DV_GEN_FIRST"
check fails core.pml "$chain -DV_GEN_EARLY"
check fails core.pml "$chain -DV_NO_UNLINK"
check fails core.pml "$small -DV_BOUND"
check fails core.pml "$rounds -DV_TWO_ROUNDS"
# A fill: a page map entry before the frame is complete, or before its link.
check fails core.pml "$small -DEVICT -DV_MAP_EARLY"
check fails core.pml "$small -DV_LINK_LATE"
# Publishing: visible before the page map; an entry that is stored again when something else was put
# there, as by a thread beside the engine.
check fails core.pml "$small -DV_VISFIRST"
check fails core.pml "$small -DEVICT -DWATCH -DWATCH_ONE -DV_WATCH_LATE"
# Slots: PIN_ALL means nothing; it keeps what is replaced after the scan that sees it, of a snapshot
# that begins, of one that a scan saw; an episode first seen is looked at once, or before its word,
# and an honest reader is accused.
check fails core.pml "$small -DV_NOPIN"
check fails core.pml "$small -DV_PIN_NOW"
check fails core.pml "$chain -DV_PIN_KNOWN"
check fails core.pml "$twice -DACCUSE -DV_NO_RELOOK"
check fails core.pml "$twice -DACCUSE -DV_EPISODE_FIRST"
# Evicted pages judged wrongly; with an unpublished version; frames looked up before they are
# announced; under the rest of the slot's last owner.
check fails core.pml "$medium -DEVICT -DV_EVICT_NOCSN"
check fails core.pml "$small -DEVICT -DRENEW -DV_EVICT_UNPUB"
check fails core.pml "$medium -DEVICT -DRENEW -DV_LOOKED_ALL"
check fails core.pml "$medium -DEVICT -DRENEW -DV_LOOKED_LATE"
check fails core.pml "$medium -DEVICT -DRENEW -DREST -DV_REST_LOOKUP"
check fails core.pml "$next -DMAXC=2 -DV_OWNER_LOOKED"
# Leases: frames are reused before revoked says so; a reader does not ask; a detach ends the newest
# episode alone; the slot's next owner begins among the dead ones; an owner in the old segment
# begins above what the detach revoked.
check fails core.pml "$small -DREVOKE -DV_REVOKE_LATE"
check fails core.pml "$small -DREVOKE -DV_BELIEVE"
check fails core.pml "$owners -DV_DETACH_NEWEST"
check fails core.pml "$owners -DV_OWNER_AGAIN"
check fails core.pml "${owners/READS=2/READS=1} -DV_OWNER_AFTER"
# Extents and dropped leaves: a frame that is all there is of a page goes at once, by the clock, or
# by when it was looked up; the quarantine ends under a read from the file, under PIN_ALL, under a
# snapshot, or takes the frame with it; PIN_ALL as above.
check fails places.pml "-DV_END_NOW"
check fails places.pml "-DV_EVICT_UNWRITTEN"
check fails places.pml "-DDROP -DV_EVICT_UNWRITTEN"
check fails places.pml "-DV_RETIRING_LOOKED"
check fails places.pml "-DV_QUARANTINE_LOAD"
check fails places.pml "-DV_QUARANTINE_PIN"
check fails places.pml "-DV_PIN_NOW"
check fails places.pml "-DV_QUARANTINE_SNAPSHOT"
check fails places.pml "-DDROP -DV_QUARANTINE_FREE"
# Ids that are used again, dropped leaves by the directory, roots of dropped tables.
check fails ids.pml "-DV_NOTOMB"
check fails ids.pml "-DV_REUSE"
check fails ids.pml "-DV_NOTFOUND"
check fails ids.pml "-DDROP -DV_REUSE"
check fails ids.pml "-DDROP -DV_NOFLOOR"
check fails drops.pml "-DV_DROPPED_LATE"
check fails drops.pml "-DV_SINCE"
check fails drops.pml "-DV_REMEMBER"
# Single stores and loads in the wrong order.
check fails announce.pml "-DV_RELEASE"
check fails announce.pml "-DV_NOFENCE"
check fails announce.pml "-DV_PIN_NOW"
check fails announce.pml "-DPSO -DV_NORELEASE"
check fails order.pml "-DWHAT=0 -DV_F1"
check fails order.pml "-DWHAT=0 -DV_F2"
check fails order.pml "-DWHAT=0 -DV_RFENCE"
check fails order.pml "-DWHAT=1 -DV_F2"
check fails order.pml "-DWHAT=1 -DV_RFENCE"

if [[ "$long" == --long ]]; then
    check holds core.pml "$medium -DEVICT -DREVOKE"
    check holds core.pml "$medium -DEVICT -DWATCH"
    check holds core.pml "$chain -DEVICT"
    check holds core.pml "$rounds -DEVICT -DREVOKE"
    check holds core.pml "$twice -DACCUSE -DEVICT -DREVOKE"
    check holds core.pml "$next -DMAXC=3"
    check holds core.pml "${owners/READS=2/READS=1} -DEVICT"
    check holds core.pml "-DNR=2 -DREADS=1 -DMAXC=2 -DNF=3 -DPIPE=1 -DEVICT -DWATCH -DWATCH_ONE"
    check holds core.pml "$medium -DPIPE=1 -DEVICT -DWATCH -DWATCH_ONE -DRENEW -DREST"
    check holds places.pml "-DREADS=2"
    check holds places.pml "-DREADS=2 -DDROP"
    check holds core.pml "$medium -DEVICT -DREVOKE -DWATCH -DRENEW -DREST" "-DBITSTATE"
fi
wait
wrong="$(find "$work" -name wrong | wc -l)"
echo "$runs searches, $wrong not as expected"
((wrong == 0))
