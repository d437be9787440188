import json

import pytest

from lib.sources import records
from lib.sources.records import Record
from lib.text.documents import Document

PLACE = Document("s/f#1", "", "pypi:p==1/f#1", "s", "MIT")


def record(value: object, heading: str = "") -> Record:
    return Record(1, heading, value)


def test_template_fills_in_fields_as_they_are() -> None:
    value = {"title": "Braces {x}", "body": "a {title}", "n": 3, "none": None}
    document, reason = records.to_item(record(value), PLACE, "{title}\n\n{body} {n}{none}", ["title", "missing"])
    assert reason is None
    assert document.text == "Braces {x}\n\na {title} 3"
    assert document.kept == [{"title": "Braces {x}"}]


@pytest.mark.parametrize(
    ("value", "template", "expected"),
    [
        ({"a": 1}, "{b}", "missing_field"),
        (["a"], "{b}", "not_an_object"),
        ({"b": "  "}, "{b}", "empty"),
        ({}, None, "empty"),
    ],
)
def test_records_without_text_are_rejected(value: object, template: str | None, expected: str) -> None:
    assert records.to_item(record(value), PLACE, template, [])[1] == expected


def test_rendering_nested_records() -> None:
    value = {
        "Climate": {"text": "mild &amp; wet"},
        "Area": {"total ": {"text": "5 sq km"}, "note": "<strong>note:</strong> tiny"},
        "Hazards": {"text": "storms<br><br><b>volcanism:</b> none", "note": "see map"},
        "Land use: forest": {"text": "forest: 8%"},
        "Empty": {"text": ""},
        "Ports": ["A", "B"],
        "Count": 7,
    }
    document, _ = records.to_item(record(value, "Ruritania: Geography"), PLACE, None, [])
    assert document.text.split("\n") == [
        "Ruritania: Geography",
        "",
        "Climate: mild & wet",
        "Area:",
        "  total: 5 sq km",
        "  note: tiny",
        "Hazards: storms",
        "volcanism: none",
        "  note: see map",
        "Land use: forest: 8%",
        "Ports: A, B",
        "Count: 7",
    ]


def test_plain_text_keeps_signs_that_are_no_tags() -> None:
    assert records.plain_text("a < b, 3 <4 and p&lt;0.05 &eacute;<p>new</p>") == "a < b, 3 <4 and p<0.05 é\nnew"
    assert records.plain_text("R&D") == "R&D"


def test_json_values_are_headed_by_key_and_name() -> None:
    text = json.dumps({"Geography": {"a": 1}, "Names": {"short": {"text": "none"}, "long": {"text": "Republic of R."}}})
    paths = ["Names/short/text", "Names/long/text"]
    assert [found.heading for found in records.read_json(text, True, paths)] == [
        "Republic of R.: Geography",
        "Republic of R.: Names",
    ]
    assert [found.number for found in records.read_json("[5, 6]", True)] == [1, 2]
    assert [found.value for found in records.read_json("[5, 6]", False)] == [[5, 6]]


def test_broken_lines_keep_their_number_and_text() -> None:
    found = records.read_json_lines('{"a": 1}\n\n{"a": \n{"a": "\\ud800"}\n')
    assert [(one.number, one.reason) for one in found] == [(1, None), (3, "broken_json"), (4, "broken_unicode")]
    assert found[1].value == '{"a": '
    found[2].value.encode()  # can be written


def test_records_of_one_text_become_one_document() -> None:
    def item(number: int, text: str, question: str) -> records.Item:
        kept = json.dumps([{"question": question}])
        return PLACE._replace(id=f"s/f#{number}", text=text, records=kept), None

    rejected = (PLACE._replace(text="A"), "subtracted")
    items = [item(1, "A", "one"), item(2, "B", "two"), rejected, item(3, "A", "three")]
    merged = list(records.merge(items))
    assert [(document.id, reason) for document, reason in merged] == [
        ("s/f#1", "subtracted"),
        ("s/f#1", None),
        ("s/f#2", None),
    ]
    assert merged[1][0].kept == [{"question": "one"}, {"question": "three"}]
