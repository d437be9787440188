"""What the stages `pretrain` and `decay` share: the same run, cut where the learning rate begins to fall."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lib.backends.backend import Backend
from lib.backends.precision import apply_precision, choose_precision
from lib.backends.select import select_backend
from lib.model.config import derive
from lib.model.decoder import Decoder
from lib.params.training import Guards, Model, Pretrain
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file, hash_path
from lib.pipeline.run import Run
from lib.trainers import laws
from lib.trainers.activations import checkpoint_activations
from lib.trainers.engine import Engine, TorchEngine
from lib.trainers.live import History, Meter
from lib.trainers.loader import TokenBlocks
from lib.trainers.loop import Task, Trainer
from lib.trainers.objectives import NextToken
from lib.trainers.optimizers import for_pretraining, remarks
from lib.trainers.schedules import decay_steps, schedule
from lib.trainers.text import Sampler, token_bytes


class Pretraining:
    """A decoder to be trained from scratch on the packed tokens.

    Args:
        tokens, tokenizer: the folders.
        given: what it leaves null, the laws give.
        decay_fraction: the part of the whole horizon that follows the stable part.

    Raises:
        SmeltError: the shape, the batch and the tokens do not fit each other.
    """

    def __init__(
        self,
        run: Run,
        shape: Model,
        given: Pretrain,
        guards: Guards,
        seed: int,
        tokens: Path,
        tokenizer: Path,
        decay_fraction: float = 0.0,
    ) -> None:
        vocab_size = json.loads((tokens / "index.json").read_text(encoding="utf-8"))["vocab_size"]
        self.config = derive(shape, vocab_size)
        self.settings = settings = laws.resolve(given, self.config)
        backend = select_backend(mlx=True)
        rows, remainder = divmod(settings.batch_tokens, self.config.context_length)
        if remainder or not rows:
            raise SmeltError(
                f"pretrain.batch_tokens ({settings.batch_tokens}) must be a multiple of model.context_length "
                f"({self.config.context_length})"
            )
        for line in (*laws.describe(given, self.config), *remarks(settings, backend)):
            run.log(line)
        fingerprint = hash_file(tokenizer / "tokenizer.json")
        train, val = (TokenBlocks(tokens, split, self.config.context_length, fingerprint) for split in ("train", "val"))
        stable_steps = math.ceil(settings.tokens / settings.batch_tokens)
        self.decay_steps = decay_steps(settings.schedule, stable_steps, decay_fraction)
        self.steps = stable_steps + self.decay_steps
        self.epochs = self.steps * rows / len(train)
        self.model = Decoder(self.config)
        self.model.initialise(seed)
        self.engine = _engine(backend, self.model, settings, seed, run.log)
        task = Task(
            train,
            val,
            rows,
            seed,
            self.steps,
            schedule(settings.schedule, settings.warmup_steps, stable_steps, self.decay_steps),
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
        meter = Meter(backend, self.config.flops_per_token, choose_precision(settings.precision, backend))
        self.trainer = Trainer(run, self.engine, settings, guards, task, meter)

    def trained(self) -> Decoder:
        """The decoder with the engine's weights, wherever those are."""
        trained = Decoder(self.config)
        weights = {name: torch.from_numpy(value) for name, value in self.engine.state().model.items()}
        if self.config.tie_embeddings:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        trained.load_state_dict(weights)
        return trained

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


def _engine(backend: Backend, model: Decoder, settings: Pretrain, seed: int, say: Callable[[str], None]) -> Engine:
    if backend.framework == "mlx":
        from lib.trainers.mlx_engine import for_pretraining as mlx_engine  # only where MLX is installed

        return mlx_engine(backend, model, settings, say)
    precision = apply_precision(model, backend, settings.precision)
    model.attend_by(backend.attention)
    if settings.activation_checkpointing:
        checkpoint_activations(model)
    optimizers = for_pretraining(model, settings, backend)
    return TorchEngine(backend, NextToken(model), optimizers, seed, precision, compiles=True, say=say)
