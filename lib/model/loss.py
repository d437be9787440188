"""Cross-entropy of a linear head without its logits: they live for a few rows at a time.

A head of 128k words on 16k tokens has 4 GB of logits in bf16, three times that with their gradient. Here a block of
rows is multiplied, normalised and turned into the gradient at once, in the forward pass (as Liger's kernel does, Hsu et
al. 2024, https://arxiv.org/abs/2410.10989); the backward pass scales what is there.

Shapes: N places with loss, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# A group's exponentials are kept for one product with its rows, the gradient of the head: at most so many elements.
_GROUP = {"cpu": 2**24}
_GROUP_ELSEWHERE = 2**27
IGNORED = -100  # label of a place without loss, as in torch's cross-entropy
# Rows of logits that stay in a processor's last cache while they are made and used (8 MiB in bf16 at 8192 words): of 64
# to 4096, those with which loss and gradient of 4,096 places took the least time (182 ms; 226 with 128 rows).
_ROWS = {"cpu": 512}

Exponentials = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def exponentials(logits_NV: Tensor, raised_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Write exp(logits - largest) to `raised_NV`; their sums (N,) and the largest logits (N,), in fp32."""
    exact_NV = logits_NV.float()
    largest_N1 = exact_NV.amax(-1, keepdim=True)
    powers_NV = (exact_NV - largest_N1).exp()
    raised_NV.copy_(powers_NV)
    return powers_NV.sum(-1), largest_N1[:, 0]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, raise_e: Exponentials) -> Tensor:
        device = x_ND.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_ND.dtype
        x, weight = x_ND.to(low), weight_VD.to(low)
        places, words, counts_N = len(x), len(weight), labels_N != IGNORED
        # A head that is frozen (LoRA's) needs no gradient: nothing is kept for its product.
        trains, head_trains = any(ctx.needs_input_grad[:2]), ctx.needs_input_grad[1]
        loss = torch.zeros((), device=x.device)
        grad_x = torch.empty_like(x) if trains else None
        grad_weight = torch.zeros_like(weight_VD) if head_trains else None
        group = max(1, min(places, _GROUP.get(device, _GROUP_ELSEWHERE) // words))
        rows = min(group, _ROWS.get(device, group))
        if not head_trains:
            group = rows
        raised = torch.empty((group, words), dtype=low, device=x.device)
        factors = torch.empty((group, 1), device=x.device)
        for first in range(0, places, group):
            last = min(first + group, places)
            for start in range(first, last, rows):
                end = min(start + rows, last)
                logits = x[start:end] @ weight.T
                counted, label = counts_N[start:end], labels_N[start:end].clamp(min=0)
                row, block = torch.arange(end - start, device=x.device), raised[start - first : end - first]
                at_label = logits[row, label].float()
                total, largest = raise_e(logits, block)
                loss += ((total.log() + largest - at_label) * counted).sum()
                if not trains:
                    continue
                # The gradient of the logits is block / total, less one at the label. The division waits until after the
                # product with the head, where rows are D long and not V.
                block[row, label] = (block[row, label].float() - total).to(low)
                factor = factors[start - first : end - first] = (counted / total)[:, None]
                grad_x[start:end] = ((block @ weight).float() * factor).to(low)
            if head_trains:
                scaled = (x[first:last].float() * factors[: last - first]).to(low)
                grad_weight += raised[: last - first].T @ scaled
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.dtypes = x_ND.dtype
        return loss

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        scaled = None if grad_weight is None else grad_weight * upstream
        return grad_x.to(ctx.dtypes) * upstream, scaled, None, None


def linear_cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, raise_e: Exponentials = exponentials
) -> Tensor:
    """The summed negative log-likelihood of the labels under softmax(x weight^T), in nats and fp32.

    Places labelled IGNORED carry none. Products are in autocast's precision where that is on. It can be differentiated
    once.

    Args:
        raise_e: `exponentials`, or a compiled one.
    """
    return _LinearCrossEntropy.apply(x_ND, weight_VD, labels_N, raise_e)
