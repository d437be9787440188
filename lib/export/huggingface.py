"""The Hugging Face directory: what transformers, vLLM and MLX load with their own classes and no code of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lib.export import checkpoint, model_card
from lib.export.checkpoint import Checkpoint, Dtype
from lib.export.lineage import Lineage

_COPIED = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")


def export(model: Path, folder: Path, name: str, dtype: Dtype, lineage: Lineage) -> None:
    """Write the model of the directory `model` to `folder`, its weights in `dtype`, its lineage in their metadata.

    `name` is what its model card calls it.
    """
    folder.mkdir(parents=True)
    config = json.loads((model / "config.json").read_text(encoding="utf-8")) | {"dtype": dtype}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in _COPIED:
        shutil.copyfile(model / file, folder / file)
    # transformers refuses safetensors that do not say which framework wrote them.
    metadata = {"format": "pt", **lineage.to_metadata()}
    checkpoint.write(Checkpoint(model / "model.safetensors"), folder / "model.safetensors", dtype, metadata)
    model_card.write(folder, name, lineage)
