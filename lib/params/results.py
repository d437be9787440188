"""`evaluate`, `export` and `index`: what is made of a trained model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lib.params.values import Name, NotNegative, Positive, Section


class Evaluate(Section):
    held_out_bytes: Annotated[int, Field(ge=1000)]
    commands: Positive
    max_new_tokens: Positive
    task_limit: Positive
    samples: NotNegative
    articles: NotNegative


class ExportHf(Section):
    dtype: Literal["float32", "float16", "bfloat16"]


class ExportGguf(Section):
    quantisations: list[Literal["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"]]


class Export(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    hf: ExportHf
    gguf: ExportGguf


class Index(Section):
    chunk_tokens: Annotated[int, Field(ge=16, le=254)]
    overlap_tokens: NotNegative
    sources: dict[Name, Positive | None]
    top_k: Positive
    min_similarity: Annotated[float, Field(ge=-1, le=1)]
