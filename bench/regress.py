#!/usr/bin/env python3
"""The table of `bench/run.sh regress`: for each benchmark the time here over the time of the base,
the median of the pairs and their span. Above 1: slower here. "slower" or "faster" is said only when
the median is off by more than 3 % and all pairs but one agree.

    python3 bench/regress.py DIRECTORY ROUNDS BASE
"""
import json
import statistics
import sys


def times_of(directory, side, turn):
    times = {}
    with open(f"{directory}/micro.{side}.{turn}.json", encoding="utf-8") as file:
        for benchmark in json.load(file)["benchmarks"]:
            times[benchmark["name"]] = benchmark["cpu_time"]
    with open(f"{directory}/driver.{side}.{turn}.json", encoding="utf-8") as file:
        for result in json.load(file):
            name = (f"{result['workload']} sync {result['sync']} threads {result['threads']} "
                    f"depth {result['depth']}")
            times[f"{name}, ns a second / ops"] = 1e9 / result["ops_per_s"]
            for kind in ("get", "scan", "write"):
                if result[f"{kind}_p50_ns"]:
                    times[f"{name}, {kind} p50"] = result[f"{kind}_p50_ns"]
    return times


def verdict(ratios):
    middle = statistics.median(ratios)
    above = sum(ratio > 1 for ratio in ratios)
    if middle > 1.03 and above >= len(ratios) - 1:
        return "slower"
    if middle < 0.97 and above <= 1:
        return "faster"
    return ""


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    directory, rounds, base = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    pairs = [(times_of(directory, "base", turn), times_of(directory, "here", turn))
             for turn in range(rounds)]
    print(f"\n{'':52s} {'base':>10s} {'here':>10s} {'ratio':>7s} {'least':>6s} {'most':>6s}")
    for name in pairs[0][0]:
        some = [(old[name], new[name]) for old, new in pairs if name in old and name in new]
        if len(some) < rounds:
            continue
        ratios = [new / old for old, new in some]
        print(f"{name:52s} {statistics.median(old for old, _ in some):10.2f} "
              f"{statistics.median(new for _, new in some):10.2f} "
              f"{statistics.median(ratios):7.3f} {min(ratios):6.3f} {max(ratios):6.3f} "
              f"{verdict(ratios)}")
    print(f"\nns; ratio: here over {base}, pair by pair, above 1 is slower")


if __name__ == "__main__":
    main()
