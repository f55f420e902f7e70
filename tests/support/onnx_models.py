"""Small ONNX files for tests of the command, written without any package."""
import pathlib
import random
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import convert_minilm as onnx  # noqa: E402


def tiny_bert(seed=1):
    """A one-layer BERT with random weights: ids below 50, at most 32 positions."""
    rng = random.Random(seed)
    config = {"num_attention_heads": 2, "hidden_size": 16, "layer_norm_eps": 1e-12, "num_hidden_layers": 1,
              "max_position_embeddings": 32}
    weights = {}

    def add(name, *shape):
        count = 1
        for s in shape:
            count *= s
        weights[name] = (list(shape), onnx.array.array("f", [rng.gauss(0, 0.3) for _ in range(count)]))

    def linear(name, outputs, inputs):
        add(name + ".weight", outputs, inputs)
        add(name + ".bias", outputs)

    add("embeddings.word_embeddings.weight", 50, 16)
    add("embeddings.token_type_embeddings.weight", 2, 16)
    add("embeddings.position_embeddings.weight", 32, 16)
    layer = "encoder.layer.0"
    for name in (".attention.self.query", ".attention.self.key", ".attention.self.value", ".attention.output.dense"):
        linear(layer + name, 16, 16)
    linear(layer + ".intermediate.dense", 32, 16)
    linear(layer + ".output.dense", 16, 32)
    for name in ("embeddings", layer + ".attention.output", layer + ".output"):
        add(name + ".LayerNorm.weight", 16)
        add(name + ".LayerNorm.bias", 16)
    return onnx.Bert(config, weights).onnx()


def graph(nodes, inputs, outputs, initializers=b""):
    """A model with these serialized parts."""
    body = b"".join(onnx.field_bytes(1, n) for n in nodes) + onnx.field_bytes(2, "g") + initializers
    body += b"".join(onnx.field_bytes(11, i) for i in inputs) + b"".join(onnx.field_bytes(12, o) for o in outputs)
    opset = onnx.field_bytes(1, "") + onnx.field_int(2, 14)
    return onnx.field_int(1, 7) + onnx.field_bytes(7, body) + onnx.field_bytes(8, opset)


def node(op_type, inputs, output, domain=""):
    out = b"".join(onnx.field_bytes(1, i) for i in inputs) + onnx.field_bytes(2, output)
    out += onnx.field_bytes(3, op_type + "_node") + onnx.field_bytes(4, op_type)
    return out + (onnx.field_bytes(7, domain) if domain else b"")


def value(name, dims, dtype=onnx.FLOAT):
    return onnx.value_info(name, dtype, dims)


def external_tensor(name, dims, location):
    """An initializer whose data is said to be in the file `location`."""
    out = b"".join(onnx.field_int(1, d) for d in dims) + onnx.field_int(2, onnx.FLOAT) + onnx.field_bytes(8, name)
    entry = onnx.field_bytes(1, "location") + onnx.field_bytes(2, location)
    return onnx.field_bytes(5, out + onnx.field_bytes(13, entry) + onnx.field_int(14, 1))


def npy(values, shape, descr="<f4"):
    code = {"<f4": "f", "<i8": "q", "<i4": "i"}[descr]
    dims = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    data = struct.pack(f"<{len(values)}{code}", *values)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data
