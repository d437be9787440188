"""Rotary position embeddings as llama.cpp knows them: plain, or stretched to a longer text than was pretrained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from lib.pipeline.errors import SmeltError

_KINDS = ("default", "linear", "yarn", "llama3")


def head_size(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def add(writer: gguf.GGUFWriter, model: Path, config: dict[str, Any]) -> NDArray[np.float32] | None:
    """Write the settings of the rotary embeddings.

    Returns:
        What each frequency is divided by, (head size / 2,), where llama.cpp wants it as a tensor: Llama 3's.

    Raises:
        SmeltError: they are of another kind.
    """
    rope = config.get("rope_parameters") or {
        # As transformers 4 wrote them.
        "rope_theta": config.get("rope_theta", 10000.0),
        "rope_type": "default",
        **(config.get("rope_scaling") or {}),
    }
    kind = rope.get("rope_type", "default")
    if kind not in _KINDS:
        raise SmeltError(f"{model} has rotary embeddings of type {kind!r}; GGUF export knows {', '.join(_KINDS)}")
    writer.add_rope_dimension_count(head_size(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if kind == "llama3":
        return _llama3(rope, head_size(config))
    if kind != "default":
        scaling = gguf.RopeScalingType.YARN if kind == "yarn" else gguf.RopeScalingType.LINEAR
        writer.add_rope_scaling_type(scaling)
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    return None


def _llama3(rope: dict[str, Any], size: int) -> NDArray[np.float32]:
    """Long waves are stretched by `factor`, short ones are not, and those between are in between.

    Llama 3.1's scheme, as transformers.modeling_rope_utils has it.
    """
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, size, 2) / size)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)  # within the pretrained length
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0, 1)  # of the frequency as it was
    return (1 / ((1 - share) / rope["factor"] + share)).astype(np.float32)
