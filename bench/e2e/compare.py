#!/usr/bin/env python3
"""Latency of sprun against ONNX Runtime (and OpenVINO, if installed) on the same models and inputs, in one run.

    compare.py MODEL.onnx... [--dim seq=32,128,384] [--threads 1,2] [--engines sprun,ort,openvino] [--busy]

Every engine runs in a process of its own that is kept for the whole comparison. The engines take turns in short
batches (A B C, B C A, ...), so that a disturbance of the machine hits all of them. Reported are the ratio of the
medians and of the 99th percentiles sprun/other over all iterations, and the quartiles of the per-batch ratio. A ratio
below 1 means that sprun is faster. Needs numpy and onnxruntime; sprun is taken from --sprun.

--busy occupies one of the cores with a spinning process while measuring.
--check also compares the outputs of the engines: largest difference relative to the largest value, and cosine.
"""
import argparse
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

BATCH_MS = 120
PAUSE_S = 0.02  # lets spinning worker threads of the engine before go to sleep
ROOT = pathlib.Path(__file__).resolve().parents[2]

# --- inputs


def parse_dims(arguments):
    """["batch=1,seq=32,128"] -> {"batch": [1], "seq": [32, 128]}"""
    dims, name = {}, None
    for part in ",".join(arguments).split(","):
        if "=" in part:
            name, part = part.split("=", 1)
            name = name.lower()  # as size_of() compares
            dims[name] = []
        if name and part:
            dims[name].append(int(part))
    return dims


DEFAULTS = (("past", 0), ("batch", 1), ("seq", 128), ("len", 128), ("channel", 3), ("height", 224), ("width", 224))


def size_of(symbol, axis, dims):
    """Size of a symbolic dimension: as given (a part of the name is enough), else by common names."""
    symbol = str(symbol or ("batch" if axis == 0 else "seq")).lower()
    if symbol in dims:
        return dims[symbol]
    parts = [size for name, size in dims.items() if name in symbol]
    if "total" in symbol or "+" in symbol:
        return sum(dims.get(n, 0) for n in ("past", "seq"))
    if parts:
        return parts[0]
    for name, size in DEFAULTS:
        if name in symbol:
            return size
    return 1


def make_inputs(path, dims, vocab, seed=0):
    """Inputs for a model by the names and types that ONNX Runtime reports."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    rng = np.random.default_rng(seed)
    inputs = {}
    for spec in onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).get_inputs():
        shape = [d if isinstance(d, int) else size_of(d, axis, dims) for axis, d in enumerate(spec.shape)]
        dtype = {"int64": np.int64, "int32": np.int32, "float": np.float32, "bool": np.bool_,
                 "float16": np.float16, "uint8": np.uint8}[spec.type[7:-1]]
        name = spec.name.lower()
        if "mask" in name:
            value = np.ones(shape)
        elif np.issubdtype(dtype, np.floating):
            value = rng.standard_normal(shape)
        elif "position" in name:
            value = np.broadcast_to(np.arange(shape[-1]), shape)
        elif "token_type" in name or "segment" in name:
            value = np.zeros(shape)
        else:
            value = rng.integers(0, vocab, shape)
        inputs[spec.name] = np.ascontiguousarray(value, dtype=dtype)
    return inputs


# --- engines: processes that answer "run N" and "memory" with a line of JSON


def peak_rss():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def ort_runner(path, inputs, threads):
    import onnxruntime

    def load():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_cpu_input(name, value)
        for output in session.get_outputs():
            binding.bind_output(output.name, "cpu")
        return lambda: session.run_with_iobinding(binding)

    return load


def openvino_runner(path, inputs, threads):
    import openvino

    def load():
        compiled = openvino.Core().compile_model(
            path, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
                          "INFERENCE_PRECISION_HINT": "f32"})  # bfloat16 otherwise, where the CPU has it
        request = compiled.create_infer_request()
        for name, value in inputs.items():
            request.set_tensor(name, openvino.Tensor(value, shared_memory=True))
        return request.infer

    return load


RUNNERS = {"ort": ort_runner, "openvino": openvino_runner}


def worker(engine, path, inputs_file, threads):
    """The other side of Engine for engines that are Python packages."""
    inputs = dict(np.load(inputs_file))
    load = RUNNERS[engine](path, inputs, threads)
    base = peak_rss()
    start = time.perf_counter()
    run = load()
    loaded = time.perf_counter()
    run()
    first = time.perf_counter()
    print(json.dumps({"load_ms": 1000 * (loaded - start), "first_ms": 1000 * (first - loaded)}), flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "run":
            times = []
            for _ in range(int(words[1])):
                begin = time.perf_counter()
                run()
                times.append(1000 * (time.perf_counter() - begin))
            answer = {"latency_ms": times}
        else:
            answer = {"peak_rss_bytes": peak_rss(), "base_rss_bytes": base}
        print(json.dumps(answer), flush=True)


class Engine:
    def __init__(self, name, args, path, inputs_file, threads):
        self.name = name
        if name == "sprun":
            command = [args.sprun, "run", path, "-i", inputs_file, "--threads", str(threads), "--loop",
                       "--precision", args.precision]
        else:
            command = [sys.executable, __file__, "--worker", name, path, inputs_file, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = self.read()
        self.batches = []
        warm = self.ask("run 5")["latency_ms"]
        self.batch = max(1, min(200, int(BATCH_MS / max(0.01, float(np.median(warm))))))

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"compare.py: {self.name} ended with code {self.process.wait()}")
        return json.loads(line)

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.read()

    def measure(self):
        self.batches.append(self.ask(f"run {self.batch}")["latency_ms"])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def spin():
    """A process that keeps one of the allowed cores busy."""
    pid = os.fork()
    if pid == 0:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        while True:
            pass
    return pid


# --- one comparison


def stats(engine):
    times = np.concatenate([np.array(b) for b in engine.batches])
    memory = engine.ask("memory")
    return {"p50_ms": float(np.median(times)), "p90_ms": float(np.quantile(times, 0.9)),
            "p99_ms": float(np.quantile(times, 0.99)), "min_ms": float(times.min()), "iterations": len(times),
            "load_ms": engine.hello["load_ms"], "first_ms": engine.hello["first_ms"],
            "peak_rss_bytes": memory["peak_rss_bytes"], "base_rss_bytes": memory.get("base_rss_bytes", 0)}


def compare(args, path, dims, threads, folder):
    inputs = make_inputs(path, dims, args.vocab)
    inputs_file = str(folder / "inputs.npz")
    np.savez(inputs_file, **inputs)
    engines = [Engine(name, args, path, inputs_file, threads) for name in args.engines]
    busy = spin() if args.busy else None
    end = time.monotonic() + args.time * len(engines)
    order = itertools.cycle(range(len(engines)))
    while time.monotonic() < end or len(engines[0].batches) < 5:
        shift = next(order)
        for engine in engines[shift:] + engines[:shift]:
            engine.measure()
            time.sleep(PAUSE_S)
    if busy:
        os.kill(busy, signal.SIGKILL)
        os.waitpid(busy, 0)
    result = {"model": path, "dims": dims, "threads": threads, "precision": args.precision, "busy": args.busy,
              "engines": {e.name: stats(e) for e in engines}, "ratios": {}}
    ours = engines[0]
    for other in engines[1:]:
        a, b = result["engines"][ours.name], result["engines"][other.name]
        pairs = [np.median(x) / np.median(y) for x, y in zip(ours.batches, other.batches)]
        result["ratios"][other.name] = {
            "p50": a["p50_ms"] / b["p50_ms"], "p99": a["p99_ms"] / b["p99_ms"],
            "batch_q25": float(np.quantile(pairs, 0.25)), "batch_q75": float(np.quantile(pairs, 0.75)),
            "load": a["load_ms"] / b["load_ms"]}
    for engine in engines:
        engine.close()
    if args.check:
        result["difference"] = difference(args, path, inputs, inputs_file, folder)
    return result


def difference(args, path, inputs, inputs_file, folder):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = str(folder / "outputs.npz")
    subprocess.run([args.sprun, "run", path, "-i", inputs_file, "-o", outputs, "--iterations", "1", "--warmup", "0",
                    "--precision", args.precision], check=True, stdout=subprocess.DEVNULL)
    got, worst, cosine = np.load(outputs), 0.0, 1.0
    for spec, want in zip(session.get_outputs(), session.run(None, inputs)):
        a, b = got[spec.name].astype(np.float64).ravel(), np.asarray(want, dtype=np.float64).ravel()
        if b.size:
            worst = max(worst, float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)))
            cosine = min(cosine, float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30)))
    return {"max_relative": worst, "min_cosine": cosine}


def report(result):
    name = pathlib.Path(result["model"])
    label = name.parent.name if name.stem == "model" else name.stem
    sizes = ",".join(f"{k}={v}" for k, v in result["dims"].items())
    ours = result["engines"]["sprun"]
    line = f"{label:<24} {sizes:<18} t={result['threads']}  sprun {ours['p50_ms']:9.3f} ms"
    for other, ratio in result["ratios"].items():
        theirs = result["engines"][other]
        line += (f" | {other} {theirs['p50_ms']:9.3f} ms  ratio p50 {ratio['p50']:.3f} "
                 f"[{ratio['batch_q25']:.2f} {ratio['batch_q75']:.2f}]  p99 {ratio['p99']:.3f}  load {ratio['load']:.2f}")
    rss = " / ".join(f"{e['peak_rss_bytes'] / 2**20:.0f}" for e in result["engines"].values())
    line += f" | peak MiB {rss}"
    if "difference" in result:
        line += f" | difference {result['difference']['max_relative']:.1e} cosine {result['difference']['min_cosine']:.6f}"
    print(line, flush=True)


def default_engines():
    engines = ["sprun"]
    for name, package in (("ort", "onnxruntime"), ("openvino", "openvino")):
        try:
            __import__(package)
            engines.append(name)
        except ImportError:
            print(f"compare.py: {package} is not installed, left out", file=sys.stderr)
    return engines


def main():
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--dim", action="append", default=[], help="sizes by symbol, lists allowed: batch=1,seq=32,128")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--precision", default="f32", help="of sprun: f32, bf16, int8")
    parser.add_argument("--engines", help="sprun first; default: sprun and what is installed")
    parser.add_argument("--time", type=float, default=4, help="seconds per engine and combination")
    parser.add_argument("--vocab", type=int, default=1000, help="token ids are below this")
    parser.add_argument("--sprun", default=str(ROOT / "build/release/bin/sprun"))
    parser.add_argument("--busy", action="store_true", help="occupy one core with a spinning process")
    parser.add_argument("--check", action="store_true", help="also compare outputs with ONNX Runtime")
    parser.add_argument("--json", help="write every figure to this file")
    args = parser.parse_args()
    args.engines = args.engines.split(",") if args.engines else default_engines()
    lists = parse_dims(args.dim)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for path in args.models:
            for sizes in itertools.product(*lists.values()):
                for threads in map(int, args.threads.split(",")):
                    results.append(compare(args, path, dict(zip(lists, sizes)), threads, pathlib.Path(folder)))
                    report(results[-1])
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
