#!/usr/bin/env python3
"""Checks the figures of `peyk cluster --json`: their form, that no message was lost or damaged, and that Homa's short
messages are far ahead of TCP's, which no noise of a machine hides.

    check_cluster.py FILE TRANSPORT...      the transports of its runs, in their order
"""

import json
import sys

path, transports = sys.argv[1], sys.argv[2:]
document = json.load(open(path))
runs = document["runs"]
assert [run["transport"] for run in runs] == transports, [run["transport"] for run in runs]
assert document["hosts"] >= 2 and document["rate_mbit"] > 0 and 0 < document["load"] <= 1
for run in runs:
    name = run["transport"]
    assert run["corrupt"] == 0 and run["executed_twice"] == 0, (name, run["corrupt"], run["executed_twice"])
    percents = [point["percent"] for point in run["points"]]
    assert percents == [10, 20, 30, 40, 50, 60, 70, 80, 90, 99, 100], (name, percents)
    assert run["goodput_mbit_per_host"] > 0 and 0 < run["cpu_percent"] <= 100, name
    half = run["shortest_half"]
    print(f'{name}: shortest half {half["p50_us"]:.0f} / {half["p99_us"]:.0f} us, '
          f'{run["goodput_mbit_per_host"]:.1f} of {run["offered_mbit_per_host"]:.1f} Mbit/s per host, lost {run["lost"]}')
by_name = {run["transport"]: run for run in runs}
homa = by_name["homa"]
assert homa["lost"] == 0 and homa["unsent"] == 0, (homa["lost"], homa["unsent"])
if "tcp1" in by_name:
    ratio = by_name["tcp1"]["shortest_half"]["p99_us"] / homa["shortest_half"]["p99_us"]
    print(f"P99 of the shortest half, TCP / Homa: {ratio:.0f}")
    assert ratio > 5, ratio
