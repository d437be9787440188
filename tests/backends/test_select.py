"""Which backend is chosen, what it says of this machine, and when models are compiled."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from lib.backends import select
from lib.backends.backend import Compilation
from lib.backends.collectives import RCCL, collectives
from lib.backends.cpu import Cpu
from lib.backends.gpu import Rocm
from lib.backends.mps import Mps
from lib.backends.select import compile_policy, select_backend
from lib.pipeline.errors import SmeltError


@pytest.fixture(autouse=True)
def _no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SMELT_DEVICE", "SMELT_COMPILE", "SMELT_COLLECTIVES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", select.present())
def test_every_backend_of_this_machine_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_DEVICE", name)
    backend = select_backend(mlx=True)
    assert backend.name == name
    assert select_backend().framework == "torch"
    assert backend.precisions[0] == "fp32"
    assert 0 < backend.memory_mib() < backend.total_memory_mib()
    assert name in backend.describe()
    assert torch.ones(2, device=backend.device).sum() == 2
    assert backend.compilation().reason.startswith("on" if backend.compilation().on else "off: ")
    for precision in backend.precisions:
        backend.product(64, precision)()


def test_an_unknown_device_names_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMELT_DEVICE", "tpu")
    with pytest.raises(SmeltError, match=r"SMELT_DEVICE is 'tpu'; this machine .* have: .*cpu"):
        select_backend()


def test_torch_comes_before_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(select.present())[-2:] == ["cpu", "mlx"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "mlx" not in select.present()


def test_without_a_compiler_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    policy = compile_policy(Cpu())
    assert not policy.on
    assert "no C++ compiler (g++) was found" in policy.reason
    monkeypatch.setenv("SMELT_COMPILE", "1")
    with pytest.raises(SmeltError, match=r"SMELT_COMPILE is 1, but compiling is off: no C\+\+ compiler"):
        compile_policy(Cpu())
    compiler = tmp_path / "my-c++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", "my-c++")
    assert compile_policy(Cpu()).possible


def test_smelt_compile_overrules_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not compile_policy(Mps()).on  # torch makes the device's name without the device
    monkeypatch.setenv("SMELT_COMPILE", "1")
    assert compile_policy(Mps()) == Compilation(True, "on, as SMELT_COMPILE says")
    monkeypatch.setenv("SMELT_COMPILE", "0")
    assert not compile_policy(Cpu()).on
    monkeypatch.setenv("SMELT_COMPILE", "yes")
    with pytest.raises(SmeltError, match="SMELT_COMPILE is 'yes'"):
        compile_policy(Cpu())


def test_collectives_have_torchs_names(monkeypatch: pytest.MonkeyPatch) -> None:
    rocm = object.__new__(Rocm)  # without a card to ask
    assert collectives(rocm) == ("nccl", "")
    assert collectives(rocm, "rccl") == ("nccl", RCCL)
    assert collectives(rocm, "gloo") == ("gloo", "")
    assert collectives(Cpu()) == ("gloo", "")
    monkeypatch.setenv("SMELT_COLLECTIVES", "rccl")
    assert collectives(rocm) == ("nccl", RCCL)
    with pytest.raises(SmeltError, match="SMELT_COLLECTIVES is 'rccl'; cpu has gloo"):
        collectives(Cpu())
    with pytest.raises(SmeltError, match="'mpi'; rocm has gloo or nccl or rccl"):
        collectives(rocm, "mpi")
    with pytest.raises(SmeltError, match="one process only"):
        collectives(Mps())


@pytest.mark.filterwarnings("ignore:Device capability of rccl unknown")
def test_torch_refuses_the_name_rccl() -> None:
    """The reason for the mapping: if torch learns the name, it can go."""
    with pytest.raises(AssertionError, match="Unknown backend type rccl"):
        torch.distributed.init_process_group("rccl", store=torch.distributed.HashStore(), rank=0, world_size=1)
