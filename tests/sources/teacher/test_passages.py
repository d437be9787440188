from __future__ import annotations

import random

import pytest

from lib.sources.teacher.passages import choose, cut
from lib.text.documents import Document


def prose(generator: random.Random, words: int) -> str:
    return " ".join("".join(generator.choices("abcdefgh", k=5)) for _ in range(words - 1)).capitalize() + " ends."


def text_of(generator: random.Random) -> str:
    paragraphs = []
    for _ in range(generator.randrange(1, 9)):
        lengths = [generator.randrange(3, 60) for _ in range(generator.randrange(1, 6))]
        paragraphs.append(" ".join(prose(generator, length) for length in lengths))
    return "\n\n".join(paragraphs)


@pytest.mark.parametrize("seed", range(20))
def test_passages_are_pieces_of_the_text_within_their_bounds(seed: int) -> None:
    text = text_of(random.Random(seed))
    rest = text
    for passage in cut(text, 20, 80):
        assert 20 <= len(passage.split()) <= 80
        assert passage in rest, "not a piece of the text, or not in order"
        rest = rest[rest.index(passage) + len(passage) :]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_left_out_where_no_piece_is_too_short(seed: int) -> None:
    text = text_of(random.Random(seed))
    assert " ".join(cut(text, 1, 80)).split() == text.split()


def test_a_sentence_beyond_the_bound_is_left_out() -> None:
    generator = random.Random(1)
    long = prose(generator, 200)
    assert list(cut(f"{prose(generator, 30)} {long} {prose(generator, 30)}", 5, 80)) != []
    assert not any(long[:50] in passage for passage in cut(f"{prose(generator, 30)} {long}", 5, 80))


def documents(names: str, source: str = "s") -> list[Document]:
    return [Document(f"{source}/{name}", prose(random.Random(name), 40), "u", source, "MIT") for name in names]


def test_the_draw_is_by_hash_and_by_the_document_alone() -> None:
    some = choose(documents("abcdefghij"), {"s": 4}, (10, 100), 1)
    assert [passage.id for passage in some] == [
        passage.id for passage in choose(documents("jihgfedcba"), {"s": 4}, (10, 100), 1)
    ]
    fewer = choose(documents("abcdefghij"), {"s": 3}, (10, 100), 1)
    assert fewer == some[:3]
    others = choose([*documents("abcdefghij"), *documents("abc", "t")], {"s": 4, "t": 1}, (10, 100), 1)
    assert others[:4] == some
    assert len(others) == 5
    assert some != choose(documents("abcdefghij"), {"s": 4}, (10, 100), 2)


def test_repeats_count_once_and_null_takes_all() -> None:
    found = documents("abc")
    assert len(choose(found * 3, {"s": None}, (10, 100), 1)) == 3
    assert choose(found, {"s": 0, "t": None}, (10, 100), 1) == []


def test_a_limit_draws_from_all_documents_of_a_large_source() -> None:
    found = [Document(f"s/{number}", prose(random.Random(0), 20), "u", "s", "MIT") for number in range(3000)]
    everything = choose(found, {"s": None}, (10, 100), 1)
    assert choose(found, {"s": 5}, (10, 100), 1) == everything[:5]
