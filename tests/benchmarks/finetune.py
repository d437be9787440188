"""How fast LoRA is beside trl's SFTTrainer with peft, and what QLoRA saves of memory: `make bench-finetune`.

Each side is a process of its own; they take turns, one burst of steps each, so that whatever else the machine does
meets all of them. Base, conversations, their order, adapters and their first values, optimizer, rate, clipping and
autocast are the same, and so is the loss of every step, up to rounding. trl runs without the gradient checkpointing
that is its default, in each way of batching that works without flash attention; the quickest one counts. Tokens are
those of the conversations, without padding.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lib.backends.precision import choose_precision
from lib.backends.select import select_backend
from lib.params.load import read_yaml
from lib.params.training import Finetune
from lib.trainers import lora
from lib.trainers.finetuning import finetuning_engine
from lib.trainers.loader import IGNORED, Batch, Conversations
from lib.trainers.order import batch_indices
from tests.workspace import ROOT

SIDES = ("smelt", "trl padded", "trl padding-free")
BURST = 2  # steps
SEED = 1
MIB = 2**20


class Case(NamedTuple):
    base: Path  # a Hugging Face folder, or one with a GGUF file
    chat: Path  # conversations
    rows: int  # of them in a step
    precision: str

    @classmethod
    def read(cls, given: list[str]) -> Case:
        base, chat, rows, precision = given
        return cls(Path(base), Path(chat), int(rows), precision)


def settings(precision: str) -> Finetune:
    """Those of params.yaml, but what trl has not, or has another default of."""
    alike = {
        "rank": 16,
        "alpha": 32,
        "dropout": 0.0,
        "optimizer": "adamw",
        "learning_rate": 2e-4,
        "betas": [0.9, 0.999],
    }
    params = read_yaml(ROOT / "params.yaml")["finetune"]
    return Finetune.model_validate({**params, **alike, "weight_decay": 0.0, "clip_norm": 1.0, "precision": precision})


def files(base: Path) -> dict[str, Any]:
    """What transformers has to know of the folder."""
    found = [path.name for path in base.glob("*.gguf")]
    return {"local_files_only": True, **({"gguf_file": found[0]} if found else {})}


def load(base: Path) -> tuple[nn.Module, Any]:
    """The model in fp32 and the tokenizer of a Hugging Face folder, or of the GGUF file in one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = files(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **given)
    return model, AutoTokenizer.from_pretrained(base, **given)


def conversations(tokenizer: Any, chat: Path, count: int) -> list[tuple[list[int], list[bool]]]:
    """Token ids and the mask of the last answer, as the base's own template renders them."""
    encoded = []
    for line in chat.read_text(encoding="utf-8").splitlines()[:count]:
        messages = json.loads(line)["messages"]
        question, whole = (
            tokenizer.apply_chat_template(part, add_generation_prompt=asks, return_dict=False)
            for part, asks in ((messages[:-1], True), (messages, False))
        )
        encoded.append((whole, [False] * len(question) + [True] * (len(whole) - len(question))))
    return encoded


class Bursts:
    """Answers each line on standard input with what a burst of steps took and lost."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._losses: list[float] = []
        self._began = 0.0

    def before(self) -> None:
        if not self._seconds and not sys.stdin.readline():
            sys.exit()
        self._began = time.perf_counter()

    def after(self, loss: float) -> None:
        self._seconds.append(time.perf_counter() - self._began)
        self._losses.append(loss)
        if len(self._seconds) == BURST:
            print(json.dumps([self._seconds, self._losses, select_backend().memory_mib()]), flush=True)
            self._seconds, self._losses = [], []


def engine(model: nn.Module, chosen: Finetune) -> Any:
    return finetuning_engine(select_backend(), model, chosen, SEED, say=lambda line: None)


def steps(made: Any, batches: Iterator[Batch], bursts: Bursts) -> None:
    for batch in batches:
        bursts.before()
        counted = int((batch.labels != IGNORED).sum())
        loss = made.gradient(batch, counted)
        made.clip(1.0)
        made.update(1.0)
        bursts.after(loss)


def ours(case: Case, order: list[np.ndarray], bursts: Bursts) -> None:
    model, tokenizer = load(case.base)
    data = Conversations(conversations(tokenizer, case.chat, case.rows * len(order)), tokenizer.pad_token_id)
    chosen = settings(case.precision)
    made = engine(lora.add_adapter(model, chosen, SEED), chosen)
    steps(made, map(data.rows, order), bursts)


def theirs(case: Case, order: list[np.ndarray], bursts: Bursts, padding_free: bool) -> None:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = load(case.base)
    encoded = conversations(tokenizer, case.chat, case.rows * len(order))
    chosen = [encoded[index] for indices in order for index in indices]
    examples = [
        {"input_ids": ids, "labels": np.where(mask, ids, IGNORED).tolist()} for ids, mask in chosen
    ]  # fmt: skip

    class Watched(SFTTrainer):
        def training_step(self, *given: Any, **options: Any) -> torch.Tensor:
            self.loss = super().training_step(*given, **options)
            return self.loss

    class Turns(TrainerCallback):
        def on_step_begin(self, *given: Any, **options: Any) -> None:
            bursts.before()

        def on_step_end(self, *given: Any, **options: Any) -> None:
            bursts.after(trainer.loss.item())

    backend, ours = select_backend(), settings(case.precision)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            folder, per_device_train_batch_size=case.rows, max_steps=len(order), learning_rate=ours.learning_rate,
            adam_beta1=ours.betas[0], adam_beta2=ours.betas[1], weight_decay=0.0, max_grad_norm=ours.clip_norm,
            lr_scheduler_type="constant", optim="adamw_torch_fused",
            bf16=choose_precision(case.precision, backend) == "bf16",
            use_cpu=backend.name == "cpu", gradient_checkpointing=False, padding_free=padding_free, max_length=None,
            train_sampling_strategy="sequential", dataset_kwargs={"skip_prepare_dataset": True},
            logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True, seed=SEED,
        )  # fmt: skip
        trainer = Watched(
            lora.add_adapter(model, ours, SEED), config, train_dataset=Dataset.from_list(examples),
            processing_class=tokenizer, callbacks=[Turns()],
        )  # fmt: skip
        trainer.train()


def orders(rows: int) -> list[np.ndarray]:
    """Numbers of the conversations of each step, for more steps than are made."""
    return [batch_indices(SEED, step, rows, rows * 20) for step in range(20)]


def work(side: str, case: Case) -> None:
    order = orders(case.rows)
    if side == "smelt":
        ours(case, order, Bursts())
    else:
        theirs(case, order, Bursts(), side == "trl padding-free")


class Side:
    """A process that trains."""

    def __init__(self, name: str, case: Case) -> None:
        self.name, self.seconds, self.losses, self.first, self.memory_mib = name, [], [], 0.0, 0.0
        command = [sys.executable, "-m", "tests.benchmarks.finetune", "--work", name, *map(str, case)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process lives
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def ask(self) -> list:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("["):
                return json.loads(line)
        self._errors.seek(0)
        sys.exit(f"{self.name} ended:\n{self._errors.read()[-3000:]}")

    def burst(self) -> None:
        seconds, losses, self.memory_mib = self.ask()
        self.seconds += seconds
        self.losses += losses

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(case: Case, bursts: int) -> None:
    from transformers import AutoTokenizer

    order = orders(case.rows)
    tokenizer = AutoTokenizer.from_pretrained(case.base, **files(case.base))
    encoded = conversations(tokenizer, case.chat, case.rows * len(order))
    tokens = [sum(len(encoded[index][0]) for index in indices) for indices in order]
    sides = [Side(name, case) for name in SIDES]
    for turn in range(bursts + 1):
        for side in sides:
            side.burst()
            print(f"{side.name}: {', '.join(f'{each:.2f}' for each in side.seconds[-BURST:])} s", file=sys.stderr)
            if not turn:  # it compiles, and fills caches
                side.first, side.seconds = side.seconds[0], []
    for side in sides:
        side.close()
    print(
        f"{case.base.name} on {select_backend().describe()}, precision {case.precision}: {case.rows} conversations a "
        f"step, of {statistics.mean(tokens):.0f} tokens"
    )
    print(
        f"{'':<18}{'first step, s':>14}{'s a step (min to max)':>26}{'tokens/s':>10}{'MiB':>8}"
        f"{'loss at first, at last':>26}"
    )
    rates = {}
    for side in sides:
        rates[side.name] = sum(tokens[BURST : BURST * (bursts + 1)]) / sum(side.seconds)
        span = f"{statistics.median(side.seconds):.2f} ({min(side.seconds):.2f} to {max(side.seconds):.2f})"
        curve = f"{side.losses[0]:.4f}, {side.losses[-1]:.4f}"
        print(
            f"{side.name:<18}{side.first:>14.1f}{span:>26}{rates[side.name]:>10.0f}{side.memory_mib:>8,.0f}{curve:>26}"
        )
    best = max(SIDES[1:], key=rates.__getitem__)
    print(f"ratio of tokens/s to the better of trl's ({best}): {rates['smelt'] / rates[best]:.2f}")
    for side in sides[1:]:
        apart = np.abs(np.array(side.losses) / np.array(sides[0].losses) - 1)
        print(
            f"loss beside {side.name}, over {len(apart)} steps: {apart[0]:.1e} apart at first, before any update, "
            f"{apart.mean():.1e} on average, {apart.max():.1e} at most"
        )


# -- memory


def held_bytes(model: nn.Module) -> int:
    """What the base's weights take: all but what is trained, buffers, and the scales of quantised ones."""
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    held = {id(each): each for each in (*frozen, *model.buffers())}
    for weight in model.parameters():
        state = getattr(weight, "quant_state", None)
        for each in (state, getattr(state, "state2", None)):
            held |= (
                {id(value): value for value in vars(each).values() if isinstance(value, torch.Tensor)} if each else {}
            )
    return sum(each.nbytes for each in held.values())


def resident_mib(what: str) -> float:
    """VmRSS or VmHWM, its peak."""
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def measure(method: str, case: Case) -> None:
    """Print what the model takes, and the most that the process took from then on, in two steps."""
    model, tokenizer = load(case.base)
    data = Conversations(conversations(tokenizer, case.chat, 2 * case.rows), tokenizer.pad_token_id)
    chosen, backend = settings(case.precision), select_backend()
    if method == "qlora":
        bf16 = choose_precision(case.precision, backend) == "bf16"
        lora.quantise(model, backend.device, torch.bfloat16 if bf16 else torch.float32)
    made = engine(lora.add_adapter(model, chosen, SEED), chosen)
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    for first in (0, case.rows):
        batch = data.rows(np.arange(first, first + case.rows))
        loss = made.gradient(batch, int((batch.labels != IGNORED).sum()))
        made.update(1.0)
    print(json.dumps([held_bytes(model) / MIB, before, resident_mib("VmHWM"), loss]), flush=True)


def memory(case: Case) -> None:
    """The model's share of the memory: what its weights take, and for QLoRA what unpacking them adds at the peak.

    Of the peak, activations, adapters and moments are the same for both. So what QLoRA's steps take beyond LoRA's is
    for its weights, and counts as theirs. Neither is compiled: the compiler's own memory would hide that.
    """
    print(f"{'':<8}{'model, MiB':>12}{'process before, MiB':>22}{'peak of 2 steps, MiB':>23}{'loss':>9}")
    held, grown = {}, {}
    for method in ("lora", "qlora"):
        command = [sys.executable, "-m", "tests.benchmarks.finetune", "--work", method, *map(str, case)]
        said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SMELT_COMPILE": "0"})
        if said.returncode:
            sys.exit(said.stderr[-3000:])
        held[method], before, peak, loss = json.loads(said.stdout.splitlines()[-1])
        grown[method] = peak - before
        print(f"{method:<8}{held[method]:>12.1f}{before:>22.0f}{peak:>23.0f}{loss:>9.4f}")
    beyond = max(0.0, grown["qlora"] - grown["lora"])
    at_peak = (held["qlora"] + beyond) / held["lora"]
    print(
        f"model of qlora / model of lora: {held['qlora'] / held['lora']:.0%} held, {at_peak:.0%} at the peak, where "
        f"qlora's steps take {beyond:.0f} MiB beyond lora's (to reach: at most 60%)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", type=Path, default=ROOT / "data/assets/smollm2", help="folder of the base")
    parser.add_argument("--chat", type=Path, default=ROOT / "data/chat/train.jsonl", help="conversations")
    parser.add_argument("--rows", type=int, default=8, help="conversations a step")
    parser.add_argument("--bursts", type=int, default=6, choices=range(1, 10), help="measured ones, of two steps each")
    parser.add_argument("--only", choices=("speed", "memory"), help="memory: a minute or two")
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        (work if given.work[0] in SIDES else measure)(given.work[0], Case.read(given.work[1:]))
        return
    case = Case(given.base, given.chat, given.rows, given.precision)
    if given.only != "memory":
        compare(case, given.bursts)
    if given.only != "speed":
        memory(case)


if __name__ == "__main__":
    main()
