#!/usr/bin/env python3
"""Which part of an embedding's error pruning causes: in what all sentences share, or in what tells them apart.

  bench/e2e/centred_error.py SPRUN SHARED [--minilm FOLDER] [--only use-lite] [--patterns 4x1:0.5,4x1:0.7] [--every 8]

For each pattern and method: the relative error of the embeddings E as they are, of the same with the mean over all
sentences taken off (centred), the mean similarity of two sentences, and the correlation of the similarities of all pairs
with those of the original. Nearest neighbours depend on the last two only. Files and data are those of compress_quality.py.
"""
import argparse
import pathlib
import subprocess
import tempfile

import numpy as np

from quality_tasks import TASKS, session


def embeddings(task, path):
    return task.embed(session(path), task.train[0] + task.dev[0]).astype(np.float64)


def similarities(e):
    return (e @ e.T)[np.triu_indices(len(e), 1)]


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def describe(name, e, original):
    centred = relative(e - e.mean(axis=0), original - original.mean(axis=0))
    own, want = similarities(e), similarities(original)
    print(f"{name:28} error {relative(e, original):.3f}  centred {centred:.3f}  mean similarity {own.mean():.3f}  "
          f"correlation {np.corrcoef(own, want)[0, 1]:.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sprun")
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--minilm", type=pathlib.Path)
    parser.add_argument("--only", default="use-lite")
    parser.add_argument("--patterns", default="4x1:0.5,4x1:0.7")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--every", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        args.folder = pathlib.Path(name)
        for task in (TASKS[only](args) for only in args.only.split(",")):
            data, out = args.folder / "calibration.npz", args.folder / "pruned.onnx"
            np.savez(data, **task.calibration)
            original = embeddings(task, task.model)
            print(f"{task.name}: {len(original)} sentences")
            describe("original", original, original)
            for pattern in args.patterns.split(","):
                for method in ("magnitude", "wanda", "sparsegpt"):
                    command = [args.sprun, "compress", task.model, "-o", out, "--prune", f"{pattern}@{method}", "--calibration", data,
                               "--samples", task.samples, "--no-measure"]
                    subprocess.run(list(map(str, command)), check=True, capture_output=True)
                    describe(f"{pattern}@{method}", embeddings(task, out), original)


if __name__ == "__main__":
    main()
