"""A byte-level decoder language model with a Spark feed-forward network, and its dense twin of the same size.

Both read bytes (vocabulary 256, tied embedding), use RMSNorm before each block and rotary positions over the two halves of
a head. They differ in the feed-forward network only:

    spark   V (gelu(stat_top_k(K1 x[:r])) * (K2 x[r:]))      r = d / 2, width 1.5 f      (2 d * 1.5 f weights)
    dense   D (gelu(G x) * (U x))                            width f                    (3 d * f weights)

with stat_top_k(z) = max(z - (mean(z) + std(z) * Q(1 - k/n)), 0), population std (Spark Transformer, arXiv 2506.06644).
"""

import dataclasses
import statistics

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    kind: str = "spark"  # "spark" or "dense"
    dim: int = 256
    layers: int = 4
    heads: int = 4
    ffn: int = 768  # width of the dense twin; spark has one and a half times as many neurons
    active: float = 0.08  # share of spark neurons that statistical top-k aims at
    context: int = 512
    rope_base: float = 10000.0

    @property
    def head_dim(self):
        return self.dim // self.heads

    @property
    def neurons(self):
        return self.ffn * 3 // 2 if self.kind == "spark" else self.ffn

    @property
    def z(self):
        """Standard normal quantile of the share of neurons that stay silent."""
        return statistics.NormalDist().inv_cdf(1.0 - self.active)


def stat_top_k(scores, z):
    scores = scores.float()
    mean = scores.mean(-1, keepdim=True)
    std = (scores - mean).square().mean(-1, keepdim=True).sqrt()
    return torch.relu(scores - (mean + std * z))


class RmsNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class SparkFfn(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.half, self.z = config.dim // 2, config.z
        self.k1 = nn.Linear(self.half, config.neurons, bias=False)
        self.k2 = nn.Linear(config.dim - self.half, config.neurons, bias=False)
        self.v = nn.Linear(config.neurons, config.dim, bias=False)
        self.density = None  # share of non-zero neurons in the last call

    def forward(self, x):
        gate = stat_top_k(self.k1(x[..., : self.half]), self.z)
        if not self.training:
            self.density = (gate > 0).float().mean().item()
        return self.v(F.gelu(gate, approximate="tanh").to(x.dtype) * self.k2(x[..., self.half :]))


class DenseFfn(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate = nn.Linear(config.dim, config.neurons, bias=False)
        self.up = nn.Linear(config.dim, config.neurons, bias=False)
        self.down = nn.Linear(config.neurons, config.dim, bias=False)

    def forward(self, x):
        return self.down(F.gelu(self.gate(x), approximate="tanh") * self.up(x))


def rotary_tables(config, length):
    half = config.head_dim // 2
    angles = torch.arange(length)[:, None] * config.rope_base ** (-torch.arange(half) / half)[None, :]
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim, bias=False) for _ in range(4))

    def forward(self, x, cos, sin):
        split = lambda y: y.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        q, k, v = rotate(split(self.q(x)), cos, sin), rotate(split(self.k(x)), cos, sin), split(self.v(x))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm1, self.attention = RmsNorm(config.dim), Attention(config)
        self.norm2, self.ffn = RmsNorm(config.dim), SparkFfn(config) if config.kind == "spark" else DenseFfn(config)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.ffn(self.norm2(x))


class ByteLm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(256, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RmsNorm(config.dim)
        cos, sin = rotary_tables(config, config.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.reset()

    def reset(self):
        """Normal weights of 0.7 / sqrt(fan-in); what is added to the residual stream starts smaller."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2 and "embedding" not in name:
                into_residual = name.endswith((".o.weight", ".v.weight", ".down.weight")) and ".attention.v" not in name
                scale = 0.7 / (2 * self.config.layers) ** 0.5 if into_residual else 0.7
                nn.init.normal_(parameter, std=scale / parameter.shape[1] ** 0.5)

    def forward(self, ids):
        """ids [batch, length] -> logits [batch, length, 256]."""
        length = ids.shape[1]
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        return F.linear(self.norm(x), self.embedding.weight)

    def densities(self):
        return [block.ffn.density for block in self.blocks] if self.config.kind == "spark" else []
