import json
from pathlib import Path

import pytest

from lib.text.documents import Document, read_documents, read_table, write_documents
from lib.text.pii.found import Found, Taken, outside
from lib.text.pii.redact import Placeholders
from tests.text import project

PATTERNED = ["email", "phone", "ip", "credit_card", "iban", "national_id", "secret"]
MAIL = (
    "Write to jane@smelt.org or to JANE@smelt.org; bob@smelt.org has moved to another office, and does not answer what "
    "is sent to him at the old address any longer."
)
CLEAN = "The boiler on the third floor is inspected twice a year, and the report of the engineer is kept for ten years."


def clean(root: Path, policy: str, texts: dict[str, str], records: str = "[]", types: list[str] = PATTERNED) -> dict:
    """Run the stage; without names, so without the model."""
    project.make(root, {"internal": project.folder("internal", pii=policy)}, lambda p: p["pii"].update(types=types))
    for asset in ("ner", "places"):
        (root / "data/assets" / asset).mkdir(parents=True)
    written = [Document(f"internal/{name}", text, "u", "internal", "MIT", records) for name, text in texts.items()]
    write_documents(root / "data/raw/internal/documents", written)
    return project.run(root, "clean", "internal")


def kept(root: Path) -> dict[str, Document]:
    return {document.id: document for document in read_documents(root / "data/clean/internal/documents")}


def test_redacted_in_text_and_records_alike(tmp_path: Path) -> None:
    records = json.dumps(
        [{"question": "Who is bob@smelt.org?", "n": 3, "deep": {"x": ["jane@smelt.org", None, "ann@smelt.org"]}}]
    )
    metrics = clean(tmp_path, "redact", {"mail": MAIL, "clean": CLEAN}, records)
    document = kept(tmp_path)["internal/mail"]
    assert document.text == MAIL.replace("jane@smelt.org", "[EMAIL_1]").replace("JANE@smelt.org", "[EMAIL_1]").replace(
        "bob@smelt.org", "[EMAIL_2]"
    )
    assert document.kept == [{"question": "Who is [EMAIL_2]?", "n": 3, "deep": {"x": ["[EMAIL_1]", None, "[EMAIL_3]"]}}]
    assert kept(tmp_path)["internal/clean"].text == CLEAN
    assert metrics["pii"] == {
        "policy": "redact",
        "documents_redacted": 2,
        "documents_dropped": 0,
        "values": {"email": 9},
    }


def test_redacting_twice_changes_nothing(tmp_path: Path) -> None:
    clean(tmp_path / "a", "redact", {"mail": MAIL})
    once = kept(tmp_path / "a")["internal/mail"].text
    clean(tmp_path / "b", "redact", {"mail": once, "more": once + " New: zoe@smelt.org."})
    again = kept(tmp_path / "b")
    assert again["internal/mail"].text == once
    assert again["internal/more"].text == once + " New: [EMAIL_3]."


def test_dropped_with_a_reason_and_all_accounted_for(tmp_path: Path) -> None:
    card = (
        "The card 4111 1111 1111 1111 of jane@smelt.org was charged twice, so please refund one of the two payments "
        * 2
    )
    metrics = clean(tmp_path, "drop", {"mail": MAIL, "card": card, "clean": CLEAN})
    rows = [row for batch in read_table(tmp_path / "data/clean/internal/rejects") for row in batch.to_pylist()]
    assert {row["id"]: row["reason"] for row in rows} == {"internal/mail": "pii_email", "internal/card": "pii_email"}
    assert list(kept(tmp_path)) == ["internal/clean"]
    assert metrics["documents_in"] == metrics["documents_out"] + metrics["rejected"] == 3
    assert metrics["reasons"] == {"pii_email": 2}
    assert metrics["pii"]["documents_dropped"] == 2


def test_kept_as_it_is(tmp_path: Path) -> None:
    metrics = clean(tmp_path, "keep", {"mail": MAIL})
    assert kept(tmp_path)["internal/mail"].text == MAIL
    assert metrics["pii"]["values"] == {}


@pytest.mark.parametrize("types", [["credit_card"], ["iban", "ip"]])
def test_a_type_that_is_not_wanted_stays(tmp_path: Path, types: list[str]) -> None:
    clean(tmp_path, "redact", {"mail": MAIL}, types=types)
    assert kept(tmp_path)["internal/mail"].text == MAIL


def test_one_person_has_one_placeholder() -> None:
    names = ["Okafor, Ngozi", "Ngozi Okafor", "Ngozi", "Emeka Obi", "Obi", "Ada Obi"]
    text, found = "; ".join(names), []
    for name in names:
        start = found[-1].end + 2 if found else 0
        found.append(Found(start, start + len(name), "person", name.lower().replace(",", "")))
    # Obi alone may be Emeka or Ada: a person of its own.
    numbers = [1, 1, 1, 2, 3, 4]
    assert Placeholders(found).put(text, found) == "; ".join(f"[PERSON_{number}]" for number in numbers)


def test_what_is_free_of_a_span() -> None:
    taken = Taken([(2, 4), (6, 8)])
    assert outside(0, 10, taken) == [(0, 2), (4, 6), (8, 10)]
    assert outside(3, 7, taken) == [(4, 6)]
    assert outside(2, 4, taken) == []
    assert outside(4, 6, taken) == [(4, 6)]
    assert not taken.add(3, 5)
    assert taken.add(4, 6)
    assert outside(0, 10, taken) == [(0, 2), (8, 10)]
