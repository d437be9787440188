import json
import random
from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from lib.text.documents import Document, read_documents, write_documents
from tests.text import planted, project
from tests.text.test_dedup import words

FIELDS = {"exam": {"context": None, "question": "ask", "choices": "options"}}


def prepare(root: Path, items: list[dict], texts: list[str]) -> None:
    asset = {"kind": "package", "package": "exam==1", "sha256": "0" * 64, "members": ["*"], "licence": "MIT"}

    def change(params: dict) -> None:
        params["assets"]["exam"] = asset
        params["dedup"]["decontaminate"] |= {"sets": FIELDS, "ngram": 13, "min_words": 5}

    project.make(root, {"s": project.folder("s")}, change)
    (root / "data/assets/exam").mkdir(parents=True)
    lines = "\n".join(json.dumps(item) for item in items)
    (root / "data/assets/exam/test.jsonl").write_text(lines + "\n", encoding="utf-8")
    documents = [Document(f"s/{number}", text, "u", "s", "MIT") for number, text in enumerate(texts)]
    write_documents(root / "data/clean/s/documents", documents)


def run(root: Path, items: list[dict], texts: list[str]) -> tuple[list[str], dict[str, dict], dict]:
    """Ids kept, what was removed by id, metrics of the set."""
    prepare(root, items, texts)
    metrics = project.run(root, "dedup")
    lines = (root / "data/dedup/removed.jsonl").read_text().splitlines()
    kept = [document.id for document in read_documents(root / "data/dedup/documents")]
    assert metrics["documents_in"] == len(texts) == len(kept) + len(lines)
    return kept, {entry["id"]: entry for entry in map(json.loads, lines)}, metrics["decontamination"]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_WORKERS", "1")


def exam(count: int) -> list[dict]:
    """Questions of 1 to 30 words, with quotation marks, apostrophes, dashes and accents; choices of 1 to 20 words."""
    draw = random.Random(5)
    items = []
    for number in range(count):
        question = words(number, draw.randint(1, 30))
        question[0] = draw.choice([f'"{question[0]}"', f"it's {question[0]}", f"{question[0]}-café", question[0]])
        choices = [" ".join(words(1000 + 10 * number + choice, draw.randint(1, 20))) for choice in range(4)]
        items.append({"ask": " ".join(question) + "?", "options": choices, "answer": draw.randrange(4)})
    return items


def test_every_item_is_found_in_any_style(tmp_path: Path) -> None:
    items, draw = exam(60), random.Random(6)
    # As a set has it, with labels; as a question and its answer.
    texts = []
    for item in items:
        labelled = "\n".join(f"{label}. {choice}" for label, choice in zip("ABCD", item["options"], strict=True))
        for form in (f"{item['ask']}\n{labelled}", f"{item['ask']} {item['options'][item['answer']]}"):
            texts.append(planted.hidden(form, " ".join(words(5000 + len(texts))), draw))
    kept, removed, metrics = run(tmp_path, items, texts)
    for number, text in enumerate(texts):
        assert removed[f"s/{number}"]["reason"] == "contaminated", text
        assert removed[f"s/{number}"]["because"] == [f"exam/test.jsonl#{number // 2 + 1}"]
    assert not kept
    assert metrics == {"exam/test.jsonl": {"items": 60, "too_short": 0, "found": 60, "documents": len(removed)}}


def test_thirteen_words_in_a_row_and_no_fewer(tmp_path: Path) -> None:
    question = words(1, 40)
    items = [{"ask": " ".join(question), "options": []}]
    around = words(2, 50)
    texts = [" ".join([*around[:20], *question[9 : 9 + count], *around[20:]]) for count in (13, 12)]
    kept, removed, metrics = run(tmp_path, items, texts)
    assert kept == ["s/1"]
    assert removed["s/0"]["words"] == " ".join(question[9:22])
    assert metrics == {"exam/test.jsonl": {"items": 1, "too_short": 0, "found": 1, "documents": 1}}


def test_a_short_item_counts_where_it_stands_by_itself(tmp_path: Path) -> None:
    items = [
        {"ask": "Laser", "options": ["burns air ", "burns face "]},
        {"ask": "It's hot?", "options": ["No"]},
        {"ask": "Sea water", "options": []},
        {"ask": "Why?", "options": []},
    ]
    alone = [
        "laser burns face",
        "We asked.\nLASER  burns\tAir\nNobody knew.",
        "He wrote “Laser: burns face” and left.",
        "We asked (laser burns air), once more.",
        "Nobody knew; It’s hot? No. Then silence.",
        "About 'sea water' and the rest.",
    ]
    running_on = [
        "The laser burns face masks.",
        "A laser burns air. So it is.",
        "Sea water boils.",
        "A glass of sea water",
        "Sea-water-proof",
        "Laser",
        "Why?",
        "the sea's water, it's hot, no",
        "dogs'sea water'dogs",
    ]
    kept, removed, metrics = run(tmp_path, items, alone + running_on)
    assert sorted(removed) == [f"s/{number}" for number in range(len(alone))]
    assert kept == [f"s/{number + len(alone)}" for number in range(len(running_on))]
    assert [removed[f"s/{number}"]["because"] for number in (0, 4, 5)] == [
        ["exam/test.jsonl#1"],
        ["exam/test.jsonl#2"],
        ["exam/test.jsonl#3"],
    ]
    assert removed["s/4"]["words"] == "it s hot no"
    assert metrics == {"exam/test.jsonl": {"items": 4, "too_short": 1, "found": 3, "documents": len(alone)}}


def test_a_contaminated_document_takes_no_clean_copy_with_it(tmp_path: Path) -> None:
    """The copy without the item stays, though the other one, first by its id, is similar to it."""
    clean, question = words(3), " ".join(words(4, 14))
    texts = [" ".join([*clean, question]), " ".join(clean)]
    kept, removed, _ = run(tmp_path, [{"ask": question, "options": []}], texts)
    assert kept == ["s/1"]
    assert removed["s/0"]["reason"] == "contaminated"


def test_a_context_is_a_part_of_the_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that any text may hold, "What happens next?", is no leak by itself; after its scene it is."""
    monkeypatch.setitem(FIELDS["exam"], "context", "scene")
    scene, question = " ".join(words(7, 20)), "What will they want to do next?"
    items = [{"scene": scene, "ask": question, "options": ["go home", "stay"]}]
    texts = [f"{scene} {question}", f"Nobody knew. {question}", f"It said: {scene}", "Something else entirely."]
    kept, removed, _ = run(tmp_path, items, texts)
    assert sorted(removed) == ["s/0", "s/2"]
    assert kept == ["s/1", "s/3"]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"ask": "a b c"}], r"test\.jsonl, line 1: no field ask and options \(there are: ask\)"),
        ([["a"]], "line 1: no field ask and options"),
    ],
)
def test_a_field_that_is_not_there_is_named(tmp_path: Path, items: list, message: str) -> None:
    prepare(tmp_path, items, ["text"])
    with pytest.raises(SmeltError, match=message):
        project.run(tmp_path, "dedup")
    assert not (tmp_path / "data/dedup").exists()


def test_a_set_without_items_is_named(tmp_path: Path) -> None:
    prepare(tmp_path, [], ["text"])
    (tmp_path / "data/assets/exam/test.jsonl").write_text("{broken\n")
    with pytest.raises(SmeltError, match="line 1: not JSON"):
        project.run(tmp_path, "dedup")
    (tmp_path / "data/assets/exam/test.jsonl").unlink()
    with pytest.raises(SmeltError, match=r"holds no \.jsonl file"):
        project.run(tmp_path, "dedup")
