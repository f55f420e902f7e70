"""Reads an ONNX file and computes it in numpy, floats as float64. Needs numpy only.

    model = read("model.onnx")
    values = evaluate(model, {"x": array})                 # every value by name
    evaluate(model, feeds, layer=prune, after=project)     # changed on the way

It knows the operators that the models of the tests are made of, weights inside the file, and nothing more.
"""
import math
import pathlib
import struct
from dataclasses import dataclass, field

import numpy as np

TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}


def fields(data):
    """(number, value) of a protobuf message: int for varints, bytes for everything else."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        yield key >> 3, data[at:at + size]
        at += size


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def packed_ints(value):
    if isinstance(value, int):
        return [signed(value)]
    out, number, shift = [], 0, 0
    for byte in value:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            out.append(signed(number))
            number = shift = 0
    return out


def tensor(data):
    """(name, array)"""
    dims, kind, raw, ints, floats, name = [], 1, None, [], b"", ""
    for number, value in fields(data):
        if number == 1:
            dims += packed_ints(value)
        elif number == 2:
            kind = value
        elif number == 4:
            floats += value
        elif number in (5, 7):
            ints += packed_ints(value)
        elif number == 8:
            name = value.decode()
        elif number == 9:
            raw = value
        elif number == 13:
            raise ValueError("weights outside the file")
    if raw is None:
        raw = floats if kind == 1 else np.array(ints, TYPES[kind]).tobytes()
    array = np.frombuffer(raw, TYPES[kind]).reshape(dims)
    return name, array.astype(np.float64) if array.dtype.kind == "f" else array


@dataclass
class Node:
    op: str = ""
    name: str = ""
    domain: str = ""
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    attrs: dict = field(default_factory=dict)


def attribute(data):
    name, value, ints, kind = "", None, [], 0
    for number, v in fields(data):
        if number == 1:
            name = v.decode()
        elif number == 2:
            value = struct.unpack("<f", v)[0]
        elif number == 3:
            value = signed(v)
        elif number == 4:
            value = v.decode()
        elif number == 5:
            value = tensor(v)[1]
        elif number == 8:
            ints += packed_ints(v)
        elif number == 20:
            kind = v
    return name, ints if kind == 7 else value


@dataclass
class Model:
    nodes: list = field(default_factory=list)
    constants: dict = field(default_factory=dict)
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)

    def node(self, name):
        return next(n for n in self.nodes if n.name == name)


def read(path):
    model = Model()
    graph = next(value for number, value in fields(pathlib.Path(path).read_bytes()) if number == 7)
    for number, value in fields(graph):
        if number == 1:
            node = Node()
            for n, v in fields(value):
                if n in (1, 2):
                    (node.inputs, node.outputs)[n - 1].append(v.decode())
                elif n in (3, 4, 7):
                    setattr(node, {3: "name", 4: "op", 7: "domain"}[n], v.decode())
                elif n == 5:
                    node.attrs.update([attribute(v)])
            model.nodes.append(node)
        elif number == 5:
            model.constants.update([tensor(value)])
        elif number in (11, 12):
            name = next(v for n, v in fields(value) if n == 1).decode()
            (model.inputs, model.outputs)[number - 11].append(name)
    model.inputs = [name for name in model.inputs if name not in model.constants]
    return model


def axes_of(node, inputs, slot=1):
    axes = node.attrs.get("axes", inputs[slot] if len(inputs) > slot else None)
    return None if axes is None else tuple(int(a) for a in axes)


def reduce_with(function):
    def run(node, inputs):
        return function(inputs[0], axis=axes_of(node, inputs), keepdims=bool(node.attrs.get("keepdims", 1)))
    return run


def reshape(node, inputs):
    sizes = [inputs[0].shape[i] if s == 0 and not node.attrs.get("allowzero") else int(s) for i, s in enumerate(inputs[1])]
    return inputs[0].reshape(sizes)


def slice_of(node, inputs):
    starts, ends = inputs[1], inputs[2]
    axes = inputs[3] if len(inputs) > 3 else range(len(starts))
    steps = inputs[4] if len(inputs) > 4 else [1] * len(starts)
    index = [slice(None)] * inputs[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        index[int(axis)] = slice(int(start), int(end), int(step))
    return inputs[0][tuple(index)]


def softmax(node, inputs):
    axis = node.attrs.get("axis", -1)
    e = np.exp(inputs[0] - inputs[0].max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def gemm(node, inputs):
    a = inputs[0].T if node.attrs.get("transA") else inputs[0]
    b = inputs[1].T if node.attrs.get("transB") else inputs[1]
    out = node.attrs.get("alpha", 1) * (a @ b)
    return out + node.attrs.get("beta", 1) * inputs[2] if len(inputs) > 2 else out


def unsqueeze(node, inputs):
    axes, out = axes_of(node, inputs), inputs[0]
    rank = out.ndim + len(axes)
    for axis in sorted(a % rank for a in axes):
        out = np.expand_dims(out, axis)
    return out


def split(node, inputs):
    axis = node.attrs.get("axis", 0)
    sizes = node.attrs.get("split", inputs[1] if len(inputs) > 1 else None)
    if sizes is None:
        return np.split(inputs[0], len(node.outputs), axis)
    return np.split(inputs[0], np.cumsum(sizes)[:-1], axis)


def cast(node, inputs):
    to = TYPES[node.attrs["to"]]
    return inputs[0].astype(np.float64 if np.dtype(to).kind == "f" else to)


def rms_norm(node, inputs):
    scale = np.sqrt((inputs[0] ** 2).mean(-1, keepdims=True) + node.attrs.get("epsilon", 1e-5))
    return inputs[0] / scale * inputs[1]


def layer_norm(node, inputs):
    x = inputs[0] - inputs[0].mean(-1, keepdims=True)
    y = x / np.sqrt((x ** 2).mean(-1, keepdims=True) + node.attrs.get("epsilon", 1e-5)) * inputs[1]
    return y + inputs[2] if len(inputs) > 2 else y


def clip(node, inputs):
    low, high = (inputs[1:] + [None, None])[:2]
    low, high = (bound if bound is not None else limit for bound, limit in ((low, -np.inf), (high, np.inf)))
    return np.minimum(np.maximum(inputs[0], low), high).astype(inputs[0].dtype)


def to_codes(x, scale, zero):
    return np.clip(np.round(x / scale) + zero, 0, 255).astype(np.uint8)


def dynamic_quantize(_, inputs):
    low, high = min(inputs[0].min(), 0), max(inputs[0].max(), 0)
    scale = (high - low) / 255 or 1.0
    zero = np.clip(np.round(-low / scale), 0, 255).astype(np.uint8)
    return [to_codes(inputs[0], scale, zero), np.float64(scale), zero]


def dequantize(node, inputs):
    zero = inputs[2].astype(np.int64) if len(inputs) > 2 else 0
    scale = inputs[1]
    if scale.ndim == 1 and scale.size > 1:
        shape = [1] * inputs[0].ndim
        shape[node.attrs.get("axis", 1)] = -1
        scale = scale.reshape(shape)
    return (inputs[0].astype(np.int64) - zero) * scale


def matmul_integer(_, inputs):
    a = inputs[0] - inputs[2].astype(np.float64) if len(inputs) > 2 else inputs[0]
    return np.matmul(a, inputs[1].astype(np.float64))


def binary(function):
    return lambda node, inputs: function(inputs[0], inputs[1])


def unary(function):
    return lambda node, inputs: function(inputs[0])


OPERATORS = {
    "Add": binary(np.add), "Sub": binary(np.subtract), "Mul": binary(np.multiply), "Pow": binary(np.power),
    "Div": binary(lambda a, b: a / b if a.dtype.kind == "f" else a // b), "MatMul": binary(np.matmul), "Greater": binary(np.greater),
    "Neg": unary(np.negative), "Sqrt": unary(np.sqrt), "Tanh": unary(np.tanh), "Cos": unary(np.cos), "Sin": unary(np.sin),
    "Reciprocal": unary(lambda x: 1 / x), "Sigmoid": unary(lambda x: 1 / (1 + np.exp(-x))), "Erf": unary(np.vectorize(math.erf)),
    "Relu": unary(lambda x: np.maximum(x, 0)), "Identity": unary(lambda x: x), "Shape": unary(lambda x: np.array(x.shape, np.int64)),
    "Gather": lambda n, i: np.take(i[0], i[1], axis=n.attrs.get("axis", 0)),
    "Unsqueeze": unsqueeze, "Squeeze": lambda n, i: np.squeeze(i[0], axes_of(n, i)),
    "Transpose": lambda n, i: np.transpose(i[0], n.attrs.get("perm")), "Concat": lambda n, i: np.concatenate(i, n.attrs["axis"]),
    "Reshape": reshape, "Slice": slice_of, "Softmax": softmax, "Gemm": gemm, "Split": split, "Cast": cast,
    "ReduceMean": reduce_with(np.mean), "ReduceSum": reduce_with(np.sum), "Where": lambda n, i: np.where(i[0], i[1], i[2]),
    "Range": lambda n, i: np.arange(i[0], i[1], i[2]), "Clip": clip,
    "ConstantOfShape": lambda n, i: np.full([int(d) for d in i[0]], n.attrs["value"][0]), "Constant": lambda n, i: n.attrs["value"],
    "DynamicQuantizeLinear": dynamic_quantize, "DequantizeLinear": dequantize, "MatMulInteger": matmul_integer,
    "QuantizeLinear": lambda n, i: to_codes(i[0], i[1], i[2]),
    # Quantisation that leaves its input as it is; only tests write these.
    "UnroundedDynamicQuantizeLinear": lambda n, i: [i[0], np.float64(1), np.float64(0)],
    "UnroundedQuantizeLinear": lambda n, i: i[0], "UnroundedBack": lambda n, i: i[0],
    "SimplifiedLayerNormalization": rms_norm, "LayerNormalization": layer_norm,
}


def evaluate(model, feeds, layer=None, after=None):
    """All values. layer(node, x, w): for a product of x with a constant matrix; gives the matrix to use, [inputs, outputs].
    after(name, value): what stands for the value from there on."""
    values = {name: a.astype(np.float64) if a.dtype.kind == "f" else a for name, a in {**model.constants, **feeds}.items()}
    for node in model.nodes:
        inputs = [values[name] if name else None for name in node.inputs]
        if layer and node.op in ("MatMul", "Gemm") and node.inputs[1] in model.constants:
            turned = node.attrs.get("transB")
            w = layer(node, inputs[0], inputs[1].T if turned else inputs[1])
            inputs[1] = w.T if turned else w
        made = OPERATORS[node.op](node, inputs)
        for name, value in zip(node.outputs, made if isinstance(made, list) else [made]):
            values[name] = after(name, value) if after else value
    return values
