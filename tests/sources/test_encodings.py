from __future__ import annotations

import random
from pathlib import Path

import pytest
from spacy.lang.cs.examples import sentences as czech
from spacy.lang.de.examples import sentences as german
from spacy.lang.el.examples import sentences as greek
from spacy.lang.fr.examples import sentences as french
from spacy.lang.ja.examples import sentences as japanese
from spacy.lang.ko.examples import sentences as korean
from spacy.lang.ru.examples import sentences as russian
from spacy.lang.zh.examples import sentences as chinese

from lib.sources import encodings
from tests.sources.folders import texts, write

LANGUAGES = {
    "cs": (czech, ["cp1250"]),
    "de": (german, ["cp1252"]),
    "el": (greek, ["cp1253"]),
    "fr": (french, ["cp1252"]),
    "ja": (japanese, ["shift_jis", "euc_jp", "iso2022_jp"]),
    "ko": (korean, ["euc_kr"]),
    "ru": (russian, ["cp1251", "koi8-r", "cp866"]),
    "zh": (chinese, ["gb18030"]),
}
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize(
    ("language", "codec"),
    [(name, codec) for name, (_, codecs) in LANGUAGES.items() for codec in [*UNICODE, *codecs]],
)
def test_what_was_encoded_comes_back(language: str, codec: str) -> None:
    sentences = [line for line in LANGUAGES[language][0] if line == line.encode(codec, "ignore").decode(codec)]
    assert len(sentences) > 2
    text = "\n".join(sentences)
    data = text.encode(codec)
    assert encodings.decode(data, encodings.detect(data)) == text
    half = data[: len(data) // 2 // 4 * 4]
    assert encodings.decode(data, encodings.detect(half, complete=False)) == text


def test_a_single_letter_is_taken_for_the_most_common_code_page() -> None:
    assert encodings.decode(b"K\xe4se \x80 5", encodings.detect(b"K\xe4se \x80 5")) == "Käse € 5"


def test_utf8_is_believed_wherever_it_is_cut() -> None:
    data = "größer – 漢字".encode()
    assert {encodings.detect(data[:end], complete=False) for end in range(len(data))} == {"utf-8"}


def test_bytes_are_no_text() -> None:
    chance = random.Random(1)
    assert encodings.detect(b"\0" * 1000) is None
    assert [encodings.detect(chance.randbytes(4000)) for _ in range(20)] == [None] * 20
    text = b"A few zero bytes in a text are a fault of who wrote it. " * 10 + b"\0\0"
    assert encodings.detect(text) == "utf-8"


@pytest.mark.parametrize("text", [*german, *french, *czech[:10], *russian[:5]])
def test_mojibake_is_undone_and_right_text_left_alone(text: str) -> None:
    assert encodings.repair(text) == text
    for wrong in ("latin-1", "cp1252"):
        try:
            broken = text.encode().decode(wrong)
        except UnicodeDecodeError:
            continue
        assert encodings.repair(f"fine\n{broken}\nfine") == f"fine\n{text}\nfine"


def test_lines_keep_their_own_encoding(tmp_path: Path) -> None:
    """The head of a file is ASCII; what follows is a mixture."""
    lines = [b'{"text": "plain"}'] * 5000 + ['{"text": "Größe"}'.encode(), '{"text": "Größe"}'.encode("cp1252")]
    found, reasons = texts(write(tmp_path, {"a.jsonl": b"\n".join(lines)}))
    assert reasons == {}
    assert (found["a.jsonl#5001"], found["a.jsonl#5002"]) == ("Größe", "Größe")


def test_wide_lines(tmp_path: Path) -> None:
    found, reasons = texts(write(tmp_path, {"a.jsonl": '{"text": "один"}\r\n{"text": "два"}\r\n'.encode("utf-16")}))
    assert (list(found.values()), reasons) == (["один", "два"], {})
