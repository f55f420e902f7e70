#!/usr/bin/env python3
"""What compression costs on real models: one table of recipes, judged by data that no method has seen.

  bench/e2e/compress_quality.py SPRUN SHARED [--minilm FOLDER] [--recipes FILE] [--only use-lite,stories] [--samples N] [--every N]
                                [--results FILE.jsonl] [--keep FOLDER]

Models and scores are those of quality_tasks.py; compressed files run in ONNX Runtime. A recipe is a line of options of
`sprun compress`; '#' starts a comment. With --results every score is appended to the file as soon as it is there, and
those that are in it are not computed again. The table goes to standard output; a cell is the score and the relative
error of the output on held-out samples, or why sprun refuses.
"""
import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

import numpy as np

from quality_tasks import TASKS

RECIPES = [f"--prune {p}@{m}" for p in ("unstructured:0.5", "2:4", "4x1:0.5", "4x1:0.7", "16x4:0.5", "16x4:0.7")
           for m in ("magnitude", "wanda", "sparsegpt")]
RECIPES += ["--slice 0.1", "--slice 0.2", "--slice 0.25", "--slice 0.3", "--prune heads:0.25", "--prune ffn:0.25", "--quantize int8",
            "--quantize int8:static", "--quantize int8:smooth", "--quantize int8:static,smooth", "--quantize int8:residual0.02",
            "--quantize int8:residual", "--quantize int8:static,residual", "--slice 0.2 --quantize int8"]
ORIGINAL = "original"


class Results:
    """Scores by (task, recipe), kept in a file of JSON lines if there is one."""

    def __init__(self, path):
        self.path, self.known = path, {}
        if path and path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.known[entry["task"], entry["recipe"]] = entry

    def get(self, task, recipe, compute):
        if (task, recipe) not in self.known:
            entry = self.known[task, recipe] = {"task": task, "recipe": recipe, **compute()}
            if self.path:
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
        return self.known[task, recipe]


def compress_and_score(args, task, recipe, out):
    if recipe == ORIGINAL:
        return {"scores": task.scores(task.model), "error": 0}
    data = args.folder / f"{task.name}.npz"
    if not data.exists():
        np.savez(data, **task.calibration)
    command = [args.sprun, "compress", task.model, "-o", out, *shlex.split(recipe), "--calibration", data, "--samples", task.samples,
               "--no-measure", "--json", "-"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {"refused": done.stderr.strip().splitlines()[-1]}
    report = json.loads(done.stdout)
    result = {"scores": task.scores(out), "error": report["outputs"][0]["relative_error"]}
    if not args.keep:
        out.unlink()
    return result


def cells_of(entry, task):
    if "refused" in entry:
        return ["refused"] + [""] * len(task.units)
    return [f"{score:.4g}" for score in entry["scores"]] + [f"{entry['error']:.3f}"]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sprun")
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--minilm", type=pathlib.Path)
    parser.add_argument("--recipes", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--samples", type=int, default=1024, help="sentences; texts and stories have their own numbers")
    parser.add_argument("--every", type=int, default=1, help="judge by each Nth sentence, story or window")
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path)
    return parser.parse_args()


def main():
    args = parse()
    recipes = RECIPES
    if args.recipes:
        lines = (line.split("#")[0].strip() for line in args.recipes.read_text().splitlines())
        recipes = [line for line in lines if line]
    results = Results(args.results)
    with tempfile.TemporaryDirectory() as temporary:
        args.folder = args.keep or pathlib.Path(temporary)
        args.folder.mkdir(parents=True, exist_ok=True)
        tasks, table = [], {recipe: [] for recipe in [ORIGINAL, *recipes]}
        for name in args.only.split(","):
            try:
                tasks.append(TASKS[name](args))
            except FileNotFoundError as error:
                print(f"{name} left out: {error}", file=sys.stderr)
                continue
            for number, recipe in enumerate(table):
                out = args.folder / f"{name}-{number}.onnx"
                entry = results.get(name, recipe, lambda r=recipe, o=out: compress_and_score(args, tasks[-1], r, o))
                print(name, recipe, entry.get("scores", entry.get("refused")), file=sys.stderr, flush=True)
                table[recipe] += cells_of(entry, tasks[-1])
    columns = [title for t in tasks for title in [f"{t.name} {unit}" for unit in t.units] + ["error"]]
    print("| recipe | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for recipe, cells in table.items():
        print(f"| `{recipe}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
