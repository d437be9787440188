import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib.pipeline.errors import SmeltError
from lib.serve.terminal import default_model, show
from tests.rag.tiny import document, write_embedder, write_index

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make repro` leaves it: model, embedder, index."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "models/export/gguf").mkdir(parents=True)
    shutil.copy(gguf_file, folder / "models/export/gguf")
    texts = {"list": "A\x1b[31m title: the list", "other": "q w z"}
    documents = [document(name, text, title="A\x1b[31m title") for name, text in texts.items()]
    embedder = write_embedder(folder / "data/assets/minilm")
    write_index(folder / "models/index", embedder, documents, top_k=1, min_similarity=0.999)
    return folder


def chat(home: Path, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lib.serve.terminal", "--max-tokens", "12", *arguments],
        input=typed, capture_output=True, text=True, cwd=home, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip


def test_a_pipe_is_answered_line_by_line_and_the_same_every_time(home: Path) -> None:
    first = chat(home, "why?\n\n/bogus\nb\nlist the buckets")
    assert first.returncode == 0
    assert first.stdout.endswith("\n")
    assert len(first.stdout.splitlines()) == 3
    assert any(line.isalpha() for line in first.stdout.splitlines())
    assert first.stderr.splitlines() == [
        "(tiny-Q8_0.gguf, 256 tokens of context; /help for help)",
        "(there is no command /bogus; /help lists them)",
    ]
    assert chat(home, "why?\n\n/bogus\nb\nlist the buckets").stdout == first.stdout


def test_quit_leaves_the_rest_unread(home: Path) -> None:
    assert chat(home, "/quit\nhello\n").stdout == ""


def test_documents_are_cited_or_said_to_have_nothing(home: Path) -> None:
    done = chat(home, "A[31m title: the list\n/docs\n/docs\n5 6 7 8 9\n" + "x" * 300 + "\n", "--docs")
    assert done.returncode == 0
    source = "Sources:\n  [1] A[31m title: docs/list at 0, score 1.00\n"
    assert source in done.stdout  # the title's escape sequence is gone
    assert done.stdout.endswith("This is not in the documents.\n" * 2)
    assert [line for line in done.stderr.splitlines() if "documents o" in line] == [
        "(documents on)",
        "(documents off)",
        "(documents on)",
    ]


def test_without_a_model_it_says_what_to_do(tmp_path: Path) -> None:
    done = chat(tmp_path, "hello\n")
    assert done.returncode == 1
    assert (
        done.stderr == "chat: error: there is no model in models/export/gguf: run `make repro` first, or `make pull`\n"
    )


def test_without_an_index_the_chat_goes_on(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "models/export", tmp_path / "models/export")
    done = chat(tmp_path, "/docs\nhello\n")
    assert done.returncode == 0
    assert "(error: there is no index in models/index: run `make repro` first, or `make pull`)" in done.stderr
    assert done.stdout


def test_the_smaller_export_is_preferred(tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match="make repro"):
        default_model(tmp_path)
    for name in ("smelt-F16.gguf", "smelt-Q4_K_M.gguf", "smelt-Q8_0.gguf"):
        (tmp_path / name).touch()
    assert default_model(tmp_path).name == "smelt-Q8_0.gguf"
    (tmp_path / "smelt-Q8_0.gguf").unlink()
    assert default_model(tmp_path).name == "smelt-F16.gguf"


def test_nothing_shown_can_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show("a\x1b]0;title\x07b\u202e\r\n\tc")
    assert capsys.readouterr().out == "a]0;titleb\n\tc"
