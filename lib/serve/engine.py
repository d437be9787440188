"""One thread that runs the model, and the queue before it.

llama.cpp answers one request at a time with all cores; the others wait in the order in which they came. Who finds the
queue full is told so at once. An answer that nobody waits for any more is dropped: before it has begun, between two
blocks of its prompt, or between two tokens.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from llama_cpp import LlamaGrammar

from lib.serve.model import Sampling, ServedModel, Stopped
from lib.serve.writing import Done, Piece, write

_HAND_ON_SECONDS = 0.01  # a small model writes a token in less time than it takes to send one


class Busy(Exception):
    """The queue is full."""


class Failed(Exception):
    """There will be no more of an answer; the message says why."""


@dataclass(eq=False)
class Job:
    """One answer to write."""

    ids: Sequence[int]
    max_tokens: int
    sampling: Sampling
    stops: Sequence[str] = ()
    grammar: LlamaGrammar | None = None
    likeliest: int | None = None  # probabilities: see ServedModel.tokens
    stopped: threading.Event = field(default_factory=threading.Event)
    written: asyncio.Queue[list[Piece | Done] | Failed] = field(default_factory=asyncio.Queue)


class Engine:
    """Runs jobs one by one. All methods are for the event loop's thread.

    Args:
        waiting: requests that may wait beside the one that is answered.
    """

    def __init__(self, model: ServedModel, waiting: int) -> None:
        self.model, self._most = model, 1 + waiting
        self.admitted = 0
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._running: Job | None = None
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """Drop what waits, stop what is written, and wait for the thread."""
        with self._changed:
            self._closing = True
            if self._running is not None:
                self._running.stopped.set()
            self._changed.notify()
        self._thread.join()

    def give_up(self) -> None:
        """End every answer now, and tell who waits for one."""
        with self._changed:
            jobs = [*self._jobs, *([self._running] if self._running else [])]
            self._jobs.clear()
        for job in jobs:
            job.stopped.set()
            job.written.put_nowait(Failed("the server ends"))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place in the queue, for as long as the request is worked on.

        Raises:
            Busy: there is none.
        """
        if self.admitted >= self._most:
            raise Busy
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    async def answer(self, job: Job) -> AsyncIterator[list[Piece | Done]]:
        """What has been written since the last time, until it is Done. Closing the iterator stops the job.

        Raises:
            Failed: the model did.
        """
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        try:
            while True:
                batch = await job.written.get()
                if isinstance(batch, Failed):
                    raise batch
                yield batch
                if isinstance(batch[-1], Done):
                    return
        finally:
            job.stopped.set()
            with self._changed:
                if job in self._jobs:
                    self._jobs.remove(job)

    # -- in the thread

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                tokens = self.model.tokens(
                    job.ids, job.max_tokens, job.sampling, job.grammar, job.likeliest, job.stopped.is_set
                )
                self._hand_on(job, write(tokens, job.stops, job.max_tokens))
            except Stopped:
                pass
            except Exception:
                traceback.print_exc()
                self._give(job, Failed("the model failed; the server's log says how"))

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing)
            self._running = None if self._closing else self._jobs.popleft()
            return self._running

    def _hand_on(self, job: Job, written: Iterator[Piece | Done]) -> None:
        """Each piece as it comes, or what there is every _HAND_ON_SECONDS where they come faster than that."""
        batch: list[Piece | Done] = []
        last = 0.0
        for entry in written:
            batch.append(entry)
            if isinstance(entry, Done) or time.monotonic() - last > _HAND_ON_SECONDS:
                self._give(job, batch)
                batch, last = [], time.monotonic()

    def _give(self, job: Job, written: list[Piece | Done] | Failed) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(job.written.put_nowait, written)
