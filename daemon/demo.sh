#!/usr/bin/env bash
# Shows bidstore at work: a bid log goes in, two bidders hold auctions beside a process that
# ingests, the daemon is killed twice at random moments, and an audit proves that nothing was lost.
#
#   bash daemon/demo.sh [LOG] [--seconds N] [--keep] [--binaries DIR]
#
#   LOG             a log of the shape of clientlib/mappings/bidreq-20120111.toml (.jsonl or
#                   .jsonl.gz); without one, bidstore-genlog makes it
#   --seconds N     how long the bidders run (default 60, at least 3)
#   --keep          leave the store, journals and the daemon's log where they are
#   --binaries DIR  use these programs instead of installing packages and building
#
# Everything printed is measured or counted in this run. Exits with 0 only when the audit passed.
# The store lies in a directory of its own below $TMPDIR (default /var/tmp: the store wants a disk).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
log=""
seconds=60
keep=0
binaries=""

usage() {
    sed -n '2,/^set -euo/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}
while [[ $# -gt 0 ]]; do
    case "$1" in
        --seconds) seconds="${2:-}"; shift ;;
        --keep) keep=1 ;;
        --binaries) binaries="${2:-}"; shift ;;
        --help | -h) usage; exit 0 ;;
        -*) echo "demo: unknown option $1 (see --help)" >&2; exit 2 ;;
        *) log="$1" ;;
    esac
    shift
done
if ! [[ "$seconds" =~ ^[0-9]{1,5}$ ]] || ((10#$seconds < 3)); then
    echo "demo: --seconds wants a whole number from 3 up, not \"$seconds\"" >&2
    exit 2
fi
seconds=$((10#$seconds))
if [[ -n "$log" && ! -r "$log" ]]; then
    echo "demo: $log cannot be read" >&2
    exit 2
fi

# ---- programs --------------------------------------------------------------------------------

if [[ -z "$binaries" ]]; then
    bash "$root/daemon/install_packages.sh"
    echo "building (Release) in build-demo ..."
    build=(cmake -S "$root" -B "$root/build-demo" -DCMAKE_BUILD_TYPE=Release -DBIDSTORE_TESTS=OFF
        -DBIDSTORE_BENCH=OFF)
    if ! { "${build[@]}" && cmake --build "$root/build-demo" --parallel "$(nproc)"; } \
        >"$root/build-demo.log" 2>&1; then
        tail -30 "$root/build-demo.log" >&2
        echo "demo: the build failed" >&2
        exit 1
    fi
    rm -f "$root/build-demo.log"
    binaries="$root/build-demo/bin"
fi

work="$(mktemp -d "${TMPDIR:-/var/tmp}/bidstore-demo.XXXXXX")"
export BIDSTORE_SOCKET="$work/store/bidstore.sock"
mkdir "$work/journals"
daemon=""    # process id of the daemon that runs now
children=()  # process ids of bidders and ingester

# ---- processes --------------------------------------------------------------------------------

running() { [[ -n "$1" ]] && kill -0 "$1" 2>/dev/null; }

# Ends what this script started, and nothing else.
clean_up() {
    local code=$? pid
    trap - EXIT
    for pid in "${children[@]}" "$daemon"; do
        if running "$pid"; then kill -TERM "$pid" 2>/dev/null || true; fi
    done
    for _ in {1..100}; do
        local left=0
        for pid in "${children[@]}" "$daemon"; do
            if running "$pid"; then left=1; fi
        done
        ((left)) || break
        sleep 0.1
    done
    for pid in "${children[@]}" "$daemon"; do
        if running "$pid"; then kill -KILL "$pid" 2>/dev/null || true; fi
    done
    wait 2>/dev/null || true
    if ((keep)); then
        echo "kept: $work"
    else
        rm -rf "$work"
    fi
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "demo: $1" >&2
    tail -n 20 "$work/daemon.log" >&2 || true
    exit 1
}

# Starts the daemon and waits until it answers; sets started_ms to how long that took.
start_daemon() {
    local began
    began="$(date +%s%N)"
    # The audit looks at all rows in one snapshot, on any host.
    "$binaries/bidstored" --dev "$work/store" --set pool_bytes=512MiB \
        --set max_snapshot_age=60s >>"$work/daemon.log" 2>&1 &
    daemon=$!
    until "$binaries/bidstore" --timeout 1 stats --json >"$work/stats" 2>/dev/null; do
        running "$daemon" || fail "the daemon did not start"
        (($(date +%s%N) - began < 60 * 10 ** 9)) || fail "the daemon does not answer"
        sleep 0.02
    done
    started_ms=$((($(date +%s%N) - began) / 10 ** 6))
}

# ---- numbers --------------------------------------------------------------------------------

# counter FILE NAME: a counter out of the JSON of `bidstore stats --json`.
counter() {
    local text
    text="$(<"$1")"
    [[ "$text" =~ \"$2\":([0-9]+) ]] || fail "no counter $2 in the stats"
    echo "${BASH_REMATCH[1]}"
}

# hundredths A B: A / B with two digits.
hundredths() {
    if (($2 == 0)); then
        echo "-"
        return
    fi
    local ratio=$(($1 * 100 / $2))
    printf '%d.%02d' $((ratio / 100)) $((ratio % 100))
}

applied=0  # transactions of the run, over all daemons
syncs=0
# Adds what the daemon has counted by now to the sums; called before it is killed, and at the end.
add_up() {
    "$binaries/bidstore" stats --json >"$work/stats"
    applied=$((applied + $(counter "$work/stats" transactions_applied)))
    syncs=$((syncs + $(counter "$work/stats" log_syncs)))
}

# A random moment: milliseconds from $1 to $2 percent of the run.
moment() {
    local first=$((seconds * 10 * $1)) last=$((seconds * 10 * $2))
    echo $((first + (RANDOM * 32768 + RANDOM) % (last - first)))
}

sleep_until_ms() {
    local now=$((($(date +%s%N) - run_began) / 10 ** 6))
    (($1 <= now)) || sleep "$(printf '%d.%03d' $((($1 - now) / 1000)) $((($1 - now) % 1000)))"
}

# ---- the store is made and filled --------------------------------------------------------------

mapping="$root/clientlib/mappings/bidreq-20120111.toml"
if [[ -z "$log" ]]; then
    log="$work/generated.jsonl.gz"
    "$binaries/bidstore-genlog" --rows 20000 --seed "$RANDOM" "$log"
    echo "log                  made by bidstore-genlog: 20,000 requests"
else
    echo "log                  $log"
fi
start_daemon
echo "daemon               pid $daemon, new store, serving after $started_ms ms"
"$binaries/bidstore" table create --schema "$mapping"
"$binaries/bidstore-bidder" prepare
"$binaries/bidstore" import --mapping "$mapping" "$log"
imported="$("$binaries/bidstore" count bids)"

# ---- bidders, ingester, and two deaths ---------------------------------------------------------

"$binaries/bidstore" stats --json >"$work/stats"
applied=$((-$(counter "$work/stats" transactions_applied)))
syncs=$((-$(counter "$work/stats" log_syncs)))
run_began="$(date +%s%N)"
"$binaries/bidstore-bidder" --directory "$work/journals" ingest --seconds "$seconds" &
children+=($!)
for bidder in 1 2; do
    "$binaries/bidstore-bidder" --directory "$work/journals" bid --bidder "$bidder" \
        --seconds "$seconds" &
    children+=($!)
done
echo "running              2 bidders and 1 ingester for $seconds s"

for at in "$(moment 20 45)" "$(moment 55 80)"; do
    sleep_until_ms "$at"
    add_up
    killed="$daemon"
    kill -KILL "$daemon"
    wait "$daemon" 2>/dev/null || true
    start_daemon
    ns="$(counter "$work/stats" recovery_ns)"
    printf 'killed               pid %d, SIGKILL after %d.%03d s; serving again after %d ms:\n' \
        "$killed" $((at / 1000)) $((at % 1000)) "$started_ms"
    printf '  recovery           %s ms for %d batches, %d KiB of log\n' \
        "$(hundredths "$ns" 1000000)" "$(counter "$work/stats" recovery_batches)" \
        $(($(counter "$work/stats" recovery_log_bytes) / 1024))
done

failed=0
for pid in "${children[@]}"; do
    wait "$pid" || failed=1
done
children=()
((failed == 0)) || fail "a bidder or the ingester failed"
add_up

# ---- what came of it ---------------------------------------------------------------------------

echo
printf 'writes per sync      %s (%d transactions, %d syncs of the log)\n' \
    "$(hundredths "$applied" "$syncs")" "$applied" "$syncs"
audit=0
"$binaries/bidstore-bidder" --directory "$work/journals" audit || audit=1
# The imported rows have no journal: they are held by their number.
rows="$("$binaries/bidstore" count bids)"
acknowledged="$(wc -l <"$work/journals/ingester.journal")"
printf 'requests             %d imported + %d acknowledged to the ingester = %d in the store\n' \
    "$imported" "$acknowledged" "$rows"
if ((imported + acknowledged != rows)); then
    audit=1
    echo "demo: FAILED, $((imported + acknowledged)) rows were expected" >&2
fi

kill -TERM "$daemon"
if wait "$daemon"; then
    echo "daemon               stopped cleanly, final checkpoint on disk"
else
    audit=1
    echo "demo: the daemon did not stop cleanly" >&2
    tail -n 20 "$work/daemon.log" >&2
fi
daemon=""
exit "$audit"
