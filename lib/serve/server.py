"""Serve the exported model and your documents on this machine: `make serve`.

  http://127.0.0.1:8000          a page to chat with
  http://127.0.0.1:8000/v1       the OpenAI API, for any client; also /health and /metrics

Two models: <name>, and <name>-docs, which looks into the indexed documents and cites them. SMELT_API_KEYS=key,key lets
in only who sends one of these keys. SIGTERM and Ctrl-C end the server when the answers that are being written are done.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import re
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from lib.pipeline import quiet  # noqa: F401
from lib.pipeline.errors import SmeltError
from lib.rag.search import Retriever
from lib.serve.api import Settings, create_app
from lib.serve.documents import Documents
from lib.serve.engine import Engine
from lib.serve.model import ServedModel
from lib.serve.terminal import INDEX, MODELS, default_model, note

_CLOSING_SECONDS = 10  # for clients to take the end of their answers
_QUANTISATION = re.compile(r"-(?:BF16|F16|F32|I?Q\d\w*)$")


class Server(uvicorn.Server):
    """Ends when the answers that are being written are done, and ends these when that takes too long."""

    def __init__(self, config: uvicorn.Config, engine: Engine, drain_seconds: float) -> None:
        super().__init__(config)
        self._engine, self._drain_seconds = engine, drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        hurry = asyncio.get_running_loop().call_later(self._drain_seconds, self._engine.give_up)
        await super().shutdown(sockets)
        hurry.cancel()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        SmeltError: the port is in use, or the address is not of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Not reuse_port: two servers would share the requests.
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SmeltError(
            f"cannot listen on {host}:{port}: {reason}. Another server may be running there; choose another port: "
            f"make serve ARGS='--port {port + 1}'"
        ) from None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_documents(folder: Path, sources: list[str] | None) -> Documents | None:
    """The index; where there is none, the plain model is served without it.

    Raises:
        SmeltError: there is one, and it cannot be used.
    """
    if not folder.exists():
        note(f"no index in {folder}, so only the plain model is served: `make repro` or `make pull` makes one")
        return None
    return Documents(Retriever.open(folder), sources)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lib.serve.server", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; beyond this machine only with SMELT_API_KEYS")
    add("--port", type=int, default=8000, help="default %(default)s; 0 takes a free one")
    add("--model", type=Path, help=f"a GGUF file; default: the Q8_0 or F16 in {MODELS}")
    add("--name", help="what clients call the model; default: the file's, without its quantisation")
    add("--index", type=Path, default=INDEX, help="default %(default)s")
    add("--sources", nargs="+", help="give out nothing but documents of these sources")
    add("--context", type=int, default=4096, help="tokens; default %(default)s, or the model's own")
    add("--max-tokens", type=int, default=1024, help="of any answer; default %(default)s")
    add("--temperature", type=float, default=0.0, help="where a request says none; default %(default)s")
    add("--queue", type=int, default=64, help="requests that may wait; more get a 429. Default %(default)s")
    add("--requests-per-minute", type=int, help="of each key; default: no limit")
    add("--tokens-per-minute", type=int, help="of each key, read and written; default: no limit")
    add("--allow-host", nargs="+", default=[], help="further names by which clients may call this server")
    add("--drain-seconds", type=int, default=30, help="for answers to end in, after SIGTERM; default %(default)s")
    return parser


def main() -> None:
    options = arguments().parse_args()
    keys = [key.strip() for key in os.environ.pop("SMELT_API_KEYS", "").split(",") if key.strip()]
    # uvicorn hands a signal on when it has drained; these end the process without a traceback.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        if not keys and not is_loopback(options.host):
            raise SmeltError(f"--host {options.host} lets other machines in: set SMELT_API_KEYS first")
        listening = listen(options.host, options.port)
        path = options.model or default_model(MODELS)
        model = ServedModel(path, options.context, seed=0)
        documents = open_documents(options.index, options.sources)
    except SmeltError as error:
        sys.exit(f"serve: error: {error}")
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    settings = Settings(
        name=options.name or _QUANTISATION.sub("", path.stem),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        waiting=options.queue,
        # A page of somebody else's, whose name resolves to this machine, must not read from here.
        hosts=["localhost", "127.0.0.1", "[::1]", shown, *options.allow_host] if is_loopback(options.host) else ["*"],
        keys=keys,
        requests_per_minute=options.requests_per_minute,
        tokens_per_minute=options.tokens_per_minute,
    )
    note(f"{path.name}, {model.context:,} tokens of context: http://{shown}:{port} and http://{shown}:{port}/v1")
    app = create_app(settings, model, documents)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=options.drain_seconds + _CLOSING_SECONDS,
    )  # fmt: skip
    Server(config, app.state.engine, options.drain_seconds).run(sockets=[listening])


if __name__ == "__main__":
    main()
