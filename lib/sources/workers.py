"""Parsers run in processes of their own, each document within a limit of time and of memory.

A parser that hangs, eats the memory or crashes takes its process with it and nothing else. The limits are the kernel's,
so that they hold inside C code as well: a timer that ends the process, and a bound on its data (`RLIMIT_DATA`; Linux).
Time is processor time, so that a busy machine does not decide which documents are kept; a clock with ten times as much
ends a parser that waits for nothing. A document is rejected only after it failed in a fresh process that had done
nothing else before: what comes out depends neither on the number of processes nor on what one of them read earlier.

The messages of a worker are JSON and not pickles: it is the process that reads hostile files.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from lib.params.sources import Limits
from lib.pipeline.errors import SmeltError


class Begin(NamedTuple):
    """A part of a file (the file itself, a member of an archive) is going to be read."""

    part: int  # counted from 0
    at: str  # what its place adds to that of the file: "!member"


class Found(NamedTuple):
    """A document of the part that began last, or why there is none."""

    at: str
    text: str
    records: str = "[]"
    reason: str | None = None


class Resume(NamedTuple):
    """Where to go on in a file."""

    part: int = 0  # those before it are known already
    documents: int = 0  # and so many documents after the beginning of that one
    without: frozenset[int] = frozenset()  # parts that are left out with all that is in them


Event = Begin | Found
Parser = Callable[[Path, Resume], Iterator[Event]]  # must be importable, or a functools.partial of what is

_OUT_OF_MEMORY = 75  # exit code
_REASONS = {
    -signal.SIGPROF: "too_slow",
    -signal.SIGALRM: "too_slow",
    -signal.SIGKILL: "too_much_memory",  # when there is none left, the kernel ends the process that has the most
    _OUT_OF_MEMORY: "too_much_memory",
}
_PATIENCE = 10  # times the limit of processor time, by the clock
_BATCH_BYTES = 256 * 1024
_BATCH_SECONDS = 0.5
_READ_AHEAD = 8 * 2**20  # characters kept of each file whose turn has not come
_STARTING = 60  # seconds


# ----------------------------------------------------------------------------------------------------------------------
# In the worker


def _data_size() -> int:
    """Bytes of this process that RLIMIT_DATA counts; 0 where the kernel does not tell."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmData")), 0)


def _alarm(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * _PATIENCE)


def _serve(connection: Connection, parser: Parser, limits: Limits) -> None:
    """Read files as asked until the other side is gone."""
    for name in ("SIGALRM", "SIGPROF", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stage, which ends its workers
    with open(os.devnull, "w") as nowhere:  # parsers warn of what will be in the rejects
        os.dup2(nowhere.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if used := _data_size():
        resource.setrlimit(resource.RLIMIT_DATA, (used + limits.memory_mib * 2**20, resource.RLIM_INFINITY))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send_bytes(b"[]")
        while True:
            path, resume, alone = connection.recv()
            _answer(connection, _rest(parser(path, resume), resume), limits.seconds, alone)


def _rest(events: Iterator[Event], resume: Resume) -> Iterator[Event]:
    """The events that are not known yet."""
    part, known = -1, resume.documents
    for event in events:
        if isinstance(event, Begin):
            part = event.part
            if part >= resume.part:
                yield event
        elif part == resume.part and known:
            known -= 1
        elif part >= resume.part:
            yield event


def _answer(connection: Connection, events: Iterator[Event], seconds: float, at_once: bool) -> None:
    """Send the events in batches (one by one if `at_once`), then the end.

    Sending is not timed: the other side may be busy.
    """
    batch: list[list[Any]] = []
    size, since = 0, time.monotonic()

    def send() -> None:
        nonlocal size, since
        _alarm(0)
        connection.send_bytes(json.dumps(batch).encode())
        batch.clear()
        size, since = 0, time.monotonic()

    try:
        _alarm(seconds)
        for event in events:
            batch.append([type(event).__name__, *event])
            size += len(event.text) + len(event.records) if isinstance(event, Found) else 0
            if at_once or size > _BATCH_BYTES or time.monotonic() - since > _BATCH_SECONDS:
                send()
            _alarm(seconds)
        batch.append(["End"])
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
    except SmeltError as error:
        batch.append(["Mistake", str(error)])
    send()


# ----------------------------------------------------------------------------------------------------------------------
# In the stage


class _Worker:
    def __init__(self, context: Any, parser: Parser, limits: Limits) -> None:
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, parser, limits), daemon=True)
        self.process.start()
        other.close()
        try:
            ready = self.connection.poll(_STARTING) and self.connection.recv_bytes() == b"[]"
        except (EOFError, OSError):
            ready = False
        if not ready:
            raise SmeltError(
                f"a process that reads documents did not start (exit code {self.end()}); is there memory enough, and "
                f"is limits.memory_mib of the source large enough?"
            )

    def end(self, patience: float = 0) -> int:
        """Its exit code; it is killed if it does not end by itself."""
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode or 0


class _Lane:
    """One file: what is known of it, and the worker that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.worker: _Worker | None = None
        self.found: deque[Found] = deque()
        self.size = 0  # characters of `found`
        self.done = False
        self.mistake: str | None = None
        self.part, self.at, self.documents = -1, "", 0  # the part that began last, its place, its documents so far
        self.named = False  # one of them has the place of the part itself
        self.without: frozenset[int] = frozenset()
        self.alone = False  # read by a fresh worker
        self.begun = 0  # parts that the present worker began

    def ask(self, worker: _Worker, resume: Resume, alone: bool) -> None:
        self.worker, self.alone, self.begun = worker, alone, 0
        with contextlib.suppress(BrokenPipeError):  # it died meanwhile, which shows when it is listened to
            worker.connection.send((self.path, resume, alone))

    def take(self, message: bytes) -> None:
        for kind, *fields in json.loads(message):
            if kind == "Begin":
                part, at = fields
                self.begun += 1
                if part != self.part:
                    self.part, self.at, self.documents, self.named = part, at, 0, False
            elif kind == "Found":
                found = Found(*fields)
                self.documents += 1
                self.named = self.named or found.at == self.at
                self._keep(found)
            else:
                self.done = True
                self.mistake = fields[0] if kind == "Mistake" else None

    def _keep(self, found: Found) -> None:
        self.found.append(found)
        self.size += len(found.text) + len(found.records)

    def next(self) -> Found:
        found = self.found.popleft()
        self.size -= len(found.text) + len(found.records)
        return found

    def died(self, exit_code: int) -> Resume | None:
        """Where a fresh worker goes on, None if nowhere. What failed in a fresh one is rejected."""
        if not self.alone or self.begun > 1:
            return Resume(max(self.part, 0), self.documents, self.without)
        reason = _REASONS.get(exit_code, "parser_crashed")
        if not self.begun:  # on the way to the next part: what is left of the file cannot be told apart
            self.done = True
            if self.part < 0 or self.at:
                self._keep(Found("", "", reason=reason))
            return None
        if not self.named:
            self._keep(Found(self.at, "", reason=reason))
        self.without |= {self.part}
        return Resume(self.part + 1, 0, self.without)


def read(paths: Iterable[Path], parser: Parser, limits: Limits, workers: int) -> Iterator[tuple[Path, Found]]:
    """What `parser` finds in each file, in the order of `paths`, read by so many worker processes.

    Args:
        parser: called in a worker with a file and where to go on in it. It yields `Begin` before each part, `Found` for
            each document, the same ones each time, and may leave out what belongs to parts that are known already.

    Raises:
        SmeltError: the parser raised it, or no worker can be started.
    """
    # For the server of forks, which inherits it: Arrow's own allocator takes a GiB at once, which RLIMIT_DATA counts.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    context = multiprocessing.get_context("forkserver")  # a fork of this process would copy locks that its threads hold
    context.set_forkserver_preload([__name__, parser.func.__module__ if hasattr(parser, "func") else parser.__module__])
    waiting, lanes, idle = iter(paths), deque[_Lane](), list[_Worker]()

    def hand_out() -> None:
        while sum(lane.worker is not None for lane in lanes) < workers and (
            sum(lane.size for lane in lanes) < workers * _READ_AHEAD
        ):
            path = next(waiting, None)
            if path is None:
                return
            lanes.append(_Lane(path))
            lanes[-1].ask(idle.pop() if idle else _Worker(context, parser, limits), Resume(), alone=False)

    def receive(lane: _Lane, worker: _Worker) -> None:
        try:
            lane.take(worker.connection.recv_bytes())
        except (EOFError, OSError):
            lane.worker = None
            if resume := lane.died(worker.end(patience=_STARTING)):
                lane.ask(_Worker(context, parser, limits), resume, alone=True)
            return
        if lane.done:
            lane.worker = None
            idle.append(worker)

    try:
        hand_out()
        while lanes:
            head = lanes[0]
            heard = {
                lane.worker.connection: lane
                for lane in lanes
                if lane.worker and (lane is head or lane.size < _READ_AHEAD)
            }
            for connection in wait(list(heard), 0 if head.found or head.done else None):
                lane = heard[connection]  # type: ignore[index]
                if lane.worker:
                    receive(lane, lane.worker)
            while head.found:
                yield head.path, head.next()
            if head.done:
                if head.mistake:
                    raise SmeltError(head.mistake)
                lanes.popleft()
            hand_out()
    finally:
        for worker in [*idle, *(lane.worker for lane in lanes if lane.worker)]:
            worker.end()
