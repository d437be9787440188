"""MLX: directories that mlx-lm loads on a Mac (and on Linux), the matrices in 8 or 4 bits.

Unquantised it needs no export: mlx-lm loads models/export/hf as it is.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import load_model, quantize_model

from lib.export import checkpoint, config
from lib.export.checkpoint import Checkpoint, Dtype
from lib.export.lineage import Lineage
from lib.pipeline.errors import SmeltError


def export(
    model: Path, folder: Path, name: str, bits: Sequence[int], group_size: int, dtype: Dtype, lineage: Lineage
) -> dict[str, Path]:
    """Write <name>-<bits>bit for each of `bits` to `folder`.

    Args:
        model: Hugging Face directory.
        group_size: weights of a row that share a scale; a matrix whose rows are no multiple of it stays as it is.
        dtype: of the scales, of what is not quantised, and of what is computed.

    Returns:
        The directories, by variant: 8bit, 4bit.

    Raises:
        SmeltError: mlx-lm does not know the architecture.
    """
    paths = {f"{number}bit": folder / f"{name}-{number}bit" for number in bits}
    for number, path in zip(bits, paths.values(), strict=True):
        path.mkdir(parents=True)
        try:
            loaded, settings = load_model(model, model_config=config.portable(model))
        except (ValueError, FileNotFoundError) as error:
            raise SmeltError(
                f"mlx-lm cannot load {model}: {error}. Set export.mlx to null, or take another base"
            ) from None
        kind = getattr(mx, dtype)
        loaded.update(tree_map(lambda value, kind=kind: value.astype(kind), loaded.parameters()))
        with contextlib.redirect_stdout(io.StringIO()):
            loaded, settings = quantize_model(loaded, settings, group_size, number)
        settings["dtype"] = dtype
        config.write_json(path / "config.json", dict(sorted(settings.items())))
        for file in config.COPIED:
            shutil.copyfile(model / file, path / file)
        _write_weights(dict(tree_flatten(loaded.parameters())), path / "model.safetensors", lineage)
    return paths


def _write_weights(weights: dict[str, mx.array], path: Path, lineage: Lineage) -> None:
    """Equal inputs, equal bytes: MLX's own file has its tensors in any order."""
    aside = path.with_suffix(".unordered.safetensors")
    mx.save_safetensors(str(aside), weights)
    written = Checkpoint(aside)
    checkpoint.relabel(written, written.names, path, {"format": "mlx", **lineage.to_metadata()})
    aside.unlink()
