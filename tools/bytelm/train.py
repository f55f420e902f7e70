"""Trains the byte-level language model of model.py on plain text and reports bits per byte on text it has not seen.

    python3 tools/bytelm/train.py --kind spark --corpus FOLDER --out spark.pt
    python3 tools/bytelm/train.py --kind dense --corpus FOLDER --out dense.pt

Needs PyTorch; one thread is enough. Every *.txt file of FOLDER is used: the last --held-out share of each is kept for
validation. export.py turns the checkpoint into ONNX.
"""

import argparse
import dataclasses
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F

from model import ByteLm, Config


def read_corpus(folder, held_out):
    """(training bytes, validation bytes) of all text files, each cut at the same share."""
    train, valid = [], []
    for path in sorted(pathlib.Path(folder).glob("*.txt")):
        data = np.frombuffer(path.read_bytes(), np.uint8)
        cut = int(len(data) * (1 - held_out))
        train.append(data[:cut])
        valid.append(data[cut:])
    if not train:
        raise SystemExit(f"no *.txt file in {folder}")
    return torch.from_numpy(np.concatenate(train).copy()), torch.from_numpy(np.concatenate(valid).copy())


def sample(data, batch, length, generator):
    starts = torch.randint(len(data) - length - 1, (batch,), generator=generator)
    rows = torch.stack([data[s : s + length + 1] for s in starts]).long()
    return rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def bits_per_byte(model, data, windows=None):
    """Mean over consecutive windows of the model's context; every byte but a window's first is predicted once."""
    model.eval()
    length = model.config.context
    count = len(data) // length
    picked = range(count) if windows is None else np.linspace(0, count - 1, min(windows, count)).astype(int)
    total, densities = 0.0, []
    for i in picked:
        rows = data[i * length : (i + 1) * length].long()[None]
        logits = model(rows[:, :-1])
        total += F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten()).item()
        densities.append(model.densities())
    model.train()
    return total / len(picked) / math.log(2), np.mean(densities, 0) if densities[0] else None


def optimiser(model, rate):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def rate_at(step, steps, peak):
    """Linear warm-up over 3 % of the steps, then a cosine down to a fiftieth of the peak."""
    warm = max(1, steps * 3 // 100)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def train(args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    data, valid = read_corpus(args.corpus, args.held_out)
    config = Config(kind=args.kind, layers=args.layers, dim=args.dim, ffn=args.ffn)
    model = ByteLm(config)
    if args.resume:
        model.load_state_dict(torch.load(args.resume, weights_only=True)["state"])
    generator = torch.Generator().manual_seed(args.seed)
    adam = optimiser(model, args.rate)
    print(f"{args.kind}: {sum(p.numel() for p in model.parameters())} parameters, {len(data)} bytes", flush=True)
    start = time.time()
    for step in range(args.steps):
        for group in adam.param_groups:
            group["lr"] = rate_at(step, args.steps, args.rate)
        ids, target = sample(data, args.batch, config.context, generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten())
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        if (step + 1) % args.report == 0 or step + 1 == args.steps:
            bits, density = bits_per_byte(model, valid, 24)
            shown = "" if density is None else " density " + " ".join(f"{100 * d:.1f}%" for d in density)
            print(f"step {step + 1} loss {loss.item() / math.log(2):.3f} valid {bits:.3f} bits/byte"
                  f" {time.time() - start:.0f} s{shown}", flush=True)
            torch.save({"config": dataclasses.asdict(config), "state": model.state_dict()}, args.out)
    bits, density = bits_per_byte(model, valid)
    print(f"final: {bits:.4f} bits/byte on {len(valid)} held-out bytes, density {density}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["spark", "dense"], required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--resume", help="start from the weights of this checkpoint; the optimiser starts anew")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--ffn", type=int, default=768)
    parser.add_argument("--held-out", type=float, default=0.03)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
