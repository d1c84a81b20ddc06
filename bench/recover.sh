# The workload `recover` of bench/run.sh, which sources it: how long a start takes that has a log to
# replay. Bidders write a log, the daemon is killed, and starts again: --rounds times over the same
# log, beside a plain read of it.

command -v fio >/dev/null || fail "fio is not installed (daemon/install_packages.sh installs it)"
recover="$binaries/bench_recover"
[[ -x "$recover" ]] || fail_usage "--binaries $binaries: bench_recover is not there"
log_file="$work/store/data/log"

# All that is written stays changed until the end, and half of the log and of the journal, and two
# fifths of the pool, are what the daemon lets come together before it makes a checkpoint.
profiles_mib=$((rows / 14 / 256 + 1))
changed_mib=$((profiles_mib + log_mib))
recover_pool="${pool_mib:-$((changed_mib * 5 / 2 + 512))}"
pool_huge_pages="$(huge_pages_for "$recover_pool")"
default_journal=$((recover_pool < 512 ? recover_pool / 2 : 256))
recover_segments=$((log_mib / 32 + 4))  # of 64 MiB: twice the log, and a little

start_recovering_daemon() {  # [MIB of journal]
    "$binaries/bidstored" --dev "$work/store" --set "pool_bytes=${recover_pool}MiB" \
        --set "max_data_bytes=$((changed_mib * 3 + 512))MiB" \
        --set "journal_bytes=${1:-$((recover_pool / 2))}MiB" --set log_segment_bytes=64MiB \
        --set "log_segment_count=$recover_segments" --set checkpoint_interval=1d \
        --set "recovery_log_bytes=$((log_mib * 4))MiB" \
        --set huge_pages=try >>"$work/daemon.log" 2>&1 &
    daemon=$!
    for _ in {1..30000}; do
        [[ -S "$BIDSTORE_SOCKET" ]] && return
        running "$daemon" || fail "the daemon did not start"
        sleep 0.01
    done
    fail "the daemon does not listen"
}

kill_daemon() {
    kill -KILL "$daemon"
    wait "$daemon" 2>/dev/null || true
    daemon=""
    rm -f "$BIDSTORE_SOCKET"
}

run_recover() { run "$recover" --rows "$rows" --log-mib "$log_mib" "$@" || fail "$1 $2 failed"; }

# How long fio takes to read so much of the log's file, in ms.
bare_read() {
    local bytes="$1"
    run fio --name=log --filename="$log_file" --readonly --ioengine=io_uring --direct=1 --rw=read \
        --bs=1m --iodepth=4 --size="$bytes" --output-format=json --output="$work/fio.json" \
        >/dev/null 2>&1 || fail "fio failed"
    python3 - "$work/fio.json" <<'PYTHON'
import json, sys
text = open(sys.argv[1]).read()
print(json.loads(text[text.index("{"):])["jobs"][0]["read"]["runtime"])
PYTHON
}

recover_shape() {
    local shape="$1" round began_us ready_ms ring bare
    rm -rf "$work/store"
    start_recovering_daemon
    run_recover --mode load
    end_process "$daemon"  # with a checkpoint: the log begins anew
    daemon=""
    : >"$work/daemon.log"
    start_recovering_daemon
    echo "$shape, the pool $(pool_huge_percent) % on huge pages:"
    run_recover --mode write --shape "$shape"
    kill_daemon
    for ((round = 0; round < rounds; ++round)); do
        : >"$work/daemon.log"
        began_us="${EPOCHREALTIME/./}"
        start_recovering_daemon
        ready_ms=$(((${EPOCHREALTIME/./} - began_us) / 1000))
        kill_daemon
        ring="$(stat -c %s "$log_file")"
        bare="$(bare_read "$ring")"
        python3 - "$shape" "$ready_ms" "$work/daemon.log" "$ring" "$bare" >>"$results" <<'PYTHON'
import re, sys
shape, ready, log, ring, bare = sys.argv[1:]
text = open(log).read()
done = re.search(r": (\d+) batches, (\d+) bytes of log in (\d+) ms", text)
times = re.search(r"files (\d+) ms, journal of \d+ pages (\d+) ms, metadata (\d+) ms, "
                  r"log reads (\d+) ms, replay of (\d+) records (\d+) ms, "
                  r"(\d+) checkpoints in between (\d+) ms, rest of the log (\d+) ms, "
                  r"end (\d+) ms", text)
print(shape, ready, ring, bare, *done.groups(), *times.groups())
PYTHON
    done
    tail -n 1 "$results" | awk '{ printf "  recovered in %d ms, ready after %d ms\n", $7, $2 }'
}

# Kills a daemon in step 4 of a checkpoint of changes all over the profiles, when its journal has
# just been named: most of it is not in place. The files are in $work/kept then.
kill_in_last_step() {
    local attempt step
    for ((attempt = 0; attempt < 10; ++attempt)); do
        start_recovering_daemon "$default_journal"
        "$recover" --mode write --shape updates --rows "$rows" --log-mib 99999 \
            --clients 4 >/dev/null 2>&1 &
        child=$!
        for _ in {1..5000}; do
            step="$({ "$binaries/bidstore" stats 2>/dev/null || true; } |
                awk '$1 == "checkpoint_step" { print $2 }')"
            [[ "$step" != 4 ]] || break
            running "$daemon" || fail "the daemon died"
            running "$child" || fail "the writers ended before a checkpoint came"
        done
        kill_daemon
        end_process "$child"
        child=""
        cp -r "$work/store" "$work/kept"
        : >"$work/daemon.log"
        start_recovering_daemon "$default_journal"
        if grep -q "journal of [1-9]" "$work/daemon.log"; then
            kill_daemon
            return
        fi
        end_process "$daemon"
        daemon=""
        rm -rf "$work/kept"
    done
    fail "in 10 attempts no daemon was caught in step 4 of a checkpoint"
}

journal_shape() {
    local round
    if ((profiles_mib <= default_journal / 2)); then
        echo "journal: left out, $profiles_mib MiB of profiles fill no half of a journal of" \
            "$default_journal MiB, so no checkpoint comes: more --rows"
        return
    fi
    rm -rf "$work/store"
    start_recovering_daemon "$default_journal"
    run_recover --mode load
    end_process "$daemon"
    daemon=""
    kill_in_last_step
    for ((round = 0; round < rounds; ++round)); do
        rm -rf "$work/store"
        cp -r "$work/kept" "$work/store"
        sync
        : >"$work/daemon.log"
        start_recovering_daemon "$default_journal"
        kill_daemon
        sed -En 's/.*journal of ([0-9]+) pages ([0-9]+) ms, metadata ([0-9]+) ms.*/\1 \2 \3/p' \
            "$work/daemon.log" | awk '{ printf "journal: %d pages (%d MiB) put in place in %d ms," \
                " metadata of all chunks in %d ms\n", $1, $1 / 256, $2, $3 }'
    done
}

report_recoveries() {
    python3 - "$results" <<'PYTHON'
import statistics, sys
names = ("ready", "ring", "bare", "batches", "bytes", "all", "files", "journal", "metadata", "read",
         "records", "replay", "checkpoints", "between", "rest", "end")
shapes = {}
for line in open(sys.argv[1]):
    shape, *values = line.split()
    shapes.setdefault(shape, []).append(dict(zip(names, map(int, values))))
heads = ("MiB", "records", "start", "recovery", "at 1 GiB", "MiB/s", "krec/s", "files", "metadata",
         "read", "replay", "between", "rest", "bare log", "bare ring")
print("\n%-13s" % "ms" + "".join("%10s" % head for head in heads))
for shape, rounds in shapes.items():
    m = {name: statistics.median(r[name] for r in rounds) for name in names}
    mib = m["bytes"] / 2**20
    per_gib = m["all"] * 1024 / mib
    columns = (mib, m["records"], m["ready"] - m["all"], m["all"], per_gib, mib * 1000 / m["all"],
               m["records"] / m["all"], m["files"] + m["journal"] + m["end"], m["metadata"],
               m["read"], m["replay"], m["between"], m["rest"],
               m["bare"] * m["bytes"] / m["ring"], m["bare"])
    print("%-13s" % shape + "".join("%10d" % column for column in columns),
          "met" if per_gib <= 5000 else "MISSED")
print("\ntarget: 1 GiB of log in 5 s. Medians of the rounds over the same log. start: what the "
      "process does\nbefore and after recovery, most of it touching the pool; files: syncs, "
      "superblocks, journal; read:\nwaiting for the log; between: checkpoints; rest: looking "
      "through the rest of the ring; bare: fio reads\nas much as was replayed, and all of it.")
PYTHON
}

busy="$(busy_percent)"
if ((busy > 10)); then
    echo "bench: others use $busy % of this machine: this run is not a fair one" >&2
fi
: >"$results"
echo "$log_mib MiB of log, $rows profiles, a pool of $recover_pool MiB"
if [[ -n "$reserve_huge_pages" ]]; then reserve_huge_pages; fi
for shape in $shapes; do
    [[ "$shape" == journal ]] || recover_shape "$shape"
done
if [[ -s "$results" ]]; then report_recoveries; fi
if [[ " $shapes " == *" journal "* ]]; then journal_shape; fi
if ((busy > 10)); then echo "(not a fair run: others used $busy % of the machine)"; fi
