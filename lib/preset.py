"""Presets: overlays on params.yaml, one per size, machine, goal or dataset. `make preset NAME=smoke` lays one over it,
`make preset NAME="3b 2x5090"` two, in order.

The result is plain params.yaml, comments kept: `git diff` shows what changed, `git checkout params.yaml` takes it back.
A preset may bring sources of its own; dvc.yaml is then brought in line (see lib/align.py).
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from lib.align import align
from lib.params.load import ParamsError, load, read_yaml
from lib.text.licences import refuse

_NULL = "tag:yaml.org,2002:null"
# Mappings whose keys are the user's own.
_OPEN = ("sources.", "assets.", "index.sources.", "evaluate.tasks.", "synthesize.sources.")
_KINDS = ("sources", "assets")  # of these, each entry has a kind


def overlay(values: dict[str, Any], changes: Mapping[str, Any], where: str = "") -> None:
    """Lay `changes` over the nested mapping `values`.

    Raises:
        ParamsError: a key that is not in `values`: a preset changes parameters, it does not invent them. A new source
            or asset must say its kind, so that a slip in the name of one is still found.
    """
    for key, change in changes.items():
        if key not in values and (where not in _OPEN or (where[:-1] in _KINDS and "kind" not in change)):
            raise ParamsError(f"{where}{key} is no parameter")
        if isinstance(change, Mapping) and isinstance(values.get(key), dict):
            overlay(values[key], change, f"{where}{key}.")
        elif key not in values or values[key] != change:  # what is equal keeps its spelling
            values[key] = change


def apply(params: Path, changes: Mapping[str, Any]) -> None:
    """Lay `changes` over the file `params`, keeping its comments and its layout.

    Raises:
        ParamsError: the outcome is not valid; the file is as it was.
    """
    yaml = _yaml()
    values = yaml.load(params)
    known = {section: list(values[section]) for section in _KINDS}
    overlay(values, changes)
    added = {
        section: {name: values[section].pop(name) for name in list(values[section]) if name not in known[section]}
        for section in _KINDS
    }
    text = io.StringIO()
    yaml.dump(values, text)
    written = text.getvalue()
    for section, entries in added.items():
        written = _add(written, section, entries)
    aside = params.with_name(f".{params.name}.partial")
    try:
        aside.write_text(written, encoding="utf-8")
        load(aside)
        aside.replace(params)
    finally:
        aside.unlink(missing_ok=True)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 1000
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda dumper, _: dumper.represent_scalar(_NULL, "null"))
    return yaml


def _add(text: str, section: str, added: Mapping[str, Any]) -> str:
    """The file with more entries after the last; ruamel would put them below the comment of the next section."""
    lines = text.splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{section}:"))
    end = next((n for n in range(start + 1, len(lines)) if re.match(r"[\w\"']", lines[n])), len(lines))
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):
        end -= 1
    for name, fields in added.items():
        block = io.StringIO()
        _yaml().dump({name: {field: _on_one_line(value) for field, value in fields.items()}}, block)
        lines.insert(end, "\n" + textwrap.indent(block.getvalue(), "  "))
        end += 1
    return "".join(lines)


def _on_one_line(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = CommentedMap({key: _on_one_line(entry) for key, entry in value.items()})
        value.fa.set_flow_style()
    elif isinstance(value, list):
        value = CommentedSeq(map(_on_one_line, value))
        value.fa.set_flow_style()
    return value


def main() -> None:
    presets = sorted(path.stem for path in Path("presets").glob("*.yaml"))
    parser = argparse.ArgumentParser(
        prog="make preset", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=presets, metavar="name", help=f"of presets/: {', '.join(presets)}")
    names, params = parser.parse_args().names, Path("params.yaml")
    before = params.read_bytes()
    try:
        for name in names:
            apply(params, read_yaml(Path("presets") / f"{name}.yaml"))
        now = load(params)
        aligned = align(Path("dvc.yaml"), now.sources)
    except ParamsError as error:
        params.write_bytes(before)
        sys.exit(f"preset {name}: error: {error}")
    files = "params.yaml dvc.yaml" if aligned else "params.yaml"
    print(f"params.yaml now has {', '.join(names)}; `git diff {files}` shows it, `make repro` runs it")
    used = [(key, source.licence, 0, "") for key, source in now.sources.items() if source.weight]
    for refused in refuse(used, now.licences.allow):
        print(
            f"note: {refused.source} is under {refused.licence}: {refused.reason}. `mix` will stop there; see licences"
        )
    for key, source in now.sources.items():
        if source.kind == "hub" and source.revision is None:
            print(f"note: {key} has no revision yet; `make pin` writes the dataset's current commit")


if __name__ == "__main__":
    main()
