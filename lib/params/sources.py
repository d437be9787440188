"""`sources`, `licences` and `assets`: where documents and small models come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from lib.params.text import PiiPolicy
from lib.params.values import Commit, NotNegative, Pin, Positive, Section, Sha256, Spdx, Weight


class Package(Section):
    """Files inside a pinned wheel."""

    package: Pin
    sha256: Sha256
    members: Annotated[list[str], Field(min_length=1)]
    licence: Spdx


class PackageAsset(Package):
    kind: Literal["package"]

    @property
    def origin(self) -> str:
        return self.package


Repo = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]


class HubAsset(Section):
    """Files of a model of a hub, at one commit."""

    kind: Literal["hub"]
    repo: Repo
    revision: Commit | None
    files: Annotated[list[str], Field(min_length=1)]
    licence: Spdx

    @property
    def origin(self) -> str:
        return f"hf://{self.repo}@{self.revision}"


class Part(Section):
    """A part of a file: one member of a pinned wheel."""

    package: Pin
    sha256: Sha256
    member: str


class Joined(Section):
    """A file whose parts are in several wheels."""

    kind: Literal["joined"]
    parts: Annotated[list[Part], Field(min_length=1)]
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    sha256: Sha256  # of the whole
    licence: Spdx

    @property
    def origin(self) -> str:
        return " + ".join(part.package for part in self.parts)


Asset = Annotated[PackageAsset | HubAsset | Joined, Field(discriminator="kind")]


class Subtract(Section):
    field: str
    members: Annotated[list[str], Field(min_length=1)]


class SourceBase(Section):
    input: str
    licence: Spdx
    weight: Weight
    epochs: Positive
    rules: str
    limit: Positive | None
    pii: PiiPolicy

    @model_validator(mode="after")
    def _stays_inside(self) -> SourceBase:
        if Path(self.input).is_absolute() or ".." in Path(self.input).parts:
            raise ValueError(f"input must be a folder inside the repository, not {self.input!r}")
        return self

    @property
    def origin(self) -> str:
        """Where the documents come from, as exactly as it is known: a pinned package or dataset, or a folder."""
        return getattr(self, "package", self.input)


class Limits(Section):
    """Of one document; `unpacked_mib` and `depth` of one file."""

    seconds: Annotated[float, Field(gt=0)]
    memory_mib: Annotated[int, Field(ge=64)]
    document_mib: Positive
    unpacked_mib: Positive
    depth: NotNegative


class FolderSource(SourceBase):
    kind: Literal["folder"]
    text: str | None
    keep: list[str]
    limits: Limits


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{url!r} is not a URL of the web: it must begin with http:// or https:// and name a host")
    if parts.username is not None:
        raise ValueError(f"the URL of {host!r} has a user name in it, which would end up in every document of it")
    if len(url) > 2000 or any(character.isspace() for character in url):
        raise ValueError(f"{url[:60]!r} is not a URL: it has spaces, or is longer than 2,000 characters")
    return url


Url = Annotated[str, AfterValidator(_web_address)]
Seconds = Annotated[float, Field(ge=0)]


class WebSource(SourceBase):
    kind: Literal["web"]
    urls: list[Url]
    sitemaps: list[Url]
    follow: Annotated[int, Field(ge=0, le=20)]
    max_pages: Positive
    max_page_mib: Annotated[float, Field(gt=0, le=512)]
    delay_seconds: Seconds
    max_delay_seconds: Seconds
    timeout_seconds: Annotated[float, Field(gt=0)]
    retries: Annotated[int, Field(ge=0, le=20)]
    retry_seconds: Seconds
    extract_seconds: Annotated[float, Field(gt=0)]
    # The name before the slash is the one that robots.txt knows the crawler by.
    user_agent: Annotated[str, Field(pattern=r"^[A-Za-z_-]+(/[\x21-\x7e]+)?( [\x20-\x7e]*)?$")]

    @model_validator(mode="after")
    def _is_bounded(self) -> WebSource:
        named = len(self.urls) + len(self.sitemaps)
        if named > self.max_pages:
            raise ValueError(f"max_pages is {self.max_pages}, fewer than the {named} urls and sitemaps that are listed")
        if self.delay_seconds > self.max_delay_seconds:
            raise ValueError("delay_seconds must not be larger than max_delay_seconds")
        return self


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


class Comparison(Section):
    """Keeps the rows whose value in `column` compares so. An empty value compares true with `!=` and `not in` alone."""

    column: str
    op: Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
    value: bool | int | float | str | list[bool | int | float | str]

    @model_validator(mode="after")
    def _fits(self) -> Comparison:
        if isinstance(self.value, list) != self.op.endswith("in"):
            raise ValueError(f"{self.op!r} compares with {'a list' if self.op.endswith('in') else 'one value'}")
        return self


class Thread(Section):
    """Columns of a table with one message a row, each thread's rows together and its first one without a parent."""

    id: str
    parent: str
    role: str
    content: str
    rank: str | None  # of the replies to one message, the lowest is taken; null: the first


class HubSource(SourceBase):
    kind: Literal["hub"]
    repo: Repo
    revision: Commit | None
    config: str | None
    split: str
    text: str | None
    messages: str | Thread | None
    keep: list[str]
    licence_column: str | None
    filter: list[Comparison]
    max_mib: Annotated[float, Field(gt=0)] | None

    @model_validator(mode="after")
    def _one_text(self) -> HubSource:
        if self.messages is not None and self.text is not None:
            raise ValueError("text must be null where messages is given: the conversation is the text")
        return self

    @property
    def origin(self) -> str:
        return f"hf://datasets/{self.repo}@{self.revision}"


PackageSource = Annotated[PackageTextSource | PackageRecordSource, Field(discriminator="format")]
Source = Annotated[FolderSource | HubSource | WebSource | PackageSource, Field(discriminator="kind")]


class Licences(Section):
    allow: Annotated[list[Spdx], Field(min_length=1)]
