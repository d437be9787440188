"""Whether what a teacher wrote about a passage may be learnt from. A check has one reason; the first to fail counts.

    empty              a field has fewer words than `min_words`
    not_a_question     it does not end with a question mark
    unfinished         a summary or a rewrite that does not end as a sentence does
    refers_to_passage  it speaks of "the passage" or "this text", which its reader will not have seen
    copied             most of it stands word for word, in long runs, in the prompt
    not_shorter        a summary with more words than `summary_share` of the passage
    not_whole          a rewrite with fewer words than `rewrite_share` of the passage
    unknown_number     a number that the passage does not have
    unknown_name       a word with a capital, inside a sentence, that the passage does not have
    ungrounded         a sentence of which the passage has less than `support` of the content words

The last three are what can be told without a second model. The share of content words is K-Precision (Adlakha et al.
2023, https://arxiv.org/abs/2307.16877), there the measure that agrees best with people on whether an answer is faithful
to what it was given; it is blind to one wrong figure or name, which is what models invent. Of people's answers to
questions about a story 84% pass, of the same with one name or number exchanged 1% (tests/benchmarks/grounding.py). By
sentences, as small models add one of their own to one of the passage's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from lib.params.synthesis import Checks
from lib.text.conversations import sentences
from lib.text.word_hashes import words

_REFERS = re.compile(
    r"\b(?:the|this|that|following|given|above|provided|author(?:'s)?) (?:\w+ )?"
    r"(?:passage|text|document|article|excerpt|paragraph|author|snippet)\b|\baccording to (?:it|the above)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"""[.!?…。！？]["'”’»)\]`*]*\s*$""")
_NAME = re.compile(r"\b[^\W\d_a-zß-öø-ÿ][\w'’.-]*")
_SUFFIXES = ("ions", "ion", "ings", "ing", "ers", "ies", "ied", "ed", "er", "es", "ly", "s", "e", "y")
# Words that carry no content of their own, and those that any sentence may begin with.
_COMMON_WORDS = """
a about above across additionally after again against all along also although always am among an and another any are
around as at back be because been before behind being below beside besides between both but by called can could
currently despite did do does down during each either even ever every everyone few finally first for from
furthermore generally had has have having he her here him his how however i if in instead into is it its itself just
known later like located mainly many may me might more moreover most mostly much must my named near never new next
no nor not of off often on once one only or originally other others otherwise our out over overall own people rather
same several she should since situated so some someone sometimes still such than that the their them then there
therefore these they this those though three through thus to today together too two typically under unless unlike
until up upon use used uses using usually various very was we well were what when where whether which while who whom
whose why will with within without would yes yet you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def stem(word: str) -> str:
    """A word without its ending; crude, as both sides are treated alike."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def _says_nothing(word: str) -> bool:
    return word in _COMMON or (len(word) == 1 and not word.isdigit())  # the s of "Etna's"


def _stems(text: str) -> list[str]:
    return [stem(word) for word in words(text) if not _says_nothing(word)]


def support(text: str, passage: str) -> float:
    """The share of the content words of `text` that `passage` has, whatever their endings; 1 where there are none."""
    found, known = _stems(text), set(_stems(passage))
    return sum(word in known for word in found) / len(found) if found else 1.0


def unknown_numbers(text: str, passage: str) -> list[str]:
    known = set(words(passage))
    return [word for word in words(text) if any(map(str.isdigit, word)) and word not in known]


def unknown_names(text: str, passage: str) -> list[str]:
    """Words with a capital that the passage does not have in any case. At the beginning of a sentence too: the first
    word of an answer is a name more often than not."""
    known = set(map(stem, words(passage)))
    return [
        match[0]
        for match in _NAME.finditer(text)
        if not all(_says_nothing(word) or stem(word) in known for word in words(match[0]))
    ]


def copied_share(text: str, given: str, run: int) -> float:
    """The share of the words of `text` that lie in runs of at least `run` words which `given` has as well."""
    found, known = words(text), words(given)
    runs = {tuple(known[at : at + run]) for at in range(len(known) - run + 1)}
    starts = [at for at in range(len(found) - run + 1) if tuple(found[at : at + run]) in runs]
    if not starts:
        return 0.0
    covered = run + sum(min(run, after - before) for before, after in pairwise(starts))
    return covered / len(found)


def check(kind: str, answer: Mapping[str, str], passage: str, prompt: str, rules: Checks) -> tuple[str, str] | None:
    """The reason why this answer is rejected and what is wrong with it, or None.

    Args:
        kind: qa (fields question, answer), summary (summary) or rewrite (text).
        prompt: all that the teacher was given, its instructions included.
    """
    texts = list(answer.values())
    for field, text in answer.items():
        if len(words(text)) < getattr(rules.min_words, field):
            return "empty", f"{field}: {text}"
    if kind == "qa" and not answer["question"].rstrip().endswith("?"):
        return "not_a_question", answer["question"]
    if kind != "qa" and not _SENTENCE_END.search(texts[-1]):
        return "unfinished", texts[-1][-60:]
    for text in texts:
        if match := _REFERS.search(text):
            return "refers_to_passage", match[0]
        share = copied_share(text, prompt, rules.copied_run)
        if share > rules.copied_share:
            return "copied", f"{share:.0%} of its words"
    length, whole = (len(words(text)) for text in (" ".join(texts), passage))
    if kind == "summary" and length > rules.summary_share * whole:
        return "not_shorter", f"{length} of {whole} words"
    if kind == "rewrite" and length < rules.rewrite_share * whole:
        return "not_whole", f"{length} of {whole} words"
    return _grounded(texts, passage, rules.support)


def _grounded(texts: Sequence[str], passage: str, least: float) -> tuple[str, str] | None:
    """Of a question, only names and numbers must be known: people ask in words of their own."""
    for text in texts:
        if numbers := unknown_numbers(text, passage):
            return "unknown_number", ", ".join(numbers)
        if names := unknown_names(text, passage):
            return "unknown_name", ", ".join(names)
    share = min(support(sentence, passage) for sentence in sentences(texts[-1]))
    return ("ungrounded", f"{share:.0%} of its words are in the passage") if share < least else None
