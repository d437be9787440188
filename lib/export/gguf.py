"""GGUF: one file with weights, tokenizer and chat template, for llama.cpp and everything built on it."""

from __future__ import annotations

import ctypes
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from lib.export import vocabulary
from lib.export.checkpoint import Checkpoint, encode
from lib.export.lineage import Lineage
from lib.pipeline.errors import SmeltError

_ARCHITECTURES = {
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
}


def export(
    model: Path, folder: Path, name: str, quantisations: Sequence[str], lineage: Lineage, threads: int
) -> dict[str, Path]:
    """Write <name>-F16.gguf and one file for each of `quantisations` to `folder`.

    Args:
        model: Hugging Face directory of a Qwen or Llama model with its tokenizer.
        quantisations: llama.cpp's names: Q8_0, Q4_K_M, ... Rows that are no multiple of a type's block (256 for K
            types) get llama.cpp's nearest type with smaller blocks.
        threads: for quantising; the bytes do not depend on it.

    Returns:
        Path by type, F16 first.

    Raises:
        SmeltError: another architecture or tokenizer, a weight that float16 cannot hold, llama.cpp's refusal.
    """
    folder.mkdir(parents=True)
    paths = {kind: folder / f"{name}-{kind}.gguf" for kind in ("F16", *quantisations)}
    _write_f16(model, paths["F16"], name, lineage)
    for kind in quantisations:
        _quantise(paths["F16"], paths[kind], kind, threads)
    return paths


def _write_f16(model: Path, path: Path, name: str, lineage: Lineage) -> None:
    config = _read_json(model / "config.json")
    kind = config["architectures"][0]
    if kind not in _ARCHITECTURES:
        raise SmeltError(f"{model} is a {kind}; GGUF export knows {', '.join(_ARCHITECTURES)}")
    architecture = _ARCHITECTURES[kind]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        writer.add_type("model")
        writer.add_name(name)
        writer.add_license(lineage.licence)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in lineage.to_metadata().items():
            writer.add_string(key, value)
        _add_shape(writer, config)
        vocabulary.add(writer, model, config["vocab_size"])
        _write_tensors(writer, Checkpoint(model / "model.safetensors"), config, architecture)
    finally:
        writer.close()


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    rope = config["rope_parameters"]
    if rope["rope_type"] != "default":
        raise SmeltError(f"GGUF export knows plain rotary embeddings, not {rope['rope_type']!r}")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _write_tensors(
    writer: gguf.GGUFWriter, weights: Checkpoint, config: dict[str, Any], architecture: gguf.MODEL_ARCH
) -> None:
    """Matrices as F16, vectors (norms) as F32; a tied head is left out, llama.cpp then takes the embedding."""
    known = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    names = [name for name in weights.names if not (config["tie_word_embeddings"] and name == "lm_head.weight")]
    for name in names:
        target = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise SmeltError(f"{weights.path}: llama.cpp's {config['model_type']} has no tensor like {name}")
        shape = weights.shape(name)
        dtype = np.dtype(np.float32 if len(shape) == 1 else np.float16)
        writer.add_tensor_info(target, shape, dtype, math.prod(shape) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name in names:
        values = weights.read(name)
        projection = name.split(".")[-2]
        if architecture is gguf.MODEL_ARCH.LLAMA and projection in heads:
            values = _interleave_rotary_pairs(values, heads[projection])
        writer.write_tensor_data(encode(name, values, "float32" if values.ndim == 1 else "float16"))


def _interleave_rotary_pairs(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a query or key projection, (heads * head_dim, width), or its bias, for llama.cpp's Llama.

    transformers rotates dimension i with i + head_dim/2 in each head, llama.cpp's Llama 2i with 2i + 1. Its Qwen
    does as transformers.
    """
    rows, *width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, *width).swapaxes(1, 2).reshape(rows, *width)


def _quantise(source: Path, target: Path, kind: str, threads: int) -> None:
    import llama_cpp

    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)  # else a line per tensor
    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.nthread = threads
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings))
    if failed:
        raise SmeltError(f"llama.cpp could not quantise {source.name} to {kind}; its message is above")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
