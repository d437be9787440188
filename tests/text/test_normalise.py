import ast
import inspect
import random
import unicodedata

import pytest

from lib.text.normalise import normalise


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("cafe\u0301", "caf\u00e9"),
        ("soft\u00adhyphen zero\u200bwidth \ufeffbom", "softhyphen zerowidth bom"),
        ("no\u00a0break\u2003em", "no break em"),
        ("bell\x07 nul\x00", "bell nul"),
        ("trailing \t \nnext", "trailing\nnext"),
        ("a\n\n\n\n\n\nb", "a\n\n\nb"),
        ("\n\n  indented stays\n", "  indented stays"),
        ("if x:\n\treturn  2", "if x:\n\treturn  2"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        (" \n\t ", ""),
    ],
)
def test_examples(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


def test_idempotent_and_nfc_on_random_text() -> None:
    random.seed(0)
    alphabet = [chr(code) for code in range(0x3000) if not 0xD800 <= code < 0xE000] + ["\n", " ", "\r", "e\u0301"] * 300
    for _ in range(300):
        once = normalise("".join(random.choices(alphabet, k=200)))
        assert normalise(once) == once
        assert unicodedata.is_normalized("NFC", once)


def test_code_means_the_same_afterwards() -> None:
    source = inspect.getsource(inspect)
    assert ast.dump(ast.parse(normalise(source))) == ast.dump(ast.parse(source))
