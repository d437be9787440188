"""`sources`, `licences` and `assets`: where documents and small models come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lib.params.text import PiiPolicy
from lib.params.values import Pin, Positive, Section, Sha256, Spdx


class Package(Section):
    """Files inside a pinned wheel."""

    package: Pin
    sha256: Sha256
    members: Annotated[list[str], Field(min_length=1)]
    licence: Spdx


class Subtract(Section):
    field: str
    members: Annotated[list[str], Field(min_length=1)]


class SourceBase(Section):
    input: str
    licence: Spdx
    weight: Annotated[float, Field(ge=0)]
    rules: str
    limit: Positive | None
    pii: PiiPolicy

    @model_validator(mode="after")
    def _stays_inside(self) -> SourceBase:
        if Path(self.input).is_absolute() or ".." in Path(self.input).parts:
            raise ValueError(f"input must be a folder inside the repository, not {self.input!r}")
        return self


class FolderSource(SourceBase):
    kind: Literal["folder"]
    text: str | None
    keep: list[str]


class PackageTextSource(SourceBase, Package):
    kind: Literal["package"]
    format: Literal["text"]
    exclude: list[str]
    split: Annotated[int, Field(ge=500)] | None
    unwrap: bool


class PackageRecordSource(SourceBase, Package):
    kind: Literal["package"]
    format: Literal["json", "jsonl"]
    exclude: list[str]
    records: Literal["file", "values"]
    heading: list[str]
    text: str | None
    keep: list[str]
    subtract: Subtract | None


PackageSource = Annotated[PackageTextSource | PackageRecordSource, Field(discriminator="format")]
Source = Annotated[FolderSource | PackageSource, Field(discriminator="kind")]


class Licences(Section):
    allow: Annotated[list[Spdx], Field(min_length=1)]
