"""Preference tuning: its losses by hand, its reference, what it does to a small model, and that it resumes exactly."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from lib.trainers.engine import TorchEngine
from lib.trainers.live import Meter
from lib.trainers.loader import IGNORED
from lib.trainers.loop import Task, Trainer
from lib.trainers.lora import add_adapter
from lib.trainers.optimizers import for_finetuning
from lib.trainers.pairs import Pair, Pairs, read_pairs
from lib.trainers.preferences import Preference, compare
from lib.trainers.schedules import wsd
from tests.trainers.test_loop import CPU, FP32, GUARDS, SETTINGS, FakeRun

VOCAB = 64


def conversation(ids: list[int], answer: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids whose last `answer` tokens are the answer."""
    return np.array(ids), np.arange(len(ids)) >= len(ids) - answer


def make_pairs(count: int = 24) -> list[Pair]:
    """Random prompts; chosen answers of the upper half of the vocabulary and rejected ones of the lower half."""
    chance = np.random.default_rng(7)

    def some(low: int, high: int, least: int, most: int) -> list[int]:
        return chance.integers(low, high, int(chance.integers(least, most))).tolist()

    found = []
    for _ in range(count):
        prompt, up, down = some(0, VOCAB, 2, 9), some(VOCAB // 2, VOCAB, 2, 6), some(0, VOCAB // 2, 2, 6)
        found.append(Pair(*(conversation([*prompt, *answer], len(answer)) for answer in (up, down))))
    return found


def make_model(tied: bool = False) -> PeftModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, intermediate_size=48, max_position_embeddings=32, tie_word_embeddings=tied,
    )  # fmt: skip
    return add_adapter(
        Qwen3ForCausalLM(config), SimpleNamespace(rank=4, alpha=8, dropout=0.0, dora=False, rslora=False), seed=1
    )


@pytest.fixture
def model() -> PeftModel:
    return make_model()


def move(model: PeftModel) -> None:
    """Away from the reference: adapters start at zero."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)


def engine_of(model: PeftModel, loss: str = "dpo", beta: float = 0.5, rate: float = 0.01) -> TorchEngine:
    settings = SETTINGS.model_copy(update={"weight_decay": 0.0, "learning_rate": rate})
    optimizers = for_finetuning(model, settings, CPU)
    return TorchEngine(CPU, Preference(model, loss, beta), optimizers, 1, FP32, compiles=False, say=lambda line: None)


@torch.no_grad()
def by_hand(model: PeftModel, ids: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Log-probability of each token of the answer, by the whole model on the conversation alone, in numpy."""
    logits = model(input_ids=torch.from_numpy(ids)[None]).logits[0].double().numpy()
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probabilities[np.arange(len(ids) - 1), ids[1:]][answer[1:]]


def dpo(policy: list[np.ndarray], reference: list[np.ndarray], beta: float) -> tuple[float, float]:
    """Equation 7 of the paper for one pair; the loss and the margin of the rewards."""
    chosen, rejected = (beta * (p.sum() - r.sum()) for p, r in zip(policy, reference, strict=True))
    return math.log1p(math.exp(-(chosen - rejected))), chosen - rejected


def orpo(policy: list[np.ndarray], beta: float) -> float:
    """Equations 6 and 7 of the paper for one pair."""
    chosen, rejected = (math.exp(p.mean()) for p in policy)
    ratio = (chosen / (1 - chosen)) / (rejected / (1 - rejected))
    return -math.log(chosen) + beta * -math.log(1 / (1 + 1 / ratio))


def test_the_loss_of_dpo_is_the_one_worked_out_by_hand(model: PeftModel, tmp_path: Path) -> None:
    raw = make_pairs()
    pairs, objective = Pairs(raw, 0), Preference(model, "dpo", 0.5)
    reference = [[by_hand(model, *side) for side in pair] for pair in raw]
    pairs.refer_to(engine_of(model), tmp_path / "reference.npy")
    move(model)
    expected = [
        dpo([by_hand(model, *side) for side in pair], there, 0.5) for pair, there in zip(raw, reference, strict=True)
    ]
    batch = pairs.rows(np.arange(24))
    assert len(batch.inputs) < 24  # several pairs share a row
    assert batch.counted == 24
    loss = objective(*map(torch.from_numpy, batch)).item()
    assert loss == pytest.approx(sum(each for each, _ in expected), rel=1e-4)
    measured = objective.measure(engine_of(model), batch)
    assert measured["loss"] == pytest.approx(loss / 24, rel=1e-5)
    assert measured["margin"] == pytest.approx(np.mean([margin for _, margin in expected]), abs=1e-4)
    assert measured["accuracy"] == pytest.approx(np.mean([margin > 0 for _, margin in expected]))
    assert measured["chosen"] - measured["rejected"] == pytest.approx(measured["margin"], abs=1e-5)


def test_packed_it_is_the_same_as_each_conversation_alone(model: PeftModel) -> None:
    raw = make_pairs()
    move(model)
    pairs = Pairs(raw, 0)
    pairs.reference = [np.full(pair.answers, -3.0, np.float32) for pair in raw]
    batch = [torch.from_numpy(part) for part in pairs.rows(np.arange(24))]
    packed, alone = Preference(model, "dpo", 0.5), Preference(model, "dpo", 0.5)
    assert packed._trunk is not None
    alone._trunk = None
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    losses = [objective(*batch) for objective in (packed, alone)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    for one, other in zip(*(torch.autograd.grad(loss, trained) for loss in losses), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_model_that_sees_a_window_is_given_each_conversation_alone() -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=32, sliding_window=4,
    )  # fmt: skip
    windowed, raw = MistralForCausalLM(config).eval(), make_pairs()
    pairs, objective = Pairs(raw, 0), Preference(windowed, "dpo", 0.5)
    assert objective._trunk is None
    found = objective.log_probabilities(*map(torch.from_numpy, pairs.rows(np.arange(24))[:3]))
    order = pairs.in_order(np.arange(24))
    expected = np.concatenate([by_hand(windowed, *side) for number in order for side in raw[number]])
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_loss_of_orpo_is_the_one_worked_out_by_hand(model: PeftModel) -> None:
    raw = make_pairs()
    move(model)
    expected = sum(orpo([by_hand(model, *side) for side in pair], 0.2) for pair in raw)
    batch = Pairs(raw, 0).rows(np.arange(24))
    assert Preference(model, "orpo", 0.2)(*map(torch.from_numpy, batch)).item() == pytest.approx(expected, rel=1e-4)


def test_an_answer_that_is_certain_has_finite_odds() -> None:
    found = torch.tensor([0.0, -0.5], requires_grad=True)
    labels, documents = torch.tensor([[5, 6]]), torch.tensor([[0, 1]])
    loss = compare(found, labels, documents, torch.zeros(1, 2), "orpo", 0.1).loss.sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(found.grad).all()


def test_before_the_first_step_the_margins_are_zero(model: PeftModel, tmp_path: Path) -> None:
    pairs, engine = Pairs(make_pairs(), 0), engine_of(model)
    pairs.refer_to(engine, tmp_path / "reference.npy")
    measured = Preference(model, "dpo", 0.5).measure(engine, pairs.rows(np.arange(24)))
    assert measured["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert measured["margin"] == pytest.approx(0, abs=1e-5)


def test_the_kept_reference_is_the_computed_one_and_is_computed_once(model: PeftModel, tmp_path: Path) -> None:
    raw, path = make_pairs(100), tmp_path / "reference.npy"  # more than one pass takes
    fresh = [np.concatenate([by_hand(model, *side) for side in pair]) for pair in raw]
    pairs = Pairs(raw, 0)
    pairs.refer_to(engine_of(model), path)
    for got, wanted in zip(pairs.reference, fresh, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    move(model)  # as after a checkpoint was loaded: what is kept is still that of the beginning
    again = Pairs(raw, 0)
    again.refer_to(engine_of(model), path)
    assert all(np.array_equal(*both) for both in zip(again.reference, pairs.reference, strict=True))
    assert not np.allclose(by_hand(model, *raw[0].chosen), fresh[0][: len(by_hand(model, *raw[0].chosen))], atol=1e-3)


def test_every_label_finds_its_own_reference() -> None:
    raw = make_pairs()
    pairs = Pairs(raw, 0)
    pairs.reference = [np.arange(pair.answers, dtype=np.float32) + 100 * n for n, pair in enumerate(raw)]
    indices = np.array([5, 3, 17, 0, 20])
    batch = pairs.rows(indices)
    kept = batch.labels != IGNORED
    order = pairs.in_order(indices)
    assert sorted(order) == sorted(indices)
    np.testing.assert_array_equal(batch.reference[kept], np.concatenate([pairs.reference[n] for n in order]))
    answers = [ids[answer] for n in order for ids, answer in raw[n]]
    np.testing.assert_array_equal(batch.labels[kept], np.concatenate(answers))
    assert not batch.reference[~kept].any()


def trainer(model: PeftModel, folder: Path, steps: int, loss: str = "dpo") -> Trainer:
    folder.mkdir(exist_ok=True)
    engine, raw = engine_of(model, loss), make_pairs(60)
    train, val = Pairs(raw[:48], 0), Pairs(raw[48:], 0)
    for name, pairs in (("train", train), ("val", val)):
        pairs.refer_to(engine, folder / f"{name}.npy")
    objective = Preference(model, loss, 0.5)
    settings = SETTINGS.model_copy(update={"validate_rows": 12, "weight_decay": 0.0})
    task = Task(
        train, val, 8, 1, steps, lambda step: wsd(step, 2, 30, 0), {}, section="prefer", measure=objective.measure
    )
    return Trainer(FakeRun(folder), engine, settings, GUARDS, task, Meter(CPU, None))


@pytest.mark.parametrize("loss", ["dpo", "orpo"])
def test_the_chosen_answers_of_pairs_never_seen_become_likelier(model: PeftModel, tmp_path: Path, loss: str) -> None:
    run = trainer(model, tmp_path, 30, loss)
    history = run.fit()
    assert [row["step"] for row in history.val] == [10, 20, 30]
    margins = [row["margin"] for row in history.val]
    assert margins[-1] > 5 * abs(margins[0])
    assert history.val[-1]["accuracy"] >= 11 / 12
    assert history.train[-1]["loss"] < 0.7 * history.train[0]["loss"]
    assert history.val[-1]["margin"] == pytest.approx(history.val[-1]["chosen"] - history.val[-1]["rejected"], abs=1e-5)
    if loss == "dpo":
        assert history.train[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)  # per pair, not per token
    assert run.tokens > 30 * 8 * 4  # which are counted as such


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(model: PeftModel, tmp_path: Path) -> None:
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def back() -> None:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(start[name])

    whole = trainer(model, tmp_path / "whole", 12)
    history, weights = whole.fit(), whole.checkpoint()[0].model
    back()
    trainer(model, tmp_path / "parts", 7).fit()  # its last checkpoint is of step 5
    back()
    resumed = trainer(model, tmp_path / "parts", 12)
    assert resumed.fit().train == history.train
    assert "continuing from step 5 of 12" in resumed._run.said
    again = resumed.checkpoint()[0].model
    assert weights.keys() == again.keys()
    assert all(np.array_equal(weights[name], again[name]) for name in weights)


def test_only_the_last_answer_counts_and_what_is_too_long_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"prompt": [{"content": "ab"}, {"answer": "cd"}, {"content": "e"}], "chosen": [{"answer": "fgh"}], '
        '"rejected": [{"answer": "x"}]}\n'
        '{"prompt": [{"content": "abcdefghijkl"}], "chosen": [{"answer": "f"}], "rejected": [{"answer": "x"}]}\n'
    )

    def encode(messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
        turns = [(kind == "answer", text) for turn in messages for kind, text in turn.items()]
        return (
            [ord(letter) for _, text in turns for letter in f"{text}."],
            [learn for learn, text in turns for _ in f"{text}."],
        )

    # After each answer stands a turn of the user, so the two answers of the first pair are two runs.
    (pair,), too_long = read_pairs(path, encode, longest=12)
    assert "".join(map(chr, pair.chosen[0][pair.chosen[1]])) == "fgh."
    assert "".join(map(chr, pair.rejected[0][pair.rejected[1]])) == "x."
    assert too_long == 1
    assert read_pairs(path, encode, longest=11)[1] == 2
