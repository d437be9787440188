"""The server in a process of its own, as `make serve` starts it, on a free port of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Running:
    """Attributes:
    url: where it listens, without a slash at the end.
    """

    def __init__(self, home: Path, *arguments: str, keys: str = "") -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SMELT_API_KEYS": keys}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lib.serve.server", "--port", "0", *arguments],
            cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.said = ""
        assert self.process.stdout
        for line in self.process.stdout:
            self.said += line
            if found := re.search(r"(http://\S+) and", line):
                self.url = found[1]
                break
        else:
            raise AssertionError(f"the server did not start: {self.said}")
        self.wait_until(lambda: self.metric("smelt_requests_waiting") == 0)

    def metric(self, name: str) -> float | None:
        """The value of a metric, its labels included in `name`; None while the server does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:
                text = response.read().decode()
        except OSError:
            return None
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    @staticmethod
    def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "it did not come to be"
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Ask it to end; its exit status. What it said is in `said`."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=seconds)
        self.said += rest
        return self.process.returncode

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
