"""Presets: overlays on params.yaml, one per machine or goal. `make preset NAME=smoke` lays one over it.

The result is plain params.yaml, comments kept: `git diff` shows what changed, `git checkout params.yaml` takes it back.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lib.params.load import ParamsError, load, read_yaml


def overlay(values: dict[str, Any], changes: Mapping[str, Any], where: str = "") -> None:
    """Lay `changes` over the nested mapping `values`.

    Raises:
        ParamsError: a key that is not in `values`: a preset changes parameters, it does not invent them.
    """
    for key, change in changes.items():
        if key not in values:
            raise ParamsError(f"{where}{key} is no parameter")
        if isinstance(change, Mapping) and isinstance(values[key], dict):
            overlay(values[key], change, f"{where}{key}.")
        else:
            values[key] = change


def apply(params: Path, changes: Mapping[str, Any]) -> None:
    """Lay `changes` over the file `params`, keeping its comments and its layout.

    Raises:
        ParamsError: the outcome is not valid; the file is as it was.
    """
    yaml = YAML()
    yaml.width = 1000
    values = yaml.load(params)
    overlay(values, changes)
    text = io.StringIO()
    yaml.dump(values, text)
    aside = params.with_name(f".{params.name}.partial")
    try:
        aside.write_text(text.getvalue(), encoding="utf-8")
        load(aside)
        aside.replace(params)
    finally:
        aside.unlink(missing_ok=True)


def main() -> None:
    presets = sorted(path.stem for path in Path("presets").glob("*.yaml"))
    parser = argparse.ArgumentParser(
        prog="make preset", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", choices=presets, help="a file of presets/")
    name = parser.parse_args().name
    try:
        apply(Path("params.yaml"), read_yaml(Path("presets") / f"{name}.yaml"))
    except ParamsError as error:
        sys.exit(f"preset {name}: error: {error}")
    print(f"params.yaml now has the preset {name}; `git diff params.yaml` shows it, `make repro` runs it")


if __name__ == "__main__":
    main()
