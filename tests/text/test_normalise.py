import ast
import inspect
import random
import unicodedata
from typing import Any

import ftfy
import pytest
from datatrove.data import Document as Row
from datatrove.pipeline.formatters import FTFYFormatter

from lib.params import clean
from lib.text.normalise import Normalise, mend

ALL = dict.fromkeys(clean.Normalise.model_fields, True)


def normalise(text: str, **switches: Any) -> str:
    row = Row(text=text, id="1")
    Normalise(clean.Normalise(**{**ALL, **switches})).apply(row)
    return row.text


@pytest.mark.parametrize(
    ("switch", "raw", "expected"),
    [
        ("whitespace", "a\r\nb\rc\u2028d\x0ce\x85f", "a\nb\nc\nd\ne\nf"),
        ("whitespace", "no\u00a0break\u2003em", "no break em"),
        ("whitespace", "trailing \t \nnext", "trailing\nnext"),
        ("whitespace", "a\n\n\n\n\n\nb", "a\n\n\nb"),
        ("whitespace", "\n\n  indented stays\n", "  indented stays"),
        ("whitespace", " \n\t ", ""),
        ("unicode", "cafe\u0301", "caf\u00e9"),
        ("control_characters", "soft\u00adhyphen zero\u200bwidth \ufeffbom", "softhyphen zerowidth bom"),
        ("control_characters", "bell\x07 nul\x00", "bell nul"),
        ("quotes", "‘It’s “so”’", "'It's \"so\"'"),
        ("mojibake", "cafÃ© â€” na\u00efve", "café — na\u00efve"),
        ("mojibake", "fish &amp; chips", "fish & chips"),
    ],
)
def test_each_switch_does_its_part_and_no_other(switch: str, raw: str, expected: str) -> None:
    nothing = dict.fromkeys(ALL, False)
    assert normalise(raw, **{**nothing, switch: True}) == expected
    assert normalise(raw, **nothing) == raw


@pytest.mark.parametrize(
    "text",
    [
        "if x:\n\treturn  2",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "été à Zürich, Ελλάδα, Россия, 日本語。",
        "a < b && c > d; x &y",
    ],
)
def test_good_text_stays(text: str) -> None:
    assert normalise(text) == text


def test_idempotent_and_nfc_on_random_text() -> None:
    random.seed(0)
    alphabet = [chr(code) for code in range(0x3000) if not 0xD800 <= code < 0xE000] + ["\n", " ", "\r", "e\u0301"] * 300
    for _ in range(300):
        once = normalise("".join(random.choices(alphabet, k=200)))
        assert normalise(once) == once
        assert unicodedata.is_normalized("NFC", once)


def test_mending_equals_ftfy_on_lines_that_are_and_are_not_broken() -> None:
    random.seed(1)
    lines = ["plain words", "naïve café", "œuvre “quoted” — dash", "Привет, мир", "fish &amp; chips &lt;b&gt;", "x & y"]
    lines += [line.encode().decode("latin-1") for line in lines[1:4]]
    lines += [line.encode().decode("windows-1252", "ignore") for line in lines[1:3]]
    lines += ["\x1b[31mred\x1b[0m", "bell\x07", "<p>markup</p>", "\ud800 lone", "a\x85b", "tab\tand\x0bmore", ""]
    stock = FTFYFormatter()
    changed = 0
    for _ in range(300):
        text = "\n".join(random.choices(lines, k=random.randrange(1, 8)))
        assert mend(text) == stock.format(text)
        changed += mend(text) != text
    assert 100 < changed < 300
    assert ftfy.fix_text("cafÃ©") == mend("cafÃ©")


def test_code_means_the_same_afterwards() -> None:
    source = inspect.getsource(inspect)
    assert ast.dump(ast.parse(normalise(source, quotes=False))) == ast.dump(ast.parse(source))


def test_what_was_taken_away_is_counted() -> None:
    step = Normalise(clean.Normalise(**ALL))
    step.apply(Row(text="soft\xadhyphen and blanks  \nhere", id="1"))
    assert step.removed == {"control_characters": 1, "whitespace": 2}
