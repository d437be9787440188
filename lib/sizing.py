"""What a preset costs before it is run: `python -m lib.sizing` writes it into the comments of the sizes in presets/.

Nothing here is measured: it is arithmetic on the shape, the horizon and what makers say of their devices, with a share
of that which is assumed (MFU). A test compares the comments with it, so they cannot drift.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.model.config import ModelConfig, derive
from lib.params.load import Params, read_yaml
from lib.preset import overlay
from lib.trainers.laws import batch, horizon

SIZES = ("30m", "125m", "350m", "1b", "3b")
GIB = 2**30
MARK = "# Derived by lib/sizing.py, not measured: "

LOGITS = GIB // 2  # bytes of logits and their gradient at a time, the loss being computed in pieces


@dataclass(frozen=True)
class Machine:
    cards: int
    memory_gb: float  # of one card, as it is sold
    tflops: float  # of one card in bf16 without sparsity, as its maker says
    mfu: float  # the share of it that is assumed


# Apple states no rate; this is 80 cores x 128 units x 2 at 1.4 GHz, in fp32 as in bf16. Its GPU may use three quarters
# of the memory.
MACHINES = {
    "h100": Machine(1, 80, 989, 0.40),
    "2x5090": Machine(2, 32, 209, 0.40),
    "3x7900xtx": Machine(3, 24, 123, 0.25),
    "mac-studio": Machine(1, 0.75 * 96, 28, 0.40),
}


def batch_tokens(config: ModelConfig) -> int:
    """Tokens per step, which grow with the horizon; a power of two of rows."""
    return config.context_length * 2 ** max(0, round(math.log2(batch(horizon(config)) / config.context_length)))


def state_bytes(config: ModelConfig, optimizer: str) -> int:
    """Weights, gradients and moments, in fp32 but for 8-bit moments, and the bf16 copies of the matrices."""
    outside = _embedding(config) * (1 if config.tie_embeddings else 2)
    matrices = config.parameters - outside
    moments = {"muon": 4, "lion": 4, "adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2, "lion_8bit": 1}[optimizer]
    return config.parameters * (4 + 4 + 2) + matrices * moments + outside * 8


def activation_bytes(config: ModelConfig, checkpointed: bool) -> int:
    """What one row of the context keeps for the backward pass in bf16, not compiled; a compiler keeps less.

    Of a block, bytes a token: in fp32 its two inputs (8 D), and queries and keys for their norms (4 D + 4 K); in bf16
    what goes into its seven projections (12 D + 2 F) and attention (2 D + 4 K), what comes out of it (2 D), and the
    feed-forward's gate, its SiLU and up (6 F). Checkpointed: its input alone, and all of one block.
    """
    keys = config.kv_heads * config.head_size
    block = 28 * config.width + 8 * keys + 8 * config.feed_forward
    kept = config.layers * 4 * config.width + block if checkpointed else config.layers * block
    return config.context_length * kept


def memory_bytes(config: ModelConfig, optimizer: str, checkpointed: bool, machine: Machine) -> int:
    """Of one card, with one row a micro-batch; weights, gradients and moments divided among the cards (FSDP)."""
    return state_bytes(config, optimizer) // machine.cards + activation_bytes(config, checkpointed) + LOGITS


def tokens_per_second(config: ModelConfig, checkpointed: bool, machine: Machine) -> float:
    """At the assumed share of the makers' rate; computing activations again takes a third more."""
    flops = config.flops_per_token * (4 / 3 if checkpointed else 1)
    return machine.cards * machine.tflops * 1e12 * machine.mfu / flops


def comment(size: Params, machines: dict[str, Params]) -> list[str]:
    """The lines for a size's file: of the model, and of each machine with its preset laid over the size's."""
    config = derive(size.model, size.tokenizer.vocab_size)
    flops = config.flops_per_token * horizon(config)
    lines = [
        f"{MARK}{_short(config.parameters)} parameters, {_short(horizon(config))} tokens, {flops:.1e} FLOPs.",
        f"# Of each machine with its preset: memory of a card with one row of {config.context_length:,} tokens,",
        "# tokens a second, and the whole run at an assumed share of the maker's bf16 rate:",
    ]
    for name, params in machines.items():
        machine, settings = MACHINES[name], params.pretrain
        checkpointed = settings.activation_checkpointing
        memory = memory_bytes(config, settings.optimizer, checkpointed, machine) / GIB
        given = machine.memory_gb * 1e9 / GIB
        if memory > 0.95 * given:
            raise ValueError(f"{config} does not fit into a card of {name}: {memory:.1f} of {given:.1f} GiB")
        rate = tokens_per_second(config, checkpointed, machine)
        hours = horizon(config) / rate / 3600
        time = f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.0f} days"
        of = f"{machine.mfu:.0%} of {machine.cards} x {machine.tflops:g} TFLOP/s"
        lines.append(f"#   {name:<11}{memory:>5.1f} of {given:.0f} GiB {rate:>11,.0f} {time:>11}, {of}")
    return lines


def with_presets(root: Path, *names: str) -> Params:
    """params.yaml with presets laid over it, in order."""
    values: dict[str, Any] = read_yaml(root / "params.yaml")
    for name in names:
        overlay(values, read_yaml(root / "presets" / f"{name}.yaml"))
    return Params.model_validate(values)


def commented(root: Path, size: str) -> str:
    """The text of a size's file, with its comment brought up to date."""
    text = (root / "presets" / f"{size}.yaml").read_text(encoding="utf-8")
    lines = comment(with_presets(root, size), {name: with_presets(root, size, name) for name in MACHINES})
    return re.sub(rf"^{re.escape(MARK)}.*\n(#.*\n)*", lambda _: "\n".join(lines) + "\n", text, flags=re.MULTILINE)


def _embedding(config: ModelConfig) -> int:
    return config.vocab_size * config.width


def _short(number: float) -> str:
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.0f}M"


def main() -> None:
    for size in SIZES:
        text = commented(Path("."), size)
        (Path("presets") / f"{size}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
