"""Charts: Vega-Lite specifications by Altair, drawn as static SVG by vl-convert.

Static, because the browser runtime (vega, vega-lite, vega-embed) is 0.9 MB of script, five times the whole page, and
every exact number stands in a table beside its chart. Colours are CSS variables of the page (`var(--base)`), which Vega
passes through untouched, so one drawing follows the reader's light or dark scheme.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

import altair as alt
import pandas as pd
import vl_convert

WIDTH = 460  # CSS pixels with axes and labels; two fit side by side on a desk, one on a phone
FONT = "Helvetica, Arial, sans-serif"

_CONFIG = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 200,
    },
    "legend": {
        "labelColor": "var(--text)",
        "labelFontSize": 12,
        "title": None,
        "orient": "top",
        "symbolType": "square",
        "symbolStrokeWidth": 0,
    },
}


def _draw(chart: alt.Chart | alt.LayerChart, height: int | Mapping[str, int], label: str) -> str:
    """The chart as an <svg> element that scales with the page and is read out as `label`."""
    spec = chart.properties(width=WIDTH, height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
    drawn = vl_convert.vegalite_to_svg(spec.to_dict() | {"config": _CONFIG})
    root = re.match(r"<svg [^>]*?viewBox=\"([^\"]+)\"[^>]*>", drawn)
    assert root, "vl-convert writes <svg ... viewBox> first"
    width = root[1].split()[2]
    return (
        f'<svg viewBox="{root[1]}" width="{width}" role="img" aria-label="{html.escape(label)}">' + drawn[root.end() :]
    )


def _colours(colours: Mapping[str, str]) -> alt.Scale:
    return alt.Scale(domain=list(colours), range=[f"var(--{name})" for name in colours.values()])


def _mean_of_neighbours(frame: pd.DataFrame, points: int) -> pd.DataFrame:
    """At most `points` rows, each the mean of equally many neighbours."""
    per_point = -(-len(frame) // points)
    return frame.groupby(frame.index // max(1, per_point)).mean()


def loss(train: pd.DataFrame, val: pd.DataFrame, label: str) -> str:
    """Loss by step. `train` and `val` have the columns step and loss."""
    colours = {"training": "base", "validation": "chat"}
    y = alt.Y("loss:Q", title="loss (nats per token)", scale=alt.Scale(zero=False))
    x = alt.X("step:Q", title="optimizer step", axis=alt.Axis(format=",d", tickCount=6))
    colour = alt.Color("split:N", scale=_colours(colours))
    thinned = _mean_of_neighbours(train[["step", "loss"]], points=400)
    lines = alt.Chart(thinned.assign(split="training")).mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour)
    points = alt.Chart(val[["step", "loss"]].assign(split="validation")).mark_line(
        strokeWidth=2, point=alt.OverlayMarkDef(size=24)
    )
    return _draw(lines + points.encode(x=x, y=y, color=colour), 260, label)


def lines(frame: pd.DataFrame, colours: Mapping[str, str], y: str, axis: str, label: str) -> str:
    """One line by step for each column of `frame` that `colours` names; y and axis are its title and its format."""
    long = frame.melt("step", list(colours), var_name="name", value_name="value")
    chart = (
        alt.Chart(long)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=24))
        .encode(
            x=alt.X("step:Q", title="optimizer step", axis=alt.Axis(format=",d", tickCount=6)),
            y=alt.Y("value:Q", title=y, axis=alt.Axis(format=axis, tickCount=5)),
            color=alt.Color("name:N", scale=_colours(colours)),
        )
    )
    return _draw(chart, 220, label)


def bars(frame: pd.DataFrame, colours: Mapping[str, str], x: str, axis: str, label: str) -> str:
    """One bar a row, with its name and its value in figures; the colour says what kind it is of.

    Columns: name, kind (a key of `colours`), value, text (the value as shown) and stderr (NaN: unknown).
    """
    frame = _with_ends(frame)
    base = alt.Chart(frame).encode(y=alt.Y("name:N", sort=None, title=None))
    value = alt.X("value:Q", title=x, axis=alt.Axis(format=axis, tickCount=5), scale=_room_for_text(frame))
    chart = alt.layer(
        base.mark_bar().encode(x=value, color=alt.Color("kind:N", scale=_colours(colours), legend=None)),
        base.mark_rule(strokeWidth=2, color="var(--text)").encode(x="low:Q", x2="high:Q"),
        base.mark_text(align="left", dx=5, fontSize=12, color="var(--text)").encode(x="high:Q", text="text:N"),
    )
    return _draw(chart, {"step": 24}, label)


def paired_bars(frame: pd.DataFrame, colours: Mapping[str, str], x: str, axis: str, label: str) -> str:
    """One bar per name and kind. Columns: name, kind (a key of `colours`), value."""
    chart = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            y=alt.Y("name:N", sort=None, title=None),
            yOffset=alt.YOffset("kind:N", sort=list(colours)),
            x=alt.X("value:Q", title=x, axis=alt.Axis(format=axis, tickCount=5)),
            color=alt.Color("kind:N", scale=_colours(colours)),
        )
    )
    return _draw(chart, {"step": 13}, label)


def points(frame: pd.DataFrame, colours: Mapping[str, str], x: str, axis: str, label: str) -> str:
    """A point with its standard error per name and kind, and a tick where chance lies.

    Columns: name, kind (a key of `colours`), value, stderr, chance (NaN where there is none).
    """
    base = alt.Chart(_with_ends(frame)).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(grid=True)),
        yOffset=alt.YOffset("kind:N", sort=list(colours)),
    )
    colour = alt.Color("kind:N", scale=_colours(colours))
    value = alt.X("value:Q", title=x, axis=alt.Axis(format=axis, tickCount=5), scale=alt.Scale(zero=False))
    chart = alt.layer(
        base.mark_tick(thickness=2, size=15, color="var(--muted)").encode(x="chance:Q"),
        base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=value, color=colour),
    )
    return _draw(chart, {"step": 13}, label)


def _with_ends(frame: pd.DataFrame) -> pd.DataFrame:
    """With `low` and `high`, one standard error below and above the value (at the value, if the error is unknown)."""
    stderr = frame["stderr"].fillna(0)
    return frame.assign(low=frame["value"] - stderr, high=frame["value"] + stderr)


def _room_for_text(frame: pd.DataFrame) -> alt.Scale:
    """A scale from zero that leaves about a fifth of its length for the figures beside the longest bar."""
    return alt.Scale(domain=[0, 1.28 * float(frame["high"].max()) or 1.0], nice=False)
