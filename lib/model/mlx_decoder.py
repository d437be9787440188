"""The decoder of lib/model/decoder.py in MLX: the same names, shapes and formulas, so that weights go from one to the
other as they are.

Shapes: B rows, T tokens, D width, H heads, K key/value heads, S head size, F feed-forward, V vocabulary, N = B x T.
"""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
from mlx import nn

from lib.model.config import ModelConfig
from lib.model.decoder import rope_tables

# Logits of more bytes than this are made, used and made again for the gradient piece by piece.
LOGIT_BYTES = 2**29


class Linear(nn.Module):
    """Without bias. Multiplies in `dtype`; the weight itself stays fp32."""

    def __init__(self, inputs: int, outputs: int, dtype: mx.Dtype) -> None:
        super().__init__()
        self.weight = mx.zeros((outputs, inputs))
        self._dtype = dtype

    def __call__(self, x: mx.array) -> mx.array:
        return x.astype(self._dtype) @ self.weight.astype(self._dtype).T


class AdaptedLinear(Linear):
    """Beside a frozen matrix the product of two narrow ones (LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685).

    The names are peft's, and so is the order of the products; all of them are in `dtype`.
    """

    def __init__(self, linear: Linear, rank: int, scale: float) -> None:
        (outputs, inputs), dtype = linear.weight.shape, linear._dtype
        super().__init__(inputs, outputs, dtype)
        self.lora_A = {"default": Linear(inputs, rank, dtype)}
        self.lora_B = {"default": Linear(rank, outputs, dtype)}
        self._scale = scale

    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x) + self.lora_B["default"](self.lora_A["default"](x)) * self._scale


class RMSNorm(nn.Module):
    """In fp32, whatever goes in."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.ones((width,))
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x.astype(mx.float32), self.weight, self._eps)


def rotate(x_BHTS: mx.array, cos_TS: mx.array, sin_TS: mx.array) -> mx.array:
    """Turn each pair (i, i + S/2) by its position's angle."""
    first, second = mx.split(x_BHTS, 2, axis=-1)
    return x_BHTS * cos_TS + mx.concatenate((-second, first), axis=-1) * sin_TS


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, dtype: mx.Dtype) -> None:
        super().__init__()
        keys = config.kv_heads * config.head_size
        self.q_proj = Linear(config.width, config.width, dtype)
        self.k_proj = Linear(config.width, keys, dtype)
        self.v_proj = Linear(config.width, keys, dtype)
        self.o_proj = Linear(config.width, config.width, dtype)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_size, config.norm_eps)
            self.k_norm = RMSNorm(config.head_size, config.norm_eps)
        self._config, self._dtype = config, dtype

    def __call__(self, x_BTD: mx.array, cos_TS: mx.array, sin_TS: mx.array, sees: mx.array | str) -> mx.array:
        rows, length, _ = x_BTD.shape
        q_BTHS, k_BTKS, v_BTKS = (
            projection(x_BTD).reshape(rows, length, -1, self._config.head_size)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self._config.qk_norm:
            q_BTHS, k_BTKS = self.q_norm(q_BTHS), self.k_norm(k_BTKS)
        q_BHTS, k_BKTS = (
            rotate(heads.swapaxes(1, 2), cos_TS, sin_TS).astype(self._dtype) for heads in (q_BTHS, k_BTKS)
        )
        y_BHTS = mx.fast.scaled_dot_product_attention(
            q_BHTS, k_BKTS, v_BTKS.swapaxes(1, 2), scale=1 / math.sqrt(self._config.head_size), mask=sees
        )
        return self.o_proj(y_BHTS.swapaxes(1, 2).reshape(rows, length, -1))


class FeedForward(nn.Module):
    """SwiGLU (https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: ModelConfig, dtype: mx.Dtype) -> None:
        super().__init__()
        self.gate_proj = Linear(config.width, config.feed_forward, dtype)
        self.up_proj = Linear(config.width, config.feed_forward, dtype)
        self.down_proj = Linear(config.feed_forward, config.width, dtype)

    def __call__(self, x_BTD: mx.array) -> mx.array:
        gate_BTF = self.gate_proj(x_BTD)
        return self.down_proj(gate_BTF * mx.sigmoid(gate_BTF) * self.up_proj(x_BTD))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, dtype: mx.Dtype) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config, dtype)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = FeedForward(config, dtype)

    def __call__(self, x_BTD: mx.array, cos_TS: mx.array, sin_TS: mx.array, sees: mx.array | str) -> mx.array:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_TS, sin_TS, sees)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Trunk(nn.Module):
    def __init__(self, config: ModelConfig, dtype: mx.Dtype, checkpointed: bool) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = [Block(config, dtype) for _ in range(config.layers)]
        self.norm = RMSNorm(config.width, config.norm_eps)
        # Names with an underscore are no weights.
        tables = rope_tables(config.context_length, config.head_size, config.rope_theta)
        self._cos_TS, self._sin_TS = (mx.array(table.numpy()) for table in tables)
        self._checkpointed = checkpointed

    def __call__(self, tokens_BT: mx.array, documents_BT: mx.array | None) -> mx.array:
        length = tokens_BT.shape[1]
        cos_TS, sin_TS, sees = self._cos_TS[:length], self._sin_TS[:length], document_mask(documents_BT)
        x_BTD = self.embed_tokens(tokens_BT)
        for layer in self.layers:
            block = nn.utils.checkpoint(layer) if self._checkpointed else layer
            x_BTD = block(x_BTD, cos_TS, sin_TS, sees)
        return self.norm(x_BTD)


def document_mask(documents_BT: mx.array | None) -> mx.array | str:
    """What a token sees: itself and what is before it in its document (B, 1, T, T), or in its row if there are none."""
    if documents_BT is None:
        return "causal"
    length = documents_BT.shape[1]
    same_B1TT = (documents_BT[:, :, None] == documents_BT[:, None, :])[:, None]
    return same_B1TT & mx.tril(mx.ones((length, length), dtype=mx.bool_))


class Decoder(nn.Module):
    """tokens (B, T), and the number of each one's document (B, T) -> logits (B, T, V).

    Args:
        dtype: what matrices are multiplied in; weights, norms and the stream between blocks are fp32.
        checkpointed: whether a block's activations are computed again for the gradient, to save memory.
    """

    def __init__(self, config: ModelConfig, dtype: mx.Dtype = mx.float32, checkpointed: bool = False) -> None:
        super().__init__()
        self.model = Trunk(config, dtype, checkpointed)
        if not config.tie_embeddings:
            self.lm_head = Linear(config.width, config.vocab_size, dtype)
        self._config, self._dtype = config, dtype

    def __call__(self, tokens_BT: mx.array, documents_BT: mx.array | None = None) -> mx.array:
        x_BTD = self.model(tokens_BT, documents_BT)
        return self._logits(x_BTD, *self._head())

    def loss_sum(
        self,
        inputs_BT: mx.array,
        labels_BT: mx.array,
        documents_BT: mx.array | None = None,
        places_N: mx.array | None = None,
    ) -> mx.array:
        """The summed negative log-likelihood in nats and fp32 of the labels that are not negative.

        Args:
            places_N: where those are, counted through all rows; the head is computed there alone. None for everywhere.
        """
        x_ND = self.model(inputs_BT, documents_BT).reshape(-1, self._config.width)
        labels_N, head = labels_BT.reshape(-1), self._head()
        if places_N is not None:
            x_ND, labels_N = x_ND[places_N], labels_N[places_N]
        pieces = math.ceil(len(labels_N) * self._config.vocab_size * 4 / LOGIT_BYTES)
        if pieces == 1:
            return self._cross_entropy(x_ND, labels_N, *head)
        size = math.ceil(len(labels_N) / pieces)
        once_more = mx.checkpoint(self._cross_entropy)
        starts = range(0, len(labels_N), size)
        return sum(once_more(x_ND[at : at + size], labels_N[at : at + size], *head) for at in starts)

    def _head(self) -> list[mx.array]:
        """The head's matrix, and the two beside it if there are; as arguments, so that a checkpoint sees them."""
        if self._config.tie_embeddings:
            return [self.model.embed_tokens.weight]
        head = self.lm_head
        beside = [head.lora_A["default"], head.lora_B["default"]] if isinstance(head, AdaptedLinear) else []
        return [each.weight for each in (head, *beside)]

    def _logits(self, x: mx.array, head_VD: mx.array, *beside: mx.array) -> mx.array:
        x = x.astype(self._dtype)
        logits = x @ head_VD.astype(self._dtype).T
        if beside:
            inner, outer = (each.astype(self._dtype) for each in beside)
            logits = logits + x @ inner.T @ outer.T * self.lm_head._scale
        return logits

    def _cross_entropy(self, x_ND: mx.array, labels_N: mx.array, *head: mx.array) -> mx.array:
        logits_NV = self._logits(x_ND, *head).astype(mx.float32)
        counts_N = labels_N >= 0
        # Inside of a checkpoint MLX takes every argument for something to differentiate by.
        places_N1 = mx.stop_gradient(mx.where(counts_N, labels_N, 0))[:, None]
        chosen_N = mx.take_along_axis(logits_NV, places_N1, axis=-1)[:, 0]
        return mx.where(counts_N, mx.logsumexp(logits_NV, axis=-1) - chosen_N, 0).sum()


def weights(model: nn.Module) -> dict[str, mx.array]:
    """The weights by name, as the state dict of the decoder in torch names them."""
    return dict(nn.utils.tree_flatten(model.parameters()))


def set_weights(model: nn.Module, values: dict[str, mx.array] | dict[str, np.ndarray]) -> None:
    """The inverse of `weights`."""
    model.update(nn.utils.tree_unflatten([(name, mx.array(value)) for name, value in values.items()]))
