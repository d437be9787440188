"""What the mixture may be trained on: `python -m lib.licences` prints each source's licence and whether it is accepted.

Exits with 1 when a source of the mixture is not. Documents may carry licences of their own; `mix` checks each of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lib.params import load as parameters
from lib.text.licences import refuse, share_alike


def table(root: Path) -> tuple[Table, bool]:
    """The table, and whether every source with a weight is accepted."""
    params = parameters.load(root / "params.yaml")
    metrics = root / "reports" / "mix" / "metrics.json"
    mixed = json.loads(metrics.read_text(encoding="utf-8"))["mix"]["sources"] if metrics.exists() else {}
    shown = Table(title=None if mixed else "`make repro` has not mixed anything yet: no documents, no shares")
    for title in ("source", "licence", "accepted", "share-alike"):
        shown.add_column(title, overflow="fold")  # an id cut short is of no use
    for title in ("training documents", "share of training"):
        shown.add_column(title, justify="right")
    whole = True
    for name, source in params.sources.items():
        refused = list(refuse([(name, source.licence, 0, "")], params.licences.allow))
        used = mixed.get(name)
        whole &= not (refused and source.weight)
        shown.add_row(
            name,
            source.licence,
            refused[0].reason if refused else "yes",
            "" if refused else "yes" if share_alike(source.licence) else "no",
            f"{used['documents']['train']:,}" if used else "",
            f"{used['reached_share']:.1%}" if used else "",
        )
    return shown, whole


def main() -> None:
    try:
        shown, whole = table(Path.cwd())
    except parameters.ParamsError as error:
        sys.exit(f"licences: error: {error}")
    Console().print(shown)
    if not whole:
        sys.exit("licences: error: `mix` will stop; see licences.allow in params.yaml")


if __name__ == "__main__":
    main()
