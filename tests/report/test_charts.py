import re

import numpy as np
import pandas as pd
import pytest

from lib.report import charts


def test_bars_are_as_long_as_their_values_and_names_are_text() -> None:
    frame = pd.DataFrame(
        {
            "name": ["one", "</text><script>alert(1)</script>"],
            "kind": ["a", "b"],
            "value": [1.0, 2.5],
            "stderr": [float("nan"), 0.1],
            "text": ["1.0", "2.5 & more"],
        }
    )
    svg = charts.bars(frame, {"a": "base", "b": "chat"}, "value", "~g", 'two bars, "one" longer')
    bars = [element for element in re.findall(r"<path [^>]*>", svg) if 'roledescription="bar"' in element]
    widths = [float(re.search(r" d=\"M[^h]+h([0-9.]+)v", bar)[1]) for bar in bars]
    assert widths[1] / widths[0] == pytest.approx(2.5)
    assert ["var(--base)" in bar for bar in bars] == [True, False]
    assert "<script" not in svg
    assert "2.5 &amp; more" in svg
    assert 'aria-label="two bars, &quot;one&quot; longer"' in svg


def test_a_long_run_makes_no_large_chart() -> None:
    step = np.arange(100_000)
    train = pd.DataFrame({"step": step, "loss": 10 / (1 + step)})
    svg = charts.loss(train, train.iloc[::10_000].reset_index(drop=True), "loss falls")
    assert len(svg) < 60_000
