"""The decoder in MLX against the one in torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.model import decoder
from lib.model.config import ModelConfig
from tests.model.test_decoder import CONFIG, random_decoder

mx = pytest.importorskip("mlx.core")

from lib.model import mlx_decoder  # noqa: E402


def pair(config: ModelConfig, **settings: object) -> tuple[decoder.Decoder, mlx_decoder.Decoder]:
    """The same model twice."""
    peer = random_decoder(config)
    model = mlx_decoder.Decoder(config, **settings)
    names = {name: weight.detach().numpy() for name, weight in peer.named_parameters()}
    assert {name: weight.shape for name, weight in mlx_decoder.weights(model).items()} == {
        name: weight.shape for name, weight in names.items()
    }
    mlx_decoder.set_weights(model, names)
    return peer, model


def tokens(rows: int = 3, length: int = CONFIG.context_length) -> np.ndarray:
    return np.random.default_rng(0).integers(0, CONFIG.vocab_size, (rows, length))


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_torchs(qk_norm: bool, tied: bool) -> None:
    peer, model = pair(replace(CONFIG, qk_norm=qk_norm, tie_embeddings=tied))
    given = tokens()
    expected = peer(torch.from_numpy(given)).detach().numpy()
    np.testing.assert_allclose(
        np.array(model(mx.array(given))), expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max()
    )


def test_logits_in_bf16_are_near() -> None:
    peer, model = pair(CONFIG, dtype=mx.bfloat16)
    given = tokens()
    expected = peer(torch.from_numpy(given)).detach().numpy()
    found = np.array(model(mx.array(given)).astype(mx.float32))
    error = np.abs(found - expected).mean() / np.abs(expected).mean()
    assert 1e-4 < error < 0.05, error
    assert {weight.dtype for weight in mlx_decoder.weights(model).values()} == {mx.float32}


def test_a_document_is_seen_as_if_it_were_alone() -> None:
    """Rotary positions are relative, so a document further down its row has the logits that torch gives it alone."""
    peer, model = pair(CONFIG)
    given = tokens(rows=2)
    documents = np.array([[0] * 10 + [1] * 22, [0] * 5 + [1] * 20 + [2] * 7])
    found = np.array(model(mx.array(given), mx.array(documents)))
    for row, numbers in enumerate(documents):
        for number in set(numbers):
            places = numbers == number
            alone = peer(torch.from_numpy(given[row, places][None]))[0].detach().numpy()
            np.testing.assert_allclose(found[row, places], alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max())
    changed = given.copy()
    changed[:, :5] = (changed[:, :5] + 1) % CONFIG.vocab_size
    other = np.array(model(mx.array(changed), mx.array(documents)))
    np.testing.assert_array_equal(other[1, 5:], found[1, 5:])
    assert not np.allclose(other[0, 5:10], found[0, 5:10])


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_loss_and_gradients_are_torchs(
    checkpointed: bool, in_pieces: bool, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_pieces:  # the last one shorter
        monkeypatch.setattr(mlx_decoder, "LOGIT_BYTES", 25 * CONFIG.vocab_size * 4)
    peer, model = pair(replace(CONFIG, tie_embeddings=tied), checkpointed=checkpointed)
    given = tokens(length=CONFIG.context_length + 1)
    inputs, labels = given[:, :-1], given[:, 1:].copy()
    labels[:, 20:] = -100
    loss = F.cross_entropy(
        peer(torch.from_numpy(inputs)).flatten(0, 1), torch.from_numpy(labels).flatten(), reduction="sum"
    )
    loss.backward()
    value, gradients = mlx_decoder.nn.value_and_grad(model, model.loss_sum)(mx.array(inputs), mx.array(labels))
    assert value.item() == pytest.approx(loss.item(), rel=1e-5)
    found = dict(mlx_decoder.nn.utils.tree_flatten(gradients))
    for name, weight in peer.named_parameters():
        expected = weight.grad.numpy()
        np.testing.assert_allclose(np.array(found[name]), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
