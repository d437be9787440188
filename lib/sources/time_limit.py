"""A function that may take for ever, or bring its process down, run where that does no harm."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")


class Crashed(Exception):
    """The process of the function ended, or the function raised an error."""


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    pipe.send(None)  # ready: what it took to get here is no part of a call
    while True:
        try:
            argument = pipe.recv()
        except EOFError:
            return
        try:
            answer = (True, function(argument))
        except Exception as error:
            answer = (False, repr(error))
        pipe.send(answer)


class TimeLimit(Generic[A, R]):
    """Calls `function` in a process of its own, which is killed when a call takes longer than `seconds`.

    A limit inside the process would not do: a signal waits until C code (lxml) returns.
    """

    def __init__(self, function: Callable[[A], R], seconds: float) -> None:
        self._function, self._seconds = function, seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def _start(self) -> Connection:
        # Not a fork of this process, which has threads (of Arrow, of asyncio) whose locks a fork would copy in any
        # state, but of a server that has done the slow import once: a process takes 0.15 s in place of 0.35 s.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["trafilatura"])
        pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._function, theirs), daemon=True)
        process.start()
        theirs.close()
        self._pipe, self._process = pipe, process
        pipe.recv()
        return pipe

    def __call__(self, argument: A) -> R:
        """The function's result.

        Raises:
            TimeoutError: it took longer than the limit.
            Crashed: it raised an error, or ended its process.
        """
        try:
            pipe = self._start() if self._pipe is None else self._pipe
            pipe.send(argument)
            if not pipe.poll(self._seconds):
                raise TimeoutError
            right, value = pipe.recv()
        except (EOFError, ConnectionError):
            self.close()
            raise Crashed("its process ended") from None
        except BaseException:
            self.close()
            raise
        if not right:
            raise Crashed(value)
        return value

    def close(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None

    def __enter__(self) -> TimeLimit[A, R]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
