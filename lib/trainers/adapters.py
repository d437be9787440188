"""Adapters on disk, and several of them on one base.

<folder>/adapter_model.safetensors, adapter_config.json    as peft writes and reads them
<folder>/base.json                                         path and fingerprint of the base that it was trained on

model = open_adapters(Path("models/base"), {"legal": Path(...), "support": Path(...)})
model.set_adapter("support")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from lib.pipeline.errors import SmeltError
from lib.trainers import bases
from lib.trainers.libraries import PeftModel

WEIGHTS, ABOUT_BASE = "adapter_model.safetensors", "base.json"


def save(model: PeftModel, base: Path, path: str, folder: Path) -> None:
    """Write the adapter alone, with the fingerprint of its `base`, which is at `path` from the repository's root."""
    # What is not trained stays with the base. peft would write the head as well, rounded as training held it.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty template
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    # peft writes the path of the machine, and a set in the order of its hashes: equal runs would give other bytes.
    config["base_model_name_or_path"] = path
    config["target_modules"] = sorted(config["target_modules"])
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    about = {"path": path, "sha256": bases.fingerprint(base)}
    (folder / ABOUT_BASE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def save_none(folder: Path) -> None:
    """The valid empty adapter of a run that trained all weights."""
    folder.mkdir()
    text = "There is no adapter: with `finetune.method: full` every weight was trained, and models/chat has them all.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def open_adapters(base: Path, adapters: Mapping[str, Path]) -> PeftModel:
    """The model in `base` with several adapters beside it, one at work: `model.set_adapter(name)` takes another.

    The base is in memory once; an adapter takes a hundredth of it or less.

    Args:
        adapters: folder by name, one at least. The first is at work.

    Raises:
        SmeltError: one is no adapter, or was trained on another base.
    """
    fingerprint = bases.fingerprint(base)
    for folder in adapters.values():
        _check(folder, base, fingerprint)
    model = bases.load(base)
    opened: PeftModel | None = None
    for name, folder in adapters.items():
        try:
            if opened is None:
                opened = PeftModel.from_pretrained(model, folder, adapter_name=name)
            else:
                opened.load_adapter(folder, adapter_name=name)
        except (RuntimeError, ValueError, KeyError) as error:  # weights of other names or shapes
            reason = str(error).strip().splitlines()[-1].strip()
            raise SmeltError(f"the adapter {folder} does not fit the base {base}: {reason}") from None
    if opened is None:
        raise SmeltError("no adapter is given")
    return opened.eval()


def _check(folder: Path, base: Path, fingerprint: str) -> None:
    if not (folder / WEIGHTS).is_file() or not (folder / "adapter_config.json").is_file():
        raise SmeltError(f"{folder} is no adapter: it has no {WEIGHTS} with an adapter_config.json")
    about = folder / ABOUT_BASE
    if not about.exists():  # another program wrote it: names and shapes are all that can be compared
        return
    made = json.loads(about.read_text(encoding="utf-8"))
    if made["sha256"] != fingerprint:
        raise SmeltError(
            f"the adapter {folder} was trained on another base, {made['path']} with fingerprint {made['sha256'][:12]}; "
            f"{base} has {fingerprint[:12]}. Use that base, or fine-tune anew on this one"
        )
