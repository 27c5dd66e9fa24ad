#!/usr/bin/env python3
"""Ratios of itera and its peers as a Markdown table, from the files that `run` wrote.

    table.py NAME-itera.json NAME-pytorch.json ...

A ratio is the median of the ratios within each round, with the least and the largest of them.
The last column divides the best runs of all rounds, which a disturbed machine changes least.
Above 1, itera is faster. q8 and q4 rows are compared with the peer's f32 row where it has no
other.
"""
import json
import statistics
import sys


def load(path):
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    rows = {}
    for row in data["runs"]:
        rows[(row["op"], row["phase"], row["case"], row["threads"], row["dtype"])] = row
    host = data["host"]
    peer = host.get("peer", {"name": "itera", "version": host.get("itera", "")})
    return f"{peer['name']} {peer['version']}".strip(), rows


def ratio(ours, theirs):
    """"1.2x (1.1 to 1.3)", of times: theirs over ours."""
    rounds = zip(ours.get("rounds_ms", [ours["latency_ms"]["p50"]]),
                 theirs.get("rounds_ms", [theirs["latency_ms"]["p50"]]))
    each = sorted(b / a for a, b in rounds)
    return f"{statistics.median(each):.3g}x ({each[0]:.3g} to {each[-1]:.3g})"


def best(ours, theirs):
    return theirs["latency_ms"]["best"] / ours["latency_ms"]["best"]


def amount(row):
    ms, per_second = row["latency_ms"]["p50"], row["tokens_per_second"]
    if row["phase"] in ("prefill", "decode"):
        return f"{per_second:,.0f} tok/s"
    return f"{ms:.3g} ms"


def main():
    if len(sys.argv) < 3:
        print("usage: table.py ITERA.json PEER.json...", file=sys.stderr)
        return 2
    _, ours = load(sys.argv[1])
    print("| work | threads | weights | itera | peer | its | itera is faster by | best runs |")
    print("|---|---|---|---|---|---|---|---|")
    for path in sys.argv[2:]:
        name, theirs = load(path)
        for (op, phase, case, threads, dtype), row in ours.items():
            other = theirs.get((op, phase, case, threads, dtype))
            label = name
            if not other and dtype != "f32":
                other = theirs.get((op, phase, case, threads, "f32"))
                label = f"{name}, f32"
            if other:
                print(f"| `{op}` {phase} {case} | {threads} | {dtype} | {amount(row)} | {label} | "
                      f"{amount(other)} | {ratio(row, other)} | {best(row, other):.3g}x |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
