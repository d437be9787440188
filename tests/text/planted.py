"""Copies of documents, and evaluation items inside documents, as they come in the wild: the ground truth of `dedup`."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from lib.text.documents import Document

SHARES = (0.0, 0.05, 0.1, 0.2)  # of the words of a copy that are changed
_QUOTES = ["'", "’", "‘", "`", "ʼ", "´"]
_BLANKS = [" ", "  ", "\n", "\t", "\n\n", "\u00a0", " \n  "]


def changed(text: str, share: float, vocabulary: Sequence[str], draw: random.Random) -> str:
    """`text` with each word replaced with this probability. With 0, an exact copy: other blanks and capitals."""
    if not share:
        return "\n".join(text.upper().split() if draw.random() < 0.5 else text.split())
    return re.sub(r"\w+", lambda word: draw.choice(vocabulary) if draw.random() < share else word[0], text)


def copies(documents: Sequence[Document], source: str, seed: int) -> list[tuple[Document, float, str]]:
    """One copy of each document, the shares in turn: the copy, its share and the id of its original."""
    draw = random.Random(seed)
    vocabulary = [word for document in documents for word in re.findall(r"\w+", document.text)]
    planted = []
    for number, document in enumerate(documents):
        share = SHARES[number % len(SHARES)]
        text = changed(document.text, share, vocabulary, draw)
        copy = document._replace(id=f"{source}/{number}", source=source, text=text)
        planted.append((copy, share, document.id))
    return planted


def restyled(text: str, draw: random.Random) -> str:
    """Other capitals, blanks, dashes and quotation marks."""
    case = draw.choice([str.upper, str.lower, str.title, str.swapcase, str])
    text = re.sub(r"\s+", lambda _: draw.choice(_BLANKS), case(text))
    text = re.sub("['’‘`]", lambda _: draw.choice(_QUOTES), text)
    text = re.sub('["“”]', lambda _: draw.choice(['"', "“", "”", "„", "«", "''"]), text)
    return re.sub("[-–]", lambda _: draw.choice(["-", "–", "—", "\u2011"]), text)


def hidden(item: str, inside: str, draw: random.Random) -> str:
    """A restyled item in quotation marks between two words of a longer text."""
    found = inside.split(" ")
    place = draw.randrange(len(found) + 1)
    left, right = draw.choice(['""', "“”", "''", "«»", "()"])
    return " ".join([*found[:place], left + restyled(item, draw) + right, *found[place:]])
