"""Order passages anew by a model that reads question and passage together: better than vectors, and dearer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lib.pipeline.errors import SmeltError


class Reranker:
    """A cross-encoder of the sentence-transformers library, read from `folder`.

    Raises:
        SmeltError: it is not there, or is none.
    """

    def __init__(self, folder: Path) -> None:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise SmeltError(f"there is no model in {folder}, which index.rerank.folder names") from None
        if not any("SequenceClassification" in name for name in config.get("architectures") or []):
            raise SmeltError(
                f"{folder} is no cross-encoder: its config.json names no model for sequence classification"
            )

        import torch
        from sentence_transformers import CrossEncoder

        torch.set_num_threads(1)
        try:
            self._model = CrossEncoder(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32}, activation_fn=torch.nn.Sigmoid(),
            )  # fmt: skip
        except Exception as error:
            raise SmeltError(
                f"{folder} cannot be read as a cross-encoder: {' '.join(str(error).split())[:300]}"
            ) from None
        if (labels := self._model.num_labels) != 1:
            raise SmeltError(f"{folder} tells {labels} classes apart; a cross-encoder for ranking gives one score")

    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """How well each passage answers, from 0 to 1."""
        return self._model.predict([(question, text) for text in passages], show_progress_bar=False).tolist()
