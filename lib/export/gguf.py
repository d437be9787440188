"""GGUF: one file with weights, tokenizer and chat template, for llama.cpp and everything built on it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gguf
import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from numpy.typing import NDArray

from lib.export import importance, llama, rotary, vocabulary
from lib.export.checkpoint import Checkpoint, Dtype, encode
from lib.export.config import read_config
from lib.export.importance import Importance
from lib.export.lineage import Lineage
from lib.pipeline.errors import SmeltError

Plain = Literal["F16", "BF16"]


class _Form(NamedTuple):
    """How matrices are written that are not quantised."""

    dtype: Dtype
    code: GGMLQuantizationType
    file: LlamaFileType


FORMS: dict[str, _Form] = {
    "F16": _Form("float16", GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "BF16": _Form("bfloat16", GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
}
_ARCHITECTURES = {
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
}


def export(
    model: Path,
    folder: Path,
    name: str,
    plain: Plain,
    quantisations: Sequence[str],
    calibration: Sequence[Sequence[int]],
    lineage: Lineage,
    threads: int,
) -> dict[str, Path]:
    """Write <name>-<plain>.gguf and one file for each of `quantisations` to `folder`.

    Args:
        model: Hugging Face directory of a Qwen or Llama model with its tokenizer.
        plain: what the matrices are that are not quantised.
        quantisations: llama.cpp's names: Q8_0, Q4_K_M, ... Rows that are no multiple of a type's block (256 for K
            types) get llama.cpp's nearest type with smaller blocks.
        calibration: rows of tokens, by which the quantisation weighs columns; without any, all columns are equal.
        threads: for computing; the bytes do not depend on it.

    Returns:
        Path by type, the plain one first.

    Raises:
        SmeltError: another architecture or tokenizer, a weight that `plain` cannot hold, llama.cpp's refusal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{name}-{kind}.gguf" for kind in (plain, *quantisations)}
    write(model, model, paths[plain], name, plain, lineage)
    columns = importance.measure(paths[plain], calibration if quantisations else [], threads)
    for kind in quantisations:
        _quantise(paths[plain], paths[kind], kind, columns, len(calibration), threads)
    return paths


def write(model: Path, tokenizer: Path, path: Path, name: str, plain: Plain, lineage: Lineage) -> None:
    """Write the model of a Hugging Face directory as one file, not quantised, with the tokenizer of another.

    Raises:
        SmeltError: as `export`.
    """
    config, form, architecture = read_config(model), FORMS[plain], find_architecture(model)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        writer.add_type("model")
        writer.add_name(name)
        writer.add_license(lineage.licence)
        writer.add_file_type(form.file)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in lineage.to_metadata().items():
            writer.add_string(key, value)
        _add_shape(writer, config)
        factors = rotary.add(writer, model, config)
        vocabulary.add(writer, tokenizer, config["vocab_size"])
        _write_tensors(writer, Checkpoint.of_model(model), config, architecture, form, factors)
    finally:
        writer.close()


def find_architecture(model: Path) -> gguf.MODEL_ARCH:
    """llama.cpp's architecture that computes what the Hugging Face directory's does.

    Raises:
        SmeltError: it has none that is known here.
    """
    config = read_config(model)
    (kind, *_) = config.get("architectures") or ["model without `architectures` in config.json"]
    if kind not in _ARCHITECTURES:
        raise SmeltError(f"{model} is a {kind}; GGUF export knows {', '.join(_ARCHITECTURES)}. Take another base")
    windows = config.get("layer_types") or []
    if "sliding_attention" in windows or (kind == "MistralForCausalLM" and config.get("sliding_window")):
        raise SmeltError(f"{model} looks at a sliding window of its text, which llama.cpp's {kind} does not")
    if config.get("hidden_act", "silu") != "silu":
        raise SmeltError(f"{model} has the activation {config['hidden_act']}, and llama.cpp's {kind} SwiGLU's silu")
    return _ARCHITECTURES[kind]


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(rotary.head_size(config))
    writer.add_value_length(rotary.head_size(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _write_tensors(
    writer: gguf.GGUFWriter,
    weights: Checkpoint,
    config: dict[str, Any],
    architecture: gguf.MODEL_ARCH,
    form: _Form,
    factors: NDArray[np.float32] | None,
) -> None:
    """Matrices in `form`, vectors (norms) as F32; a tied head is left out, llama.cpp then takes the embedding."""
    names = [name for name in weights.names if not (config["tie_word_embeddings"] and name == "lm_head.weight")]
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for name in names:
        add_info(writer, tensor_name(weights, name, config, architecture), weights.shape(name), form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for name in names:
        values = reorder(name, weights.read(name), config, architecture)
        writer.write_tensor_data(encode(name, values, "float32" if values.ndim == 1 else form.dtype))


def add_info(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], form: _Form) -> None:
    """Announce a tensor that is written later: a vector as F32, anything else in `form`."""
    code = GGMLQuantizationType.F32 if len(shape) == 1 else form.code
    size = math.prod(shape) * (4 if len(shape) == 1 else 2)
    writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=code)


def tensor_name(weights: Checkpoint, name: str, config: dict[str, Any], architecture: gguf.MODEL_ARCH) -> str:
    """llama.cpp's name of a weight.

    Raises:
        SmeltError: it has none.
    """
    known = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    target = known.get_name(name, try_suffixes=(".weight", ".bias"))
    if target is None:
        raise SmeltError(f"{weights.where(name)}: llama.cpp's {config['model_type']} has no tensor like {name}")
    return target


def reorder(
    name: str, values: NDArray[np.float32], config: dict[str, Any], architecture: gguf.MODEL_ARCH
) -> NDArray[np.float32]:
    """The weight `name` with its rows in the order that llama.cpp has them in."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    projection = name.split(".")[-2]
    if architecture is gguf.MODEL_ARCH.LLAMA and projection in heads:
        return _interleave_rotary_pairs(values, heads[projection])
    return values


def _interleave_rotary_pairs(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a query or key projection, (heads * head_dim, width), or its bias, for llama.cpp's Llama.

    transformers rotates dimension i with i + head_dim/2 in each head, llama.cpp's Llama 2i with 2i + 1. Its Qwen
    does as transformers.
    """
    rows, *width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, *width).swapaxes(1, 2).reshape(rows, *width)


def _quantise(source: Path, target: Path, kind: str, columns: Importance, rows: int, threads: int) -> None:
    llama.quiet()
    code = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}", None)
    if code is None:
        raise SmeltError(f"llama.cpp has no quantisation {kind}; take it out of export.gguf.quantisations")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = code, threads
    matrix, keys = importance.to_llama(columns), importance.to_keys(columns, rows)
    if columns:
        settings.imatrix, settings.kv_overrides = matrix, keys
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings))
    if failed:
        raise SmeltError(f"llama.cpp could not quantise {source.name} to {kind}; its message is above")
