"""Writes a checkpoint of train.py as ONNX, with and without a key/value cache, in the form transformer exporters use.

    python3 tools/bytelm/export.py spark.pt OUT_FOLDER

    OUT_FOLDER/model.onnx           input_ids, attention_mask, position_ids, past_key_values.N.{key,value}
                                    -> logits, present.N.{key,value}
    OUT_FOLDER/model_no_cache.onnx  input_ids, attention_mask, position_ids -> logits
    OUT_FOLDER/model.onnx.data      the weights of both
    OUT_FOLDER/tokenizer.json       ids are bytes

Linear weights are int8 with one scale per output (DequantizeLinear before each product); embeddings and norms stay float32.
Needs torch and onnx.
"""

import argparse
import json
import pathlib

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from model import ByteLm, Config

OPSET = 20
LOWEST = float(np.finfo(np.float32).min)


class Emitter:
    """Adds nodes with generated names to a graph."""

    def __init__(self):
        self.nodes, self.initializers, self.count = [], {}, 0

    def op(self, kind, *inputs, name=None, outputs=1, **attrs):
        self.count += 1
        label = name or f"{kind}_{self.count}"
        made = [f"{label}_output_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=label, **attrs))
        return made[0] if outputs == 1 else made

    def constant(self, name, array):
        self.initializers.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def ints(self, *values):
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value, dtype=np.float32):
        return self.constant(f"scalar_{np.dtype(dtype).name}_{value!r}", np.array(value, dtype))

    def linear(self, x, name, weight):
        """x @ weight^T with weight [outputs, inputs] in int8."""
        w = weight.detach().numpy().T
        scale = np.maximum(np.abs(w).max(0), 1e-12).astype(np.float32) / 127
        codes = np.clip(np.rint(w / scale), -127, 127).astype(np.int8)
        quantised = [self.constant(f"{name}.weight", codes), self.constant(f"{name}.scale", scale)]
        return self.op("MatMul", x, self.op("DequantizeLinear", *quantised, name=f"{name}/DequantizeLinear", axis=1),
                       name=f"{name}/MatMul")


def rms_norm(e, x, name, weight):
    mean = e.op("ReduceMean", e.op("Mul", x, x), e.ints(-1), keepdims=1)
    root = e.op("Sqrt", e.op("Add", mean, e.scalar(1e-5)))
    return e.op("Mul", e.op("Div", x, root), e.constant(f"{name}.weight", weight.detach().numpy()))


def stat_top_k(e, x, z):
    mean = e.op("ReduceMean", x, e.ints(-1), keepdims=1)
    centred = e.op("Sub", x, mean)
    std = e.op("Sqrt", e.op("ReduceMean", e.op("Mul", centred, centred), e.ints(-1), keepdims=1))
    cutoff = e.op("Add", mean, e.op("Mul", std, e.scalar(np.float32(z))))
    return e.op("Relu", e.op("Sub", x, cutoff))


def spark_ffn(e, x, name, ffn):
    scores, values = e.op("Split", x, e.ints(ffn.half, ffn.k2.in_features), axis=-1, outputs=2)
    gate = stat_top_k(e, e.linear(scores, f"{name}.k1", ffn.k1.weight), ffn.z)
    hidden = e.op("Mul", e.op("Gelu", gate, approximate="tanh"), e.linear(values, f"{name}.k2", ffn.k2.weight))
    return e.linear(hidden, f"{name}.v", ffn.v.weight)


def dense_ffn(e, x, name, ffn):
    gate = e.op("Gelu", e.linear(x, f"{name}.gate", ffn.gate.weight), approximate="tanh")
    hidden = e.op("Mul", gate, e.linear(x, f"{name}.up", ffn.up.weight))
    return e.linear(hidden, f"{name}.down", ffn.down.weight)


def rotate(e, x, cos, sin, half):
    first, second = e.op("Split", x, e.ints(half, half), axis=-1, outputs=2)
    turned = e.op("Concat", e.op("Neg", second), first, axis=-1)
    return e.op("Add", e.op("Mul", x, cos), e.op("Mul", turned, sin))


def causal_mask(e, ids, past):
    """[1, 1, T, P + T]: 0 where a token may look, the lowest float elsewhere."""
    tokens = e.op("Squeeze", e.op("Shape", ids, start=1, end=2), e.ints(0))
    before = e.op("Squeeze", e.op("Shape", past, start=2, end=3), e.ints(0)) if past else e.scalar(0, np.int64)
    total = e.op("Add", before, tokens)
    rows = e.op("Unsqueeze", e.op("Range", before, total, e.scalar(1, np.int64)), e.ints(1))
    columns = e.op("Range", e.scalar(0, np.int64), total, e.scalar(1, np.int64))
    seen = e.op("LessOrEqual", columns, rows)
    padded = e.op("Cast", e.op("Unsqueeze", "attention_mask", e.ints(1, 2)), to=TensorProto.BOOL)
    allowed = e.op("And", e.op("Unsqueeze", seen, e.ints(0, 1)), padded)
    return e.op("Where", allowed, e.scalar(0.0), e.scalar(LOWEST))


def attention(e, x, name, block, tables, mask, past):
    """Returns the block's output and the keys and values to hand on."""
    heads, dim = block.heads, block.head_dim
    split = lambda y: e.op("Transpose", e.op("Reshape", y, e.ints(0, 0, heads, dim)), perm=[0, 2, 1, 3])
    q, k, v = (split(e.linear(x, f"{name}.{part}", getattr(block, part).weight)) for part in "qkv")
    q, k = rotate(e, q, *tables, dim // 2), rotate(e, k, *tables, dim // 2)
    if past:
        k, v = e.op("Concat", past[0], k, axis=2), e.op("Concat", past[1], v, axis=2)
    scores = e.op("Div", e.op("MatMul", q, e.op("Transpose", k, perm=[0, 1, 3, 2])), e.scalar(np.float32(dim**0.5)))
    weights = e.op("Softmax", e.op("Add", scores, mask), axis=-1)
    merged = e.op("Reshape", e.op("Transpose", e.op("MatMul", weights, v), perm=[0, 2, 1, 3]), e.ints(0, 0, heads * dim))
    return e.linear(merged, f"{name}.o", block.o.weight), (k, v)


def build(model, cached):
    config, e = model.config, Emitter()
    pasts = [[f"past_key_values.{i}.{kind}" for kind in ("key", "value")] if cached else None for i in range(config.layers)]
    mask = causal_mask(e, "input_ids", pasts[0][0] if cached else None)
    tables = []
    for kind in ("cos", "sin"):
        table = e.constant(f"rotary.{kind}", torch.cat([getattr(model, kind)] * 2, -1).numpy())
        tables.append(e.op("Unsqueeze", e.op("Gather", table, "position_ids", axis=0), e.ints(1)))
    embedding = e.constant("embedding.weight", model.embedding.weight.detach().numpy())
    x, presents = e.op("Gather", embedding, "input_ids", axis=0), []
    for i, block in enumerate(model.blocks):
        name = f"layers.{i}"
        normed = rms_norm(e, x, f"{name}.norm1", block.norm1.weight)
        y, state = attention(e, normed, f"{name}.attention", block.attention, tables, mask, pasts[i])
        x = e.op("Add", x, y)
        ffn = spark_ffn if config.kind == "spark" else dense_ffn
        x = e.op("Add", x, ffn(e, rms_norm(e, x, f"{name}.norm2", block.norm2.weight), f"{name}.ffn", block.ffn))
        presents.append(state)
    normed = rms_norm(e, x, "norm", model.norm.weight)
    logits = e.op("MatMul", normed, e.op("Transpose", embedding, perm=[1, 0]), name="head/MatMul")
    return finish(e, config, logits, presents if cached else [])


def finish(e, config, logits, presents):
    ints = lambda name, length: helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", length])
    state = lambda name, length: helper.make_tensor_value_info(
        name, TensorProto.FLOAT, ["batch", config.heads, length, config.head_dim])
    total = "past + sequence" if presents else "sequence"
    inputs = [ints("input_ids", "sequence"), ints("attention_mask", total), ints("position_ids", "sequence")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 256])]
    rename = {logits: "logits"}
    for i, pair in enumerate(presents):
        for kind, value in zip(("key", "value"), pair):
            inputs.append(state(f"past_key_values.{i}.{kind}", "past"))
            outputs.append(state(f"present.{i}.{kind}", total))
            rename[value] = f"present.{i}.{kind}"
    for node in e.nodes:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    graph = helper.make_graph(e.nodes, "byte language model", inputs, outputs, list(e.initializers.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9, producer_name="sprun bytelm")
    if config.kind == "spark":
        helper.set_model_props(model, {"activation_sparsity": f"statistical top-k, {config.active:.0%} of {config.neurons}"})
    return model


def save(models, folder):
    """Both graphs, with all larger weights in one file that they share."""
    data, places = bytearray(), {}
    for name, model in models.items():
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if len(raw) < 1024:
                continue
            if tensor.name not in places:
                data.extend(bytes(-len(data) % 64))
                places[tensor.name] = (len(data), len(raw))
                data.extend(raw)
            offset, length = places[tensor.name]
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "model.onnx.data"), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
        (folder / name).write_bytes(model.SerializeToString())
    (folder / "model.onnx.data").write_bytes(bytes(data))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {"type": "ByteLevelIds"}}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("folder")
    args = parser.parse_args()
    saved = torch.load(args.checkpoint, weights_only=True)
    model = ByteLm(Config(**saved["config"])).eval()
    model.load_state_dict(saved["state"])
    folder = pathlib.Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    save({"model.onnx": build(model, True), "model_no_cache.onnx": build(model, False)}, folder)
    onnx.checker.check_model(str(folder / "model.onnx"))
    print(f"{folder}: {sum(f.stat().st_size for f in folder.iterdir())} bytes")


if __name__ == "__main__":
    main()
