"""The decoder: pre-norm, RMSNorm, RoPE, grouped-query attention, SwiGLU, QK-norm, no biases.

With `qk_norm` it is Qwen3 (https://arxiv.org/abs/2505.09388), without it plain Llama (https://arxiv.org/abs/2302.13971).
Modules carry the names of transformers' Qwen3, so the state dict is the Hugging Face layout and needs no conversion.
It knows nothing of devices, precision or training.

Shapes: B rows, T tokens, D width, H heads, K key/value heads, S head size, F feed-forward, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.model.attention import WAYS
from lib.model.config import ModelConfig


def rope_tables(length: int, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary embeddings, each (T, S), halves repeated (https://arxiv.org/abs/2104.09864)."""
    frequencies = theta ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    angles_TS = torch.outer(torch.arange(length, dtype=torch.float64), frequencies).repeat(1, 2)
    return angles_TS.cos().float(), angles_TS.sin().float()


def rotate(x_BHTS: Tensor, cos_TS: Tensor, sin_TS: Tensor) -> Tensor:
    """Turn each pair (i, i + S/2) by its position's angle."""
    first, second = x_BHTS.chunk(2, dim=-1)
    return x_BHTS * cos_TS.to(x_BHTS.dtype) + torch.cat((-second, first), dim=-1) * sin_TS.to(x_BHTS.dtype)


class RMSNorm(nn.RMSNorm):
    """In the precision of its weight: under autocast what comes from a projection is bf16, and norms stay fp32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        keys = config.kv_heads * config.head_size
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, keys, bias=False)
        self.v_proj = nn.Linear(config.width, keys, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_size, eps=config.norm_eps)
            self.k_norm = RMSNorm(config.head_size, eps=config.norm_eps)

    def forward(self, x_BTD: Tensor, cos_TS: Tensor, sin_TS: Tensor, mask: Any) -> Tensor:
        rows, length, _ = x_BTD.shape
        split = (rows, length, -1, self.config.head_size)
        q_BTHS, k_BTKS, v_BTKS = (
            projection(x_BTD).view(split) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.config.qk_norm:
            q_BTHS, k_BTKS = self.q_norm(q_BTHS), self.k_norm(k_BTKS)
        q_BHTS, k_BKTS = (rotate(x.transpose(1, 2), cos_TS, sin_TS).to(v_BTKS.dtype) for x in (q_BTHS, k_BTKS))
        y_BHTS = self.attend(q_BHTS, k_BKTS, v_BTKS.transpose(1, 2), mask)
        return self.o_proj(y_BHTS.transpose(1, 2).reshape(rows, length, -1))


class FeedForward(nn.Module):
    """SwiGLU (https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.feed_forward, bias=False)
        self.up_proj = nn.Linear(config.width, config.feed_forward, bias=False)
        self.down_proj = nn.Linear(config.feed_forward, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, eps=config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x_BTD: Tensor, cos_TS: Tensor, sin_TS: Tensor, mask: Any) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_TS, sin_TS, mask)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Trunk(nn.Module):
    """All but the head. The mask comes from outside: it is made once a batch and not once a layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, eps=config.norm_eps)
        cos_TS, sin_TS = rope_tables(config.context_length, config.head_size, config.rope_theta)
        self.register_buffer("cos_TS", cos_TS, persistent=False)
        self.register_buffer("sin_TS", sin_TS, persistent=False)

    def forward(self, tokens_BT: Tensor, mask: Any) -> Tensor:
        length = tokens_BT.shape[1]
        x_BTD = self.embed_tokens(tokens_BT)
        for layer in self.layers:
            x_BTD = layer(x_BTD, self.cos_TS[:length], self.sin_TS[:length], mask)
        return self.norm(x_BTD)


class Decoder(nn.Module):
    """tokens (B, T), and where rows hold several documents their numbers (B, T) -> logits (B, T, V)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.attend_by("sdpa")

    def attend_by(self, way: str) -> None:
        """Choose how attention is computed: a key of lib.model.attention.WAYS. `make_mask` gives what blocks take."""
        self.make_mask = WAYS[way].make_mask
        for layer in self.model.layers:
            layer.self_attn.attend = WAYS[way].attend

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        return self.lm_head(self.model(tokens_BT, self.make_mask(documents_BT)))

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Truncated normal with std 1/sqrt(fan-in); projections that write to the residual stream start at zero.

        A zero output projection makes every block the identity at first, which trains faster (Zhang et al. 2019,
        https://arxiv.org/abs/1901.09321; modded-nanogpt measures the same for small language models). Embeddings start
        at the scale of a normed stream, an untied head near zero, as in nanochat.
        """
        generator = torch.Generator().manual_seed(seed)

        def normal(weight: Tensor, std: float) -> None:
            nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std, generator=generator)

        for name, module in self.named_modules():
            if isinstance(module, nn.RMSNorm):
                module.weight.fill_(1.0)
            elif isinstance(module, nn.Embedding):
                normal(module.weight, 0.02 if self.config.tie_embeddings else 0.8)
            elif name.endswith(("o_proj", "down_proj")):
                module.weight.zero_()
            elif name == "lm_head":
                if not self.config.tie_embeddings:
                    normal(module.weight, 0.001)
            elif isinstance(module, nn.Linear):
                normal(module.weight, 1 / math.sqrt(module.in_features))
