"""The LoRA adapter alone: as peft reads it, and as a GGUF file that llama.cpp lays beside the base."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import gguf

from lib.export import checkpoint
from lib.export import gguf as model_gguf
from lib.export.checkpoint import Checkpoint, encode
from lib.export.config import COPIED, read_config
from lib.export.lineage import Lineage
from lib.pipeline.errors import SmeltError

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # peft's, before the names of the base


def export(adapter: Path, chat: Path, folder: Path, lineage: Lineage) -> None:
    """Write the peft adapter in `adapter` to `folder`, with the tokenizer of `chat` and the lineage inside."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(adapter / "adapter_config.json", folder / "adapter_config.json")
    for file in COPIED:
        shutil.copyfile(chat / file, folder / file)
    weights = Checkpoint(adapter / WEIGHTS)
    checkpoint.relabel(weights, _trained(weights), folder / WEIGHTS, {"format": "pt", **lineage.to_metadata()})


def _trained(weights: Checkpoint) -> list[str]:
    """Names of the adapter's own tensors: beside that of a head peft keeps the head itself, which the base has."""
    return [name for name in weights.names if ".base_layer." not in name]


def write_gguf(adapter: Path, chat: Path, path: Path, name: str, lineage: Lineage) -> None:
    """Write the peft adapter in `adapter` as one GGUF file.

    Args:
        chat: Hugging Face directory of what adapter and base are together: it has the base's shape.

    Raises:
        SmeltError: it is of a kind that llama.cpp has no counterpart of (DoRA), or of another architecture.
    """
    if problem := why_not(adapter):
        raise SmeltError(f"{adapter} cannot be a GGUF file: {problem}")
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config, architecture = read_config(chat), model_gguf.find_architecture(chat)
    weights, form = Checkpoint(adapter / WEIGHTS), model_gguf.FORMS["F16"]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        writer.add_type("adapter")
        writer.add_name(name)
        writer.add_license(lineage.licence)
        writer.add_file_type(form.file)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        # llama.cpp scales by alpha / rank; rsLoRA by alpha / sqrt(rank).
        spread = math.sqrt(settings["r"]) if settings["use_rslora"] else 1.0
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, settings["lora_alpha"] * spread)
        for key, value in lineage.to_metadata().items():
            writer.add_string(key, value)
        # A comes before B of the same weight, as llama.cpp's own converter has them.
        for name in _trained(weights):
            target, part = _place(weights, name)
            named = model_gguf.tensor_name(weights, target, config, architecture)
            model_gguf.add_info(writer, f"{named}.lora_{part}", weights.shape(name), form)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in _trained(weights):
            target, part = _place(weights, name)
            values = weights.read(name)
            if part == "b":  # whose rows are those of the weight
                values = model_gguf.reorder(target, values, config, architecture)
            writer.write_tensor_data(encode(name, values, form.dtype))
    finally:
        writer.close()


def why_not(adapter: Path) -> str | None:
    """What of this adapter llama.cpp cannot do; None: nothing."""
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if settings.get("use_dora"):
        return "it is a DoRA adapter, and llama.cpp knows LoRA and rsLoRA alone"
    return None


def _place(weights: Checkpoint, name: str) -> tuple[str, str]:
    """The weight of the base that an adapter's tensor belongs to, and which of the two it is, `a` or `b`."""
    for part in "AB":
        if name.startswith(_PREFIX) and name.endswith(f".lora_{part}.weight"):
            return f"{name.removeprefix(_PREFIX).removesuffix(f'.lora_{part}.weight')}.weight", part.lower()
    raise SmeltError(f"{weights.where(name)}: the tensor {name} is none of a LoRA adapter by peft")
