from __future__ import annotations

import copy
import dataclasses
import math
import random

import pytest
import torch

from lib.evals import bits_per_byte as module
from lib.evals.bits_per_byte import bits_per_byte as estimates
from lib.evals.bits_per_byte import document_bits, windows
from lib.evals.language_model import LanguageModel
from lib.text.documents import Document


def bits_per_byte(lm, documents, progress):
    bits = document_bits(lm, [document.text for document in documents], progress)
    metrics, items = estimates(documents, bits)
    assert [item.score * item.weight for item in items] == pytest.approx(bits)
    return metrics


def silent(items, total, unit):
    return items


def texts(count: int, longest: int) -> list[str]:
    generator = random.Random(1)
    return ["".join(generator.choices("abc d\né", k=generator.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("size", [1, 2, 5, 16])
@pytest.mark.parametrize("length", [0, 1, 4, 5, 6, 16, 17, 50])
def test_windows_score_every_token_once_with_half_a_window_before_it(length, size):
    scored = []
    for window in windows(length, size):
        assert window.end - window.start <= size
        first = window.end - window.scored
        assert window.start == 0 or first - window.start >= size // 2
        scored += range(first, window.end)
    assert scored == list(range(length))


def test_uniform_model_needs_log2_of_its_vocabulary_per_token(lm):
    model = copy.deepcopy(lm.model)
    torch.nn.init.zeros_(model.lm_head.weight)
    uniform = dataclasses.replace(lm, model=model)
    documents = [Document(str(i), text, "", f"source{i % 2}", "") for i, text in enumerate(texts(9, 60))]
    found = bits_per_byte(uniform, documents, silent)  # one token per byte
    expected = {
        "value": pytest.approx(math.log2(model.config.vocab_size), abs=1e-5),
        "stderr": pytest.approx(0, abs=1e-5),
    }
    assert found == {"overall": expected, "sources": {"source0": expected, "source1": expected}}


def naive_bits(lm: LanguageModel, text: str) -> float:
    """Token by token, each after a forward pass over the window that it belongs to."""
    ids = [lm.begin, *text_ids(lm, text)]
    half, total = lm.window // 2, 0.0
    for target in range(1, len(ids)):
        start = 0 if target <= lm.window else half * math.ceil((target - lm.window) / half)
        with torch.inference_mode():
            logits = lm.model(torch.tensor([ids[start:target]])).logits[0, -1]
        total -= torch.log_softmax(logits.double(), -1)[ids[target]].item()
    return total / math.log(2)


def text_ids(lm: LanguageModel, text: str) -> list[int]:
    alphabet = lm.tokenizer.get_vocab()
    return [alphabet[lm.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(char)[0][0][0]] for char in text]


def test_batched_windows_agree_with_a_loop_over_single_tokens(lm, monkeypatch):
    monkeypatch.setattr(module, "_BATCH_TOKENS", 50)
    chosen = [text.replace("é", "e") for text in texts(7, 70)] + ["<|endoftext|>"]
    expected = [naive_bits(lm, text) for text in chosen]
    assert document_bits(lm, chosen, silent) == pytest.approx(expected, rel=1e-5)


def test_sources_are_weighed_by_their_bytes(lm):
    chosen = [("a" * 10, "one"), ("b" * 30, "one"), ("c" * 20, "two"), ("é" * 20, "two")]
    bits = document_bits(lm, [text for text, _ in chosen], silent)
    found = bits_per_byte(lm, [Document(text, text, "", source, "") for text, source in chosen], silent)
    assert found["sources"]["one"]["value"] == pytest.approx((bits[0] + bits[1]) / 40, abs=1e-6)
    assert found["sources"]["two"]["value"] == pytest.approx((bits[2] + bits[3]) / 60, abs=1e-6)
    assert found["overall"]["value"] == pytest.approx(sum(bits) / 100, abs=1e-6)


def test_no_documents_give_nulls(lm):
    assert bits_per_byte(lm, [], silent) == {"overall": {"value": None, "stderr": None}, "sources": {}}
