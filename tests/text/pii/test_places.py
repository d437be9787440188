"""Places by the list and by what stands around, without the model: what it finds itself is in test_names.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.text.pii.places import PlaceRecognizer


@pytest.fixture(scope="module")
def recognizer(places: Path) -> PlaceRecognizer:
    return PlaceRecognizer(places)


def found(recognizer: PlaceRecognizer, text: str) -> list[str]:
    return [text[one.start : one.end] for one in recognizer.analyze(text, ["LOCATION"])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We open a shop in Leeds, near Bath.", ["Leeds", "Bath"]),
        ("Ich wohne in Würzburg und komme aus Gera.", ["Würzburg", "Gera"]),
        ("Il vit à Saint-Étienne.", ["Saint-Étienne"]),
        ("the Lyon warehouse and our Porto-based supplier", ["Lyon", "Porto"]),
        ("Leeds's best pies are from Rio de Janeiro.", ["Leeds", "Rio de Janeiro"]),
        ("D-89073 Ulm\n10 Main St, Reading RG1 1AA\nSalem, OR 97301", ["Ulm", "Reading", "Salem"]),
        ("Route Lagos -> Pune, then York and Split", ["Lagos", "Pune"]),
        ("We flew to York, Split and Bath.", ["York", "Split", "Bath"]),
        ("1043,Mei Chen,Busan,active", ["Busan"]),
        ("Kenya exports tea.", ["Kenya"]),
        ("geo=Izmir agent=curl", []),  # the value of a field of a log has no end
        ("DRIVE TO LEEDS", ["LEEDS"]),
    ],
)
def test_a_listed_name_counts_beside_what_goes_with_places(
    recognizer: PlaceRecognizer, text: str, expected: list[str]
) -> None:
    assert found(recognizer, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Team Denver and project Lyon use release Oslo of the font Geneva; ask team Chicago.",
        "Reading takes time. Mobile first. Nice work, Victoria!",
        "Use Split, Same and Most as in the examples; see the Central Bank in Orange County.",
        "Leedsville is not known, nor is X.Leeds or /srv/Leeds, nor York-like names: 10 DAX.",
        "they live in leeds",
        "",
    ],
)
def test_no_place_where_a_name_is_a_word_or_that_of_something_else(recognizer: PlaceRecognizer, text: str) -> None:
    assert found(recognizer, text) == []


def test_cells_below_a_heading(recognizer: PlaceRecognizer) -> None:
    """Any value, listed or not, up to the end of the table."""
    text = 'id;City;note\n1;"Klein Xyzdorf";Alpha\n2;Reading;Beta\n3;;Gamma\n\n1;Klein Nowhere;Delta\n'
    assert found(recognizer, text) == ["Klein Xyzdorf", "Reading"]
    table = "| Name | Country |\n|------|---------|\n| Ann | Utopia |\n| Bob | n/a |\n"
    assert found(recognizer, table) == ["Utopia"]


def test_only_where_places_are_wanted(recognizer: PlaceRecognizer) -> None:
    assert recognizer.analyze("in Leeds", ["PERSON"]) == []
