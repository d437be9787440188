"""Brings the lists of sources in dvc.yaml in line with params.yaml: `make align`, after adding or removing a source.

Comments, layout and the order of what is listed already are kept.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Collection
from pathlib import Path

from ruamel.yaml import YAML

from lib.params.load import ParamsError, load
from lib.pipeline.declarations import CHILDREN, children


def _align(deps: list[str], forms: tuple[str, ...], sources: Collection[str]) -> None:
    """Drop the children of sources that are gone, and put those of new ones after the last child."""
    patterns = [re.escape(form).replace(re.escape("{}"), "([a-z0-9][a-z0-9_-]*)") for form in forms]
    child, wanted = re.compile("|".join(patterns)), children(forms, sources)
    for place in reversed(range(len(deps))):
        if child.fullmatch(str(deps[place])) and deps[place] not in wanted:
            del deps[place]
    end = max((place + 1 for place, dep in enumerate(deps) if dep in wanted), default=len(deps))
    for offset, path in enumerate(path for path in wanted if path not in deps[:end]):
        deps.insert(end + offset, path)


def align(dvc: Path, sources: Collection[str]) -> bool:
    """Make the file `dvc` list the children of exactly these sources; whether it had to change."""
    yaml = YAML()
    yaml.width = 1000
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    before = dvc.read_text(encoding="utf-8")
    declared = yaml.load(before)
    for stage, groups in CHILDREN.items():
        for forms in groups:
            _align(declared["stages"][stage]["deps"], forms, sources)
    text = io.StringIO()
    yaml.dump(declared, text)
    if text.getvalue() == before:
        return False
    aside = dvc.with_name(f".{dvc.name}.partial")
    aside.write_text(text.getvalue(), encoding="utf-8")
    aside.replace(dvc)
    return True


def main() -> None:
    try:
        changed = align(Path("dvc.yaml"), load(Path("params.yaml")).sources)
    except ParamsError as error:
        sys.exit(f"align: error: {error}")
    print(
        "dvc.yaml lists the sources of params.yaml" + (" now; `git diff dvc.yaml` shows it" if changed else " already")
    )


if __name__ == "__main__":
    main()
