"""datatrove's own blocks with their default word tokeniser: what our filters are measured against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from datatrove.data import Document as Row
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.formatters import FTFYFormatter

from lib.params.clean import CleanRules
from lib.text.language import model


class _Model:
    """lid.176 in the package's compressed form: datatrove would download the large one. It wants arrays of scores."""

    @staticmethod
    def predict(text: str, k: int) -> tuple[tuple[str, ...], np.ndarray]:
        labels, scores = model().predict(text, k=k)
        return labels, np.array(scores)


def blocks() -> dict[str, PipelineStep]:
    """The blocks of FineWeb's chain with datatrove's defaults, by the name of our step."""
    LanguageFilter._requires_dependencies = []  # of the download
    language = LanguageFilter("en")
    language.model._model = _Model()
    return {
        "normalise": FTFYFormatter(normalization="NFC"),
        "language": language,
        "gopher_repetition": GopherRepetitionFilter(),
        "gopher_quality": GopherQualityFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }


def rules() -> CleanRules:
    """The same chain in ours: the thresholds of datatrove 0.10.1."""
    nothing = dict.fromkeys(CleanRules.model_fields)
    return CleanRules.model_validate(
        nothing
        | {
            "normalise": {
                "mojibake": True,
                "unicode": True,
                "control_characters": False,  # ftfy does it
                "quotes": False,
                "whitespace": False,
            },
            "language": {"allow": ["en"], "min_score": 0.65},
            "gopher_repetition": {
                "dup_line_frac": 0.3,
                "dup_para_frac": 0.3,
                "dup_line_char_frac": 0.2,
                "dup_para_char_frac": 0.2,
                "top_n_grams": [(2, 0.2), (3, 0.18), (4, 0.16)],
                "dup_n_grams": [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)],
            },
            "gopher_quality": {
                "min_doc_words": 50,
                "max_doc_words": 100000,
                "min_avg_word_length": 3,
                "max_avg_word_length": 10,
                "max_symbol_word_ratio": 0.1,
                "max_bullet_lines_ratio": 0.9,
                "max_ellipsis_lines_ratio": 0.3,
                "max_non_alpha_words_ratio": 0.8,
                "min_stop_words": 2,
                "stop_words": ["the", "be", "to", "of", "and", "that", "have", "with"],
            },
            "c4": {
                "remove_citations": True,
                "filter_no_terminal_punct": True,
                "min_num_sentences": 5,
                "min_words_per_line": 3,
                "max_word_length": 1000,
                "filter_lorem_ipsum": True,
                "filter_javascript": True,
                "filter_curly_bracket": True,
                "filter_policy": True,
            },
            "fineweb": {
                "line_punct_thr": 0.12,
                "line_punct_exclude_zero": False,
                "short_line_thr": 0.67,
                "short_line_length": 30,
                "char_duplicates_ratio": 0.01,
                "new_line_ratio": 0.3,
            },
        }
    )


def run(chain: Iterable[PipelineStep], texts: list[str]) -> list[str | None]:
    """Each text after the chain of blocks, or None where one dropped it."""
    rows: Iterator[Row] = (Row(text=text, id=str(number)) for number, text in enumerate(texts))
    for block in chain:
        rows = block(rows)
    kept = {int(row.id): row.text for row in rows}
    return [kept.get(number) for number in range(len(texts))]
