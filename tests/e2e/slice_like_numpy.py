#!/usr/bin/env python3
"""Re-derives the subspaces of `sprun compress --slice` in numpy float64 and compares them with those in the file that it writes.

    slice_like_numpy.py SPRUN_BINARY MODELGEN_BINARY

Exit 77 (skipped) without numpy. Two-layer models, LLaMA-like, GPT-2-like (norms with means) and BERT-like, are sliced by 25 %. The
reference walks through the original: at each point of the residual stream it sums the covariance of the values, takes the eigenvectors,
and puts the projection behind the point before it goes on. The bases in the sliced file follow from its weights: what wrote W to the
stream writes W M Q. The largest principal angle between both must be at most 1e-3, and the outputs of the sliced file must be those of
the walk.
"""
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
try:
    import numpy as np
    import onnx_numpy
except ImportError as error:
    print(f"skipped: {error.name} is not installed")
    sys.exit(77)

WIDTH, KEPT, SAMPLES, LENGTH, VOCAB = 64, 48, 64, 24, 97
HELD_OUT = SAMPLES // 8


def inputs_for(model):
    rng, arrays = np.random.default_rng(3), {}
    for name in model.inputs:
        if "mask" in name:
            arrays[name] = np.ones((SAMPLES, LENGTH), np.int64)
        elif "position" in name:
            arrays[name] = np.tile(np.arange(LENGTH), (SAMPLES, 1))
        else:
            arrays[name] = rng.integers(0, 2 if "type" in name else VOCAB, (SAMPLES, LENGTH))
    return arrays


def basis_of(values, centred, normalised):
    """Eigenvectors of the covariance, the first KEPT of them, by falling eigenvalue."""
    x = values.reshape(-1, WIDTH)
    if centred:
        x = x - x.mean(1, keepdims=True)
    if normalised:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(x.T @ x)
    return vectors[:, ::-1][:, :KEPT]


def weight_of(model, name, slot):
    """The constant that the node reads, [inputs, outputs]."""
    node = model.node(name)
    w = model.constants[node.inputs[slot]]
    return w.T if node.attrs.get("transB") else w


def largest_angle(a, b):
    a, b = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    return np.arcsin(min(1.0, np.linalg.norm(a - b @ (b.T @ a), 2)))  # by the sine: exact where it is small


def walk(original, sliced, arrays, points, centred, normalised):
    """Outputs of the walk and the angle at each point; all but the held-out samples make the bases."""
    angles = {}

    def after(name, value):
        if name not in points:
            return value
        writer, slot = points[name]
        mean = value.mean(-1, keepdims=True) if centred else 0.0
        q = basis_of(value[:SAMPLES - HELD_OUT], centred, normalised)
        before, now = weight_of(original, writer, slot), weight_of(sliced, writer, slot)
        if centred:
            before = before - before.mean(1, keepdims=True)
        angles[name] = largest_angle(q, np.linalg.pinv(before, rcond=1e-5) @ now)
        return (value - mean) @ q @ q.T

    values = onnx_numpy.evaluate(original, arrays, after=after)
    return values, angles


def check(sprun, modelgen, folder, preset, points, centred, normalised):
    """points: name of the node that makes a value of the stream -> (node that writes to it, slot of its weight)"""
    path, small = folder / f"{preset}.onnx", folder / f"{preset}-small.onnx"
    subprocess.run([modelgen, preset, path, "--no-past", "--layers", "2", "--hidden", str(WIDTH), "--heads", "4", "--ffn", "160",
                    "--vocab", str(VOCAB), "--max-seq", str(LENGTH)], check=True)
    original = onnx_numpy.read(path)
    arrays = inputs_for(original)
    np.savez(folder / "data.npz", **arrays)
    subprocess.run([sprun, "compress", path, "-o", small, "--calibration", folder / "data.npz", "--slice", "0.25", "--no-measure",
                    "--json", folder / "report.json"], check=True, stdout=subprocess.DEVNULL)
    sliced = onnx_numpy.read(small)
    named = {original.node(name).outputs[0]: point for name, point in points.items()}
    walked, angles = walk(original, sliced, arrays, named, centred, normalised)
    got = onnx_numpy.evaluate(sliced, arrays)
    differences = [np.abs(got[name] - walked[name]).max() / np.abs(walked[name]).max() for name in original.outputs]
    print(f"{preset}: angles {' '.join(f'{a:.1e}' for a in angles.values())}, outputs differ by {max(differences):.1e}")
    assert len(angles) == len(points)
    return max(angles.values()) <= 1e-3 and max(differences) <= 1e-3


def stream(first, first_writer, attention, network):
    """The points of two layers: the embeddings and both sums of each layer. The last point stays whole: it has no basis."""
    points = {first: (first_writer, 0)}
    for i in range(2):
        points[attention[0].format(i)] = (attention[1].format(i), 1)
        points[network[0].format(i)] = (network[1].format(i), 1)
    points.popitem()
    return points


def main():
    sprun, modelgen = sys.argv[1:3]
    llama = stream("/embed_tokens/Gather", "/embed_tokens/Gather", ("/layers.{}/Add_3", "/layers.{}/o_proj/MatMul"),
                   ("/layers.{}/Add_4", "/layers.{}/down_proj/MatMul"))
    gpt2 = stream("/Add", "/wte/Gather", ("/h.{}/Add_2", "/h.{}/proj/Gemm"), ("/h.{}/Add_5", "/h.{}/mlp_proj/Gemm"))
    bert = stream("/emb/Add_1", "/emb/word/Gather", ("/layers.{}/Add", "/layers.{}/att/o/MatMul"),
                  ("/layers.{}/Add_2", "/layers.{}/f2/MatMul"))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        good = [check(sprun, modelgen, folder, "llama-mini", llama, False, False),
                check(sprun, modelgen, folder, "gpt2-mini", gpt2, True, False),
                check(sprun, modelgen, folder, "bert-mini", bert, True, True)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
