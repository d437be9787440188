"""The kinds of values that params.yaml holds, each bound stated once."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Spdx = Annotated[str, Field(min_length=1)]
Pin = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+-]+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _weight(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not number and value != "all":
        raise ValueError(f"must be a number of at least 0, or the word all, and not {value!r}")
    return value


Weight = Annotated[float | Literal["all"], BeforeValidator(_weight)]


def _whole_hash(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", value):
        raise ValueError(
            f"must be the full hash of a commit, 40 hex digits, and not {value!r}: branches and tags move. "
            f"Write null, and `make pin` puts the current commit there"
        )
    return value


Commit = Annotated[str, AfterValidator(_whole_hash)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)
