"""`clean`: the rules for the documents of a source, one step each; null switches a step, or a threshold, off."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from lib.params.values import NotNegative, Positive, Section, Share

Length = Annotated[float, Field(gt=0)]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
Phrase = Annotated[str, Field(min_length=1, pattern=r"\S")]
NGram = tuple[Annotated[int, Field(ge=2, le=100)], Share]


class Pages(Section):
    min_pages: Annotated[int, Field(ge=2)]
    edge_lines: Positive
    min_share: Annotated[float, Field(gt=0, le=1)]


class Normalise(Section):
    mojibake: bool
    unicode: bool
    quotes: bool
    whitespace: bool
    control_characters: bool


class Artefacts(Section):
    html: bool
    cookie_banners: bool
    unsubscribe: bool
    disclaimers: bool


class LanguageRules(Section):
    allow: Annotated[list[Language], Field(min_length=1)] | None
    min_score: Share


class BlockList(Section):
    phrases: Annotated[list[Phrase], Field(min_length=1)]


class Code(Section):
    generated: bool
    max_line_length: Positive | None
    max_mean_line_length: Length | None
    min_alphanumeric_share: Share | None
    max_encoded_share: Share | None


class Heuristics(Section):
    min_words: Positive | None
    max_words: Positive | None
    min_mean_word_length: Length | None
    max_mean_word_length: Length | None
    max_symbol_word_ratio: Share | None
    min_alphabetic_words: Share | None
    max_duplicate_lines: Share | None
    max_line_length: Positive | None


class GopherRepetition(Section):
    dup_line_frac: Share | None
    dup_para_frac: Share | None
    dup_line_char_frac: Share | None
    dup_para_char_frac: Share | None
    top_n_grams: list[NGram]
    dup_n_grams: list[NGram]


class GopherQuality(Section):
    min_doc_words: Positive | None
    max_doc_words: Positive | None
    min_avg_word_length: Length | None
    max_avg_word_length: Length | None
    max_symbol_word_ratio: Share | None
    max_bullet_lines_ratio: Share | None
    max_ellipsis_lines_ratio: Share | None
    max_non_alpha_words_ratio: Share | None
    min_stop_words: Positive | None
    stop_words: list[Phrase]


class C4(Section):
    remove_citations: bool
    filter_no_terminal_punct: bool
    min_num_sentences: Positive | None
    min_words_per_line: NotNegative
    max_word_length: Positive | None
    filter_lorem_ipsum: bool
    filter_javascript: bool
    filter_curly_bracket: bool
    filter_policy: bool


class FineWeb(Section):
    line_punct_thr: Share | None
    line_punct_exclude_zero: bool
    short_line_thr: Share | None
    short_line_length: Positive
    char_duplicates_ratio: Share | None
    new_line_ratio: Share | None


class CleanRules(Section):
    pages: Pages | None
    normalise: Normalise | None
    artefacts: Artefacts | None
    block_list: BlockList | None
    heuristics: Heuristics | None
    code: Code | None
    c4: C4 | None
    gopher_quality: GopherQuality | None
    gopher_repetition: GopherRepetition | None
    language: LanguageRules | None
    fineweb: FineWeb | None

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> CleanRules:
        pairs = [
            ("heuristics", "min_words", "max_words"),
            ("heuristics", "min_mean_word_length", "max_mean_word_length"),
            ("gopher_quality", "min_doc_words", "max_doc_words"),
            ("gopher_quality", "min_avg_word_length", "max_avg_word_length"),
        ]
        problems = []
        for step, low, high in pairs:
            rules = getattr(self, step)
            bounds = (getattr(rules, low), getattr(rules, high)) if rules else (None, None)
            if None not in bounds and bounds[0] > bounds[1]:
                problems.append(f"{step}.{low} is above {step}.{high}: no document could pass")
        if problems:
            raise ValueError("\n".join(problems))
        return self
