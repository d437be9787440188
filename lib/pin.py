"""Pins datasets of a hub: `make pin` writes the current commit of those without one, `make pin NAME=x` of x.

What is trained on must not change by itself, so a source names a commit; this is how it gets there and moves on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib.params.load import ParamsError, load
from lib.pipeline.errors import SmeltError
from lib.preset import apply
from lib.sources.hub_client import Hub


def pin(params: Path, name: str | None) -> dict[str, tuple[str | None, str]]:
    """Write the current commit of source `name`, or of all hub sources without one; before and after, by source.

    Raises:
        SmeltError: there is no such hub source, or the hub cannot tell.
        ParamsError: params.yaml is not valid.
    """
    hubs = {key: source for key, source in load(params).sources.items() if source.kind == "hub"}
    if name is not None and name not in hubs:
        raise SmeltError(f"sources has no hub dataset {name!r}; it has: {', '.join(hubs) or 'none'}")
    wanted = [name] if name is not None else [key for key, source in hubs.items() if source.revision is None]
    found = {key: Hub(hubs[key].repo, hubs[key].revision or "", Path(), print).head() for key in wanted}
    if found:
        apply(params, {"sources": {key: {"revision": commit} for key, commit in found.items()}})
    return {key: (hubs[key].revision, commit) for key, commit in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make pin", description=__doc__)
    parser.add_argument("name", nargs="?", help="a source of kind hub; without it, all that have no revision")
    try:
        found = pin(Path("params.yaml"), parser.parse_args().name)
    except (SmeltError, ParamsError) as error:
        sys.exit(f"pin: error: {error}")
    for name, (before, after) in found.items():
        print(f"{name}: {'still' if before == after else f'was {before}, now' if before else 'now'} {after}")
    if not found:
        print("every dataset of a hub has its revision; `make pin NAME=x` moves one to its current commit")


if __name__ == "__main__":
    main()
