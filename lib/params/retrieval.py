"""`index`: how documents are cut, embedded, stored and searched."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lib.params.completion import BaseAddress
from lib.params.values import Name, NotNegative, Positive, Section, Share

SearchMode = Literal["vector", "keyword", "hybrid", "rerank"]


def _folder(path: str) -> str:
    parts = PurePosixPath(path).parts
    if parts[:1] not in (("data",), ("models",)) or ".." in parts or len(parts) < 2:
        raise ValueError(f"must be a folder below data or models, and not {path!r}")
    return path


ModelFolder = Annotated[str, AfterValidator(_folder)]


class EmbeddingEndpoint(Section):
    url: BaseAddress | None
    model: Annotated[str, Field(min_length=1)] | None
    key: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None  # the environment variable that holds the key
    max_tokens: Annotated[int, Field(ge=16)]  # that it reads of a text
    prefix: str  # put before each passage
    question_prefix: str  # put before each question
    batch: Positive  # texts of one request
    timeout_seconds: Annotated[float, Field(gt=0)]
    retries: NotNegative


class EmbedderSettings(Section):
    """`kind` says which of the two embeds. The folder is there in any case: an endpoint's texts are measured by it."""

    kind: Literal["folder", "openai"]
    folder: ModelFolder
    openai: EmbeddingEndpoint

    @model_validator(mode="after")
    def _is_named(self) -> EmbedderSettings:
        if self.kind == "openai" and None in (self.openai.url, self.openai.model):
            raise ValueError("kind is openai: give openai.url and openai.model")
        return self


class Rerank(Section):
    folder: ModelFolder
    min_score: Share


class Index(Section):
    embedder: EmbedderSettings
    chunk_tokens: Annotated[int, Field(ge=16)]
    overlap_tokens: NotNegative
    sources: dict[Name, Positive | None]
    store: Literal["chroma", "qdrant", "pgvector"]
    mode: SearchMode
    candidates: Positive
    top_k: Positive
    min_similarity: Annotated[float, Field(ge=-1, le=1)]
    min_words: Share
    rerank: Rerank | None

    @model_validator(mode="after")
    def _fits_together(self) -> Index:
        if self.overlap_tokens >= self.chunk_tokens:
            raise ValueError("overlap_tokens must be smaller than chunk_tokens")
        if self.top_k > self.candidates:
            raise ValueError(f"top_k is {self.top_k}; it must not be larger than candidates ({self.candidates})")
        if self.mode == "rerank" and self.rerank is None:
            raise ValueError("mode is rerank: give rerank.folder, a cross-encoder")
        return self
