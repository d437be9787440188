from __future__ import annotations

import socket
from pathlib import Path

import pytest
import srsly

from lib.params.load import load
from lib.pipeline.errors import SmeltError
from lib.text.pii.names import Names
from lib.text.pii.redact import Finder
from tests.workspace import ROOT

SETTINGS = load(Path(ROOT / "params.yaml")).pii


@pytest.fixture(scope="module")
def finder(ner: Path, places: Path) -> Finder:
    return Finder(SETTINGS, ner, places)


def found(finder: Finder, text: str) -> list[tuple[str, str]]:
    (one,) = finder.find([text])
    return [(name.type, text[name.start : name.end]) for name in one]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'From: "Ngozi Okafor" <ngozi@smelt.org>\n\nDear Mr Ibáñez,\n\nplease call.\n\nKind regards,\nNgozi',
            [("person", "Ngozi Okafor"), ("email", "ngozi@smelt.org"), ("person", "Ibáñez"), ("person", "Ngozi")],
        ),
        ("Assignee: Thuy Le\nCompany: Kessler GmbH", [("person", "Thuy Le"), ("organisation", "Kessler GmbH")]),
        ("Yesterday Angela Merkel flew to Paris.", [("person", "Angela Merkel"), ("place", "Paris")]),
        (
            "Reported-by: Ewa Mazur\nWe asked; mazur was out, Mazur's desk empty, MazurLib fine.",
            [("person", "Ewa Mazur"), ("person", "Mazur")],
        ),
    ],
)
def test_names_in_their_places(finder: Finder, text: str, expected: list[tuple[str, str]]) -> None:
    assert found(finder, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Water boils at 100 degrees at sea level, but on a high mountain it boils below 75 degrees.",
        "def parse_header(buffer: bytes) -> int:\n    return int.from_bytes(buffer[:4], 'big')",
        "[PERSON_1] met [PERSON_2] in [PLACE_1].",
        "",
    ],
)
def test_no_names_where_there_are_none(finder: Finder, text: str) -> None:
    assert found(finder, text) == []


def test_a_long_document_is_cut_and_put_together(finder: Finder) -> None:
    line = "The report of the engineer is kept for ten years in the cellar of the building next door.\n"
    text = line * 250 + "Assignee: Thuy Le\n" + line * 20
    assert [(one.start, text[one.start : one.end]) for one in finder.find([text])[0]] == [
        (250 * len(line) + 10, "Thuy Le")
    ]


def test_neighbours_and_batches_change_nothing(finder: Finder) -> None:
    texts = ["Assignee: Thuy Le", "", "Angela Merkel flew to Paris.", "jane@smelt.org"]
    assert finder.find(texts) == [finder.find([text])[0] for text in texts]


def test_only_the_wanted_names(ner: Path, places: Path) -> None:
    of_places = Names(ner, places, ["place"], SETTINGS.name_score)
    assert [one.key for one in of_places.find(["Angela Merkel flew to Paris."])[0]] == ["paris"]
    nothing = Names(ner, places, ["person", "place"], 0.95)
    assert nothing.find(["Angela Merkel flew to Paris."]) == [[]]


def test_nothing_is_fetched(ner: Path, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Presidio downloads models and tldextract its list of suffixes, unless they are told otherwise."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection to {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert (
        len(Finder(SETTINGS, ner, places).find(["Dear Mr Okafor, write to jane@smelt.com.au from 10.1.2.3."])[0]) == 3
    )


def test_a_folder_without_a_model_is_one_clear_message(ner: Path, places: Path, tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"holds no spaCy model; run `dvc repro assets@ner`"):
        Finder(SETTINGS, tmp_path, places).find(["Dear Mr Okafor,"])
    with pytest.raises(SmeltError, match=r"holds no list of places; run `dvc repro assets@places`"):
        Finder(SETTINGS, ner, tmp_path).find(["Dear Mr Okafor,"])


def test_the_model_holds_no_pickle(ner: Path) -> None:
    """msgpack, JSON and one array of numbers. A pickle begins with 80 and a protocol; msgpack may hold objects."""

    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return value.get(b"kind", value.get("kind")) != b"O" and all(map(plain, value.values()))
        return all(map(plain, value)) if isinstance(value, list | tuple) else True

    for path in sorted(ner.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            assert not (data[:1] == b"\x80" and data[1:2] <= b"\x05" and data[1:2]), path
            if path.suffix in ("", ".bin") and path.name in ("model", "moves", "tokenizer", "patterns", "lookups.bin"):
                assert plain(srsly.msgpack_loads(data)), path
            elif path.name == "vectors":
                assert data.startswith(b"\x93NUMPY")
                assert b"'O'" not in data[:128]
