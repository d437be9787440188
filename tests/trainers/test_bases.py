"""Bases that others made: read as transformers reads them, their tokenizers and templates kept; others refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from lib.export import gguf
from lib.export.lineage import combine
from lib.model.huggingface import copy_tokenizer
from lib.pipeline.errors import SmeltError
from lib.trainers import base_tokenizer, bases
from tests.export.conftest import MIXTURE, STAGES
from tests.trainers import foreign

CHAT = [{"role": "user", "content": " Say  12 345\n"}, {"role": "assistant", "content": "in 1800."}]
TEXTS = ["in 1800.", "  12 345", "a1b22 c", " x\n\n  7!", "", "Größe 你好", "3.14  15"]


def prepared(base: Path, folder: Path) -> AutoTokenizer:
    """As the chat model has it."""
    chat = folder.with_name("of-the-chat-model")
    chat.mkdir()
    copy_tokenizer(folder, chat, base_tokenizer.write(base, folder))
    return AutoTokenizer.from_pretrained(chat)


def test_a_directory_is_read_as_it_is(tmp_path: Path) -> None:
    base = foreign.write(tmp_path / "base", foreign.TURNS, foreign.TEMPLATE)
    ids = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(bases.load(base)(ids).logits, AutoModelForCausalLM.from_pretrained(base)(ids).logits)
    ours = prepared(base, tmp_path / "tokenizer")
    theirs = AutoTokenizer.from_pretrained(base)
    assert ours.apply_chat_template(CHAT) == theirs.apply_chat_template(CHAT)
    assert (ours.eos_token, ours.pad_token) == ("<|stop|>", "<|begin|>")  # what ends a turn; its end of text pads
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]


def test_a_gguf_file_is_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    base = foreign.write(tmp_path / "base", foreign.CHATML, hidden_size=64, head_dim=32)
    chat = shutil.copytree(base, tmp_path / "chat")
    copy_tokenizer(tmp_path / "own", chat, base_tokenizer.write(base, tmp_path / "own"))
    made = gguf.export(chat, tmp_path / "out", "tiny", "F16", [], [], combine(STAGES, MIXTURE), 1)["F16"]
    (tmp_path / "gguf").mkdir()
    shutil.copyfile(made, tmp_path / "gguf/tiny.gguf")

    before, after = bases.load(base), bases.load(tmp_path / "gguf")
    for (name, weight), again in zip(before.named_parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(again, weight.half().float() if weight.ndim > 1 else weight, msg=name)
    own, read = Tokenizer.from_file(str(chat / "tokenizer.json")), prepared(tmp_path / "gguf", tmp_path / "tokenizer")
    for text in TEXTS:
        assert read(text)["input_ids"] == own.encode(text).ids, text
    assert read.apply_chat_template(CHAT) == AutoTokenizer.from_pretrained(chat).apply_chat_template(CHAT)
    assert (read.bos_token, read.eos_token) == ("<|endoftext|>", "<|im_end|>")


def test_a_base_without_a_template_gets_chatml_and_ends_with_both(tmp_path: Path) -> None:
    base = foreign.write(tmp_path / "base")
    tokenizer = prepared(base, tmp_path / "tokenizer")
    assert tokenizer.apply_chat_template(CHAT, tokenize=False).endswith("<|im_start|>assistant\nin 1800.<|im_end|>\n")
    base_tokenizer.write_generation(base, tmp_path / "of-the-chat-model")
    settings = json.loads((tmp_path / "of-the-chat-model/generation_config.json").read_text())
    assert settings["eos_token_id"] == [0, 2]  # <|endoftext|>, as the base has it, and <|im_end|>


@pytest.mark.parametrize(
    ("special", "template", "words"),
    [
        (("<|endoftext|>",), None, r"ChatML, .* uses <\|im_end\|>, <\|im_start\|>, which its tokenizer does not have"),
        (foreign.CHATML, foreign.TEMPLATE, r"its chat template uses <\|bot\|>, <\|stop\|>, <\|user\|>, which its"),
        (
            foreign.TURNS,
            "{% for m in messages %}{{ m['content'] }};{% endfor %}",
            "ends an answer with ';', which",
        ),
        (foreign.TURNS, "{% for m in %}", "its chat template cannot be rendered"),
    ],
)
def test_a_tokenizer_without_the_tokens_of_its_template_is_refused(
    special: tuple[str, ...], template: str | None, words: str, tmp_path: Path
) -> None:
    base = foreign.write(tmp_path / "base", special, template)
    with pytest.raises(SmeltError, match=words):
        base_tokenizer.write(base, tmp_path / "chat")
    assert not (tmp_path / "chat").exists()


def _nothing(folder: Path) -> None:
    folder.mkdir()


def _two_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.gguf").write_bytes(b"GGUF")
    (folder / "b.gguf").write_bytes(b"GGUF")


def _rubbish(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.gguf").write_bytes(b"GGUF and nothing of the kind" * 9)


def _pickle(folder: Path) -> None:
    foreign.write(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    foreign.write(folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def _embedder(folder: Path) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=64, **shape)).save_pretrained(folder)


def _capped(folder: Path) -> None:
    config = Gemma2Config(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        intermediate_size=16, final_logit_softcapping=0.01,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(folder)


def _other_names(folder: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)


def _code(folder: Path) -> None:
    foreign.write(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "code.Mine", "AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('code of others was run')")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_nothing, r"has no config\.json, and no \.gguf file\. A base is a Hugging Face directory"),
        (_two_files, r"has no config\.json, and 2 \.gguf files"),
        (_rubbish, "cannot load the model"),
        (_pickle, r"no \.safetensors file \(weights in pickle files are not read"),
        (_cut, "cannot load the model"),
        (_embedder, "is a bert without .* it is no model that continues text"),
        (_capped, "is a gemma2, whose head is not a matrix after its blocks"),
        (_other_names, "is a gpt2, whose head is not a matrix after its blocks"),
        (_code, "cannot load the model"),
    ],
)
def test_what_is_no_base_is_refused_with_one_message(make: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    make(tmp_path / "base")
    with pytest.raises(SmeltError, match=words) as caught:
        bases.load(tmp_path / "base")
    assert "\n" not in str(caught.value)


def test_the_fingerprint_is_that_of_the_weights(tmp_path: Path) -> None:
    base = foreign.write(tmp_path / "base")
    copy = shutil.copytree(base, tmp_path / "copy")
    (copy / "README.md").write_text("mine")
    assert bases.fingerprint(copy) == bases.fingerprint(base)
    assert bases.fingerprint(foreign.write(tmp_path / "other", seed=1)) != bases.fingerprint(base)
