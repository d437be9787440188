"""The typed form of params.yaml: one model per section, all errors shown at once.

There are no defaults: what is not in params.yaml is not tracked by DVC, so it may not change a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lib.params.clean import CleanRules
from lib.params.judging import Contamination, Judge
from lib.params.preferences import Prefer, Preferences
from lib.params.results import Evaluate, Export
from lib.params.retrieval import Index
from lib.params.sources import Asset, Licences, Source
from lib.params.synthesis import Synthesize
from lib.params.text import Chat, Dedup, Encode, Mix, Pii, Tokenizer
from lib.params.training import Decay, Finetune, Guards, Model, Pretrain
from lib.params.values import Name, Section


class ParamsError(ValueError):
    """params.yaml holds something unusable; the message lists every problem."""


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    assets: dict[Name, Asset]
    licences: Licences
    clean: dict[Name, CleanRules]
    pii: Pii
    dedup: Dedup
    mix: Mix
    tokenizer: Tokenizer
    encode: Encode
    model: Model
    guards: Guards
    pretrain: Pretrain
    decay: Decay
    synthesize: Synthesize
    chat: Chat
    finetune: Finetune
    preferences: Preferences
    prefer: Prefer
    evaluate: Evaluate
    contamination: Contamination
    judge: Judge
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
            f"{section}.sources: no such source: {name!r} (there are: {', '.join(self.sources)})"
            for section in ("index", "synthesize")
            for name in getattr(self, section).sources
            if name not in self.sources
        ]
        problems += [
            f"evaluate.forgetting.sources: no such source: {name!r} (there are: {', '.join(self.sources)})"
            for name in self.evaluate.forgetting.sources
            if name not in self.sources
        ]
        problems += [
            f"chat.own.sources: no such source: {name!r} (there are: {', '.join(self.sources)})"
            for name in self.chat.own.sources
            if name not in self.sources
        ]
        crawled = [source.input for source in self.sources.values() if source.kind == "web"]
        problems += [
            f"sources: {folder} is the input of several web sources; each needs a folder of its own"
            for folder in sorted(set(crawled))
            if crawled.count(folder) > 1
        ]
        problems += [
            f"dedup.decontaminate.sets: no such asset: {name!r} (there are: {', '.join(self.assets)})"
            for name in self.dedup.decontaminate.sets
            if name not in self.assets
        ]
        folder, _, name = self.finetune.base.rpartition("/")
        if folder == "data/assets" and name not in self.assets:
            problems.append(f"finetune.base: no such asset: {name!r} (there are: {', '.join(self.assets)})")
        for model in [self.index.embedder, *([self.index.rerank] if self.index.rerank else [])]:
            folder, _, name = model.folder.rpartition("/")
            if folder == "data/assets" and name not in self.assets:
                problems.append(f"index: no such asset: {name!r} (there are: {', '.join(self.assets)})")
        if all(source.weight == 0 for source in self.sources.values()):
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
    if place[:1] == ["assets"] and len(place) > 2:
        del place[2]  # as below
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
