#!/usr/bin/env python3
"""Did a change make a kernel slower? Two builds of sprun_kernels_bench in turns.

    old_against_new.py OLD/bench/sprun_kernels_bench NEW/bench/sprun_kernels_bench FILTER [--rounds 5] [--limit 1.1]

Each round runs both programs, one process after the other. Printed is the median CPU time of the new one over that of the
old one for every benchmark that both have; exit 1 if one is above --limit. Pin it to a core and give it a high priority
where others work too: chrt -r 4 taskset -c 1 python3 old_against_new.py ...
"""
import argparse
import collections
import json
import statistics
import subprocess
import sys


def times(program, pattern):
    """{name: CPU time} of one run."""
    command = [program, f"--benchmark_filter={pattern}", "--benchmark_min_time=0.02", "--benchmark_format=json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 or "{" not in done.stdout:
        sys.exit(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")
    result = json.loads(done.stdout[done.stdout.index("{"):])
    return {each["name"]: each["cpu_time"] for each in result["benchmarks"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("filter", help="a regular expression, as --benchmark_filter takes it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1.1)
    args = parser.parse_args()

    series = {"old": collections.defaultdict(list), "new": collections.defaultdict(list)}
    for turn in range(args.rounds):
        for side in ("old", "new") if turn % 2 == 0 else ("new", "old"):
            for name, value in times(getattr(args, side), args.filter).items():
                series[side][name].append(value)
    shared = [name for name in series["old"] if name in series["new"]]
    if not shared:
        sys.exit(f"no benchmark of both matches '{args.filter}'")
    slower = 0
    for name in shared:
        ratio = statistics.median(series["new"][name]) / statistics.median(series["old"][name])
        slower += ratio > args.limit
        print(f"{ratio:6.3f}  {name}{'   SLOWER' if ratio > args.limit else ''}")
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
