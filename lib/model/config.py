"""The model's shape: one dial, `model.size`, sets depth, width, heads and feed-forward; each can be overridden."""

from __future__ import annotations

from dataclasses import dataclass

from lib.params.training import Model
from lib.pipeline.errors import SmeltError

# Head size 64 up to 1b, 128 above, as SmolLM2, Llama 3.2 and Qwen3 have it; the feed-forward is about 8/3 of the width,
# rounded so that llama.cpp's K-quants (rows in blocks of 256) fit.
#                layers width heads kv_heads feed_forward
SIZES = {
    "micro": (2, 128, 2, 1, 256),  # for tests: it learns, and that is all
    "tiny": (4, 256, 4, 2, 768),  # the default: minutes on two cores
    "small": (6, 384, 6, 2, 1024),
    "30m": (8, 512, 8, 4, 1536),
    "125m": (12, 768, 12, 4, 2048),
    "350m": (24, 1024, 16, 8, 2816),
    "1b": (16, 2048, 32, 8, 8192),
    "3b": (28, 3072, 24, 8, 8192),
}


@dataclass(frozen=True)
class ModelConfig:
    vocab_size: int
    context_length: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    rope_theta: float
    norm_eps: float
    qk_norm: bool
    tie_embeddings: bool

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones counted once."""
        attention = self.width * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        norms = 2 * self.width + (2 * self.head_size if self.qk_norm else 0)
        embeddings = self.vocab_size * self.width * (1 if self.tie_embeddings else 2)
        return embeddings + self.layers * (attention + 3 * self.width * self.feed_forward + norms) + self.width

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs per token: 6 per matrix weight, plus attention scores (Chowdhery et al. 2022, appendix B)."""
        matrices = self.parameters - self.vocab_size * self.width * (0 if self.tie_embeddings else 1)
        return 6 * matrices + 12 * self.layers * self.width * self.context_length


def derive(model: Model, vocab_size: int) -> ModelConfig:
    """The shape that `params.model` asks for.

    Raises:
        SmeltError: with every reason why the shape cannot be built.
    """
    if model.size not in SIZES:
        raise SmeltError(f"model.size is {model.size!r}; there are: {', '.join(SIZES)}")
    names = ("layers", "width", "heads", "kv_heads", "feed_forward")
    shape = {
        name: given if (given := getattr(model, name)) is not None else preset
        for name, preset in zip(names, SIZES[model.size], strict=True)
    }
    problems = []
    if shape["width"] % shape["heads"]:
        problems.append(f"model.width ({shape['width']}) must be a multiple of model.heads ({shape['heads']})")
    elif shape["width"] // shape["heads"] % 2:
        problems.append(f"the head size ({shape['width']} / {shape['heads']}) must be even: RoPE turns pairs")
    if shape["heads"] % shape["kv_heads"]:
        problems.append(f"model.heads ({shape['heads']}) must be a multiple of model.kv_heads ({shape['kv_heads']})")
    if problems:
        raise SmeltError("the model's shape cannot be built:\n" + "\n".join(f"  {problem}" for problem in problems))
    return ModelConfig(
        vocab_size=vocab_size,
        context_length=model.context_length,
        rope_theta=model.rope_theta,
        norm_eps=model.norm_eps,
        qk_norm=model.qk_norm,
        tie_embeddings=model.tie_embeddings,
        **shape,
    )
