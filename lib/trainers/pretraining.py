"""What the stages `pretrain` and `decay` share: the same run, cut where the learning rate begins to fall."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import asdict
from pathlib import Path

from lib.backends.select import select_backend
from lib.model.config import derive
from lib.model.decoder import Decoder
from lib.params.training import Model, Pretrain
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file, hash_path
from lib.pipeline.run import Run
from lib.trainers.engine import TorchEngine
from lib.trainers.loader import TokenBlocks
from lib.trainers.loop import Task, Trainer
from lib.trainers.objectives import NextToken
from lib.trainers.optimizers import for_pretraining
from lib.trainers.schedules import wsd


class Pretraining:
    """A decoder to be trained from scratch on the packed tokens.

    Args:
        decay_steps: how many steps follow the stable part; they are trained only if `decays`.

    Raises:
        SmeltError: the shape, the batch and the tokens do not fit each other.
    """

    def __init__(
        self, run: Run, shape: Model, settings: Pretrain, seed: int, tokens: Path, tokenizer: Path, decay_steps: int = 0
    ) -> None:
        vocab_size = json.loads((tokens / "index.json").read_text(encoding="utf-8"))["vocab_size"]
        self.config = derive(shape, vocab_size)
        rows, remainder = divmod(settings.batch_tokens, self.config.context_length)
        if remainder or not rows:
            raise SmeltError(
                f"pretrain.batch_tokens ({settings.batch_tokens}) must be a multiple of model.context_length "
                f"({self.config.context_length})"
            )
        fingerprint = hash_file(tokenizer / "tokenizer.json")
        train, val = (TokenBlocks(tokens, split, self.config.context_length, fingerprint) for split in ("train", "val"))
        self.stable_steps = stable_steps(settings)
        self.steps = self.stable_steps + decay_steps
        self.epochs = self.steps * rows / len(train)
        self.model = Decoder(self.config)
        self.model.initialise(seed)
        optimizers = for_pretraining(self.model, settings)
        engine = TorchEngine(select_backend(), NextToken(self.model), optimizers, seed, compiles=True, say=run.log)
        task = Task(
            train,
            val,
            rows,
            seed,
            self.steps,
            functools.partial(
                wsd, warmup_steps=settings.warmup_steps, stable_steps=self.stable_steps, decay_steps=decay_steps
            ),
            identity={
                "model": asdict(self.config),
                "seed": seed,
                "batch_tokens": settings.batch_tokens,
                "optimizer": settings.optimizer,
                "tokenizer": fingerprint,
                "tokens": hash_path(tokens),
            },
        )
        self.trainer = Trainer(run, engine, settings, task)


def stable_steps(settings: Pretrain) -> int:
    """The optimizer steps of the warm-up and the stable part."""
    return math.ceil(settings.tokens / settings.batch_tokens)
