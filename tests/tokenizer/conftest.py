import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from lib.tokenizer.train import save_tokenizer, train_tokenizer

VOCAB_SIZE = 600


def sentences() -> list[str]:
    """Text of 300 made-up words, enough for a vocabulary of VOCAB_SIZE and not for much more."""
    chance = random.Random(1)
    words = ["".join(chance.choices("aeioulnrstdm", k=chance.randrange(2, 9))) for _ in range(300)]
    return [" ".join(chance.choices(words, k=14)).capitalize() + f" in {1800 + n}.\n" for n in range(200)]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(sentences()), VOCAB_SIZE)


@pytest.fixture(scope="session")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer, path)
    return path
