#!/usr/bin/env python3
"""Runs every model of a folder in sprun and in ONNX Runtime on random inputs of several shapes and compares.

  tests/e2e/agree_with_onnxruntime.py SPRUN [FOLDER]      FOLDER: default ../shared/models

Float models: max |difference| <= 1e-4 * max |y| for float32 outputs, 2e-2 for float16. Models with integer layers:
cosine >= 0.9999 per output. Exit 77 (skipped) without numpy, onnxruntime or the folder.
"""
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnxruntime as ort
except ImportError as error:
    print(f"skipped: {error.name} is not installed")
    sys.exit(77)

SHAPES = [{"batch": 1, "seq": 7, "past": 0}, {"batch": 2, "seq": 16, "past": 3}, {"batch": 3, "seq": 33, "past": 1}]
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_,
          "tensor(float16)": np.float16, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}


def size_of(dim, sizes):
    """The size for a symbolic dimension, from the words in its name."""
    if isinstance(dim, int):
        return dim
    name = str(dim).lower()
    if "+" in name:
        return sum(size_of(part.strip(), sizes) for part in name.split("+"))
    if "past" in name and "total" not in name:
        return sizes["past"]
    if "total" in name:
        return sizes["past"] + sizes["seq"]
    if "batch" in name or name in ("n", "b"):
        return sizes["batch"]
    if "width" in name or name == "w":
        return 16 * sizes["seq"]
    return sizes["seq"]


def make_input(spec, shape, rng):
    dtype = DTYPES[spec.type]
    name = spec.name.lower()
    if dtype == np.bool_:
        return np.ones(shape, dtype)
    if np.issubdtype(dtype, np.integer):
        if "mask" in name:
            return np.ones(shape, dtype)
        if "position" in name:
            return np.broadcast_to(np.arange(shape[-1]), shape).astype(dtype)
        high = 2 if "type" in name or "segment" in name else 5
        return rng.integers(0, high, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def differs(got, want, quantized):
    if got.shape != want.shape:
        return f"shape {got.shape}, expected {want.shape}"
    if want.size == 0 or not np.issubdtype(want.dtype, np.floating):
        return "" if np.array_equal(got, want) else "integers differ"
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    if quantized:
        norm = np.linalg.norm(a) * np.linalg.norm(b)
        cosine = float(a @ b / norm) if norm > 0 else 1.0
        return "" if cosine >= 0.9999 else f"cosine {cosine:.6f}"
    worst = float(np.max(np.abs(a - b)))
    allowed = (2e-2 if want.dtype == np.float16 else 1e-4) * float(np.max(np.abs(b))) + 1e-7
    return "" if worst <= allowed else f"max difference {worst:.3g}, allowed {allowed:.3g}"


def run_case(sprun, path, session, sizes, rng, folder):
    feed = {}
    for spec in session.get_inputs():
        if spec.type not in DTYPES:
            return None
        feed[spec.name] = make_input(spec, [size_of(d, sizes) for d in spec.shape], rng)
    try:
        wanted = session.run(None, feed)
    except Exception:  # the shapes do not suit this model; ONNX Runtime says so
        return None
    np.savez(folder / "in.npz", **feed)
    result = subprocess.run([sprun, "run", str(path), "-i", str(folder / "in.npz"), "-o", str(folder / "out.npz"),
                             "--warmup", "0", "--iterations", "1"], capture_output=True, text=True)
    if result.returncode != 0:
        return f"exit {result.returncode}: {result.stderr.strip()[-200:]}"
    got = np.load(folder / "out.npz")
    text = open(path, "rb").read()
    quantized = any(word in text for word in (b"MatMulInteger", b"QuantizeLinear", b"QAttention"))
    for spec, want in zip(session.get_outputs(), wanted):
        wrong = differs(got[spec.name], want, quantized)
        if wrong:
            return f"output '{spec.name}': {wrong}"
    return ""


def main():
    sprun = sys.argv[1]
    default = pathlib.Path(__file__).resolve().parents[3] / "shared" / "models"
    root = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else default
    if not root.is_dir():
        print(f"skipped: {root} is not there")
        sys.exit(77)
    rng = np.random.default_rng(1)
    passed, failed, left_out = 0, 0, []
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Its own fusions move results by up to 1e-2 on some of these models; the unfused graph is what the file says.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as temporary:
        for path in sorted(root.rglob("*.onnx")):
            try:
                session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:
                left_out.append(f"{path.relative_to(root)}: ONNX Runtime cannot load it ({str(error)[:80]})")
                continue
            results = [run_case(sprun, path, session, sizes, rng, pathlib.Path(temporary)) for sizes in SHAPES]
            if all(result is None for result in results):
                left_out.append(f"{path.relative_to(root)}: ONNX Runtime refuses every shape tried")
            for sizes, result in zip(SHAPES, results):
                if result is None:
                    continue
                passed += result == ""
                failed += result != ""
                if result:
                    print(f"FAIL {path.relative_to(root)} {sizes}: {result}")
    for text in left_out:
        print("left out", text)
    print(f"{passed} passed, {failed} failed, {len(left_out)} models left out")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
