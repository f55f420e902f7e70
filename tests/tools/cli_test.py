#!/usr/bin/env python3
"""Tests of the sprun command as a user sees it: help, output files, JSON, every exit code.

    cli_test.py SPRUN_BINARY
"""
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import onnx_models as models  # noqa: E402

SPRUN = ""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class CommandTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.dir = pathlib.Path(cls.folder.name)
        cls.bert = cls.write("bert.onnx", models.tiny_bert())

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def write(cls, name, data):
        path = cls.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    def sprun(self, *args, code=0, file_limit=None):
        """Runs the command, checks its exit code and that errors go to standard error only. file_limit: bytes that a file may have."""
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))) if file_limit else None
        done = subprocess.run([SPRUN, *map(str, args)], capture_output=True, text=True, timeout=120, preexec_fn=limit)
        self.assertEqual(done.returncode, code, f"sprun {args}\n{done.stdout}\n{done.stderr}")
        if code not in (0, 5):
            self.assertEqual(done.stdout, "", args)
            self.assertTrue(done.stderr.startswith("sprun: "), done.stderr)
        return done

    def bert_run(self, *args, code=0):
        return self.sprun("run", self.bert, "--dim", "sequence_length=8", "--iterations", "1", *args, code=code)


class Help(CommandTest):
    def test_every_command_has_help_with_the_exit_codes(self):
        top = self.sprun("--help").stdout
        commands = re.findall(r"^  ([a-z]+)  +[A-Z]", top, re.MULTILINE)
        self.assertIn("run", commands)
        self.assertGreaterEqual(len(commands), 7)
        for command in commands:
            text = self.sprun(command, "--help").stdout
            self.assertIn("Exit codes:", text)
            for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "8 ", "130 "):
                self.assertIn(f"\n  {code}", text)

    def test_version(self):
        self.assertRegex(self.sprun("--version").stdout, r"^sprun \d+\.\d+\.\d+$")


class Run(CommandTest):
    def test_run_is_the_default_command(self):
        for args in ([self.bert, "--dim", "sequence_length=8"], ["--iterations", "1", "--dim", "sequence_length=8", self.bert]):
            self.assertIn("sentence_embedding", self.sprun(*args).stdout)

    def test_json_has_exactly_the_documented_keys(self):
        figures = json.loads(self.bert_run("--json", "-").stdout)
        self.assertEqual(list(figures), ["model", "precision", "isa", "threads", "load_ms", "first_ms", "latency_ms",
                                         "iterations", "peak_rss_bytes", "arena_bytes", "weight_bytes", "outputs"])
        self.assertEqual(list(figures["latency_ms"]), ["min", "p50", "p90", "p99", "mean"])
        self.assertEqual(figures["outputs"][1], {"name": "sentence_embedding", "dtype": "float32", "shape": [1, 16]})
        self.assertEqual(figures["iterations"], 1)
        self.assertGreater(figures["weight_bytes"], 0)

    def test_outputs_can_be_saved_and_compared_with(self):
        for target in ("out", "out.npz"):
            target = str(self.dir / target)
            self.bert_run("-o", target)
            self.bert_run("--compare", target, "--rtol", "0", "--atol", "1e-7")
            self.bert_run("--compare", target, "--metric", "cosine")
        other = self.bert_run("--compare", target, "--seed", "5", code=5)
        self.assertIn("worst at [", other.stderr)
        self.assertIn("MISMATCH", other.stdout)

    def test_inputs_from_files(self):
        ids = self.write("ids.npy", models.npy([1, 2, 3], [1, 3], "<i8"))
        figures = json.loads(self.sprun("run", self.bert, "-i", f"input_ids={ids}", "--json", "-").stdout)
        self.assertEqual(figures["outputs"][0]["shape"], [1, 3, 16])

    def test_same_seed_same_outputs_on_any_number_of_threads(self):
        a, b = str(self.dir / "t1.npz"), str(self.dir / "t2.npz")
        self.bert_run("--threads", "1", "-o", a)
        self.bert_run("--threads", "2", "-o", b)
        first = pathlib.Path(a).read_bytes()
        self.assertEqual(first, pathlib.Path(b).read_bytes())
        self.assertEqual(first[10:14], bytes([0, 0, 0x21, 0]))  # no time of writing inside

    def test_loop_answers_commands(self):
        done = subprocess.run([SPRUN, "run", self.bert, "--dim", "sequence_length=4", "--loop"], input="run 3\nmemory\n",
                              capture_output=True, text=True, timeout=60)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertIn("load_ms", lines[0])
        self.assertEqual(len(lines[1]["latency_ms"]), 3)
        self.assertIn("peak_rss_bytes", lines[2])


class OtherCommands(CommandTest):
    def test_bench_multiplies_lists(self):
        args = ["bench", self.bert, "--dim", "batch_size=1,2,sequence_length=4..8*2", "--threads", "1,2", "--iterations", "2"]
        rows = self.sprun(*args, "--format", "csv").stdout.splitlines()
        self.assertEqual(len(rows), 1 + 2 * 2 * 2)
        self.assertTrue(rows[0].startswith("precision,batch_size,sequence_length,threads,p50_ms"))
        self.assertEqual(len(json.loads(self.sprun(*args, "--format", "json").stdout)["results"]), 8)
        self.assertTrue(self.sprun(*args, "--format", "md").stdout.startswith("| precision | batch_size |"))

    def test_profile_lists_steps_and_writes_a_trace(self):
        trace = self.dir / "trace.json"
        figures = json.loads(self.sprun("profile", self.bert, "--dim", "sequence_length=8", "--iterations", "2",
                                        "--trace", trace, "--json", "-").stdout)
        self.assertGreater(len(figures["steps"]), 3)
        self.assertGreater(figures["peak"]["f32_gflops"], 0)
        self.assertEqual(len(json.loads(trace.read_text())["traceEvents"]), len(figures["steps"]))
        self.assertIn("MatMul", self.sprun("inspect", self.bert).stdout)

    def test_generate_profile_has_both_phases_and_changes_no_token(self):
        model = pathlib.Path(__file__).resolve().parents[2] / "tools/bytelm/spark/model.onnx"
        args = ["generate", model, "--tokens", "84,104,101,32", "--max-new-tokens", "6", "--threads", "1"]
        plain = json.loads(self.sprun(*args, "--json", "-").stdout)
        self.assertNotIn("profile", plain)
        figures = json.loads(self.sprun(*args, "--profile", "--json", "-").stdout)
        self.assertEqual(figures["tokens"], plain["tokens"])
        for phase, tokens, runs in (("prefill", 4, 1), ("decode", 5, 5)):
            part = figures["profile"][phase]
            self.assertEqual((part["tokens"], part["runs"]), (tokens, runs))
            self.assertAlmostEqual(sum(step["us"] for step in part["steps"]), part["us_per_token"], delta=0.1)
            self.assertAlmostEqual(sum(step["share"] for step in part["steps"]), 1, places=3)
            self.assertTrue(part["ffn_density"])
            self.assertTrue(all(0 < layer["measured"] < 1 for layer in part["ffn_density"] if layer["rows"]))
        done = self.sprun(*args, "--profile", "--by-op", "--top", "2")
        self.assertEqual(done.stdout, self.sprun(*args).stdout)
        for part in ("prefill: 4 tokens in 1 runs", "decode: 5 tokens in 5 runs", "us/token"):
            self.assertIn(part, done.stderr)
        for bad in (["--by-op"], ["--top", "3"], ["--profile", "--explain"]):
            with self.subTest(bad=bad):
                self.assertIn("--profile", self.sprun(*args, *bad, code=2).stderr)

    def test_inspect_works_on_models_that_cannot_run(self):
        path = self.write("unknown.onnx", models.graph(
            [models.node("Frobnicate", ["x"], "h"), models.node("Wibble", ["h"], "y", "some.domain")],
            [models.value("x", [2])], [models.value("y", [2])]))
        report = json.loads(self.sprun("inspect", path, "--json", "-").stdout)
        self.assertEqual([u["op"] for u in report["unsupported"]], ["Frobnicate", "Wibble"])
        message = self.sprun("run", path, code=3).stderr
        self.assertIn("Frobnicate", message)
        self.assertIn("Wibble", message)

    def test_explain_and_devices(self):
        self.assertIn("steps", json.loads(self.sprun("devices", "--no-peak", "--json", "-").stdout) | {"steps": 1})
        self.assertTrue(self.sprun("explain", self.bert, "--dim", "sequence_length=8").stdout)

    def test_verify_counts_verdicts(self):
        case = self.dir / "cases" / "good"
        self.write("cases/good/model.onnx", models.graph([models.node("Relu", ["x"], "y")], [models.value("x", [2])],
                                                         [models.value("y", [2])]))
        self.write("cases/good/test_data_set_0/input_0.pb", models.onnx.tensor_proto("x", 1, [2], b"\0\0\x80\xbf\0\0\x80\x3f"))
        self.write("cases/good/test_data_set_0/output_0.pb", models.onnx.tensor_proto("y", 1, [2], b"\0\0\0\0\0\0\x80\x3f"))
        self.assertIn("1 pass, 0 fail", self.sprun("verify", case).stdout)
        self.write("cases/bad/model.onnx", (case / "model.onnx").read_bytes())
        self.write("cases/bad/test_data_set_0/input_0.pb", (case / "test_data_set_0/input_0.pb").read_bytes())
        self.write("cases/bad/test_data_set_0/output_0.pb", models.onnx.tensor_proto("y", 1, [2], bytes(8)))
        for extra in ([], ["--isolate"]):
            done = self.sprun("verify", self.dir / "cases", "--json", self.dir / "verdicts.json", *extra, code=5)
            self.assertIn("1 pass, 1 fail", done.stdout)
            self.assertEqual(json.loads((self.dir / "verdicts.json").read_text())["totals"]["fail"], 1)


class Compress(CommandTest):
    def data(self, samples=9, length=6):
        """A folder with input_ids.npy: masks and token types are made by the command."""
        rng = random.Random(3)
        ids = models.npy([rng.randrange(50) for _ in range(samples * length)], [samples, length], "<i8")
        return pathlib.Path(self.write(f"calibration{samples}x{length}/input_ids.npy", ids)).parent

    def compress(self, *args, code=0, out="small.onnx"):
        return self.sprun("compress", self.bert, "-o", self.dir / out, "--no-measure", *args, code=code)

    def test_prunes_reports_and_leaves_the_original_alone(self):
        before = pathlib.Path(self.bert).read_bytes()
        done = self.sprun("compress", self.bert, "-o", self.dir / "small.onnx", "--calibration", self.data(), "--prune", "4x1:0.5",
                          "--quantize", "*intermediate*=int8", "--json", self.dir / "r.json", "--html", self.dir / "r.html")
        self.assertIn("4x1:0.5@sparsegpt", done.stdout)
        report = json.loads((self.dir / "r.json").read_text())
        self.assertEqual(report["samples"], 8)
        self.assertEqual(report["held_out_samples"], 1)
        for layer in report["layers"]:
            self.assertAlmostEqual(layer["after"]["zeros"] / layer["after"]["parameters"], 0.5, delta=0.05)
            self.assertLess(layer["relative_error"], 1)
        self.assertGreater(report["latency"]["before_ms"], 0)
        self.assertTrue((self.dir / "r.html").read_text().startswith("<!doctype html>"))
        self.assertEqual(pathlib.Path(self.bert).read_bytes(), before)
        self.sprun("run", self.dir / "small.onnx", "--dim", "sequence_length=8", "--iterations", "1")
        self.assertIn("50.0%", self.sprun("inspect", self.dir / "small.onnx").stdout)

    def test_nothing_asked_for_gives_the_same_outputs(self):
        self.compress("--prune", "16x4:0@magnitude")
        self.bert_run("-o", self.dir / "want.npz")
        self.sprun("run", self.dir / "small.onnx", "--dim", "sequence_length=8", "--iterations", "1", "--compare",
                   self.dir / "want.npz", "--rtol", "0", "--atol", "0")

    def test_a_recipe_file_means_the_same_as_options(self):
        recipe = self.write("recipe.json", b'{"steps": [{"prune": "2:4@wanda", "layers": "*query*"}, {"prune": '
                            b'"unstructured:0.5@magnitude", "layers": "*output*"}], "skip": ["*attention.output*"]}')
        self.compress("--calibration", self.data(), "--recipe", recipe, out="a.onnx")
        self.compress("--calibration", self.data(), "--prune", "*query*=2:4@wanda", "--prune",
                      "*output*=unstructured:0.5@magnitude", "--skip", "*attention.output*", out="b.onnx")
        self.assertEqual((self.dir / "a.onnx").read_bytes(), (self.dir / "b.onnx").read_bytes())

    def test_scan_and_target_speedup(self):
        data = self.data()
        report = json.loads(self.sprun("compress", self.bert, "--scan", "--pattern", "4x1", "--calibration", data, "--skip",
                                       "*query*", "--json", "-").stdout)
        self.assertEqual(len(report["layers"]), 5)
        self.assertEqual([level["sparsity"] for level in report["layers"][0]["levels"]], [0.5, 0.75, 0.9])
        self.compress("--target-speedup", "1", "--calibration", data)
        self.compress("--target-speedup", "900", "--calibration", data, code=4, out="never.onnx")
        for args in (["--scan", "--pattern", "16x4"], ["--scan", "--pattern", "16x4:0.5"], ["--scan", "--pattern", "4x1@luck"],
                     ["--prune", "2:4@magnitude"]):
            self.sprun("compress", self.bert, *args, code=2)

    def test_calibration_with_text(self):
        text = self.write("calibration.txt", b"!#$%&()*+,-./01\n\n0011 , 11\n" + b"#%$ " * 20)
        done = self.compress("--calibration", text, "--tokenizer", "bytes", "--length", "32", "--prune", "2:4", "--json",
                             self.dir / "t.json")
        report = json.loads((self.dir / "t.json").read_text())
        self.assertEqual((report["samples"], report["held_out_samples"]), (4, 1))  # the last line is cut in three
        self.compress("--calibration", text, "--prune", "2:4", code=4, out="never.onnx")  # no tokenizer beside the model
        self.assertIn("rows to learn from", done.stdout)

    def test_random_data_only_with_a_warning(self):
        done = self.compress("--calibration", "random", "--samples", "4", "--dim", "sequence_length=8", "--prune", "2:4")
        self.assertIn("warning: random", done.stderr)

    def test_mistakes(self):
        wrong_name = pathlib.Path(self.write("c1/ids.npy", models.npy([1] * 4, [2, 2], "<i8"))).parent
        wrong_type = pathlib.Path(self.write("c2/input_ids.npy", models.npy([1] * 4, [2, 2], "<f4"))).parent
        wrong_rank = pathlib.Path(self.write("c3/input_ids.npy", models.npy([1] * 4, [4], "<i8"))).parent
        too_large = pathlib.Path(self.write("c4/input_ids.npy", models.npy([50] * 4, [2, 2], "<i8"))).parent
        too_long = self.data(2, 40)
        recipe = self.write("bad.json", b'{"steps": [{"prune": "2:4", "layer": "x"}]}')
        for args, code in ((["--prune", "4x1:1.0@magnitude"], 2), (["--prune", "4x1:-1@magnitude"], 2),
                           (["--prune", "diagonal:0.5"], 2), (["--prune", "4x1:0.5@luck"], 2), (["--prune", "4x1:0.5"], 2),
                           (["--prune", "nobody=4x1:0.5@magnitude"], 2), (["--skip", "nobody", "--prune", "2:4@magnitude"], 2),
                           (["--quantize", "int4"], 2), (["--quantize", "int8:smooth2"], 2), (["--quantize", "int8:residual0.02"], 2),
                           (["--recipe", recipe], 2), (["--recipe", "no_such_file"], 4),
                           (["--calibration", "no_such_file.npz"], 4), (["--calibration", wrong_name, "--prune", "2:4"], 4),
                           (["--calibration", wrong_type, "--prune", "2:4"], 4), (["--calibration", wrong_rank, "--prune", "2:4"], 4),
                           (["--calibration", too_large, "--prune", "2:4"], 4), (["--calibration", too_long, "--prune", "2:4"], 4)):
            with self.subTest(args=args):
                self.compress(*args, code=code, out="never.onnx")
                self.assertFalse(list(self.dir.glob("never.onnx*")))
        self.compress("--prune", "2:4@magnitude", out="no_such_folder/x.onnx", code=2)
        self.sprun("compress", self.bert, "-o", self.bert, "--prune", "2:4@magnitude", code=2)
        self.sprun("compress", self.write("broken.onnx", b"no model"), "-o", self.dir / "never.onnx", code=3)

    def test_no_room_for_the_result_leaves_nothing(self):
        before = pathlib.Path(self.bert).read_bytes()
        for limit in (1, 4096, len(before) - 1000):
            done = self.sprun("compress", self.bert, "-o", self.dir / "never.onnx", "--no-measure", "--prune", "2:4@magnitude", code=6,
                              file_limit=limit)
            self.assertIn("never.onnx", done.stderr)
            self.assertFalse(list(self.dir.glob("never.onnx*")))
        self.write("old.onnx", before)  # a result of before stays whole
        self.sprun("compress", self.bert, "-o", self.dir / "old.onnx", "--no-measure", "--prune", "2:4@magnitude", code=6,
                   file_limit=4096)
        self.assertEqual((self.dir / "old.onnx").read_bytes(), before)
        self.assertEqual(pathlib.Path(self.bert).read_bytes(), before)

    def test_reports_are_whole_or_not_there(self):
        quick = ["--prune", "2:4@magnitude"]
        old = pathlib.Path(self.write("old.json", b"of before"))
        scan = ["compress", self.bert, "--scan", "--pattern", "4x1@magnitude", "--calibration", self.data(), "--json"]
        done = self.sprun(*scan, old, code=6, file_limit=64)
        self.assertIn("old.json", done.stderr)
        self.assertEqual(old.read_bytes(), b"of before")
        self.sprun(*scan, old)
        self.assertIn("layers", json.loads(old.read_text()))
        for option in ("--json", "--html"):
            folder = self.dir / f"folder{option}"
            folder.mkdir()
            self.compress(*quick, option, folder, code=2)
            self.compress(*quick, option, self.dir / "no_such_folder/report", code=2)
            self.compress(*quick, option, "/dev/null")
        self.assertEqual([path.name for path in self.dir.rglob("*.tmp*")], [])

    def test_interrupted_leaves_nothing(self):
        for sign in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen([SPRUN, "compress", self.bert, "-o", str(self.dir / "never.onnx"), "--prune", "2:4",
                                        "--calibration", "random", "--samples", "200000", "--dim", "sequence_length=32"],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            time.sleep(1)
            process.send_signal(sign)
            process.communicate(timeout=20)
            self.assertEqual(process.returncode, 130)
            self.assertFalse(list(self.dir.glob("never.onnx*")))


class ExitCodes(CommandTest):
    def test_usage_2(self):
        for args in (["run"], ["run", self.bert, "--nonsense"], ["run", self.bert, "--fill", "twos"],
                     ["run", self.bert, "--dim", "nope=1"], ["run", self.bert, "--dim", "batch_size"],
                     ["run", self.bert, "--isa", "mmx"], ["run", self.bert, "--precision", "f8"],
                     ["run", self.bert, "--disable-pass", "no_such_pass"], ["run", self.bert, "--threads", "-1"],
                     ["run", self.bert, "--iterations", "0"], ["run", self.bert, "--rtol", "x"],
                     ["run", self.bert, "--rtol", "no_output=1"], ["run", self.bert, "--metric", "median"],
                     ["bench", self.bert, "--threads", "1.."], ["bench", self.bert, "--format", "xml"],
                     ["bench", self.bert, "--dim", "sequence_length=1..400,batch_size=1..400"],
                     ["verify"], ["--nonsense"], ["run", self.bert, "extra"]):
            with self.subTest(args=args):
                self.sprun(*args, code=2)

    def test_bad_model_3(self):
        good = pathlib.Path(self.bert).read_bytes()
        x, y = [models.value("x", [2])], [models.value("y", [2])]
        cases = {
            "empty": b"",
            "text": b"this is not a model\n" * 10,
            "truncated": good[: len(good) // 2],
            "cyclic": models.graph([models.node("Relu", ["y"], "h"), models.node("Relu", ["h"], "y")], x, y),
            "undefined": models.graph([models.node("Relu", ["nothing"], "y")], x, y),
            "missing data": models.graph([models.node("Add", ["x", "w"], "y")], x, y,
                                         models.external_tensor("w", [2], "not_there.bin")),
            "escaping path": models.graph([models.node("Add", ["x", "w"], "y")], x, y,
                                          models.external_tensor("w", [2], "../../../../etc/passwd")),
            "absolute path": models.graph([models.node("Add", ["x", "w"], "y")], x, y,
                                          models.external_tensor("w", [2], "/etc/passwd")),
            "wrong arity": models.graph([models.node("Relu", ["x", "x", "x"], "y")], x, y),
        }
        for name, data in cases.items():
            with self.subTest(name):
                self.sprun("run", self.write("broken.onnx", data), code=3)

    def test_damaged_models_never_crash(self):
        good = pathlib.Path(self.bert).read_bytes()
        rng = random.Random(7)
        for _ in range(60):
            data = bytearray(good)
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            if rng.random() < 0.3:
                data = data[: rng.randrange(len(data))]
            path = self.write("damaged.onnx", bytes(data))
            done = subprocess.run([SPRUN, "run", path, "--dim", "sequence_length=4", "--iterations", "1"],
                                  capture_output=True, timeout=60)
            self.assertIn(done.returncode, (0, 2, 3, 4, 6), done.stderr)

    def test_bad_input_4(self):
        def array(name, values, shape, descr):
            return f"input_ids={self.write(name, models.npy(values, shape, descr))}"

        for args in (["run", "no_such_file.onnx"],
                     ["run", self.bert, "-i", "input_ids=no_such_file.npy"],
                     ["run", self.bert, "-i", "no_such_folder"],
                     ["run", self.bert, "-i", f"other={self.write('a.npy', models.npy([1], [1, 1], '<i8'))}"],
                     ["run", self.bert, "-i", array("type.npy", [1], [1, 1], "<f4")],
                     ["run", self.bert, "-i", array("rank.npy", [1], [1], "<i8")],
                     ["run", self.bert, "-i", array("range.npy", [50], [1, 1], "<i8")],
                     ["run", self.bert, "-i", array("negative.npy", [-51], [1, 1], "<i8")],
                     ["run", self.bert, "-i", f"input_ids={self.write('b.npy', b'broken')}"],
                     ["run", self.bert, "-i", self.write("b.npz", b"broken")],
                     ["run", self.bert, "-i", array("c.npy", [1], [1, 1], "<i8"), "-i", array("c.npy", [1], [1, 1], "<i8")],
                     ["run", self.bert, "--dim", "sequence_length=8", "--compare", "no_such_folder"],
                     ["verify", "no_such_folder"], ["inspect", "no_such_file.onnx"]):
            with self.subTest(args=args):
                self.sprun(*args, code=4)

    def test_shapes_that_disagree_4(self):
        ids = self.write("ids.npy", models.npy([1, 2, 3], [1, 3], "<i8"))
        mask = self.write("mask.npy", models.npy([1, 1], [1, 2], "<i8"))
        self.sprun("run", self.bert, "-i", f"input_ids={ids}", "-i", f"attention_mask={mask}", code=4)

    def test_resource_limit_6(self):
        self.sprun("run", self.bert, "--dim", "batch_size=2000000000,sequence_length=2000000000", code=6)

    def test_deadline_7(self):
        self.bert_run("--deadline", "0.000001", code=7)

    def test_interrupt_130(self):
        process = subprocess.Popen([SPRUN, "run", self.bert, "--dim", "sequence_length=8", "--time", "60"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130)


if __name__ == "__main__":
    SPRUN = os.path.abspath(sys.argv.pop(1))
    unittest.main()
