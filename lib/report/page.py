"""The page: what it is made of, and how that becomes one HTML file.

The page holds no script and its Content-Security-Policy forbids every fetch. Charts are static SVG (see charts.py);
text that comes from documents and models is escaped by Jinja, or by Vega inside a chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2


@dataclass(frozen=True)
class Column:
    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of ready-made text. The first column names the row."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] | None = None
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """A chart as drawn by charts.py, which is the one thing that the page does not escape, and its caption."""

    svg: str
    caption: str
    kind: str = "figure"


@dataclass(frozen=True)
class Figures:
    """Charts that belong side by side."""

    figures: Sequence[Figure]
    kind: str = "figures"


@dataclass(frozen=True)
class Note:
    text: str
    warning: bool = False
    kind: str = "note"


@dataclass(frozen=True)
class Sample:
    """One prompt, the answer that was expected, and what each model said."""

    prompt: str
    expected: str
    answers: Sequence[tuple[str, str]]
    kind: str = "sample"


@dataclass(frozen=True)
class Excerpt:
    """Pieces of documents, each under the place that it is from."""

    title: str
    pieces: Sequence[tuple[str, str]]
    kind: str = "excerpt"


@dataclass(frozen=True)
class Details:
    """Blocks that stay folded until they are wanted."""

    title: str
    blocks: Sequence[Block]
    kind: str = "details"


Block = Table | Figure | Figures | Note | Sample | Excerpt | Details


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Fact:
    """One figure of the summary."""

    label: str
    value: str
    remark: str


@dataclass(frozen=True)
class Summary:
    """What stands at the top: which model this is, and whether it is any good."""

    title: str
    what: str
    verdicts: Sequence[str]
    facts: Sequence[Fact] = field(default_factory=list)


def render(summary: Summary, sections: Sequence[Section], written: str) -> str:
    """The page as HTML. `written` says when and where it was made."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(summary=summary, sections=sections, written=written)
