"""A GGUF file in this process, through llama.cpp. One request at a time: each has all cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lib.completion import chat_model
from lib.completion.chat_model import ChatModel
from lib.completion.types import Completion, Rejected, Request
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file


def find(path: Path) -> Path:
    """The GGUF file that `path` is, or the only one in the folder that it is.

    Raises:
        SmeltError: there is none, or there are several.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.gguf"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise SmeltError(f"{path} must hold one .gguf file (there is: {names}); name the file itself")
    return found[0]


class Local:
    """The model is loaded with its first request: answers that are cached need none."""

    window = 1

    def __init__(self, path: Path, context: int) -> None:
        self._path, self._context = find(path), context
        if not self._path.is_file():
            raise SmeltError(f"there is no model {self._path}")
        self._loaded: ChatModel | None = None
        # How a prompt is rendered and an answer read; not part of the model's name, but of what decides an answer.
        self._code = hash_file(Path(chat_model.__file__))
        self.identity = f"gguf sha256:{hash_file(self._path)}, llama-cpp-python {version('llama-cpp-python')}"

    @property
    def _model(self) -> ChatModel:
        if self._loaded is None:
            self._loaded = ChatModel(self._path, self._context, seed=0)
        return self._loaded

    def key(self, request: Request) -> Any:
        return [self.identity, self._code, request]

    def most_tokens(self, request: Request) -> int:
        return len(self._model.encode(request.messages))

    def start(self, request: Request, keep: Callable[[Completion], None]) -> Future[Completion | Rejected]:
        done: Future[Completion | Rejected] = Future()
        answer = self._complete(request)
        if isinstance(answer, Completion):
            keep(answer)
        done.set_result(answer)
        return done

    def _complete(self, request: Request) -> Completion | Rejected:
        ids = self._model.encode(request.messages)
        if len(ids) + request.max_tokens > self._model.context:
            return Rejected(
                "too_long", f"{len(ids)} + {request.max_tokens} tokens, and the context has {self._model.context}"
            )
        if request.choice is not None:
            known = self._model.log_probabilities(ids, request.choice.beginning, request.choice.options)
            return Completion(max(request.choice.options, key=known.__getitem__), "stop", len(ids), 1, known)
        text, tokens, ended = self._model.complete(
            ids, request.max_tokens, request.temperature, request.seed, request.schema
        )
        return Completion(text, "stop" if ended else "length", len(ids), tokens)

    def close(self) -> None:
        self._loaded = None
