import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.text.documents import Document, read_documents, read_table, write_documents
from tests.text import planted, project

random.seed(0)
WORDS = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 9))) for _ in range(3000)]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_WORKERS", "1")


def words(seed: int, count: int = 200) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


def changed(base: list[str], number: int) -> list[str]:
    """`base` with its last `number` words replaced."""
    return base[: len(base) - number] + words(10_000 + number, number)


def prepare(
    root: Path, texts: dict[str, dict[str, str]], sources: dict[str, dict], change: Callable[[dict], None]
) -> None:
    """A project with cleaned documents {source: {name: text}}; `sources` changes what params.yaml says of them."""
    named = {source: project.folder(source, **sources.get(source, {})) for source in texts}
    project.make(root, named, change)
    for source, found in texts.items():
        licence = named[source]["licence"]
        documents = [Document(f"{source}/{name}", text, "u", source, licence) for name, text in found.items()]
        write_documents(root / f"data/clean/{source}/documents", documents)


def dedup(
    root: Path,
    texts: dict[str, dict[str, str]],
    sources: dict[str, dict] | None = None,
    change: Callable[[dict], None] = lambda params: None,
) -> tuple[list[str], dict[str, str], dict]:
    """Run the stage: ids kept, reasons by id, metrics."""
    prepare(root, texts, sources or {}, change)
    metrics = project.run(root, "dedup")
    rows = [row for batch in read_table(root / "data/dedup/rejects") for row in batch.to_pylist()]
    kept = [document.id for document in read_documents(root / "data/dedup/documents")]
    return kept, {row["id"]: row["reason"] for row in rows}, metrics


BASE = " ".join(words(1))
CORPUS = {
    "empty": {},
    "own": {"unique": " ".join(words(2)), "copy": BASE, "short": "two words", "tiny": "a b"},
    "zeta": {
        "shout": BASE.upper().replace(" ", "\n"),
        "near": " ".join(changed(words(1), 4)),
        "half": " ".join(changed(words(1), 100)),
        "short again": "Two  words",
    },
    "alpha": {"original": BASE, "near": " ".join(changed(words(2), 3)), "other": " ".join(words(3))},
}


def test_the_copy_of_the_weightiest_source_stays(tmp_path: Path) -> None:
    kept, reasons, metrics = dedup(tmp_path, CORPUS, {"own": {"weight": 3.0}, "zeta": {"weight": 2.0}})
    assert kept == ["alpha/other", "own/unique", "own/copy", "own/short", "own/tiny", "zeta/half"]
    assert reasons == {
        "zeta/shout": "exact_duplicate",
        "zeta/near": "near_duplicate",
        "zeta/short again": "exact_duplicate",
        "alpha/original": "exact_duplicate",
        "alpha/near": "near_duplicate",
    }
    assert metrics == {
        "documents_in": 11,
        "documents_out": 6,
        "rejected": 5,
        "reasons": {"exact_duplicate": 3, "near_duplicate": 2, "contaminated": 0, "repeated_paragraphs": 0},
        "trimmed": 0,
        "sources": {
            "alpha": {"documents_in": 3, "documents_out": 1},
            "empty": {"documents_in": 0, "documents_out": 0},
            "own": {"documents_in": 4, "documents_out": 4},
            "zeta": {"documents_in": 4, "documents_out": 1},
        },
        "pairs": {"candidates": metrics["pairs"]["candidates"], "similar": metrics["pairs"]["similar"]},
        "decontamination": {},
    }
    removed = (tmp_path / "data/dedup/removed.jsonl").read_text().splitlines()
    assert '{"id": "alpha/near", "reason": "near_duplicate", "because": ["own/unique"], "words": ""}' in removed


@pytest.mark.parametrize(
    ("of_a", "of_b", "stays"),
    [
        ({"licence": "LicenseRef-Unknown", "weight": 9.0}, {"licence": "CC-BY-SA-4.0", "weight": 0.1}, "b/2"),
        ({"licence": "CC-BY-SA-4.0", "weight": 9.0}, {"licence": "MIT", "weight": 0.1}, "b/2"),
        ({"licence": "MIT", "weight": 0.5}, {"licence": "Apache-2.0", "weight": 0.6}, "b/2"),
        ({"licence": "MIT", "weight": 0.6}, {"licence": "MIT", "weight": 0.6}, "a/1"),
    ],
    ids=["accepted", "no share-alike", "weight", "id"],
)
def test_the_better_licence_stays_then_the_weight_then_the_id(
    tmp_path: Path, of_a: dict, of_b: dict, stays: str
) -> None:
    for near in (0, 4):
        texts = {"a": {"1": BASE}, "b": {"2": " ".join(changed(words(1), near))}}
        kept, _, _ = dedup(tmp_path / str(near), texts, {"a": of_a, "b": of_b})
        assert kept == [stays]


def test_a_document_goes_only_if_one_that_stays_is_similar(tmp_path: Path) -> None:
    """In a chain a ~ b ~ c, c is no copy of a: b goes and c stays, in every order of the documents."""
    chain = {"a": words(4), "b": words(4)[:170] + words(5, 30), "c": words(4)[:145] + words(6, 25) + words(5, 30)}
    for order in ("abc", "cab", "bca"):
        kept, reasons, _ = dedup(tmp_path / order, {"s": {name: " ".join(chain[name]) for name in order}})
        assert sorted(kept) == ["s/a", "s/c"]
        assert reasons == {"s/b": "near_duplicate"}


def test_numbers_tell_documents_apart(tmp_path: Path) -> None:
    table = {str(n): " ".join(f"made in {WORDS[i]}: {n * 1000 + i} tons" for i in range(50)) for n in (1, 2)}
    kept, _, _ = dedup(tmp_path, {"s": table})
    assert len(kept) == 2


def test_another_name_throughout_is_another_subject(tmp_path: Path) -> None:
    """Two pages of a manual differ in no more words than a sloppy copy does, but always in the same one."""
    page = "To {0} a vault, name the vault. The command ``{0}-vault`` will {0} it: $ store {0}-vault --name example "
    page += "The output lists the vault, its region, its owner, when it was made, and how large it has become since. "
    page += "More is in the guide for administrators, under the heading Storage, and in the reference of the program."
    pages = {verb: page.format(verb) for verb in ("delete", "create")}
    pages["sloppy"] = page.format("delete").replace("guide", "book").replace("larger", "big").replace("heading", "name")
    kept, reasons, _ = dedup(tmp_path, {"s": pages})
    assert kept == ["s/delete", "s/create"]
    assert reasons == {"s/sloppy": "near_duplicate"}


def test_paragraphs_of_many_documents_go_from_one_source_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.text.paragraphs._PART", 7)  # several parts, as in a large corpus
    monkeypatch.setattr("lib.text.paragraphs._BATCH", 5)
    banner, menu = "We use cookies to make this site better.", "Home\nAbout"  # the menu is too short to be looked at
    own = [" ".join(words(20 + number, 30)) for number in range(4)]
    texts = {
        "web": {
            **{str(n): f"{menu}\n\n{banner.upper() if n else banner}\n \n{text}" for n, text in enumerate(own[:3])},
            "banner": banner,
        },
        "mail": {"1": f"{banner}\n\n{own[3]}"},
    }

    def after(documents: int | None) -> tuple[dict[str, str], dict[str, str], dict]:
        root = tmp_path / str(documents)
        change = lambda params: params["dedup"].update(paragraphs={"documents": documents, "min_words": 5})  # noqa: E731
        _, reasons, metrics = dedup(root, texts, change=change)
        return {d.id: d.text for d in read_documents(root / "data/dedup/documents")}, reasons, metrics

    kept, reasons, metrics = after(4)
    assert kept == {
        "mail/1": texts["mail"]["1"],
        **{f"web/{n}": f"{menu}\n\n{own[n]}" for n in range(3)},
    }
    assert reasons == {"web/banner": "repeated_paragraphs"}
    assert metrics["trimmed"] == 3
    for documents in (5, None):
        kept, reasons, _ = after(documents)
        assert kept == {f"{source}/{name}": text for source, named in texts.items() for name, text in named.items()}
        assert not reasons


def outputs(root: Path) -> dict[Path, bytes]:
    files = [*(root / "data/dedup").rglob("*.parquet"), root / "data/dedup/removed.jsonl"]
    return {path.relative_to(root): path.read_bytes() for path in sorted(files)}


def test_the_number_of_workers_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dedup(tmp_path / "one", CORPUS)
    monkeypatch.setenv("SMELT_WORKERS", "3")
    dedup(tmp_path / "three", CORPUS)
    assert outputs(tmp_path / "one") == outputs(tmp_path / "three")


def test_the_order_does_not_matter(tmp_path: Path) -> None:
    """Of sources in dvc.yaml: the same bytes. Of documents in a source: the same documents."""
    texts = {s: {str(n): " ".join(changed(words(n % 7), n)) for n in range(30)} for s in ("a", "b", "c")}
    kept, reasons, _ = dedup(tmp_path / "0", texts)
    dedup(tmp_path / "1", dict(reversed(texts.items())))
    assert outputs(tmp_path / "0") == outputs(tmp_path / "1")
    shuffled = {s: dict(random.Random(3).sample(list(named.items()), len(named))) for s, named in texts.items()}
    again, reasons_again, _ = dedup(tmp_path / "2", shuffled)
    assert sorted(again) == sorted(kept)
    assert reasons_again == reasons
    assert len(kept) == 7


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    kept, reasons, _ = dedup(tmp_path, {"empty": {}, "short": {"a": "one two three", "b": "", "c": " "}})
    assert kept == ["short/a", "short/b", "short/c"]
    assert reasons == {}
    assert dedup(tmp_path / "none", {"empty": {}})[2]["documents_in"] == 0


def test_planted_copies_are_found_and_no_other_document_goes(tmp_path: Path) -> None:
    """The bounds of the benchmark (tests/benchmarks/dedup.py), on made-up text with real word frequencies."""
    draw = random.Random(8)
    frequencies = [1 / (rank + 1) for rank in range(len(WORDS))]
    texts = [" ".join(draw.choices(WORDS, frequencies, k=draw.randint(60, 300))) for _ in range(400)]
    base = [Document(f"base/{number}", text, "u", "base", "MIT") for number, text in enumerate(texts)]
    copies = planted.copies(base, "zopy", seed=9)
    corpus = {
        "base": {document.id.removeprefix("base/"): document.text for document in base},
        "zopy": {copy.id.removeprefix("zopy/"): copy.text for copy, _, _ in copies},
    }
    _, reasons, _ = dedup(tmp_path, corpus)
    recall = {share: [copy.id in reasons for copy, of_it, _ in copies if of_it == share] for share in planted.SHARES}
    assert all(recall[0.0])
    assert all(reasons[copy.id] == "exact_duplicate" for copy, share, _ in copies if not share)
    assert sum(recall[0.05]) / len(recall[0.05]) >= 0.99
    assert sum(recall[0.1]) / len(recall[0.1]) >= 0.95
    assert not any(id_.startswith("base/") for id_ in reasons)
