from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lib.params.load import ParamsError, load, read_yaml
from lib.preset import apply, overlay
from tests.workspace import ROOT

HUB = read_yaml(ROOT / "presets" / "fineweb-edu.yaml")["sources"]["fineweb-edu"]


def changed(tmp_path: Path, changes: dict) -> Path:
    yaml = YAML()
    values = yaml.load(ROOT / "params.yaml")
    overlay(values, changes)
    yaml.dump(values, tmp_path / "params.yaml")
    return tmp_path / "params.yaml"


def test_the_default_is_valid() -> None:
    assert load(ROOT / "params.yaml").sources["wiki"].licence == "CC-BY-SA-4.0"


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    """PyYAML reads 1e-3 as text; DVC writes such numbers (`-S pretrain.learning_rate=0.000001`)."""
    text = re.sub(r" learning_rate: \S+", " learning_rate: 1e-06", (ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(text)
    assert load(tmp_path / "params.yaml").finetune.learning_rate == 1e-6


def test_a_cosine_cannot_be_extended(tmp_path: Path) -> None:
    path = changed(tmp_path, {"pretrain": {"extend_from": "0" * 40, "schedule": "cosine"}})
    with pytest.raises(ParamsError, match="extend_from needs a schedule that does not know its horizon"):
        load(path)


def test_all_errors_are_shown_at_once(tmp_path: Path) -> None:
    path = changed(tmp_path, {"pretrain": {"learning_rate": -1, "tokens": "many"}, "mix": {"test": 1.5}})
    text = path.read_text().replace("  rank: 16", "  rank: 16\n  lora_rank: 16", 1)
    path.write_text(text)
    with pytest.raises(ParamsError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith("params.yaml has 4 errors:")
    for part in (
        "pretrain.learning_rate",
        "(is -1)",
        "pretrain.tokens",
        "mix.test",
        "finetune.lora_rank: unknown parameter",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": {"wiki": {"rules": "poetry"}}}, "sources.wiki.rules: clean has no rules 'poetry'"),
        ({"sources": {"wiki": {"sha256": "abc"}}}, "sources.wiki.sha256"),
        ({"sources": {"wiki": {"package": "wiki>=1"}}}, "sources.wiki.package"),
        ({"sources": {"internal": {"input": "/etc"}}}, "input must be a folder inside the repository"),
        ({"sources": {"wiki": {"weight": -1}}}, "sources.wiki.weight: must be a number of at least 0, or the word"),
        (
            {"sources": {"wiki": {"weight": "most"}}},
            "sources.wiki.weight: must be a number of at least 0, or the word",
        ),
        ({"sources": {"wiki": {"epochs": 0}}}, "sources.wiki.epochs"),
        ({"sources": {"internal": {"limits": {"memory_mib": 1}}}}, "sources.internal.limits.memory_mib"),
        ({"index": {"overlap_tokens": 250}}, "index: overlap_tokens must be smaller than chunk_tokens"),
        ({"index": {"top_k": 60}}, "index: top_k is 60; it must not be larger than candidates (50)"),
        ({"index": {"mode": "rerank"}}, "index: mode is rerank: give rerank.folder"),
        ({"index": {"store": "faiss"}}, "index.store"),
        (
            {"index": {"embedder": {"kind": "openai"}}},
            "index.embedder: kind is openai: give openai.url and openai.model",
        ),
        ({"index": {"embedder": {"folder": "/models"}}}, "must be a folder below data or models"),
        ({"index": {"embedder": {"folder": "data/assets/none"}}}, "index: no such asset: 'none'"),
        ({"synthesize": {"sources": {"wiky": 1}}}, "synthesize.sources: no such source: 'wiky'"),
        ({"synthesize": {"kinds": ["poem"]}}, "synthesize.kinds.0"),
        ({"synthesize": {"passage_words": {"least": 200}}}, "least is 200; it must not be larger than most (150)"),
        ({"synthesize": {"teacher": {"kind": "openai"}}}, "kind is openai: give openai.url and openai.model"),
        ({"synthesize": {"teacher": {"openai": {"url": "ftp://x/v1"}}}}, "is not the address of an API, such as"),
        ({"synthesize": {"teacher": {"openai": {"url": "http://me:x@h/v1"}}}}, "a key comes from the environment"),
        ({"synthesize": {"teacher": {"openai": {"key": "sk-123"}}}}, "synthesize.teacher.openai.key"),
        ({"synthesize": {"teacher": {"gguf": {"path": "../m.gguf"}}}}, "must be a path inside the repository"),
        ({"synthesize": {"teacher": {"budget": {"money": 5}}}}, "money is limited and both prices are 0"),
        ({"seed": None}, "seed"),
        ({"sources": {"wiky": {"limit": 1}}}, "sources.wiky is no parameter"),
        ({"sources": {"h": HUB | {"revision": "main"}}}, "sources.h.revision: must be the full hash of a commit"),
        ({"sources": {"h": HUB | {"repo": "../x"}}}, "sources.h.repo"),
        ({"sources": {"h": HUB | {"input": "/data"}}}, "input must be a folder inside the repository"),
        ({"sources": {"h": HUB | {"messages": "turns"}}}, "text must be null where messages is given"),
        ({"sources": {"h": HUB | {"messages": {"id": "i"}, "text": None}}}, "sources.h.messages"),
        ({"sources": {"h": HUB | {"filter": [{"column": "c", "op": "in", "value": 1}]}}}, "'in' compares with a list"),
        ({"sources": {"h": HUB | {"filter": [{"column": "c", "op": "eval", "value": 1}]}}}, "sources.h.filter.0.op"),
        ({"sources": {"h": HUB | {"max_mib": 0}}}, "sources.h.max_mib"),
        ({"finetune": {"base": "/models/base"}}, "finetune.base: must be a folder below data or models"),
        ({"finetune": {"base": "data/../lib"}}, "finetune.base: must be a folder below data or models"),
        ({"finetune": {"base": "models/chat"}}, "finetune.base: models/chat is made of what finetune writes"),
        ({"finetune": {"base": "data/assets/smol"}}, "finetune.base: no such asset: 'smol' (there are: mmlu, "),
        ({"finetune": {"method": "full"}}, "finetune: optimizer muon trains matrices alone"),
        ({"finetune": {"dora": True}}, "finetune: optimizer muon trains matrices alone"),
        ({"finetune": {"method": "full", "optimizer": "adamw", "rslora": True}}, "finetune: dora and rslora are kinds"),
        ({"finetune": {"patience": 0}}, "finetune.patience"),
        ({"assets": {"smollm2": {"sha256": "abc"}}}, "assets.smollm2.sha256"),
        (
            {"assets": {"m": {"kind": "hub", "repo": "a/b", "revision": "main", "files": ["*"], "licence": "MIT"}}},
            "assets.m.revision: must be the full hash of a commit",
        ),
        (
            {"sources": {"h": {key: value for key, value in HUB.items() if key != "split"}}},
            "sources.h.split: is missing",
        ),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        load(changed(tmp_path, changes))
    assert message in str(caught.value)


def example_of_a_web_source(text: str) -> dict:
    """The one that a comment of params.yaml tells the user to take."""
    lines = text[text.index("#  handbook:") :].partition("\n# ---")[0].splitlines()
    return YAML(typ="safe").load("\n".join(line.removeprefix("#") for line in lines))


def test_the_example_of_a_web_source_is_one(tmp_path: Path) -> None:
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["sources"] |= example_of_a_web_source((ROOT / "params.yaml").read_text())
    YAML().dump(values, tmp_path / "params.yaml")
    assert load(tmp_path / "params.yaml").sources["handbook"].sitemaps == ["https://docs.example.org/sitemap.xml"]


def test_every_bad_url_of_a_web_source_is_named(tmp_path: Path) -> None:
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["sources"] |= example_of_a_web_source((ROOT / "params.yaml").read_text())
    values["sources"]["handbook"] |= {
        "urls": [
            "ftp://example.org/",
            "file:///etc/passwd",
            "https://",
            "example.org",
            "https://user:key@example.org/",
        ],
        "sitemaps": ["http://[bad", "https://example.org/a b"],
        "user_agent": "Smelt\r\nCookie: x",
    }
    YAML().dump(values, tmp_path / "params.yaml")
    with pytest.raises(ParamsError) as caught:
        load(tmp_path / "params.yaml")
    message = str(caught.value)
    assert message.startswith("params.yaml has 8 errors:")
    assert "sources.handbook.urls.0: 'ftp://example.org/' is not a URL of the web: it must begin with http" in message
    for place in ("urls.1", "urls.2", "urls.3", "urls.4", "sitemaps.0", "sitemaps.1", "user_agent"):
        assert f"sources.handbook.{place}" in message
    assert "user:key" not in message


def test_the_example_of_a_model_of_a_hub_is_one(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    lines = text[text.index("#  smollm2-360m:") :].partition("\nassets:")[0].splitlines()
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["assets"] |= YAML(typ="safe").load("\n".join(line.removeprefix("#") for line in lines))
    YAML().dump(values, tmp_path / "params.yaml")
    assert load(tmp_path / "params.yaml").assets["smollm2-360m"].revision is None


def test_two_web_sources_do_not_share_a_folder(tmp_path: Path) -> None:
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    example = example_of_a_web_source((ROOT / "params.yaml").read_text())
    values["sources"] |= {**example, "second": example["handbook"]}
    YAML().dump(values, tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match="data/web/handbook is the input of several web sources"):
        load(tmp_path / "params.yaml")


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="is missing"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("seed: [1")
    with pytest.raises(ParamsError, match="is not valid YAML"):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize("preset", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_preset_changes_what_it_names_and_keeps_the_comments(tmp_path: Path, preset: Path) -> None:
    path = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    changes = YAML(typ="safe").load(preset)
    apply(path, changes)
    after = YAML(typ="safe").load(path)
    expected = YAML(typ="safe").load(ROOT / "params.yaml")
    overlay(expected, changes)
    assert after == expected
    assert path.read_text().count("#") == (ROOT / "params.yaml").read_text().count("#")


def test_a_preset_that_cannot_be_leaves_params_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    for changes in ({"pretrain": {"learning_rates": 1}}, {"pretrain": {"learning_rate": -1}}):
        with pytest.raises(ParamsError, match=r"learning_rate"):
            apply(path, changes)
    assert path.read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert list(tmp_path.iterdir()) == [path]
