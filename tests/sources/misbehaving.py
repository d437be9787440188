"""A parser that does what the words of its file say, each a part: `fine`, `spin`, `sleep`, `eat`, `crash`, ..."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from lib.pipeline.errors import SmeltError
from lib.sources.workers import Begin, Event, Found, Resume

_LEAKED: list[bytes] = []


def parse(path: Path, resume: Resume) -> Iterator[Event]:
    for part, word in enumerate(path.read_text().split()):
        if part in resume.without:
            continue
        yield Begin(part, f"!{part}")
        if part < resume.part:
            continue
        if word == "late":
            yield Found(f"!{part}#1", "one")
            yield Found(f"!{part}#2", "two")
            os.abort()
        misbehave(word)
        yield Found(f"!{part}", f"{path.stem} {word}")


def misbehave(word: str) -> None:
    if word == "spin":
        while True:
            pass
    if word == "sleep":
        time.sleep(1000)
    if word == "eat":
        _LEAKED.append(b"x" * 2**40)
    if word == "leak":
        _LEAKED.append(b"x" * (40 * 2**20))
    if word == "slow":
        time.sleep(0.2)
    if word == "crash":
        os.abort()
    if word == "mistake":
        raise SmeltError(f"a mistake in {word}")
