"""Which files a config and a split are, compared with the library that defines it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from lib.sources.hub_layout import resolve

LAYOUTS = {
    "sharded": [
        "README.md", ".gitattributes", "data/train-00001-of-00002-ab12.parquet",
        "data/train-00000-of-00002-cd34.parquet", "data/validation-00000-of-00001.parquet",
        "data/rest.x-00000-of-00001.parquet", "raw/2023_all.messages.jsonl.gz",
    ],
    "folders": ["train/b.jsonl", "train/a.jsonl", "dev/deep/x.jsonl", "my-test-set/t.jsonl", "other/o.jsonl"],
    "converted": ["default/train/0000.parquet", "default/train/0001.parquet", "default/validation/0000.parquet"],
    "names": ["train.csv", "x_train_1.csv", "valid-2.csv", "evaluation.csv", "training_notes.csv", "constraint.csv"],
    "no split": [
        "part-1.jsonl", "sub/part-2.jsonl", "config.json", ".hidden/x.jsonl", "__cache/y.jsonl", "dataset_infos.json"
    ],
    "one file": ["README.md", "openhermes2_5.json"],
    "tables": ["en/en_part_00001.parquet", "en/en_part_00000.parquet", "vi/vi_part_00000.parquet"],
}  # fmt: skip
READMES = {
    "languages": (
        "tables",
        "configs:\n- config_name: en\n  data_files: en/*.parquet\n- config_name: vi\n  data_files: [vi/*.parquet]",
    ),
    "splits": (
        "sharded",
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        "  - split: validation\n    path: [data/valid*]\n- config_name: raw\n  data_files: raw/*",
    ),
    "folder": (
        "folders",
        "configs:\n- config_name: main\n  data_dir: dev\n"
        "- config_name: all\n  default: true\n  data_files: '**/*.jsonl'",
    ),
    "class": (
        "tables",
        "configs:\n- config_name: x\n  data_files:\n  - split: test\n    path: '*/??_part_0000[01].parquet'",
    ),
}  # fmt: skip


def by_the_library(folder: Path, config: str | None) -> dict[str, list[str]]:
    from datasets import load_dataset_builder  # 2 s

    found = load_dataset_builder(str(folder), config, cache_dir=f"{folder}-cache").config.data_files
    return {str(split): [str(Path(path).relative_to(folder)) for path in paths] for split, paths in found.items()}


def make(folder: Path, files: list[str], readme: str = "") -> str:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    front = f"---\nlicense: mit\n{readme}\n---\n# Words\n" if readme else "# Words\n"
    (folder / "README.md").write_text(front)
    return front


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_of_files_say_the_split_as_in_the_library(tmp_path: Path, layout: str) -> None:
    readme = make(tmp_path, LAYOUTS[layout])
    expected = by_the_library(tmp_path, None)
    assert expected
    for split, files in expected.items():
        readable = [name for name in files if not name.endswith(".gz") or layout != "sharded"]
        assert resolve([*LAYOUTS[layout], "README.md"], readme, None, split, "team/x") == readable
    with pytest.raises(SmeltError, match="has no split 'nowhere'; there are: ") as error:
        resolve(LAYOUTS[layout], readme, None, "nowhere", "team/x")
    assert str(error.value).rpartition("there are: ")[2].split(", ") == list(expected)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("languages", "en"),
        ("languages", "vi"),
        ("splits", None),
        ("splits", "raw"),
        ("folder", None),
        ("folder", "main"),
        ("class", None),
    ],
)
def test_a_readme_says_the_files_as_in_the_library(tmp_path: Path, name: str, config: str | None) -> None:
    layout, configs = READMES[name]
    readme = make(tmp_path, LAYOUTS[layout], configs)
    for split, files in by_the_library(tmp_path, config).items():
        assert resolve(LAYOUTS[layout], readme, config, split, "team/x") == files


def test_without_a_default_config_there_must_be_a_choice() -> None:
    readme = f"---\n{READMES['languages'][1]}\n---\n"
    with pytest.raises(SmeltError, match="several configs and no default; set config to one of: en, vi"):
        resolve(LAYOUTS["tables"], readme, None, "train", "team/x")


@pytest.mark.parametrize("broken", ["configs: [", "configs:\n- data_files: x", "configs: 7"])
def test_a_broken_readme_is_said(broken: str) -> None:
    with pytest.raises(SmeltError, match="does not describe its configs"):
        resolve(["a.csv"], f"---\n{broken}\n---\n", None, "train", "team/x")


def test_files_that_cannot_be_read() -> None:
    with pytest.raises(SmeltError, match="has no parquet, jsonl, json, csv or tsv files"):
        resolve(["a.png", "b.zip", "c.parquet.gz"], "", None, "train", "team/x")
