"""Whether a command line could be typed: it parses, and the manual knows its command and its options.

What is known is what the manual's conversations use, of all splits. Each page is about one operation, so that of the
operations of held-out answers the training split knows 5%: a ruler made of it would call 19 of 20 right answers wrong.
An option counts as known where it occurs with any operation of the same service: no page shows all options.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_WORD = re.compile(r"[a-z][a-z0-9-]*$")
_DEPTH = 3  # program, service, operation; `aws s3 mb bucket` and `aws ec2 wait instance-running` are as deep


class CommandLine(NamedTuple):
    path: tuple[str, ...]  # the words before options and values, at most three
    options: frozenset[str]  # long ones, without their values


def parse(command: str) -> CommandLine | None:
    """The parts of a command line; None if a shell would not take it (an open quotation)."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    path: list[str] = []
    for word in words[:_DEPTH]:
        if not _WORD.match(word):
            break
        path.append(word)
    return CommandLine(tuple(path), frozenset(word.partition("=")[0] for word in words if re.match("--[a-z]", word)))


class Manual:
    """The commands that there are, and the options of each service, learnt from `commands`."""

    def __init__(self, commands: Iterable[str]) -> None:
        self._paths: set[tuple[str, ...]] = set()
        self._options: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for command in commands:
            if parsed := parse(command):
                self._paths.add(parsed.path)
                self._options[parsed.path[:2]] |= parsed.options

    def knows(self, command: str) -> bool:
        """Whether `command` parses, and its path and every long option are known."""
        parsed = parse(command)
        return (
            parsed is not None
            and parsed.path in self._paths
            and parsed.options <= self._options.get(parsed.path[:2], set())
        )


def read_manual(folder: Path, kind: str) -> Manual:
    """The manual behind the conversations of `kind` in all .jsonl files of `folder`."""
    commands = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                conversation = json.loads(line)
                if conversation["kind"] == kind:
                    commands.append(conversation["messages"][-1]["content"])
    return Manual(commands)
