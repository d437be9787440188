"""Two runs beside each other, on the items that both were measured on: `make compare A=main B=workspace`.

A and B are revisions, branches, tags, names of DVC experiments, or `workspace`. What every item scored is read from
DVC's cache, or its remote. A difference counts where its p-value, corrected for there being so many measures (Holm),
is below 5%: the rest may be noise.

Exit status: 0 compared; 1 could not be compared; 3 with --gate, B is worse in some measure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lib.evals.items import Item, read_items
from lib.evals.paired import Difference, compare, holm
from lib.params.load import ParamsError
from lib.pipeline.declarations import declarations
from lib.pipeline.errors import SmeltError

WORKSPACE = "workspace"
_SIGNIFICANT = 0.05
_BITS = "bits_per_byte"  # of which less is better
_WORSE = 3

Items = dict[str, dict[str, Item]]  # by task and id


class Row(NamedTuple):
    model: str
    task: str
    found: Difference
    p: float | None  # corrected

    @property
    def verdict(self) -> str:
        """better or worse of B, or nothing."""
        if self.p is None or self.p >= _SIGNIFICANT or not self.found.value:
            return ""
        return "better" if (self.found.value < 0) == self.task.startswith(_BITS) else "worse"


def _from_revision(root: Path, revision: str, path: str) -> str | None:
    """The file as `revision` has it; None if it has none.

    Raises:
        SmeltError: there is no such revision, or the file is in no cache.
    """
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        lock = dvc.api.read("dvc.lock", repo=str(root), rev=revision, encoding="utf-8")
    except DvcException as error:
        raise SmeltError(
            f"{revision!r} is no revision, branch, tag or experiment with a dvc.lock ({error}); `git branch`, "
            f"`dvc exp list` name them, and `{WORKSPACE}` is what is in this folder"
        ) from None
    if f"path: {path}\n" not in lock:
        return None
    try:
        return dvc.api.read(path, repo=str(root), rev=revision, encoding="utf-8")
    except (DvcException, OSError) as error:
        raise SmeltError(
            f"{path} of {revision!r} is in neither DVC's cache nor a remote ({error}). `make pull` in a check-out of "
            f"it fetches it, and `dvc repro evaluate` there measures it again"
        ) from None


def read(root: Path, revision: str, path: str) -> Items | None:
    """Items by task and id, the bits per byte of all sources as one task more; None: there are none.

    Raises:
        SmeltError: they cannot be had, or are no items.
    """
    if revision == WORKSPACE:
        text = (root / path).read_text(encoding="utf-8") if (root / path).exists() else None
    else:
        text = _from_revision(root, revision, path)
    if text is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "items.jsonl"
        file.write_text(text, encoding="utf-8")
        try:
            found = read_items(file)
        except (ValueError, TypeError) as error:
            raise SmeltError(f"{path} of {revision!r} holds no items ({error}); `dvc repro` writes it again") from None
    parts = [items for task, items in found.items() if task.startswith(f"{_BITS}/")]
    if parts:
        found[_BITS] = {name: item for items in parts for name, item in items.items()}
    return found


def measured(root: Path, wanted: Sequence[str]) -> dict[str, str]:
    """The files of items by model, of those `wanted`, or all.

    Raises:
        SmeltError: there is no such model.
    """
    suffix = "/items.jsonl"
    outs = [out for stage in declarations(root).values() for out in stage.outs if out.endswith(suffix)]
    files = {out.removesuffix(suffix).rpartition("/")[2]: out for out in outs}
    if unknown := [name for name in wanted if name not in files]:
        raise SmeltError(f"nothing measures {', '.join(unknown)}; there are: {', '.join(files)}")
    return {name: path for name, path in files.items() if not wanted or name in wanted}


def rows(before: Mapping[str, Items], after: Mapping[str, Items]) -> list[Row]:
    """Every measure of every model that both have, with p corrected over all of them."""
    found = [
        (model, task, compare(before[model][task], after[model][task]))
        for model in before
        if model in after
        for task in sorted(before[model])
        if task in after[model]
    ]
    return [Row(*one, p) for one, p in zip(found, holm([one[2].p for one in found]), strict=True)]


def lines(several: Sequence[Row], names: tuple[str, str]) -> Iterator[str]:
    """The table, as text."""
    table = [["model", "measure", "items", *names, "difference", "95% interval", "p", ""]]
    for row in several:
        one = row.found
        if not one.items:
            table.append([row.model, row.task, "0", "", "", "no item in common", "", "", ""])
            continue
        table.append(
            [row.model, row.task, f"{one.items:,}", f"{one.before:.4f}", f"{one.after:.4f}", f"{one.value:+.4f}",
             f"{one.low:+.4f} to {one.high:+.4f}", f"{row.p:.3f}", row.verdict]
        )  # fmt: skip
    widths = [max(len(cells[at]) for cells in table) for at in range(len(table[0]))]
    for cells in table:
        left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
        yield "  ".join([*left, *right]).rstrip()
    shared = [row for row in several if row.found.items]
    by = {verdict: sum(row.verdict == verdict for row in shared) for verdict in ("better", "worse")}
    yield ""
    yield (
        f"{names[1]} against {names[0]}: {by['better']} better, {by['worse']} worse, "
        f"{len(shared) - sum(by.values())} of {len(shared)} not to be told from noise. p is corrected for all "
        f"{len(shared)} measures (Holm); {_BITS}: less is better."
    )
    apart = [row for row in several if row.found.only_before or row.found.only_after]
    if apart:
        yield "The sets differ, and only shared items were compared: " + ", ".join(
            f"{row.model} {row.task} ({row.found.only_before} only in {names[0]}, {row.found.only_after} only in "
            f"{names[1]})"
            for row in apart
        )


def run(root: Path, names: tuple[str, str], wanted: Sequence[str]) -> list[Row]:
    """Compare two revisions of the repository at `root`.

    Raises:
        SmeltError: one of them cannot be had, or they have nothing in common.
    """
    files = measured(root, wanted)
    found = tuple({model: read(root, name, path) for model, path in files.items()} for name in names)
    for name, of_models in zip(names, found, strict=True):
        if not any(of_models.values()):
            raise SmeltError(
                f"{name!r} has no items of {', '.join(files)}: it was measured before items were kept, or never. "
                f"`dvc repro evaluate` there measures it"
            )
    before, after = ({model: items for model, items in of_models.items() if items} for of_models in found)
    several = rows(before, after)
    if not any(row.found.items for row in several):
        raise SmeltError(
            f"{names[0]!r} and {names[1]!r} have no item in common: they were measured on other sets or other models"
        )
    return several


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.compare", description=__doc__)
    parser.add_argument("A", help=f"a revision, a branch, an experiment, or {WORKSPACE}")
    parser.add_argument("B", help="the same, compared with A")
    parser.add_argument("--model", action="append", default=[], help="base, chat, ...; all without it")
    parser.add_argument("--gate", action="store_true", help=f"end with status {_WORSE} if B is worse in some measure")
    given = parser.parse_args()
    names = (given.A, given.B)
    try:
        several = run(Path.cwd(), names, given.model)
    except (SmeltError, ParamsError) as error:
        sys.exit(f"compare: error: {error}")
    print("\n".join(lines(several, names)))
    if given.gate and any(row.verdict == "worse" for row in several):
        sys.exit(_WORSE)


if __name__ == "__main__":
    main()
