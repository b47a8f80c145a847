#!/usr/bin/env python3
"""Checks the figures of `peyk sim --json` and `peyk sim run --json`: their form, and that nothing went wrong.

    check_sim.py FILE TRANSPORT...      the transports of its runs, in their order
"""

import json
import sys

path, transports = sys.argv[1], sys.argv[2:]
document = json.load(open(path))
runs = document.get("runs", [document])
assert [run["transport"] for run in runs] == transports, [run["transport"] for run in runs]
for run in runs:
    name = f'{run["workload"]} {run["transport"]}'
    assert run["violations"] == 0, (name, run["violation_kinds"])
    assert not run["interrupted"] and run["messages"] > 0 and run["seed"] > 0, name
    assert 0 < run["load"] <= 1 and run["hosts"] == 144, name
    points = {point["percent"]: point for point in run["points"]}
    for percent in (10, 50, 90, 99):
        point = points[percent]
        assert 0.9 < point["p50_slowdown"] <= point["p99_slowdown"] and point["size"] > 0, (name, point)
    queue = run["tor_queue_bytes"]
    assert 0 < queue["mean"] <= queue["max"], (name, queue)
    assert 0 <= run["wasted_bandwidth"] < 1 and run["packet_hops_per_second"] > 0, name
    for value in run.get("published", []):
        # A tail of a few messages may be anywhere.
        if min(point["messages"] for point in points.values()) >= 100:
            assert 0.3 < value["ratio"] < 3, (name, value)
    print(f'{name}: {run["messages"]} messages, P99 {points[50]["p99_slowdown"]:.2f} at the median size')
