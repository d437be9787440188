"""The server's routes: the OpenAI API, the page, health and metrics.

`<name>` answers by itself; `<name>-docs` looks into the documents first and cites them. So any OpenAI client gets
retrieval by choosing a model.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from lib.serve import formats, metrics
from lib.serve.answering import RETRY_SECONDS, Answering, Gone
from lib.serve.documents import Documents, Unsearchable
from lib.serve.engine import Engine
from lib.serve.guard import Caller, Guard, response
from lib.serve.model import ServedModel
from lib.serve.protocol import ChatRequest, CompletionRequest, EmbeddingRequest, Refused

PAGE = Path(__file__).parent / "page"
_CLOSED = 499  # nginx's: the client has left, and nobody reads this


@dataclass(frozen=True)
class Settings:
    """What whoever starts the server decides."""

    name: str  # of the model
    max_tokens: int  # of an answer
    temperature: float  # where a request says none
    waiting: int  # requests that may wait
    hosts: Sequence[str]  # names under which browsers may ask for this server
    keys: Sequence[str] = ()  # empty: everybody may ask
    requests_per_minute: int | None = None  # of each key
    tokens_per_minute: int | None = None  # of each key, prompts and answers together
    most_bytes: int = 2**20  # of a request's body


def create_app(settings: Settings, model: ServedModel, documents: Documents | None) -> FastAPI:
    """The application, for any ASGI server; it ends the model's thread when it is shut down.

    Args:
        documents: None serves the plain model alone.
    """
    engine = Engine(model, settings.waiting)
    counted = metrics.Metrics(lambda: engine.admitted)
    answering = Answering(engine, documents, counted, settings.max_tokens, settings.temperature)
    with_documents = f"{settings.name}-docs"
    models = [settings.name] + ([with_documents] if documents else [])

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await to_thread.run_sync(engine.close)
        if documents:
            documents.close()

    # Its own pages of documentation take their scripts from elsewhere.
    app = FastAPI(title="Smelt", lifespan=running, docs_url=None, redoc_url=None, max_body_size=settings.most_bytes)
    app.state.engine = engine
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts), www_redirect=False)
    app.add_middleware(
        Guard,
        keys=settings.keys,
        caller=partial(Caller, settings.requests_per_minute, settings.tokens_per_minute),
        answered=lambda route, status: counted.responses.labels(route, status).inc(),
    )
    _add_errors(app)

    def known(name: str) -> None:
        if name not in models:
            there = " and ".join(models)
            why = ": there is no index (run `make repro`, or `make pull`)" if name == with_documents else ""
            raise Refused(404, f"there is no model {name!r}{why}; there is {there}", "model_not_found", "model")

    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 0, "owned_by": "smelt", "max_model_len": model.context}

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [described(name) for name in models]}

    @app.get("/v1/models/{name}")
    async def show_model(name: str) -> dict[str, Any]:
        known(name)
        return described(name)

    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        known(body.model)
        return await answering.respond(request, body, body.model == with_documents)

    @app.post("/v1/completions")
    async def complete(request: Request, body: CompletionRequest) -> Response:
        known(body.model)
        return await answering.respond(request, body, body.model == with_documents)

    @app.post("/v1/embeddings")
    async def embed(request: Request, body: EmbeddingRequest) -> Response:
        known(body.model)
        request.state.caller.enter()
        work = to_thread.run_sync(partial(_embed, documents, body), limiter=answering.few)
        return JSONResponse(await answering.unless_gone(request, work))

    @app.get("/v1/documents/{id:path}")
    async def document(id: str) -> dict[str, Any]:
        passages = await to_thread.run_sync(documents.document, id, limiter=answering.few) if documents else []
        if not passages:
            raise Refused(404, "there is no such document", "document_not_found")
        return {"id": id, "source": passages[0].source, "passages": [asdict(passage) for passage in passages]}

    @app.get("/health")
    async def health() -> Response:
        alive = engine.alive
        return JSONResponse({"status": "ok" if alive else "the model's thread has ended"}, 200 if alive else 503)

    @app.get("/metrics")
    async def read_metrics() -> Response:
        return Response(counted.text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/")
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE))
    return app


def _embed(documents: Documents | None, body: EmbeddingRequest) -> dict[str, Any]:
    if documents is None:
        raise Refused(404, "there is no index, and so no embedder: run `make repro`, or `make pull`", "model_not_found")
    embedder = documents.embedder
    texts = [body.input] if isinstance(body.input, str) else body.input
    if body.dimensions not in (None, embedder.dimension):
        raise Refused(400, f"vectors here have {embedder.dimension} dimensions", param="dimensions")
    lengths = [len(encoding.ids) for encoding in embedder.tokenizer.encode_batch(texts)]
    if max(lengths) > embedder.max_tokens:
        raise Refused(
            400, f"a text has {max(lengths):,} tokens, and the embedder reads {embedder.max_tokens:,}", param="input"
        )
    return formats.embeddings(documents.embed(texts), body.model, body.encoding_format == "base64", sum(lengths))


def _add_errors(app: FastAPI) -> None:
    """All errors in OpenAI's form."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return response(error)

    @app.exception_handler(Unsearchable)
    async def unsearchable(request: Request, error: Unsearchable) -> Response:
        print(f"serve: error: {error}", file=sys.stderr, flush=True)
        message = "the documents cannot be searched now; the server's log says why"
        return response(Refused(503, message, retry=RETRY_SECONDS))

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, error: HTTPException) -> Response:
        return response(Refused(error.status_code, str(error.detail)))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{place}: {first['msg']}" if place else first["msg"]
        if first["type"] == "extra_forbidden":
            message = f"{place} is not supported here"
        return response(Refused(400, message, param=place or None))

    @app.exception_handler(Gone)
    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=_CLOSED)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return response(Refused(500, "the server failed; its log says how"))
