#!/usr/bin/env python3
"""Decoding speed of sprun against ONNX Runtime on the same decoder file, beside the rate at which memory can be read.

    decode.py MODEL.onnx... [--past 32,512] [--threads 1,2]        one token, the cache holds L tokens before it
    decode.py MODEL.onnx... --generate 64 [--past 32]              a prompt of L tokens, then 64 tokens greedily

Sides take turns in short batches, as in compare.py: sprun, ONNX Runtime and a pass over memory with the same threads
(`sprun devices --loop`). ONNX Runtime gets its inputs and outputs bound, in one step with every size fixed when the
session is made, in the loop with the cache handed from output to input without copies. Ratios are those of medians,
below 1: sprun is faster; the brackets are quartiles of the ratio per round.

Bytes per token: constants of the file, but of tables that are only gathered from, plus the cache read once (float32).
"of read" is tokens/s * bytes per token / bytes read per second, the median over rounds. A model that skips work (Spark)
reads less than that: give --bytes. Needs numpy, onnx and onnxruntime.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

import compare

ROUND_MS = 150
PAUSE_S = 0.1  # ONNX Runtime's threads spin on after a run: 20 ms later they still took a fifth of the next side's rate
TABLE_OPS = {"Gather", "GatherBlockQuantized"}

# --- what a token costs


def bytes_per_token(path, past):
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    only_gathered = {}
    for node in graph.node:
        for at, name in enumerate(node.input):
            only_gathered[name] = only_gathered.get(name, True) and node.op_type in TABLE_OPS and at == 0
    total = 0
    for tensor in graph.initializer:
        if not only_gathered.get(tensor.name, True):
            size = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
            total += size * int(np.prod(tensor.dims, dtype=np.int64))
    for value in graph.input:
        shape = value.type.tensor_type.shape.dim
        if value.name.startswith("past_key_values") and len(shape) == 4:
            total += 4 * shape[1].dim_value * past * shape[3].dim_value
    return total


# --- ONNX Runtime, in a process of its own


def session_of(path, threads, fixed_sizes):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    for name, size in fixed_sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class OrtStep:
    """One token after L tokens, again and again, into the same memory."""

    def __init__(self, path, inputs, threads):
        from onnxruntime import OrtValue

        sizes = {}
        for spec in session_of(path, 1, {}).get_inputs():
            pairs = zip(spec.shape, inputs[spec.name].shape)
            sizes |= {d: n for d, n in pairs if isinstance(d, str) and d.isidentifier()}
        self.session = session_of(path, threads, sizes)
        self.binding = self.session.io_binding()
        for name, value in inputs.items():
            self.binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(value))
        outputs = self.session.run(None, inputs)
        for spec, value in zip(self.session.get_outputs(), outputs):
            self.binding.bind_ortvalue_output(spec.name, OrtValue.ortvalue_from_numpy(value))

    def run(self):
        start = time.perf_counter()
        self.session.run_with_iobinding(self.binding)
        return 1000 * (time.perf_counter() - start), None


class OrtLoop:
    """A prompt, then tokens one by one; the milliseconds of one token."""

    def __init__(self, path, inputs, threads, count):
        self.session = session_of(path, threads, {})
        self.prompt = inputs["input_ids"]
        self.names = [spec.name for spec in self.session.get_inputs()]
        self.empty = {n: v for n, v in inputs.items() if n.startswith("past_key_values")}
        self.count = count

    def step(self, ids, past, cache):
        from onnxruntime import OrtValue

        binding = self.session.io_binding()
        feeds = {"input_ids": ids, "attention_mask": np.ones((1, past + ids.shape[1]), np.int64),
                 "position_ids": np.arange(past, past + ids.shape[1], dtype=np.int64)[None]}
        for name in self.names:
            value = cache.get(name)
            binding.bind_ortvalue_input(name, value or OrtValue.ortvalue_from_numpy(feeds[name]))
        outputs = [spec.name for spec in self.session.get_outputs()]
        for name in outputs:
            binding.bind_output(name, "cpu")
        self.session.run_with_iobinding(binding)
        values = dict(zip(outputs, binding.get_outputs()))
        token = int(values["logits"].numpy()[0, -1].argmax())
        return token, {n.replace("present", "past_key_values"): v for n, v in values.items() if n != "logits"}

    def run(self):
        from onnxruntime import OrtValue

        cache = {n: OrtValue.ortvalue_from_numpy(v) for n, v in self.empty.items()}
        past = self.prompt.shape[1]
        token, cache = self.step(self.prompt, 0, cache)
        tokens = [token]
        start = time.perf_counter()
        while len(tokens) < self.count:
            token, cache = self.step(np.array([[token]], np.int64), past, cache)
            tokens.append(token)
            past += 1
        return 1000 * (time.perf_counter() - start) / max(1, len(tokens) - 1), tokens


def worker(path, inputs_file, threads, count):
    inputs = dict(np.load(inputs_file))
    side = OrtLoop(path, inputs, threads, count) if count else OrtStep(path, inputs, threads)
    print("ready", flush=True)
    for line in sys.stdin:
        answers = [side.run() for _ in range(int(line))]
        print(json.dumps({"ms": [a[0] for a in answers], "tokens": answers[-1][1]}), flush=True)


# --- sides: round(n) appends the figure of each of n runs to `rounds`


class Process:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.rounds = []
        self.tokens = None

    def line(self):
        text = self.process.stdout.readline()
        if not text:
            sys.exit(f"decode.py: {' '.join(self.process.args)} ended with code {self.process.wait()}")
        return text

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return json.loads(self.line())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class SprunStep(Process):
    def __init__(self, args, path, inputs_file, threads):
        super().__init__([args.sprun, "run", path, "-i", inputs_file, "--threads", str(threads), "--loop",
                          "--precision", args.precision])
        self.line()

    def round(self, count):
        self.rounds.append(self.ask(f"run {count}")["latency_ms"])


class SprunLoop:
    """`sprun generate`, a process each time: it loads the model, which is not counted."""

    def __init__(self, args, path, prompt, threads):
        self.command = [args.sprun, "generate", path, "--tokens", ",".join(map(str, prompt)), "--max-new-tokens",
                        str(args.generate), "--threads", str(threads), "--precision", args.precision, "--json", "-"]
        self.rounds = []
        self.tokens = None

    def round(self, count):
        answers = [json.loads(subprocess.run(self.command, check=True, capture_output=True).stdout)
                   for _ in range(count)]
        self.rounds.append([1000 / a["decode_tokens_per_s"] for a in answers])
        self.tokens = answers[-1]["tokens"]

    def close(self):
        pass


class Ort(Process):
    def __init__(self, args, path, inputs_file, threads):
        super().__init__([sys.executable, __file__, "--worker", path, inputs_file, str(threads), str(args.generate)])
        self.line()

    def round(self, count):
        answer = self.ask(str(count))
        self.rounds.append(answer["ms"])
        self.tokens = answer["tokens"]


class Reader(Process):
    def __init__(self, args, threads):
        super().__init__([args.sprun, "devices", "--loop", "--threads", str(threads)])

    def round(self, count):
        self.rounds.append(self.ask(f"read {count}")["read_gbytes_per_s"])


# --- one comparison


def make_inputs(args, path, past):
    length = past if args.generate else 1
    dims = {"past": 0 if args.generate else past, "batch": 1, "seq": length}
    inputs = compare.make_inputs(path, dims, args.vocab)
    if "position_ids" in inputs:
        inputs["position_ids"] = inputs["position_ids"] + dims["past"]
    return inputs


def measure(args, path, past, threads, folder):
    inputs = make_inputs(args, path, past)
    inputs_file = str(folder / "inputs.npz")
    np.savez(inputs_file, **inputs)
    if args.generate:
        ours = SprunLoop(args, path, inputs["input_ids"].ravel().tolist(), threads)
    else:
        ours = SprunStep(args, path, inputs_file, threads)
    sides = [ours, Ort(args, path, inputs_file, threads), Reader(args, threads)]
    counts = [1, 1, 8]
    for side, count in zip(sides, counts):
        side.round(count)  # warms up, and says how long one takes
    if not args.generate:
        counts[:2] = [max(1, min(200, int(ROUND_MS / side.rounds[0][0]))) for side in sides[:2]]
    for side in sides:
        side.rounds.clear()
    end = time.monotonic() + args.time * len(sides)
    turn = 0
    while time.monotonic() < end or turn < 5:
        for i in range(len(sides)):
            at = (turn + i) % len(sides)
            sides[at].round(counts[at])
            time.sleep(PAUSE_S)
        turn += 1
    for side in sides:
        side.close()
    return sides


def summary(args, path, past, threads, sides):
    ours, ort, reader = ([np.median(r) for r in side.rounds] for side in sides)
    # The loop grows its cache: half of the new tokens lie in it on average.
    length = past + args.generate // 2
    cost = args.bytes or bytes_per_token(path, length)
    pairs = [a / b for a, b in zip(ours, ort)]
    share = [cost / (ms * 1e-3) * 1e-9 / rate for ms, rate in zip(ours, reader)]
    other = [cost / (ms * 1e-3) * 1e-9 / rate for ms, rate in zip(ort, reader)]
    return {"model": path, "past": past, "generate": args.generate, "threads": threads, "precision": args.precision,
            "sprun_ms": float(np.median(ours)), "ort_ms": float(np.median(ort)),
            "ratio": float(np.median(ours) / np.median(ort)),
            "ratio_q25": float(np.quantile(pairs, 0.25)), "ratio_q75": float(np.quantile(pairs, 0.75)),
            "bytes_per_token": cost, "read_gbytes_per_s": float(np.median(reader)),
            "of_read": float(np.median(share)), "ort_of_read": float(np.median(other)),
            "same_tokens": None if sides[0].tokens is None else common(sides[0].tokens, sides[1].tokens)}


def common(a, b):
    """How many tokens agree before the first that does not."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def report(r):
    name = f"{pathlib.Path(r['model']).stem:<20} past={r['past']:<5} t={r['threads']}"
    gbytes = r["bytes_per_token"] / r["sprun_ms"] * 1e-6
    line = (f"{name} sprun {r['sprun_ms']:8.3f} ms {1000 / r['sprun_ms']:7.1f} tokens/s | ort {r['ort_ms']:8.3f} ms "
            f"ratio {r['ratio']:.3f} [{r['ratio_q25']:.2f} {r['ratio_q75']:.2f}], {1 / r['ratio']:.2f}x | "
            f"{r['bytes_per_token'] / 1e6:.1f} MB/token, {gbytes:.1f} GB/s, {100 * r['of_read']:.0f} % of read "
            f"({r['read_gbytes_per_s']:.1f} GB/s; ort {100 * r['ort_of_read']:.0f} %)")
    if r["same_tokens"] is not None:
        line += f" | {r['same_tokens']} of {r['generate']} tokens equal"
    print(line, flush=True)


def main():
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--past", default="32,512", help="tokens in the cache, or of the prompt")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--generate", type=int, default=0, help="tokens to generate; 0: one step at a fixed length")
    parser.add_argument("--precision", default="f32", help="of sprun: f32, bf16, int8")
    parser.add_argument("--bytes", type=int, default=0, help="bytes per token, instead of those of all weights")
    parser.add_argument("--time", type=float, default=4, help="seconds per side")
    parser.add_argument("--vocab", type=int, default=250, help="token ids are below this")
    parser.add_argument("--sprun", default=str(compare.ROOT / "build/release/bin/sprun"))
    parser.add_argument("--json", help="write every figure to this file")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for path in args.models:
            for past in map(int, args.past.split(",")):
                for threads in map(int, args.threads.split(",")):
                    sides = measure(args, path, past, threads, pathlib.Path(folder))
                    results.append(summary(args, path, past, threads, sides))
                    report(results[-1])
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
