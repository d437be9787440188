"""A project with a small tokenizer and packed tokens, in which the training stages run for real and in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lib.params.load import read_yaml
from lib.preset import overlay
from lib.text.documents import Document
from lib.tokenizer.encode import encode_documents, write_index
from lib.tokenizer.train import save_tokenizer, train_tokenizer
from tests.text import project
from tests.tokenizer.conftest import VOCAB_SIZE, sentences
from tests.workspace import ROOT, Workspace

TINY = {
    "model": {"size": "micro", "context_length": 32, "layers": 1, "width": 32, "heads": 2, "kv_heads": 1},
    "pretrain": {
        "tokens": 20 * 256, "batch_tokens": 256, "warmup_steps": 4, "checkpoint_every": 5, "log_every": 2,
        "validate_every": 10, "validate_rows": 8, "samples": {"every": 30, "tokens": 4},
    },
    "decay": {"fraction": 0.5},
}  # fmt: skip


def make(root: Path, **changes: dict[str, Any]) -> Path:
    """Write the project; `changes` are laid over TINY, section by section."""

    def change(params: dict[str, Any]) -> None:
        for sections in (TINY, changes):
            overlay(params, sections)

    project.make(root, {"s": project.folder("s")}, change)
    texts = sentences()
    tokenizer = train_tokenizer(iter(texts), VOCAB_SIZE)
    save_tokenizer(tokenizer, root / "models/tokenizer")
    context = read_yaml(root / "params.yaml")["model"]["context_length"]
    splits = {}
    for name, part in (("train", texts[:160]), ("val", texts[160:180]), ("test", texts[180:])):
        documents = [Document(f"s/{number}", text, f"{number}.txt", "s", "CC0-1.0") for number, text in enumerate(part)]
        splits[name] = encode_documents(tokenizer, documents, root / "data/tokens" / name, 10_000, context)
    write_index(root / "data/tokens", tokenizer, root / "models/tokenizer/tokenizer.json", splits)
    return root


def make_workspace(root: Path, **changes: dict[str, Any]) -> Workspace:
    """The project as a repository of git and DVC of its own, with our code and the stages `pretrain` and `decay`."""
    make(root, **changes)
    stages = read_yaml(root / "dvc.yaml")["stages"]
    YAML().dump({"stages": {name: stages[name] for name in ("pretrain", "decay")}}, root / "dvc.yaml")
    for name in ("lib", "stages"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    workspace = Workspace(root)
    workspace.environment |= {"OMP_NUM_THREADS": "1", "SMELT_DEVICE": "cpu"}
    workspace.run("git", "init", "--quiet", "--initial-branch=main")
    workspace.dvc("init", "--quiet")
    workspace.commit("a small project")
    return workspace
