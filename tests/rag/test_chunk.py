import random
from itertools import pairwise

import pytest
from tokenizers import Tokenizer

from lib.rag.chunk import Chunker
from lib.rag.passage import Passage
from tests.rag.tiny import document
from tests.rag.tiny import tokenizer as tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


PIECES = ["the ", "list", "buckets. ", "\n", "\n\n", "x" * 150, "漢字。", "漢字", "Ünïcödé ", "a-b_c/d ", "🙂",
          "\u200b", "=" * 90, "What? ", '"Yes!" ', "1234567 ", "[SEP]", "\t", "e\u0301 ",
          "\n\n# A heading\n\n", "\n\n```\n", "\n\n    code\n"]  # fmt: skip


def texts() -> list[str]:
    draw = random.Random(7)
    return ["".join(draw.choices(PIECES, k=draw.randrange(1, 120))) for _ in range(60)]


@pytest.mark.parametrize(("chunk", "overlap"), [(16, 0), (16, 15), (40, 8), (200, 20)])
def test_passages_cover_the_text_within_the_limit(tokenizer: Tokenizer, chunk: int, overlap: int) -> None:
    chunker = Chunker(tokenizer, chunk, overlap, 0)
    for text in texts():
        covered = [c.isspace() for c in text]
        starts = []
        for passage in chunker.passages(document("a", text)):
            assert text[passage.start : passage.start + len(passage.text)] == passage.text == passage.text.strip()
            assert len(tokenizer.encode(passage.text, add_special_tokens=False).ids) <= chunk
            covered[passage.start : passage.start + len(passage.text)] = [True] * len(passage.text)
            starts.append(passage.start)
        assert all(covered)
        assert starts == sorted(set(starts))  # they name passages


def test_a_short_document_is_one_passage_with_its_title(tokenizer: Tokenizer) -> None:
    (passage,) = Chunker(tokenizer, 50, 10, 0).passages(document("a", "  the list\n\nthe bucket \n", title="List"))
    assert passage == Passage("docs/a:2", "docs/a", "docs", "List", 2, 22, "the list\n\nthe bucket")


def test_cuts_at_paragraphs_before_sentences_before_words(tokenizer: Tokenizer) -> None:
    chunker = Chunker(tokenizer, 16, 0, 0)
    first, second = "the list. " * 3, "the bucket. the list. the bucket."  # 9 and 9 tokens
    assert [p.text for p in chunker.passages(document("a", f"{first}\n\n{second}"))] == [first.strip(), second]
    sentences = ["the " * 8 + ".", "list " * 8 + "."]
    assert [p.text for p in chunker.passages(document("a", " ".join(sentences)))] == sentences
    assert [p.text for p in chunker.passages(document("a", "the " * 20))] == ["the " * 15 + "the", "the the the the"]


def test_a_continued_passage_repeats_the_end_of_the_one_before(tokenizer: Tokenizer) -> None:
    words = [f"the{n}" for n in range(100, 160)]  # 4 tokens each
    passages = list(Chunker(tokenizer, 40, 9, 0).passages(document("a", " ".join(words))))
    assert [passage.text.split()[:3] for passage in passages[:2]] == [
        ["the100", "the101", "the102"],
        ["the108", "the109", "the110"],
    ]
    for before, after in pairwise(passages):
        assert before.text.split()[-2:] == after.text.split()[:2]


@pytest.mark.parametrize("text", ["", " \n\n ", "\t"])
def test_nothing_gives_no_passage(tokenizer: Tokenizer, text: str) -> None:
    assert list(Chunker(tokenizer, 16, 4, 0).passages(document("a", text))) == []


MANUAL = """# Buckets

the list of the bucket.

## Making one

the list. the list. the list. the bucket.

```
the list

the bucket
the list
```

## Removing one

the bucket. the bucket. the bucket. the bucket. the bucket.
"""


def test_sections_become_passages_under_their_headings(tokenizer: Tokenizer) -> None:
    found = list(Chunker(tokenizer, 40, 5, 30).passages(document("a.md", MANUAL, title="Manual")))
    assert [passage.heading for passage in found] == ["Manual > Buckets", "Manual > Buckets > Making one",
                                                      "Manual > Buckets > Removing one"]  # fmt: skip
    assert found[0].text == "# Buckets\n\nthe list of the bucket."
    assert found[1].text.startswith("## Making one")
    assert found[1].text.endswith("```")
    assert found[2].text.startswith("## Removing one")  # nothing of the section before is repeated
    assert all(MANUAL[one.start : one.end] == one.text for one in found)


def test_a_block_of_code_is_not_cut_where_it_fits(tokenizer: Tokenizer) -> None:
    for chunk in (22, 26, 30):
        found = list(Chunker(tokenizer, chunk, 0, 0).passages(document("a.md", MANUAL)))
        (block,) = (one.text for one in found if "the list\n\nthe bucket" in one.text)
        assert "```\nthe list\n\nthe bucket\nthe list\n```" in block


def test_tiny_sections_are_joined(tokenizer: Tokenizer) -> None:
    text = "\n\n".join(f"# H{n}\n\nthe list" for n in range(12))
    found = list(Chunker(tokenizer, 40, 5, 0).passages(document("a.md", text)))
    assert 1 < len(found) < 12
    assert found[0].heading == "H0"


def test_what_is_embedded_has_the_headings_and_fits(tokenizer: Tokenizer) -> None:
    chunker = Chunker(tokenizer, 40, 5, 12)
    for passage in chunker.passages(document("a.md", MANUAL * 3, title="the list " * 20)):
        read = chunker.reading(passage)
        assert read.endswith(passage.text)
        assert len(tokenizer.encode(read, add_special_tokens=False).ids) <= 52
        assert read.startswith("the list the list")
    (short,) = chunker.passages(document("b", "List\n\nthe list", title="List"))
    assert chunker.reading(short) == short.text  # it shows its heading
