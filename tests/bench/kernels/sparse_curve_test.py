#!/usr/bin/env python3
"""Tests of bench/kernels/sparse_curve.py on made-up measurements: ratios, break-even, figure, messages.

    sparse_curve_test.py SPARSE_CURVE_PY
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

SCRIPT = ""
SVG = "{http://www.w3.org/2000/svg}"
N, K, M = 64, 32, 16
WORK = 2e-9 * N * K * M  # G operations of the dense product


def result(name, microseconds, density=1.0, work=WORK, **more):
    """One repetition as Google Benchmark writes it."""
    rate = work / (microseconds * 1e-6)
    return {"name": name, "run_name": name, "run_type": "iteration", "real_time": 10 * microseconds,
            "cpu_time": microseconds, "time_unit": "us", "dense": rate, "real": rate * density, **more}


def aggregate(kind, entry):
    return {**entry, "name": f"{entry['name']}_{kind}", "run_type": "aggregate", "aggregate_name": kind}


def sparse(kernel, percent, microseconds, case="u8s8", shape=f"{N}x{K}"):
    return result(f"{case}/{kernel}/{shape}/m{M}/s{percent}", microseconds, 1 - percent / 100)


def dense(microseconds, case="u8s8", shape=f"{N}x{K}"):
    return result(f"{case}/onednn/{shape}/m{M}", microseconds)


class SparseCurveTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.dir = pathlib.Path(self.folder.name)

    def write(self, entries, name="result.json"):
        path = self.dir / name
        path.write_text(entries if isinstance(entries, str) else json.dumps({"context": {}, "benchmarks": entries}))
        return str(path)

    def run_script(self, *args, code=0):
        done = subprocess.run([sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def lines(self, output, kernel):
        return [line.split() for line in output.splitlines() if line.startswith(kernel + " ")]

    def fails(self, entries, *words):
        """The script ends with a message that has these words, and no trace of the stack."""
        done = self.run_script(self.write(entries), code=1)
        self.assertTrue(done.stderr.startswith("sparse_curve.py: "), done.stderr)
        for word in ("result.json", *words):
            self.assertIn(word, done.stderr)


class Figures(SparseCurveTest):
    def test_medians_of_the_repetitions_whatever_their_order(self):
        entries = [dense(t) for t in (100, 90, 500)] + [sparse("k", 80, t) for t in (24, 25, 1, 26, 900)]
        entries += [aggregate("mean", dense(7)), aggregate("median", dense(7))]  # the repetitions themselves count
        random.Random(3).shuffle(entries)
        row = self.lines(self.run_script(self.write(entries), "--peak", "2").stdout, "k")[0]
        rate = WORK / 25e-6
        self.assertEqual(row[1:], ["80%", "25.0", "4.00x", "80%", f"{0.2 * rate:.0f}", f"{rate:.0f}",
                                   f"{0.1 * rate:.0%}", "8%"])

    def test_medians_stand_in_for_repetitions_that_were_left_out(self):
        entries = [aggregate("median", dense(100)), aggregate("mean", dense(1)), aggregate("median", sparse("k", 50, 40))]
        self.assertEqual(self.lines(self.run_script(self.write(entries)).stdout, "k")[0][3], "2.50x")

    def test_units_of_time(self):
        nanoseconds = {**sparse("k", 50, 40), "cpu_time": 40000, "time_unit": "ns"}
        output = self.run_script(self.write([dense(100), nanoseconds])).stdout
        self.assertEqual(self.lines(output, "k")[0][3], "2.50x")

    def break_even(self, *points):
        output = self.run_script(self.write([dense(100)] + [sparse("k", s, 100 / v) for s, v in points])).stdout
        line = [row for row in self.lines(output, "k") if row[1] == "break-even"]
        return " ".join(line[0][2:])

    def test_break_even_lies_on_the_straight_line_between_two_measurements(self):
        self.assertEqual(self.break_even((0, 0.8), (30, 1.4), (50, 2)), "10.0 %")
        self.assertEqual(self.break_even((30, 0.5), (50, 1.5), (90, 8)), "40.0 %")

    def test_break_even_is_the_last_crossing(self):
        self.assertEqual(self.break_even((0, 1.2), (30, 0.8), (50, 1.2), (90, 4)), "40.0 %")

    def test_break_even_outside_of_what_was_measured(self):
        self.assertEqual(self.break_even((50, 0.4), (90, 0.9)), "not reached")
        self.assertEqual(self.break_even((50, 1.5), (90, 5)), "at or below 50.0 %")

    def test_summary_has_the_median_and_the_smallest_over_shapes(self):
        entries = []
        for shape, speedup in (("64x32", 4), ("32x64", 6), ("128x128", 3.5)):
            entries += [dense(100, shape=shape), sparse("k", 80, 100 / speedup, shape=shape)]
        summary = self.lines(self.run_script(self.write(entries)).stdout, "k")[-1]
        self.assertEqual(summary[1:3], ["4.00x", "(3.50)"])

    def test_every_case_has_its_own_dense_side_and_peak(self):
        entries = [dense(100), sparse("k", 50, 40), dense(400, case="f32"), sparse("q", 50, 50, case="f32")]
        output = self.run_script(self.write(entries)).stdout
        self.assertEqual(self.lines(output, "k")[0][3:5], ["2.50x", "125%"])
        self.assertEqual(self.lines(output, "q")[0][3:5], ["8.00x", "400%"])
        self.assertEqual(self.lines(output, "q")[0][7], "400%")  # of 400 us, not of 100 us
        output = self.run_script(self.write(entries), "--peak", "u8s8=1", "--peak", "f32=10").stdout
        self.assertEqual(self.lines(output, "q")[0][7], f"{0.5 * WORK / 50e-6 / 10:.0%}")

    def test_files_are_never_compared_with_each_other(self):
        fast = self.write([dense(50), sparse("k", 50, 25)], "fast.json")
        slow = self.write([dense(100), sparse("k", 50, 25)], "slow.json")
        rows = self.lines(self.run_script(fast, slow).stdout, "k")
        self.assertEqual([row[3] for row in rows if row[1] == "50%"], ["2.00x", "4.00x"])

    def test_other_benchmarks_are_left_out(self):
        entries = [result("attention_f32/heads:12/q:1", 3), dense(100), sparse("k", 50, 50)]
        self.assertNotIn("attention", self.run_script(self.write(entries)).stdout)


class Svg(SparseCurveTest):
    def draw(self):
        entries = [dense(100)] + [sparse("k", s, 100 / v) for s, v in ((0, 0.5), (50, 1.5), (90, 6))]
        entries += [sparse("slow", s, 250) for s in (0, 50, 90)]
        path = self.dir / "a<b>&.svg"
        self.run_script(self.write(entries, "a<b>&.json"), "--svg", path)
        return ElementTree.parse(path).getroot()  # raises where it is not well-formed

    def test_one_curve_a_kernel_the_ideal_a_legend_and_break_even(self):
        root = self.draw()
        self.assertEqual(root.tag, SVG + "svg")
        kinds = [e.get("class") for e in root.iter(SVG + "polyline")]
        self.assertEqual((kinds.count("kernel"), kinds.count("ideal")), (2, 1))
        words = " ".join(e.text for e in root.iter(SVG + "text"))
        for word in ("k (even at 25 %)", "slow (never faster)", "1/(1-s)", "a<b>&", "1x"):
            self.assertIn(word, words)

    def test_marks_are_where_the_curves_are(self):
        root = self.draw()
        curve = [e for e in root.iter(SVG + "polyline") if e.get("class") == "kernel"][0]
        (x0, y0), (x50, y50), (x90, y90) = [map(float, p.split(",")) for p in curve.get("points").split()]
        marks = [e for e in root.iter(SVG + "circle") if e.get("class") == "break-even"]
        self.assertEqual(len(marks), 1)
        self.assertAlmostEqual(float(marks[0].get("cx")), (x0 + x50) / 2, delta=0.2)
        self.assertAlmostEqual((x90 - x0) / (x50 - x0), 1.8, delta=0.01)
        self.assertLess(y90, y50)  # faster is higher
        # 0.5x and 6x are 3.585 powers of two apart, 0.5x and 1x one.
        self.assertAlmostEqual((y0 - y90) / (y0 - float(marks[0].get("cy"))), 3.585, delta=0.02)


class Messages(SparseCurveTest):
    def test_broken_files(self):
        whole = json.dumps({"benchmarks": [dense(100), sparse("k", 50, 50)]})
        self.fails(whole[: len(whole) // 2], "not JSON", ":1:")
        self.fails("", "not JSON")
        self.fails("[]", '"benchmarks"', "got list")
        self.fails('{"context": {}}', '"benchmarks"', "context")
        self.fails([3], "benchmarks[0]", "got int")
        self.assertIn("cannot be read", self.run_script(self.dir / "none.json", code=1).stderr)

    def test_missing_results(self):
        self.fails([], "no result of a sparse product")
        self.fails([dense(100)], "no result of a sparse product")
        self.fails([sparse("k", 50, 50)], "u8s8/onednn/64x32/m16 is missing")
        self.fails([dense(100, shape="32x64"), sparse("k", 50, 50)], "u8s8/onednn/64x32/m16 is missing")

    def test_wrong_fields_are_named(self):
        for field, value in (("cpu_time", 0), ("cpu_time", "7"), ("cpu_time", None), ("dense", -1), ("real", True),
                             ("time_unit", "min")):
            with self.subTest(field=field, value=value):
                self.fails([dense(100), {**sparse("k", 50, 50), field: value}], "benchmarks[1]", "/s50", field, repr(value))
        self.fails([dense(100), {**sparse("k", 50, 50), "error_occurred": True, "error_message": "no memory"}], "no memory")
        self.fails([dense(100), sparse("k", 100, 50)], "/s100", "0 to 99")
        self.fails([result("u8s8/onednn/64x32/m16/s50", 5)], "expected CASE/onednn")

    def test_bad_options(self):
        good = self.write([dense(100), sparse("k", 50, 50)])
        self.run_script(code=2)
        for peak in ("fast", "0", "u8s8=", "-3"):
            self.run_script(good, f"--peak={peak}", code=2)
        self.assertIn("cannot be written", self.run_script(good, "--svg", self.dir / "no" / "x.svg", code=1).stderr)


if __name__ == "__main__":
    SCRIPT = os.path.abspath(sys.argv.pop(1))
    unittest.main()
