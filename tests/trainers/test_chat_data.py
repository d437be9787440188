"""data/chat as token ids: cut after answers and never within a turn, every row accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from lib.pipeline.errors import SmeltError
from lib.tokenizer.chat_template import SPECIAL_TOKENS
from lib.tokenizer.rendering import ChatRenderer
from lib.tokenizer.train import train_tokenizer
from lib.trainers.chat_data import read_examples
from lib.trainers.loader import IGNORED, Conversations


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer((f"iron tin and lead {n} user assistant system " * 3 for n in range(99)), 290)


@pytest.fixture(scope="module")
def renderer(tokenizer: Tokenizer) -> ChatRenderer:
    return ChatRenderer(tokenizer.to_str(), None, {})


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(contents)]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_long_conversations_end_after_an_answer(tmp_path: Path, renderer: ChatRenderer) -> None:
    system = {"role": "system", "content": "Be brief."}
    long = [system, *turns(*["tin and lead"] * 9), {"role": "user", "content": "more?"}]
    lengths = {end: len(renderer.encode(long[:end])[0]) for end in (3, 5, 7, 9)}
    path = write(tmp_path / "train.jsonl", {"group": "own", "messages": long})
    for end, length in lengths.items():
        for longest in (length, length + 1):
            ((ids, learnt),), tally = read_examples([path], renderer, longest)
            whole, mask = renderer.encode(long[:end])
            assert ids.tolist() == whole
            assert learnt.tolist() == mask
            assert (tally.cut, tally.turns_cut, tally.whole) == ((1, len(long) - end, 0) if end < 9 else (0, 0, 1))
    examples, tally = read_examples([path], renderer, lengths[3] - 1)
    assert (examples, dict(tally.dropped)) == ([], {"too_long": 1})


def test_every_row_is_whole_cut_or_dropped_with_a_reason(tmp_path: Path, renderer: ChatRenderer) -> None:
    strict = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    strict += renderer.template.source.removeprefix("{% for message in messages %}").replace("message[", "m[")
    names = dict.fromkeys(SPECIAL_TOKENS, True)
    assert names
    ours = ChatRenderer(renderer._tokenizer.to_str(), strict, {})
    rows = [
        {"group": "own", "messages": turns("iron?", "tin")},
        {"group": "own", "messages": turns("iron?", "tin", "lead?", "iron " * 99)},
        {"group": "instructions", "messages": turns("iron " * 99, "tin")},
        {"group": "instructions", "messages": [{"role": "tool", "content": "x"}, *turns("iron?", "tin")]},
        {"group": "instructions", "messages": turns("iron?")},
    ]
    texts = [{"group": "text", "text": "tin"}, {"group": "text", "text": "lead and tin " * 60}]
    files = [write(tmp_path / "train.jsonl", *rows), write(tmp_path / "text.jsonl", *texts)]
    examples, tally = read_examples(files, ours, 48)
    metrics = tally.metrics()
    assert metrics["rows"] == 7 == metrics["whole"] + metrics["cut"] + sum(metrics["dropped"].values())
    assert metrics["dropped"] == {"no_answer": 1, "template_refuses_it": 1, "too_long": 1}
    assert (metrics["whole"], metrics["cut"], metrics["turns_cut"]) == (2, 2, 2)
    assert sum(group["tokens"] for group in metrics["groups"].values()) == sum(len(ids) for ids, _ in examples)
    assert sum(group["share"] for group in metrics["groups"].values()) == pytest.approx(1, abs=1e-3)
    assert "instructions" not in metrics["groups"]
    assert all(len(ids) <= 49 for ids, _ in examples)


@pytest.mark.parametrize("longest", [7, 16, 500])
def test_plain_text_loses_no_prediction(tmp_path: Path, renderer: ChatRenderer, longest: int) -> None:
    text = "iron and <|im_end|> tin " * 12
    path = write(tmp_path / "text.jsonl", {"group": "text", "text": text})
    examples, _ = read_examples([path], renderer, longest)
    pieces = [Conversations([example], renderer.pad).rows(np.arange(1)) for example in examples]
    assert max(piece.inputs.shape[1] for piece in pieces) <= longest
    whole = renderer.text(text)
    assert whole[0] == whole[-1] == 0
    assert 2 not in whole
    assert [token for piece in pieces for token in piece.labels[piece.labels != IGNORED]] == whole[1:]
    assert [token for piece in pieces for token in piece.inputs[piece.labels != IGNORED]] == whole[:-1]


def test_a_line_that_is_neither_is_an_error(tmp_path: Path, renderer: ChatRenderer) -> None:
    path = write(tmp_path / "train.jsonl", {"messages": turns("a", "b")}, {"question": "a"})
    with pytest.raises(SmeltError, match=r"train\.jsonl, line 2"):
        read_examples([path], renderer, 64)
