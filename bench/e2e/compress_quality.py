#!/usr/bin/env python3
"""What compression costs on real models: one table of recipes, with data that no method has seen.

  bench/e2e/compress_quality.py SPRUN SHARED [--recipes FILE] [--only use-lite|stories] [--samples N] [--keep FOLDER]

use-lite: sentence embeddings of Banking77; calibrated on sentences of train.csv, judged by 1-nearest-neighbour accuracy
of dev.csv over train.csv. stories260k: calibrated on the first half of its sampled stories, judged by nats per token on
the second half. Compressed files run in ONNX Runtime. Needs numpy and onnxruntime.

A recipe is a line of options of `sprun compress`; '#' starts a comment. Results go to standard output as a table.
"""
import argparse
import csv
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile
import unicodedata

import numpy as np
import onnxruntime as ort

RECIPES = [f"--prune {p}@{m}" for p in ("unstructured:0.5", "2:4", "4x1:0.5", "4x1:0.7", "16x4:0.5", "16x4:0.7")
           for m in ("magnitude", "wanda", "sparsegpt")]
RECIPES += ["--quantize int8", "--quantize int8:static", "--prune 4x1:0.5 --quantize int8", "--prune 4x1:0.5 --quantize int8:static"]


class Unigram:
    """The most likely split of a text into scored pieces; unknown characters are id 0."""

    def __init__(self, path):
        pieces = json.loads(path.read_text())
        self.scores = {piece: (score, i) for i, (piece, score) in enumerate(pieces)}
        self.longest = max(map(len, self.scores))

    def ids(self, text):
        text = "\u2581" + unicodedata.normalize("NFKC", text).replace(" ", "\u2581")
        best = [(0.0, -1, -1)] + [(-1e30, -1, -1)] * len(text)
        for end in range(1, len(text) + 1):
            for start in range(max(0, end - self.longest), end):
                score, piece = self.scores.get(text[start:end], (-100.0, 0) if end - start == 1 else (None, 0))
                if score is not None and best[start][0] + score > best[end][0]:
                    best[end] = (best[start][0] + score, start, piece)
        out, at = [], len(text)
        while at > 0:
            _, start, piece = best[at]
            if not (piece == 0 and out and out[-1] == 0):
                out.append(piece)
            at = start
        return out[::-1]


def padded(rows, length=None):
    length = length or max(map(len, rows))
    ids = np.zeros((len(rows), length), np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, :len(row)], mask[i, :len(row)] = row[:length], 1
    return ids, mask


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class UseLite:
    name, unit = "use-lite", "1-NN %"

    def __init__(self, shared, samples):
        self.model = shared / "models/use-lite/model.onnx"
        tokens = Unigram(self.model.parent / "vocab.json")
        data = {}
        for part in ("train", "dev"):
            with open(shared / f"data/banking77/{part}.csv", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            data[part] = [tokens.ids(r["text"])[:128] for r in rows], np.array([r["category"] for r in rows])
        self.train, self.dev = data["train"], data["dev"]
        picked = np.random.default_rng(0).permutation(len(self.train[0]))[:samples * 8 // 7 + 1]
        ids, mask = padded([self.train[0][i] for i in picked], 64)
        self.calibration = {"input_ids": ids, "attention_mask": mask}

    def embed(self, run, rows):
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        out = np.zeros((len(rows), 512), np.float32)
        for first in range(0, len(rows), 64):
            part = order[first:first + 64]
            ids, mask = padded([rows[i] for i in part])
            out[part] = run.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return out

    def score(self, path):
        run = session(path)
        train, dev = self.embed(run, self.train[0]), self.embed(run, self.dev[0])
        nearest = (dev @ train.T).argmax(axis=1)
        return 100 * float(np.mean(self.train[1][nearest] == self.dev[1]))


class Stories:
    name, unit = "stories260k", "nats/token"

    def __init__(self, shared, samples):
        self.model = shared / "models/stories260k/model_no_cache.onnx"
        lines = (shared / "models/stories260k/dense_samples.ids.txt").read_text().splitlines()
        stories = [list(map(int, line.split())) for line in lines if line.strip()]
        half = len(stories) // 2
        self.held_out = stories[half:]
        ids, mask = padded(stories[:half][:samples])
        self.calibration = {"input_ids": ids, "attention_mask": mask, "position_ids": self.positions(ids)}

    @staticmethod
    def positions(ids):
        return np.ascontiguousarray(np.broadcast_to(np.arange(ids.shape[1]), ids.shape))

    def score(self, path):
        run = session(path)
        total = count = 0
        for story in self.held_out:
            ids, mask = padded([story])
            logits = run.run(None, {"input_ids": ids, "attention_mask": mask, "position_ids": self.positions(ids)})[0][0]
            logits = logits.astype(np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            total -= logp[np.arange(len(story) - 1), story[1:]].sum()
            count += len(story) - 1
        return total / count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sprun")
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--recipes", type=pathlib.Path)
    parser.add_argument("--only")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--keep", type=pathlib.Path)
    args = parser.parse_args()
    recipes = RECIPES
    if args.recipes:
        lines = (line.split("#")[0].strip() for line in args.recipes.read_text().splitlines())
        recipes = [line for line in lines if line]
    tasks = [make(args.shared, args.samples) for make in (UseLite, Stories) if args.only in (None, make.name, make.name[:7])]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print("| recipe | " + " | ".join(f"{t.name} {t.unit} | out. error" for t in tasks) + " |")
        print("|---" * (1 + 2 * len(tasks)) + "|")
        print("| original | " + " | ".join(f"{t.score(t.model):.4g} | 0" for t in tasks) + " |", flush=True)
        for task in tasks:
            np.savez(folder / f"{task.name}.npz", **task.calibration)
        for number, recipe in enumerate(recipes):
            cells = []
            for task in tasks:
                out = folder / f"{task.name}-{number}.onnx"
                command = [args.sprun, "compress", task.model, "-o", out, *shlex.split(recipe), "--calibration",
                           folder / f"{task.name}.npz", "--samples", args.samples, "--no-measure", "--json", "-"]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    sys.exit(f"{recipe}: {done.stderr}")
                report = json.loads(done.stdout)
                cells.append(f"{task.score(out):.4g} | {report['outputs'][0]['relative_error']:.4f}")
            print(f"| `{recipe}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
