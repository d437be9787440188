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

import numpy as np
import torch

from lib.backends.precision import apply_precision
from lib.backends.select import select_backend
from lib.model.config import ModelConfig
from lib.trainers.loader import Batch

LENGTH, WORDS = 256, 8192
#          layers, width, heads, kv_heads, feed_forward; tied embeddings
SHAPES = {"5M": (4, 256, 4, 2, 768), "14M": (6, 384, 6, 2, 1024)}
BATCHES = (8, 16)  # rows
BURST, BURSTS = 4, 5


def shape(name: str) -> ModelConfig:
    layers, width, heads, kv_heads, feed_forward = SHAPES[name]
    return ModelConfig(WORDS, LENGTH, layers, width, heads, kv_heads, feed_forward, 10000.0, 1e-6, True, True)


def draw(rows: int) -> Batch:
    """Tokens at random: how fast a step is does not depend on them."""
    tokens = np.random.default_rng(0).integers(WORDS, size=(rows, LENGTH + 1))
    return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), np.zeros((rows, LENGTH), np.int32))


def ours(name: str, rows: int) -> Callable[[], None]:
    from lib.model.decoder import Decoder
    from lib.trainers.engine import TorchEngine
    from lib.trainers.objectives import NextToken

    backend = select_backend()
    model = Decoder(shape(name))
    model.initialise(0)
    model.attend_by(backend.attention)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    optimizer.param_groups[0]["peak"] = 1e-3
    engine = TorchEngine(
        backend,
        NextToken(model),
        [optimizer],
        0,
        apply_precision(model, backend, "auto"),
        compiles=True,
        say=lambda line: None,
    )
    batch = draw(rows)

    def step() -> None:
        engine.gradient(batch, rows * LENGTH)
        engine.clip(1.0)
        engine.update(1.0)

    return step


def theirs(name: str, rows: int) -> Callable[[], None]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    own = shape(name)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=WORDS,
            hidden_size=own.width,
            intermediate_size=own.feed_forward,
            num_hidden_layers=own.layers,
            num_attention_heads=own.heads,
            num_key_value_heads=own.kv_heads,
            head_dim=own.head_size,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    backend = select_backend() if torch.cuda.is_available() else None
    device = backend.device if backend else torch.device("cpu")
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.from_numpy(draw(rows).inputs).to(device)

    @torch.compile
    def loss_of(tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return model(input_ids=tokens, labels=tokens).loss

    def step() -> None:
        loss_of(tokens).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def work(side: str, name: str, rows: int) -> None:
    """Answer each line on standard input with the seconds that a burst took."""
    step = {"smelt": ours, "transformers": theirs}[side](name, rows)
    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    step()
    print(json.dumps(first), flush=True)
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

    def __init__(self, side: str, name: str, rows: int) -> None:
        self.side, self.rows, self.times = side, rows, []
        command = [sys.executable, "-m", "tests.benchmarks.train", "--work", side, name, str(rows)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.first = json.loads(self._process.stdout.readline())

    def ask(self, what: str = "") -> list[float] | dict[str, float]:
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def rate(self) -> float:
        """Tokens per second, by the median step."""
        return self.rows * LENGTH / statistics.median(self.times)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(name: str) -> None:
    sides = [Side(side, name, rows) for side in ("smelt", "transformers") for rows in BATCHES]
    for _ in range(BURSTS):
        for side in sides:
            side.times += side.ask()
    best = {who: max((side for side in sides if side.side == who), key=Side.rate) for who in ("smelt", "transformers")}
    backend = select_backend()
    precision = "bf16" if backend.bf16 else "fp32"
    peak, flops = backend.peak_flops(precision), shape(name).flops_per_token
    print(
        f"\n{name}: {shape(name).parameters:,} weights on {backend.describe()}; "
        f"products alone {peak / 1e9:,.0f} GFLOP/s"
    )
    print(
        f"{'':<14}{'rows':>5}{'first step, s':>15}{'ms a step (min to max)':>28}{'tokens/s':>10}{'GFLOP/s':>9}"
        f"{'of products':>13}"
    )
    for side in sides:
        low, middle, high = min(side.times), statistics.median(side.times), max(side.times)
        rate = side.rate()
        chosen = "*" if side is best[side.side] else " "
        print(
            f"{side.side:<13}{chosen}{side.rows:>5}{side.first:>15.1f}"
            f"{f'{middle * 1e3:.0f} ({low * 1e3:.0f} to {high * 1e3:.0f})':>28}"
            f"{rate:>10,.0f}{rate * flops / 1e9:>9.0f}{rate * flops / peak:>13.0%}"
        )
    quickest = {who: side.rows * LENGTH / min(side.times) for who, side in best.items()}
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
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), metavar="SHAPE", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        side, name, rows = arguments.work
        work(side, name, int(rows))
        return
    for name in arguments.shapes:
        compare(name)


if __name__ == "__main__":
    main()
