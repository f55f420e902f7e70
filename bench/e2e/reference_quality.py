#!/usr/bin/env python3
"""Do real models reach their reference quality in sprun? The same data through sprun and ONNX Runtime.

  bench/e2e/reference_quality.py SPRUN SHARED [--minilm FOLDER] [--only use-lite,stories,ppocr] [--precision f32|bf16|int8]

Banking77 and sentiment (use-lite in float and int8, MiniLM), nats per token on all sampled stories, character errors of
the line recogniser. A line per score, in a table; exit 1 if sprun is worse than ONNX Runtime by more than 0.2 % points
(0.001 nats). The tasks are those of quality_tasks.py. Needs numpy, onnx, onnxruntime and, for MiniLM, tokenizers.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from quality_tasks import TASKS, session

# What the descriptions of the models say.
REFERENCES = {("use-lite", "1-NN %"): 85.5, ("use-lite", "sentiment %"): 87.3, ("use-lite int8", "1-NN %"): 85.3,
              ("use-lite int8", "sentiment %"): 87.5, ("stories260k", "nats/token"): 1.0663,
              ("ppocrv4-rec", "character errors %"): 1.31, ("ppocrv4-rec", "exact lines"): 116}
# Unit: how much worse than ONNX Runtime counts, and whether less is better.
UNITS = {"1-NN %": (0.2, False), "sentiment %": (0.2, False), "nats/token": (0.001, True),
         "character errors %": (0.2, True), "exact lines": (1, False)}


class Sprun:
    """`sprun run` with the interface of an ONNX Runtime session, as far as the tasks need it."""

    def __init__(self, command, path, precision, folder):
        self.folder = folder
        self.command = [command, "run", str(path), "-i", str(folder / "in.npz"), "-o", str(folder / "out.npz"),
                        "--precision", precision, "--warmup", "0", "--iterations", "1"]

    def run(self, names, feed):
        np.savez(self.folder / "in.npz", **feed)
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(self.command)}: {done.stderr[-300:]}")
        with np.load(self.folder / "out.npz") as out:
            return [out[name] for name in names or out.files]


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


class Lines:
    """PP-OCRv4's recogniser on rendered lines of text, greedy CTC."""
    name, units = "ppocrv4-rec", ["character errors %", "exact lines"]

    def __init__(self, args):
        folder = args.shared / "models/ppocrv4-rec"
        self.model = folder / "model.onnx"
        keys = (folder / "ppocr_keys_v1.txt").read_text(encoding="utf-8").split("\n")
        self.letters = [""] + keys[:6623] + [" "]
        labels = (folder / "lines/labels.tsv").read_text(encoding="utf-8").splitlines()
        self.lines = [(self.read_pgm(folder / "lines" / name), text) for name, text in (s.split("\t", 1) for s in labels)]

    @staticmethod
    def read_pgm(path):
        data = path.read_bytes()
        fields = data.split(maxsplit=4)
        assert fields[0] == b"P5" and fields[3] == b"255", f"{path}: expected a grey PGM file"
        width, height = int(fields[1]), int(fields[2])
        return np.frombuffer(data[-width * height:], np.uint8).reshape(height, width)

    def scores(self, path, engine=session):
        run, errors, exact = engine(path), 0, 0
        for pixels, text in self.lines:
            x = np.repeat(((pixels / 255 - 0.5) / 0.5).astype(np.float32)[None, None], 3, axis=1)
            best = run.run(None, {"x": x})[0][0].argmax(axis=1)
            kept = [i for n, i in enumerate(best) if i != 0 and (n == 0 or best[n - 1] != i)]
            distance = edit_distance("".join(self.letters[i] for i in kept), text)
            errors, exact = errors + distance, exact + (distance == 0)
        return [100 * errors / sum(len(text) for _, text in self.lines), exact]


class WholeStories(TASKS["stories"]):
    """All sampled stories judge."""

    def __init__(self, args):
        super().__init__(args)
        self.held_out = self.stories


class UseLiteInt8(TASKS["use-lite"]):
    name = "use-lite int8"

    def __init__(self, args):
        super().__init__(args)
        self.model = self.model.with_name("model_int8_dynamic.onnx")


CHECKS = {"use-lite": TASKS["use-lite"], "use-lite-int8": UseLiteInt8, "stories": WholeStories, "ppocr": Lines,
          "minilm": TASKS["minilm"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sprun")
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--minilm", type=pathlib.Path, help="folder with model.onnx (tools/convert_minilm.py) and tokenizer.json")
    parser.add_argument("--only", default=",".join(CHECKS))
    parser.add_argument("--precision", default="f32")
    args = parser.parse_args()
    args.samples, args.every, worse = 16, 1, 0
    print("| model | score | reference | ONNX Runtime | sprun |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.only.split(","):
            try:
                task = CHECKS[name](args)
            except FileNotFoundError as error:
                print(f"{name} left out: {error}", file=sys.stderr)
                continue
            theirs = task.scores(task.model)
            ours = task.scores(task.model, lambda path: Sprun(args.sprun, path, args.precision, pathlib.Path(temporary)))
            for unit, their, our in zip(task.units, theirs, ours):
                slack, less_is_better = UNITS[unit]
                worse += (our - their if less_is_better else their - our) > slack
                print(f"| {task.name} | {unit} | {REFERENCES.get((task.name, unit), '')} | {their:.5g} | {our:.5g} |", flush=True)
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
