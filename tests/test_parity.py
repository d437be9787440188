"""One trained model, three runtimes: our decoder, transformers, and llama.cpp on the F16 file.

Runs on the model of the pipeline test and, where `make repro` has been run, on the default's:

    python -m pytest tests/test_parity.py -s -k default
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lib.model import huggingface
from lib.tokenizer.rendering import ChatRenderer
from tests.workspace import ROOT

pytestmark = pytest.mark.slow
FP32 = 5e-4  # the same fp32 weights, other orders of summation
FP16 = 0.05  # llama.cpp rounds the activations of F16 matrices to F16; logits have a standard deviation of about 3
NEAR_TIE = 0.01
STEPS, PROMPTS = 64, 20


@pytest.fixture(params=["tiny", "default"])
def root(request: pytest.FixtureRequest) -> Path:
    if request.param == "tiny":
        return request.getfixturevalue("line").folder
    if not list(ROOT.glob("models/export/gguf/*-F16.gguf")) or not (ROOT / "models/base/config.json").exists():
        pytest.skip("needs the models of `make repro`")
    return ROOT


def questions(root: Path) -> list[list[dict[str, str]]]:
    lines = (root / "data/chat/test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"][:1] for line in lines]


def prompt_ids(root: Path, messages: list[dict[str, str]]) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(root / "models/chat")
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)["input_ids"]


def prompts(root: Path, longest: int) -> Iterator[list[int]]:
    """Questions of the held-out chats, then beginnings of held-out text."""
    for messages in questions(root):
        if len(prompt := prompt_ids(root, messages)) <= longest:
            yield prompt
    for row in text_rows(root):
        yield from (row[start : start + 24].tolist() for start in range(0, len(row) - 24, 24))


def text_rows(root: Path) -> torch.Tensor:
    """Four rows of held-out tokens."""
    length = json.loads((root / "models/base/config.json").read_text())["max_position_embeddings"]
    tokens = np.load(root / "data/tokens/test/00000.npy", mmap_mode="r")[: 4 * length]
    return torch.from_numpy(tokens.astype(np.int64)).reshape(4, length)


def halved(model: torch.nn.Module) -> torch.nn.Module:
    """The weights that the F16 file has: matrices rounded, norms as they were."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(weight.half().float())
    return model.eval()


def llama(root: Path, **options: object) -> llama_cpp.Llama:
    (path,) = root.glob("models/export/gguf/*-F16.gguf")
    return llama_cpp.Llama(str(path), n_ctx=0, verbose=False, **options)


@torch.no_grad()
def test_logits_of_our_decoder_equal_those_of_transformers(root: Path) -> None:
    tokens = text_rows(root)
    for name in ("base", "chat"):
        ours = huggingface.load(root / "models" / name).eval()(tokens)
        theirs = AutoModelForCausalLM.from_pretrained(root / "models" / name).eval()(tokens).logits
        largest = (ours - theirs).abs().max().item()
        print(f"\n{name}: decoder and transformers differ by at most {largest:.1e} (logits' std {theirs.std():.2f})")
        assert largest < FP32


@torch.no_grad()
def test_logits_of_llama_cpp_equal_those_of_transformers(root: Path) -> None:
    tokens = text_rows(root)
    expected = halved(AutoModelForCausalLM.from_pretrained(root / "models/chat"))(tokens).logits
    model = llama(root, logits_all=True)
    largest = 0.0
    for row, logits in zip(tokens, expected.numpy(), strict=True):
        model.reset()
        model.eval(row.tolist())
        largest = max(largest, float(np.abs(np.array(model.scores[: len(row)]) - logits).max()))
    print(f"\nllama.cpp (F16) and transformers differ by at most {largest:.1e} (logits' std {expected.std():.2f})")
    assert largest < FP16


@torch.no_grad()
def test_greedy_text_is_identical(root: Path) -> None:
    """The first prompts along which no two tokens are so close that rounding could swap them."""
    ours = halved(huggingface.load(root / "models/chat"))
    theirs = halved(AutoModelForCausalLM.from_pretrained(root / "models/chat"))
    model = llama(root)
    compared = skipped = 0
    for prompt in prompts(root, ours.config.context_length - STEPS):
        expected, margin = list(prompt), float("inf")
        for _ in range(STEPS):
            best = theirs(torch.tensor([expected])).logits[0, -1].topk(2)
            margin = min(margin, (best.values[0] - best.values[1]).item())
            expected.append(int(best.indices[0]))
        if margin < NEAR_TIE:
            skipped += 1
            continue
        own = list(prompt)
        for _ in range(STEPS):
            own.append(int(ours(torch.tensor([own]))[0, -1].argmax()))
        assert own == expected
        model.reset()
        exported = list(prompt)
        for token in model.generate(prompt, temp=0.0):
            exported.append(token)
            if len(exported) == len(expected):
                break
        assert exported == expected
        compared += 1
        if compared == PROMPTS:
            break
    print(f"\n{compared} prompts, {STEPS} greedy tokens each: identical; {skipped} passed over for near-ties")
    assert compared == PROMPTS


def test_a_rendered_chat_has_the_same_tokens_everywhere(root: Path) -> None:
    messages = [
        {"role": "user", "content": "How do I list 12 buckets in eu-west-1, s'il te plaît?"},
        {"role": "assistant", "content": "aws s3 ls"},
        {"role": "user", "content": "谢谢 👍🏽\n\n\tnow 3.14e-10"},
    ]
    tokenizer = AutoTokenizer.from_pretrained(root / "models/chat")
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    ours = ChatRenderer.from_folder(root / "models/tokenizer").encode(messages)[0]
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == ours
    assert llama(root).tokenize(rendered.encode(), add_bos=False, special=True) == ours


# Largest difference of logits that a format may have before quantisation: fp32 on both sides, or F16's activations.
FORMATS = {"hf": ("float32", FP32), "adapter": ("lora-F16", 2 * FP16), "gguf": ("F16", FP16), "onnx": ("fp32", FP32)}


def test_the_stage_measured_every_format_alike(root: Path) -> None:
    """The table of the report. Text that differs does so by a near-tie, which at most one prompt in ten has."""
    for item, (plain, largest) in FORMATS.items():
        files = json.loads((root / f"reports/export/{item}/metrics.json").read_text())["export"][item]["files"]
        observed = json.loads((root / f"reports/export/{item}/run.json").read_text())["variants"]
        for variant, seen in observed.items():
            figures = files[variant]
            print(
                f"{item} {variant}: {figures['bytes']:,} bytes, {figures['bits_per_byte']['value']} bits per byte, "
                f"top-1 {figures['top1_transformers']:.2%}, greedy {figures['greedy_identical']} of "
                f"{figures['greedy_prompts']}, largest difference {seen['largest_difference']:g}, "
                f"{seen['prompt_tokens_per_second']:.0f} and {seen['tokens_per_second']:.0f} tokens/s"
            )
        assert observed[plain]["largest_difference"] < largest
        assert files[plain]["top1_transformers"] > 0.99
        assert files[plain]["greedy_identical"] >= 0.9 * files[plain]["greedy_prompts"]
