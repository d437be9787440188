"""The OpenAI API as far as it is spoken here: what a request may say. What answers look like is in formats.py.

Reference: https://platform.openai.com/docs/api-reference, and what the openai package sends and reads. A setting that
is not followed here is refused and not ignored; what cannot change an answer (`user`, `metadata`) is let through.
`top_k`, `min_p`, `repeat_penalty` and `sources` are additions; other local servers call the first three so, too.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from lib.serve.model import Sampling


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character") from None
    return text


Text = Annotated[str, AfterValidator(_whole)]
Empty = Annotated[list[Any], Field(max_length=0)] | None
Stop = Annotated[Text, Field(min_length=1, max_length=200)]


class Refused(Exception):
    """A request that gets no answer: the HTTP status, and OpenAI's type, code and parameter."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.retry = status, retry
        kinds = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
        kind = kinds.get(status, "invalid_request_error")
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    user: str | None = None
    metadata: dict[str, Any] | None = None


class _Generation(_Request):
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    seed: int | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def counts_tokens(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self, temperature: float) -> Sampling:
        """What was asked for, with this temperature where none was; without a seed, a seed of chance."""
        asked = {name: value for name in Sampling._fields if (value := getattr(self, name)) is not None}
        asked["seed"] = (secrets.randbits(32) if self.seed is None else self.seed) % (2**32 - 1)
        return Sampling(**{"temperature": temperature, **asked})


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # padding against eavesdroppers; there are none on this machine


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    """Beside role and content, what clients send back of an answer of ours."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart] | None
    name: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Empty = None

    def plain(self) -> dict[str, str]:
        """Role and content as templates know them."""
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class _JsonSchema(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: str
    description: str | None = None
    form: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None
    form: Annotated[dict[str, Any] | None, Field(alias="schema")] = None  # of json_object, as llama.cpp has it

    def schema_of_answer(self) -> dict[str, Any] | None:
        """Raises:
        Refused: there should be a schema.
        """
        if self.type == "json_schema":
            if self.json_schema is None:
                raise Refused(400, "response_format of type json_schema needs `json_schema`", param="response_format")
            return self.json_schema.form
        return (self.form or {"type": "object"}) if self.type == "json_object" else None


class ChatRequest(_Generation):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    sources: list[str] | None = None  # of the documents' model: only passages from these
    tools: Empty = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    functions: Empty = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def likeliest(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(_Generation):
    prompt: Text | list[Annotated[int, Field(ge=0)]] | Annotated[list[Text], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    best_of: Literal[1] | None = None


class EmbeddingRequest(_Request):
    input: (
        Annotated[Text, Field(min_length=1)]
        | Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1, max_length=2048)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        numbers = value[0] if isinstance(value, list) and value and isinstance(value[0], list) else value
        if isinstance(numbers, list) and numbers and isinstance(numbers[0], int):
            raise ValueError(
                "these are token ids of another tokenizer; send text (LangChain: check_embedding_ctx_length=False)"
            )
        return value
