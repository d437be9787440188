"""What tests/trainers/test_processes.py compares: the same runs in one process and, under torchrun, in several."""

from __future__ import annotations

import functools
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.state import AcceleratorState

from lib.model.decoder import Decoder
from lib.trainers import processes
from lib.trainers.engine import TorchEngine
from lib.trainers.live import Meter
from lib.trainers.loader import Conversations
from lib.trainers.loop import Task, Trainer
from lib.trainers.objectives import NextToken
from lib.trainers.optimizers import for_pretraining
from lib.trainers.schedules import wsd
from tests.trainers.test_loop import CONFIG, CPU, GUARDS, SETTINGS, Counting, FakeRun

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
    micro_batch: int = 3


CASES = [
    Case("ddp", "ddp"),
    Case("ddp-conversations", "ddp", optimizer="adamw", batches="conversations", micro_batch=2),
    Case("fsdp", "fsdp", tied=True),
    Case("fsdp-conversations", "fsdp", optimizer="adamw", batches="conversations", micro_batch=2),
]


def conversations() -> Conversations:
    random = np.random.default_rng(0)
    encoded = []
    for length in random.integers(4, 16, size=40):
        ids = random.integers(0, SHAPE.vocab_size, size=length).tolist()
        encoded.append((ids, [place > 1 for place in range(length)]))
    return Conversations(encoded, pad_token_id=0)


def train(case: Case, folder: Path, steps: int = STEPS) -> dict[str, Any]:
    """Train to `steps` from the newest checkpoint in the folder, if there is one; what came of it.

    Seven rows a step and five to validate with: not to be divided by two.
    """
    os.environ.update(SMELT_SHARDING=case.sharding, SMELT_MICRO_BATCH=str(case.micro_batch), SMELT_COMPILE="0")
    run = FakeRun(folder)
    run.follows = int(os.environ.get("RANK", 0)) > 0
    settings = SETTINGS.model_copy(
        update={"optimizer": case.optimizer, "validate_every": 2, "validate_rows": 5, "checkpoint_every": CUT}
    )
    model = Decoder(replace(SHAPE, tie_embeddings=case.tied))
    model.initialise(1)
    engine = TorchEngine(CPU, NextToken(model), for_pretraining(model, settings), seed=3, compiles=True, say=run.log)
    schedule = functools.partial(wsd, warmup_steps=2, stable_steps=5, decay_steps=3)
    batches = Counting() if case.batches == "rows" else conversations()
    task = Task(batches, batches, 7, 3, steps, schedule, {"shape": "tiny"}, section="pretrain")
    trainer = Trainer(run, engine, settings, GUARDS, task, Meter(CPU, flops_per_token=None))
    history = trainer.fit()
    next_tokens = engine.next_tokens(np.array([[3, 4, 5]])).tolist()
    state, _ = trainer.checkpoint()
    shared = processes.count()
    AcceleratorState._reset_state(reset_partial_state=shared == 1)
    return {
        "history": asdict(history),
        "processes": shared,
        "held": sum(weight.numel() for weight in map(_local, engine._raw.parameters())),
        "next": next_tokens,
        "weights": {name: value.tolist() for name, value in state.model.items()},
    }


def _local(weight: Any) -> Any:
    return weight.to_local() if hasattr(weight, "to_local") else weight


def main(folder: Path) -> None:
    """Of each case: a whole run; one that is cut for a single process to go on with; and the rest of what one cut."""
    for case in CASES:
        here = folder / case.name
        results = {
            "whole": train(case, here / "whole"),
            "first": train(case, here / "first", steps=CUT),
            "rest": train(case, here / "rest"),
        }
        if not processes.rank():
            (here / "results.json").write_text(json.dumps(results))
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
