"""Numbers as a reader wants them: few digits, a unit, and the error beside the value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

SPACE = "\N{NO-BREAK SPACE}"
NONE = "\N{EN DASH}"


def count(value: int) -> str:
    return f"{value:,}"


def compact(value: float) -> str:
    """1,234,567 as `1.23 M`."""
    return _with_unit(value, ("", "k", "M", "B", "T"))


def percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.1%}"


def decimal(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def size(value: int) -> str:
    """Bytes in decimal units, as disks and downloads are sold."""
    return _with_unit(value, ("B", "kB", "MB", "GB", "TB"))


def _with_unit(value: float, units: Sequence[str]) -> str:
    """Three digits and the unit, each a thousand times the one before."""
    power = 0
    while float(f"{value:.3g}") >= 1000 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    return f"{float(f'{value:.3g}'):,g}{SPACE}{units[power]}".rstrip()


def duration(seconds: float) -> str:
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{SPACE}h{SPACE}{minutes:02}{SPACE}min"
    return f"{minutes}{SPACE}min{SPACE}{rest:02}{SPACE}s"


def energy(joules: float | None) -> str:
    """Watt-hours. A counter that could not be read is not shown as zero."""
    return NONE if joules is None else f"{joules / 3600:.2f}{SPACE}Wh"


def short_hash(text: str) -> str:
    """With twelve digits of each SHA-256, which no two files share by chance."""
    return re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text)


def estimate(measured: Mapping[str, float | None], as_percent: bool = False) -> str:
    """A value and its standard error: `1.734 ± 0.012`, `34.2 ± 3.9%`, `1.734 ± ?` where one observation was all."""
    value, stderr = measured["value"], measured["stderr"]
    if value is None:
        return NONE
    scale, digits, unit = (100, 1, "%") if as_percent else (1, 3, "")
    error = "?" if stderr is None else f"{scale * stderr:.{digits}f}"
    return f"{scale * value:.{digits}f}{SPACE}±{SPACE}{error}{unit}"
