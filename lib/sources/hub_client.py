"""Talking to a Hugging Face hub about one dataset or model at one commit: what it holds, its bytes, its refusals.

The token comes from HF_TOKEN and nowhere else; HF_ENDPOINT names another hub, or a mirror of one.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from lib.pipeline.errors import SmeltError

T = TypeVar("T")
Kind = Literal["dataset", "model"]

LISTING = "files.json"

WAITS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between attempts without a byte in between; then it is given up
_MAX_WAIT = 300.0  # seconds: as long as a hub may ask us to wait (Retry-After)


class Unreachable(SmeltError):
    """The hub cannot be reached, or fails and fails."""


class Hub:
    """One dataset or model at one commit. A context manager: one process at a time adds to its folder of the cache."""

    def __init__(
        self, repo: str, revision: str, cache: Path, log: Callable[[str], None], kind: Kind = "dataset"
    ) -> None:
        self.repo, self.revision, self.log, self.kind = repo, revision, log, kind
        self.folder = cache / repo.replace("/", "--") / revision
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        # False, and not None, which would look for a token in the user's home.
        self.token: str | bool = os.environ.get("HF_TOKEN") or False
        self._answered = False

    def __enter__(self) -> Hub:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / ".lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.log(f"waiting for another run that fetches {self.repo}")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def files(self) -> list[str]:
        """Paths of all files of the commit, sorted; from the cache if it was asked before.

        Raises:
            SmeltError: there is no such dataset, model or commit, or no network.
        """
        listing = self.folder / LISTING
        if not listing.exists():
            try:
                info = self.attempt(lambda: self._info(self.revision), "the list of files")
            except Unreachable:
                if by_hand := [path for path in self.folder.rglob("*") if path.is_file() and not is_ours(path)]:
                    self.log(f"the hub cannot be reached; reading what was put into {self.folder}")
                    return sorted(path.relative_to(self.folder).as_posix() for path in by_hand)
                raise
            if info.sha != self.revision:
                raise SmeltError(self._moved(str(info.sha)))
            names = sorted(sibling.rfilename for sibling in info.siblings or [])
            for name in names:
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts or "\\" in name:
                    raise SmeltError(
                        f"{self.repo} has a file {name!r}, which points outside of it; nothing was fetched"
                    )
            write_whole(listing, json.dumps(names, indent=1, ensure_ascii=False).encode())
        return json.loads(listing.read_text(encoding="utf-8"))

    def head(self) -> str:
        """The commit that the main branch is at now."""
        return str(self.attempt(lambda: self._info(None), "the current commit").sha)

    def _info(self, revision: str | None) -> Any:
        return HfApi(endpoint=self._endpoint, token=self.token).repo_info(
            self.repo, repo_type=self.kind, revision=revision
        )

    def stream(self, path: str, start: int, end: int | None = None) -> Any:
        """A context manager: the hub's response for the bytes of `path` from `start` to `end` (excluded)."""
        headers = build_hf_headers(token=self.token)
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        headers["Accept-Encoding"] = "identity"  # a range of a compressed answer would be of no use
        url = hf_hub_url(self.repo, path, repo_type=self.kind, revision=self.revision, endpoint=self._endpoint)
        return get_session().stream("GET", url, headers=headers, timeout=30)

    def accept(self, response: httpx2.Response) -> None:
        """Take note of an answer.

        Raises:
            HfHubHTTPError: it is an error.
            SmeltError: it belongs to another commit.
        """
        hf_raise_for_status(response)
        self._answered = True
        for answer in [*response.history, response]:
            commit = answer.headers.get("X-Repo-Commit", self.revision)
            if commit != self.revision:
                raise SmeltError(self._moved(commit))

    def attempt(self, action: Callable[[], T], what: str, progress: Callable[[], int] = lambda: 0) -> T:
        """Do `action`, again after a while where the hub or the network fails, as long as `progress()` grows.

        Raises:
            SmeltError: it is no use to try again, or it was tried often enough.
        """
        tried, before = 0, progress()
        while True:
            wait = None
            try:
                result = action()
                self._answered = True
                return result
            except HfHubHTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                if status < 500 and status not in (408, 429):
                    raise SmeltError(self._refused(error, status)) from None
                self._answered = True
                reason = f"HTTP {status}"
                asked = error.response.headers.get("Retry-After", "")
                wait = min(float(asked), _MAX_WAIT) if asked.isdigit() else None
            except OfflineModeIsEnabled:
                raise Unreachable(self._unreachable("HF_HUB_OFFLINE is set", what)) from None
            except httpx2.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            if progress() > before:
                tried, before = 0, progress()
            # A hub that never answered is probably out of reach, and waiting would not help.
            if tried >= (len(WAITS) if self._answered else 1):
                raise Unreachable(self._unreachable(reason, what))
            wait = WAITS[tried] if wait is None else wait
            tried += 1
            self.log(f"{self.repo}: {reason}; trying again in {wait:.0f} s")
            time.sleep(wait)

    def _moved(self, commit: str) -> str:
        return (
            f"{self.repo}: params.yaml pins commit {self.revision}, and the hub answers with commit {commit}. Nothing "
            f"was kept of that answer. Give the hash of a commit as revision; `make pin` writes the current one"
        )

    def _refused(self, error: HfHubHTTPError, status: int) -> str:
        code = error.response.headers.get("X-Error-Code", "")
        given = "the token in HF_TOKEN" if self.token else "no token (HF_TOKEN is not set)"
        if code == "RevisionNotFound":
            return (
                f"{self.repo} has no commit {self.revision} (any more): its history may have been rewritten. "
                f"`make pin` writes the current commit into params.yaml; look at what changed before you train on it"
            )
        if code == "EntryNotFound":
            return f"{self.repo} has no such file at {self.revision}: {error.response.url}"
        if code == "GatedRepo" or status == 403:
            return (
                f"{self.repo} is gated: accept its terms on its page with your account, and put a token of that "
                f"account that may read into the environment as HF_TOKEN; asked with {given}"
            )
        if status in (401, 404):
            return (
                f"the hub has no {self.kind} {self.repo}, or it is private: asked with {given}. Correct repo in "
                f"params.yaml, or set HF_TOKEN"
            )
        return f"{self.repo}: the hub refused with HTTP {status}: {error}"

    def _unreachable(self, reason: str, what: str) -> str:
        return (
            f"cannot fetch {what} of {self.repo}: {reason}. Run the same command again when the hub can be reached; it "
            f"goes on where it was. Without a network, put the {self.kind}'s files into {self.folder}"
        )


def is_ours(path: Path) -> bool:
    """Whether this file of the cache is our own book-keeping."""
    return path.name == LISTING or path.name.startswith(".") or path.suffix in (".partial", ".tail", ".etag")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    os.replace(aside, path)
