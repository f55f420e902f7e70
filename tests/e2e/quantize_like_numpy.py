#!/usr/bin/env python3
"""What `sprun compress --quantize int8:..` writes, evaluated by numpy in float64.

    quantize_like_numpy.py SPRUN_BINARY MODELGEN_BINARY

Exit 77 (skipped) without numpy. Two-layer BERT- and LLaMA-like models:
  smoothed  with inputs left unrounded, the file must give what the original gives with its weights rounded, within what scaling moves
            them: that is, scales that were folded into norms and up projections cancel; and those that stand in a Mul are
            those of the formula max|x|^a / max|w|^(1 - a)
  residual  sprun must give what numpy gives for the whole file, and what it gives with inputs left unrounded
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
from prune_like_numpy import HELD_OUT, SAMPLES, two_layers  # noqa: E402

FLOOR = 0.1  # channels below this part of the mean count as that


def compress(sprun, path, folder, spec):
    small = folder / "small.onnx"
    subprocess.run([sprun, "compress", path, "-o", small, "--calibration", folder / "data.npz", "--quantize", spec, "--no-measure",
                    "--json", folder / "report.json"], check=True, stdout=subprocess.DEVNULL)
    return small


def unrounded(model):
    """The graph with the inputs of int8 layers as they are."""
    for node in model.nodes:
        if node.op in ("DynamicQuantizeLinear", "QuantizeLinear"):
            node.op = "Unrounded" + node.op
        elif node.op == "DequantizeLinear" and node.inputs[0] not in model.constants:
            node.op = "UnroundedBack"
    return model


def cosine(a, b):
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return a @ b / np.sqrt((a @ a) * (b @ b))


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def floored(values):
    return np.maximum(values, FLOOR * values.mean())


def first_scales(model, arrays, power, mode):
    """Of the input of the first linear layers, from the formula. Dynamic layers see padding too."""
    feeds = {name: a[:SAMPLES - HELD_OUT] for name, a in arrays.items()}
    mask, found = feeds.get("attention_mask") if mode == "static" else None, {}

    def layer(node, x, w):
        entry = found.setdefault(node.inputs[0], [x[mask != 0] if mask is not None and x.shape[:2] == mask.shape else
                                                  x.reshape(-1, x.shape[-1]), []])
        entry[1].append(w)
        return w

    onnx_numpy.evaluate(model, feeds, layer=layer)
    name, (x, weights) = next(iter(found.items()))
    s = floored(abs(x).max(axis=0)) ** power / floored(np.max([abs(w).max(axis=1) for w in weights], axis=0)) ** (1 - power)
    return name, s / np.exp(np.log(s).mean())


def check_smoothed(sprun, folder, path, arrays, mode):
    original, power = onnx_numpy.read(path), 0.5
    plain = unrounded(onnx_numpy.read(compress(sprun, path, folder, f"int8:{mode}")))
    smooth = unrounded(onnx_numpy.read(compress(sprun, path, folder, f"int8:{mode},smooth{power}")))
    want = onnx_numpy.evaluate(original, arrays)[original.outputs[0]]
    errors = [relative(onnx_numpy.evaluate(m, arrays)[original.outputs[0]], want) for m in (plain, smooth)]
    name, s = first_scales(original, arrays, power, mode)
    factors = smooth.constants.get(name + "_channel_factors")
    differs = abs(factors * s - 1).max() if factors is not None else 0  # folded: the error above says whether it cancels
    print(f"{path.stem} {mode} smooth: weights rounded {errors[0]:.4f}, smoothed and rounded {errors[1]:.4f}, "
          f"{'scales differ by %.1e' % differs if factors is not None else 'scales folded'}")
    return errors[1] <= 2 * errors[0] + 1e-3 and differs <= 1e-3


def check_residual(sprun, folder, path, arrays, mode):
    small = compress(sprun, path, folder, f"int8:{mode},residual")
    few = {name: a[-2:] for name, a in arrays.items()}
    np.savez(folder / "in.npz", **few)
    subprocess.run([sprun, "run", small, "-i", folder / "in.npz", "-o", folder / "out.npz", "--warmup", "0", "--iterations", "1"],
                   check=True, stdout=subprocess.DEVNULL)
    model = onnx_numpy.read(small)
    output = model.outputs[0]
    got = np.load(folder / "out.npz")[output]
    rounded = onnx_numpy.evaluate(model, few)[output]
    exact = onnx_numpy.evaluate(unrounded(model), few)[output]
    print(f"{path.stem} {mode} residual: cosine to numpy {cosine(got, rounded):.7f}, to inputs left unrounded {cosine(got, exact):.7f}")
    return cosine(got, rounded) >= 0.99999 and cosine(got, exact) >= 0.99999


def main():
    sprun, modelgen = sys.argv[1:3]
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for preset in ("bert-mini", "llama-mini"):
            path, arrays = two_layers(modelgen, folder, preset)
            np.savez(folder / "data.npz", **arrays)
            for mode in ("dynamic", "static"):
                good = check_smoothed(sprun, folder, path, arrays, mode) and good
                good = check_residual(sprun, folder, path, arrays, mode) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
