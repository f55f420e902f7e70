#!/usr/bin/env python3
"""Writes tests/data/text: small tokenizers and what the reference implementation makes of sample texts.

    make_goldens.py            needs: pip install tokenizers sentencepiece protobuf

Runs only when goldens are to change; the tests read the files. Training breaks ties at random, so a new run gives other
vocabularies. Samples are drawn with a fixed seed from characters that
Unicode has had since version 3.2: the reference knows the properties of some younger ones only by old tables.
"""
import json
import pathlib
import random
import tempfile
import unicodedata

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

OLD_UNICODE = unicodedata.ucd_3_2_0
OUT = pathlib.Path(__file__).resolve().parents[2] / "data" / "text"
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

CORPUS = """The quick brown fox jumps over the lazy dog. She sells sea shells by the sea shore; the shells she sells are
surely seashells. In the beginning there was a word, and the word was short. Numbers like 12, 345 and 6789 appear too!
Don't you think it's fine? They'll say we've done it, and I'm sure he'd agree. Where there is a will there is a way.
Der schnelle braune Fuchs springt \u00fcber den faulen Hund. \u00c7a va tr\u00e8s bien, na\u00efve caf\u00e9.
\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002 \u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!
for (int i = 0; i < n; ++i) { total += values[i]; }\treturn total;\n\n    indented = True
""".splitlines()

WRITTEN = [
    "", " ", "  ", "a", "Hello, world!", "hello  world", " leading and trailing ",
    "tabs\tand\nnew\r\nlines\n\n\n end",
    "Don't you'll WE'VE i'm he'd IT'S", "12 345 6789 1234567", "x=1;y+=22;",
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m", "cafe\u0301 e\u0301\u0323",
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd", "\uff21\uff22\uff23 \ufb01\ufb02 \u2460\u00bd",
    "\u0130stanbul \u03a3\u0391\u03a3 \u00df \u1e9e",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f", "a\u00a0b\u2003c\u3000d\u200be\ufefff",
    "\u0000\u0001control\u007f\u0085\u00ad",
    "<s>hi</s>", "[CLS] a [MASK] b[SEP]", "<|end|>x <|end|> y", "foo<new>bar <new> baz", "a ZEBRA, the Zebra",
    "New new NEW renew", "\u2581under\u2581score _x_",
    "   many    spaces     here", "the the the the", "shells sea-shells sea_shells", "!?.,;:'\"()[]{}<>@#$%^&*",
    "https://example.org/a?b=c&d=e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\uac00\uac01\u1100\u1161\u11a8 \ud55c\uad6d\uc5b4",
    "x" * 130, "The quick brown fox jumps over the lazy dog.", "don't stop. we do not know , ok ?",
]
RANGES = [(0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x61, 0x7A), (0x9, 0xD), (0xA0, 0x24F), (0x300, 0x36F),
          (0x370, 0x52F), (0x5D0, 0x6FF), (0x900, 0x97F), (0xE00, 0xE5B), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
          (0x2000, 0x206F), (0x2070, 0x218F), (0x2460, 0x24FF), (0x2500, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x4FFF),
          (0xAC00, 0xACFF), (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFF00, 0xFFEF), (0x1D400, 0x1D4FF), (0x1F300, 0x1F64F)]


def random_texts(count, seed):
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        text = ""
        for _ in range(rng.randint(1, 8)):
            low, high = rng.choice(RANGES)
            for _ in range(rng.randint(1, 4)):
                c = chr(rng.randint(low, high))
                if OLD_UNICODE.category(c) not in ("Cn", "Cs"):
                    text += c
            text += rng.choice(["", "", " ", "  "])
        texts.append(text)
    return texts


def state(component):
    return json.loads(component.__getstate__())


def small_charsmap():
    """A SentencePiece character map of a few rules, as base64."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    with tempfile.TemporaryDirectory() as folder:
        rules, corpus = pathlib.Path(folder) / "rules.tsv", pathlib.Path(folder) / "corpus.txt"
        pairs = [("\uff21", "A"), ("\uff22", "B"), ("\ufb01", "fi"), ("\u2460", "1"), ("\u00bd", "1/2"), ("e\u0301", "\u00e9"), ("\u00df", "ss"),
                 ("\u3000", " "), ("\u00a0", " "), ("\t", " "), ("\u00ad", ""), ("\u1100\u1161", "\uac00"), ("a\u0323\u0301", "\u1ea1\u0301")]
        rules.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n"
                                 for a, b in pairs))
        corpus.write_text("\n".join(CORPUS))
        sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=folder + "/m", vocab_size=120,
                                                 normalization_rule_tsv=str(rules), hard_vocab_limit=False,
                                                 minloglevel=2)
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString((pathlib.Path(folder) / "m.model").read_bytes())
        return model.normalizer_spec.precompiled_charsmap


def normalizer_goldens(charsmap):
    n = normalizers
    listed = [n.NFC(), n.NFD(), n.NFKC(), n.NFKD(), n.Lowercase(), n.StripAccents(), n.Nmt(), n.ByteLevel(),
              n.Sequence([n.NFD(), n.StripAccents(), n.Lowercase()]), n.Strip(), n.Strip(left=False), n.Strip(right=False),
              n.Prepend("\u2581"), n.Replace(" ", "\u2581"), n.Replace(Regex(r" {2,}"), " "), n.Replace(Regex(r"\w+\d"), "<\\1>"),
              n.BertNormalizer(), n.BertNormalizer(lowercase=False), n.BertNormalizer(strip_accents=False),
              n.BertNormalizer(lowercase=False, strip_accents=True, clean_text=False, handle_chinese_chars=False),
              n.Precompiled(charsmap)]
    texts = WRITTEN + random_texts(30, 1)
    texts += ["\uff21\uff22 \ufb01x e\u0301 a\u0323\u0301 \u1100\u1161\u11a8 \u2460\u0301 \u00bd\u0301\u0323", "\u00df\u200d\u00ad."]
    return [{"config": state(x), "cases": [[t, x.normalize_str(t)] for t in texts]} for x in listed]


def pre_tokenizer_goldens():
    p = pre_tokenizers
    listed = [p.ByteLevel(), p.ByteLevel(add_prefix_space=False), p.ByteLevel(use_regex=False), p.Whitespace(),
              p.WhitespaceSplit(), p.BertPreTokenizer(), p.Metaspace(), p.Metaspace(prepend_scheme="first"),
              p.Metaspace(prepend_scheme="never", split=False), p.Digits(), p.Digits(individual_digits=True),
              p.CharDelimiterSplit("e"), p.Split(Regex(CL100K), "isolated"), p.Split(Regex(QWEN), "isolated"),
              p.Split(Regex(O200K), "isolated"), p.Split(Regex(r"\h+|\s"), "removed"),
              p.Sequence([p.WhitespaceSplit(), p.Metaspace(prepend_scheme="first")]),
              p.Sequence([p.Split(Regex(CL100K), "removed", invert=True), p.ByteLevel(False, use_regex=False)]),
              p.Sequence([p.Punctuation("contiguous"), p.Digits(True), p.Whitespace()])]
    for behavior in ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]:
        listed += [p.Split("s", behavior), p.Split(Regex("[se ]"), behavior), p.Split(Regex("[^se ]"), behavior, invert=True),
                   p.Punctuation(behavior)]
    texts = WRITTEN + random_texts(20, 2)
    return [{"config": state(x), "cases": [[t, [s for s, _ in x.pre_tokenize_str(t)]] for t in texts]} for x in listed]


def decoder_goldens():
    d = decoders
    rng = random.Random(3)
    pool = ["the", "##ing", "\u2581the", "\u2581", "ing</w>", "a</w>", " ", "<0x41>", "<0xE2>", "<0x82>", "<0xAC>", "<0xFF>", "\u0120the",
            "\u00e2\u0124\u00ac", "\u00e2\u0124", "\u010a", "[SEP]", ".", "!", "n't", "'s", "do", "not", " x ", "\u6771", "\u2581\u2581x"]
    lists = [[rng.choice(pool) for _ in range(rng.randint(1, 7))] for _ in range(80)]
    llama = d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)])
    listed = [d.ByteLevel(), d.WordPiece(), d.WordPiece(cleanup=False), d.WordPiece(prefix="\u2581"), d.Metaspace(),
              d.Metaspace(prepend_scheme="never"), d.ByteFallback(), d.Fuse(), d.Replace(Regex("[a-f]+"), "-"),
              d.Strip(" ", 1, 0), d.Strip("e", 0, 1), d.BPEDecoder(), llama]
    return [{"config": state(x), "cases": [[t, x.decode(t)] for t in lists]} for x in listed]


def train(model, trainer_class, normalizer=None, pre_tokenizer=None, **options):
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(CORPUS * 3, trainer_class(show_progress=False, **options))
    return tokenizer


def byte_tokens():
    return [f"<0x{b:02X}>" for b in range(256)]


def without_added_bytes(tokenizer, kept):
    """The trainer makes special tokens of what must be ordinary: only the first `kept` stay special."""
    config = json.loads(tokenizer.to_str())
    config["model"]["byte_fallback"] = True
    config["added_tokens"] = config["added_tokens"][:kept]
    return Tokenizer.from_str(json.dumps(config))


def gpt2_like():
    p = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t = train(models.BPE(), trainers.BpeTrainer, None, p, vocab_size=400, special_tokens=["<|end|>"],
              initial_alphabet=p.alphabet())
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_tokens([AddedToken("new", single_word=True, lstrip=True), AddedToken("<new>", rstrip=True, normalized=False)])
    return t


def llama3_like():
    p = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CL100K), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    t = train(models.BPE(ignore_merges=True), trainers.BpeTrainer, None, p, vocab_size=380, special_tokens=["<s>", "</s>"],
              initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.Sequence([processors.ByteLevel(), processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])])
    return t


def roberta_like():
    p = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t = train(models.BPE(), trainers.BpeTrainer, normalizers.NFC(), p, vocab_size=360, special_tokens=["<s>", "</s>", "<unk>"],
              initial_alphabet=p.alphabet())
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return t


def llama2_like():
    n = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t = train(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True), trainers.BpeTrainer, n,
              pre_tokenizers.Metaspace(prepend_scheme="never"), vocab_size=450,
              special_tokens=["<unk>", "<s>", "</s>"] + byte_tokens())
    t = without_added_bytes(t, 3)
    t.pre_tokenizer = None
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


def gemma_like():
    t = llama2_like()
    t.normalizer = normalizers.Replace(" ", "\u2581")
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return t


def old_bpe():
    t = train(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=False), trainers.BpeTrainer,
              normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer(), vocab_size=200,
              special_tokens=["<unk>"], end_of_word_suffix="</w>")
    t.decoder = decoders.BPEDecoder()
    return t


def prefixed_bpe():
    return train(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", fuse_unk=True), trainers.BpeTrainer, None,
                 pre_tokenizers.Whitespace(), vocab_size=200, special_tokens=["<unk>"], continuing_subword_prefix="##")


def bert_like():
    t = train(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer, normalizers.BertNormalizer(),
              pre_tokenizers.BertPreTokenizer(), vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    t.decoder = decoders.WordPiece()
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return t


def word_level():
    t = train(models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer, normalizers.Lowercase(),
              pre_tokenizers.Whitespace(), vocab_size=80, special_tokens=["[UNK]"])
    t.add_tokens([AddedToken("zebra", normalized=True)])
    return t


def t5_like(charsmap):
    n = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    t = train(models.Unigram(), trainers.UnigramTrainer, n, pre_tokenizers.Metaspace(), vocab_size=200,
              special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    t.decoder = decoders.Metaspace()
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return t


def unigram_bytes():
    t = train(models.Unigram(), trainers.UnigramTrainer, normalizers.NFKC(), pre_tokenizers.Metaspace(prepend_scheme="first"),
              vocab_size=420, special_tokens=["<unk>"] + byte_tokens(), unk_token="<unk>")
    t = without_added_bytes(t, 1)
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    return t


def tokenizer_goldens(name, tokenizer, seed):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(tokenizer.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(config, ensure_ascii=True, separators=(",", ":")) + "\n")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rng = random.Random(seed)
    lines = []
    for text in WRITTEN + random_texts(25, seed):
        ids = tokenizer.encode(text).ids
        lines.append({"text": text, "ids": ids, "plain": tokenizer.encode(text, add_special_tokens=False).ids,
                      "decoded": tokenizer.decode(ids), "decoded_all": tokenizer.decode(ids, skip_special_tokens=False)})
    for _ in range(30):  # any ids, as a model may give them
        ids = [rng.randrange(tokenizer.get_vocab_size()) for _ in range(rng.randint(1, 12))]
        lines.append({"ids": ids, "decoded": tokenizer.decode(ids),
                      "decoded_all": tokenizer.decode(ids, skip_special_tokens=False)})
    write_lines(folder / "golden.jsonl", lines)


def write_lines(path, lines):
    path.write_text("".join(json.dumps(x, ensure_ascii=True, separators=(",", ":")) + "\n" for x in lines))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    charsmap = small_charsmap()
    write_lines(OUT / "normalizers.jsonl", normalizer_goldens(charsmap))
    write_lines(OUT / "pre_tokenizers.jsonl", pre_tokenizer_goldens())
    write_lines(OUT / "decoders.jsonl", decoder_goldens())
    made = {"gpt2_like": gpt2_like(), "llama3_like": llama3_like(), "roberta_like": roberta_like(),
            "llama2_like": llama2_like(), "gemma_like": gemma_like(), "old_bpe": old_bpe(), "prefixed_bpe": prefixed_bpe(),
            "bert_like": bert_like(), "word_level": word_level(), "t5_like": t5_like(charsmap), "unigram_bytes": unigram_bytes()}
    for seed, (name, tokenizer) in enumerate(made.items(), 10):
        tokenizer_goldens(name, tokenizer, seed)


if __name__ == "__main__":
    main()
