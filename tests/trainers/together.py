"""What tests/trainers/test_processes.py compares: the same runs in one process and, under torchrun, in several."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from peft import PeftModel
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from lib.model.decoder import Decoder
from lib.trainers import processes
from lib.trainers.engine import TorchEngine
from lib.trainers.live import Meter
from lib.trainers.loader import Batch, Conversations
from lib.trainers.loop import Task, Trainer
from lib.trainers.lora import add_adapter
from lib.trainers.objectives import Chat, NextToken
from lib.trainers.optimizers import for_finetuning, for_pretraining
from lib.trainers.schedules import wsd
from tests.trainers.test_loop import CONFIG, CPU, FP32, GUARDS, SETTINGS, Counting, FakeRun

STEPS, CUT = 8, 4
SHAPE = replace(CONFIG, vocab_size=33, layers=2, feed_forward=34)  # shares of unequal size


@dataclass(frozen=True)
class Case:
    """One run."""

    name: str
    sharding: str
    optimizer: str = "muon"
    batches: str = "rows"  # packed, or conversations of unequal length
    tied: bool = False
    lora: bool = False  # adapters, on frozen weights
    micro_batch: int = 3


CASES = [
    Case("ddp", "ddp"),
    Case("ddp-conversations", "ddp", optimizer="adamw", batches="conversations", micro_batch=2),
    Case("fsdp", "fsdp", tied=True),
    Case("fsdp-lora", "fsdp", optimizer="adamw", batches="conversations", lora=True, micro_batch=2),
]


class Interrupted(Counting):
    """The second process alone is asked to stop while it reads the third batch."""

    reads = 0

    def rows(self, indices: np.ndarray) -> Batch:
        self.reads += 1
        if self.reads == 3 and processes.rank() == 1:
            signal.raise_signal(signal.SIGTERM)
        return super().rows(indices)


class Cramped(NextToken):
    """The second process alone has no memory for more than two rows."""

    def forward(self, inputs_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor) -> Tensor:
        if self.training and processes.rank() == 1 and len(inputs_BT) > 2:
            raise torch.OutOfMemoryError
        return super().forward(inputs_BT, labels_BT, documents_BT)


def conversations() -> Conversations:
    random = np.random.default_rng(0)
    encoded = []
    for length in random.integers(4, 16, size=40):
        ids = random.integers(0, SHAPE.vocab_size, size=length).tolist()
        encoded.append((ids, [place > 1 for place in range(length)]))
    return Conversations(encoded, pad_token_id=0)


def adapted(dropout: float) -> PeftModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=SHAPE.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, intermediate_size=34, max_position_embeddings=16, tie_word_embeddings=False,
    )  # fmt: skip
    return add_adapter(
        Qwen3ForCausalLM(config), SimpleNamespace(rank=3, alpha=8, dropout=dropout, dora=False, rslora=False), seed=1
    )


def trainer(case: Case, folder: Path, steps: int, dropout: float = 0.0, **changes: Any) -> Trainer:
    """Seven rows a step and five to validate with: not to be divided by two."""
    os.environ.update(
        SMELT_SHARDING=case.sharding,
        SMELT_MICRO_BATCH=str(changes.get("micro_batch", case.micro_batch)),
        SMELT_COMPILE="0",
    )
    run = FakeRun(folder)
    run.follows = int(os.environ.get("RANK", 0)) > 0
    settings = SETTINGS.model_copy(
        update={"optimizer": case.optimizer, "validate_every": 2, "validate_rows": 5, "checkpoint_every": CUT}
    )
    if case.lora:
        objective = Chat(adapted(dropout))
        optimizers = for_finetuning(objective.model, settings, CPU)
    else:
        model = Decoder(replace(SHAPE, tie_embeddings=case.tied))
        model.initialise(1)
        objective = changes.get("objective", NextToken)(model)
        optimizers = for_pretraining(model, settings, CPU)
    AcceleratorState._reset_state()
    engine = TorchEngine(CPU, objective, optimizers, 3, FP32, compiles=True, say=run.log)
    schedule = functools.partial(wsd, warmup_steps=2, stable_steps=5, decay_steps=3)
    batches = changes.get("batches", Counting() if case.batches == "rows" else conversations())
    task = Task(batches, batches, 7, 3, steps, schedule, {"shape": "tiny"}, section="pretrain")
    return Trainer(run, engine, settings, GUARDS, task, Meter(CPU, flops_per_token=None))


def train(case: Case, folder: Path, steps: int = STEPS, dropout: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Train to `steps` from the newest checkpoint in the folder, if there is one; what came of it."""
    work = trainer(case, folder, steps, dropout, **changes)
    work.validate()
    history = work.fit()
    state, _ = work.checkpoint()
    results = {
        "history": asdict(history),
        "processes": processes.count(),
        "held": sum(_local(weight).numel() for weight in work._engine._raw.parameters()),
        "weights": {name: value.tolist() for name, value in state.model.items()},
        "next": None if case.lora else work._engine.next_tokens(np.array([[3, 4, 5]])).tolist(),
        "said": work._run.said,
    }
    if processes.count() == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    return results


def _local(weight: Any) -> Any:
    return weight.to_local() if hasattr(weight, "to_local") else weight


def interrupted(folder: Path) -> dict[str, Any]:
    """Stopped by a signal to one process, and gone on with."""
    case = CASES[0]
    stopped = trainer(case, folder, STEPS, batches=Interrupted())
    try:
        stopped.fit()
    except SystemExit as stop:
        return {**train(case, folder), "code": stop.code, "step": stopped.step}
    raise AssertionError("the signal had no effect")


def main(folder: Path) -> None:
    """Of each case: a whole run; one that is cut for a single process to go on with; and the rest of what one cut."""
    results: dict[str, Any] = {}
    for case in CASES:
        results[case.name] = {
            "whole": train(case, folder / case.name / "whole"),
            "first": train(case, folder / case.name / "first", steps=CUT),
            "rest": train(case, folder / case.name / "rest"),
        }
    lora = replace(CASES[-1], sharding="ddp")
    results["dropout"] = {
        "whole": train(lora, folder / "dropout", dropout=0.2),
        "first": train(lora, folder / "dropout-cut", steps=CUT, dropout=0.2),
        "rest": train(lora, folder / "dropout-cut", dropout=0.2),
    }
    results["interrupted"] = interrupted(folder / "interrupted")
    results["cramped"] = train(CASES[0], folder / "cramped", objective=Cramped, micro_batch="auto")
    kept = trainer(CASES[2], folder / "whole-model", CUT)
    kept.fit()
    state, _ = kept.checkpoint()
    kept.finish()
    if not kept._run.follows:
        given = dict(kept._engine._given.model.named_parameters())
        whole = {name: weight.detach().numpy() for name, weight in given.items()}
        results["given"] = all(
            np.array_equal(value, each[name])
            for each in (whole, kept._engine.state().model)
            for name, value in state.model.items()
        )
        (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
