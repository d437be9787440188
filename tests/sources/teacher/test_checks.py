"""Each check on what it is there for, and on what it must let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.params.load import load
from lib.sources.teacher import ask
from lib.sources.teacher.checks import check, copied_share, support, unknown_names, unknown_numbers
from tests.text.project import REPOSITORY

RULES = load(REPOSITORY / "params.yaml").synthesize.checks
PASSAGE = """\
Mount Etna is an active stratovolcano on the east coast of Sicily, in the Metropolitan City of Catania. It lies above
the convergent plate margin between the African Plate and the Eurasian Plate. It is one of the tallest active volcanoes
in Europe, and the tallest peak in Italy south of the Alps, with a height of 3,403 metres. Its eruptions have been
recorded since 1500 BC, and farmers grow vines on the fertile soils of its lower slopes."""
PROMPT = ask.read_prompt("qa").about(PASSAGE)


def verdict(kind: str, **answer: str) -> str | None:
    found = check(kind, answer, PASSAGE, PROMPT, RULES)
    return found and found[0]


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Where does Mount Etna lie?", "On the east coast of Sicily.", None),
        ("How high is Mount Etna?", "It is 3,403 metres high.", None),
        ("What do farmers grow on Etna's slopes?", "They grow vines on its fertile soil.", None),
        ("What lies on the east coast of Sicily?", "Etna.", None),
        ("How high is Mount Etna?", "", "empty"),
        ("How high?", "It is 3,403 metres high.", "empty"),
        ("Tell me how high Mount Etna is.", "It is 3,403 metres high.", "not_a_question"),
        ("What does the passage say about Etna?", "It is an active volcano.", "refers_to_passage"),
        ("What kind of volcano is Etna?", "According to the text, it is active.", "refers_to_passage"),
        ("How high is Mount Etna?", "It is 3,430 metres high.", "unknown_number"),
        ("How high is Mount Etna?", "It is 3.4 km high.", "unknown_number"),
        ("Where does Mount Etna lie?", "On the east coast of Sardinia.", "unknown_name"),
        ("Where does Mount Fuji lie?", "On the east coast of Sicily.", "unknown_name"),
        ("Where does Mount Etna lie?", "Naples is close to it.", "unknown_name"),
        ("Is Mount Etna dangerous?", "Tourists are warned away by local authorities every summer.", "unknown_name"),
        ("Is Mount Etna dangerous?", "It has killed many people who climbed it without a guide.", "ungrounded"),
        (
            "Where does Mount Etna lie?",
            "Mount Etna lies on the east coast of Sicily. This makes it attractive to tourists who like adventures.",
            "ungrounded",
        ),
        ("Where does Mount Etna lie?", PASSAGE, "copied"),
        (
            "Read the passage below. Write one question that it answers, and the answer?",
            "It is an active volcano.",
            "refers_to_passage",
        ),
    ],
)
def test_questions_and_answers(question: str, answer: str, reason: str | None) -> None:
    assert verdict("qa", question=question, answer=answer) == reason


def test_instructions_that_come_back_are_copies() -> None:
    echoed = "The question must make sense to someone who has not seen it, so name what it is about, please?"
    copied = "must make sense to someone who has not seen it yet"
    assert copied_share(echoed, "The question must make sense to someone who has not seen it, so name what", 12) > 0.5
    assert copied_share(copied, PROMPT, 12) == 0


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        ("Etna, an active volcano in Sicily, is 3,403 metres high, and has erupted since 1500 BC.", None),
        ("An active volcano.", "empty"),
        ("Etna, an active volcano in Sicily, is 3,403 metres high, and has", "unfinished"),
        (PASSAGE.partition(". ")[0] + ".", "copied"),
        ("Etna is a volcano. " * 20, "not_shorter"),
        ("Etna is an active volcano in Sicily, the tallest peak of all of Europe and of the whole Mediterranean.",
         "unknown_name"),
    ],
)  # fmt: skip
def test_summaries(summary: str, reason: str | None) -> None:
    assert verdict("summary", summary=summary) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "Etna is an active volcano that stands on Sicily's east coast, in the Metropolitan City of Catania. There "
            "the African and the Eurasian plates converge. Few active volcanoes in Europe are taller, and in Italy no "
            "peak south of the Alps is: its height is 3,403 metres. Eruptions are on record since 1500 BC. On its "
            "lower slopes, where the soil is fertile, farmers grow vines.",
            None,
        ),
        ("Etna is an active volcano that stands on Sicily's east coast, in Catania.", "not_whole"),
        (PASSAGE, "copied"),
    ],
)
def test_rewrites(text: str, reason: str | None) -> None:
    assert verdict("rewrite", text=text) == reason


def test_support_counts_content_words_whatever_their_ending() -> None:
    assert support("The volcano was erupting.", PASSAGE) == 1
    assert support("Volcanoes, eruptions, sheep and goats", PASSAGE) == 0.5
    assert support("It is what it was.", PASSAGE) == 1  # nothing is said, nothing is wrong


def test_numbers_and_names_are_known_however_they_are_written() -> None:
    assert unknown_numbers("3403 or 3,403 or 1500", PASSAGE) == ["3403"]
    assert unknown_names("sicily's Volcano, the ETNA", PASSAGE) == []
    assert unknown_names("Étna and Vesuvius", PASSAGE) == ["Vesuvius"]


def test_the_share_that_is_copied_is_of_words_in_long_runs() -> None:
    given = "one two three four five six seven eight"
    assert copied_share("one two three four x", given, 4) == 0.8
    assert copied_share("one two three x four five six", given, 4) == 0
    assert copied_share("two three four five six y z y z y", given, 4) == 0.5
    assert copied_share("short", given, 4) == 0


@pytest.mark.parametrize("kind", ["qa", "summary", "rewrite"])
def test_the_prompts_can_be_read(kind: str) -> None:
    prompt = ask.read_prompt(kind)
    assert "THE PASSAGE" in prompt.about("THE PASSAGE")
    assert "{passage}" not in prompt.about("THE PASSAGE")
    assert all(f'"{field}"' in prompt.text for field in ask.FIELDS[kind])
    assert prompt.hash != ask.read_prompt("qa" if kind != "qa" else "summary").hash


def test_a_prompt_without_a_place_for_the_passage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("x")
    (tmp_path / "qa.txt").write_text("ask me")
    with pytest.raises(Exception, match=r"qa\.txt must have \{passage\} in it, once"):
        ask.read_prompt("qa", tmp_path)
    with pytest.raises(Exception, match=r"there is no prompt .*rewrite\.txt"):
        ask.read_prompt("rewrite", tmp_path)
