"""The stage `evaluate` on a model of random weights: killed between two parts, resumed, and with one task more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib.evals.items import read_items
from lib.pipeline.errors import SmeltError
from lib.preset import apply
from lib.text.documents import Document, write_documents
from tests.evals.conftest import make_model_folder
from tests.evals.test_benchmarks import FILES, write
from tests.evals.test_instructions import PUNKT
from tests.rag.tiny import write_embedder, write_index
from tests.text import project

TASKS = ["piqa", "openbookqa", "boolq"]
COMMANDS = {"s3/mb": "aws s3 mb s3://b", "s3/rb": "aws s3 rb s3://b", "ec2/run": "aws ec2 run --x 1"}


def change(params: dict) -> None:
    params["evaluate"] |= {
        "held_out_bytes": 1000, "commands": 3, "max_new_tokens": 2, "task_limit": 4, "samples": 2,
        "retrieval": {"modes": ["vector", "keyword", "hybrid"], "questions": 9, "commands": 2, "prompt_tokens": 400},
        "instructions": {"own": 3, "ifbench": 1, "max_new_tokens": 2},
        "tasks": {name: {"few_shot": 0, "limit": None} for name in TASKS},
    }  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = project.make(tmp_path_factory.mktemp("project"), {"s": project.folder("s")}, change)
    (root / "models").mkdir()
    make_model_folder(root / "models/chat")
    for name, rows in FILES.items():
        (root / "data/assets").mkdir(parents=True, exist_ok=True)
        write(root / "data/assets" / name, rows)
    ifbench = {"key": "1", "prompt": "p", "instruction_id_list": ["count:numbers"], "kwargs": [{"N": 2}]}
    write(root / "data/assets/ifbench/IFBench_test.jsonl", [ifbench])
    (root / "data/assets/nltk").mkdir()
    for name, text in {**PUNKT, "english": "a\n"}.items():
        (root / "data/assets/nltk" / name).write_text(text)
    documents = [Document(f"s/{n}", f"Text number {n} of the test.", "u", "s", "CC0-1.0") for n in range(5)]
    write_documents(root / "data/mix/test", documents)
    rows = [
        {"id": page, "kind": "manual", "messages": [
            {"role": "user", "content": f"How do I {page}?"}, {"role": "assistant", "content": command}]}
        for page, command in COMMANDS.items()
    ]  # fmt: skip
    for split in ("train", "val", "test"):
        write(root / f"data/chat/{split}.jsonl", rows)
    pages = [Document(page, f"{page}: {command}", "u", "s", "CC0-1.0") for page, command in COMMANDS.items()]
    write_index(root / "models/index", write_embedder(root / "data/assets/minilm"), pages[:2], top_k=2)
    return root


def measured(root: Path) -> dict[str, int]:
    """The parts that are kept, each with the time at which it was written."""
    return {path.name: path.stat().st_mtime_ns for path in (root / ".scratch/measured").glob("*.json")}


def killed(root: Path) -> dict[str, int]:
    """Start the stage and kill it as soon as some parts are measured: what is kept then."""
    environment = {**os.environ, "PYTHONPATH": str(project.REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.evaluate", "chat"], cwd=root, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 300
        while len(measured(root)) < 3 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return measured(root)


def test_a_kill_loses_one_part_and_another_task_measures_itself_alone(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = killed(root)
    parts = 6 + len(TASKS)
    assert 3 <= len(before) < parts
    assert not (root / "reports/evaluate/chat/metrics.json").exists()

    metrics = project.run(root, "evaluate", "chat")
    after = measured(root)
    assert len(after) == parts
    assert {name: after[name] for name in before} == before  # none of them was measured again

    # The figures are of the items.
    items = read_items(root / "reports/evaluate/chat/items.jsonl")
    for task, name in (("piqa", "accuracy"), ("piqa", "accuracy_normalised"), ("boolq", "accuracy")):
        scores = [item.score for item in items[f"{task}/{name}"].values()]
        assert len(scores) == metrics["tasks"][task]["questions"] == 4
        assert sum(scores) / 4 == pytest.approx(metrics["tasks"][task][name]["value"])
    texts = items["bits_per_byte/s"].values()
    total = sum(item.score * item.weight for item in texts) / sum(item.weight for item in texts)
    assert total == pytest.approx(metrics["bits_per_byte"]["sources"]["s"]["value"], abs=1e-5)
    assert list(metrics["commands_with_passages"]) == list(metrics["retrieval"]) == ["vector", "keyword", "hybrid"]
    for mode, found in metrics["commands_with_passages"].items():
        assert set(items["commands/valid"]) > set(items[f"commands_with_passages_{mode}/valid"])
        assert found["examples"] == 2  # of three, those whose page is in the index
        assert metrics["retrieval"][mode]["questions"] == 2
        assert metrics["retrieval"][mode]["recall_at_5"]["value"] == 1.0
    assert set(metrics["instructions"]) == {"own", "ifbench"}
    samples = json.loads((root / "reports/evaluate/chat/samples.json").read_text())
    assert {sample["task"] for sample in samples} == {"commands", *TASKS}

    # Another task is measured alone, and the same figures come out for the rest.
    capfd.readouterr()
    apply(root / "params.yaml", {"evaluate": {"tasks": {"socialiqa": {"few_shot": 0, "limit": 2}}}})
    again = project.run(root, "evaluate", "chat")
    said = [line for line in capfd.readouterr().err.splitlines() if "measuring" in line]
    assert [line.rpartition("measuring ")[2] for line in said] == ["task socialiqa"]
    assert again["tasks"].pop("socialiqa")["questions"] == 2
    assert again == metrics


def test_a_file_with_a_missing_column_stops_before_anything_is_measured(root: Path) -> None:
    file = root / "data/assets/openbookqa/test.jsonl"
    text = file.read_text()
    before = measured(root)
    file.write_text(text.replace('"options"', '"choices"', 1))
    try:
        with pytest.raises(SmeltError, match=r"openbookqa/test\.jsonl, line 1: no column options \(there are: quest"):
            project.run(root, "evaluate", "chat")
    finally:
        file.write_text(text)
    assert measured(root) == before  # what is finished stays
