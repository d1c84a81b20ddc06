#!/usr/bin/env python3
"""Draws the JSON of bidstore-bench as an SVG: operations a second of each engine, a panel for each
setting, with the median latencies beside the bars.

    python3 bench/compare_picture.py RESULTS.json... PICTURE.svg
"""
import html
import json
import sys

COLORS = {
    "bidstore": "#c0392b", "rocksdb": "#2c7fb8", "leveldb": "#41b6c4", "lmdb": "#7fbc41",
    "wiredtiger": "#8c6bb1", "sqlite": "#969696", "redis": "#e08214",
}
COLUMNS = 2
PANEL_WIDTH = 560
BAR_HEIGHT = 16
BAR_STEP = 20
NAME_WIDTH = 84
BAR_WIDTH = 250
TITLE_HEIGHT = 30
GAP = 18


def setting_of(result):
    return (result["workload"], result["sync"], result["threads"], result["depth"], result["rows"])


def title_of(setting):
    workload, sync, threads, depth, rows = setting
    parts = [workload, f"sync {sync}", f"{threads} thread" + ("s" if threads > 1 else "")]
    if depth > 1:
        parts.append(f"depth {depth}")
    return ", ".join(parts)


def short(number):
    if number >= 1e6:
        return f"{number / 1e6:.2f} M"
    if number >= 1e4:
        return f"{number / 1e3:.0f} k"
    return f"{number:.0f}"


def latencies(result):
    parts = []
    for kind in ("get", "scan", "write"):
        p50, p99 = result[f"{kind}_p50_ns"], result[f"{kind}_p99_ns"]
        if p50:
            parts.append(f"{kind} {p50 / 1e3:.3g}/{p99 / 1e3:.3g}")
    return ", ".join(parts)


def text(x, y, words, size=11, anchor="start", weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{html.escape(words)}</text>')


def panel(x, y, setting, results):
    shapes = [text(x, y + 14, title_of(setting), 13, weight="bold")]
    most = max(result["ops_per_s_most"] for result in results)
    top = y + TITLE_HEIGHT
    for row, result in enumerate(sorted(results, key=lambda each: -each["ops_per_s"])):
        at = top + row * BAR_STEP
        left = x + NAME_WIDTH
        width = BAR_WIDTH * result["ops_per_s"] / most
        least, greatest = (left + BAR_WIDTH * result[name] / most
                           for name in ("ops_per_s_least", "ops_per_s_most"))
        middle = at + BAR_HEIGHT / 2
        color = COLORS.get(result["engine"], "#444444")
        shapes.append(text(left - 6, at + 12, result["engine"], anchor="end"))
        shapes.append(f'<rect x="{left:.1f}" y="{at:.1f}" width="{max(width, 1):.1f}" '
                      f'height="{BAR_HEIGHT}" fill="{color}"/>')
        shapes.append(f'<line x1="{least:.1f}" x2="{greatest:.1f}" y1="{middle:.1f}" '
                      f'y2="{middle:.1f}" stroke="#222222"/>')
        label = f"{short(result['ops_per_s'])}/s; {latencies(result)}"
        shapes.append(text(max(left + width, greatest) + 6, at + 12, label, 10))
    return shapes


def draw(results):
    settings = {}
    for result in results:
        settings.setdefault(setting_of(result), []).append(result)
    shapes = []
    y = 70
    in_row = 0
    row_height = 0
    for setting, some in settings.items():
        shapes += panel(20 + in_row * PANEL_WIDTH, y, setting, some)
        row_height = max(row_height, TITLE_HEIGHT + len(some) * BAR_STEP + GAP)
        in_row += 1
        if in_row == COLUMNS:
            y, in_row, row_height = y + row_height, 0, 0
    height = y + row_height + 10
    width = 20 + COLUMNS * PANEL_WIDTH + 40
    rows = results[0]["rows"]
    head = [text(20, 26, f"bidstore-bench, {rows:,} rows of 16 + 256 bytes", 16, weight="bold"),
            text(20, 46, "Operations a second: median of the repetitions; the line is their span. "
                         "Beside it p50/p99 in µs of each kind of operation.", 11)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
        f'viewBox="0 0 {width} {height:.0f}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height:.0f}" fill="#ffffff"/>',
        *head, *shapes, "</svg>", ""])


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    results = []
    for path in sys.argv[1:-1]:
        with open(path, encoding="utf-8") as file:
            results += json.load(file)
    if not results:
        sys.exit("compare_picture: no results")
    with open(sys.argv[-1], "w", encoding="utf-8") as file:
        file.write(draw(results))


if __name__ == "__main__":
    main()
