#!/usr/bin/env python3
"""Small models with random weights, exported by the two usual ways, against PyTorch.

    exported_like_pytorch.py SPRUN [NAME...]              torch.export graphs, three sizes each, against the module's output
    exported_like_pytorch.py SPRUN --generate [NAME...]   Optimum graphs with past keys and values, greedy tokens

Needs torch, transformers and onnxscript; --generate needs optimum-onnx (and a version of transformers that it takes).
Exit code 1 if a model differs by more than 1e-4 of its largest output or chooses another token. A model that cannot be
exported is reported and left out.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers as hf

TEXT = dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=256)
VISION = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8)
GPT = dict(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=256)
GROUPED = dict(num_key_value_heads=2, head_dim=8)
IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)

# name: (class without suffix, config class, options)
ENCODERS = {
    "bert": ("BertModel", "BertConfig", TEXT),
    "roberta": ("RobertaModel", "RobertaConfig", TEXT | dict(pad_token_id=1)),
    "deberta2": ("DebertaV2Model", "DebertaV2Config",
                 TEXT | dict(relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16)),
    "albert": ("AlbertModel", "AlbertConfig", TEXT | dict(embedding_size=16)),
    "electra": ("ElectraModel", "ElectraConfig", TEXT | dict(embedding_size=16)),
    "mpnet": ("MPNetModel", "MPNetConfig", TEXT),
    "modernbert": ("ModernBertModel", "ModernBertConfig", TEXT | IDS | dict(cls_token_id=1, sep_token_id=2)),
    "distilbert": ("DistilBertModel", "DistilBertConfig",
                   dict(vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=256)),
}
DECODERS = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "gptj": ("GPTJForCausalLM", "GPTJConfig", GPT | dict(rotary_dim=4)),
    "gptneox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", TEXT),
    "opt": ("OPTForCausalLM", "OPTConfig", dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                                 ffn_dim=64, max_position_embeddings=256, word_embed_proj_dim=32)),
    "bloom": ("BloomForCausalLM", "BloomConfig", dict(vocab_size=99, hidden_size=32, n_layer=2, n_head=4)),
    "mpt": ("MptForCausalLM", "MptConfig", dict(vocab_size=99, d_model=32, n_layers=2, n_heads=4, max_seq_len=256)),
    "falcon_rw": ("FalconForCausalLM", "FalconConfig",
                  dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True,
                       multi_query=False, parallel_attn=False)),
    "falcon": ("FalconForCausalLM", "FalconConfig",
               dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)),
    "llama": ("LlamaForCausalLM", "LlamaConfig", TEXT | GROUPED),
    "mistral": ("MistralForCausalLM", "MistralConfig", TEXT | GROUPED),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", TEXT | dict(num_key_value_heads=2)),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", TEXT | GROUPED),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", TEXT | GROUPED),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", TEXT | GROUPED | dict(sliding_window=64)),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", TEXT | GROUPED | dict(sliding_window=64)),
    "phi": ("PhiForCausalLM", "PhiConfig", TEXT | dict(partial_rotary_factor=0.5)),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", TEXT | IDS),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", TEXT),
    "granite": ("GraniteForCausalLM", "GraniteConfig", TEXT),
    "cohere": ("CohereForCausalLM", "CohereConfig", TEXT),
}
IMAGES = {
    "vit": ("ViTModel", "ViTConfig", VISION),
    "deit": ("DeiTModel", "DeiTConfig", VISION),
    "dinov2": ("Dinov2Model", "Dinov2Config", {k: v for k, v in VISION.items() if k != "intermediate_size"}),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", VISION),
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", VISION),
    "convnext": ("ConvNextModel", "ConvNextConfig", dict(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1])),
}


def build(name):
    torch.manual_seed(0)
    model_class, config_class, options = (ENCODERS | DECODERS | IMAGES)[name]
    return getattr(hf, model_class)(getattr(hf, config_class)(**options)).eval()


class FirstOutput(torch.nn.Module):
    """A module of positional inputs and one output, which is what an exported graph has."""

    def __init__(self, model, names, options):
        super().__init__()
        self.model, self.names, self.options = model, names, options

    def forward(self, *values):
        return self.model(**dict(zip(self.names, values)), **self.options)[0]


def inputs_of(name, batch, length):
    if name in IMAGES:
        return {"pixel_values": torch.randn(batch, 3, 32, 32)}
    mask = torch.ones(batch, length, dtype=torch.long)
    if name in ENCODERS:
        mask[-1, length // 2 + 1:] = 0
    return {"input_ids": torch.randint(3, 99, (batch, length)), "attention_mask": mask}


def check_outputs(sprun, name, folder):
    first = inputs_of(name, 2, 9)
    module = FirstOutput(build(name), list(first), {"use_cache": False} if name in DECODERS else {})
    path = os.path.join(folder, "model.onnx")
    auto = torch.export.Dim.AUTO
    axes = {0: auto} if name in IMAGES else {0: auto, 1: auto}
    torch.onnx.export(module, tuple(first.values()), path, input_names=list(first), output_names=["out"], dynamo=True,
                      dynamic_shapes=(tuple(axes for _ in first),), verbose=False)
    worst = 0.0
    for batch, length in [(2, 9), (1, 5), (3, 33)]:
        inputs = inputs_of(name, batch, length)
        with torch.no_grad():
            want = module(*inputs.values()).numpy()
        np.savez(os.path.join(folder, "in.npz"), **{k: v.numpy() for k, v in inputs.items()})
        subprocess.run([sprun, "run", path, "-i", os.path.join(folder, "in.npz"), "-o", os.path.join(folder, "out.npz"),
                        "--iterations", "1"], check=True, capture_output=True)
        got = np.load(os.path.join(folder, "out.npz"))["out"]
        if got.shape != want.shape:
            return False, f"shape {got.shape}, expected {want.shape}"
        worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    return worst <= 1e-4, f"{worst:.1e} of the largest output"


def check_tokens(sprun, name, folder):
    from optimum.exporters.onnx import onnx_export_from_model
    model = build(name)
    for parameter in model.parameters():  # far enough from ties
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    prompt, count = [5, 17, 40, 8], 20
    want = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0,
                          eos_token_id=None)[0].tolist()[len(prompt):]
    onnx_export_from_model(model, folder, task="text-generation-with-past", do_validation=False, opset=17)
    out = subprocess.run([sprun, "generate", os.path.join(folder, "model.onnx"), "--tokens", ",".join(map(str, prompt)),
                          "--max-new-tokens", str(count), "--json", "-"], check=True, capture_output=True, text=True)
    got = json.loads(out.stdout)["tokens"]
    same = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), len(want))
    return got == want, f"{same} of {count} tokens"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sprun")
    parser.add_argument("--generate", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_intermixed_args()
    hf.logging.set_verbosity_error()
    known = DECODERS if args.generate else ENCODERS | DECODERS | IMAGES
    check = check_tokens if args.generate else check_outputs
    failed = []
    for name in args.names or known:
        with tempfile.TemporaryDirectory() as folder:
            try:
                good, text = check(args.sprun, name, folder)
            except subprocess.CalledProcessError as error:
                good, text = False, f"sprun: {error.stderr}"
            except Exception as error:  # exporters fail in many ways
                print(f"{name:12} not exported: {type(error).__name__}", flush=True)
                continue
        print(f"{name:12} {'ok  ' if good else 'DIFFERS'} {text}", flush=True)
        failed += [] if good else [name]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
