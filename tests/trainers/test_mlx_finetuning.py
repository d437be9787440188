"""The same fine-tuning in torch and in MLX, and from one into the other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import LlamaConfig, Qwen3Config

from lib.backends import cpu
from lib.backends.cpu import Cpu
from lib.model import huggingface
from lib.model.decoder import Decoder
from lib.pipeline.errors import SmeltError
from lib.trainers.engine import Engine
from lib.trainers.finetuning import finetuning_engine
from lib.trainers.loader import IGNORED, Conversations
from tests.text import project
from tests.tokenizer.conftest import VOCAB_SIZE
from tests.trainers import tokens
from tests.trainers.test_finetuning import adapted, settings
from tests.trainers.test_loop import CONFIG

pytest.importorskip("mlx.core")

from lib.backends.mlx import Mlx
from lib.trainers.mlx_finetuning import decoder_config


def engine(model: PeftModel, device: str, **changes: object) -> Engine:
    backend = Mlx() if device == "mlx" else Cpu(bf16=False)
    return finetuning_engine(backend, model, settings(precision="fp32", **changes), 1, say=lambda line: None)


def advance(engine: Engine, steps: range) -> list[float]:
    chance = np.random.default_rng(0)
    encoded = [
        (chance.integers(0, 64, length).tolist(), [place >= length // 3 for place in range(length)])
        for length in chance.integers(4, 30, 24)
    ]
    data, losses = Conversations(encoded, 0), []
    for step in steps:
        batch = data.rows(np.arange(step * 4, step * 4 + 4))
        losses.append(engine.gradient(batch, int((batch.labels != IGNORED).sum())))
        engine.clip(0.5)
        engine.update(1 / (1 + step))
    return losses


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize(("kind", "tied"), [(Qwen3Config, False), (LlamaConfig, True)])
def test_a_run_agrees_with_torchs_wherever_it_changes_over(kind: type, tied: bool, optimizer: str) -> None:
    ends, curves = {}, {}
    for begins in ("cpu", "mlx"):
        first = engine(adapted(kind, tied), begins, optimizer=optimizer)
        head = advance(first, range(3))
        for then in ("cpu", "mlx"):
            model = adapted(kind, tied)
            second = engine(model, then, optimizer=optimizer)
            second.load(first.state())
            curves[begins, then] = head + advance(second, range(3, 6))
            second.finish()
            ends[begins, then] = {name: w.detach().clone() for name, w in model.named_parameters() if w.requires_grad}
    expected, start = ends.pop(("cpu", "cpu")), dict(adapted(kind, tied).named_parameters())
    assert any("lm_head" in name for name in expected) != tied
    for way, found in ends.items():
        np.testing.assert_allclose(curves[way], curves["cpu", "cpu"], rtol=1e-5)
        for name, value in expected.items():
            moved = (value - start[name]).norm()
            assert moved > 0
            assert (found[name] - value).norm() < 1e-2 * moved, (way, name)


def test_the_loss_is_torchs_where_few_places_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_MICRO_BATCH", "2")
    data = Conversations([(list(range(n, n + 12)), [False] * 9 + [True] * 3) for n in range(6)], 0)
    batch = data.rows(np.arange(6))
    found, expected = (engine(adapted(), device).loss_sum(batch) for device in ("mlx", "cpu"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_in_bf16_the_loss_is_near() -> None:
    data = Conversations([(list(range(n, n + 12)), [True] * 12) for n in range(6)], 0)
    batch = data.rows(np.arange(6))
    exact = engine(adapted(), "mlx").loss_sum(batch)
    rounded = finetuning_engine(Mlx(), adapted(), settings(precision="bf16"), 1, lambda line: None).loss_sum(batch)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"head_dim": 32}, "head_dim"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_parameters"),
    ],
)
def test_a_base_that_our_decoder_is_not_is_refused(changes: dict, named: str) -> None:
    with pytest.raises(SmeltError, match=rf"config\.json differs in {named}\. Leave SMELT_DEVICE unset"):
        decoder_config(Qwen3Config(hidden_size=32, num_attention_heads=2, **{"head_dim": 16, **changes}))


def test_what_mlx_has_not_is_refused() -> None:
    with pytest.raises(SmeltError, match=r"finetune\.optimizer is lion"):
        engine(adapted(), "mlx", optimizer="lion")
    with pytest.raises(SmeltError, match=r"there is no finetune\.dropout with SMELT_DEVICE=mlx"):
        engine(adapted(dropout=0.1), "mlx")


def test_the_stage_writes_the_same_adapter_and_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    root = tokens.make(tmp_path / "cpu")
    base = Decoder(replace(CONFIG, vocab_size=VOCAB_SIZE, context_length=64))
    base.initialise(1)
    huggingface.save(base, root / "models/tokenizer", root / "models/base")
    (root / "data/chat").mkdir()
    for split, count in (("train", 16), ("val", 4)):
        turns = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "1"}] for n in range(count)]
        lines = "".join(json.dumps({"messages": messages}) + "\n" for messages in turns)
        (root / f"data/chat/{split}.jsonl").write_text(lines)
    shutil.copytree(root, tmp_path / "mlx")
    for device in ("cpu", "mlx"):
        monkeypatch.setenv("SMELT_DEVICE", device)
        project.run(tmp_path / device, "finetune")
    for file in ("models/adapter/adapter_model.safetensors", "models/sft/model.safetensors"):
        one, other = (load_file(tmp_path / device / file) for device in ("cpu", "mlx"))
        assert one.keys() == other.keys()
        assert all(np.allclose(one[name], other[name], rtol=0, atol=1e-4) for name in one)
    config = "models/adapter/adapter_config.json"
    assert (tmp_path / "cpu" / config).read_text() == (tmp_path / "mlx" / config).read_text()
