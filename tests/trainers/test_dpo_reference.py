"""DPO against trl's DPOTrainer: the same pairs, weights and reference give the same losses, step after step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from lib.trainers.engine import TorchEngine
from lib.trainers.optimizers import for_finetuning
from lib.trainers.pairs import Pair, Pairs
from lib.trainers.preferences import Preference
from tests.trainers.test_loop import CPU, FP32, SETTINGS
from tests.trainers.test_preferences import VOCAB, make_model, make_pairs, move

STEPS, ROWS, BETA, RATE, CLIP = 6, 4, 0.3, 3e-3, 1.0


def ours(trained: nn.Module, raw: list[Pair], folder: Path) -> tuple[list[float], np.ndarray]:
    """The loss of each step, and the reference's log-probabilities (P, 2) of the answers."""
    settings = SETTINGS.model_copy(update={"optimizer": "adamw", "learning_rate": RATE, "weight_decay": 0.0})
    engine = TorchEngine(
        CPU, Preference(trained, "dpo", BETA), for_finetuning(trained, settings, CPU), 1, FP32, compiles=False,
        say=lambda line: None,
    )  # fmt: skip
    pairs = Pairs(raw, 0)
    pairs.refer_to(engine, folder / "reference.npy")
    losses = []
    for step in range(STEPS):
        batch = pairs.rows(np.arange(step * ROWS, (step + 1) * ROWS))
        losses.append(engine.gradient(batch, batch.counted))
        engine.clip(CLIP)
        engine.update(1.0)
    chosen = [int(pair.chosen[1].sum()) for pair in raw]
    summed = [(each[:end].sum(), each[end:].sum()) for each, end in zip(pairs.reference, chosen, strict=True)]
    return losses, np.array(summed)


class Watched(DPOTrainer):
    """Takes token ids as they are, and remembers the loss of each step."""

    def _prepare_dataset(self, dataset: Dataset, *others: Any) -> Dataset:
        self.losses: list[float] = []
        return dataset

    def training_step(self, *given: Any, **options: Any) -> torch.Tensor:
        loss = super().training_step(*given, **options)
        self.losses.append(loss.item())
        return loss


def theirs(trained: nn.Module, reference: nn.Module | None, raw: list[Pair], folder: Path) -> Watched:
    rows = []
    for pair in raw:
        (ids, answer), (rejected, _) = pair
        prompt = int((~answer).sum())
        rows.append({
            "prompt_ids": ids[:prompt].tolist(), "chosen_ids": ids[prompt:].tolist(),
            "rejected_ids": rejected[prompt:].tolist(),
        })  # fmt: skip
    words = Tokenizer(WordLevel({str(number): number for number in range(VOCAB)}, unk_token="0"))
    config = DPOConfig(
        str(folder), beta=BETA, learning_rate=RATE, lr_scheduler_type="constant", max_steps=STEPS, optim="adamw_torch",
        per_device_train_batch_size=ROWS, train_sampling_strategy="sequential", adam_beta1=SETTINGS.betas[0],
        adam_beta2=SETTINGS.betas[1], weight_decay=0.0, max_grad_norm=CLIP, gradient_checkpointing=False, bf16=False,
        use_cpu=True, max_length=None, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        precompute_ref_log_probs=True,
    )  # fmt: skip
    made = Watched(
        trained, reference, config, train_dataset=Dataset.from_list(rows),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="1"),
    )  # fmt: skip
    made.train()
    return made


@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_and_weights_are_those_of_trl(tmp_path: Path, method: str) -> None:
    model = make_model(tied=True)  # trl has no adapters on the head
    move(model)
    if method == "full":
        model = model.merge_and_unload().requires_grad_(True)
    other, raw = copy.deepcopy(model), make_pairs(STEPS * ROWS)
    losses, reference = ours(model, raw, tmp_path)
    peer = theirs(other, None if method == "lora" else copy.deepcopy(other), raw, tmp_path / "trl")
    known = [[*peer.train_dataset[f"ref_{name}_logps"]] for name in ("chosen", "rejected")]
    np.testing.assert_allclose(reference.T, known, rtol=1e-5)
    assert losses[0] == pytest.approx(np.log(2), abs=1e-6)
    assert np.abs(np.diff(losses)).max() > 0.01
    np.testing.assert_allclose(losses, peer.losses, rtol=1e-5)
    found = dict(other.named_parameters())
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(weight, found[name], rtol=1e-4, atol=1e-5, msg=name)
