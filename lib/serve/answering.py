"""From a request to its answer: what the model is asked, the place in the queue, the answer whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack, aclosing
from typing import Any, NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from lib.pipeline.errors import SmeltError
from lib.rag.answer import NOT_FOUND, OnlyRetrieved, citations
from lib.rag.passage import Hit
from lib.serve.documents import Documents, annotations, shown
from lib.serve.engine import Busy, Engine, Failed, Job
from lib.serve.formats import Chat, Completion, Format, usage
from lib.serve.guard import Caller
from lib.serve.metrics import Metrics
from lib.serve.protocol import ChatRequest, CompletionRequest, Refused
from lib.serve.writing import Done, Piece

Result = TypeVar("Result")
RETRY_SECONDS = 2.0  # when the queue is full, or the index cannot be searched
_RETRIEVALS = 2  # at the same time; each takes a core from the model


class Gone(Exception):
    """The client has left."""


class Prepared(NamedTuple):
    """What is to be written, and how."""

    job: Job | None  # None: nothing is close enough to be asked about
    format: Format
    hits: list[Hit] | None  # None: the documents are not asked


class Answering:
    """Answers requests to one model.

    Args:
        documents: None where there is no index.
        max_tokens: of an answer, whatever is asked for; what the context leaves is less at times.
        temperature: where a request says none.

    Attributes:
        few: limits how many requests are prepared at the same time.
        metrics: what is counted and timed.
    """

    def __init__(
        self, engine: Engine, documents: Documents | None, metrics: Metrics, max_tokens: int, temperature: float
    ) -> None:
        self._engine, self._documents, self.metrics = engine, documents, metrics
        self._max_tokens, self._temperature = max_tokens, temperature
        self.few = CapacityLimiter(_RETRIEVALS)

    async def respond(self, request: Request, body: ChatRequest | CompletionRequest, from_documents: bool) -> Response:
        """Raises:
        Refused: the request gets no answer.
        """
        began = time.perf_counter()
        caller: Caller = request.state.caller
        caller.enter()
        with ExitStack() as place:
            try:
                place.enter_context(self._engine.admit())
            except Busy:
                self.metrics.busy.inc()
                raise Refused(429, "the queue is full: try again", "queue_full", retry=RETRY_SECONDS) from None
            prepare = self._prepare_chat if isinstance(body, ChatRequest) else self._prepare_completion
            prepared = await self.unless_gone(
                request, to_thread.run_sync(prepare, body, from_documents, limiter=self.few)
            )
            self.metrics.prepared.labels(body.model).observe(time.perf_counter() - began)
            caller.used(len(prepared.job.ids) if prepared.job else 0)
            answer = _Answer(self, prepared, body, caller, str(request.base_url), began)
            if body.stream:
                return _EventStream(answer.events(), place.pop_all())
            return JSONResponse(await self.unless_gone(request, answer.whole()))

    async def unless_gone(self, request: Request, work: Awaitable[Result]) -> Result:
        """The result of `work`, which is cancelled when the client leaves.

        Raises:
            Gone: it did.
        """

        async def leaving() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        tasks = [asyncio.ensure_future(work), asyncio.ensure_future(leaving())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                return tasks[0].result()  # type: ignore[return-value]
            self.metrics.left.inc()
            raise Gone
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def written(self, prepared: Prepared) -> AsyncIterator[Piece | Done]:
        """Pieces of the answer, and how it ended; of the documents' without citations of what was not retrieved."""
        if prepared.job is None:
            yield Piece(NOT_FOUND, [], 0)
            yield Done("stop", 0)
            return
        citing = None if prepared.hits is None else OnlyRetrieved(len(prepared.hits))
        async with aclosing(self._engine.answer(prepared.job)) as batches:
            async for batch in batches:
                pieces = [entry for entry in batch if isinstance(entry, Piece)]
                done = [entry for entry in batch if isinstance(entry, Done)]
                text = "".join(piece.text for piece in pieces)
                if citing is not None:
                    text = citing.feed(text) + (citing.rest() if done else "")
                tokens = [token for piece in pieces for token in piece.tokens]
                if pieces or text:
                    yield Piece(text, tokens, sum(piece.count for piece in pieces))
                for entry in done:
                    yield entry

    # -- in a thread: what takes milliseconds

    def _prepare_chat(self, body: ChatRequest, from_documents: bool) -> Prepared:
        schema = body.response_format.schema_of_answer() if body.response_format else None
        if body.top_logprobs and not body.logprobs:
            raise Refused(400, "top_logprobs needs `logprobs`", param="top_logprobs")
        messages = [message.plain() for message in body.messages]
        asked = min(body.max_completion_tokens or body.max_tokens or self._max_tokens, self._max_tokens)
        model, hits = self._engine.model, None
        try:
            grammar = None if schema is None else model.grammar(schema)
            if from_documents:
                if body.logprobs or schema is not None:
                    raise SmeltError(
                        f"{body.model} writes text with citations: ask for logprobs and JSON without documents"
                    )
                room = model.context - min(asked, model.context // 3)
                assert self._documents is not None
                messages, hits = self._documents.ground(model, messages, room, body.sources)
                if not hits:
                    return Prepared(None, Chat(body.model, [], False), [])
            elif body.sources is not None:
                raise SmeltError(f"{body.model} asks no documents, so that `sources` would be ignored")
            ids = model.encode(messages)
        except SmeltError as error:
            too_long = "no room" in str(error)
            raise Refused(400, str(error), "context_length_exceeded" if too_long else None) from None
        written = Chat(body.model, None if hits is None else shown(hits), bool(body.logprobs))
        return Prepared(self._job(ids, asked, body, grammar, body.likeliest), written, hits)

    def _prepare_completion(self, body: CompletionRequest, from_documents: bool) -> Prepared:
        if from_documents:
            raise Refused(400, f"{body.model} answers questions: ask it through /v1/chat/completions", param="model")
        model, prompt = self._engine.model, body.prompt
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            (prompt,) = prompt
        ids = model.encode_text(prompt) if isinstance(prompt, str) else [int(token) for token in prompt]
        if not ids:
            raise Refused(400, "the prompt is empty", param="prompt")
        if max(ids) >= model.vocabulary:
            raise Refused(400, f"there are only {model.vocabulary:,} tokens", param="prompt")
        asked = min(body.max_tokens or 16, self._max_tokens)  # 16: OpenAI's default
        job = self._job(ids, asked, body, None, body.logprobs)
        return Prepared(job, Completion(body.model, body.logprobs is not None), None)

    def _job(self, ids: list[int], asked: int, body: Any, grammar: Any, likeliest: int | None) -> Job:
        context = self._engine.model.context
        if len(ids) >= context:
            raise Refused(
                400, f"the prompt has {len(ids):,} tokens, and the model's context {context:,}, answer included",
                "context_length_exceeded", "messages" if isinstance(body, ChatRequest) else "prompt",
            )  # fmt: skip
        most = min(asked, context - len(ids))
        return Job(ids, most, body.sampling(self._temperature), body.stops, grammar, likeliest)


class _Answer:
    """One answer on its way to one client."""

    def __init__(
        self, owner: Answering, prepared: Prepared, body: Any, caller: Caller, page: str, began: float
    ) -> None:
        self._owner, self._prepared, self._body, self._caller = owner, prepared, body, caller
        self._page, self._began = page, began
        self._text, self._count = "", 0

    async def whole(self) -> dict[str, Any]:
        """Raises:
        Refused: the model failed.
        """
        pieces, done = [], Done("stop", 0)
        try:
            async with aclosing(self._owner.written(self._prepared)) as written:
                async for entry in written:
                    if isinstance(entry, Done):
                        done = entry
                    else:
                        pieces.append(self._noted(entry))
        except Failed as error:
            raise Refused(500, str(error)) from None
        return self._prepared.format.whole(pieces, done.finish, self._annotations(), self._ended(done))

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events."""
        written, complete = self._prepared.format, False
        try:
            if (opening := written.opening()) is not None:
                yield _event(opening)
            async with aclosing(self._owner.written(self._prepared)) as entries:
                async for entry in entries:
                    if isinstance(entry, Piece):
                        yield _event(written.chunk(self._noted(entry)))
                        continue
                    counted = self._ended(entry)
                    yield _event(written.closing(entry.finish, self._annotations()))
                    if self._body.counts_tokens:
                        yield _event(written.usage_chunk(counted))
            complete = True
            yield b"data: [DONE]\n\n"
        except Failed as error:
            complete = True
            yield _event(Refused(500, str(error)).body)
        finally:
            if not complete:
                self._owner.metrics.left.inc()

    def _noted(self, piece: Piece) -> Piece:
        if not self._text and piece.text:
            self._owner.metrics.first.labels(self._body.model).observe(time.perf_counter() - self._began)
        self._text += piece.text
        self._counted(piece.count)
        return piece

    def _counted(self, tokens: int) -> None:
        self._count += tokens
        self._caller.used(tokens)
        self._owner.metrics.answer_tokens.labels(self._body.model).inc(tokens)

    def _annotations(self) -> list[dict[str, Any]]:
        hits = self._prepared.hits or []
        return annotations(list(citations(self._text, len(hits))), hits, self._page)

    def _ended(self, done: Done) -> dict[str, int]:
        prompt = len(self._prepared.job.ids) if self._prepared.job else 0
        self._counted(done.tokens - self._count)
        self._owner.metrics.prompt_tokens.labels(self._body.model).inc(prompt)
        self._owner.metrics.whole.labels(self._body.model).observe(time.perf_counter() - self._began)
        return usage(prompt, done.tokens)


class _EventStream(StreamingResponse):
    """A stream that keeps its place in the queue until it has ended or its client has left."""

    def __init__(self, events: AsyncIterator[bytes], place: ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._place, self._close = place, events.aclose  # type: ignore[attr-defined]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._close()


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
