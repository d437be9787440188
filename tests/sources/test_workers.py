import multiprocessing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from lib.params.sources import Limits
from lib.pipeline.errors import SmeltError
from lib.sources import workers
from tests.sources import misbehaving

LIMITS = Limits(seconds=0.15, memory_mib=100, document_mib=1, unpacked_mib=1, depth=1)


def read(folder: Path, files: dict[str, str], count: int = 2) -> list[tuple[str, str, str | None]]:
    """Place, text and reason of all that comes back."""
    for name, words in files.items():
        (folder / name).write_text(words)
    found = workers.read(sorted(folder.iterdir()), misbehaving.parse, LIMITS, count)
    return [(path.name + one.at, one.text, one.reason) for path, one in found]


@pytest.mark.parametrize(
    ("word", "reason"),
    [("spin", "too_slow"), ("eat", "too_much_memory"), ("crash", "parser_crashed")],
)
def test_what_misbehaves_is_rejected_and_the_rest_is_read(tmp_path: Path, word: str, reason: str) -> None:
    assert read(tmp_path, {"a": "fine", "b": f"fine {word} fine", "c": "fine"}) == [
        ("a!0", "a fine", None),
        ("b!0", "b fine", None),
        ("b!1", "", reason),
        ("b!2", "b fine", None),
        ("c!0", "c fine", None),
    ]


def test_a_parser_that_waits_for_nothing_is_ended(tmp_path: Path) -> None:
    assert read(tmp_path, {"a": "sleep", "b": "fine"}, 1) == [("a!0", "", "too_slow"), ("b!0", "b fine", None)]


def test_what_was_read_before_a_crash_is_kept_once(tmp_path: Path) -> None:
    assert read(tmp_path, {"a": "fine late fine"}) == [
        ("a!0", "a fine", None),
        ("a!1#1", "one", None),
        ("a!1#2", "two", None),
        ("a!1", "", "parser_crashed"),
        ("a!2", "a fine", None),
    ]


def test_no_document_pays_for_those_before_it(tmp_path: Path) -> None:
    """A parser that leaks reaches the limit of memory in a document that is not to blame."""
    found = read(tmp_path, {"a": "leak leak leak leak leak", "b": "leak leak"}, 1)
    assert [reason for _, _, reason in found] == [None] * 7


def test_order_and_results_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    files = {f"{number:02d}": "slow" if number % 5 == 0 else "fine crash late" for number in range(12)}
    results = [read(tmp_path, files, count) for count in (1, 4)]
    assert results[0] == results[1]
    assert [place[:2] for place, _, _ in results[0]] == sorted(place[:2] for place, _, _ in results[0])


def test_more_is_read_than_fits_through_a_pipe(tmp_path: Path) -> None:
    """The second file is read while nobody takes what is found in the first one; both come whole."""
    words = " ".join(["fine"] * 30_000)
    found = read(tmp_path, {"a": words, "b": words})
    assert [place for place, _, _ in found] == [f"{name}!{part}" for name in "ab" for part in range(30_000)]


@pytest.fixture
def others() -> list[BaseProcess]:
    """Processes of other tests, which live on."""
    return multiprocessing.active_children()


def test_a_mistake_of_the_user_is_raised_in_its_turn_and_no_worker_stays(
    tmp_path: Path, others: list[BaseProcess]
) -> None:
    (tmp_path / "a").write_text("fine slow fine")
    (tmp_path / "b").write_text("mistake")
    found = workers.read(sorted(tmp_path.iterdir()), misbehaving.parse, LIMITS, 2)
    assert [next(found)[1].text for _ in range(3)] == ["a fine", "a slow", "a fine"]
    with pytest.raises(SmeltError, match="a mistake in mistake"):
        next(found)
    assert set(multiprocessing.active_children()) <= set(others)


def test_stopping_early_ends_the_workers(tmp_path: Path, others: list[BaseProcess]) -> None:
    (tmp_path / "a").write_text("fine sleep")
    found = workers.read([tmp_path / "a"], misbehaving.parse, LIMITS, 1)
    next(found)
    assert len(multiprocessing.active_children()) > len(others)
    found.close()
    assert set(multiprocessing.active_children()) <= set(others)
