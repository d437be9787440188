"""What the stages `pretrain` and `decay` share: the same run, cut where the learning rate begins to fall."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import asdict
from pathlib import Path

from tokenizers import Tokenizer

from lib.backends.select import select_backend
from lib.model.config import derive
from lib.model.decoder import Decoder
from lib.params.training import Guards, Model, Pretrain
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file, hash_path
from lib.pipeline.run import Run
from lib.trainers.engine import TorchEngine
from lib.trainers.live import History, Meter
from lib.trainers.loader import TokenBlocks
from lib.trainers.loop import Task, Trainer
from lib.trainers.objectives import NextToken
from lib.trainers.optimizers import for_pretraining
from lib.trainers.schedules import wsd
from lib.trainers.text import Sampler, token_bytes


class Pretraining:
    """A decoder to be trained from scratch on the packed tokens.

    Args:
        tokens, tokenizer: the folders.
        decay_steps: how many steps follow the stable part.

    Raises:
        SmeltError: the shape, the batch and the tokens do not fit each other.
    """

    def __init__(
        self,
        run: Run,
        shape: Model,
        settings: Pretrain,
        guards: Guards,
        seed: int,
        tokens: Path,
        tokenizer: Path,
        decay_steps: int = 0,
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
        backend = select_backend()
        engine = TorchEngine(backend, NextToken(self.model), optimizers, seed, compiles=True, say=run.log)
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
            section="pretrain",
            token_bytes=token_bytes(Tokenizer.from_file(str(tokenizer / "tokenizer.json"))),
            sampler=Sampler(tokenizer, settings.samples, self.config.context_length),
        )
        self.trainer = Trainer(run, engine, settings, guards, task, Meter(backend, self.config.flops_per_token))

    def write(self, run: Run, history: History) -> None:
        """The curves, what the model wrote on the way, and the metrics."""
        history.write(run)
        run.report("samples.json", history.samples)
        run.metrics(
            {
                "parameters": self.config.parameters,
                "flops_per_token": self.config.flops_per_token,
                "epochs": round(self.epochs, 3),
                **self.trainer.report(),
                "loss": round(history.train[-1]["loss"], 4) if history.train else None,
                "val_loss": round(history.val[-1]["loss"], 4),
                "val_bits_per_byte": round(history.val[-1]["bits_per_byte"], 4),
            }
        )


def stable_steps(settings: Pretrain) -> int:
    """The optimizer steps of the warm-up and the stable part."""
    return math.ceil(settings.tokens / settings.batch_tokens)
