"""Search the index: the passages nearest to a question."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import TracebackType

from lib.pipeline.errors import SmeltError
from lib.rag.embed import Embedder
from lib.rag.passage import Hit, Passage
from lib.rag.store import Index

EMBEDDER = Path("data/assets/minilm")
COPIES = Path(".scratch/chroma")
MODES = ("vector",)


class Retriever:
    """Searches an index. Any number of threads may do so at the same time.

    Attributes:
        embedder: the one that the index was built with, loaded.
        modes: the names that `search` knows; the first is the default.
    """

    def __init__(self, index: Index, embedder: Embedder) -> None:
        self._index, self.embedder = index, embedder
        self.modes = MODES

    @classmethod
    def open(cls, folder: Path, embedder: Embedder | None = None, copies: Path = COPIES) -> Retriever:
        """The index in `folder`, ready to be searched.

        Args:
            embedder: loaded already; None loads the one that the index was built with.
            copies: where this machine keeps what it derives from the index.

        Raises:
            SmeltError: there is no index, it is damaged, or it was built with another embedder.
        """
        if not (folder / "index.json").is_file():
            raise SmeltError(f"there is no index in {folder}: run `make repro` first, or `make pull`")
        embedder = embedder or Embedder(EMBEDDER, workers=1)
        return cls(Index(folder, embedder, copies), embedder)

    def search(
        self,
        question: str,
        top_k: int | None = None,
        sources: Collection[str] | None = None,
        mode: str | None = None,
    ) -> list[Hit]:
        """The passages nearest to `question`, best first; none where nothing is close enough.

        Args:
            top_k: at most so many; None is what the index was built with.
            sources: only passages from these; None is all, and a source that the index does not have finds nothing.
            mode: one of `modes`; None is the first.

        Raises:
            SmeltError: there is no such mode.
        """
        if mode is not None and mode not in self.modes:
            raise SmeltError(f"there is no search mode {mode!r}; there are: {', '.join(self.modes)}")
        return self._index.search(question, top_k, sources)

    def document(self, id: str) -> list[Passage]:
        """The passages of a document in its order; none where the index does not have it. They may overlap."""
        return self._index.document(id)

    def close(self) -> None:
        """Give up what is held open. Nothing may be searched afterwards."""
        self._index.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
