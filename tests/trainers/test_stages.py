"""`pretrain` and `decay` as stages, on a small project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from lib.model import huggingface
from lib.params.load import read_yaml
from lib.pipeline.errors import SmeltError
from lib.preset import overlay
from lib.trainers import checkpoints
from tests.text import project
from tests.trainers import tokens


def train(root: Path) -> Path:
    for stage in ("pretrain", "decay"):
        project.run(root, stage)
    return root


def test_the_decay_goes_on_from_the_stable_run(tmp_path: Path) -> None:
    root = train(tokens.make(tmp_path))
    _, record = checkpoints.read(root / "models/stable")
    stable, decay = ((root / "reports" / name / "train.csv").read_text().splitlines() for name in ("pretrain", "decay"))
    assert record["step"] == 20
    assert [line.split(",")[0] for line in stable[1:]] == [str(step) for step in range(2, 21, 2)]
    assert [line.split(",")[0] for line in decay[1:]] == [str(step) for step in range(22, 41, 2)]
    rates = [float(line.split(",")[3]) for line in decay[1:]]
    assert rates == sorted(rates, reverse=True)
    assert huggingface.load(root / "models/base").config.width == 32


def test_a_stable_run_of_another_configuration_is_not_decayed(tmp_path: Path) -> None:
    root = tokens.make(tmp_path)
    project.run(root, "pretrain")
    change(root, {"seed": 7, "pretrain": {"batch_tokens": 128}})
    with pytest.raises(
        SmeltError, match=r"(?s)step 20 was made with another configuration.*seed: it has 1, this run 7"
    ):
        project.run(root, "decay")
    assert not (root / "models/base").exists()


def test_a_damaged_stable_run_is_named(tmp_path: Path) -> None:
    root = tokens.make(tmp_path)
    project.run(root, "pretrain")
    weights = root / "models/stable/optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(SmeltError, match=r"stable is damaged .*optimizer\.safetensors.*dvc checkout"):
        project.run(root, "decay")


def test_the_loss_falls_and_is_told_in_bits_per_byte(tmp_path: Path) -> None:
    root = train(tokens.make(tmp_path, pretrain={"tokens": 60 * 256}))
    read = lambda stage, name: (root / "reports" / stage / name).read_text()  # noqa: E731
    metrics = [json.loads(read(stage, "metrics.json"))[stage] for stage in ("pretrain", "decay")]
    assert metrics[0]["val_bits_per_byte"] > metrics[1]["val_bits_per_byte"]
    assert metrics[0]["guards"] == {"not_finite": 0, "spikes": 0, "roll_backs": 0, "loss_fell": True}
    assert (metrics[0]["steps"], metrics[1]["steps"]) == (60, 120)
    assert metrics[1]["tokens"] == pytest.approx(2 * metrics[0]["tokens"], rel=0.02)  # but for padding
    val = [line.split(",") for line in read("decay", "val.csv").splitlines()]
    assert val[0] == ["step", "tokens", "loss", "bits_per_byte"]
    assert float(val[-1][3]) == pytest.approx(metrics[1]["val_bits_per_byte"], abs=1e-4)
    samples = json.loads(read("pretrain", "samples.json"))
    assert {sample["step"] for sample in samples} == {30, 60}
    assert any(sample["text"] for sample in samples)
    observed = json.loads(read("decay", "run.json"))
    assert observed["tokens_per_second"] > 0
    assert 0 <= observed["stall_share"] < 1


def test_fine_tuning_learns_the_answers_by_the_same_loop(tmp_path: Path) -> None:
    root = train(tokens.make(tmp_path, pretrain={"samples": {"prompts": []}}))
    (root / "data/chat").mkdir()
    for split, count in (("train", 48), ("val", 8)):
        turns = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "in 1"}] for n in range(count)]
        lines = [json.dumps({"messages": messages}) for messages in turns]
        (root / f"data/chat/{split}.jsonl").write_text("\n".join(lines) + "\n")
    change(root, {"finetune": {"epochs": 5, "warmup_steps": 1, "validate_every": 10, "checkpoint_every": 10,
                              "samples": {"every": 10, "tokens": 3, "prompts": ["How?"]}}})  # fmt: skip
    metrics = project.run(root, "finetune")
    assert metrics["steps"] == 30
    assert metrics["val_loss"] < 0.8 * metrics["val_loss_before"]
    assert (root / "models/adapter/adapter_model.safetensors").exists()
    samples = json.loads((root / "reports/finetune/samples.json").read_text())
    assert samples
    assert {sample["prompt"] for sample in samples} == {"How?"}
    assert all(sample["step"] % 10 == 0 for sample in samples)
    assert (root / "reports/finetune/val.csv").read_text().splitlines()[0] == "step,tokens,loss"
    assert metrics["tokens"] == 5 * 48 * 4  # "in", " ", "1" and the end of the turn


def change(root: Path, changes: dict) -> None:
    params = read_yaml(root / "params.yaml")
    overlay(params, changes)
    YAML().dump(params, root / "params.yaml")


def test_without_a_decay_the_base_is_the_stable_model(tmp_path: Path) -> None:
    root = train(tokens.make(tmp_path, decay={"fraction": 0.0}))
    state, _ = checkpoints.read(root / "models/stable")
    base = dict(huggingface.load(root / "models/base").named_parameters())
    assert all(np.array_equal(base[name].detach().numpy(), value) for name, value in state.model.items())
