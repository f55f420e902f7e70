#!/usr/bin/env python3
"""Greedy tokens of `sprun generate` against a loop over ONNX Runtime on the same file.

    generate_like_onnxruntime.py SPRUN [MODEL.onnx ...] [--tokens 64] [--kv f32]

Without models: every decoder of ../shared/models and tools/bytelm, and GroupQueryAttention decoders that it makes with random weights.
Prints one line a model and exits 1 if any token differs in f32. With --kv bf16 or int8 it prints the share of steps with
the same first choice given the same text instead. Needs numpy, onnx and onnxruntime.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "models"
DECODERS = ["stories260k/model.onnx", "stories260k/model_no_cache.onnx", "stories260k/model_int8_dynamic.onnx",
            "exported-random/gpt2-past-op13/model.onnx", "exported-random/gemma-like-past-op14/model.onnx",
            "graphs-ort-genai/tiny-random-gpt2-fp32_past/model.onnx",
            "graphs-ort-genai/tiny-random-lfm2-fp32_decoder/model.onnx"]
OWN = pathlib.Path(__file__).resolve().parents[2] / "tools" / "bytelm"
OWN_DECODERS = ["spark/model.onnx", "dense/model.onnx", "spark/model_no_cache.onnx"]
PROMPT = [5, 17, 3, 99, 42, 8]
TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(bool)": np.bool_}


class Loop:
    """A decoder in ONNX Runtime, one step at a time."""

    def __init__(self, path):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = self.session.get_inputs()
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.states = {i.name: self.empty(i) for i in self.inputs if "past" in i.name}
        self.text = []

    @staticmethod
    def empty(spec):
        shape = list(spec.shape)
        batch, length = (1, 3) if len(shape) == 5 else (0, 2)
        shape[batch] = 1
        shape[length] = shape[length] if isinstance(shape[length], int) else 0
        return np.zeros(shape, TYPES[spec.type])

    def append(self, ids):
        past = len(self.text) if self.states else 0
        self.text += ids
        new = ids if self.states else self.text
        feed = dict(self.states)
        for spec in self.inputs:
            if spec.name in feed:
                continue
            if "mask" in spec.name:
                value = np.ones((1, past + len(new)))
            elif "position" in spec.name:
                value = np.arange(past, past + len(new))[None]
            else:
                value = np.array([new])
            feed[spec.name] = value.astype(TYPES[spec.type])
        results = dict(zip(self.outputs, self.session.run(None, feed)))
        for name in self.states:
            present = [name.replace("past_key_values", "present"), name.replace("past", "present")]
            self.states[name] = next(results[p] for p in present if p in results)
        return next(v for k, v in results.items() if "logits" in k)[0, -1]


def sprun_tokens(sprun, path, count, kv):
    command = [sprun, "generate", str(path), "--tokens", ",".join(map(str, PROMPT)), "--max-new-tokens", str(count),
               "--kv", kv, "--threads", "2", "--json", "-"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(sprun, path, count, kv):
    """(share of steps where ONNX Runtime, given sprun's text, chooses the same token; how the past was kept)."""
    result = sprun_tokens(sprun, path, count, kv)
    loop, same = Loop(path), 0
    logits = loop.append(list(PROMPT))
    for token in result["tokens"]:
        same += int(logits.argmax() == token)
        logits = loop.append([token])
    return same / len(result["tokens"]), "in place" if result["cached"] else "replayed: " + result["why_not_cached"]


def group_query_decoder(path, kv_heads=2, packed=False, rotary=1, interleaved=0, window=-1):
    """Two layers of GroupQueryAttention and a head, in the form of onnxruntime-genai's exporter."""
    random, heads, dim, vocabulary = np.random.default_rng(7), 4, 16, 100
    hidden, nodes, constants = heads * dim, [], []

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(name, *shape):
        return constant(name, (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))

    def op(kind, inputs, outputs, **attrs):
        nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0], **attrs))
        return outputs[0]

    axis = constant("axis", np.array([1], np.int64))
    total = op("Gather", [op("Shape", ["attention_mask"], ["shape"]), constant("index", np.array(1, np.int64))], ["length"])
    total = op("Cast", [total], ["total"], to=TensorProto.INT32)
    last = op("Sub", [op("ReduceSum", ["attention_mask", axis], ["sum"], keepdims=1), axis], ["last"])
    last = op("Cast", [last], ["seqlens"], to=TensorProto.INT32)
    angles = np.arange(512)[:, None] * 10000.0 ** (-np.arange(dim // 2) / (dim // 2))
    tables = [constant("cos", np.cos(angles).astype(np.float32)), constant("sin", np.sin(angles).astype(np.float32))]
    x, states = op("Gather", [weight("table", vocabulary, hidden), "input_ids"], ["x"]), []
    for i in range(2):
        past, present = ([f"{kind}.{i}.{part}" for part in ("key", "value")] for kind in ("past_key_values", "present"))
        states.append((past, present))
        if packed:
            qkv = [op("MatMul", [x, weight(f"qkv{i}", hidden, (heads + 2 * kv_heads) * dim)], [f"p{i}"]), "", ""]
        else:
            sizes = {"q": heads, "k": kv_heads, "v": kv_heads}
            qkv = [op("MatMul", [x, weight(f"w{n}{i}", hidden, h * dim)], [f"{n}{i}"]) for n, h in sizes.items()]
        op("GroupQueryAttention", qkv + past + [last, total] + (tables if rotary else []), [f"a{i}"] + present,
           domain="com.microsoft", num_heads=heads, kv_num_heads=kv_heads, local_window_size=window, do_rotary=rotary,
           rotary_interleaved=interleaved)
        x = op("Add", [x, op("MatMul", [f"a{i}", weight(f"o{i}", hidden, hidden)], [f"y{i}"])], [f"x{i}"])
    op("MatMul", [x, weight("head", hidden, vocabulary)], ["logits"])
    info = helper.make_tensor_value_info
    inputs = [info("input_ids", TensorProto.INT64, ["b", "s"]), info("attention_mask", TensorProto.INT64, ["b", "t"])]
    outputs = [info("logits", TensorProto.FLOAT, ["b", "s", vocabulary])]
    for past, present in states:
        inputs += [info(name, TensorProto.FLOAT, ["b", kv_heads, "p", dim]) for name in past]
        outputs += [info(name, TensorProto.FLOAT, ["b", kv_heads, "t", dim]) for name in present]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


VARIANTS = {"grouped": {}, "packed": {"packed": True}, "no rotary": {"rotary": 0}, "interleaved": {"interleaved": 1},
            "window": {"window": 5}, "all heads packed": {"kv_heads": 4, "packed": True}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sprun")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--kv", default="f32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {path: path for path in args.models}
        if not models:
            models = {name: SHARED / name for name in DECODERS if (SHARED / name).exists()}
            models |= {f"bytelm/{name}": OWN / name for name in OWN_DECODERS}
            for name, options in VARIANTS.items():
                models[f"GroupQueryAttention, {name}"] = pathlib.Path(folder) / f"{len(models)}.onnx"
                group_query_decoder(models[f"GroupQueryAttention, {name}"], **options)
        failed = 0
        for name, path in models.items():
            share, kept = compare(args.sprun, path, args.tokens, args.kv)
            failed += share < 1
            print(f"{100 * share:6.2f} %  {name}  ({kept})", flush=True)
    sys.exit(1 if failed and args.kv == "f32" else 0)


if __name__ == "__main__":
    main()
