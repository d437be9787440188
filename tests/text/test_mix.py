import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.params.text import Mix
from lib.pipeline.errors import SmeltError
from lib.text import mix, shuffle
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


def source(weight: float | str, sizes: list[int], bytes_per_token: float = 2.0, epochs: int = 1) -> mix.Source:
    """A source whose training documents lie one on each of the first steps of its order."""
    found = mix.Source(weight, epochs, "MIT", bytes_per_token=bytes_per_token)
    found.train_bytes[: len(sizes)] = sizes
    found.train_documents[: len(sizes)] = 1
    return found


def test_shares_of_tokens_by_hand() -> None:
    sources = {
        "rich": source(3.0, [100] * 100),  # 50 tokens each
        "dense": source(1.0, [100] * 100, bytes_per_token=5.0),  # 20 tokens each
        "small": source(2.0, [100] * 3, epochs=3),  # 2 whole passes of 150 tokens, and 100 tokens of a third
        "off": source(0.0, [100] * 100),
    }
    mix.share_out(sources, 1200)
    assert {name: found.requested_tokens for name, found in sources.items()} == {
        "rich": 600.0,
        "dense": 200.0,
        "small": 400.0,
        "off": 0.0,
    }
    assert {name: found.taken for name, found in sources.items()} == {"rich": 12, "dense": 10, "small": 8, "off": 0}
    assert {name: found.tokens for name, found in sources.items()} == {
        name: f.requested_tokens for name, f in sources.items()
    }
    assert sources["dense"].bytes == 1000
    assert sources["small"].epochs_reached == pytest.approx(8 / 3)
    assert [sources["small"].times(step / mix.STEPS) for step in range(3)] == [3, 3, 2]
    assert [sources["off"].times(step / mix.STEPS) for step in range(3)] == [0, 0, 0]


def test_all_takes_everything_and_the_others_share_the_rest() -> None:
    sources = {
        "own": source("all", [100] * 4, epochs=2),  # 200 tokens, twice
        "none": source("all", []),
        "a": source(3.0, [100] * 100),
        "b": source(1.0, [100] * 100),
    }
    mix.share_out(sources, 1200)
    assert {name: found.tokens for name, found in sources.items()} == {"own": 400, "none": 0, "a": 600, "b": 200}
    assert sum(found.requested_share for found in sources.values()) == pytest.approx(1)
    assert sources["own"].requested_share == pytest.approx(1 / 3)


def test_all_alone_is_the_mixture() -> None:
    sources = {"own": source("all", [100] * 4)}
    mix.share_out(sources, 1200)
    assert sources["own"].tokens == 200
    assert sources["own"].requested_share == 1


def test_all_with_more_than_the_mixture_is_an_error_with_figures() -> None:
    sources = {"own": source("all", [100] * 30, epochs=2), "notes": source("all", [100]), "a": source(1.0, [100] * 100)}
    with pytest.raises(SmeltError) as error:
        mix.share_out(sources, 1200)
    assert str(error.value).splitlines() == [
        "sources of weight `all` have more than mix.tokens: 1,200:",
        "  own: 3,000 tokens by estimate in 2 epochs",
        "  notes: 50 tokens by estimate in 1 epoch",
        "Raise mix.tokens to 3,050 or more, or give them fewer epochs, or a number for a weight",
    ]


def shortages() -> dict[str, mix.Source]:
    return {
        "small": source(1.0, [100] * 5, epochs=2),  # 500 tokens in all
        "enough": source(1.5, [100] * 100),
        "little": source(1.5, [100] * 12),  # 600
        "own": source("all", [100] * 4),  # 200
        "nothing": source(1.0, []),
    }


def test_every_source_that_is_too_small_is_named_with_what_to_do() -> None:
    with pytest.raises(SmeltError) as error:
        mix.share_out(shortages(), 5200)
    lines = str(error.value).splitlines()
    assert lines[0] == "the mixture (mix.tokens: 5,200) cannot have the shares that params.yaml asks for:"
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == ["small", "little", "nothing"]
    assert lines[1].startswith(
        "  small: weight 1 asks for 1,000 tokens (19.2%), and 2 epochs of its training documents have 500. "
        "Raise its epochs to 4, or lower its weight to 0.442, or lower mix.tokens to 2,700, or give it the weight `all`"
    )
    assert "set its weight to 0" in lines[3]


@pytest.mark.parametrize("way", ["epochs", "weight", "tokens"])
def test_what_the_error_says_is_enough(way: str) -> None:
    sources, tokens = shortages(), 5200
    del sources["little"], sources["nothing"]
    with pytest.raises(SmeltError) as error:
        mix.share_out(sources, tokens)
    epochs, weight, fewer = re.search(
        r"epochs to (\S+), .* weight to (\S+), .*tokens to (\S+)", str(error.value)
    ).groups()
    if way == "epochs":
        sources["small"].epochs = int(epochs)
    elif way == "weight":
        sources["small"].weight = float(weight)
    else:
        tokens = int(fewer.replace(",", ""))
    mix.share_out(sources, tokens)
    assert sources["small"].tokens == pytest.approx(sources["small"].requested_tokens, rel=0.11)  # a document is 5%
    # The next less is not: the advice is no larger than it must be.
    again = shortages()["small"]
    if way == "epochs":
        assert again.available * (int(epochs) - 1) < sources["small"].requested_tokens


def test_tokens_are_estimated_per_source(tmp_path: Path) -> None:
    """Words that repeat take fewer tokens per byte than digits, which are a token each."""
    documents = [
        Document(f"words/{n}", "the same few words again and again " * 20, "", "words", "MIT") for n in range(20)
    ]
    documents += [Document(f"digits/{n}", str(7**500 + n), "", "digits", "MIT") for n in range(20)]
    write_documents(tmp_path, documents)
    sources = {name: mix.Source(1.0, 1, "MIT") for name in ("words", "digits", "empty")}
    mix.survey(tmp_path, sources, Mix(tokens=1, val=0.01, test=0.01), seed=1)
    mix.estimate_bytes_per_token(sources)
    assert sources["words"].bytes_per_token > 4
    assert sources["digits"].bytes_per_token == pytest.approx(1.0)


# ----------------------------------------------------------------------------------------------------------------------
# Order


def test_the_sample_is_the_beginning_of_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an independent way: sort all, and take until there is enough."""
    monkeypatch.setattr(mix, "TRIAL_BYTES", 1000)
    drawn = random.Random(1)
    for _ in range(50):
        documents = [(drawn.random(), f"d{n}", drawn.randint(1, 300)) for n in range(drawn.randint(0, 40))]
        expected, size = [], 0
        for _, id_, length in sorted(documents):
            if size < 1000:
                expected, size = [*expected, id_], size + length
        sample = mix.Sample()
        for place, id_, length in documents:
            sample.offer(place, id_, length, lambda id_=id_: id_)
        assert sample.texts == expected


def test_documents_come_in_the_order_of_their_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random.Random(1)
    keys = {f"s/{n}": drawn.choice([drawn.random(), 0.0, 0.5, 1 - 2**-53]) for n in range(500)}
    orders = []
    for part, buffer in ((10**9, 10**9), (300, 10**9), (300, 100), (5, 1)):
        monkeypatch.setattr(shuffle, "PART_BYTES", part)
        monkeypatch.setattr(shuffle, "_BUFFER_BYTES", buffer)
        shuffled = shuffle.Shuffle(tmp_path, size=500 * 9)
        for id_, key in keys.items():
            shuffled.add(key, Document(id_, f"té\nxt {id_}", "u", "s", "MIT", '[{"a": 1}]'))
        orders.append(list(shuffled))
    assert [document.id for document in orders[0]] == sorted(keys, key=lambda id_: (keys[id_], id_))
    assert all(order == orders[0] for order in orders)
    assert orders[0][0].text.startswith("té\nxt s/")


# ----------------------------------------------------------------------------------------------------------------------
# The stage


def corpus(root: Path, sources: dict[str, int], change: Any = lambda params: None, **given: Any) -> dict[str, Any]:
    """Run the stage over so many documents of each source, with a weight or more `given`; its metrics come back."""
    fields = {name: value if isinstance(value, dict) else {"weight": value} for name, value in given.items()}
    declared = {name: project.folder(name, **fields.get(name, {})) for name in sources}
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
        "sources": lambda: corpus(tmp_path / "sources", {"c": 50, "a": 300}, c="all"),
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
    metrics = corpus(
        tmp_path,
        {"a": 300, "b": 300, "own": 10, "empty": 0, "off": 50},
        a=1.0, b=3.0, own="all", empty="all", off=0.0,
    )  # fmt: skip
    train = ids(tmp_path, "train")
    found = metrics["sources"]
    assert found["b"]["tokens_estimated"] == pytest.approx(3 * found["a"]["tokens_estimated"], rel=0.1)
    assert found["own"]["documents"]["train"] == len(of("own", train)) == 10 - len(held_out(tmp_path, "own"))
    for share in found.values():
        assert share["reached_share"] == pytest.approx(share["requested_share"], abs=0.02)
        assert share["tokens_estimated"] == pytest.approx(share["tokens_requested"], abs=30)  # a document
    assert sum(share["requested_share"] for share in found.values()) == pytest.approx(1, abs=1e-3)
    assert metrics["tokens_estimated"] == pytest.approx(metrics["tokens_requested"], abs=60)
    assert found["empty"]["documents"] == {"available": 0, "train": 0, "val": 0, "test": 0}
    assert found["off"]["documents"] == {"available": 50, "train": 0, "val": 0, "test": 0}
    assert Counter(id_.split("/")[0] for id_ in train) == {
        name: values["documents"]["train"] for name, values in found.items() if values["documents"]["train"]
    }
    first_half = Counter(id_.split("/")[0] for id_ in train[: len(train) // 2])
    assert 0.3 < first_half["b"] / found["b"]["documents"]["train"] < 0.7
    assert len(train) == len(set(train))
    assert sorted(path.name for path in (tmp_path / "data/mix").iterdir()) == ["test", "train", "val"]


def held_out(root: Path, name: str) -> set[str]:
    return of(name, ids(root, "val")) | of(name, ids(root, "test"))


def test_repeats_stay_within_the_epochs_and_far_apart(tmp_path: Path) -> None:
    """2.6 passes of a small source beside one that is not repeated."""
    metrics = corpus(
        tmp_path,
        {"small": 60, "large": 600},
        lambda params: params["mix"].update(tokens=7400),
        small={"weight": 1.0, "epochs": 3},
        large=1.5,
    )
    train = ids(tmp_path, "train")
    own, copies = [id_ for id_ in train if id_.startswith("small/")], Counter(of_all(train, "small"))
    passes = metrics["sources"]["small"]["epochs"]
    assert 2 < passes < 3
    assert set(copies) == {f"small/{n}" for n in range(60)} - held_out(tmp_path, "small")
    assert set(copies.values()) == {2, 3}
    assert passes == pytest.approx(len(own) / len(copies), abs=1e-4)
    # Each pass is over before the next begins, so a document comes again only after all the others.
    for turn in range(2):
        assert len(set(own[turn * len(copies) : (turn + 1) * len(copies)])) == len(copies)
    assert own[: len(copies)] != own[len(copies) : 2 * len(copies)]
    # And the source is as dense at the end as at the beginning.
    third = len(train) // 3
    counts = [len(of_all(train[part * third : (part + 1) * third], "small")) for part in range(3)]
    assert max(counts) - min(counts) < 0.35 * len(own) / 3 + 4 * (len(own) / 3) ** 0.5


def of_all(train: list[str], name: str) -> list[str]:
    return [id_ for id_ in train if id_.startswith(f"{name}/")]


def test_nothing_held_out_is_trained_on_not_even_as_a_copy(tmp_path: Path) -> None:
    """Through `dedup` and `mix`: the same texts, shouted or changed a little, are in two sources."""
    root = project.make(
        tmp_path,
        {"a": project.folder("a", weight="all", epochs=3), "b": project.folder("b", weight="all", epochs=2)},
        lambda params: params["mix"].update(tokens=10**6, val=0.1, test=0.2),
    )
    drawn = random.Random(1)
    texts = [" ".join(f"w{drawn.randint(0, 5000)}" for _ in range(80)) for _ in range(120)]
    near = [text.rpartition(" ")[0] + " end" for text in texts]
    for name, copies in (("a", texts), ("b", [*near[::2], *(text.upper() for text in texts[1::2]), "only b " * 30])):
        documents = [Document(f"{name}/{n}", text, "u", name, "MIT") for n, text in enumerate(copies)]
        write_documents(root / f"data/clean/{name}/documents", documents)
    project.run(root, "dedup")
    metrics = project.run(root, "mix")
    assert metrics["sources"]["a"]["documents"]["available"] == 120
    splits = {split: list(read_documents(root / "data/mix" / split)) for split in ("train", "val", "test")}
    assert all(splits.values())
    shingles = {
        split: {
            tuple(words[at : at + 5])
            for d in found
            for words in [d.text.lower().split()]
            for at in range(len(words) - 4)
        }
        for split, found in splits.items()
    }
    for split in ("val", "test"):
        assert not {d.id for d in splits[split]} & {d.id for d in splits["train"]}
        assert not shingles[split] & shingles["train"]
        assert len({d.id for d in splits[split]}) == len(splits[split])
    assert set(Counter(d.id for d in splits["train"] if d.source == "a").values()) == {3}


def test_a_source_that_is_too_small_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"short: weight 1 asks for 1,500 tokens \(50.0%\), and 1 epoch of"):
        corpus(tmp_path, {"a": 300, "short": 5})
    assert not (tmp_path / "data/mix").exists()


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
