"""`evaluate` and `export`: what is made of a trained model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lib.params.retrieval import SearchMode
from lib.params.values import Name, NotNegative, Positive, Section


class BenchmarkTask(Section):
    few_shot: Annotated[int, Field(ge=0, le=32)] | None  # null: what the task itself says
    limit: Positive | None


class Retrieval(Section):
    questions: NotNegative
    commands: NotNegative
    modes: list[SearchMode]
    prompt_tokens: Annotated[int, Field(ge=64)]


class Instructions(Section):
    own: NotNegative
    ifbench: NotNegative
    max_new_tokens: Positive


class Forgetting(Section):
    sources: list[Name]
    task: str | None


class Evaluate(Section):
    held_out_bytes: Annotated[int, Field(ge=1000)]
    commands: Positive
    max_new_tokens: Positive
    retrieval: Retrieval
    instructions: Instructions
    tasks: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")], BenchmarkTask]
    task_limit: Positive
    batch_rows: Positive
    forgetting: Forgetting
    samples: NotNegative
    articles: NotNegative

    @model_validator(mode="after")
    def _measures_the_task(self) -> Evaluate:
        if self.forgetting.task is not None and self.forgetting.task not in self.tasks:
            raise ValueError(f"forgetting.task is {self.forgetting.task!r}, which is not one of `tasks`")
        return self


Dtype = Literal["float32", "float16", "bfloat16"]


class Parity(Section):
    held_out_bytes: NotNegative
    prompts: NotNegative
    answer_tokens: Positive


class ExportHf(Section):
    dtype: Dtype


class ExportAdapter(Section):
    gguf: bool
    base: bool

    @model_validator(mode="after")
    def _base_has_an_adapter(self) -> ExportAdapter:
        if self.base and not self.gguf:
            raise ValueError("base is the GGUF file that a GGUF adapter is laid beside: set gguf as well")
        return self


class ExportGguf(Section):
    dtype: Literal["F16", "BF16"]
    quantisations: list[Literal["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"]]
    calibration_bytes: NotNegative

    @model_validator(mode="after")
    def _names_each_once(self) -> ExportGguf:
        if len(set(self.quantisations)) < len(self.quantisations):
            raise ValueError("quantisations names one twice")
        return self


class ExportOnnx(Section):
    int8: bool


class ExportMlx(Section):
    bits: Annotated[list[Literal[8, 6, 4, 3, 2]], Field(min_length=1)]
    group_size: Literal[32, 64, 128]
    dtype: Dtype

    @model_validator(mode="after")
    def _names_each_once(self) -> ExportMlx:
        if len(set(self.bits)) < len(self.bits):
            raise ValueError("bits names one twice")
        return self


class Export(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    parity: Parity
    hf: ExportHf | None  # None: not exported
    adapter: ExportAdapter | None
    gguf: ExportGguf  # which `make chat` and `make serve` run
    onnx: ExportOnnx | None
    mlx: ExportMlx | None
