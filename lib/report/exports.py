"""The section on the files that came out, and on what is left of the model in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lib.report.formats import NONE, SPACE, count, estimate, percent, size
from lib.report.page import Block, Column, Note, Section, Table
from lib.report.results import Results

FORMATS = {"hf": "Hugging Face", "adapter": "adapter", "gguf": "GGUF", "onnx": "ONNX", "mlx": "MLX"}


def exports(results: Results) -> Section:
    """Every variant of every format, beside transformers in fp32."""
    rows = []
    for item, name in FORMATS.items():
        observed = results.json(f"reports/export/{item}/run.json").get("variants", {})
        for variant, figures in results.metrics("export", item)["files"].items():
            rows.append([f"{name} {variant}", *_row(figures, observed.get(variant, {}))])
    columns = [
        Column("file"),
        *map(Column, ("size", "bits per byte", "beyond the plain one", "likeliest token as in the plain one")),
        *map(Column, ("as in transformers", "answers as in transformers", "logits off by")),
        *map(Column, ("prompt tokens/s", "tokens/s")),
    ]
    index = results.metrics("index")
    passages = (
        f"{count(index['passages'])} passages of {count(index['documents'])} documents, {index['dimension']} dimensions"
    )
    blocks: list[Block] = [
        Table("Files in models/export, by format", columns, rows),
        Note(
            "Each file was run by the program that it is for, on the same held-out text and prompts as the model in "
            "transformers in fp32, which answers with the likeliest token at each step. The plain one is the first of "
            "its format, the least quantised; the difference from it is of the same texts, so its error is less "
            "than that of either. Speed and the largest difference of logits are of this machine, one request at a "
            "time."
        ),
        Table(
            "Index",
            [Column("where"), Column("what", numeric=False)],
            [["models/index", f"retrieval index: {passages}"]],
        ),
    ]
    return Section("files", "What came out", blocks)


def _row(figures: Mapping[str, Any], observed: Mapping[str, float]) -> Sequence[str]:
    if "bits_per_byte" not in figures:
        return [size(figures["bytes"]), *[NONE] * 8]
    rates = (observed.get(name) for name in ("prompt_tokens_per_second", "tokens_per_second"))
    return [
        size(figures["bytes"]),
        estimate(figures["bits_per_byte"]),
        _small(figures["bits_per_byte_more"]),
        percent(figures["top1_plain"]),
        percent(figures["top1_transformers"]),
        f"{figures['greedy_identical']} of {figures['greedy_prompts']}",
        NONE if "largest_difference" not in observed else f"{observed['largest_difference']:g}",
        *(NONE if rate is None else f"{rate:,.0f}" for rate in rates),
    ]


def _small(measured: Mapping[str, float | None]) -> str:
    """With a digit more than others: what quantisation costs is small, and known well."""
    if measured["value"] is None or measured["stderr"] is None:
        return NONE
    return f"{measured['value']:+.4f}{SPACE}±{SPACE}{measured['stderr']:.4f}"
