#!/usr/bin/env python3
"""Re-derives the subspaces of `sprun compress --slice` in numpy float64 and compares them with those in the file that it writes.

    slice_like_numpy.py SPRUN_BINARY MODELGEN_BINARY

Exit 77 (skipped) without numpy, onnx or onnxruntime. Two-layer LLaMA-like and BERT-like models are sliced by 25 %. The reference walks through the
original with ONNX Runtime: at each point of the residual stream it sums the covariance of the values, takes the eigenvectors, and
puts the projection behind the point before it goes on. The bases in the sliced file follow from its weights: what wrote W to the
stream writes W M Q. The largest principal angle between both must be at most 1e-3.
"""
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper
except ImportError as error:
    print(f"skipped: {error.name} is not installed")
    sys.exit(77)

WIDTH, KEPT, SAMPLES, LENGTH, VOCAB = 64, 48, 64, 24, 97


def inputs_for(model, rng):
    arrays = {}
    for value in model.graph.input:
        shape = (SAMPLES, LENGTH)
        if "mask" in value.name:
            arrays[value.name] = np.ones(shape, np.int64)
        elif "position" in value.name:
            arrays[value.name] = np.tile(np.arange(LENGTH), (SAMPLES, 1))
        else:
            arrays[value.name] = rng.integers(0, 2 if "type" in value.name else VOCAB, shape)
    return arrays


def evaluate(model, name, arrays):
    """The value `name` of the model."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    used = {i.name for i in session.get_inputs()}
    return session.run([name], {k: v for k, v in arrays.items() if k in used})[0]


def basis_of(values, subtract_mean, normalise):
    x = values.reshape(-1, WIDTH).astype(np.float64)
    if subtract_mean:
        x = x - x.mean(1, keepdims=True)
    if normalise:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(x.T @ x)
    return vectors[:, ::-1][:, :KEPT]


def project(model, name, q, at):
    """Everything behind the value sees its projection."""
    projected = name + "/projected"
    for node in model.graph.node:
        for i, value in enumerate(node.input):
            if value == name:
                node.input[i] = projected
    weight = numpy_helper.from_array((q @ q.T).astype(np.float32), f"projection.{at}")
    model.graph.initializer.append(weight)
    position = next(i for i, node in enumerate(model.graph.node) if name in node.output) + 1
    model.graph.node.insert(position, helper.make_node("MatMul", [name, weight.name], [projected]))


def weight_of(model, node_name, index):
    node = next(n for n in model.graph.node if n.name == node_name)
    tensor = next(t for t in model.graph.initializer if t.name == node.input[index])
    return numpy_helper.to_array(tensor).astype(np.float64)


def largest_angle(a, b):
    a, b = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    return np.arcsin(min(1.0, np.linalg.norm(a - b @ (b.T @ a), 2)))  # by the sine: exact where it is small


def check(sprun, modelgen, folder, preset, points, post_norm):
    """points: (value of the stream, node that writes to it, input that is its weight)"""
    path, small = folder / f"{preset}.onnx", folder / f"{preset}-small.onnx"
    subprocess.run([modelgen, preset, path, "--no-past", "--layers", "2", "--hidden", str(WIDTH), "--heads", "4", "--ffn", "160",
                    "--vocab", str(VOCAB), "--max-seq", str(LENGTH)], check=True)
    original = onnx.load(path)
    arrays = inputs_for(original, np.random.default_rng(3))
    np.savez(folder / "data.npz", **arrays)
    held = max(1, SAMPLES // 8)
    subprocess.run([sprun, "compress", path, "-o", small, "--calibration", folder / "data.npz", "--slice", "0.25", "--no-measure",
                    "--json", folder / "report.json"], check=True, stdout=subprocess.DEVNULL)
    learned = {k: v[:SAMPLES - held] for k, v in arrays.items()}
    walked, sliced, worst = onnx.load(path), onnx.load(small), 0.0
    for at, (find, writer, index) in enumerate(points):
        value = find(walked)
        q = basis_of(evaluate(walked, value, learned), post_norm, post_norm)
        before, after = weight_of(original, writer, index), weight_of(sliced, writer, index)
        if post_norm:
            before = before - before.mean(1, keepdims=True)
        found = np.linalg.pinv(before, rcond=1e-5) @ after
        angle = largest_angle(q, found)
        print(f"{preset} {value}: angle {angle:.1e}")
        worst = max(worst, angle)
        project(walked, value, q, at)
    return worst


def output_of(name):
    return lambda model: next(n.output[0] for n in model.graph.node if n.name == name)


def main():
    sprun, modelgen = sys.argv[1:3]
    llama = [(output_of("/embed_tokens/Gather"), "/embed_tokens/Gather", 0)]
    bert = [(output_of("/emb/Add_1"), "/emb/word/Gather", 0)]
    for layer in ("/layers.0", "/layers.1"):
        llama += [(output_of(f"{layer}/Add_3"), f"{layer}/o_proj/MatMul", 1),
                  (output_of(f"{layer}/Add_4"), f"{layer}/down_proj/MatMul", 1)]
        bert += [(output_of(f"{layer}/Add"), f"{layer}/att/o/MatMul", 1),
                 (output_of(f"{layer}/Add_2"), f"{layer}/f2/MatMul", 1)]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # The last point stays whole: it has no basis.
        worst = max(check(sprun, modelgen, folder, "llama-mini", llama[:-1], False),
                    check(sprun, modelgen, folder, "bert-mini", bert[:-1], True))
    print(f"largest principal angle {worst:.1e}")
    return 0 if worst <= 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
