#!/usr/bin/env python3
"""How well sprun and ONNX Runtime agree on int8 files, beside how well ONNX Runtime agrees with itself.

  bench/e2e/int8_agreement.py SPRUN SHARED [--minilm FOLDER] [--only stories,use-lite] [--specs int8,int8:residual+static] [--samples 1024]

Models and calibration are those of quality_tasks.py. In --specs a comma separates recipes and + stands for the comma inside one. Prints the
lowest cosine of 12 held-out samples, each run alone without padding: to the original model, sprun to ONNX Runtime without
graph optimisations, and that to itself with all of them and with the scale of the first norm larger by one float32 step.
"""
import argparse
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

from quality_tasks import TASKS

SAMPLES = 12
SPECS = "int8,int8:static,int8:smooth,int8:static+smooth,int8:residual0.02,int8:static+residual0.02,int8:residual,int8:static+residual"
PLAIN, OPTIMISED = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def run(path, feeds, output, level=PLAIN):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run([output], feed)[0] for feed in feeds]


def run_sprun(sprun, path, feeds, output, folder):
    results = []
    for feed in feeds:
        np.savez(folder / "in.npz", **feed)
        subprocess.run([sprun, "run", path, "-i", folder / "in.npz", "-o", folder / "out.npz", "--warmup", "0", "--iterations", "1"],
                       check=True, stdout=subprocess.DEVNULL)
        results.append(np.load(folder / "out.npz")[output])
    return results


def with_nudged_norm(path, folder):
    """The file with the first vector that a Mul or LayerNormalization scales by larger by one step."""
    model = onnx.load(path)
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        for tensor in (constants.get(name) for name in node.input if node.op_type in ("Mul", "LayerNormalization")):
            if tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 1 and tensor.dims[0] >= 64:
                values = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values + np.spacing(values), tensor.name))
                onnx.save(model, folder / "nudged.onnx")
                return folder / "nudged.onnx"
    return path


def lowest(a, b):
    def cosine(x, y):
        x, y = x.ravel().astype(np.float64), y.ravel().astype(np.float64)
        return x @ y / np.sqrt((x @ x) * (y @ y))
    return min(map(cosine, a, b))


def measure(args, task, spec):
    output = getattr(task, "output", None) or onnx.load(task.model, load_external_data=False).graph.output[0].name
    feeds = [{name: a[-i:][:1] for name, a in task.calibration.items()} for i in range(1, SAMPLES + 1)]
    feeds = [{name: a[:, :int(feed["attention_mask"].sum())] for name, a in feed.items()} for feed in feeds]
    path = args.folder / "int8.onnx"
    np.savez(args.folder / "data.npz", **task.calibration)
    subprocess.run([args.sprun, "compress", task.model, "-o", path, "--quantize", spec, "--calibration", args.folder / "data.npz",
                    "--samples", str(task.samples), "--no-measure"], check=True, stdout=subprocess.DEVNULL)
    plain = run(path, feeds, output)
    return [lowest(plain, other) for other in (run(task.model, feeds, output), run_sprun(args.sprun, path, feeds, output, args.folder),
                                               run(path, feeds, output, OPTIMISED),
                                               run(with_nudged_norm(path, args.folder), feeds, output))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sprun")
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--minilm", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--specs", default=SPECS)
    parser.add_argument("--samples", type=int, default=1024)
    args = parser.parse_args()
    args.every = 1
    print("| model | recipe | original | sprun | optimised | nudged |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        args.folder = pathlib.Path(folder)
        for name in args.only.split(","):
            task = TASKS[name](args)
            for spec in args.specs.split(","):
                spec = spec.replace("+", ",")
                print(f"| {name} | {spec} | " + " | ".join(f"{c:.7f}" for c in measure(args, task, spec)) + " |", flush=True)


if __name__ == "__main__":
    main()
