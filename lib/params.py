"""The typed form of params.yaml: one model per section, every bound stated once, all errors shown at once.

There are no defaults: what is not in params.yaml is not tracked by DVC, so it may not change a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Spdx = Annotated[str, Field(min_length=1)]
Pin = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+-]+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ParamsError(ValueError):
    """params.yaml holds something unusable; the message lists every problem."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


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


class CleanRules(Section):
    min_words: Positive | None
    max_words: Positive | None
    min_mean_word_length: Annotated[float, Field(gt=0)] | None
    max_mean_word_length: Annotated[float, Field(gt=0)] | None
    max_symbol_word_ratio: Share | None
    min_alphabetic_words: Share | None
    max_duplicate_lines: Share | None
    max_line_length: Positive | None


class Dedup(Section):
    ngram: Positive
    buckets: Positive
    hashes_per_bucket: Positive


class Mix(Section):
    tokens: Positive
    val: Rate
    test: Rate

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Mix:
        if self.val + self.test > 0.5:
            raise ValueError(
                f"val and test hold out {self.val + self.test:.0%} of the documents; at most 50% is sensible"
            )
        return self


class Tokenizer(Section):
    vocab_size: Annotated[int, Field(ge=512, le=1_000_000)]


class Encode(Section):
    shard_tokens: Annotated[int, Field(ge=1024)]


class Model(Section):
    size: Name
    context_length: Annotated[int, Field(ge=16)]
    rope_theta: Annotated[float, Field(gt=0)]
    qk_norm: bool
    tie_embeddings: bool
    norm_eps: Annotated[float, Field(gt=0, lt=0.1)]
    layers: Positive | None
    width: Positive | None
    heads: Positive | None
    kv_heads: Positive | None
    feed_forward: Positive | None


class Optimization(Section):
    micro_batch: Positive
    optimizer: Literal["muon", "adamw"]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    betas: tuple[Rate, Rate]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    clip_norm: Annotated[float, Field(gt=0)]
    warmup_steps: NotNegative
    decay_fraction: Share
    checkpoint_every: Positive
    log_every: Positive
    validate_every: Positive
    validate_rows: Positive


class Pretrain(Optimization):
    embedding_learning_rate: Annotated[float, Field(gt=0, le=1)]
    head_learning_rate: Annotated[float, Field(gt=0, le=1)]
    tokens: Positive
    batch_tokens: Positive


class Finetune(Optimization):
    rank: Positive
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    epochs: Positive
    batch_rows: Positive


class Chat(Section):
    manual: NotNegative | None
    encyclopedia: NotNegative | None
    yes_no: NotNegative | None


class Evaluate(Section):
    held_out_bytes: Annotated[int, Field(ge=1000)]
    commands: Positive
    max_new_tokens: Positive
    task_limit: Positive
    samples: NotNegative


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


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    assets: dict[Name, Package]
    licences: Licences
    clean: dict[Name, CleanRules]
    dedup: Dedup
    mix: Mix
    tokenizer: Tokenizer
    encode: Encode
    model: Model
    pretrain: Pretrain
    chat: Chat
    finetune: Finetune
    evaluate: Evaluate
    export: Export
    index: Index

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        problems = [
            f"sources.{name}.rules: clean has no rules {source.rules!r} (there are: {', '.join(self.clean)})"
            for name, source in self.sources.items()
            if source.rules not in self.clean
        ]
        problems += [
            f"index.sources: no such source: {name!r} (there are: {', '.join(self.sources)})"
            for name in self.index.sources
            if name not in self.sources
        ]
        if self.index.overlap_tokens >= self.index.chunk_tokens:
            problems.append("index.overlap_tokens must be smaller than index.chunk_tokens")
        if not any(source.weight > 0 for source in self.sources.values()):
            problems.append("sources: every weight is 0, so the mixture would be empty")
        if problems:
            raise ValueError("\n".join(problems))
        return self


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2, as DVC does (PyYAML would read `1e-3` as text).

    Raises:
        ParamsError: the file is missing or is not YAML.
    """
    try:
        return YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing") from None
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None


def _message(error: Any) -> str:
    place = list(error["loc"])
    if place[:1] == ["sources"] and len(place) > 2:
        # pydantic names the branch of the union that it took: the kind of the source, and the format of a package.
        del place[2 : 4 if place[2] == "package" else 3]
    where = ".".join(map(str, place))
    what = {"extra_forbidden": "unknown parameter", "missing": "is missing"}.get(error["type"], error["msg"])
    what = what.removeprefix("Value error, ")
    if not where:
        return what
    given = "" if error["type"] in ("missing", "extra_forbidden", "value_error") else f" (is {error['input']!r})"
    return f"{where}: {what}{given}"


def load(path: Path) -> Params:
    """Read and check the whole of params.yaml.

    Raises:
        ParamsError: with every problem of the file, one a line.
    """
    try:
        return Params.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = "\n".join(_message(item) for item in error.errors()).splitlines()
        count = f"{len(lines)} error{'s' if len(lines) > 1 else ''}"
        raise ParamsError(f"{path.name} has {count}:\n" + "\n".join(f"  {line}" for line in lines)) from None
