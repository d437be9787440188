"""Which files of a dataset repository make up a config and a split: the hub's own rules.

A README may name configs with their files (the hub's "manual configuration"). Where it does not, the names of the files
say: `data/train-00000-of-00005.parquet`, or a folder or file called after a split, or else all is
`train`. The patterns are those of `datasets.data_files`, which a test compares with this module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from fsspec.utils import glob_translate
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lib.pipeline.errors import SmeltError
from lib.sources.rows import kind

_SHARDED = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_IN_FOLDER = ("**/{0}/**", "**/{0}[-._ 0-9]*/**", "**/*[-._ 0-9]{0}/**", "**/*[-._ 0-9]{0}[-._ 0-9]*/**")
_IN_FILE = ("**/{0}[-._ 0-9]*", "**/*[-._ 0-9]{0}[-._ 0-9]*")
_IGNORED = {"README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?\n)---\s*(?:\n|\Z)", re.DOTALL)


def resolve(files: Iterable[str], readme: str, config: str | None, split: str, repo: str) -> list[str]:
    """The data files of `split` in `config`, in the hub's order. `config: None` is the repository's default.

    Raises:
        SmeltError: there is no such config or split (the message lists what there is), no file that can be read, or
            the README's own description is broken.
    """
    files = sorted(files)
    configs = _configs(readme, repo)
    chosen = _choose(configs, config, repo) if configs else {}
    if not configs and config not in (None, "default"):
        raise SmeltError(f"{repo} has no config {config!r}: its README names none, so config must be null")
    splits = _splits(files, chosen)
    found = {name: readable for name, matching in splits.items() if (readable := _readable(matching))}
    if split in found:
        return found[split]
    if not found:
        script = next((name for name in files if name == f"{repo.rpartition('/')[2]}.py"), None)
        why = f"it is made by the script {script}, and Smelt runs no code of a dataset" if script else "none was found"
        raise SmeltError(f"{repo} has no parquet, jsonl, json, csv or tsv files for this config: {why}")
    which = f" in config {config}" if config else ""
    raise SmeltError(f"{repo} has no split {split!r}{which}; there are: {', '.join(found)}")


def _configs(readme: str, repo: str) -> dict[str, dict[str, Any]]:
    """The `configs` of the README's front matter by name."""
    match = _FRONT_MATTER.match(readme.replace("\r\n", "\n"))
    try:
        described = (YAML(typ="safe").load(match[1]) or {}) if match else {}
        return {entry["config_name"]: entry for entry in described.get("configs") or []}
    except (YAMLError, KeyError, TypeError, AttributeError) as error:
        raise SmeltError(f"the README of {repo} does not describe its configs as the hub asks: {error}") from None


def _choose(configs: dict[str, dict[str, Any]], config: str | None, repo: str) -> dict[str, Any]:
    names = [config] if config else [
        name for name, entry in configs.items() if len(configs) == 1 or name == "default" or entry.get("default")
    ]  # fmt: skip
    if len(names) == 1 and names[0] in configs:
        return configs[names[0]]
    what = f"no config {config!r}" if config else "several configs and no default"
    shown = ", ".join(list(configs)[:200])
    raise SmeltError(f"{repo} has {what}; set config to one of: {shown}")


def _splits(files: list[str], config: dict[str, Any]) -> dict[str, list[str]]:
    """The files of each split, as the config says or, where it does not, as their names say."""
    below = str(config["data_dir"]).strip("/") + "/" if config.get("data_dir") else ""
    inside = [name.removeprefix(below) for name in files if name.startswith(below)]
    listed = config.get("data_files")
    splits = _expand(inside, _patterns(listed)) if listed else _by_name(inside)
    return {split: [below + name for name in names] for split, names in splits.items()}


def _patterns(listed: Any) -> dict[str, list[str]]:
    """`data_files` of a README: a path, a list of paths (both `train`), or a list of splits with their paths."""
    listed = [listed] if isinstance(listed, str | dict) else listed
    splits: dict[str, list[str]] = {}
    for entry in listed:
        split, paths = (entry["split"], entry["path"]) if isinstance(entry, dict) else ("train", entry)
        splits.setdefault(split, []).extend([paths] if isinstance(paths, str) else paths)
    return splits


def _by_name(files: list[str]) -> dict[str, list[str]]:
    sharded: dict[str, list[str]] = {}
    for name in _visible(files):
        if match := _SHARDED.fullmatch(name):
            sharded.setdefault(match[1], []).append(name)
    if sharded:
        order = [split for split in _KEYWORDS if split in sharded]
        return {split: sharded[split] for split in [*order, *sorted(set(sharded) - set(order))]}
    for forms in (_IN_FOLDER, _IN_FILE):
        patterns = {
            split: [form.format(word) for word in words for form in forms] for split, words in _KEYWORDS.items()
        }
        if found := _expand(files, patterns):
            return found
    return _expand(files, {"train": ["**"]})


def _visible(files: Iterable[str], pattern: str = "") -> list[str]:
    """Without hidden files and folders, unless the pattern names as many hidden parts, and without descriptions."""

    def hidden(path: str) -> int:
        parts = PurePosixPath(path).parts
        return sum(part.startswith(".") for part in parts) + sum(part.startswith("__") for part in parts[:-1])

    return [
        name
        for name in files
        if hidden(name) == hidden(pattern) and PurePosixPath(name).name not in _IGNORED - {PurePosixPath(pattern).name}
    ]


def _expand(files: list[str], patterns: dict[str, list[str]]) -> dict[str, list[str]]:
    splits = {}
    for split, globs in patterns.items():
        names: dict[str, None] = {}  # a set that keeps its order
        for glob in globs:
            matches = re.compile(glob_translate(glob.removeprefix("./")))
            names |= dict.fromkeys(name for name in _visible(files, glob) if matches.match(name))
        if names:
            splits[split] = list(names)
    return splits


def _readable(files: list[str]) -> list[str]:
    """Those of the kind that most files are of, as the hub reads a folder of mixed files."""
    kinds = Counter(kind(name) for name in files if kind(name))
    return [name for name in files if kinds and kind(name) == kinds.most_common(1)[0][0]]
