"""Packed conversations without padding, against transformers' own forward pass and a plain loop around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import CohereConfig, CohereForCausalLM, LlamaConfig, MistralConfig, MistralForCausalLM, Qwen3Config

from lib.trainers import packed
from lib.trainers.activations import checkpoint_activations
from lib.trainers.finetuning import finetuning_engine
from lib.trainers.frozen import hold_frozen
from lib.trainers.loader import IGNORED, Conversations
from lib.trainers.objectives import Chat
from tests.trainers.test_finetuning import adapted, settings
from tests.trainers.test_loop import CPU

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 48, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def encoded(count: int = 24) -> list[tuple[list[int], list[bool]]]:
    chance = np.random.default_rng(1)
    lengths = chance.integers(3, 30, count)
    return [(chance.integers(0, 64, n).tolist(), [n // 3 <= place < n - 1 for place in range(n)]) for n in lengths]


def batch(*indices: int) -> list[Tensor]:
    return [torch.from_numpy(part) for part in Conversations(encoded(), 0).rows(np.array(indices))]


def gradients(model: PeftModel, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def test_only_tokens_that_a_loss_depends_on_are_there() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2], [0, 0, 1, 1, 1, 1, 2, 2]])
    labels = torch.full((2, 8), IGNORED)
    labels[0, [4, 6]] = labels[1, 2] = 5
    layout = packed.lay_out(labels, documents)
    assert layout.place_N.tolist() == [0, 3, 4, 6, 10]  # the first of all is always there
    assert layout.token_BT.flatten()[layout.place_N].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("by_document", [True, False])
@pytest.mark.parametrize(("kind", "tied"), [(Qwen3Config, False), (LlamaConfig, True)])
def test_loss_and_gradients_are_those_of_transformers(
    kind: type, tied: bool, by_document: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "_BY_DOCUMENT", ("cpu",) if by_document else ())
    model = adapted(kind, tied)
    objective = Chat(model)
    assert objective._trunk is not None
    given = batch(*range(8))
    found = objective(*given)
    mine = gradients(model, found)
    total = 0.0
    for ids, mask in encoded()[:8]:
        tokens, labels = torch.tensor([ids]), torch.where(torch.tensor([mask]), torch.tensor([ids]), IGNORED)
        total += model(input_ids=tokens, labels=labels, num_items_in_batch=1).loss
    torch.testing.assert_close(found, total, rtol=1e-5, atol=1e-5)
    for name, value in gradients(model, total).items():
        torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_model_with_kernels_of_its_own_is_given_each_conversation_alone() -> None:
    model, given = adapted(), batch(*range(8))
    expected, own = Chat(model), Chat(adapted(), own_attention=True)
    assert own._trunk is None
    loss = own(*given)
    torch.testing.assert_close(loss, expected(*given), rtol=1e-5, atol=1e-5)
    wanted = gradients(model, expected(*given))
    for name, value in gradients(own.model, loss).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("own_attention", [True, False])
def test_a_share_of_a_batch_without_a_label_has_no_loss_and_no_gradient(own_attention: bool) -> None:
    model = adapted()
    inputs, labels, documents = batch(0, 1)
    loss = Chat(model, own_attention)(inputs, torch.full_like(labels, IGNORED), documents)
    assert loss == 0
    assert not any(value.any() for value in gradients(model, loss).values())


def test_the_loss_curve_is_that_of_a_plain_loop() -> None:
    """20 steps of AdamW in fp32, conversation by conversation with transformers' own loss; the limit is rounding's."""
    rate, rows = 2e-3, 4
    data = Conversations(encoded(), 0)
    chosen = settings(optimizer="adamw", learning_rate=rate, precision="fp32", weight_decay=0.0, betas=[0.9, 0.999])
    engine = finetuning_engine(CPU, adapted(), chosen, 1, lambda line: None)
    plain = adapted()
    optimizer = torch.optim.AdamW([w for w in plain.parameters() if w.requires_grad], rate, weight_decay=0.0)
    curves = []
    for step in range(20):
        indices = np.arange(step * rows, step * rows + rows) % len(data)
        made = data.rows(indices)
        counted = int((made.labels != IGNORED).sum())
        ours = engine.gradient(made, counted)
        engine.clip(1.0)
        engine.update(1.0)
        total = 0.0
        for index in indices:
            ids, mask = encoded()[index]
            tokens, labels = torch.tensor([ids]), torch.where(torch.tensor([mask]), torch.tensor([ids]), IGNORED)
            loss = plain(input_ids=tokens, labels=labels, num_items_in_batch=counted).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        curves.append((ours, total))
    ours, theirs = np.array(curves).T
    assert theirs[-6:].mean() < theirs[:6].mean()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_rounded_frozen_weights_change_no_bit() -> None:
    model = adapted()
    objective, given = Chat(model), batch(*range(6))

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective(*given)
        return loss, gradients(model, loss)

    before, expected = run()
    names = {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16}
    assert not names
    saved = hold_frozen(model, torch.bfloat16)
    after, found = run()
    assert torch.equal(before, after)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    rounded = [weight for weight in model.parameters() if weight.dtype == torch.bfloat16]
    assert len(rounded) == 2 * 7 + 1
    assert saved == 2 * sum(weight.numel() for weight in rounded)


def test_a_head_that_is_tied_to_the_embedding_is_not_rounded() -> None:
    model = adapted(LlamaConfig, tied=True)
    hold_frozen(model, torch.bfloat16)
    assert model.get_input_embeddings().weight.dtype == torch.float32


@pytest.mark.parametrize(
    "model",
    [
        CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.5)),  # scales what the head gives
        MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)),  # sees only the last four tokens
    ],
)
def test_an_unusual_model_is_left_to_transformers(model: torch.nn.Module) -> None:
    before = model.config._attn_implementation
    assert packed.trunk(model) is None
    assert model.config._attn_implementation == before
    expected = 0.0
    for ids, mask in encoded()[:6]:
        tokens, labels = torch.tensor([ids]), torch.where(torch.tensor([mask]), torch.tensor([ids]), IGNORED)
        expected += model(input_ids=tokens, labels=labels, num_items_in_batch=1).loss
    torch.testing.assert_close(Chat(model)(*batch(*range(6))), expected, rtol=1e-5, atol=1e-5)


def test_asked_for_a_text_the_model_answers_as_ever() -> None:
    model, tokens = adapted(), torch.arange(2, 14)[None]
    expected = model.generate(input_ids=tokens, max_new_tokens=5, do_sample=False)
    Chat(model)
    assert torch.equal(model.generate(input_ids=tokens, max_new_tokens=5, do_sample=False), expected)


@pytest.mark.parametrize("recomputed", [False, True])
def test_compiled_it_is_the_same_for_all_lengths(recomputed: bool) -> None:
    model = adapted()
    expected = [
        (loss := Chat(model)(*given), gradients(model, loss)) for given in (batch(0, 1, 2), batch(3, 4, 5, 6, 7))
    ]
    if recomputed:
        checkpoint_activations(model)
    objective = Chat(model)
    counters.clear()
    objective.compile()
    made = []
    for given, (loss, wanted) in zip((batch(0, 1, 2), batch(3, 4, 5, 6, 7)), expected, strict=True):
        found = objective(*given)
        torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-5)
        for name, value in gradients(model, found).items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-3, atol=1e-4, msg=name)
        made.append(counters["stats"]["unique_graphs"])
    # What is recomputed is not compiled: dynamo leaves frames under a checkpoint alone.
    assert made[0] == made[1]
    assert recomputed or made[0] > 0
