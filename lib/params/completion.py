"""A chat model that writes or judges text: a GGUF file in this process, or an endpoint that speaks the OpenAI API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from lib.params.values import NotNegative, Positive, Section

Amount = Annotated[float, Field(ge=0)]


def _inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"must be a path inside the repository, not {path!r}")
    return path


def _base_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is not the address of an API, such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the address must hold no user or password; a key comes from the environment, see `key`")
    return url.rstrip("/")


BaseAddress = Annotated[str, AfterValidator(_base_address)]


class Budget(Section):
    """Of all requests of a run together; null is no limit. Answers from the cache count as what they cost when made."""

    requests: Positive | None
    tokens: Positive | None  # of prompts and answers
    money: Amount | None  # in the currency of the prices
    price_in: Amount  # of a million tokens of prompt
    price_out: Amount  # of a million tokens of answer

    @model_validator(mode="after")
    def _has_prices(self) -> Budget:
        if self.money is not None and not self.price_in + self.price_out:
            raise ValueError("money is limited and both prices are 0: give price_in and price_out")
        return self


class LocalModel(Section):
    path: Annotated[str, AfterValidator(_inside)]  # a .gguf file, or a folder with just one
    context: Annotated[int, Field(ge=128)]  # tokens of prompt and answer


class RemoteModel(Section):
    url: BaseAddress | None
    model: Annotated[str, Field(min_length=1)] | None
    key: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None  # the environment variable that holds the key
    structured: Literal["json_schema", "json_object", "none"]  # how the server is told the schema
    timeout_seconds: Annotated[float, Field(gt=0)]  # of one try, to the answer's last byte
    retries: NotNegative
    retry_seconds: Annotated[float, Field(gt=0)]  # before the first retry; doubled each time
    max_wait_seconds: Annotated[float, Field(gt=0)]  # longest wait before a retry, Retry-After included


class ChatEndpoint(Section):
    """`kind` says which of the two is asked. Both are there, so that dvc.yaml can name the file as a dependency."""

    kind: Literal["gguf", "openai"]
    gguf: LocalModel
    openai: RemoteModel
    attempts: Positive  # seeds tried, one after the other, until an answer is in form; only with a temperature above 0
    budget: Budget

    @model_validator(mode="after")
    def _is_named(self) -> ChatEndpoint:
        if self.kind == "openai" and None in (self.openai.url, self.openai.model):
            raise ValueError("kind is openai: give openai.url and openai.model")
        return self
