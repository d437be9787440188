"""The tokenizer and chat template of a base, as files that its chat model gets: both stay the base's own.

A base without a template gets ours (ChatML), if its tokenizer has the tokens of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lib.model.gguf_tokenizer import read_gguf_tokenizer
from lib.pipeline.errors import SmeltError
from lib.tokenizer.chat_template import CHAT_TEMPLATE
from lib.tokenizer.rendering import ChatRenderer, template_of, token_names
from lib.trainers import bases


def write(base: Path, folder: Path) -> str:
    """Write the tokenizer of a base, its chat template in its configuration; the token that ends a turn.

    Several processes may write the same at once.

    Raises:
        SmeltError: there is none; or the template uses tokens that it lacks.
    """
    source = bases.gguf_file(base)
    if source:
        text, config = _from_gguf(base, source["gguf_file"])
    else:
        text, config = _from_directory(base)
    own = bool(config["chat_template"])
    if not own:
        config["chat_template"] = CHAT_TEMPLATE
    end = _end_of_turn(base, text, config, own)
    config["pad_token"] = config.get("pad_token") or config.get("eos_token") or end
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tokenizer.json", text)
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return end


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def _from_directory(base: Path) -> tuple[str, dict[str, Any]]:
    missing = [name for name in ("tokenizer.json", "tokenizer_config.json") if not (base / name).is_file()]
    if missing:
        raise SmeltError(f"finetune.base: {base} has no {' and no '.join(missing)}; a base brings its own tokenizer")
    config = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("auto_map", None)  # the name of code
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if isinstance(config.get(name), dict):
            config[name] = config[name]["content"]
    config["chat_template"] = template_of(base, config)
    return (base / "tokenizer.json").read_text(encoding="utf-8"), config


def _from_gguf(base: Path, file: str) -> tuple[str, dict[str, Any]]:
    tokenizer = read_gguf_tokenizer(base, file)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
        "clean_up_tokenization_spaces": False,
        "chat_template": tokenizer.chat_template,
    }
    return tokenizer.backend_tokenizer.to_str(pretty=True), config


def _end_of_turn(base: Path, text: str, config: dict[str, Any], own: bool) -> str:
    """The token that ends a turn, after a check that all tokens of the template are in the tokenizer."""
    shown = "its chat template" if own else "ChatML, the template for a base that brings none,"
    try:
        template = ChatRenderer(text, config["chat_template"], token_names(config)).template
    except SmeltError as error:
        raise SmeltError(f"finetune.base: {base}: {shown} cannot be rendered: {error.__cause__}") from None
    if template.missing:
        raise SmeltError(
            f"finetune.base: {base}: {shown} uses {', '.join(template.missing)}, which its tokenizer does not have as "
            f"one token. Choose an instruction-tuned base, or one whose tokenizer has them"
        )
    try:
        return template.ends[0]
    except SmeltError as error:
        raise SmeltError(f"finetune.base: {base}: {error}") from None


def write_generation(base: Path, folder: Path) -> None:
    """Write how the chat model in `folder` is asked to generate: as its base, ended by the end of a turn as well."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = Tokenizer.from_file(str(folder / "tokenizer.json"))
    path = base / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"do_sample": False}
    known = settings.get("eos_token_id", [])
    ends = {*(known if isinstance(known, list) else [known]), ids.token_to_id(config["eos_token"])}
    settings["eos_token_id"] = sorted(ends - {None})
    settings["pad_token_id"] = ids.token_to_id(config["pad_token"])
    _write(folder / "generation_config.json", json.dumps(settings, indent=2) + "\n")
