"""How soon the engine reaches what a plain recipe reaches: `make bench-quality`.

The plain recipe is GPT-2's architecture (transformers' own, tied, compiled, bf16) with fused AdamW and a cosine, of the
best size of those in SIZES for the budget. Both learn from the same packed rows of data/tokens and are measured on the
same validation rows, in bits per byte. A budget is seconds of training steps; compiling and measuring do not count. The
engine gets the budget whole, and once more a part of it, each with a schedule of its own. `--ablate` takes one thing
after the other out of its recipe.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from lib.backends.precision import apply_precision
from lib.backends.select import select_backend
from lib.model.config import derive
from lib.model.decoder import Decoder
from lib.params.load import load
from lib.pipeline.hashes import hash_file
from lib.trainers.engine import TorchEngine
from lib.trainers.loader import Batch, TokenBlocks, batch_indices
from lib.trainers.objectives import NextToken
from lib.trainers.optimizers import for_pretraining
from lib.trainers.schedules import cosine, decay_steps, schedule
from lib.trainers.text import token_bytes

ROOT = Path(__file__).parents[2]
# Layers, width, heads and rate of the plain recipe. After 100 s, in bits per byte, one seed: 2x256 2.27 (at 2e-3),
# 4x256 2.32 (2.48 at 2e-3, 2.71 at 5e-3; with 16 rows 2.61, with 4 rows 2.39), 6x384 2.89 (at 1.5e-3).
SIZES = {"2x256": (2, 256, 4, 1e-3), "4x256": (4, 256, 4, 1e-3), "6x384": (6, 384, 6, 1e-3)}
PLAIN_ROWS = 8
# What is left of the recipe without each of its items; the names that begin with "without" are no params.
ABLATIONS: dict[str, dict[str, object]] = {
    "all of it": {},
    "AdamW for Muon": {"optimizer": "adamw", "learning_rate": 0.004},
    "no zeros at first": {"without.zeros": True},
    "sees neighbours": {"without.mask": True},
    "half the batch": {"batch_tokens": 1024, "learning_rate": 0.014},
    "twice the batch": {"batch_tokens": 4096, "learning_rate": 0.028},
    "decay of 0.1, cautious": {"weight_decay": 0.1},
    "decay of 0.1, of all": {"weight_decay": 0.1, "cautious": False},
}
HELD_OUT = 256  # validation rows
TICKS = 10_000  # a schedule's steps: how much of the budget is spent, in ten-thousandths


class Corpus:
    def __init__(self, root: Path, context_length: int) -> None:
        tokenizer = root / "models/tokenizer/tokenizer.json"
        fingerprint = hash_file(tokenizer)
        self.train = TokenBlocks(root / "data/tokens", "train", context_length, fingerprint)
        val = TokenBlocks(root / "data/tokens", "val", context_length, fingerprint)
        self.held_out = val.rows(np.arange(min(HELD_OUT, len(val))))
        sizes = token_bytes(Tokenizer.from_file(str(tokenizer)))
        self.vocab_size = len(sizes)
        self.held_out_bytes = int(sizes[self.held_out.labels[self.held_out.labels >= 0]].sum())

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        return self.train.rows(batch_indices(seed, step, rows, len(self.train)))


class Ours:
    """The engine with the pretraining of params.yaml, but for what the command line changes."""

    def __init__(self, corpus: Corpus, changes: dict[str, object]) -> None:
        params = load(ROOT / "params.yaml")
        of = {section: {} for section in ("pretrain", "model", "decay", "without")}
        for name, value in changes.items():
            section, _, entry = name.rpartition(".")
            of[section or "pretrain"][entry] = value
        self._without = of["without"]
        self._settings = params.pretrain.model_copy(update=of["pretrain"])
        self._fraction = params.decay.model_copy(update=of["decay"]).fraction
        self._corpus, backend = corpus, select_backend()
        config = derive(params.model.model_copy(update=of["model"]), corpus.vocab_size)
        self.rows = self._settings.batch_tokens // config.context_length
        self._model = Decoder(config)
        precision = apply_precision(self._model, backend, self._settings.precision)
        self._model.attend_by(backend.attention)
        optimizers = for_pretraining(self._model, self._settings, backend)
        self._engine = TorchEngine(
            backend, NextToken(self._model), optimizers, 0, precision, compiles=True, say=lambda line: None
        )
        stable = round(TICKS * (1 - self._fraction))
        self._factor = schedule("wsd", TICKS // 50, stable, decay_steps("wsd", stable, self._fraction))

    def begin(self, seed: int) -> None:
        self._model.initialise(seed)
        if "zeros" in self._without:
            draw = torch.Generator().manual_seed(seed)
            for name, weight in self._model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):  # as GPT-2 does, by the number of layers
                    std = 1 / math.sqrt(weight.shape[1] * 2 * len(self._model.model.layers))
                    torch.nn.init.normal_(weight, std=std, generator=draw)
        self._engine.load(self._engine.state()._replace(optimizer={}))

    def step(self, batch: Batch, spent: float) -> None:
        if "mask" in self._without:
            batch = batch._replace(documents=np.zeros_like(batch.documents))
        self._engine.gradient(batch, int((batch.labels >= 0).sum()))
        self._engine.clip(self._settings.clip_norm)
        self._engine.update(self._factor(int(spent * TICKS)))

    def bits_per_byte(self) -> float:
        return self._engine.loss_sum(self._corpus.held_out) / self._corpus.held_out_bytes / np.log(2)


class Plain:
    """GPT-2 with AdamW and a cosine."""

    rows = PLAIN_ROWS

    def __init__(self, corpus: Corpus, size: str) -> None:
        from transformers import GPT2Config, GPT2LMHeadModel

        self._corpus = corpus
        layers, width, heads, self._rate = SIZES[size]
        length = corpus.held_out.inputs.shape[1]
        none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
        self._model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=corpus.vocab_size, n_positions=length, n_embd=width, n_layer=layers, n_head=heads, **none
            )
        )
        self._optimizer = None

        def loss_of(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=select_backend().bf16):
                logits = self._model(input_ids=inputs).logits
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")

        self._loss = torch.compile(loss_of, dynamic=False)

    def begin(self, seed: int) -> None:
        torch.manual_seed(seed)
        with torch.no_grad():
            self._model.apply(self._model._init_weights)
            self._model.tie_weights()
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=self._rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )

    def step(self, batch: Batch, spent: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * cosine(int(spent * TICKS), TICKS // 50, TICKS)
        loss = self._loss(torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels))
        (loss / int((batch.labels >= 0).sum())).backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def bits_per_byte(self) -> float:
        held_out, total = self._corpus.held_out, 0.0
        for start in range(0, len(held_out.inputs), PLAIN_ROWS):
            rows = slice(start, start + PLAIN_ROWS)
            total += self._loss(torch.from_numpy(held_out.inputs[rows]), torch.from_numpy(held_out.labels[rows])).item()
        return total / self._corpus.held_out_bytes / np.log(2)


def train(name: str, side: Ours | Plain, corpus: Corpus, seed: int, seconds: float) -> float:
    """Bits per byte on the held-out rows after so many seconds of steps."""
    side.begin(seed)
    side.step(corpus.batch(seed, 0, side.rows), 0.0)  # compiled here, if it was not
    side.begin(seed)
    spent, step = 0.0, 0
    while spent < seconds:
        batch = corpus.batch(seed, step, side.rows)
        started = time.perf_counter()
        side.step(batch, spent / seconds)
        spent += time.perf_counter() - started
        step += 1
    found = side.bits_per_byte()
    tokens = step * side.rows * batch.inputs.shape[1]
    print(
        f"{name:<22} seed {seed}, {seconds:>4.0f} s: {found:.4f} bits per byte ({tokens:,} tokens, {step} steps)",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="the budget")
    parser.add_argument("--part", type=float, default=0.15, help="of it, for the engine to reach the plain recipe in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", choices=SIZES, default="2x256", help="of the plain recipe")
    parser.add_argument("--only", choices=("smelt", "part", "plain"), help="one of the three runs alone")
    parser.add_argument("--ablate", action="store_true", help="the recipe without each of its items, in place of that")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="numbers of pretrain, or model.layers=2, for trials"
    )
    arguments = parser.parse_args()
    changes = {name: json.loads(value) for name, value in (item.split("=") for item in arguments.set)}

    corpus = Corpus(ROOT, load(ROOT / "params.yaml").model.context_length)
    runs = {
        "plain": (lambda: Plain(corpus, arguments.size), arguments.seconds),
        "part": (lambda: Ours(corpus, changes), arguments.seconds * arguments.part),
        "smelt": (lambda: Ours(corpus, changes), arguments.seconds),
    }
    if arguments.ablate:
        runs = {
            name: (lambda without=without: Ours(corpus, changes | without), arguments.seconds)
            for name, without in ABLATIONS.items()
        }
    chosen = {name: run for name, run in runs.items() if arguments.only in (None, name)}
    found: dict[str, list[float]] = {name: [] for name in chosen}
    for seed in range(1, arguments.seeds + 1):
        for name, (make, seconds) in chosen.items():
            found[name].append(train(name, make(), corpus, seed, seconds))
    for name, values in found.items():
        spread = f"{min(values):.4f} to {max(values):.4f}"
        print(f"{name}: mean {statistics.mean(values):.4f} bits per byte, {spread}, {chosen[name][1]:.0f} s each")
    if len(chosen) == len(runs) and not arguments.ablate:
        plain, part, whole = (statistics.mean(found[name]) for name in ("plain", "part", "smelt"))
        print(f"in {arguments.part:.0%} of the time {1 - part / plain:+.1%} below the plain recipe's, in all of it "
              f"{1 - whole / plain:+.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
