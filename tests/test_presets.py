"""Presets that bring sources, and what follows from it: dvc.yaml in line, commits pinned, a clear word where not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lib import pin, preset
from lib.align import align
from lib.params.load import load, read_yaml
from lib.pipeline.declarations import declarations
from lib.pipeline.errors import SmeltError
from lib.preset import apply
from lib.text.documents import read_documents
from tests.sources.hub_datasets import parquet
from tests.sources.hub_server import HubServer
from tests.text import project
from tests.workspace import ROOT


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["preset", name])
    preset.main()


def added(before: str, after: str) -> str:
    """What was put into a text in one place, nothing else being changed."""
    start = next(place for place, (old, new) in enumerate(zip(before + "\0", after, strict=False)) if old != new)
    rest = before[start:]
    assert before[:start] + after[start : len(after) - len(rest)] + rest == after
    return after[start : len(after) - len(rest)]


def test_presets_one_after_the_other(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [path.stem for path in sorted(Path("presets").glob("*.yaml"))]
    for name in [*names, *names]:
        lay(name, monkeypatch)
    after = load(Path("params.yaml")).sources
    assert set(after) >= {"culturax", "fineweb-edu", "infinity-instruct", "oasst2", "openhermes"}
    declared = declarations(root)
    assert {dep for dep in declared["dedup"].data if "/clean/" in dep} == {f"data/clean/{name}" for name in after}
    names = ("metrics.json", "samples.json")
    metrics = {out for stage in declared.values() for out in stage.outs if out.endswith(names)}
    assert metrics - set(declared["report"].data) == set()
    assert Path("dvc.yaml").read_text().count("#") == (ROOT / "dvc.yaml").read_text().count("#")
    said = capsys.readouterr().out
    assert "note: openhermes is under LicenseRef-OpenHermes: not in licences.allow" in said
    assert "culturax is under" not in said


def test_a_new_source_stands_after_the_others_and_nothing_else_moves(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path("params.yaml").read_text().replace(" &prose", "")  # an anchor that nothing refers to
    Path("params.yaml").write_text(before)
    preset_file = Path("presets/mine.yaml")
    preset_file.write_text(Path("presets/oasst2.yaml").read_text().replace("  oasst2:", "  mine:"))
    lay("mine", monkeypatch)
    after = Path("params.yaml").read_text()
    block = added(before, after)
    assert block.strip().startswith("mine:\n    kind: hub\n")
    assert "messages: {id: message_id, parent: parent_id, role: role, content: text, rank: rank}\n" in block
    lay("mine", monkeypatch)
    assert Path("params.yaml").read_text() == after


def test_a_source_that_goes_leaves_dvc_yaml_as_it_was(root: Path) -> None:
    sources = list(load(Path("params.yaml")).sources)
    assert not align(Path("dvc.yaml"), sources)
    assert align(Path("dvc.yaml"), [*sources, "new", "newer"])
    assert declarations(root)["dedup"].data[-2:] == ["data/clean/new", "data/clean/newer"]
    assert align(Path("dvc.yaml"), sources)
    assert Path("dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()


def test_a_source_that_dedup_does_not_list_is_refused_before_any_work(root: Path) -> None:
    apply(Path("params.yaml"), {"sources": {"mine": project.folder("mine")}})
    (root / "data/mine").mkdir(parents=True)
    with pytest.raises(SmeltError, match=r"does not list data/clean/mine for dedup.*run `make align`"):
        project.run(root, "collect", "mine")
    align(Path("dvc.yaml"), load(Path("params.yaml")).sources)
    assert project.run(root, "collect", "mine")["documents"] == 0


def test_pin_writes_the_current_commit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = read_yaml(Path("presets/fineweb-edu.yaml"))["sources"]["fineweb-edu"]
    sources = {"one": {**fields, "repo": "t/one", "revision": None}, "two": {**fields, "repo": "t/two"}}
    apply(Path("params.yaml"), {"sources": sources})
    before = Path("params.yaml").read_text()
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        one, two = (server.add(repo, {"x.csv": repo.encode()}) for repo in ("t/one", "t/two"))
        assert pin.pin(Path("params.yaml"), None) == {"one": (None, one)}
        after = Path("params.yaml").read_text()
        assert after == before.replace("repo: t/one\n    revision: null", f"repo: t/one\n    revision: {one}")
        assert pin.pin(Path("params.yaml"), None) == {}
        assert pin.pin(Path("params.yaml"), "two") == {"two": (fields["revision"], two)}
        assert load(Path("params.yaml")).sources["two"].revision == two
        with pytest.raises(SmeltError, match="nothing of a hub called 'wiki'; they have: one, two"):
            pin.pin(Path("params.yaml"), "wiki")
        model = {"kind": "hub", "repo": "t/three", "revision": None, "files": ["*"], "licence": "MIT"}
        apply(Path("params.yaml"), {"assets": {"three": model}})
        three = server.add("t/three", {"config.json": b"{}"})
        assert pin.pin(Path("params.yaml"), None) == {"three": (None, three)}
        assert load(Path("params.yaml")).assets["three"].origin == f"hf://t/three@{three}"
        server.commits.clear()
        with pytest.raises(SmeltError, match="no dataset t/one, or it is private"):
            pin.pin(Path("params.yaml"), "one")


# What the datasets' cards say: README, a file, its columns; two rows, one that the preset takes and one that it leaves.
TURNS = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]
CHAT = "User: Hello?\n\nAssistant: Hi."
CARDS = {
    "fineweb-edu": (
        ["default: data/*/*", "sample-10BT: sample/10BT/*"],
        "sample/10BT/000_00000.parquet",
        ["text", "language", "score", "int_score"],
        [("A", "en", 3.1, 3), ("B", "en", 2.4, 2)],
        ("A", "filtered"),
    ),
    "culturax": (
        ["en: en/*.parquet", "vi: vi/*.parquet"],
        "en/en_part_00000.parquet",
        ["text", "timestamp", "url", "source"],
        [("A", "2020", "u", "mC4"), (" ", "2020", "u", "OSCAR-2301")],
        ("A", "empty"),
    ),
    "openhermes": (
        [],
        "openhermes2_5.json",
        ["conversations", "source", "category"],
        [(TURNS, "airoboros2.2", "orca"), (TURNS[:1], None, None)],
        (CHAT, "no_answer"),
    ),
    "infinity-instruct": (
        ["'0625': 0625/*", "3M: 3M/*"],
        "0625/train-00000-of-00001.parquet",
        ["id", "conversations", "langdetect", "source"],
        [(0, TURNS, "en", "s"), (1, TURNS, "zh-cn", "s")],
        (CHAT, "filtered"),
    ),
    "oasst2": (
        ["default: data/train-*"],
        "data/train-00000-of-00001-abc.parquet",
        ["message_id", "parent_id", "text", "role", "lang", "deleted", "rank"],
        [
            ("a", None, "Hello?", "prompter", "en", False, None),
            ("b", "a", "Hi.", "assistant", "en", False, 0),
            ("c", "a", "Spam.", "assistant", "en", True, None),
        ],
        (CHAT, "filtered"),
    ),
}


@pytest.mark.parametrize("name", CARDS)
def test_presets_fit_what_the_cards_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs, path, columns, table, (text, reason) = CARDS[name]
    rows = [dict(zip(columns, row, strict=True)) for row in table]
    split = [config.split(": ") for config in configs]
    readme = [f"- config_name: {key}\n  data_files: '{files}'" for key, files in split]
    source = read_yaml(ROOT / "presets" / f"{name}.yaml")["sources"][name]
    content = json.dumps(rows).encode() if path.endswith(".json") else parquet(rows)
    files = {
        "README.md": "\n".join(["---", "configs:", *readme, "---"]).encode(),
        path: content,
        "raw/all.messages.jsonl.gz": b"",
    }
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.add(source["repo"], files, source["revision"])
        metrics = project.run(project.make(tmp_path, {name: source}), "collect", name)
    assert (metrics["documents"], metrics["reasons"]) == (1, {reason: 1})
    assert [document.text for document in read_documents(tmp_path / "data/raw" / name / "documents")] == [text]
