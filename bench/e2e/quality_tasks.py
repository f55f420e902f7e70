"""Real models with data that say how good they are, for compress_quality.py and reference_quality.py.

A task has a name, the ONNX file `model`, calibration data as a dict of arrays (`calibration`; sprun learns from `samples` of it) that
does not overlap with what judges, and scores(path of a file), one number for each of `units`. scores takes the engine too: a function
from a path to an object with run(names of outputs or None, dict of arrays). args.every N: only each Nth sentence, story or window
judges. Needs numpy, onnx, onnxruntime and, for MiniLM, tokenizers.
"""
import csv
import json
import pathlib
import unicodedata

import numpy as np
import onnx
import onnxruntime as ort


class Unigram:
    """The most likely split of a text into scored pieces; unknown characters are id 0."""

    def __init__(self, path):
        pieces = json.loads(path.read_text())
        self.scores = {piece: (score, i) for i, (piece, score) in enumerate(pieces)}
        self.longest = max(map(len, self.scores))

    def ids(self, text):
        text = "\u2581" + unicodedata.normalize("NFKC", text).replace(" ", "\u2581")
        best = [(0.0, -1, -1)] + [(-1e30, -1, -1)] * len(text)
        for end in range(1, len(text) + 1):
            for start in range(max(0, end - self.longest), end):
                score, piece = self.scores.get(text[start:end], (-100.0, 0) if end - start == 1 else (None, 0))
                if score is not None and best[start][0] + score > best[end][0]:
                    best[end] = (best[start][0] + score, start, piece)
        out, at = [], len(text)
        while at > 0:
            _, start, piece = best[at]
            if not (piece == 0 and out and out[-1] == 0):
                out.append(piece)
            at = start
        return out[::-1]


def padded(rows, length=None):
    length = length or max(map(len, rows))
    ids = np.zeros((len(rows), length), np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, :len(row)], mask[i, :len(row)] = row[:length], 1
    return ids, mask


def positions(ids):
    return np.ascontiguousarray(np.broadcast_to(np.arange(ids.shape[1]), ids.shape))


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def with_held_out(samples):
    """How many samples to give so that this many are learnt from: sprun keeps an eighth, 64 at most."""
    return min(samples * 8 // 7 + 1, samples + 64)


def nats(logits, targets):
    """Negative log-likelihoods of targets[i] by logits[i]."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(targets)), targets]


class Banking:
    """Sentence embeddings: 1-nearest-neighbour accuracy of Banking77's dev.csv over train.csv; calibrated on sentences of train.csv."""
    units = ["1-NN %"]

    def __init__(self, args, encode, names):
        self.names, data, samples = names, {}, args.samples
        for part in ("train", "dev"):
            with open(args.shared / f"data/banking77/{part}.csv", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            data[part] = [encode(r["text"])[:128] for r in rows], np.array([r["category"] for r in rows])
        self.train, self.dev = ([part[::args.every] for part in data[name]] for name in ("train", "dev"))
        picked = np.random.default_rng(0).permutation(len(data["train"][0]))[:with_held_out(samples)]
        self.samples = samples
        self.calibration = self.feed([data["train"][0][i] for i in picked], 32)

    def feed(self, rows, length=None):
        ids, mask = padded(rows, length)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: feed[name] for name in self.names}

    def embed(self, run, rows):
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        out = [None] * len(rows)
        for first in range(0, len(rows), 64):
            part = order[first:first + 64]
            for i, vector in zip(part, run.run([self.output], self.feed([rows[i] for i in part]))[0]):
                out[i] = vector
        return np.stack(out)

    def nearest_neighbours(self, run):
        train, dev = self.embed(run, self.train[0]), self.embed(run, self.dev[0])
        nearest = (dev @ train.T).argmax(axis=1)
        return 100 * float(np.mean(self.train[1][nearest] == self.dev[1]))

    def scores(self, path, engine=session):
        return [self.nearest_neighbours(engine(path))]


class UseLite(Banking):
    """Banking77, and a ridge probe (lambda 3) of sentiment on sentences of another kind than those of the calibration."""
    name, units = "use-lite", ["1-NN %", "sentiment %"]

    def __init__(self, args):
        self.model = args.shared / "models/use-lite/model.onnx"
        encode = Unigram(self.model.parent / "vocab.json").ids
        self.output = onnx.load(self.model, load_external_data=False).graph.output[0].name
        super().__init__(args, encode, ["input_ids", "attention_mask"])
        self.sentiment = []
        for part in ("train", "dev"):
            lines = (args.shared / f"data/sentiment-sentences/{part}.tsv").read_text(encoding="utf-8").splitlines()[1:]
            rows = [line.split("\t") for line in lines]
            self.sentiment.append(([encode(row[0])[:128] for row in rows], np.array([int(row[1]) for row in rows])))

    def probe(self, run):
        (x, y), (test, truth) = [(self.embed(run, rows).astype(np.float64), labels) for rows, labels in self.sentiment]
        mean, shift = x.mean(axis=0), y.mean()
        w = np.linalg.solve((x - mean).T @ (x - mean) + 3 * np.eye(x.shape[1]), (x - mean).T @ (y - shift))
        return 100 * float(np.mean(((test - mean) @ w + shift > 0.5) == truth))

    def scores(self, path, engine=session):
        run = engine(path)
        return [self.nearest_neighbours(run), self.probe(run)]


class MiniLm(Banking):
    """all-MiniLM-L6-v2 in a folder with model.onnx as tools/convert_minilm.py writes it and tokenizer.json."""
    name, output = "MiniLM", "sentence_embedding"

    def __init__(self, args):
        from tokenizers import Tokenizer
        if args.minilm is None:
            raise FileNotFoundError("no --minilm FOLDER")
        self.model = args.minilm / "model.onnx"
        tokenizer = Tokenizer.from_file(str(args.minilm / "tokenizer.json"))
        tokenizer.no_padding()
        super().__init__(args, lambda text: tokenizer.encode(text).ids, ["input_ids", "attention_mask", "token_type_ids"])


class Stories:
    """Calibrated on the first half of its sampled stories, judged on the second."""
    name, units = "stories260k", ["nats/token"]

    def __init__(self, args):
        self.model = args.shared / "models/stories260k/model_no_cache.onnx"
        lines = (self.model.parent / "dense_samples.ids.txt").read_text().splitlines()
        stories = [list(map(int, line.split())) for line in lines if line.strip()]
        half = len(stories) // 2
        self.stories, self.held_out = stories, stories[half::args.every]
        ids, mask = padded(stories[:half])
        self.samples = half
        self.calibration = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(ids)}

    def scores(self, path, engine=session):
        run, losses = engine(path), []
        for story in self.held_out:
            ids, mask = padded([story])
            logits = run.run(None, {"input_ids": ids, "attention_mask": mask, "position_ids": positions(ids)})[0][0]
            losses.append(nats(logits[:-1], np.array(story[1:])))
        return [float(np.concatenate(losses).mean())]


def with_float_weights(path, folder):
    """The model with int8 weights replaced by the floats they stand for: what pruning starts from."""
    model = onnx.load(path)
    constants = {t.name: t for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            nodes.append(node)
            continue
        codes, scale = (onnx.numpy_helper.to_array(constants[name]) for name in node.input)
        tensor = onnx.numpy_helper.from_array(codes.astype(np.float32) * scale, node.output[0])
        model.graph.initializer.append(tensor)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    out = folder / f"{path.parent.name}-float.onnx"
    onnx.save(model, out)
    return out


class ByteLm:
    """tools/bytelm on the corpus of shared/: the last 3 % of each text judge (its training has not seen them), windows of 512 bytes."""
    units, window = ["bits/byte"], 512

    def __init__(self, args, kind):
        self.name = f"bytelm {kind}"
        here = pathlib.Path(__file__).resolve().parents[2]
        self.model = with_float_weights(here / f"tools/bytelm/{kind}/model_no_cache.onnx", args.folder)
        seen, held_out = [], []
        for path in sorted((args.shared / "data/corpus").glob("*.txt")):
            data = np.frombuffer(path.read_bytes(), np.uint8).astype(np.int64)
            cut = int(len(data) * 0.97)
            seen.append(data[:cut])
            held_out.append(data[cut:])
        seen, held_out = np.concatenate(seen), np.concatenate(held_out)
        self.windows = held_out[:len(held_out) // self.window * self.window].reshape(-1, self.window)[::args.every]
        self.samples = 64
        starts = np.random.default_rng(0).integers(0, len(seen) - self.window, with_held_out(self.samples))
        self.calibration = self.feed(np.stack([seen[s:s + self.window] for s in starts]))

    @staticmethod
    def feed(ids):
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": positions(ids)}

    def scores(self, path, engine=session):
        run, losses = engine(path), []
        for row in self.windows:
            logits = run.run(None, self.feed(row[None, :-1]))[0][0]
            losses.append(nats(logits, row[1:]))
        return [float(np.concatenate(losses).mean() / np.log(2))]


class ByteLmDense(ByteLm):
    def __init__(self, args):
        super().__init__(args, "dense")


class ByteLmSpark(ByteLm):
    def __init__(self, args):
        super().__init__(args, "spark")


TASKS = {"stories": Stories, "use-lite": UseLite, "bytelm-dense": ByteLmDense, "bytelm-spark": ByteLmSpark, "minilm": MiniLm}
