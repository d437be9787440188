from __future__ import annotations

import random

import pytest
import torch
import transformers
from lm_eval.models.huggingface import HFLM

from lib.evals.harness import Packed, harness_model
from lib.evals.language_model import LanguageModel, as_language_model


def plain(lm: LanguageModel, batch_rows: int = 4) -> HFLM:
    return HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, max_length=4096, batch_size=batch_rows, backend="causal")


def llama(lm: LanguageModel) -> LanguageModel:
    """The shape of SmolLM2, in small."""
    torch.manual_seed(2)
    config = transformers.LlamaConfig(
        vocab_size=len(lm.tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.5, tie_word_embeddings=True,
    )  # fmt: skip
    return as_language_model(transformers.LlamaForCausalLM(config), lm.tokenizer)


@pytest.mark.parametrize("make", [lambda lm: lm, llama])
def test_packed_scores_are_those_of_the_harness(lm, make):
    lm, draw = make(lm), random.Random(3)
    requests = []
    for number in range(25):  # several rows, some longer than one, and choices of one token
        question = [draw.randrange(4, 200) for _ in range(700 if number == 7 else draw.randint(1, 120))]
        for _ in range(draw.randint(1, 5)):
            requests.append((("", ""), question, [draw.randrange(4, 200) for _ in range(draw.choice([1, 1, 3, 20]))]))
    draw.shuffle(requests)
    packed = harness_model(lm, 4)
    assert isinstance(packed, Packed)
    ours, theirs = packed._loglikelihood_tokens(requests), plain(lm)._loglikelihood_tokens(requests, disable_tqdm=True)
    assert [score for score, _ in ours] == pytest.approx([score for score, _ in theirs], rel=1e-5)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_the_greedy_choice_is_known(lm):
    question = [5, 6, 7, 8]
    with torch.inference_mode():
        best = lm.model(torch.tensor([question])).logits[0, -1].argmax().item()
    other = 5 if best != 5 else 6
    found = harness_model(lm, 4)._loglikelihood_tokens([(None, question, [best]), (None, question, [other])])
    assert [greedy for _, greedy in found] == [True, False]


def test_a_sliding_window_is_left_to_the_harness(lm):
    config = transformers.Qwen3Config(
        vocab_size=len(lm.tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, use_sliding_window=True, sliding_window=4, max_window_layers=0,
    )  # fmt: skip
    assert set(config.layer_types) == {"sliding_attention"}
    windowed = as_language_model(transformers.Qwen3ForCausalLM(config), lm.tokenizer)
    assert type(harness_model(windowed, 4)) is HFLM
