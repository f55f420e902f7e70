#!/usr/bin/env python3
"""Models that other tools have compressed, spelled as their exports are: sprun against numpy float64.

    imports_like_numpy.py SPRUN_BINARY

Exit 77 (skipped) without numpy. SliceGPT modules as PyTorch exports them (the norm by ReduceSum and a division by the width of before,
shortcuts by MatMul), masked weights with a low-rank path beside them (AST), two stages dense and sparse (DSFormer), encoders with other
numbers of heads and neurons in each layer. Outputs within 2e-5 of the largest value.
"""
import json
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

ROWS, LENGTH = 2, 7


class Net:
    """A graph with random weights."""

    def __init__(self, seed):
        self.g, self.rng = onnx_models.onnx.GraphWriter(), np.random.default_rng(seed)
        self.op = self.g.op

    def floats(self, array):
        self.g.count += 1
        return self.g.floats(f"weight_{self.g.count}", array.shape, np.ascontiguousarray(array, np.float32).ravel())

    def random(self, *shape):
        return self.rng.standard_normal(shape) / np.sqrt(shape[0])

    def linear(self, x, inputs, outputs, bias=True):
        y = self.op("MatMul", [x, self.floats(self.random(inputs, outputs))])
        return self.op("Add", [y, self.floats(self.rng.standard_normal(outputs) / 4)]) if bias else y

    def heads(self, x, count, size, perm):
        return self.op("Transpose", [self.op("Reshape", [x, self.g.ints([0, 0, count, size])])], perm=perm)

    def attention(self, x, width, count, size):
        q = self.heads(self.linear(x, width, count * size), count, size, [0, 2, 1, 3])
        k = self.heads(self.linear(x, width, count * size), count, size, [0, 2, 3, 1])
        v = self.heads(self.linear(x, width, count * size), count, size, [0, 2, 1, 3])
        scores = self.op("Div", [self.op("MatMul", [q, k]), self.g.scalar(size ** 0.5)])
        mixed = self.op("MatMul", [self.op("Softmax", [scores], axis=-1), v])
        return self.op("Reshape", [self.op("Transpose", [mixed], perm=[0, 2, 1, 3]), self.g.ints([0, 0, count * size])])

    def write(self, path, width, out):
        onnx = onnx_models.onnx
        self.op("Identity", [out], "y")
        model = self.g.model("net", [onnx.value_info("x", onnx.FLOAT, ["batch", "length", width])],
                             [onnx.value_info("y", onnx.FLOAT, ["batch", "length", "outputs"])])
        path.write_bytes(model)
        return width


def sliced_norm(net, x, before, form):
    """x rsqrt(sum x^2 / D + eps), D the width that the model had."""
    square = net.op("Pow", [x, net.g.scalar(2.0)])
    mean = net.op("Div", [net.op("ReduceSum", [square, net.g.ints([-1])], keepdims=1), net.g.scalar(float(before))])
    root = net.op("Sqrt", [net.op("Add", [mean, net.g.scalar(1e-5)])])
    if form == "div":
        return net.op("Div", [x, root])
    inverse = net.op("Reciprocal", [root]) if form == "reciprocal" else net.op("Div", [net.g.scalar(1.0), root])
    return net.op("Mul", [x, inverse])


def slicegpt(path, form):
    """Two pre-norm decoder layers of width 64, sliced to 48; the last network gives all 64 again."""
    net, before, width, x = Net(1), 64, 48, "x"
    for last in (False, True):
        mixed = net.linear(net.attention(sliced_norm(net, x, before, form), width, 4, 16), 64, width)
        x = net.op("Add", [net.op("MatMul", [x, net.floats(net.random(width, width))]), mixed])
        after, normed = before if last else width, sliced_norm(net, x, before, form)
        gate = net.linear(normed, width, 100)
        hidden = net.op("Mul", [net.op("Mul", [gate, net.op("Sigmoid", [gate])]), net.linear(normed, width, 100)])
        x = net.op("Add", [net.op("MatMul", [x, net.floats(net.random(width, after))]), net.linear(hidden, 100, after)])
    return net.write(path, width, net.linear(sliced_norm(net, x, before, form), before, 90, bias=False))


def masked(path, mask_in_graph):
    """AST: y = x (M W) + (x P) S with a 2:4 mask M and P that adds up 16 inputs each."""
    net, inputs, outputs, group = Net(2), 64, 96, 16
    w = net.random(inputs, outputs)
    order = np.argsort(np.abs(w).reshape(-1, 4, outputs), axis=1)
    mask = (np.argsort(order, axis=1) >= 2).reshape(w.shape).astype(np.float32)
    weight = net.op("Mul", [net.floats(mask), net.floats(w)]) if mask_in_graph else net.floats(mask * w)
    side = net.floats(np.kron(np.eye(inputs // group), np.ones((group, 1))))
    low_rank = net.op("MatMul", [net.op("MatMul", ["x", side]), net.floats(net.random(inputs // group, outputs))])
    y = net.op("Add", [net.op("MatMul", ["x", weight]), low_rank])
    return net.write(path, inputs, net.op("Relu", [net.op("Add", [y, net.floats(net.rng.standard_normal(outputs))])]))


def two_stages(path):
    """DSFormer: y = (x D) S, S with 4 nonzeros of 32 in each column, in blocks of rows."""
    net, inputs, rank, outputs = Net(3), 64, 32, 128
    s = net.random(rank, outputs)
    kept = net.rng.integers(0, rank // 4, outputs // 16).repeat(16)
    s[np.arange(rank)[:, None] // 4 != kept] = 0
    y = net.op("MatMul", [net.op("MatMul", ["x", net.floats(net.random(inputs, rank))]), net.floats(s)])
    return net.write(path, inputs, net.op("Tanh", [net.op("Add", [y, net.floats(net.rng.standard_normal(outputs))])]))


def uneven_encoder(path):
    """Post-norm layers with 3, 1 and 4 heads and 37, 0 and 80 neurons; a head of the last has other sizes than 16."""
    net, width, x = Net(4), 48, "x"

    def norm(value):
        centred = net.op("Sub", [value, net.op("ReduceMean", [value], axes=[-1])])
        variance = net.op("ReduceMean", [net.op("Pow", [centred, net.g.scalar(2.0)])], axes=[-1])
        scaled = net.op("Div", [centred, net.op("Sqrt", [net.op("Add", [variance, net.g.scalar(1e-12)])])])
        return net.op("Add", [net.op("Mul", [scaled, net.floats(net.rng.uniform(0.5, 2, width))]), net.floats(net.random(width))])

    for count, size, neurons in ((3, 16, 37), (1, 16, 0), (4, 10, 80)):
        x = norm(net.op("Add", [net.linear(net.attention(x, width, count, size), count * size, width), x]))
        if neurons:
            x = norm(net.op("Add", [net.linear(net.op("Relu", [net.linear(x, width, neurons)]), neurons, width), x]))
    return net.write(path, width, x)


def outputs_of(sprun, folder, path, x):
    np.save(folder / "x.npy", x)
    subprocess.run([sprun, "run", path, "-i", f"x={folder / 'x.npy'}", "-o", folder / "out"], check=True, stdout=subprocess.DEVNULL)
    return np.load(folder / "out" / "y.npy")


def operators_of(sprun, path):
    """What sprun runs instead of the graph of the file."""
    done = subprocess.run([sprun, "explain", path, "--dim", f"batch={ROWS},length={LENGTH}", "--json", "-"], check=True,
                          capture_output=True, text=True)
    return json.dumps(json.loads(done.stdout))


def main():
    sprun, good = sys.argv[1], True
    cases = {f"slicegpt-{form}": lambda path, f=form: slicegpt(path, f) for form in ("reciprocal", "one-over", "div")}
    cases |= {"ast": lambda path: masked(path, False), "ast-mask": lambda path: masked(path, True), "dsformer": two_stages,
              "uneven-encoder": uneven_encoder}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for case, write in cases.items():
            path = folder / f"{case}.onnx"
            width = write(path)
            x = np.random.default_rng(5).standard_normal((ROWS, LENGTH, width)).astype(np.float32)
            want = onnx_numpy.evaluate(onnx_numpy.read(path), {"x": x})["y"]
            error = np.abs(outputs_of(sprun, folder, path, x) - want).max() / np.abs(want).max()
            print(f"{case}: largest difference {error:.1e}")
            good = good and error <= 2e-5
            if case.startswith("slicegpt"):
                runs = operators_of(sprun, path)
                fused = "ReduceSum" not in runs and "RMSNorm" in runs
                print(f"{case}: norms are {'one node each' if fused else 'spelled out'}")
                good = good and fused
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
