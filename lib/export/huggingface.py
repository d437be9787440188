"""The Hugging Face directory: what transformers, vLLM, lm-eval and MLX load with their own classes, no code of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from lib.export import checkpoint, config
from lib.export.checkpoint import Checkpoint, Dtype
from lib.export.lineage import Lineage


def export(model: Path, folder: Path, dtype: Dtype, lineage: Lineage) -> None:
    """Write the model of the directory `model` to `folder`, its weights in `dtype`, its lineage in their metadata."""
    folder.mkdir(parents=True)
    config.write_json(folder / "config.json", config.portable(model) | {"dtype": dtype})
    for file in config.COPIED:
        shutil.copyfile(model / file, folder / file)
    # transformers refuses safetensors that do not say which framework wrote them.
    metadata = {"format": "pt", **lineage.to_metadata()}
    checkpoint.write(Checkpoint.of_model(model), folder / "model.safetensors", dtype, metadata)
