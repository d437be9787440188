"""How many planted copies and evaluation items does `dedup` find, and how many other documents does it lose?

    python -m tests.benchmarks.dedup [DOCUMENTS] [SOURCES]

SOURCES is a folder of cleaned sources (data/clean after `dvc repro clean`); the evaluation sets are those of
params.yaml that have choices and no context, in data/assets beside it. Of its documents, DOCUMENTS (20,000) are
drawn. A first run removes the duplicates that they have already; for each of these, difflib says which share of its
words the document that stays has in the same order. The stage asks much the same, so this checks the code and not the
bound. Then every second document that is left gets a copy, with 0, 5, 10 or 20% of its words changed at random, and
every item of the evaluation sets is planted, restyled, in a document.
"""

from __future__ import annotations

import difflib
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from lib.params.load import read_yaml
from lib.text.documents import Document, read_documents, write_documents
from lib.text.word_hashes import words
from tests.text import planted, project

PARAMS = read_yaml(project.REPOSITORY / "params.yaml")


def run(root: Path, documents: list[Document], assets: Path) -> tuple[dict[str, dict], dict]:
    """Run the stage over `documents`, each source the default one or `planted`: what is removed, and the metrics."""
    names = sorted({document.source for document in documents})
    spare = project.folder("planted", weight=0.0, licence="CC-BY-SA-4.0")
    sets = PARAMS["dedup"]["decontaminate"]["sets"]
    project.make(
        root,
        {name: PARAMS["sources"].get(name, spare) for name in [*names, "fiction"]},
        lambda params: params["dedup"]["decontaminate"].update(sets=sets),
    )
    (root / "data/assets").mkdir(parents=True)
    for name in sets:
        (root / "data/assets" / name).symlink_to((assets / name).resolve())
    for name in {*names, "fiction"}:
        found = (document for document in documents if document.source == name)
        write_documents(root / f"data/clean/{name}/documents", found)
    metrics = project.run(root, "dedup")
    lines = (root / "data/dedup/removed.jsonl").read_text().splitlines()
    record = json.loads((root / "reports/dedup/run.json").read_text())
    megabytes = sum(len(document.text.encode()) for document in documents) / 1e6
    print(
        f"  {len(documents):,} documents, {megabytes:.1f} MB: {record['seconds']:.1f} s, "
        f"peak {record['peak_memory_mib']:.0f} MiB, {metrics['pairs']}, {metrics['reasons']}"
    )
    return {entry["id"]: entry for entry in map(json.loads, lines)}, metrics


def agreement(first: str, second: str) -> float:
    """The share of the words of the longer text that the other has in the same order, by difflib: a lower bound."""
    one, two = words(first), words(second)
    blocks = difflib.SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / (max(len(one), len(two)) or 1)


def items(assets: Path, draw: random.Random, around: list[Document]) -> list[tuple[Document, str]]:
    """Every item in a document: as the set has it, as a question with its answer, or as a question; and its name."""
    found = []
    fields = PARAMS["dedup"]["decontaminate"]["sets"]
    sets = [name for name, of in fields.items() if of["choices"] and not of["context"]]
    for file in (file for name in sets for file in sorted((assets / name).glob("*.jsonl"))):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            record = json.loads(line)
            answer = record["answer"].strip().partition(". ")[2]
            forms = [f"{record['question']}\n{record['options']}", f"{record['question']} {answer}"]
            inside = around[len(found) % len(around)]
            text = planted.hidden(forms[number % 2], inside.text, draw)
            document = inside._replace(id=f"items/{len(found)}", source="items", text=text)
            found.append((document, f"{file.parent.name}/{file.name}#{number}"))
    return found


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    sources = Path(sys.argv[2]) if len(sys.argv) > 2 else project.REPOSITORY / "data/clean"
    assets = sources.parent / "assets"
    draw = random.Random(0)
    everything = [document for folder in sorted(sources.iterdir()) for document in read_documents(folder / "documents")]
    base = draw.sample(everything, min(count, len(everything)))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        print("Before planting")
        removed, _ = run(Path(temporary) / "base", base, assets)
        texts = {document.id: document.text for document in base}
        near = {id_: entry for id_, entry in removed.items() if entry["reason"] == "near_duplicate"}
        wrong = [id_ for id_, entry in near.items() if agreement(texts[id_], texts[entry["because"][0]]) < 0.8]
        print(
            f"  {len(near):,} near duplicates go; {len(wrong)} ({len(wrong) / len(base):.3%} of all documents) share "
            f"less than 80% of their words with the document that stays"
        )
        distinct = [document for document in base if document.id not in removed]

        print("Planted")
        copies = planted.copies(distinct[::2], "planted", seed=1)
        hidden = items(assets, draw, distinct[1::2])
        documents = [*distinct, *(copy for copy, *_ in copies), *(document for document, _ in hidden)]
        removed, metrics = run(Path(temporary) / "planted", documents, assets)

    print("  words changed   copies   found    share")
    for share in planted.SHARES:
        found = [copy.id in removed for copy, of_it, _ in copies if of_it == share]
        print(f"  {share:13.0%}   {len(found):6,}   {sum(found):6,}   {sum(found) / len(found):.4f}")
    lost = [document.id for document in distinct if document.id in removed]
    print(f"  distinct documents lost: {len(lost)} of {len(distinct):,} ({len(lost) / len(distinct):.4%}) {lost[:10]}")
    found = [document.id for document, name in hidden if name in removed.get(document.id, {}).get("because", [])]
    print(f"  documents with a planted item found: {len(found):,} of {len(hidden):,}")
    for document, name in hidden:
        if document.id not in found:
            print(f"    not found: {name}")
    print(f"  {metrics['decontamination']}")
    print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
