"""Names of people, places and organisations: Presidio over the small spaCy model, over what stands around a name, and
over a list of places.

The model is read from a folder and its named-entity part alone is run: it has its own embedding layer, so tagger,
parser and lemmatizer would only cost time. What was found once in a document is then looked for in all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import regex
import spacy
from presidio_analyzer import AnalyzerEngine, BatchAnalyzerEngine, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import SpacyRecognizer

from lib.pipeline.errors import SmeltError
from lib.text.pii.context import PRESIDIO, ContextRecognizer
from lib.text.pii.found import NAMES, PLACEHOLDER, Found, Taken
from lib.text.pii.places import PlaceRecognizer, is_of_something_else

_UNUSED = ["tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer"]
_LABELS = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION"}
_OURS = {theirs: ours for ours, theirs in PRESIDIO.items()}
_CHUNK = 20_000  # characters: bounds the memory of a batch; spaCy refuses a million


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODEL_SCORE = 0.65  # below every rule of context.py: in a header the rule is right and the model guesses
_CODE = regex.compile(r"[\d_=<>{}()\[\]\\|/@#$%^*+~`:;!?\"]")
_MARKS = regex.compile(r"[_=<>{}()\[\]\\@#|]")
_CAPITALS = regex.compile(
    r"[\p{Lu}\p{Lo}][\w'’.-]*"
    r"(?:,? (?:(?:de|da|do|dos|del|della|di|van|der|den|von|zu|bin|ibn|al|el|ter|la|le) )*\p{Lu}[\w'’.-]*)*"
)
_EDGE = " \t\n'’\".,;:-–—&"
_NO_NAMES = _words(
    """api json xml html css http https url uri uuid sql id ip dns tls ssl ssh tcp udp cpu gpu ram os pdf csv yaml
    utf ascii sha md5 aes rsa hi hello hey dear regards best thanks cheers sincerely yours subject date from to
    cc bcc re fw fwd sent received attachment monday tuesday wednesday thursday friday saturday sunday january
    february march april may june july august september october november december mon tue wed thu fri sat sun
    jan feb mar apr jun jul aug sep oct nov dec he she it we you they i me her his our your the a an and or not
    none null true false yes no this that there here info warn error debug todo fixme note ticket order invoice
    customer priority high low medium status phone mobile e-mail email mail tel iban bic card number ssn name
    company city street address total amount mr mrs ms miss dr prof herr frau madame monsieur bsn pesel nir dni
    nie cpf ahv nino aadhaar bearer un una une der die das den dem und le les des el los las il lo meine mein
    meiner ihre ihr unsere bien mon ma mes su mi"""
)


class Model(SpacyNlpEngine):
    """spaCy's model from a folder, on the CPU. Presidio would look for a GPU, and download what it does not find."""

    def __init__(self, folder: Path) -> None:
        configuration = NerModelConfiguration(
            model_to_presidio_entity_mapping=_LABELS,
            labels_to_ignore=["CARDINAL", "DATE", "EVENT", "LANGUAGE", "LAW", "MONEY", "NORP", "ORDINAL", "PERCENT",
                              "PRODUCT", "QUANTITY", "TIME", "WORK_OF_ART"],
            default_score=MODEL_SCORE,
            low_score_entity_names=["ORGANIZATION"],
            low_confidence_score_multiplier=0.5,
        )  # fmt: skip
        super().__init__([{"lang_code": "en", "model_name": str(folder)}], configuration)
        self.load()

    def load(self) -> None:
        folder = Path(self.models[0]["model_name"])
        if not (folder / "config.cfg").is_file():
            raise SmeltError(f"{folder} holds no spaCy model; run `dvc repro assets@ner`, which fetches it")
        self.nlp = {"en": spacy.load(folder, exclude=_UNUSED)}


class ModelRecognizer(SpacyRecognizer):
    """What the model says, trimmed to what can be a name before Presidio drops what lies inside a longer finding."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        found = []
        for one in super().analyze(text, entities, nlp_artifacts):
            for start, end in _trim(text, one.start, one.end, _OURS[one.entity_type]):
                other = one.entity_type == PRESIDIO["place"] and is_of_something_else(text, start)
                if not other and not _foreign(text, start):
                    found.append(RecognizerResult(one.entity_type, start, end, one.score))
        return found


_ENGLISH = _words(
    """the and of to in is are was for on with at by from that this it he she you we they will has have not be can
    if"""
)
_OTHER = _words(
    """der die das und ist für mit von zu den dem ein eine nicht auf sie wir ihre meine uns bitte unter le la les
    et est des du un une pour je mon vous que sur dans el los las y en con por para su mi con del al il lo che
    di per una sono het een van voor met jest na w z"""
)


def _foreign(text: str, at: int) -> bool:
    """Whether the line around `at` is in another language, whose nouns and verbs the English model takes for names."""
    line = text[text.rfind("\n", 0, at) + 1 : (text.find("\n", at) + 1 or len(text) + 1) - 1]
    words = regex.findall(r"(?<!\S)\p{L}+", line.lower())
    return sum(word in _OTHER for word in words) > sum(word in _ENGLISH for word in words)


class Names:
    """The search for those of person, place and organisation that are in `types`."""

    def __init__(self, model: Path, places: Path, types: Iterable[str], min_score: float) -> None:
        """`model`: the folder of the spaCy model; `places`: that of the list of places."""
        engine = Model(model)
        registry = RecognizerRegistry(
            [ModelRecognizer(supported_entities=list(PRESIDIO.values())), ContextRecognizer(), PlaceRecognizer(places)]
        )
        self._analyzer = BatchAnalyzerEngine(AnalyzerEngine(registry, engine, supported_languages=["en"]))
        self._entities = [PRESIDIO[kind] for kind in NAMES if kind in types]
        self._min_score = min_score

    def find(self, texts: Sequence[str]) -> list[list[Found]]:
        """The names in each text, none overlapping another; `key` is the name in small letters."""
        chunks = [(number, offset, chunk) for number, text in enumerate(texts) for offset, chunk in _chunks(text)]
        results = self._analyzer.analyze_iterator(
            [chunk for *_, chunk in chunks], "en", 32, entities=self._entities, score_threshold=self._min_score
        )
        found: list[list[tuple[int, int, str, float]]] = [[] for _ in texts]
        for (number, offset, chunk), entities in zip(chunks, results, strict=True):
            for one in entities:
                for start, end in _trim(chunk, one.start, one.end, _OURS[one.entity_type]):
                    found[number].append((start + offset, end + offset, _OURS[one.entity_type], one.score))
        return [_resolve(text, spans) for text, spans in zip(texts, found, strict=True)]


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """Cut at the last line end, or blank, before `_CHUNK` characters."""
    start = 0
    while start < len(text):
        end = start + _CHUNK
        if end < len(text):
            end = (text.rfind("\n", start, end) + 1 or text.rfind(" ", start, end) + 1) or end
            end = end if end > start else start + _CHUNK
        yield start, text[start:end]
        start = end


def _trim(text: str, start: int, end: int, kind: str) -> Iterator[tuple[int, int]]:
    """The part of a span that can be a name: one line, no code, no placeholder, at least one capital."""
    line = text.find("\n", start, end)
    if line >= 0:
        yield from _trim(text, start, line, kind)
        return
    while start < end and text[start] in _EDGE:
        start += 1
    if text[start : start + 4].lower() == "the ":
        start += 4
    while start < end and text[end - 1] in " \t'’\",;:-–—&":
        end -= 1
    while start < end and text[end - 1] == "." and kind != "organisation":
        end -= 1
    if text[max(start, end - 2) : end] in ("'s", "’s"):
        end -= 2
    value = text[start:end]
    if kind == "person":  # "Pueden llamarnos al": to the last word that has a capital
        value = (_CAPITALS.match(value) or [""])[0]
        end = start + len(value)
    words = value.split()
    if start and regex.match(r"[\w/\\$_.@-]", text[start - 1]):
        return  # inside a path, an address or an identifier
    if regex.match(r"[\w(\[_/\\@]|\.\w|-(?!based\b)\w", text[end : end + 7]):
        return
    if len(value) < 2 or (_CODE if kind != "place" else _MARKS).search(value):
        return
    if not any(map(str.isupper, value)) or all(word.lower().strip(".") in _NO_NAMES for word in words):
        return
    if kind == "person" and (value.isupper() and len(value) <= 5):
        return
    yield start, end


def _resolve(text: str, spans: list[tuple[int, int, str, float]]) -> list[Found]:
    """Of overlapping spans the surest stays, then the longest; then every other place where a name stands."""
    taken = Taken(match.span() for match in PLACEHOLDER.finditer(text))
    best = sorted(set(spans), key=lambda span: (-span[3], span[0] - span[1], span[0]))
    kept = [(start, end, kind) for start, end, kind, _ in best if taken.add(start, end)]
    names = Counter((text[start:end], kind) for start, end, kind in kept)
    known: dict[str, str] = {}
    for (name, kind), _ in sorted(names.items(), key=lambda item: (-len(item[0][0]), -item[1], item[0])):
        known.setdefault(name, kind)
        if kind == "person":
            for part in regex.split(r"[\s,]+", name):
                if len(part) > 2 and part[0].isupper() and part.lower() not in _NO_NAMES:
                    known.setdefault(part, kind)
    if known:
        anywhere = regex.compile(r"(?<![\p{L}\p{N}_.@/-])(?:\L<names>)(?![\p{L}\p{N}_@(])", names=list(known))
        kept += [(*match.span(), known[match[0]]) for match in anywhere.finditer(text) if taken.add(*match.span())]
    return [Found(start, end, kind, _key(text[start:end])) for start, end, kind in sorted(kept)]


def _key(name: str) -> str:
    return " ".join(regex.findall(r"[\p{L}\p{N}]+", name.casefold()))
