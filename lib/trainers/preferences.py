"""What is minimised on pairs of answers: that the chosen one becomes likelier beside the rejected one.

    dpo     -log sigmoid(beta * (log-ratio of the chosen answer - log-ratio of the rejected one)), the ratio being that
            to the reference model (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, equation 7)
    orpo    the loss per token of the chosen answer - beta * log sigmoid(log of the ratio of the odds of both answers),
            probabilities being geometric means over tokens; no reference (Hong et al. 2024,
            https://arxiv.org/abs/2403.07691, equations 6 and 7)

Shapes: B rows of T tokens; N of them are labels; P pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.params.preferences import PreferenceLoss
from lib.trainers.engine import TorchEngine
from lib.trainers.live import Row
from lib.trainers.loader import IGNORED
from lib.trainers.objectives import apart
from lib.trainers.packed import trunk
from lib.trainers.pairs import PairBatch

_SURE = -1e-6  # a log-probability that is taken for 0: its odds are infinite


class Comparison(NamedTuple):
    """Of each pair, (P,)."""

    loss: Tensor
    chosen: Tensor  # the implicit reward of the chosen answer (equation 5 of the DPO paper, without its constant)
    rejected: Tensor


def _log_odds(log_probability: Tensor) -> Tensor:
    log_probability = log_probability.clamp(max=_SURE)
    return log_probability - torch.log(-torch.expm1(log_probability))


def compare(
    found_N: Tensor, labels_BT: Tensor, documents_BT: Tensor, reference_BT: Tensor, loss: PreferenceLoss, beta: float
) -> Comparison:
    """Compare the answers of each pair by the log-probabilities of their tokens.

    Args:
        found_N: of the labels, row after row, under the model that is trained.
        reference_BT: the same under the reference model.
    """
    keep_BT = labels_BT != IGNORED
    rows, length = labels_BT.shape
    most = length + length % 2  # documents of a row, an even number
    numbers_BT = torch.arange(rows, device=labels_BT.device)[:, None] * most + documents_BT
    numbers_N = numbers_BT[keep_BT]

    def sums(values_N: Tensor) -> Tensor:
        zeros = torch.zeros(rows * most, dtype=values_N.dtype, device=values_N.device)
        return zeros.index_add(0, numbers_N, values_N).view(-1, 2)

    tokens = sums(torch.ones_like(found_N))
    pairs = tokens[:, 0] > 0
    if loss == "dpo":
        chosen, rejected = (beta * sums(found_N - reference_BT[keep_BT])[pairs]).unbind(1)
        return Comparison(-F.logsigmoid(chosen - rejected), chosen, rejected)
    means = sums(found_N)[pairs] / tokens[pairs]
    odds = _log_odds(means)
    losses = -means[:, 0] - beta * F.logsigmoid(odds[:, 0] - odds[:, 1])
    chosen, rejected = (beta * means).unbind(1)
    return Comparison(losses, chosen, rejected)


class Preference(nn.Module):
    """The summed loss of pairs, by a transformers model or a peft model around one.

    Packed without padding where the model's attention allows it (lib/trainers/packed.py), else each conversation in a
    row of its own. The head is a matrix and no more; other bases are refused (lib/trainers/bases.py).
    """

    def __init__(self, model: nn.Module, loss: PreferenceLoss, beta: float) -> None:
        super().__init__()
        self.model, self._loss, self._beta = model, loss, beta
        self._trunk = trunk(self._causal)

    @property
    def _causal(self) -> nn.Module:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def forward(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor, reference_BT: Tensor) -> Tensor:
        found_N = self.log_probabilities(inputs_BT, labels_BT, documents_BT)
        return compare(found_N, labels_BT, documents_BT, reference_BT, self._loss, self._beta).loss.sum()

    def log_probabilities(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> Tensor:
        """Of each label, row after row, (N,), in nats."""
        if self._trunk is not None:
            states, labels = self._trunk(inputs_BT, labels_BT, documents_BT)
        else:
            inputs, labels = apart(inputs_BT, labels_BT, documents_BT)
            states = self._causal.model(input_ids=inputs, use_cache=False).last_hidden_state
        keep = labels != IGNORED
        logits_NV = self._causal.get_output_embeddings()(states[keep])
        return -F.cross_entropy(logits_NV.float(), labels[keep], reduction="none")

    def measure(self, engine: TorchEngine, batch: PairBatch) -> Row:
        """Means over the pairs of a batch, without gradient: the loss, how often the chosen answer has the higher
        reward, both rewards, and by how much they differ."""
        found_N = torch.from_numpy(engine.log_probabilities(batch))
        parts = (torch.from_numpy(part) for part in (batch.labels, batch.documents, batch.reference))
        found = compare(found_N, *parts, self._loss, self._beta)
        margins = found.chosen - found.rejected
        return {
            "loss": found.loss.mean().item(),
            "accuracy": (margins > 0).float().mean().item(),
            "margin": margins.mean().item(),
            "chosen": found.chosen.mean().item(),
            "rejected": found.rejected.mean().item(),
        }
