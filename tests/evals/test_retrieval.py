import pytest

from lib.evals.commands import Example
from lib.evals.retrieval import score_retrieval
from lib.rag.passage import Hit, Passage


def hits(*documents: str) -> list[Hit]:
    return [
        Hit(Passage(f"{name}:0", name, "s", "", 0, 1, "x"), 1 / rank) for rank, name in enumerate(documents, start=1)
    ]


def test_recall_and_mrr_by_hand() -> None:
    examples = [Example(f"d/{n}", [{"role": "user", "content": f"question {n}"}], "") for n in range(5)]
    found = [
        hits("d/0", "x"),  # first
        hits("x", "x", "d/1", "d/1"),  # third, and again
        hits(*["x"] * 9, "d/2"),  # tenth
        hits(*["x"] * 10, "d/3"),  # too late
        [],
    ]
    metrics, items = score_retrieval("retrieval_vector", examples, found)
    assert metrics["questions"] == 5
    values = {name: metrics[name]["value"] for name in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr")}
    assert values == pytest.approx({"recall_at_1": 0.2, "recall_at_5": 0.4, "recall_at_10": 0.6,
                                    "mrr": (1 + 1 / 3 + 1 / 10) / 5}, abs=1e-6)  # fmt: skip
    assert metrics["recall_at_1"]["stderr"] == pytest.approx(0.2)  # sqrt(p (1 - p) / (n - 1))
    ranks = {item.id: item.score for item in items if item.task == "retrieval_vector/mrr"}
    assert ranks[examples[1].id] == pytest.approx(1 / 3)


def test_no_question_has_no_figure() -> None:
    metrics, items = score_retrieval("retrieval_vector", [], [])
    assert metrics["questions"] == 0
    assert metrics["mrr"] == {"value": None, "stderr": None}
    assert items == []
