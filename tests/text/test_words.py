"""spaCy's own tokeniser is the reference for ours."""

import functools

import numpy as np
import pytest
import spacy
from datatrove.utils.text import split_into_sentences, split_into_words

from lib.text.words import _EXCEPTIONS, Vocabulary, split_chunk, word_hash
from tests.text import corpus


@functools.cache
def nlp() -> spacy.Language:
    return spacy.blank("en")


def spacy_words(text: str) -> list[str]:
    return [token.text for token in nlp().tokenizer(text)]


@pytest.mark.parametrize(
    "chunk",
    [
        "word", "word.", "(word)", '"Don\'t!"', "we'll've", "cannot", "U.S.", "Mr.", "e.g.,", "10km", "3.5%", "$5.00",
        "US$7", "a[i:]", "f(x)):", "...", "wait...", "......", "and/or", "(and/or)", "well-known", "1-2", "x=y",
        "a,b", "Hello.World", "http://example.org/a?b=c", "see(www.example.org).", "me@example.org", "10.0.0.1",
        "8.8.8.8", ":)", "ok:-)", "its", "it's", "Ill", "I'll", "lets", "let's", "this's", "'tis", "12pm", "°C.",
        "été.", "日本語。", "——", "a--b", "C++", "#include", "_name_", "__init__.py", "'''", "`code`", "“quoted”", "’s",
        "don’t", "1,000,000", "+5", "-x", "~user", "[1]", "{a:1}", "a/b/c", "x>y", "5*3", "2^10", "Ph.D.", "vs.",
        "..a", "a..", "§3", "5€", "…", "\\n",
    ],
)  # fmt: skip
def test_a_chunk_is_split_as_spacy_splits_it(chunk: str) -> None:
    assert split_chunk(chunk) == spacy_words(chunk)


def test_exceptions_are_those_of_spacy() -> None:
    theirs = {text: tuple(part[65] for part in parts) for text, parts in nlp().tokenizer.rules.items() if text.strip()}
    assert {text: parts for text, parts in _EXCEPTIONS.items() if theirs.get(text) != parts} == {}
    assert {text for text in theirs if tuple(split_chunk(text)) != theirs[text]} == set()


def test_words_of_documents_are_those_of_datatrove() -> None:
    vocabulary, differ, total = Vocabulary(), 0, 0
    for text in corpus.documents():
        words, theirs = vocabulary.split(text), split_into_words(text)
        total += len(theirs)
        if words.hashes.tolist() != [word_hash(word) for word in theirs]:
            differ += len(theirs)
        else:
            assert words.lengths.tolist() == [len(word) for word in theirs]
    assert total > 50_000
    assert differ < 0.001 * total


def test_sentences_of_lines_are_those_of_datatrove() -> None:
    vocabulary = Vocabulary()
    lines = [line for text in corpus.documents() for line in map(str.strip, text.splitlines()) if line][::3]
    assert len(lines) > 1000
    for line in lines:
        theirs = len(split_into_sentences(line))
        assert vocabulary.count_sentences(line, 1000) == theirs, line
        assert vocabulary.count_sentences(line, 2) == min(theirs, 2)


def test_a_full_vocabulary_starts_anew_and_says_the_same() -> None:
    texts, small, large = corpus.documents()[:80], Vocabulary(limit=50), Vocabulary()
    for text in texts:
        for ours, theirs in zip(small.split(text), large.split(text), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(small._chunks) < len(large._chunks) / 4


def test_a_long_chunk_takes_no_time_of_its_square() -> None:
    """Rules look back and forth, so that these would take minutes, not a second."""
    for chunk in ("(" * 10**5, "a." * 50_000, "x@" * 50_000, "." * 10**6):
        assert "".join(split_chunk(chunk)) == chunk
