import random
from itertools import pairwise

import pytest

from lib.rag.chunk import Chunker
from lib.rag.embed import Embedder
from lib.rag.passage import Passage
from tests.rag.tiny import document

PIECES = ["the ", "list", "buckets. ", "\n", "\n\n", "x" * 150, "漢字。", "漢字", "Ünïcödé ", "a-b_c/d ", "🙂",
          "\u200b", "=" * 90, "What? ", '"Yes!" ', "1234567 ", "[SEP]", "\t", "e\u0301 "]  # fmt: skip


def texts() -> list[str]:
    draw = random.Random(7)
    return ["".join(draw.choices(PIECES, k=draw.randrange(1, 120))) for _ in range(60)]


@pytest.mark.parametrize(("chunk", "overlap"), [(16, 0), (16, 15), (40, 8), (200, 20)])
def test_passages_cover_the_text_within_the_limit(embedder: Embedder, chunk: int, overlap: int) -> None:
    chunker = Chunker(embedder.tokenizer, chunk, overlap)
    for text in texts():
        covered = [c.isspace() for c in text]
        starts = []
        for passage in chunker.passages(document("a", text)):
            assert text[passage.start : passage.start + len(passage.text)] == passage.text == passage.text.strip()
            assert len(embedder.tokenizer.encode(passage.text, add_special_tokens=False).ids) <= chunk
            covered[passage.start : passage.start + len(passage.text)] = [True] * len(passage.text)
            starts.append(passage.start)
        assert all(covered)
        assert starts == sorted(set(starts))  # they name passages


def test_a_short_document_is_one_passage_with_its_title(embedder: Embedder) -> None:
    (passage,) = Chunker(embedder.tokenizer, 50, 10).passages(
        document("a", "  the list\n\nthe bucket \n", title="List")
    )
    assert passage == Passage("docs/a:2", "docs/a", "docs", "List", 2, 22, "the list\n\nthe bucket")


def test_cuts_at_paragraphs_before_sentences_before_words(embedder: Embedder) -> None:
    chunker = Chunker(embedder.tokenizer, 16, 0)
    first, second = "the list. " * 3, "the bucket. the list. the bucket."  # 9 and 9 tokens
    assert [p.text for p in chunker.passages(document("a", f"{first}\n\n{second}"))] == [first.strip(), second]
    sentences = ["the " * 8 + ".", "list " * 8 + "."]
    assert [p.text for p in chunker.passages(document("a", " ".join(sentences)))] == sentences
    assert [p.text for p in chunker.passages(document("a", "the " * 20))] == ["the " * 15 + "the", "the the the the"]


def test_a_continued_passage_repeats_the_end_of_the_one_before(embedder: Embedder) -> None:
    words = [f"the{n}" for n in range(100, 160)]  # 4 tokens each
    passages = list(Chunker(embedder.tokenizer, 40, 9).passages(document("a", " ".join(words))))
    assert [passage.text.split()[:3] for passage in passages[:2]] == [
        ["the100", "the101", "the102"],
        ["the108", "the109", "the110"],
    ]
    for before, after in pairwise(passages):
        assert before.text.split()[-2:] == after.text.split()[:2]


@pytest.mark.parametrize("text", ["", " \n\n ", "\t"])
def test_nothing_gives_no_passage(embedder: Embedder, text: str) -> None:
    assert list(Chunker(embedder.tokenizer, 16, 4).passages(document("a", text))) == []
