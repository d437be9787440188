import random

import pytest

from lib.serve.model import Token
from lib.serve.writing import Done, Piece, write

ALPHABET = ["a", "b", "ab", "\n", "é", "漢", "🙂", " ", "<end>"]
STOPS = [[], ["b"], ["ab", "b\n"], ["aab", "aa"], ["🙂 ", "é"], ["abababc", "<end>"]]


def tokens(text: str, draw: random.Random) -> list[Token]:
    """Bytes cut anywhere, in the middle of characters as well."""
    data, cut = text.encode(), []
    while data:
        length = draw.randrange(1, 5)
        cut.append(Token(0, data[:length], None, []))
        data = data[length:]
    return cut


@pytest.mark.parametrize("stops", STOPS)
def test_the_text_is_whole_up_to_the_first_stop_however_it_is_cut(stops: list[str]) -> None:
    draw = random.Random(5)
    for _ in range(300):
        text = "".join(draw.choices(ALPHABET, k=draw.randrange(12)))
        made = tokens(text, draw)
        *pieces, done = write(iter(made), stops, max_tokens=len(made) + 1)
        places = [place for stop in stops if (place := text.find(stop)) >= 0]
        assert "".join(piece.text for piece in pieces) == (text[: min(places)] if places else text)
        assert isinstance(done, Done)
        assert done.finish == "stop"
        assert done.tokens <= len(made)
        kept = [token for piece in pieces for token in piece.tokens]
        assert kept == made[: len(kept)]  # in order, none twice
        assert places or len(kept) == len(made)


def test_what_cannot_be_a_stop_is_given_at_once() -> None:
    made = iter([Token(0, text, None, []) for text in (b"a", b"<", b"e", b"x", b"<end>", b"never read")])
    written = write(made, ["<end>"], max_tokens=9)
    texts = [entry.text for entry in written if isinstance(entry, Piece)]
    assert texts == ["a", "<ex"]
    assert next(made).text == b"never read"


@pytest.mark.parametrize(("most", "finish"), [(3, "length"), (4, "stop")])
def test_an_answer_that_reaches_the_limit_was_cut(most: int, finish: str) -> None:
    *_, done = write(iter([Token(0, b"a", None, [])] * 3), [], most)
    assert done == Done(finish, 3)


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    *pieces, _ = write(iter([Token(0, "漢".encode()[:2], None, [])]), [], 1)
    assert [piece.text for piece in pieces] == ["\ufffd"]
