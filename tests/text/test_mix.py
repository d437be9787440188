from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.params.text import Mix
from lib.pipeline.errors import SmeltError
from lib.text import mix
from lib.text.documents import Document, read_documents, write_documents
from tests.text import project

IDS = [f"source/{number}" for number in range(20_000)]


# ----------------------------------------------------------------------------------------------------------------------
# Splits


def splits(val: float, test: float) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for id_ in IDS:
        found[mix.split_of(id_, Mix(tokens=1, val=val, test=test))].add(id_)
    return found


def test_splits_have_their_shares() -> None:
    sizes = {split: len(ids) for split, ids in splits(0.01, 0.04).items()}
    for split, share in (("val", 0.01), ("test", 0.04)):
        expected = share * len(IDS)
        assert abs(sizes[split] - expected) < 4 * np.sqrt(expected)  # four standard deviations of a binomial
    assert sum(sizes.values()) == len(IDS)


def test_a_held_out_share_grows_without_moving_the_other() -> None:
    small, larger = splits(0.01, 0.04), splits(0.02, 0.04)
    assert small["val"] < larger["val"]
    assert small["test"] == larger["test"]
    assert splits(0.01, 0.08)["val"] == small["val"]


def test_the_split_is_fixed_for_all_time() -> None:
    """Frozen: another hash would move held-out documents of every model made so far into training."""
    params = Mix(tokens=1, val=0.1, test=0.2)
    assert (
        "".join(mix.split_of(f"wiki/{number}", params)[1] for number in range(30)) == "eerrerrrreerrarrrrrrrrrrrrerer"
    )


# ----------------------------------------------------------------------------------------------------------------------
# Shares


def source(weight: float, sizes: list[int], bytes_per_token: float = 2.0) -> mix.Source:
    train = [(number / 100, f"d{number}", size) for number, size in enumerate(sizes)]
    return mix.Source(weight, "MIT", train=train, bytes_per_token=bytes_per_token)


def test_shares_of_tokens_by_hand() -> None:
    sources = {
        "rich": source(3.0, [100] * 100),  # 50 tokens each
        "dense": source(1.0, [100] * 100, bytes_per_token=5.0),  # 20 tokens each
        "short": source(2.0, [100]),
        "empty": source(5.0, []),
        "off": source(0.0, [100] * 100),
    }
    mix.share_out(sources, 1200)
    assert {name: found.requested_tokens for name, found in sources.items()} == {
        "rich": 600.0,
        "dense": 200.0,
        "short": 400.0,
        "empty": 0.0,
        "off": 0.0,
    }
    assert {name: found.taken for name, found in sources.items()} == {
        "rich": 12,
        "dense": 10,
        "short": 1,
        "empty": 0,
        "off": 0,
    }
    assert sources["dense"].tokens == 200.0
    assert sources["dense"].bytes == 1000


def test_tokens_are_estimated_per_source(tmp_path: Path) -> None:
    """Words that repeat take fewer tokens per byte than digits, which are a token each."""
    documents = [
        Document(f"words/{n}", "the same few words again and again " * 20, "", "words", "MIT") for n in range(20)
    ]
    documents += [Document(f"digits/{n}", str(7**500 + n), "", "digits", "MIT") for n in range(20)]
    write_documents(tmp_path, documents)
    sources = {"words": mix.Source(1.0, "MIT"), "digits": mix.Source(1.0, "MIT"), "empty": mix.Source(1.0, "MIT")}
    mix.survey(tmp_path, sources, Mix(tokens=1, val=0.01, test=0.01), seed=1)
    mix.estimate_bytes_per_token(tmp_path, sources)
    assert sources["words"].bytes_per_token > 4
    assert sources["digits"].bytes_per_token == pytest.approx(1.0)


# ----------------------------------------------------------------------------------------------------------------------
# Order


def test_a_corpus_larger_than_memory_is_shuffled_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document(f"s/{number}", f"text {number}", "", "s", "MIT") for number in range(200)]
    write_documents(tmp_path, documents)
    ids = {f"s/{number}" for number in range(0, 200, 2)}
    at_once = list(mix.shuffled(tmp_path, ids, 1))
    monkeypatch.setattr(mix, "_MEMORY", 300)
    assert list(mix.shuffled(tmp_path, ids, 1)) == at_once
    assert {document.id for document in at_once} == ids
    assert [document.id for document in at_once] != sorted(ids)
    assert list(mix.shuffled(tmp_path, ids, 2)) != at_once


# ----------------------------------------------------------------------------------------------------------------------
# The stage


def corpus(root: Path, sources: dict[str, int], change: Any = lambda params: None, **weights: float) -> dict[str, Any]:
    """Run the stage over so many documents of each source; its metrics come back."""
    declared = {name: project.folder(name, weight=weights.get(name, 1.0)) for name in sources}
    project.make(root, declared, lambda params: (params["mix"].update(tokens=3000, val=0.1, test=0.2), change(params)))
    documents = [
        Document(f"{name}/{number}", f"{name} document {number} has a few words. " * 3, "u", name, "MIT")
        for name, count in sources.items()
        for number in range(count)
    ]
    write_documents(root / "data/dedup/documents", documents)
    return project.run(root, "mix")


def ids(root: Path, split: str) -> list[str]:
    return [document.id for document in read_documents(root / "data/mix" / split)]


def of(source_name: str, found: list[str]) -> set[str]:
    return {id_ for id_ in found if id_.startswith(f"{source_name}/")}


def test_the_split_stays_whatever_else_changes(tmp_path: Path) -> None:
    corpus(tmp_path / "base", {"a": 300, "b": 300})
    held_out = {split: of("a", ids(tmp_path / "base", split)) for split in ("val", "test")}
    assert all(held_out.values())
    runs = {
        "seed": lambda: corpus(tmp_path / "seed", {"a": 300, "b": 300}, lambda params: params.update(seed=7)),
        "tokens": lambda: corpus(tmp_path / "tokens", {"a": 300}, lambda params: params["mix"].update(tokens=500)),
        "sources": lambda: corpus(tmp_path / "sources", {"c": 50, "a": 300}),
        "weights": lambda: corpus(tmp_path / "weights", {"a": 300, "b": 300}, a=0.1, b=5.0),
    }
    for name, run in runs.items():
        run()
        for split, expected in held_out.items():
            assert of("a", ids(tmp_path / name, split)) == expected
        assert not of("a", ids(tmp_path / name, "train")) & (held_out["val"] | held_out["test"])


def test_what_is_chosen_of_a_source_depends_on_no_other(tmp_path: Path) -> None:
    """A larger budget adds documents, and a smaller one leaves a part of the same."""
    corpus(tmp_path / "alone", {"a": 300})
    corpus(tmp_path / "beside", {"a": 300, "b": 300})
    more, fewer = (of("a", ids(tmp_path / name, "train")) for name in ("alone", "beside"))
    assert 0 < len(fewer) < len(more)
    assert fewer < more


def test_the_mixture_has_its_shares_and_is_shuffled(tmp_path: Path) -> None:
    metrics = corpus(tmp_path, {"a": 300, "b": 300, "short": 10, "empty": 0, "off": 50}, a=1.0, b=3.0, off=0.0)
    train = ids(tmp_path, "train")
    found = metrics["sources"]
    assert found["b"]["tokens_estimated"] == pytest.approx(3 * found["a"]["tokens_estimated"], rel=0.1)
    assert found["a"]["requested_share"] == pytest.approx(1 / 5)
    assert found["short"]["reached_share"] < found["short"]["requested_share"]
    assert found["empty"]["documents"] == {"available": 0, "train": 0, "val": 0, "test": 0}
    assert found["off"]["documents"] == {"available": 50, "train": 0, "val": 0, "test": 0}
    assert sum(share["reached_share"] for share in found.values()) == pytest.approx(1, abs=1e-3)
    assert Counter(id_.split("/")[0] for id_ in train) == {
        name: values["documents"]["train"] for name, values in found.items() if values["documents"]["train"]
    }
    first_half = Counter(id_.split("/")[0] for id_ in train[: len(train) // 2])
    assert 0.3 < first_half["b"] / found["b"]["documents"]["train"] < 0.7
    assert len(train) == len(set(train))
    assert sorted(path.name for path in (tmp_path / "data/mix").iterdir()) == ["test", "train", "val"]


def test_a_shortfall_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus(tmp_path, {"a": 300, "short": 5})
    assert "short falls short: 1,500 tokens requested (50.0%)" in capsys.readouterr().err


def test_an_empty_corpus_is_an_error_with_counts(tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"no training documents .*a 0, off 20") as error:
        corpus(tmp_path, {"a": 0, "off": 20}, off=0.0)
    assert "reports/clean" in str(error.value)
    assert not (tmp_path / "data/mix").exists()


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    outputs = []
    for name in ("one", "two"):
        corpus(tmp_path / name, {"a": 100, "b": 100})
        paths = sorted((tmp_path / name / "data/mix").rglob("*.parquet"))
        outputs.append(
            [path.read_bytes() for path in paths] + [(tmp_path / name / "reports/mix/metrics.json").read_bytes()]
        )
    assert outputs[0] == outputs[1]
