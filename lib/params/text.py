"""`pii`, `dedup`, `mix`, `tokenizer`, `encode` and `chat`: what happens to documents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lib.params.values import Name, NotNegative, Positive, Rate, Section, Share

PiiType = Literal[
    "email", "phone", "ip", "credit_card", "iban", "national_id", "secret", "person", "place", "organisation"
]
PiiPolicy = Literal["redact", "drop", "keep"]
NationalIdName = Literal[
    "us_ssn", "gb_nino", "de_idnr", "fr_nir", "es_dni", "es_nie", "it_codicefiscale", "nl_bsn", "pl_pesel",
    "se_personnummer", "fi_hetu", "be_nn", "ch_ahv", "br_cpf", "in_aadhaar",
]  # fmt: skip


class Pii(Section):
    types: Annotated[list[PiiType], Field(min_length=1)]
    national_ids: list[NationalIdName]
    phone_regions: list[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]]
    secret_length: Annotated[int, Field(ge=16, le=128)]
    secret_entropy: Annotated[float, Field(gt=0, le=6)]
    name_score: Share
    labelled_rounds: Positive


class EvaluationSet(Section):
    context: str | None  # before the question: a scene that it is about
    question: str
    choices: str | None


class Decontaminate(Section):
    ngram: Annotated[int, Field(ge=2, le=255)]
    min_words: Annotated[int, Field(ge=2)]
    sets: dict[Name, EvaluationSet]

    @model_validator(mode="after")
    def _are_ordered(self) -> Decontaminate:
        if self.min_words > self.ngram:
            raise ValueError(f"min_words is {self.min_words}; it must not be larger than ngram ({self.ngram})")
        return self


class Paragraphs(Section):
    documents: Annotated[int, Field(ge=2)] | None
    min_words: Positive


class Dedup(Section):
    paragraphs: Paragraphs
    ngram: Positive
    buckets: Positive
    hashes_per_bucket: Positive
    similarity: Annotated[float, Field(gt=0, le=1)]
    keyword_count: Positive
    keyword_share: Share
    decontaminate: Decontaminate


class Mix(Section):
    tokens: Positive
    val: Rate
    test: Rate

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Mix:
        if self.val + self.test > 0.5:
            raise ValueError(
                f"val and test hold out {self.val + self.test:.0%} of the documents; at most 50% is sensible"
            )
        return self


class Tokenizer(Section):
    vocab_size: Annotated[int, Field(ge=512, le=1_000_000)]


class Encode(Section):
    shard_tokens: Annotated[int, Field(ge=1024, le=2**31)]


class ChatGroup(Section):
    share: Share
    epochs: Positive


class OwnGroup(ChatGroup):
    sources: list[Name]


class ChatKinds(Section):
    manual: NotNegative | None
    encyclopedia: NotNegative | None
    yes_no: NotNegative | None
    facts: NotNegative | None
    messages: NotNegative | None


class Chat(Section):
    tokens: Positive | None
    own: OwnGroup
    instructions: ChatGroup
    text: ChatGroup
    most: ChatKinds
    held_out: NotNegative

    @model_validator(mode="after")
    def _is_a_mixture(self) -> Chat:
        total = self.own.share + self.instructions.share + self.text.share
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of own, instructions and text add up to {total:g}; they must add up to 1")
        return self
