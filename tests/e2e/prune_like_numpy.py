#!/usr/bin/env python3
"""Re-derives what `sprun compress --prune` does by Wanda, SparseGPT and magnitude in numpy float64, from the formulas of the papers.

    prune_like_numpy.py SPRUN_BINARY MODELGEN_BINARY

Exit 77 (skipped) without numpy. One layer with correlated inputs, and two-layer BERT- and LLaMA-like models in which every layer learns
from what its pruned predecessors give, padded positions left out. At least 99.9 % of all zeros must agree, and the weights of rows with
equal zeros within 1e-3 of the largest.
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
import onnx_models  # noqa: E402

SAMPLES, LENGTH, VOCAB, PANEL = 72, 24, 97, 128
HELD_OUT = SAMPLES // 8
SPECS = ["unstructured:0.5", "2:4", "4x1:0.6", "1x4:0.5", "16x4:0.5"]


def parse(spec):
    """(rows, columns of a block, share) or (kept, group, None)"""
    pattern, _, share = spec.partition(":")
    if "x" in pattern:
        return (*map(int, pattern.split("x")), float(share))
    return (1, 1, float(share)) if pattern == "unstructured" else (int(pattern), int(share), None)


def blocks_of(scores, rows, cols):
    """Sums over blocks; both sizes divide the shape."""
    n, k = scores.shape
    return scores.reshape(n // rows, rows, k // cols, cols).sum(axis=(1, 3))


def spread(blocks, rows, cols):
    return np.repeat(np.repeat(blocks, rows, 0), cols, 1)


def smallest(scores, count):
    """Flags of the `count` smallest of each row."""
    flags = np.zeros(scores.shape, bool)
    np.put_along_axis(flags, np.argsort(scores, axis=1, kind="stable")[:, :count], True, axis=1)
    return flags


def one_shot(w, spec, scores, per_row):
    a, b, share = parse(spec)
    if share is None:
        groups = scores.reshape(-1, b)
        return np.where(smallest(groups, b - a).reshape(w.shape), 0, w)
    sums = blocks_of(scores, a, b)
    flat = sums if per_row else sums.reshape(1, -1)
    flags = smallest(flat, int(np.floor(share * flat.shape[1] + 0.5))).reshape(sums.shape)
    return np.where(spread(flags, a, b), 0, w)


def magnitude(w, x, spec):
    return one_shot(w, spec, w ** 2, per_row=False)


def wanda(w, x, spec):
    return one_shot(w, spec, w ** 2 * (x ** 2).sum(axis=0), per_row=True)


def group_cost(w, u, first, count):
    """|| U_SS^-T w_S ||^2 per row, what the removal of these columns costs."""
    square = u[first:first + count, first:first + count]
    return (np.linalg.solve(square.T, w[:, first:first + count].T) ** 2).sum(axis=0)


def sparsegpt(w, x, spec):
    a, b, share = parse(spec)
    w, (n, k) = w.copy(), w.shape
    h = 2 * x.T @ x
    h[np.diag_indices(k)] += 0.01 * np.mean(np.diag(h))
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    chosen = 0
    for begin in range(0, k, PANEL):
        end = min(begin + PANEL, k)
        zero = np.zeros((n, k), bool)
        if share is not None:
            costs = np.stack([group_cost(w, u, c, b) for c in range(begin, end, b)], axis=1)
            costs = costs.reshape(n // a, a, -1).sum(axis=1)
            wanted = int(np.floor(share * (n // a) * (end // b) + 0.5))  # of all panels up to this one
            flags = smallest(costs.reshape(1, -1), wanted - chosen).reshape(costs.shape)
            zero[:, begin:end], chosen = spread(flags, a, b), wanted
        for i in range(begin, end):
            if share is None and i % b == 0:
                costs = w[:, i:i + b] ** 2 / np.diag(u)[i:i + b] ** 2
                zero[:, i:i + b] = smallest(costs, b - a)
            e = np.where(zero[:, i], w[:, i], 0) / u[i, i]
            w[:, i:] -= np.outer(e, u[i, i:])
            w[zero[:, i], i] = 0
    return w


METHODS = {"magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt}


def agreement(want, got):
    """(share of equal zeros, largest relative difference where a row's zeros are equal)"""
    same = (want == 0) == (got == 0)
    rows = same.all(axis=1)
    error = np.abs(want - got)[rows].max(initial=0) / np.abs(want).max()
    return same.mean(), error, rows.mean()


def compress(sprun, path, small, data, spec, names="*"):
    subprocess.run([sprun, "compress", path, "-o", small, "--calibration", data, "--prune", f"{names}={spec}", "--no-measure", "--json",
                    small.with_suffix(".json")], check=True, stdout=subprocess.DEVNULL)
    return onnx_numpy.read(small)


def weights_of(model, node):
    other = model.node(node.name)
    w = model.constants[other.inputs[1]]
    return w if other.attrs.get("transB") else w.T


def check(sprun, folder, path, arrays, recipe, names="*"):
    """Shares and errors over all layers of the model."""
    np.savez(folder / "data.npz", **arrays)
    spec, method = recipe.split("@")
    got = compress(sprun, path, folder / "small.onnx", folder / "data.npz", recipe, names)
    feeds = {name: a[:SAMPLES - HELD_OUT] for name, a in arrays.items()}
    mask = feeds.get("attention_mask")
    found = []

    def layer(node, x, w):
        after = weights_of(got, node)
        if (after == w.T).all():  # the layer that makes the output
            return w
        rows = x[mask != 0] if mask is not None and x.shape[:2] == mask.shape else x.reshape(-1, x.shape[-1])
        pruned = METHODS[method](w.T, rows, spec)
        found.append((w.size, *agreement(pruned, after)))
        return pruned.T

    onnx_numpy.evaluate(onnx_numpy.read(path), feeds, layer=layer)
    sizes, equal, errors, rows = map(np.array, zip(*found))
    equal = (sizes * equal).sum() / sizes.sum()
    print(f"{path.stem} {recipe}: {len(found)} layers, zeros equal {100 * equal:.3f} %, rows {100 * rows.mean():.1f} %, "
          f"largest difference {errors.max():.1e}")
    return equal >= 0.999 and errors.max() <= 1e-3


def one_layer(folder):
    """x W with 300 inputs, three panels, as a file and its data."""
    rng = np.random.default_rng(1)
    inputs, outputs, rows = 300, 64, 20
    w = rng.standard_normal((inputs, outputs)).astype(np.float32)
    writer = onnx_models.onnx
    weight = writer.field_bytes(5, writer.tensor_proto("w", writer.FLOAT, w.shape, w.tobytes()))
    model = onnx_models.graph([onnx_models.node("MatMul", ["x", "w"], "y")], [onnx_models.value("x", ["batch", rows, inputs])],
                              [onnx_models.value("y", ["batch", rows, outputs])], weight)
    path = folder / "one-layer.onnx"
    path.write_bytes(model)
    mix = rng.standard_normal((inputs, inputs)) / 20 + np.diag(rng.uniform(0.1, 2, inputs))
    return path, {"x": (rng.standard_normal((SAMPLES, rows, inputs)) @ mix).astype(np.float32)}


def two_layers(modelgen, folder, preset):
    path = folder / f"{preset}.onnx"
    subprocess.run([modelgen, preset, path, "--no-past", "--layers", "2", "--hidden", "64", "--heads", "4", "--ffn", "160",
                    "--vocab", str(VOCAB), "--max-seq", str(LENGTH)], check=True)
    rng = np.random.default_rng(2)
    lengths = rng.integers(LENGTH // 2, LENGTH + 1, SAMPLES)
    arrays = {}
    for name in onnx_numpy.read(path).inputs:
        if "mask" in name:
            arrays[name] = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
        elif "position" in name:
            arrays[name] = np.tile(np.arange(LENGTH), (SAMPLES, 1))
        else:
            arrays[name] = rng.integers(0, 2 if "type" in name else VOCAB, (SAMPLES, LENGTH))
    return path, arrays


def main():
    sprun, modelgen = sys.argv[1:3]
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cases = [(one_layer(folder), "MatMul_node")]
        cases += [(two_layers(modelgen, folder, preset), "*") for preset in ("bert-mini", "llama-mini")]
        for (path, arrays), names in cases:
            for spec in SPECS:
                for method in METHODS:
                    good = check(sprun, folder, path, arrays, f"{spec}@{method}", names) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
