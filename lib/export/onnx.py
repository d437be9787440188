"""ONNX with a key-value cache, in the layout that onnxruntime's users expect: Optimum, Transformers.js.

    onnx/model.onnx         fp32; weights beyond 1 GiB lie beside it in model.onnx_data
    onnx/model_int8.onnx    the matrices in 8 bits, by blocks of 32 along their rows
    config.json, tokenizer.json, ...

Inputs are input_ids, attention_mask, position_ids and past_key_values.N.key/value, outputs logits and
present.N.key/value. PyTorch's own exporter writes it from transformers' model, so that any architecture it can trace is
exported, in operators of the ONNX standard alone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from lib.export import config
from lib.export.lineage import Lineage
from lib.pipeline.errors import SmeltError

_INSIDE = 2**30  # bytes of weights that one protobuf holds; its own limit is 2 GiB
_BLOCK = 32


class _WithCache(nn.Module):
    """The model with its cache as plain tensors, in and out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, ...]:
        cache = DynamicCache(config=self.model.config)
        for layer, (keys, values) in enumerate(past):
            cache.update(keys, values, layer)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return (output.logits, *(part for layer in cache.layers for part in (layer.keys, layer.values)))


def export(model: Path, folder: Path, int8: bool, lineage: Lineage) -> dict[str, Path]:
    """Write the Hugging Face directory `model` to `folder`.

    Returns:
        Path by variant: fp32, and int8 if asked for.

    Raises:
        SmeltError: PyTorch's exporter cannot trace the model.
    """
    (folder / "onnx").mkdir(parents=True)
    config.write_json(folder / "config.json", config.portable(model))
    for file in config.COPIED:
        shutil.copyfile(model / file, folder / file)
    paths = {"fp32": folder / "onnx/model.onnx"}
    graph = _trace(model)
    graph.metadata_props.update(lineage.to_metadata())
    _save(graph, paths["fp32"])
    if int8:
        paths["int8"] = folder / "onnx/model_int8.onnx"
        _quantise(paths["fp32"], paths["int8"])
    return paths


def _trace(folder: Path) -> onnx_ir.Model:
    # Eager attention is products and a softmax, and knows no rows without any weight, which padding would be.
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
    )
    shape = model.config.get_text_config()
    heads, layers = shape.num_key_value_heads, shape.num_hidden_layers
    size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    # Any numbers that are neither 0 nor 1, which the exporter would take for constants.
    rows, new, read = 2, 3, 5
    past = [(torch.zeros(rows, heads, read, size), torch.zeros(rows, heads, read, size)) for _ in range(layers)]
    inputs: dict[str, Any] = {
        "input_ids": torch.zeros(rows, new, dtype=torch.long),
        "attention_mask": torch.ones(rows, read + new, dtype=torch.long),
        "position_ids": torch.arange(read, read + new).repeat(rows, 1),
        "past": past,
    }
    before = {0: "batch", 2: "past_sequence"}
    free = {
        "input_ids": {0: "batch", 1: "sequence"},
        "attention_mask": {0: "batch", 1: "total_sequence"},
        "position_ids": {0: "batch", 1: "sequence"},
        "past": [(before, before)] * layers,
    }
    parts = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    with _silence(), torch.no_grad():
        try:
            program = torch.onnx.export(
                _WithCache(model).eval(),
                kwargs=inputs,
                dynamo=True,
                dynamic_shapes=free,
                input_names=["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{p}" for p in parts)],
                output_names=["logits", *(f"present.{part}" for part in parts)],
            )
        except Exception as error:  # of the exporter, of any kind
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise SmeltError(
                f"PyTorch cannot export {folder} ({type(model).__name__}) to ONNX: {reason[0]}. Set "
                f"export.onnx to null, or take another base"
            ) from None
    return _without_traces(program.model)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the libraries' accounts of themselves; one of them sets up everybody's logging when it is imported."""
    root = logging.getLogger()
    disabled, level, handlers = root.manager.disable, root.level, root.handlers[:]
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)


def _without_traces(model: onnx_ir.Model) -> onnx_ir.Model:
    """The exporter notes where in which file of this machine each node comes from."""
    model.doc_string = None
    model.metadata_props.clear()
    for graph in (model.graph, *model.functions.values()):
        graph.doc_string = None
        graph.metadata_props.clear()
        for node in graph:
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    return model


def _save(model: onnx_ir.Model, path: Path) -> None:
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    onnx_ir.save(model, path, external_data=f"{path.name}_data" if weights > _INSIDE else None)


def _quantise(source: Path, target: Path) -> None:
    """Matrices with 8 bits a weight and a scale for each block; what they are multiplied with stays in fp32."""
    with _silence():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
        from onnxscript.optimizer import optimize_ir

        model = onnx_ir.load(source)
        # A head that is tied to the embedding is that, transposed: made a matrix of its own, it can be quantised.
        optimize_ir(model, onnx_shape_inference=False, should_fold=lambda node: node.op_type == "Transpose" or None)
        quantiser = MatMulNBitsQuantizer(onnx_ir.to_proto(model), bits=8, block_size=_BLOCK, is_symmetric=True)
        quantiser.process()
    _save(onnx_ir.from_proto(quantiser.model.model), target)
