"""Optimizers: against references in numpy and in other libraries, on a golden run, and resumed to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lib.backends.cpu import Cpu
from lib.model.config import ModelConfig
from lib.model.decoder import Decoder
from lib.params.training import Lion as LionSettings
from lib.params.training import Muon as MuonSettings
from lib.params.training import Pretrain, Samples
from lib.pipeline.errors import SmeltError
from lib.trainers.adamw import AdamW
from lib.trainers.lion import Lion
from lib.trainers.muon import POLYNOMIALS, Muon, _stacks, orthogonalise
from lib.trainers.optimizers import for_finetuning, for_pretraining, remarks, set_rates

CPU = Cpu(bf16=False)
KINDS = ("muon", "adamw", "lion", "adamw_8bit", "paged_adamw_8bit", "lion_8bit")
# Wide enough that bitsandbytes keeps the matrices' states in 8 bits: from 4,096 numbers.
CONFIG = ModelConfig(
    vocab_size=128, context_length=16, layers=1, width=64, heads=2, kv_heads=2, feed_forward=96,
    rope_theta=10000.0, norm_eps=1e-6, qk_norm=True, tie_embeddings=False,
)  # fmt: skip
RATES = {
    "muon": 0.02,
    "adamw": 0.005,
    "lion": 0.002,
    "adamw_8bit": 0.005,
    "paged_adamw_8bit": 0.005,
    "lion_8bit": 0.002,
}


def settings(optimizer: str, **changes: object) -> Pretrain:
    given = {
        "tokens": 1, "batch_tokens": 1, "precision": "fp32", "activation_checkpointing": False, "extend_from": None,
        "samples": Samples(every=1, tokens=1, prompts=[]), "optimizer": optimizer, "learning_rate": RATES[optimizer],
        "embedding_learning_rate": 0.05, "head_learning_rate": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.05,
        "muon": MuonSettings(momentum=(0.8, 0.9), momentum_steps=30, iterations=3),
        "lion": LionSettings(betas=(0.9, 0.99)),
        "cautious": not optimizer.endswith("8bit"), "clip_norm": 1.0, "schedule": "constant", "warmup_steps": 0,
        "checkpoint_every": 5, "log_every": 1, "validate_every": 10, "validate_rows": 4,
    }  # fmt: skip
    return Pretrain(**{**given, **changes})


def decoder(**changes: object) -> Decoder:
    model = Decoder(replace(CONFIG, **changes))
    model.initialise(1)
    return model


TEXT = torch.tensor(list((Path(__file__).parents[2] / "LICENSE").read_bytes()))


def train(model: Decoder, optimizers: list[torch.optim.Optimizer], steps: range) -> float:
    """On the bytes of the licence, a real text: some are rare, which is what makes plain SGD slow. The last losses."""
    losses = []
    for step in steps:
        starts = torch.randint(len(TEXT) - 17, (32, 1), generator=torch.Generator().manual_seed(step))
        tokens = TEXT[starts + torch.arange(17)]
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return sum(losses[-5:]) / 5


# -- the iteration of Muon


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 6, 20), (1, 20, 6)])
@pytest.mark.parametrize("iterations", POLYNOMIALS)
def test_orthogonalise_keeps_directions_and_evens_out_singular_values(
    shape: tuple[int, int, int], iterations: int
) -> None:
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(0.05, 1, values.shape[1])
    result = orthogonalise(left @ torch.diag(values / values.norm()) @ right, iterations)
    inside = left.mT @ result @ right.mT  # in the basis of singular vectors it is diagonal
    diagonal = inside.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inside, torch.diag_embed(diagonal), atol=1e-4, rtol=0)
    assert 0.7 < diagonal.min() <= diagonal.max() < 1.3


@pytest.mark.parametrize(("iterations", "floor", "error"), [(3, 0.01, 0.30), (4, 0.003, 0.24), (5, 0.001, 0.17)])
def test_polynomials_take_the_singular_values_they_are_made_for_near_one(
    iterations: int, floor: float, error: float
) -> None:
    values = np.geomspace(floor, 1.02, 20000)  # rounding may leave one a little above 1
    for a, b, c in POLYNOMIALS[iterations]:
        values = a * values + b * values**3 + c * values**5
    assert np.abs(values - 1).max() < error


@pytest.mark.parametrize("iterations", POLYNOMIALS)
def test_orthogonalise_in_bf16_stays_near_fp32(iterations: int) -> None:
    """Also where a gradient of low rank has all of its norm in few singular values: near 1 the polynomials are steep,
    and beyond it they explode."""
    torch.manual_seed(0)
    for rank in (1, 4, 64):
        x = torch.randn(8, 64, rank) @ torch.randn(8, rank, 128)
        x /= x.norm(dim=(1, 2), keepdim=True)
        rounded, exact = orthogonalise(x.bfloat16(), iterations).float(), orthogonalise(x, iterations)
        assert torch.linalg.svdvals(rounded).max() < 1.35
    assert (rounded - exact).norm() < 0.05 * exact.norm()


# -- against references


def numpy_steps(
    rule: Callable[[np.ndarray, dict[str, np.ndarray], int], np.ndarray],
    weight: np.ndarray,
    gradients: np.ndarray,
    rate: float,
    weight_decay: float,
    cautious: bool,
) -> np.ndarray:
    """x <- x - rate (u + decay x), the decay where u x >= 0 or everywhere, in float64."""
    weight, state = weight.astype(np.float64), {}
    for step, gradient in enumerate(gradients.astype(np.float64), start=1):
        update = rule(gradient, state, step)
        decaying = (update * weight >= 0) if cautious else np.ones_like(weight)
        weight = weight - rate * (update + weight_decay * decaying * weight)
    return weight


def numpy_lion(gradient: np.ndarray, state: dict[str, np.ndarray], step: int) -> np.ndarray:
    momentum = state.get("m", np.zeros_like(gradient))
    state["m"] = 0.99 * momentum + 0.01 * gradient
    return np.sign(0.9 * momentum + 0.1 * gradient)


def numpy_adamw(gradient: np.ndarray, state: dict[str, np.ndarray], step: int) -> np.ndarray:
    state["m"] = 0.8 * state.get("m", 0) + 0.2 * gradient
    state["v"] = 0.95 * state.get("v", 0) + 0.05 * gradient**2
    return (state["m"] / (1 - 0.8**step)) / (np.sqrt(state["v"] / (1 - 0.95**step)) + 1e-8)


def numpy_muon(gradient: np.ndarray, state: dict[str, np.ndarray], step: int) -> np.ndarray:
    """On singular values, where the code multiplies matrices."""
    momentum = (0.7, 0.75, 0.8, 0.85, 0.9, 0.9, 0.9)[step - 1]
    state["m"] = momentum * state.get("m", 0) + (1 - momentum) * gradient
    left, values, right = np.linalg.svd((1 - momentum) * gradient + momentum * state["m"], full_matrices=False)
    values = values / np.sqrt((values**2).sum())
    for a, b, c in POLYNOMIALS[4]:
        values = a * values + b * values**3 + c * values**5
    rows, columns = gradient.shape
    return np.sqrt(max(1, rows / columns)) * (left * values) @ right


REFERENCES = {
    "lion": (numpy_lion, lambda groups, cautious: Lion(groups, (0.9, 0.99), cautious)),
    "adamw": (numpy_adamw, lambda groups, cautious: AdamW(groups, (0.8, 0.95), cautious)),
    "muon": (numpy_muon, lambda groups, cautious: Muon(groups, (0.7, 0.9), 4, 4, torch.float32, cautious)),
}


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("kind", REFERENCES)
def test_updates_are_those_of_a_reference_in_numpy(kind: str, cautious: bool) -> None:
    rule, build = REFERENCES[kind]
    random = np.random.default_rng(0)
    # Muon takes matrices of one shape together, each is its own; the tall one has its own scale.
    for shapes in (((12, 7), (12, 7)), ((5, 9),)):
        start = [random.normal(size=shape).astype(np.float32) for shape in shapes]
        gradients = [random.normal(size=(6, *shape)).astype(np.float32) for shape in shapes]
        weights = [nn.Parameter(torch.from_numpy(value.copy())) for value in start]
        optimizer = build([{"params": weights, "lr": 0.05, "weight_decay": 0.3}], cautious)
        for step in range(6):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = torch.from_numpy(gradient[step])
            optimizer.step()
        for weight, first, gradient in zip(weights, start, gradients, strict=True):
            expected = numpy_steps(rule, first, gradient, 0.05, 0.3, cautious)
            np.testing.assert_allclose(weight.detach().numpy(), expected, atol=2e-5)
            assert not np.allclose(expected, numpy_steps(rule, first, gradient, 0.05, 0.3, not cautious), atol=1e-3)


def test_muon_agrees_with_torch() -> None:
    """torch.optim.Muon has another iteration, in bf16, which leaves singular values between 0.7 and 1.2."""
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(48, 16)) for _ in range(2))
    one = Muon([{"params": [ours], "lr": 0.02, "weight_decay": 0.1}], (0.95, 0.95), 0, 5, torch.float32, cautious=False)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True)
    for _ in range(5):
        ours.grad = torch.randn(48, 16)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()
    moved = (theirs - 1).norm()
    assert (ours - theirs).norm() < 0.25 * moved


def test_a_weight_without_gradient_stays() -> None:
    """Weights behind a projection that starts at zero have a gradient of zero at first."""
    still, frozen = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(4, 6))
    still.grad = torch.zeros(4, 6)
    for build in (kind[1] for kind in REFERENCES.values()):
        build([{"params": [still, frozen], "lr": 0.1, "weight_decay": 0.0}], True).step()
    assert torch.equal(still, torch.ones(4, 6))
    assert torch.equal(frozen, torch.ones(4, 6))


def test_stacks_hold_each_weight_once_and_are_bounded() -> None:
    weights = [torch.empty(shape, device="meta") for shape in [(4096, 4096)] * 3 + [(64, 32)] * 5 + [(32, 64)]]
    stacks = list(_stacks(weights))
    assert sorted(len(stack) for stack in stacks) == [1, 1, 1, 1, 5]
    assert {id(weight) for stack in stacks for weight in stack} == {id(weight) for weight in weights}


def test_eight_bits_follow_their_32_bit_kin() -> None:
    """Lion's state of a small tensor is fp32 in bitsandbytes: the same bits. In 8 bits AdamW is near."""
    from lib.trainers.eight_bit import AdamW8bit, Lion8bit

    torch.manual_seed(0)
    for ours, theirs, shape, tolerance in (
        (lambda groups: Lion(groups, (0.9, 0.99), False), Lion8bit, (10, 10), 1e-6),
        (lambda groups: AdamW(groups, (0.9, 0.95), False), AdamW8bit, (80, 80), 0.05),
    ):
        one, other = (nn.Parameter(torch.ones(shape)) for _ in range(2))
        betas = {Lion8bit: (0.9, 0.99), AdamW8bit: (0.9, 0.95)}[theirs]
        pair = (
            ours([{"params": [one], "lr": 0.01, "weight_decay": 0.1}]),
            theirs([{"params": [other], "lr": 0.01, "weight_decay": 0.1}], betas=betas),
        )
        for _ in range(10):
            one.grad = torch.randn(shape)
            other.grad = one.grad.clone()
            for optimizer in pair:
                optimizer.step()
        assert (one - other).norm() < tolerance * (one - 1).norm(), theirs


# -- which weight is trained by what


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_is_in_one_group_at_its_own_rate(kind: str, tied: bool) -> None:
    model = decoder(tie_embeddings=tied)
    changes = {"learning_rate": 0.1, "embedding_learning_rate": 0.2, "head_learning_rate": 0.3}
    optimizers = for_pretraining(model, settings(kind, **changes, cautious=False), CPU)
    set_rates(optimizers, 0.5)
    found = {
        id(weight): (type(optimizer).__name__, group["lr"], group["weight_decay"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert len(found) == sum(len(group["params"]) for each in optimizers for group in each.param_groups)
    inner = {"muon": "Muon", "adamw": "AdamW", "lion": "Lion", "lion_8bit": "Lion8bit"}.get(kind, "AdamW8bit")
    outer = "AdamW8bit" if kind.endswith("8bit") else "AdamW"
    for name, weight in model.named_parameters():
        if name == "model.embed_tokens.weight":
            expected = ("AdamW", 0.1, 0.0)
        elif weight.ndim == 2 and name != "lm_head.weight":
            expected = (inner, 0.05, 0.05)
        else:
            expected = (outer, 0.15, 0.0)
        assert found[id(weight)] == expected, name


def test_what_a_device_cannot_do_is_said() -> None:
    mps = SimpleNamespace(name="mps", device=torch.device("mps"), bf16=False)
    with pytest.raises(SmeltError, match=r"lion_8bit does not run on mps.*Choose adamw, lion or muon"):
        for_pretraining(decoder(), settings("lion_8bit"), mps)
    assert "nothing is paged on cpu" in remarks(settings("paged_adamw_8bit"), CPU)[0]
    assert remarks(settings("adamw_8bit"), CPU) == []
    cuda = SimpleNamespace(name="cuda", device=torch.device("cuda"), bf16=True)
    assert remarks(settings("paged_adamw_8bit"), cuda) == []
    (paged,) = for_finetuning(decoder(), settings("paged_adamw_8bit"), cuda)
    assert paged.is_paged


def test_cautious_decay_is_refused_where_it_cannot_be_done() -> None:
    with pytest.raises(ValueError, match="cautious must be false for weight decay with adamw_8bit"):
        settings("adamw_8bit", cautious=True)
    assert settings("adamw_8bit", cautious=True, weight_decay=0.0).cautious


# -- the golden run


@pytest.fixture(scope="module")
def best_of_sgd() -> float:
    losses = []
    for rate, momentum in ((0.3, 0.0), (1.0, 0.0), (0.1, 0.9), (0.3, 0.9)):
        model = decoder()
        losses.append(train(model, [torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)], range(40)))
    return min(losses)


@pytest.mark.parametrize("kind", KINDS)
def test_learns_faster_than_sgd_and_resumes_to_the_same_bits(kind: str, best_of_sgd: float, tmp_path: Path) -> None:
    """State goes through safetensors by the weight's name, and into optimizers that were never stepped."""
    model = decoder()
    optimizers = for_pretraining(model, settings(kind), CPU)
    train(model, optimizers, range(20))
    save_file({name: weight.detach() for name, weight in model.named_parameters()}, tmp_path / "model.safetensors")
    save_file(named(model, optimizers), tmp_path / "optimizer.safetensors")
    loss = train(model, optimizers, range(20, 40))
    assert loss < best_of_sgd - 0.05

    other = decoder()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    resumed = for_pretraining(other, settings(kind), CPU)
    restore(other, resumed, load_file(tmp_path / "optimizer.safetensors"))
    assert train(other, resumed, range(20, 40)) == loss
    for (name, one), (_, two) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(one, two), name


def weights_of(model: Decoder, optimizer: torch.optim.Optimizer) -> list[str]:
    names = {id(weight): name for name, weight in model.named_parameters()}
    return [names[id(weight)] for group in optimizer.param_groups for weight in group["params"]]


def named(model: Decoder, optimizers: list[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """<weight>.<name of the state>"""
    return {
        f"{weights_of(model, optimizer)[number]}.{key}": value.clone()
        for optimizer in optimizers
        for number, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def restore(model: Decoder, optimizers: list[torch.optim.Optimizer], tensors: dict[str, torch.Tensor]) -> None:
    for optimizer in optimizers:
        state = {
            number: {
                key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")
            }
            for number, name in enumerate(weights_of(model, optimizer))
        }
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_paged_state_is_still_paged_after_resuming() -> None:
    cuda = SimpleNamespace(name="cuda", device=torch.device("cuda"), bf16=True)
    weight = nn.Parameter(torch.ones(512, 512, device="cuda"))
    model = nn.ParameterList([weight])
    (first,) = for_finetuning(model, settings("paged_adamw_8bit"), cuda)
    weight.grad = torch.ones_like(weight)
    first.step()
    (second,) = for_finetuning(model, settings("paged_adamw_8bit"), cuda)
    second.load_state_dict(first.state_dict())
    assert second.state[weight]["state1"].is_paged
    assert torch.equal(second.state[weight]["state1"], first.state[weight]["state1"])
