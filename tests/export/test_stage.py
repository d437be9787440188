"""The stage itself, in the harness, with the repository's own dvc.yaml and params.yaml."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from lib.export import adapter
from lib.export.lineage import read
from lib.lineage import find_weights
from lib.params import load as parameters
from lib.pipeline.run import execute
from lib.text.documents import Document, write_documents
from lib.trainers import adapters
from stages.export import main
from tests.export.conftest import EVALUATED, LANGUAGES, MIXTURE, STAGES
from tests.export.test_adapter import tuned

REPOSITORY = Path(__file__).parents[2]
SMALL = {"held_out_bytes": 400, "prompts": 3, "answer_tokens": 8}
TEXT = "The meaning of an argument is what it does. " * 12


def make_workspace(root: Path, model: Path, **export: Any) -> Path:
    root.mkdir(parents=True)
    for name in ("dvc.yaml", "pyproject.toml"):
        shutil.copyfile(REPOSITORY / name, root / name)
    yaml = YAML()
    params = yaml.load(REPOSITORY / "params.yaml")
    params["export"] |= {"parity": SMALL} | export
    yaml.dump(params, root / "params.yaml")
    shutil.copytree(model, root / "models/chat")
    shutil.copytree(model, root / "models/base")
    reports: dict[str, Any] = {f"{stage['stage']}/lineage.json": stage for stage in STAGES}
    for source in parameters.load(root / "params.yaml").sources:
        reports[f"clean/{source}/metrics.json"] = {"clean": {source: {"languages": LANGUAGES.get(source, {})}}}
    reports["mix/metrics.json"] = {"mix": {"sources": MIXTURE}}
    reports["prefer/metrics.json"] = {"prefer": {"pairs": 0}}
    reports["evaluate/chat/metrics.json"] = {"evaluate": {"chat": EVALUATED}}
    for name, value in reports.items():
        path = root / "reports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    for split in ("test", "val"):
        documents = [Document(f"wiki/{split}{n}", f"{split} {n}. {TEXT}", "", "wiki", "MIT") for n in range(2)]
        write_documents(root / "data/mix" / split, documents)
    (root / "data/chat").mkdir()
    lines = [json.dumps({"messages": [{"role": "user", "content": f"How {n}?"}]}) for n in range(4)]
    (root / "data/chat/test.jsonl").write_text("\n".join(lines))
    adapters.save_none(root / "models/adapter")
    return root


def run(root: Path, item: str) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The folder, the metrics and the run record."""
    execute(root, "export", item, main.__wrapped__)
    reports = root / "reports/export" / item
    metrics = json.loads((reports / "metrics.json").read_text())["export"][item]
    return root / "models/export" / item, metrics["files"], json.loads((reports / "run.json").read_text())


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("item", "variants"),
    [
        ("hf", ["float32"]),
        ("gguf", ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"]),
        ("onnx", ["fp32", "int8"]),
        ("mlx", ["8bit", "4bit"]),
    ],
)
def test_two_workspaces_give_equal_outputs(
    item: str, variants: list[str], make_model: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for number in (1, 2):
        monkeypatch.setenv("SMELT_WORKERS", str(number))
        root = make_workspace(tmp_path / f"workspace{number}", make_model("qwen3"))
        folder, files, record = run(root, item)
        contents.append((hashes(folder), files))
        for file in folder.rglob("*"):
            assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes()
    assert contents[0] == contents[1]
    assert list(files) == list(record["variants"]) == variants

    plain, *quantised = files.values()
    observed = record["variants"]
    if item != "mlx":  # whose first is quantised
        assert (plain["greedy_identical"], plain["greedy_prompts"]) == (3, 3)
        assert plain["top1_transformers"] == 1.0
        assert observed[variants[0]]["largest_difference"] < 0.05
    for name, figures in files.items():
        assert 0.9 < figures["top1_plain"] <= 1
        assert figures["bits_per_byte"]["value"] > 0
        speeds = [observed[name].get(key, 0) > 0 for key in ("prompt_tokens_per_second", "tokens_per_second")]
        assert speeds == [item != "mlx"] * 2
    assert all(figures["bytes"] < plain["bytes"] for figures in quantised)
    assert "package" in read(find_weights(folder)).sources["wiki"]
    card = ModelCard.load(folder / "README.md")
    assert card.data.model_name == "smelt-tiny"
    assert card.data.language == ["en", "fr"]  # the third language is too rare
    assert all(f"| {variant} | " in card.text for variant in variants)
    assert not list((root / ".scratch").rglob("*.npy"))


def test_an_adapter_is_exported_beside_its_base(make_model: Callable, tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace", make_model("llama"))
    shutil.rmtree(root / "models/adapter")
    model = tuned(root / "models/base", root / "models/adapter", head=True)
    model.merge_and_unload().save_pretrained(root / "models/chat")
    folder, files, record = run(root, "adapter")
    assert list(files) == ["peft", "lora-F16", "base-F16"]
    assert "bits_per_byte" not in files["peft"]
    # The two of them together are the chat model.
    assert record["variants"]["lora-F16"]["largest_difference"] < 0.1
    assert files["lora-F16"]["top1_transformers"] > 0.98
    assert files["lora-F16"]["bytes"] < 0.5 * files["base-F16"]["bytes"]
    stages = {
        name: read(folder / name).params.keys() for name in ("smelt-tiny-lora-F16.gguf", "smelt-tiny-base-F16.gguf")
    }
    assert stages["smelt-tiny-lora-F16.gguf"] == {"mix", "pretrain", "decay", "finetune"}
    assert stages["smelt-tiny-base-F16.gguf"] == {"mix", "pretrain", "decay"}
    assert read(folder / adapter.WEIGHTS).params.keys() == {"mix", "pretrain", "decay", "finetune"}
    assert ModelCard.load(folder / "README.md").data.library_name == "peft"


def test_after_preferences_the_adapter_is_not_measured_against_the_chat_model(
    make_model: Callable, tmp_path: Path
) -> None:
    root = make_workspace(tmp_path / "workspace", make_model("llama"))
    shutil.rmtree(root / "models/adapter")
    tuned(root / "models/base", root / "models/adapter", head=True)
    (root / "reports/prefer/metrics.json").write_text(json.dumps({"prefer": {"pairs": 12}}))
    _, files, record = run(root, "adapter")
    assert list(files) == ["peft", "lora-F16", "base-F16"]
    assert record["variants"] == {}


def test_what_is_left_out_is_a_valid_empty_output(make_model: Callable, tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace", make_model("qwen3"), onnx=None)
    for item, words in (("onnx", "`export.onnx` is null"), ("adapter", "`finetune.method` is full")):
        folder, files, _ = run(root, item)
        assert files == {}
        assert [path.name for path in folder.iterdir()] == ["README.md"]
        assert words in (folder / "README.md").read_text()


def test_without_held_out_text_prompts_alone_are_measured(make_model: Callable, tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace", make_model("qwen3"), parity=SMALL | {"held_out_bytes": 0})
    _, files, _ = run(root, "hf")
    assert files["float32"]["bits_per_byte"]["value"] is None
    assert files["float32"]["greedy_identical"] == 3
