#!/usr/bin/env python3
"""Speed-up of block-sparse products over dense ones, from what sprun_kernels_bench measured; standard library only.

    sparse_curve.py RESULT.json... [--peak [CASE=]G/s] [--svg OUT.svg]

RESULT.json comes from --benchmark_out, names as in bsr_spmm_bench.cc; others are left out. Every sparse kernel is
compared with `onednn` of the same case, shape and file: medians of the CPU time of the repetitions, dense / sparse.
break-even: the percentage of zero blocks from which on the kernel is faster (straight lines between what was
measured). peak: --peak, or else the largest rate of onednn for the same type in the file. noise: distance of the
quartiles of the repetitions, relative to the median. ideal: 1/(1-s).
"""
import argparse
import json
import math
import pathlib
import re
import statistics
import sys

import curve_svg

BASELINE = "onednn"
NAME = re.compile(r"(?P<case>\w+)/(?P<kernel>\w+)/(?P<n>\d+)x(?P<k>\d+)/m(?P<m>\d+)(?:/s(?P<percent>\d+))?")
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


class BadFile(Exception):
    """What is wrong, where, what was expected."""


# --- reading


def load(path):
    """The list of results in a file of Google Benchmark."""
    try:
        data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: not text (byte {error.start}), expected JSON of --benchmark_out") from error
    except json.JSONDecodeError as error:
        raise BadFile(f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg}), "
                      "expected the file of a finished run with --benchmark_out") from error
    entries = data.get("benchmarks") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        got = f"an object with {', '.join(data) or 'nothing'}" if isinstance(data, dict) else type(data).__name__
        raise BadFile(f'{path}: expected an object with a list "benchmarks", got {got}')
    return entries


def number(entry, field, where):
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise BadFile(f'{where}: "{field}" should be a number above 0, got {value!r}')
    return value


def parse_name(name, where):
    """(case, kernel, n, k, m, percent or None), or None for benchmarks of other programs."""
    match = NAME.fullmatch(name)
    if not match:
        return None
    case, kernel = match["case"], match["kernel"]
    percent = None if match["percent"] is None else int(match["percent"])
    if (kernel == BASELINE) != (percent is None) or (percent or 0) > 99:
        raise BadFile(f"{where}: expected CASE/{BASELINE}/NxK/mM or CASE/KERNEL/NxK/mM/sPERCENT with 0 to 99 percent")
    return case, kernel, int(match["n"]), int(match["k"]), int(match["m"]), percent


def read_entry(entry, where):
    """(key, seconds, density) of one repetition or of a median of several."""
    name = entry.get("run_name", entry.get("name"))
    if not isinstance(name, str):
        raise BadFile(f'{where}: "name" should be text, got {name!r}')
    key = parse_name(name, f"{where} ({name})")
    if key is None:
        return None
    where = f"{where} ({name})"
    if entry.get("error_occurred"):
        raise BadFile(f"{where}: the benchmark failed: {entry.get('error_message', 'no message')}")
    unit = entry.get("time_unit")
    if unit not in SECONDS:
        raise BadFile(f'{where}: "time_unit" should be one of {", ".join(SECONDS)}, got {unit!r}')
    density = number(entry, "real", where) / number(entry, "dense", where)
    return key, number(entry, "cpu_time", where) * SECONDS[unit], density


def read(path):
    """{key: {"seconds", "noise", "density"}} of a file. Repetitions count; their median only where they are left out."""
    runs, medians = {}, {}
    for index, entry in enumerate(load(path)):
        where = f"{path}: benchmarks[{index}]"
        if not isinstance(entry, dict):
            raise BadFile(f"{where}: expected an object, got {type(entry).__name__}")
        aggregate = entry.get("run_type") == "aggregate"
        if aggregate and entry.get("aggregate_name") != "median":
            continue
        found = read_entry(entry, where)
        if found:
            (medians if aggregate else runs).setdefault(found[0], []).append(found[1:])
    results = {}
    for key, values in {**medians, **runs}.items():
        seconds = [s for s, _ in values]
        median = statistics.median(seconds)
        low, _, high = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else [median] * 3
        results[key] = {"seconds": median, "noise": (high - low) / median, "density": values[0][1]}
    if not any(key[5] is not None for key in results):
        raise BadFile(f"{path}: no result of a sparse product, expected names like u8s8/KERNEL/768x768/m128/s90")
    return results


# --- figures


def rate(key, seconds):
    """G/s of the dense product."""
    return 2e-9 * key[2] * key[3] * key[4] / seconds


def break_even(points):
    """The percentage from which on the speed-up stays above 1; None: it does not; the first one: it always is."""
    if points[-1][1] < 1:
        return None
    for (s0, v0), (s1, v1) in reversed(list(zip(points, points[1:]))):
        if v0 < 1:
            return s0 + (s1 - s0) * (1 - v0) / (v1 - v0)
    return points[0][0]


def show_break_even(points):
    even = break_even(points)
    if even is None:
        return "not reached"
    return f"{'at or below ' if points[0][1] >= 1 and even == points[0][0] else ''}{even:.1f} %"


def data_type(case):
    return case.removesuffix("_layer")


def peak_of(results, case, peaks):
    given = peaks.get(case, peaks.get(data_type(case), peaks.get("")))
    if given:
        return given
    dense = [(k, r) for k, r in results.items() if k[1] == BASELINE and data_type(k[0]) == data_type(case)]
    return max(rate(k, r["seconds"]) for k, r in dense)


def curves(path, results):
    """{(case, m): {kernel: {(n, k): [(percent, speed-up)]}}}, percentages ascending."""
    groups = {}
    for key in sorted(k for k in results if k[5] is not None):
        case, kernel, n, k, m, percent = key
        dense = results.get((case, BASELINE, n, k, m, None))
        if dense is None:
            raise BadFile(f"{path}: {case}/{BASELINE}/{n}x{k}/m{m} is missing, the dense side of {case}/{kernel}/{n}x{k}"
                          f"/m{m}/s{percent}; the benchmark filter must let both through")
        shapes = groups.setdefault((case, m), {}).setdefault(kernel, {})
        shapes.setdefault((n, k), []).append((percent, dense["seconds"] / results[key]["seconds"]))
    return groups


def over_shapes(shapes):
    """[(percent, median, smallest)] of the speed-ups of a kernel."""
    by_percent = {}
    for points in shapes.values():
        for percent, speedup in points:
            by_percent.setdefault(percent, []).append(speedup)
    return [(s, statistics.median(v), min(v)) for s, v in sorted(by_percent.items())]


# --- printing


def print_shape(results, case, m, shape, kernels, peak):
    n, k = shape
    key = (case, BASELINE, n, k, m, None)
    dense = results[key]
    print(f"\n{case} {n}x{k} m{m}: {BASELINE} {dense['seconds'] * 1e6:.1f} us, {rate(key, dense['seconds']):.0f} G/s, "
          f"noise {dense['noise']:.0%}; peak {peak:.0f} G/s")
    print(f"{'kernel':<36} {'zeros':>5} {'us':>10} {'speed-up':>8} {'of ideal':>8} {'real G/s':>9} {'dense G/s':>9} "
          f"{'of peak':>7} {'noise':>6}")
    for kernel, shapes in kernels.items():
        for percent, speedup in shapes.get(shape, []):
            key = (case, kernel, n, k, m, percent)
            r = results[key]
            dense_rate = rate(key, r["seconds"])
            real = dense_rate * r["density"]
            print(f"{kernel:<36} {percent:>4}% {r['seconds'] * 1e6:>10.1f} {speedup:>7.2f}x {speedup * (1 - percent / 100):>8.0%} "
                  f"{real:>9.0f} {dense_rate:>9.0f} {real / peak:>7.0%} {r['noise']:>6.0%}")
        if shape in shapes:
            print(f"{kernel:<36} break-even {show_break_even(shapes[shape])}")


def print_summary(case, m, kernels):
    count = len({shape for shapes in kernels.values() for shape in shapes})
    print(f"\n{case} m{m}: median speed-up over {count} shapes (smallest)")
    percents = sorted({s for shapes in kernels.values() for points in shapes.values() for s, _ in points})
    print(f"{'kernel':<36}" + "".join(f" {str(s) + '%':>13}" for s in percents) + "  break-even")
    for kernel, shapes in kernels.items():
        rows = {s: f"{median:.2f}x ({low:.2f})" for s, median, low in over_shapes(shapes)}
        points = [(s, median) for s, median, _ in over_shapes(shapes)]
        print(f"{kernel:<36}" + "".join(f" {rows.get(s, '-'):>13}" for s in percents) + f"  {show_break_even(points)}")


def report(path, results, peaks):
    """Prints the tables of a file; returns its panels for the figure."""
    panels = []
    print(path)
    groups = curves(path, results)
    for (case, m), kernels in groups.items():
        for shape in sorted({shape for shapes in kernels.values() for shape in shapes}):
            print_shape(results, case, m, shape, kernels, peak_of(results, case, peaks))
    for (case, m), kernels in groups.items():
        print_summary(case, m, kernels)
        series = []
        for kernel, shapes in kernels.items():
            points = [(s, median) for s, median, _ in over_shapes(shapes)]
            series.append({"name": kernel, "points": points, "break_even": break_even(points)})
        panels.append({"title": f"{case}, {m} rows, median over shapes, against {BASELINE}: {pathlib.Path(path).stem}",
                       "series": series})
    return panels


def parse_peak(text):
    case, _, value = text.rpartition("=")
    if not re.fullmatch(r"\d+(\.\d+)?", value) or float(value) == 0:
        raise argparse.ArgumentTypeError(f"expected a rate in G/s or CASE=rate, got {text!r}")
    return case, float(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="RESULT.json")
    parser.add_argument("--peak", type=parse_peak, action="append", default=[], metavar="[CASE=]G/s",
                        help="what the machine can do at most, of all cases or of one such as f32; may be repeated")
    parser.add_argument("--svg", metavar="OUT.svg", help="draw the curves into this file")
    args = parser.parse_args()
    try:
        files = [(path, read(path)) for path in args.files]
        panels = [panel for path, results in files for panel in report(path, results, dict(args.peak))]
        if args.svg:
            pathlib.Path(args.svg).write_text(curve_svg.draw(panels), encoding="utf-8")
    except BadFile as error:
        return f"sparse_curve.py: {error}"
    except OSError as error:
        return f"sparse_curve.py: {args.svg}: cannot be written: {error.strerror}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
