"""Pins what comes from a hub: `make pin` writes the current commit of what has none, `make pin NAME=x` of x.

What is trained on must not change by itself, so a source names a commit; this is how it gets there and moves on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib.params.load import ParamsError, load
from lib.pipeline.errors import SmeltError
from lib.preset import apply
from lib.sources.hub_client import Hub, Kind


def pin(params: Path, name: str | None) -> dict[str, tuple[str | None, str]]:
    """Write the current commit of `name`, or of all that have none; before and after, by name.

    Raises:
        SmeltError: there is no such source or asset of a hub, or the hub cannot tell.
        ParamsError: params.yaml is not valid.
    """
    sections = {"sources": load(params).sources, "assets": load(params).assets}
    hubs = {
        (section, key): entry for section in sections for key, entry in sections[section].items() if entry.kind == "hub"
    }
    if name is not None and name not in {key for _, key in hubs}:
        names = ", ".join(key for _, key in hubs)
        raise SmeltError(f"sources and assets have nothing of a hub called {name!r}; they have: {names or 'none'}")
    pinned = {}
    for (section, key), entry in hubs.items():
        if key == name or (name is None and entry.revision is None):
            kind: Kind = "dataset" if section == "sources" else "model"
            commit = Hub(entry.repo, entry.revision or "", Path(), print, kind).head()
            apply(params, {section: {key: {"revision": commit}}})
            pinned[key] = (entry.revision, commit)
    return pinned


def main() -> None:
    parser = argparse.ArgumentParser(prog="make pin", description=__doc__)
    parser.add_argument("name", nargs="?", help="a source or asset of kind hub; without it, all that have no revision")
    try:
        found = pin(Path("params.yaml"), parser.parse_args().name)
    except (SmeltError, ParamsError) as error:
        sys.exit(f"pin: error: {error}")
    for name, (before, after) in found.items():
        print(f"{name}: {'still' if before == after else f'was {before}, now' if before else 'now'} {after}")
    if not found:
        print("all that comes from a hub has its revision; `make pin NAME=x` moves one to its current commit")


if __name__ == "__main__":
    main()
