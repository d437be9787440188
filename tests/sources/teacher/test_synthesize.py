"""The stage, with a teacher that says what it is told to, well and badly; and with SmolLM2."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lib.pipeline.errors import SmeltError
from lib.sources.teacher import ask
from lib.text.documents import Document, write_documents
from tests.completion.server import Handler, Server, params
from tests.text import project

PATTERNED = ["email", "phone", "ip", "credit_card", "iban", "national_id", "secret"]
FACTS = {
    "boiler": "The boiler on the third floor of building seven is inspected twice a year by a certified engineer.",
    "archive": "The archive keeps every report of the engineers for ten years, and then a shredder takes all of them.",
    "mail": "Questions about the keys of the archive go to the office of the caretaker on the ground floor at noon.",
    "exam": "Water freezes at zero degrees, so the pipes of the garden are emptied by the caretaker each November.",
    "copy": "The boiler on the third floor of building seven is looked after by an engineer, and that twice a year.",
    "prose": "The lift of building nine is out of order until the spare parts arrive from the factory in the north.",
    "roof": "The roof of building two was mended in 1987 with slate from a quarry that has been closed since then.",
}
INSPECTED = {"question": "How often is the boiler inspected?", "answer": "It is inspected twice a year by an engineer."}
SAID: dict[str, Any] = {
    "boiler": INSPECTED,
    "archive": {"question": "How long are reports kept in the archive?", "answer": "Reports are kept for 20 years."},
    "mail": {
        "question": "Where do questions about keys go?",
        "answer": "To the caretaker's office on the ground floor, office@smelt.org.",
    },
    "exam": {"question": "At which temperature does water freeze?", "answer": "At zero degrees."},
    "copy": INSPECTED | {"question": "How often is the boiler inspected, then?"},
    "prose": "Sure! Here is a question about the lift.",
    "roof": {"answer": "It was mended in 1987 with slate.", "question": "When was the roof of building two mended?"},
}
REASONS = {
    "archive": "unknown_number",
    "mail": "pii_email",
    "exam": "contaminated",
    "copy": "near_duplicate",
    "prose": "not_in_form",
}


@pytest.fixture(autouse=True)
def _in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_WORKERS", "1")
    monkeypatch.setenv("SMELT_RESPONSES", str(tmp_path / "responses"))


def subject(handler: Handler) -> str:
    """The fact that the teacher was asked about."""
    (name,) = (name for name, text in FACTS.items() if text in handler.said)
    return name


def teach(handler: Handler) -> None:
    said = SAID[subject(handler)]
    handler.answer(said if isinstance(said, str) else json.dumps(said))


def prepare(root: Path, url: str, **changes: Any) -> Path:
    """A project with the facts as documents of `internal`, and one of `other`, which nobody asks about."""

    def change(values: dict) -> None:
        values["assets"]["boolq"]["members"] = ["*"]
        values["pii"]["types"] = PATTERNED
        values["dedup"]["decontaminate"]["sets"] = {"boolq": {"context": None, "question": "question", "choices": None}}
        values["synthesize"] |= {
            "sources": {"internal": None, "other": 0},
            "kinds": ["qa"],
            "passage_words": {"least": 10, "most": 60},
            "teacher": params(url, **changes.pop("teacher", {})).model_dump(),
        } | changes  # fmt: skip

    sources = {"internal": project.folder("internal", pii="redact"), "other": project.folder("other")}
    project.make(root, sources, change)
    for asset in ("ner", "places", "boolq"):
        (root / "data/assets" / asset).mkdir(parents=True, exist_ok=True)
    exam = {"question": "At which temperature does water freeze?"}
    (root / "data/assets/boolq/test.jsonl").write_text(json.dumps(exam) + "\n")
    texts = [("internal", name, text) for name, text in FACTS.items()] * 2  # mixtures repeat documents
    texts.append(("other", "roof", FACTS["roof"]))
    documents = [Document(f"{source}/{name}.txt", text, f"u/{name}", source, "MIT") for source, name, text in texts]
    write_documents(root / "data/mix/train", documents)
    return root


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_stays_has_its_provenance_and_what_does_not_its_reason(tmp_path: Path) -> None:
    with Server(teach) as server:
        metrics = project.run(prepare(tmp_path, server.url), "synthesize")
        assert len(server.asked) == len(FACTS)
    kept = {row["document"]: row for row in rows(tmp_path / "data/synthetic/conversations.jsonl")}
    assert set(kept) == {"internal/boiler.txt", "internal/roof.txt"}
    assert kept["internal/roof.txt"] == {
        "id": "internal/roof.txt#passage0/qa",
        "kind": "synthetic_qa",
        "document": "internal/roof.txt",
        "passage": 0,
        "uri": "u/roof",
        "source": "internal",
        "licence": "MIT",
        "teacher": f"m at {server.url}",
        "prompt": ask.read_prompt("qa").hash,
        "messages": [
            {"role": "user", "content": "When was the roof of building two mended?"},
            {"role": "assistant", "content": "It was mended in 1987 with slate."},
        ],
    }
    rejects = rows(tmp_path / "data/synthetic/rejects/rejects.jsonl")
    assert {row["document"]: row["reason"] for row in rejects} == {
        f"internal/{name}.txt": reason for name, reason in REASONS.items()
    }
    assert all("messages" not in row for row in rejects)

    assert metrics["planned"] == metrics["asked"] == len(FACTS) == metrics["kept"] + metrics["rejected"]
    assert metrics["kinds"]["qa"]["reasons"] == Counter(REASONS.values())
    assert metrics["sources"] == {
        "internal": metrics["kinds"]["qa"],
        "other": {"asked": 0, "kept": 0, "rejected": 0, "reasons": {}},
    }
    assert metrics["cost"] == {"requests": 7, "tokens_in": 49, "tokens_out": 21, "money": 0.0}
    samples = (tmp_path / "reports/synthesize/samples.json").read_text()
    assert "office@smelt.org" not in samples
    assert list(json.loads(samples)["rejected"]) == sorted(REASONS.values())


def content(root: Path) -> dict[str, bytes]:
    files = [path for top in ("data/synthetic", "reports/synthesize") for path in (root / top).rglob("*.json*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.name != "run.json"}


def test_a_run_that_broke_off_leaves_nothing_and_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMELT_REQUESTS", "1")

    def fails(handler: Handler) -> None:
        teach(handler) if handler.number < 4 else handler.give({"error": "no more"}, 500)

    with Server(fails) as server:
        prepare(tmp_path, server.url, teacher={"retries": 0})
        with pytest.raises(SmeltError, match=r"fails and fails: HTTP 500.*kept"):
            project.run(tmp_path, "synthesize")
        assert not content(tmp_path)
        server.script = teach
        before = [body["messages"] for body in server.asked]
        project.run(tmp_path, "synthesize")
        after = [body["messages"] for body in server.asked[len(before) :]]
        assert len(after) == len(FACTS) - 4
        assert not any(messages in after for messages in before[:4])  # those that were answered
        once = content(tmp_path)
        assert once
        monkeypatch.setenv("SMELT_REQUESTS", "3")
        project.run(tmp_path, "synthesize")
        assert content(tmp_path) == once
        assert len(server.asked) == len(before) + len(after)


def test_a_budget_keeps_what_was_written(tmp_path: Path) -> None:
    with Server(teach) as server:
        metrics = project.run(prepare(tmp_path, server.url, teacher={"requests": 3}), "synthesize")
        assert len(server.asked) == 3
    assert (metrics["planned"], metrics["asked"], metrics["stopped_by_budget"]) == (7, 3, "requests")
    kept = rows(tmp_path / "data/synthetic/conversations.jsonl")
    assert len(kept) + len(rows(tmp_path / "data/synthetic/rejects/rejects.jsonl")) == 3


def test_off_asks_nobody_and_writes_a_valid_empty_output(tmp_path: Path) -> None:
    with Server(teach) as server:
        prepare(tmp_path, server.url, sources={"internal": 0}, teacher={"kind": "gguf"})
        metrics = project.run(tmp_path, "synthesize")
        assert not server.asked
    assert (metrics["planned"], metrics["kept"], metrics["teacher"]) == (0, 0, None)
    assert rows(tmp_path / "data/synthetic/conversations.jsonl") == []


def test_summaries_and_rewrites_come_with_a_wish_and_the_passage(tmp_path: Path) -> None:
    said = {
        "summary": "Building two has had a slate roof since 1987.",
        "text": "In 1987 slate mended the roof of building two, from a quarry that is closed since then.",
    }

    def script(handler: Handler) -> None:
        (field,) = re.findall(r'has the member "(\w+)"', handler.said)
        handler.answer(json.dumps({field: said[field]} if subject(handler) == "roof" else {field: ""}))

    with Server(script) as server:
        root = prepare(tmp_path, server.url, kinds=["summary", "rewrite"])
        metrics = project.run(root, "synthesize")
    summary, rewrite = rows(tmp_path / "data/synthetic/conversations.jsonl")
    assert (summary["kind"], rewrite["kind"]) == ("synthetic_summary", "synthetic_rewrite")
    for row, text in ((summary, said["summary"]), (rewrite, said["text"])):
        user, assistant = row["messages"]
        assert user["content"].endswith(f"\n\n{FACTS['roof']}")
        assert assistant["content"] == text
    assert metrics["kinds"]["summary"]["reasons"] == {"empty": 6}


def test_smollm2_teaches(tmp_path: Path, smollm2: Path) -> None:
    """The default teacher, on two passages: in form, and every item accounted for."""
    root = prepare(tmp_path, "http://127.0.0.1:9/v1", teacher={"kind": "gguf"}, sources={"internal": 2}, max_tokens=60)
    (root / "data/assets/smollm2").symlink_to(smollm2)
    metrics = project.run(root, "synthesize")
    assert metrics["asked"] == 2 == metrics["kept"] + metrics["rejected"]
    assert metrics["cost"]["tokens_out"] > 10
    assert metrics["teacher"].startswith("gguf sha256:b179c952")
    written = rows(root / "data/synthetic/conversations.jsonl") + rows(root / "data/synthetic/rejects/rejects.jsonl")
    assert len(written) == 2
