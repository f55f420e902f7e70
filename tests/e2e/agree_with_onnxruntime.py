#!/usr/bin/env python3
"""Runs every model of a folder in sprun and in ONNX Runtime on random inputs of several shapes and compares.

  tests/e2e/agree_with_onnxruntime.py SPRUN [FOLDER]      FOLDER: default ../shared/models

Allowed: max |difference| <= 1e-4 * max |y|, in models that compute in float16 1e-2; models with integer layers: cosine
of every output >= 0.9999 and the same largest element per row. Exit 77 (skipped) without numpy, onnx, onnxruntime or
the folder.
"""
import math
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
except ImportError as error:
    print(f"skipped: {error.name} is not installed")
    sys.exit(77)

SHAPES = [{"batch": 1, "seq": 7, "past": 0}, {"batch": 2, "seq": 16, "past": 3}, {"batch": 3, "seq": 33, "past": 1}]
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_,
          "tensor(float16)": np.float16, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
# Sizes that only some models take, by the name of their folder: symbolic dimensions that must match a fixed one.
OWN_SIZES = {"attention_past_state.u8s8": {"C": 1}, "attention_past_state.u8u8": {"C": 1},
             "bias_gelu_fusion_recompute": {"unk_1": 1, "unk_2": 3072, "unk_5": 1},
             "qdq_fusion_zp_not_provided": {"unk_1": 1, "unk_2": 1}}
ID_LIMITS = (500, 5, 2)  # token ids below; the first that ONNX Runtime takes
INTEGER_OPS = {"MatMulInteger", "ConvInteger", "QuantizeLinear", "DynamicQuantizeLinear", "QAttention", "QLinearMatMul",
               "QLinearConv", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def size_of(dim, axis, sizes):
    """The size for a symbolic dimension, from the words in its name."""
    if isinstance(dim, int):
        return dim
    if dim in sizes:
        return sizes[dim]
    name = str(dim).lower()
    if "+" in name:
        return sum(size_of(part.strip(), axis, sizes) for part in name.split("+"))
    if name == "p" or "past" in name and "total" not in name:
        return sizes["past"]
    if name == "t" or "total" in name:
        return sizes["past"] + sizes["seq"]
    if "batch" in name or name in ("n", "b") and axis == 0:
        return sizes["batch"]
    if "width" in name or name == "w":
        return 16 * sizes["seq"]
    return sizes["seq"]


def make_input(spec, shape, id_limit, rng):
    dtype = DTYPES[spec.type]
    name = spec.name.lower()
    if dtype == np.bool_:
        return np.ones(shape, dtype)
    if np.issubdtype(dtype, np.integer):
        if "mask" in name:
            return np.ones(shape, dtype)
        if "position" in name:
            return np.broadcast_to(np.arange(shape[-1]), shape).astype(dtype)
        if dtype in (np.uint8, np.int8):
            return rng.integers(0, 5, shape).astype(dtype)
        return rng.integers(0, 2 if "type" in name or "segment" in name else id_limit, shape).astype(dtype)
    values = rng.standard_normal(shape)
    if "scale" in name:
        values = 0.01 * (1 + abs(values))
    if "weight" in name and len(shape) == 2:  # as trained weights are: softmax is no choice of one then
        values /= math.sqrt(shape[0])
    return values.astype(dtype)


def differs(got, want, integer, half):
    if got.shape != want.shape:
        return f"shape {got.shape}, expected {want.shape}"
    if want.size == 0 or not np.issubdtype(want.dtype, np.floating):
        return "" if np.array_equal(got, want) else "integers differ"
    a, b = got.astype(np.float64), want.astype(np.float64)
    largest = float(np.max(np.abs(b)))
    if integer:
        norm = np.linalg.norm(a) * np.linalg.norm(b)
        cosine = float(a.ravel() @ b.ravel() / norm) if norm > 0 else 1.0
        rows = b.reshape(-1, b.shape[-1] if b.ndim else 1)
        chosen = a.reshape(rows.shape).argmax(axis=1)
        # A tie within the rounding of either side is no other choice.
        lost = float(np.max(rows.max(axis=1) - rows[np.arange(len(rows)), chosen]))
        if cosine < 0.9999:
            return f"cosine {cosine:.6f}"
        return "" if lost <= 1e-3 * largest else f"other largest element, {lost:.3g} below"
    worst = float(np.max(np.abs(a - b)))
    allowed = (1e-2 if half else 1e-4) * largest + 1e-7
    return "" if worst <= allowed else f"max difference {worst:.3g}, allowed {allowed:.3g}"


def traits(path):
    """(has integer layers, computes in float16)"""
    graph = onnx.load(str(path), load_external_data=False).graph
    types = {t.data_type for t in graph.initializer} | {v.type.tensor_type.elem_type for v in graph.input}
    types |= {a.i for n in graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to"}
    return any(n.op_type in INTEGER_OPS for n in graph.node), onnx.TensorProto.FLOAT16 in types


def expected(session, sizes, rng):
    """(inputs, outputs of ONNX Runtime), or the reason why it takes none of the inputs tried."""
    reason = ""
    for id_limit in ID_LIMITS:
        feed = {}
        for spec in session.get_inputs():
            if spec.type not in DTYPES:
                return None, f"input of type {spec.type}"
            feed[spec.name] = make_input(spec, [size_of(d, i, sizes) for i, d in enumerate(spec.shape)], id_limit, rng)
        try:
            return feed, session.run(None, feed)
        except Exception as error:  # pylint: disable=broad-except
            reason = " ".join(str(error).split())
    return None, "ONNX Runtime refuses the inputs: " + reason[-160:]


def run_sprun(sprun, path, session, feed, folder):
    """{output: array}, or the text of the error."""
    np.savez(folder / "in.npz", **feed)
    result = subprocess.run([sprun, "run", str(path), "-i", str(folder / "in.npz"), "-o", str(folder / "out.npz"),
                             "--warmup", "0", "--iterations", "1"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return f"exit {result.returncode}: {result.stderr.strip()[-200:]}"
    with np.load(folder / "out.npz") as out:
        return {spec.name: out[spec.name] for spec in session.get_outputs()}


def compare_model(sprun, path, session, folder, rng):
    """Per shape: (sizes, None when it agrees or the difference, None or why it was left out)."""
    integer, half = traits(path)
    results = []
    for shape in SHAPES:
        feed, wanted = expected(session, {**shape, **OWN_SIZES.get(path.parent.name, {})}, rng)
        if feed is None:
            results.append((shape, None, wanted))
            continue
        got = run_sprun(sprun, path, session, feed, folder)
        wrong = got if isinstance(got, str) else ""
        for spec, want in zip(session.get_outputs(), wanted) if not wrong else ():
            text = differs(got[spec.name], want, integer, half)
            wrong = wrong or (text and f"output '{spec.name}': {text}")
        results.append((shape, wrong, None))
    return results


def main():
    sprun = sys.argv[1]
    default = pathlib.Path(__file__).resolve().parents[3] / "shared" / "models"
    root = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else default
    if not root.is_dir():
        print(f"skipped: {root} is not there")
        sys.exit(77)
    passed, failed, left_out, models = 0, 0, [], 0
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Its own fusions move results by up to 1e-2 on some of these models; the unfused graph is what the file says.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as temporary:
        for path in sorted(root.rglob("*.onnx")):
            name = path.relative_to(root)
            models += 1
            try:
                session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # pylint: disable=broad-except
                left_out.append(f"{name}: ONNX Runtime cannot load it ({' '.join(str(error).split())[-100:]})")
                continue
            results = compare_model(sprun, path, session, pathlib.Path(temporary), np.random.default_rng(1))
            if all(reason for _, _, reason in results):
                left_out.append(f"{name}: {results[0][2]}")
            passed += sum(wrong == "" for _, wrong, _ in results)
            failed += sum(bool(wrong) for _, wrong, _ in results)
            for shape, wrong, _ in results:
                if wrong:
                    print(f"FAIL {name} {shape}: {wrong}", flush=True)
    for text in left_out:
        print("left out", text)
    print(f"{models} models: {passed} runs agree, {failed} do not, {len(left_out)} models left out")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
