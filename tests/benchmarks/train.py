"""How fast the engine trains, beside transformers' Qwen3 of the same shape on the same machine: `make bench-train`.

Each side is a process of its own, warm before the first measurement; the two take turns, one burst of steps each, so
that whatever else the machine does meets both. transformers' model runs as its users tune it: bf16 autocast,
torch.compile, fused AdamW, at the batch of those given at which it is quickest. Model FLOPs are counted alike (6 per
weight of a matrix and token, and the scores of full attention).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from lib.backends.precision import apply_precision
from lib.backends.select import select_backend
from lib.model.config import SIZES, ModelConfig
from lib.trainers.loader import Batch

BATCHES = (8, 16)  # rows
BURST, BURSTS = 4, 5


class Case(NamedTuple):
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    length: int
    words: int

    @property
    def config(self) -> ModelConfig:
        shape = self.layers, self.width, self.heads, self.kv_heads, self.feed_forward
        return ModelConfig(self.words, self.length, *shape, 10000.0, 1e-6, True, True)

    def draw(self, rows: int) -> Batch:
        """Tokens at random: how fast a step is does not depend on them."""
        tokens = np.random.default_rng(0).integers(self.words, size=(rows, self.length + 1))
        return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), np.zeros((rows, self.length), np.int32))


CASES = {
    "5M": Case(4, 256, 4, 2, 768, 256, 8192),
    "14M": Case(6, 384, 6, 2, 1024, 256, 8192),
    **{size: Case(*SIZES[size], 2048, 32768) for size in ("125m", "350m", "1b")},  # for GPUs
}


def ours(case: Case, rows: int, precision: str) -> Callable[[], None]:
    from lib.model.decoder import Decoder
    from lib.trainers.engine import TorchEngine
    from lib.trainers.objectives import NextToken

    backend = select_backend()
    model = Decoder(case.config)
    model.initialise(0)
    model.attend_by(backend.attention)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    optimizer.param_groups[0]["peak"] = 1e-3
    engine = TorchEngine(
        backend,
        NextToken(model),
        [optimizer],
        0,
        apply_precision(model, backend, precision),
        compiles=True,
        say=lambda line: None,
    )
    batch = case.draw(rows)

    def step() -> None:
        engine.gradient(batch, rows * case.length)
        engine.clip(1.0)
        engine.update(1.0)

    return step


def theirs(case: Case, rows: int) -> Callable[[], None]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=case.words,
            hidden_size=case.width,
            intermediate_size=case.feed_forward,
            num_hidden_layers=case.layers,
            num_attention_heads=case.heads,
            num_key_value_heads=case.kv_heads,
            head_dim=case.config.head_size,
            max_position_embeddings=case.length,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.from_numpy(case.draw(rows).inputs).to(device)

    @torch.compile
    def loss_of(tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return model(input_ids=tokens, labels=tokens).loss

    def step() -> None:
        loss = loss_of(tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # a GPU is done then

    return step


def work(side: str, name: str, rows: int, precision: str) -> None:
    """Answer each line on standard input with the seconds that a burst took."""
    case = CASES[name]
    step = ours(case, rows, precision) if side == "smelt" else theirs(case, rows)
    backend = select_backend()
    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    step()
    print(json.dumps([first, backend.memory_mib()]), flush=True)
    for line in sys.stdin:
        if line.strip() == "profile":
            breakdown(step)
            continue
        times = []
        for _ in range(BURST):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        print(json.dumps(times), flush=True)


def breakdown(step: Callable[[], None]) -> None:
    """Print where the time of a step goes, by kind of operation, in milliseconds."""
    from torch.profiler import profile

    with profile() as recorded:
        started = time.perf_counter()
        for _ in range(BURST):
            step()
        whole = (time.perf_counter() - started) / BURST
    kinds: dict[str, float] = {}
    for event in recorded.events():
        kind = next((kind for part, kind in KINDS.items() if part in event.name), "the rest")
        kinds[kind] = kinds.get(kind, 0) + event.self_cpu_time_total / 1000 / BURST
    print(json.dumps({"a step": whole * 1000, **dict(sorted(kinds.items(), key=lambda item: -item[1]))}), flush=True)


KINDS = {
    "aten::mm": "matrix products",
    "aten::bmm": "attention's products",
    "CompiledFx": "compiled element-wise code (norms, RoPE, softmax, SwiGLU, loss)",
    "adamw": "optimizer",
    "_foreach": "clipping",
    "_LinearCrossEntropy": "the loss's bookkeeping",
}


class Side:
    """A process that trains."""

    def __init__(self, side: str, name: str, rows: int, precision: str) -> None:
        self.side, self.rows, self.length, self.times = side, rows, CASES[name].length, []
        command = [sys.executable, "-m", "tests.benchmarks.train", "--work", side, name, str(rows), precision]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.first, self.memory_mib = json.loads(self._process.stdout.readline())

    def ask(self, what: str = "") -> list[float] | dict[str, float]:
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def rate(self) -> float:
        """Tokens per second, by the median step."""
        return self.rows * self.length / statistics.median(self.times)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(name: str, precision: str) -> None:
    sides = [Side(side, name, rows, precision) for side in ("smelt", "transformers") for rows in BATCHES]
    for _ in range(BURSTS):
        for side in sides:
            side.times += side.ask()
    best = {who: max((side for side in sides if side.side == who), key=Side.rate) for who in ("smelt", "transformers")}
    backend = select_backend()
    config, peak = CASES[name].config, backend.peak_flops("bf16" if backend.bf16 else "fp32")
    print(f"\n{name}: {config.parameters:,} weights on {backend.describe()}; products alone {peak / 1e9:,.0f} GFLOP/s")
    print(
        f"{'':<14}{'rows':>5}{'first step, s':>15}{'ms a step (min to max)':>28}{'tokens/s':>10}{'GFLOP/s':>9}"
        f"{'of products':>13}{'MiB':>8}"
    )
    for side in sides:
        low, middle, high = min(side.times), statistics.median(side.times), max(side.times)
        rate = side.rate()
        chosen = "*" if side is best[side.side] else " "
        print(
            f"{side.side:<13}{chosen}{side.rows:>5}{side.first:>15.1f}"
            f"{f'{middle * 1e3:.0f} ({low * 1e3:.0f} to {high * 1e3:.0f})':>28}"
            f"{rate:>10,.0f}{rate * config.flops_per_token / 1e9:>9.0f}"
            f"{rate * config.flops_per_token / peak:>13.0%}{side.memory_mib:>8,.0f}"
        )
    quickest = {who: side.rows * side.length / min(side.times) for who, side in best.items()}
    print(
        f"ratio of tokens/s: {best['smelt'].rate() / best['transformers'].rate():.2f} by the median step, "
        f"{quickest['smelt'] / quickest['transformers']:.2f} by the quickest"
    )
    for kind, milliseconds in best["smelt"].ask("profile").items():
        print(f"  {milliseconds:8.1f} ms  {kind}")
    for side in sides:
        side.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=["5M", "14M"], metavar="SIZE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32", "fp8"), help="the engine's")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        side, name, rows, precision = arguments.work
        work(side, name, int(rows), precision)
        return
    for name in arguments.sizes:
        compare(name, arguments.precision)


if __name__ == "__main__":
    main()
