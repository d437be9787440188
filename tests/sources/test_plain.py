import random

import pytest

from lib.sources.plain import decode, split, unwrap


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_decodes_what_editors_write(encoding: str) -> None:
    assert decode("Käse\r\nBrot\rWein\n".encode(encoding)) == "Käse\nBrot\nWein\n"


def test_other_encodings_are_errors() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode("Käse".encode("latin-1"))


PROSE = """\
It is a truth universally acknowledged, that a single man in
possession of a good fortune, must be in want of a wife.

A verse:
Tyger Tyger, burning bright,
In the forests of the night;
However little known the feelings or views of such a man may
be on his first entering a neighbourhood.
"""


def test_unwrap_joins_full_lines_and_keeps_short_ones() -> None:
    assert unwrap(PROSE).split("\n") == [
        "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want "
        "of a wife.",
        "",
        "A verse:",
        "Tyger Tyger, burning bright,",
        "In the forests of the night;",
        "However little known the feelings or views of such a man may be on his first entering a neighbourhood.",
    ]


def test_an_indented_line_starts_anew() -> None:
    text = "x" * 60 + "\n" + "  " + "y" * 58
    assert unwrap(text) == text


def paragraphs(seed: int) -> str:
    random.seed(seed)
    return "\n\n".join("Some words. " * random.randint(1, 60) for _ in range(random.randint(1, 80)))


@pytest.mark.parametrize("seed", range(20))
def test_pieces_add_up_and_are_of_one_size(seed: int) -> None:
    text = paragraphs(seed)
    pieces = split(text, 2000)
    assert "".join(pieces) == text
    assert len(pieces) == max(1, round(len(text) / 2000))
    if len(pieces) > 1:
        assert all(1000 < len(piece) < 3000 for piece in pieces)


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = "This is a sentence of some length. " * 100
    pieces = split(text, 1000)
    assert "".join(pieces) == text
    assert len(pieces) == 4  # 3,500 characters: 3.5 pieces, rounded to even
    assert all(piece.endswith(". ") for piece in pieces)


def test_code_is_cut_between_top_level_definitions() -> None:
    function = "def f{}():\n    a = 1\n\n    return a\n\n\n"
    text = "".join(function.format(number) for number in range(100))
    pieces = split(text, 500)
    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert all(piece.startswith("def f") for piece in pieces)


def test_a_short_text_is_one_piece() -> None:
    assert split("a\n\nb", 1000) == ["a\n\nb"]
