"""Words of a text as spaCy's English tokeniser gives them, which datatrove's filters count, many times faster.

spaCy looks at one chunk between blanks at a time: known exceptions ("don't", ":)") stand as they are, punctuation comes
off both ends, and what is left is split at its infixes (https://spacy.io/usage/linguistic-features#how-tokenizer-works).
A chunk gives the same words wherever it stands, and nine chunks of ten have been seen before, so `Vocabulary` splits
each once and looks it up from then on. The rules are those of spaCy 3.8 (MIT licence), their character classes written
as Unicode properties; tests/text/test_words.py holds the two against each other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import regex
from datatrove.utils.text import PUNCTUATION_SET

_QUOTES = r"'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧"
_PUNCT = r"…,:;!?¿؟¡()\[\]{}<>_#*&。？！，、；：～·।،۔؛٪"
_CURRENCY = r"(?:US\$|C\$|A\$|[$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿])"
_UNITS = (
    "km²|km³|km|m²|m³|m/s|m|dm²|dm³|dm|cm²|cm³|cm|mm²|mm³|mm|ha|µm|nm|yd|in|ft|kg|g|mg|µg|t|lb|oz|km/h|kmh|mph|hPa|Pa|"
    "mbar|mb|MB|kb|KB|gb|GB|tb|TB|T|G|M|K|%"
)
_LOWER, _UPPER, _LETTER = r"\p{Ll}\p{Lo}", r"\p{Lu}\p{Lo}", r"\p{L}"

_PREFIX = regex.compile(rf"[§%=—–{_PUNCT}{_QUOTES}\p{{So}}]|\.\.+|\+(?![0-9])|{_CURRENCY}")
_SUFFIX = regex.compile(
    rf"(?:……|[{_PUNCT}{_QUOTES}\p{{So}}—–]|\.\.+|['’][sS]|(?<=[0-9])(?:\+|{_CURRENCY}|{_UNITS})|(?<=°[FfCcKk])\.|"
    rf"(?<=[0-9{_LOWER}%²\-+|{_PUNCT}{_QUOTES}])\.|(?<=[{_UPPER}][{_UPPER}])\.)$"
)
_INFIX = regex.compile(
    rf"\.\.+|…|\p{{So}}|(?<=[0-9])[+\-*^](?=[0-9-])|(?<=[{_LOWER}{_QUOTES}])\.(?=[{_UPPER}{_QUOTES}])|"
    rf"(?<={_LETTER}),(?={_LETTER})|(?<=[{_LETTER}0-9])(?:---|--|——|[-–—~])(?={_LETTER})|"
    rf"(?<=[{_LETTER}0-9])[:<>=/](?={_LETTER})"
)
_URL = regex.compile(
    r"(?:[\w+\-.]{2,}://)?(?:\S+@)?"
    r"(?:(?!(?:10|127)(?:\.\d{1,3}){3})(?!(?:169\.254|192\.168)(?:\.\d{1,3}){2})(?!172\.(?:1[6-9]|2\d|3[0-1])(?:\.\d{1,3}){2})"
    r"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4])|"
    r"(?:(?:[A-Za-z0-9\u00a1-\uffff][A-Za-z0-9\u00a1-\uffff_-]{0,62})?[A-Za-z0-9\u00a1-\uffff]\.)+"
    rf"[{_LOWER}]{{2,63}})(?::\d{{2,5}})?(?:[/?#]\S*)?"
)

_EMOTICONS = r"""
:) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( :-((
:((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o
:* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__-
v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<)
(*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>
"""
_WHOLE = """
' '' \\t \\n \\") <space> — C++ 'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am Ma'am
o'clock O'clock lovin' Lovin' havin' Havin' doin' Doin' goin' Goin' nothin' Nothin' nuthin' Nuthin' ol' Ol' somethin'
Somethin' 'em 'll 'nuff 'd Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill.
Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov.
Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen.
Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. ä. ö.
ü.
"""


def _contractions() -> Iterator[tuple[str, ...]]:
    """Contractions in lower case, with their apostrophes; spaCy knows them without one too."""
    yield from (("i", "'m"), ("i", "'m", "a"), ("not", "'ve"), ("can", "not"), ("gon", "na"), ("got", "ta"))
    for word in ("i", "you", "he", "she", "it", "we", "they", "who", "what", "when", "where", "why", "how", "there",
                 "that", "this", "these", "those"):  # fmt: skip
        yield from ((word, "'ll"), (word, "'ll", "'ve"), (word, "'d"), (word, "'d", "'ve"))
        if word not in ("he", "she", "it", "that", "this"):
            yield word, "'ve"
            if word != "i":
                yield word, "'re"
        if word not in ("i", "you", "we", "they", "these", "those"):
            yield word, "'s"
    for verb in ("ca", "could", "do", "does", "did", "had", "may", "might", "must", "need", "ought", "sha", "should",
                 "wo", "would"):  # fmt: skip
        yield from ((verb, "n't"), (verb, "n't", "'ve"))
    yield from ((verb, "'ve") for verb in ("could", "might", "must", "should", "would"))
    yield from ((verb, "n't") for verb in ("ai", "are", "is", "was", "were", "have", "has", "dare"))


def _exceptions() -> dict[str, tuple[str, ...]]:
    found = {word: (word,) for word in (_EMOTICONS + _WHOLE).split()}
    found |= {f"{letter}.": (f"{letter}.",) for letter in "abcdefghijklmnopqrstuvwxyz"}
    found |= {f"°{unit}.": ("°", unit, ".") for unit in "cfkCFK"}
    found |= {f"{hour}{half}": (str(hour), half) for hour in range(1, 13) for half in ("am", "a.m.", "pm", "p.m.")}
    found |= {"y'all": ("y'", "all"), "yall": ("y", "all"), "let's": ("let", "'s"), "Let's": ("Let", "'s")}
    found |= {
        "c'mon": ("c'm", "on"),
        "C'mon": ("C'm", "on"),
        "how'd'y": ("how", "'d", "'y"),
        "How'd'y": ("How", "'d", "'y"),
    }
    ordinary = {"ill", "its", "hell", "shell", "shed", "were", "well", "whore"}  # words without the apostrophe
    for parts in _contractions():
        for first in (parts[0], parts[0].capitalize()):
            for split in ((first, *parts[1:]), tuple(part.replace("'", "") for part in (first, *parts[1:]))):
                if "".join(split).lower() not in ordinary:
                    found["".join(split)] = split
    curly = {word.replace("'", "’"): tuple(part.replace("'", "’") for part in parts) for word, parts in found.items()}
    return found | curly


_EXCEPTIONS = _exceptions()
_LONGEST_EXCEPTION = max(map(len, _EXCEPTIONS))
_LONGEST_CHUNK = 1000  # characters: what is longer is data, and taking it apart would need time of its square
# Exceptions that are taken apart when they are the end of a longer chunk ("a[1:]" has the emoticon ":]"). They are put
# together again afterwards.
_SPLIT_EXCEPTIONS = {
    word: parts
    for word, parts in _EXCEPTIONS.items()
    if len(word) > 1 and (_PREFIX.match(word) or _SUFFIX.search(word) or _INFIX.search(word))
}


_PLAIN = re.compile(r"([A-Za-z]*[a-z])([,.;:!?)])", re.ASCII)
_LONGEST_SUFFIX = 8  # characters, but for a row of full stops


def split_chunk(chunk: str) -> list[str]:
    """The words of a chunk of text that holds no blank."""
    if chunk in _EXCEPTIONS:
        return list(_EXCEPTIONS[chunk])
    if chunk.isascii() and chunk.isalpha():
        return [chunk]
    if (plain := _PLAIN.fullmatch(chunk)) and plain[1] not in _EXCEPTIONS:
        return [plain[1], plain[2]]
    if len(chunk) > _LONGEST_CHUNK:
        parts = (chunk[start : start + _LONGEST_CHUNK] for start in range(0, len(chunk), _LONGEST_CHUNK))
        return list(chain.from_iterable(map(split_chunk, parts)))
    left, right, middle = [], [], chunk
    while middle and middle not in _EXCEPTIONS:
        prefix = None if middle[0].isalnum() and middle[0] not in "UCA" else _PREFIX.match(middle)
        start = prefix.end() if prefix else 0
        if prefix and middle[start:] in _EXCEPTIONS:
            left.append(middle[:start])
            middle = middle[start:]
            break
        tail = len(middle.rstrip(".") if middle.endswith("..") else middle) - _LONGEST_SUFFIX
        suffix = _SUFFIX.search(middle, max(start, tail))
        end = suffix.start() if suffix else len(middle)
        if suffix and middle[:end] in _EXCEPTIONS:
            right.append(middle[end:])
            middle = middle[:end]
            break
        if start == 0 and end == len(middle):
            break
        if start:
            left.append(middle[:start])
        if end < len(middle):
            right.append(middle[end:])
        middle = middle[start:end]
    if middle in _EXCEPTIONS:
        left += _EXCEPTIONS[middle]
    elif middle.isalnum() or ("." in middle and _URL.fullmatch(middle)):
        left.append(middle)
    elif middle:
        start = 0
        for infix in _INFIX.finditer(middle):
            if infix.start() == 0:
                continue
            if infix.start() > start:
                left.append(middle[start : infix.start()])
            left.append(infix[0])
            start = infix.end()
        if start < len(middle):
            left.append(middle[start:])
    words = left + right[::-1]
    return _joined(words) if len(words) > 1 else words


def _joined(words: list[str]) -> list[str]:
    """Put exceptions that were taken apart together again, the longest first."""
    found, index = [], 0
    while index < len(words):
        text, best, end = words[index], None, index + 1
        for stop in range(index + 2, len(words) + 1):
            text += words[stop - 1]
            if len(text) > _LONGEST_EXCEPTION:
                break
            if text in _SPLIT_EXCEPTIONS:
                best, end = _SPLIT_EXCEPTIONS[text], stop
        found += best if best else [words[index]]
        index = end
    return found


SYMBOL, ALPHABETIC, ENDS_SENTENCE, PUNCTUATION = 1, 2, 4, 8
_SENTENCE_ENDS = frozenset(
    "!.?։؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？𐩖𐩗𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐"
    "𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑩂𑩃𑪛𑪜𑱁𑱂𖩮𖩯𖫵𖬷𖬸𖭄𛲟𝪈｡。"
)
_PUNCTUATION = regex.compile(r"\p{P}+")


class Words(NamedTuple):
    """The words of a text in order: three arrays of shape [words].

    Attributes:
        lengths: characters of each word, int64.
        hashes: 64 bits of each word's content, uint64: equal words have equal hashes, in any process.
        flags: SYMBOL (all its characters are punctuation), ALPHABETIC (any is a letter), ENDS_SENTENCE and PUNCTUATION
            (to spaCy's sentencizer), uint8.
    """

    lengths: np.ndarray
    hashes: np.ndarray
    flags: np.ndarray


def word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())


def _flags(word: str) -> int:
    if word.isalpha():
        return ALPHABETIC
    return (
        SYMBOL * all(character in PUNCTUATION_SET for character in word)
        + ALPHABETIC * any(map(str.isalpha, word))
        + ENDS_SENTENCE * (word in _SENTENCE_ENDS)
        + PUNCTUATION * (_PUNCTUATION.fullmatch(word) is not None)
    )


class _Chunks(dict[str, tuple[int, ...]]):
    """The numbers of the words of each chunk, found when first asked for: a look-up costs no call of Python."""

    def __init__(self, number: Callable[[str], int]) -> None:
        super().__init__()
        self._number = number

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        found = self[chunk] = tuple(map(self._number, split_chunk(chunk)))
        return found


class Vocabulary:
    """Every chunk seen, as numbers of words, and the facts about each word. Bounded: at its limit it starts anew."""

    def __init__(self, limit: int = 500_000) -> None:
        """`limit`: of chunks; half a million take about 150 MB."""
        self._limit = limit
        self._clear()

    def _clear(self) -> None:
        self._chunks = _Chunks(self._number)
        self._numbers: dict[str, int] = {}
        self._facts = Words(np.zeros(1024, np.int64), np.zeros(1024, np.uint64), np.zeros(1024, np.uint8))

    def _number(self, word: str) -> int:
        """The number of a word; a new one gets the next."""
        number = self._numbers.setdefault(word, len(self._numbers))
        if number == len(self._numbers) - 1:
            if number == len(self._facts.lengths):
                self._facts = Words(*(np.concatenate([fact, np.zeros_like(fact)]) for fact in self._facts))
            self._facts.lengths[number] = len(word)
            self._facts.hashes[number] = word_hash(word)
            self._facts.flags[number] = _flags(word)
        return number

    def split(self, text: str) -> Words:
        """The words of `text`."""
        if len(self._chunks) > self._limit:
            self._clear()
        numbers = np.fromiter(chain.from_iterable(map(self._chunks.__getitem__, text.split())), np.int64)
        return Words(*(fact[numbers] for fact in self._facts))

    def count_sentences(self, text: str, at_most: int) -> int:
        """How many sentences spaCy's sentencizer finds in `text`; it stops counting at `at_most`.

        A sentence ends at a full stop, question or exclamation mark that is a word of its own, before the next word
        that is no punctuation.
        """
        found, ended = 1 if text and not text.isspace() else 0, False
        for chunk in text.split():
            if found >= at_most:
                break
            if not ended and chunk.isalpha():
                continue
            for number in self._chunks[chunk]:
                flag = self._facts.flags.item(number)
                if ended and not flag & (PUNCTUATION | ENDS_SENTENCE):
                    found, ended = found + 1, False
                elif flag & ENDS_SENTENCE:
                    ended = True
        return found
