"""What answers look like in the OpenAI API, whole and in chunks.

Reference: https://platform.openai.com/docs/api-reference. An answer from the documents has two things more: `passages`,
what was retrieved, with the first chunk or beside the choices; and OpenAI's own `annotations`, what is cited.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from lib.serve.model import Token
from lib.serve.writing import Piece


class Format(Protocol):
    """Of one answer."""

    def opening(self) -> dict[str, Any] | None:
        """The chunk before any text, where there is one."""

    def chunk(self, piece: Piece) -> dict[str, Any]: ...

    def closing(self, finish: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        """The chunk that says how it ended."""

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The chunk after the last, for who asked for it."""

    def whole(
        self, pieces: Sequence[Piece], finish: str, annotations: list[dict[str, Any]], usage: dict[str, int]
    ) -> dict[str, Any]: ...


class Chat:
    """Of /v1/chat/completions.

    Args:
        passages: what was retrieved; None where the documents were not asked.
        with_logprobs: whether probabilities were asked for.
    """

    def __init__(self, model: str, passages: list[dict[str, Any]] | None, with_logprobs: bool) -> None:
        self._model, self._passages, self._with_logprobs = model, passages, with_logprobs
        self._id, self._created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    def opening(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""}) | self._retrieved()

    def chunk(self, piece: Piece) -> dict[str, Any]:
        return self._chunk({"content": piece.text}, self._logprobs(piece.tokens))

    def closing(self, finish: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        return self._chunk({} if self._passages is None else {"annotations": annotations}, finish=finish)

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        return self._common("chat.completion.chunk") | {"choices": [], "usage": usage}

    def whole(
        self, pieces: Sequence[Piece], finish: str, annotations: list[dict[str, Any]], usage: dict[str, int]
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(piece.text for piece in pieces)}
        message |= {"refusal": None, "annotations": annotations}
        tokens = [token for piece in pieces for token in piece.tokens]
        choice = {"index": 0, "message": message, "logprobs": self._logprobs(tokens), "finish_reason": finish}
        return self._common("chat.completion") | {"choices": [choice], "usage": usage} | self._retrieved()

    def _common(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._common("chat.completion.chunk") | {"choices": [choice]}

    def _retrieved(self) -> dict[str, Any]:
        return {} if self._passages is None else {"passages": self._passages}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None

        def entry(text: bytes, logprob: float | None) -> dict[str, Any]:
            return {"token": text.decode(errors="replace"), "bytes": list(text), "logprob": logprob}

        content = [
            entry(token.text, token.logprob) | {"top_logprobs": [entry(*other) for other in token.likeliest]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class Completion:
    """Of /v1/completions.

    Args:
        with_logprobs: whether probabilities were asked for.
    """

    def __init__(self, model: str, with_logprobs: bool) -> None:
        self._with_logprobs, self._given = with_logprobs, 0
        self._common = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def opening(self) -> None:
        return None

    def chunk(self, piece: Piece) -> dict[str, Any]:
        return self._choice(piece.text, piece.tokens)

    def closing(self, finish: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        return self._choice("", [], finish)

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        return self._common | {"choices": [], "usage": usage}

    def whole(
        self, pieces: Sequence[Piece], finish: str, annotations: list[dict[str, Any]], usage: dict[str, int]
    ) -> dict[str, Any]:
        tokens = [token for piece in pieces for token in piece.tokens]
        return self._choice("".join(piece.text for piece in pieces), tokens, finish) | {"usage": usage}

    def _choice(self, text: str, tokens: Sequence[Token], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": self._logprobs(tokens), "finish_reason": finish}
        return self._common | {"choices": [choice]}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        texts = [token.text.decode(errors="replace") for token in tokens]
        offsets = []
        for text in texts:
            offsets.append(self._given)
            self._given += len(text)
        top = [{text.decode(errors="replace"): logprob for text, logprob in token.likeliest} for token in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": top,
            "text_offset": offsets,
        }


def usage(prompt: int, answer: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def embeddings(vectors: np.ndarray, model: str, as_base64: bool, tokens: int) -> dict[str, Any]:
    """Args:
    vectors: float32 [texts, dimension].
    """
    data = [
        {
            "object": "embedding",
            "index": place,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist(),
        }
        for place, vector in enumerate(vectors)
    ]
    used = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": used}
