"""Some hundred documents of the kinds that cleaning meets: what comes with Python, and what is made here."""

from __future__ import annotations

import random
import re
import sysconfig
from pathlib import Path
from pydoc_data import topics

from tests.text.project import REPOSITORY


def _prose() -> list[str]:
    found = [text[:4000] for _, text in sorted(topics.topics.items())]
    found += ["\n\n".join(text.split("\n\n")[1:4]) for _, text in sorted(topics.topics.items())]
    return found + [
        (REPOSITORY / name).read_text()[:5000] for name in ("README.md", "docs/LOG.md", "LICENSE", "params.yaml")
    ]


def _articles() -> list[str]:
    """Plain sentences of the manual in paragraphs of five."""
    text = " ".join(" ".join(text.split()) for _, text in sorted(topics.topics.items()))
    plain = re.findall(r"(?<=\. )[A-Z][a-z ,]{60,}\.", text)
    found = []
    for start in range(0, len(plain) - 15, 5):
        found.append("\n\n".join(" ".join(plain[at : at + 5]) for at in range(start, start + 15, 5)))
    return found


def _code() -> list[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    found = [
        (library / f"{name}.py").read_text() for name in ("ast", "heapq", "json/decoder", "textwrap", "this", "token")
    ]
    return [text[start : start + 3000] for text in found for start in range(0, min(len(text), 24000), 3000)]


def _made(number: int) -> str:
    draw = random.Random(number)
    words = [
        "buy",
        "now",
        "cheap",
        "pills",
        "online",
        "the",
        "best",
        "offer",
        "of",
        "to",
        "and",
        "win",
        "money",
        "fast",
    ]
    words += ["click", "here", "-", "•", "#", "...", "12", "7.5%", "(a)", "it's"]
    sentence = lambda most: " ".join(draw.choices(words, k=draw.randrange(1, most))).capitalize()  # noqa: E731
    match number % 7:
        case 0:  # spam: few words, again and again
            return " ".join(draw.choices(words[: draw.randrange(2, 9)], k=draw.randrange(20, 300))) + "."
        case 1:  # a list
            return "\n".join(f"{draw.choice('-•*')} {sentence(6)}" for _ in range(draw.randrange(5, 60)))
        case 2:  # the same line between others
            return "\n".join(draw.choice([sentence(20) + ".", "Read more...", "Share this page"]) for _ in range(30))
        case 3:  # figures
            return "\n".join(
                " ".join(str(draw.randrange(10**6)) for _ in range(8)) for _ in range(draw.randrange(3, 30))
            )
        case 4:  # a page with a banner
            lines = [
                "This site uses cookies.",
                "Please enable JavaScript.",
                "See our privacy policy [1].",
                "lorem ipsum dolor.",
            ]
            return "\n".join([*(sentence(25) + draw.choice(".?!…") for _ in range(10)), draw.choice(lines)])
        case 5:  # paragraphs, some twice
            paragraphs = [" ".join(sentence(12) + "." for _ in range(4)) for _ in range(6)]
            return "\n\n".join(draw.choices(paragraphs, k=draw.randrange(2, 9)))
        case _:  # one long word, odd line ends, no words
            return draw.choice(
                ["x" * 1200 + " is it.", "a\u2028b\x85c\fd e.", "----- ***** ####", "ΑΒΓ. Где? 日本語。 été!"]
            )


def documents() -> list[str]:
    return [text for text in [*_prose(), *_articles(), *_code(), *map(_made, range(280))] if text.strip()]
