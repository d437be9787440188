from __future__ import annotations

import dataclasses

import torch

from lib.evals import generation
from lib.evals.generation import generate
from lib.evals.language_model import LanguageModel

PROMPTS = [[{"role": "user", "content": text}] for text in ("list all", "x", "delete the bucket, please", "why", "a b")]


def silent(items, total, unit):
    return items


def naive_greedy(lm: LanguageModel, prompt: list[dict[str, str]], count: int) -> list[int]:
    """No batch, no padding, no cache."""
    ids = lm.tokenizer(
        f"<|im_start|>user\n{prompt[0]['content']}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False
    )["input_ids"]
    answer: list[int] = []
    while len(answer) < count and (not answer or answer[-1] not in lm.ends):
        with torch.inference_mode():
            answer.append(lm.model(torch.tensor([ids + answer]), use_cache=False).logits[0, -1].argmax().item())
    return answer


def test_batches_answer_as_if_each_prompt_stood_alone(lm, monkeypatch):
    monkeypatch.setattr(generation, "_BATCH_ROWS", 3)
    expected = [naive_greedy(lm, prompt, 12) for prompt in PROMPTS]
    assert len({tuple(ids) for ids in expected}) > 1
    decoded = [lm.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in expected]
    assert generate(lm, PROMPTS, 12, silent) == decoded


def test_an_answer_stops_at_an_end_token(lm):
    free = naive_greedy(lm, PROMPTS[0], 12)
    end = next(token for token in free[2:] if token not in free[:2])
    stopping = dataclasses.replace(lm, ends=[end])
    kept = free[: free.index(end) + 1]
    assert generate(stopping, PROMPTS[:1], 12, silent) == [lm.tokenizer.decode(kept, skip_special_tokens=True).strip()]


def test_no_prompts_no_answers(lm):
    assert generate(lm, [], 12, silent) == []
