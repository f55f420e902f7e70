#!/usr/bin/env python3
"""Tokens a second of two decoders, generated in turns, and the ratio of their medians. Standard library only.

    generate_pair.py SPRUN FIRST.onnx SECOND.onnx [--threads 2] [--prompt 16] [--new 24] [--rounds 5] [-- MORE OPTIONS]

What stands after -- goes to `sprun generate`. Prompts are the same made-up ids for both.
"""

import argparse
import json
import statistics
import subprocess


def generate(args, model, more):
    ids = ",".join(str(i * 37 % args.vocabulary) for i in range(args.prompt))
    command = [args.sprun, "generate", model, "--tokens", ids, "--max-new-tokens", str(args.new), "--threads",
               str(args.threads), "--json", "-", *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sprun")
    parser.add_argument("models", nargs=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocabulary", type=int, default=256)
    args, more = parser.parse_known_args()
    more = [word for word in more if word != "--"]
    rates = {name: [[], []] for name in ("prefill_tokens_per_s", "decode_tokens_per_s")}
    for _ in range(args.rounds):
        for i, model in enumerate(args.models):
            result = generate(args, model, more)
            for name, both in rates.items():
                both[i].append(result[name])
    for name, both in rates.items():
        first, second = (statistics.median(values) for values in both)
        spread = ", ".join(f"{min(values):.4g} to {max(values):.4g}" for values in both)
        print(f"{name:22} {first:10.4g} {second:10.4g}   ratio {first / second:.2f}   ({spread})")


if __name__ == "__main__":
    main()
