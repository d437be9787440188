"""config.json of a Hugging Face directory, read with what is wrong with it said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lib.pipeline.errors import SmeltError

# What is copied beside the weights of every format: how the model is asked to write, and its tokens and template.
COPIED = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")


def read_config(model: Path) -> dict[str, Any]:
    """config.json of the directory `model`.

    Raises:
        SmeltError: there is none, or it is not JSON.
    """
    try:
        return json.loads((model / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SmeltError(f"{model} is no model directory: it has no config.json. Run `dvc repro prefer`") from None
    except ValueError as error:
        raise SmeltError(f"{model}/config.json is not JSON ({error}); make or download the model again") from None


def portable(model: Path) -> dict[str, Any]:
    """config.json of the directory `model`, with the rotary embeddings under their older names as well.

    transformers 5 nests them as `rope_parameters`; mlx-lm's Llama and Qwen2, and transformers 4, look for `rope_theta`
    and `rope_scaling`, and take a number of their own where there is none.

    Raises:
        SmeltError: as `read_config`.
    """
    settings = read_config(model)
    rope = settings.get("rope_parameters") or {}
    if "rope_theta" in rope:
        settings.setdefault("rope_theta", rope["rope_theta"])
        if rope.get("rope_type", "default") != "default":
            settings["rope_scaling"] = settings.get("rope_scaling") or rope
    return settings


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
