"""Answers to chat prompts, in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib.evals.language_model import LanguageModel, Progress
from lib.tokenizer.rendering import ChatRenderer

Messages = Sequence[Mapping[str, str]]
_BATCH_ROWS = 40


def generate(
    lm: LanguageModel,
    prompts: Sequence[Messages],
    max_new_tokens: int,
    progress: Progress,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """An answer to each conversation under the model's own chat template.

    At temperature 0 it is the most likely one, token by token. Above, each token is drawn from all, by `seed`.

    Prompts are padded on the left to the longest of their batch; masked attention and shifted positions make that as
    if each stood alone.
    """
    import torch
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=temperature > 0, eos_token_id=lm.ends, pad_token_id=lm.ends[0]
    )
    if temperature:
        config.update(temperature=temperature, top_k=0, top_p=1.0)
        torch.manual_seed(seed)
    renderer = ChatRenderer.from_transformers(lm.tokenizer)
    encoded = [renderer.prompt(messages) for messages in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(encoded[index]))
    batches = [order[start : start + _BATCH_ROWS] for start in range(0, len(order), _BATCH_ROWS)]
    answers = [""] * len(prompts)
    for batch in progress(batches, len(batches), "batch"):
        longest = len(encoded[batch[-1]])
        padding = [longest - len(encoded[index]) for index in batch]
        tokens_BT = torch.tensor([[lm.ends[0]] * pad + encoded[i] for i, pad in zip(batch, padding, strict=True)])
        mask_BT = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in padding])
        with torch.inference_mode():
            output_BT = lm.model.generate(
                tokens_BT.to(lm.device), attention_mask=mask_BT.to(lm.device), generation_config=config
            )
        texts = lm.tokenizer.batch_decode(output_BT[:, longest:], skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text.strip()
    return answers
