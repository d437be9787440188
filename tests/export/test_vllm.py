"""`make serve-vllm`: what starts, what is refused, and the real server where vLLM is installed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lib import vllm
from lib.export import huggingface
from lib.export.lineage import Lineage
from lib.pipeline.errors import SmeltError

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / vllm.HOME


@pytest.fixture(scope="module")
def export(make_model: Callable[[str], Path], lineage: Lineage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "hf"
    huggingface.export(make_model("qwen3"), folder, "float32", lineage)
    return folder


@pytest.fixture
def port() -> Iterator[int]:
    """One that is taken as long as the test runs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_what_is_missing_or_taken_is_said_before_anything_starts(
    export: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SmeltError, match="run `make repro` first"):
        vllm.command(Path("models/export/hf"), port, [])
    with pytest.raises(SmeltError, match="there is no vLLM: "):
        vllm.command(export, port, [])
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vllm").write_text("#!/bin/sh\n")
    (tmp_path / "bin/vllm").chmod(0o755)
    with pytest.raises(SmeltError, match=f"port {port} is taken"):
        vllm.command(export, port, [])
    free = free_port()
    assert vllm.command(export, free, ["--max-model-len", "64"]) == [
        str(tmp_path / "bin/vllm"), "serve", str(export), "--host", "127.0.0.1", "--port", str(free),
        "--max-model-len", "64",
    ]  # fmt: skip
    (tmp_path / "model.safetensors").write_bytes((export / "model.safetensors").read_bytes()[:-9])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SmeltError, match="is not a whole safetensors file"):
        vllm.command(tmp_path, free, [])


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAM.exists(), reason="vLLM is not installed; lib/vllm.py says how")
def test_the_server_answers_as_transformers(export: Path) -> None:
    """Without a flag; greedy, by the model's own chat template."""
    port = free_port()
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "lib.vllm", "--model", str(export), "--port", str(port)],
        cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 400
        while True:
            try:
                urlopen(f"{address}/health", timeout=5).close()
                break
            except (URLError, OSError):
                if process.poll() is not None or time.monotonic() > deadline:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise AssertionError(process.communicate()[0][-4000:]) from None
                time.sleep(1)
        messages = [{"role": "user", "content": "How do I list buckets?"}]
        asked = {"model": str(export), "messages": messages, "temperature": 0, "max_tokens": 12}
        request = Request(
            f"{address}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=120) as response:
            said = json.load(response)["choices"][0]["message"]["content"]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
    tokenizer = AutoTokenizer.from_pretrained(export)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    model = AutoModelForCausalLM.from_pretrained(export)
    expected = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
    assert said == tokenizer.decode(expected, skip_special_tokens=True)
