#!/usr/bin/env python3
"""bidstore-bench over every engine and every workload, small: the JSON has what it promises, the
engines agree on what they hold, and nothing is left behind, also after a signal.

    python3 tests/compare_check.py BIDSTORE-BENCH COMPARE_PICTURE.py
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

ENGINES = ["bidstore", "rocksdb", "leveldb", "lmdb", "wiredtiger", "sqlite", "redis"]
READS = {"get": ["get"], "multiget": ["get"], "scan": ["scan"], "write": ["write"],
         "count": ["write"], "mix": ["get", "scan", "write"], "ycsb-a": ["get", "write"],
         "ycsb-b": ["get", "write"], "ycsb-c": ["get"], "ycsb-d": ["get", "write"],
         "ycsb-e": ["scan", "write"], "ycsb-f": ["get", "write"]}
SETTINGS = [name for name in READS] + ["mix:sync=1:depth=4", "write:sync=1", "count:sync=1:depth=4",
                                       "mix:threads=4:processes=2"]
ROWS = 2000


def require(condition, why):
    if not condition:
        sys.exit(f"compare_check: {why}")


def command(bench, directory, engines, seconds, settings):
    return [bench, *settings, "--rows", str(ROWS), "--entities", "20", "--threads", "2",
            "--seconds", str(seconds), "--repeat", "2", "--no-machine", "--engines",
            ",".join(engines), "--directory", directory]


def processes_of(directory):
    """The command lines that name the directory."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline", "rb") as file:
                line = file.read().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue  # gone meanwhile
        if directory in line and int(process) != os.getpid():
            found.append(line)
    return found


def require_nothing_left(directory):
    for _ in range(300):
        if not processes_of(directory):
            break
        time.sleep(0.1)
    require(not processes_of(directory), f"processes are left: {processes_of(directory)}")
    require(os.listdir(directory) == [], f"files are left: {os.listdir(directory)}")


def check_result(result):
    where = f"{result.get('engine')} {result.get('workload')}"
    for name in ("sync", "threads", "rows", "ops_per_s", "cpu_ns_per_op", "resident_bytes"):
        require(isinstance(result[name], (int, float)), f"{where}: {name} is no number")
    require(result["rows"] == ROWS, f"{where}: rows")
    require(result["ops_per_s"] > 0, f"{where}: no operation in a repetition")
    require(result["cpu_ns_per_op"] > 0, f"{where}: no processor time")
    for kind in ("get", "scan", "write"):
        p50, p99, p999 = (result[f"{kind}_{name}_ns"] for name in ("p50", "p99", "p999"))
        if kind in READS[result["workload"]]:
            require(0 < p50 <= p99 <= p999, f"{where}: latencies of {kind}: {p50} {p99} {p999}")
        else:
            require(p50 is None and p99 is None, f"{where}: {kind} was not asked for")
    shared = result["engine"] in ("bidstore", "lmdb", "sqlite", "redis")
    if result["threads"] == 4:
        require(result["processes"] == (2 if shared else 1), f"{where}: processes")


def check_all(bench, picture, directory):
    with tempfile.TemporaryDirectory() as results_directory:
        path = os.path.join(results_directory, "results.json")
        run = subprocess.run([*command(bench, directory, ENGINES, 0.1, SETTINGS), "--json", path],
                             capture_output=True, text=True, timeout=600)
        require(run.returncode == 0, f"exit code {run.returncode}\n{run.stdout}\n{run.stderr}")
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
        for engine in ENGINES:
            own = [result for result in results if result["engine"] == engine]
            require(len(own) == len(SETTINGS), f"{engine}: {len(own)} results")
            require(f"\n{engine} " in run.stdout, f"{engine} is in no table")
        for result in results:
            check_result(result)
        require(len({result["checksum"] for result in results}) == 1, "sums differ")
        svg = os.path.join(results_directory, "picture.svg")
        subprocess.run([sys.executable, picture, path, svg], check=True, timeout=60)
        with open(svg, encoding="utf-8") as file:
            text = file.read()
        require(text.count("<rect") == len(results) + 1, "the picture lacks bars")
    require_nothing_left(directory)


def check_signal(bench, directory):
    run = subprocess.Popen(command(bench, directory, ["bidstore", "redis"], 60, ["mix"]),
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        if any("bidstored" in line for line in processes_of(directory)):
            break
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    require(run.wait(timeout=120) == 128 + signal.SIGTERM, "another exit code after SIGTERM")
    require_nothing_left(directory)


def check_refusals(bench, directory):
    for wrong, word in ((["mux"], "mux"), (["mix:sink=1"], "sink"),
                        (["mix:threads=0"], "threads=0"),
                        (["mix", "--engines", "mongodb"], "mongodb"), ([], "workloads")):
        run = subprocess.run([bench, *wrong, "--directory", directory], capture_output=True,
                             text=True, timeout=120)
        require(run.returncode != 0 and word in run.stdout + run.stderr,
                f"{wrong}: {run.returncode} {run.stdout} {run.stderr}")
    require_nothing_left(directory)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        check_refusals(sys.argv[1], directory)
        check_all(sys.argv[1], sys.argv[2], directory)
        check_signal(sys.argv[1], directory)


if __name__ == "__main__":
    main()
