"""A real base that others made, SmolLM2-135M-Instruct in a GGUF file: read, exported, and answering as before."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lib.completion.chat_model import ChatModel
from lib.export import gguf
from lib.export.lineage import combine
from lib.trainers import base_tokenizer, bases
from tests.export.conftest import MIXTURE, STAGES
from tests.export.test_gguf import TEXTS

PROMPTS = ("What is the capital of France?", "Name three fruits.", "Count from 8 to 12.")
TOKENS = 16


def test_smollm2_answers_the_same_in_transformers_and_llama_cpp(smollm2: Path, tmp_path: Path) -> None:
    chat = tmp_path / "chat"
    bases.load(smollm2).save_pretrained(chat)
    base_tokenizer.write(smollm2, chat)
    base_tokenizer.write_generation(smollm2, chat)
    path = gguf.export(chat, tmp_path / "out", "smol", "F16", [], [], combine(STAGES, MIXTURE), 1)["F16"]

    # The tokens are those that llama.cpp reads by the file as its makers published it.
    tokenizer = AutoTokenizer.from_pretrained(chat)
    original = llama_cpp.Llama(str(next(smollm2.glob("*.gguf"))), vocab_only=True, verbose=False)
    for text in [*TEXTS, "  12 345", "in 1984,  7 of 10"]:
        expected = original.tokenize(text.encode(), add_bos=False, special=True)
        assert tokenizer(text)["input_ids"] == expected, text

    # Greedy answers, under its own template.
    model = AutoModelForCausalLM.from_pretrained(chat)
    served = ChatModel(path, context=256, seed=0)
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert served.encode(messages) == ids
        with torch.no_grad():
            answer = model.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False)[0, len(ids) :]
        text = tokenizer.decode(answer, skip_special_tokens=True)
        assert "".join(served.stream(ids, TOKENS, temperature=0.0)) == text
        assert text
