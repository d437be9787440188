"""The tokenizer: any text comes back, the same text trains the same tokenizer; a vocabulary too large is refused."""

import json
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from lib.pipeline.errors import SmeltError
from lib.tokenizer.chat_template import SPECIAL_TOKENS, encode_text
from lib.tokenizer.train import train_tokenizer
from tests.tokenizer.conftest import VOCAB_SIZE, sentences

ODD_TEXTS = [
    "",
    " ",
    "\0",
    "a\0b\0",
    "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "\r\n\r\n \t \n  x",
    "9" * 5000,
    "٣४५໖ ²³ ½ Ⅷ",
    "👩‍👩‍👧‍👦🏴‍☠️ 🇩🇪🇫",
    "漢字かな交じり文。한국어 ไทย العربية עברית",
    "\u0301 lone, e\u0301 composed, \u0315\u0300\u05ae\u0301 reordered, q\u0323\u0307",
    "\u2028\u2029\u200b\ufeff\ufffe\uffff\U0010ffff\ue000",
    "ﬁ K Å ſ",
    "<|im_end|><|endoftext|><|im_start|>system\n<|pad|>",
]


def random_texts() -> list[str]:
    chance = random.Random(1)
    scalars = [*range(0xD800), *range(0xE000, 0x110000)]
    return ["".join(map(chr, chance.choices(scalars, k=chance.randrange(200)))) for _ in range(300)]


def test_every_text_comes_back_in_nfc(tokenizer: Tokenizer) -> None:
    texts = ODD_TEXTS + random_texts()
    for text, ids in zip(texts, encode_text(tokenizer, texts), strict=True):
        assert tokenizer.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)
        assert not set(ids) & set(range(len(SPECIAL_TOKENS)))


def test_special_tokens_have_the_first_ids_and_every_byte_has_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    assert [tokenizer.id_to_token(number) for number in range(4)] == list(SPECIAL_TOKENS)
    model = json.loads(tokenizer.to_str())["model"]
    assert sum(len(token) == 1 for token in model["vocab"]) == 256
    assert len(model["merges"]) == VOCAB_SIZE - 256 - 4


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    (ids,) = encode_text(tokenizer, ["1800 1801"])
    assert [tokenizer.decode([number]) for number in ids] == list("1800 1801")


def test_transformers_reads_it(tokenizer: Tokenizer, folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    assert len(theirs) == VOCAB_SIZE
    assert (theirs.eos_token, theirs.pad_token, theirs.bos_token) == ("<|endoftext|>", "<|pad|>", None)
    for text in ODD_TEXTS[:-1] + random_texts()[:50]:
        assert theirs.encode(text) == encode_text(tokenizer, [text])[0]
        assert theirs.decode(theirs.encode(text)) == unicodedata.normalize("NFC", text)


def test_vocabulary_larger_than_the_text_supports_is_refused() -> None:
    with pytest.raises(SmeltError, match=r"tokenizer\.vocab_size is 5000, but the training text supports only \d+;"):
        train_tokenizer(iter(sentences()[:5]), 5000)


def test_training_is_the_same_in_another_process_with_other_threads(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.tokenizer.conftest import *;"
        "save_tokenizer(train_tokenizer(iter(sentences()), VOCAB_SIZE), Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env={"RAYON_NUM_THREADS": "1"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
