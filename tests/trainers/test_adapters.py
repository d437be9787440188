"""Several adapters on one base, which is in memory once; one of another base is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib import adapters as command
from lib.pipeline.errors import SmeltError
from lib.trainers import adapters, bases, lora
from tests.trainers import foreign
from tests.trainers.test_lora import settings

TOKENS = torch.randint(0, 300, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.write(tmp_path_factory.mktemp("base") / "it")


def make(base: Path, folder: Path, seed: int, rank: int = 4) -> torch.Tensor:
    """An adapter with random weights; its logits."""
    model = lora.add_adapter(bases.load(base), settings(rank=rank), seed).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
        adapters.save(model, base, "models/base", folder)
        return model(input_ids=TOKENS).logits


@torch.no_grad()
def test_two_adapters_take_turns_on_one_base(base: Path, tmp_path: Path) -> None:
    legal, support = make(base, tmp_path / "legal", 1), make(base, tmp_path / "support", 2, rank=2)
    model = adapters.open_adapters(base, {"legal": tmp_path / "legal", "support": tmp_path / "support"})
    assert torch.equal(model(input_ids=TOKENS).logits, legal)
    model.set_adapter("support")
    assert torch.equal(model(input_ids=TOKENS).logits, support)
    model.set_adapter("legal")
    assert torch.equal(model(input_ids=TOKENS).logits, legal)
    with model.disable_adapter():
        assert torch.equal(model(input_ids=TOKENS).logits, bases.load(base)(input_ids=TOKENS).logits)
    weights = [name for name, _ in model.named_parameters() if "lora_" not in name]
    assert len(weights) == len(list(bases.load(base).parameters()))


def test_each_adapter_answers_a_question_in_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = foreign.write(tmp_path / "base", tie_word_embeddings=False)
    for seed, name in enumerate(("legal", "support")):
        make(base, tmp_path / name, seed)
    named = [f"{name}={tmp_path / name}" for name in ("legal", "support")]
    monkeypatch.setattr("sys.argv", ["adapters", str(base), *named, "in 1800?", "--tokens", "6"])
    command.main()
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(said) == ["legal", "support"]
    assert said["legal"] != said["support"]
    alone = command.ask(base, {"support": tmp_path / "support"}, "in 1800?", 6)
    assert alone["support"] == said["support"]
    monkeypatch.setattr("sys.argv", ["adapters", str(base), f"x={tmp_path}", "in 1800?"])
    with pytest.raises(SystemExit, match=r"adapters: error: .* is no adapter"):
        command.main()


def test_an_adapter_holds_nothing_of_its_base(base: Path, tmp_path: Path) -> None:
    make(base, tmp_path / "one", 1)
    assert all(".lora_" in name for name in load_file(tmp_path / "one/adapter_model.safetensors"))


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    make(base, tmp_path / "adapter", 1)
    other = foreign.write(tmp_path / "other", seed=5)  # of the same shape
    with pytest.raises(SmeltError, match=r"trained on another base, models/base with fingerprint \w{12}; .*other has"):
        adapters.open_adapters(other, {"adapter": tmp_path / "adapter"})
    # made by another program, which leaves no fingerprint: by its shapes
    (tmp_path / "adapter/base.json").unlink()
    wider = foreign.write(tmp_path / "wider", hidden_size=64)
    with pytest.raises(SmeltError, match=r"does not fit the base .*wider"):
        adapters.open_adapters(wider, {"adapter": tmp_path / "adapter"})


def test_what_is_no_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    adapters.save_none(tmp_path / "none")
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["README.md"]
    with pytest.raises(SmeltError, match=r"is no adapter: it has no adapter_model\.safetensors"):
        adapters.open_adapters(base, {"none": tmp_path / "none"})


def test_equal_adapters_have_equal_bytes_and_no_path_of_this_machine(base: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        torch.manual_seed(3)
        make(base, tmp_path / name, 1)
    files = [sorted((tmp_path / name).iterdir()) for name in ("one", "two")]
    assert [path.name for path in files[0]] == ["adapter_config.json", "adapter_model.safetensors", "base.json"]
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert str(tmp_path).encode() not in one.read_bytes()
    assert json.loads(files[0][2].read_text()) == {"path": "models/base", "sha256": bases.fingerprint(base)}
