"""The model card, read back by the Hub's own library."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lib.export import model_card
from lib.export.lineage import Lineage
from tests.export.conftest import about


def lineage_of(**licences: tuple[str, bool]) -> Lineage:
    return Lineage(
        {"data": "d"},
        {
            name: {"kind": "folder", "licence": licence, "share_alike": alike, "package": None, "documents": 3}
            for name, (licence, alike) in licences.items()
        },
        {},
    )


MIT, BY_SA_3, BY_SA_4 = ("MIT", False), ("CC-BY-SA-3.0", True), ("CC-BY-SA-4.0", True)
PUBLIC, OWN = ("LicenseRef-PublicDomain", False), ("LicenseRef-Private", False)


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        ([MIT], "mit"),
        ([MIT, PUBLIC], "mit"),
        ([MIT, ("Apache-2.0", False)], "other"),
        ([MIT, PUBLIC, BY_SA_3, BY_SA_4], "cc-by-sa-4.0"),
        ([MIT, BY_SA_3], "cc-by-sa-4.0"),
        ([BY_SA_4, ("GPL-3.0-only", True)], "other"),
        ([MIT, BY_SA_4, OWN], "other"),
        ([("MIT OR Apache-2.0", False)], "other"),
    ],
)
def test_the_licence_follows_from_the_sources(licences: list[tuple[str, bool]], expected: str) -> None:
    assert model_card.licence_id(lineage_of(**{f"s{n}": licence for n, licence in enumerate(licences)})) == expected


def test_share_alike_is_carried_on(tmp_path: Path) -> None:
    model_card.write(tmp_path, "tiny", lineage_of(wiki=BY_SA_4, manual=MIT), about("hf"))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "cc-by-sa-4.0"
    assert "(share-alike): CC-BY-SA-4.0. Pass the model on under those." in card.text
    assert "| wiki | folder | CC-BY-SA-4.0 | 3 |" in card.text


def test_what_is_not_one_licence_is_named(tmp_path: Path) -> None:
    model_card.write(tmp_path, "tiny", lineage_of(own=OWN, manual=MIT), about("hf"))
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "LicenseRef-Private AND MIT")
    assert "None of the texts asks" in card.text


def test_a_base_of_others_is_named(tmp_path: Path) -> None:
    lineage = lineage_of(manual=MIT)
    base = {"kind": "base", "licence": "Apache-2.0", "share_alike": False, "package": "them==1", "documents": None}
    lineage.sources["data/assets/them"] = base
    model_card.write(tmp_path, "tiny", lineage, about("gguf"))
    card = ModelCard.load(tmp_path / "README.md")
    assert "adapted from them==1" in card.text
    assert "pretrained from scratch" not in card.text
    assert "| data/assets/them | them==1 | Apache-2.0 | the base |" in card.text
    assert card.data.license == "other"
    assert card.data.base_model is None  # them==1 is on no hub
    assert card.data.library_name == "llama.cpp"


def test_the_fields_of_the_hub_are_filled_from_what_was_measured(tmp_path: Path) -> None:
    lineage = lineage_of(wiki=BY_SA_4, manual=MIT)
    commit = "c0ffee" * 6 + "c0de"
    lineage.sources["wiki"]["package"] = f"hf://datasets/team/wiki@{commit}"
    base = {"kind": "base", "licence": "MIT", "share_alike": False, "package": f"hf://team/base@{commit}"}
    lineage.sources["data/assets/base"] = base | {"documents": None}
    figures = {
        "bits_per_byte": {"value": 1.5798, "stderr": 0.0434},
        "bits_per_byte_more": {"value": 0.0021, "stderr": 0.0003},
        "top1_plain": 0.9731,
        "greedy_identical": 13,
        "greedy_prompts": 20,
    }
    plain = figures | {"bits_per_byte_more": {"value": 0.0, "stderr": 0.0}, "top1_plain": 1.0}
    files = {"F16": {"bytes": 14_969_984, **plain}, "Q4_K_M": {"bytes": 5_077_632, **figures}}
    model_card.write(
        tmp_path,
        "tiny",
        lineage,
        about("gguf", files=files, languages=["en", "fr"], pii={"wiki": "keep", "manual": "redact"}),
    )
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.datasets == ["team/wiki"]
    assert card.data.base_model == ["team/base"]
    assert card.data.language == ["en", "fr"]
    assert card.data.pipeline_tag == "text-generation"
    (result,) = card.data.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("piqa", "accuracy", 0.5333)
    for line in (
        "| held-out text, bits per byte | 1.5798 ± 0.0434 |  |",
        "| held-out tasks, right service | 0.4800 ± 0.0502 | 100 |",
        "| PIQA, accuracy | 0.5333 ± 0.0649 | 60 |",
        "| Q4_K_M | 5,077,632 | 1.5798 ± 0.0434 | 0.0021 ± 0.0003 | 97.3% | 13 of 20 |",
        "- manual: looked for and replaced by typed placeholders before training",
        "- wiki: not looked for, as published works",
        "| data | `d` |",
    ):
        assert line in card.text.splitlines()
    assert "exact command" not in card.text  # nothing was observed
    for part in ("Intended use", "Limits", "Evaluation", "Licence", "Trained on", "Personal data", "Lineage"):
        assert f"## {part}" in card.text
    assert "256 tokens at once, and was trained on en, fr." in card.text


def test_a_card_without_an_evaluation_says_so(tmp_path: Path) -> None:
    model_card.write(tmp_path, "tiny", lineage_of(manual=MIT), about("adapter", evaluation={}))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.eval_results is None
    assert "Nothing was measured." in card.text


@pytest.mark.parametrize(
    ("format", "variants", "words"),
    [
        ("gguf", ["F16", "Q8_0", "Q4_0"], "llama-server -m tiny-Q8_0.gguf "),
        ("gguf", ["BF16"], "llama-server -m tiny-BF16.gguf "),
        ("mlx", ["4bit"], "mlx_lm.chat --model tiny-4bit\n"),
        ("adapter", ["peft", "lora-F16", "base-F16"], "-m tiny-base-F16.gguf --lora tiny-lora-F16.gguf"),
        ("adapter", ["peft", "lora-F16"], "-m BASE.gguf --lora tiny-lora-F16.gguf"),
        ("adapter", ["peft"], "AutoPeftModelForCausalLM"),
    ],
)
def test_it_is_run_by_files_that_there_are(format: str, variants: list[str], words: str, lineage: Lineage) -> None:
    card = model_card.render("tiny", lineage, about(format, files={variant: {"bytes": 1} for variant in variants}))
    assert words in card
