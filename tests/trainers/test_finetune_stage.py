"""`finetune` as a stage, on a base that others made: every method, killed and gone on with, its products in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lib.pipeline.declarations import declarations
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_path
from lib.preset import overlay
from lib.trainers import adapters
from tests.text import project
from tests.trainers import foreign
from tests.workspace import ROOT

TINY = {
    "base": "models/other", "rank": 4, "alpha": 8, "batch_rows": 8, "epochs": 2, "optimizer": "adamw",
    "learning_rate": 0.02, "warmup_steps": 1, "validate_every": 2, "validate_rows": 8, "checkpoint_every": 2,
    "log_every": 1, "patience": None, "precision": "fp32",
}  # fmt: skip


def make(root: Path, **changes: Any) -> Path:
    project.make(root, {"s": project.folder("s")}, lambda params: overlay(params["finetune"], {**TINY, **changes}))
    foreign.write(root / "models/other", tie_word_embeddings=False)
    (root / "data/chat").mkdir(parents=True)
    for split, count in (("train", 40), ("val", 8)):
        turns = [
            [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "in 18"}] for n in range(count)
        ]
        lines = [json.dumps({"messages": messages}) for messages in turns]
        (root / f"data/chat/{split}.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_every_method_teaches_the_answer(method: str, tmp_path: Path) -> None:
    root = make(tmp_path / "project", method=method, optimizer="auto", epochs=4, max_steps=18)
    metrics = project.run(root, "finetune")
    assert metrics["steps"] == 18  # of the 20 that four epochs are
    assert metrics["val_loss"] < 0.9 * metrics["val_loss_before"]

    chat = AutoModelForCausalLM.from_pretrained(root / "models/sft").eval()
    assert chat.generation_config.eos_token_id == [0, 2]
    assert "<|im_start|>" in AutoTokenizer.from_pretrained(root / "models/sft").chat_template
    card = json.loads((root / "models/sft/base.json").read_text())
    assert (card["path"], card["origin"], card["licence"]) == ("models/other", None, "LicenseRef-Unknown")
    for file in (path for folder in ("sft", "adapter") for path in (root / "models" / folder).iterdir()):
        assert str(tmp_path).encode() not in file.read_bytes(), file

    if method == "full":
        assert [path.name for path in (root / "models/adapter").iterdir()] == ["README.md"]
        return
    # The adapter beside its base is the chat model.
    opened = adapters.open_adapters(root / "models/other", {"it": root / "models/adapter"})
    tokens = torch.randint(0, 300, (2, 12))
    with torch.no_grad():
        torch.testing.assert_close(opened(input_ids=tokens).logits, chat(input_ids=tokens).logits, rtol=1e-4, atol=1e-5)


def launch(root: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SMELT_DEVICE": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.finetune"], cwd=root, env=environment, stderr=subprocess.PIPE, text=True
    )


def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL after the best validation, whose weights then come from the checkpoint."""
    settings = {"epochs": 16, "learning_rate": 0.1, "dropout": 0.1, "patience": 40}
    alone, killed = (make(tmp_path / name, **settings) for name in ("alone", "killed"))
    whole = project.run(alone, "finetune")
    assert whole["kept_step"] < whole["steps"] - 10

    process, end = launch(killed), time.monotonic() + 240
    while not list(killed.glob(f".scratch/finetune/*/step-*{whole['kept_step'] + 4}")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "models/sft").exists()

    rest = launch(killed)
    said = rest.communicate(timeout=240)[1]
    assert rest.returncode == 0, said
    assert "continuing from step" in said
    for path in ("models/adapter", "models/sft", "reports/finetune/metrics.json", "reports/finetune/val.csv"):
        assert hash_path(alone / path) == hash_path(killed / path), path


def test_another_base_reruns_finetune_and_nothing_before(tmp_path: Path) -> None:
    """What a stage depends on is its deps and its params: those of every other stage stay as they are."""
    one = declarations(make(tmp_path / "one", base="models/base"))
    other = declarations(make(tmp_path / "other", base="data/assets/smollm2"))
    moved = {name.partition("@")[0] for name in one if one[name].deps != other[name].deps}
    assert moved == {"finetune", "export"}  # which comes after it, and writes an adapter for the base
    assert set(one["finetune"].deps) ^ set(other["finetune"].deps) == {"models/base", "data/assets/smollm2"}
    readers = {name for name, stage in one.items() if any(param.startswith("finetune") for param in stage.params)}
    assert readers == {"finetune", "report"}


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, base="models/gone")
    with pytest.raises(SmeltError, match="models/gone does not exist"):
        project.run(root, "finetune")
