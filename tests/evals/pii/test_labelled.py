from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest
from stdnum import iban, luhn

from lib.evals.pii.labelled import CASTS, Span, labelled
from lib.evals.pii.people import DEVELOP, HELD_OUT
from lib.evals.pii.score import Score
from lib.params.load import load
from lib.text.pii.found import NAMES, PATTERNED
from lib.text.pii.redact import Finder
from tests.workspace import ROOT

SETTINGS = load(ROOT / "params.yaml").pii


def test_the_same_seed_gives_the_same_documents() -> None:
    assert labelled("develop", 2, 1) == labelled("develop", 2, 1)
    assert labelled("develop", 2, 1)[: len(labelled("develop", 1, 1))] == labelled("develop", 1, 1)
    assert labelled("develop", 1, 1) != labelled("develop", 1, 2)


@pytest.mark.parametrize("half", ["develop", "held_out"])
def test_labels_lie_on_their_values(half: str) -> None:
    """By rules of the test's own: a form for each type, and no label across a line."""
    forms = {
        "email": r"[\w.+-]+ ?(@|\[at\]|\(at\)) ?\S+( \[dot\] \S+)*",
        "phone": r"[+(0-9][0-9 ()./-]{7,20}",
        "ip": r"[0-9.]{7,15}|[0-9a-f:]{5,39}",
        "iban": r"[A-Z]{2}\d\d[ A-Z0-9]{10,36}",
        "credit_card": r"[\d -]{15,19}",
        "person": r"[^\W\d_][\w'’-]*(,? [^\W\d_][\w'’-]*){0,3}",
    }
    seen = set()
    for document in labelled(half, 4, 1):
        assert "<<" not in document.text.replace("<<<", "")
        assert document.spans == sorted(document.spans)
        assert (document.kind == "clean") == (not document.spans)
        for span in document.spans:
            value = document.text[span.start : span.end]
            assert "\n" not in value
            assert value == value.strip()
            seen.add(span.type)
            assert re.fullmatch(forms.get(span.type, ".+"), value), (span.type, value)
            if span.type == "iban":
                assert iban.is_valid(value, check_country=False)
            if span.type == "credit_card":
                assert luhn.is_valid(re.sub(r"\D", "", value))
    assert seen == {*PATTERNED, *NAMES}


def test_the_halves_share_nothing() -> None:
    def words(people: tuple[tuple[str, str], ...]) -> set[str]:
        return set(chain.from_iterable(name.split() for pair in people for name in pair))

    assert not words(DEVELOP.people) & words(HELD_OUT.people)
    for field in ("places", "organisations", "domains"):
        assert not set(DEVELOP.choices(field)) & set(HELD_OUT.choices(field))
    texts = [{re.sub(r"<<.*?>>", "", line) for line in _lines(half) if len(line) > 60} for half in CASTS]
    assert not texts[0] & texts[1]


def _lines(half: str) -> list[str]:
    return (ROOT / f"lib/evals/pii/{half}.txt").read_text(encoding="utf-8").split("\n")


def test_a_score_by_hand() -> None:
    text = "Jane Doe wrote to a@b.de from Rome, not 12 apples"
    labels = [Span(0, 8, "person"), Span(18, 24, "email"), Span(30, 34, "place")]
    findings = [Span(0, 4, "person"), Span(18, 24, "email"), Span(30, 34, "person"), Span(40, 42, "phone")]
    score = Score(["person", "email", "place", "phone"])
    score.add(text, labels, findings)
    rates = score.metrics()
    assert rates["email"]["recall"]["value"] == rates["email"]["precision"]["value"] == 1
    assert rates["person"]["recall"]["value"] == 0  # half a name
    assert rates["person"]["precision"]["value"] == 1
    assert (rates["place"]["recall"]["value"], rates["place"]["recall_typed"]["value"]) == (1, 0)
    assert rates["phone"] == {
        "labelled": 0,
        "found": 1,
        "recall": {"value": None, "stderr": None},
        "precision": {"value": 0, "stderr": None},
    }
    assert rates["names"]["labelled"] == 2
    assert [value for _, value, _ in score.missed] == ["Jane Doe"]
    assert [value for _, value, _ in score.wrong] == ["12"]


def test_the_reach_on_the_held_out_half(ner: Path, places: Path) -> None:
    finder, score = Finder(SETTINGS, ner, places), Score(SETTINGS.types)
    documents = labelled("held_out", SETTINGS.labelled_rounds, 1)
    findings = finder.find([document.text for document in documents])
    for document, found in zip(documents, findings, strict=True):
        score.add(document.text, document.spans, [Span(one.start, one.end, one.type) for one in found])
    rates = score.metrics()
    assert rates["patterned"]["recall"]["value"] >= 0.99, score.missed
    assert rates["patterned"]["precision"]["value"] >= 0.90, score.wrong
    assert rates["names"]["recall"]["value"] >= 0.90, score.missed
    assert rates["names"]["precision"]["value"] >= 0.90, score.wrong
    assert all(rates[kind]["recall"]["value"] >= 0.90 for kind in NAMES), score.missed
    assert all(rates[kind]["precision"]["value"] >= 0.90 for kind in (*PATTERNED, *NAMES)), score.wrong
