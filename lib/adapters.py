"""Asks several adapters on one base the same question, and shows the answer of each.

    make adapters ARGS="models/base legal=models/legal support=models/support 'How do I close an account?'"

The base is loaded once, and the adapters take turns on it. To have several: fine-tune, copy models/adapter to a folder
of its own, fine-tune on other conversations. In a program, `lib.trainers.adapters.open_adapters` does the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from lib.pipeline.errors import SmeltError
from lib.trainers import adapters, base_tokenizer
from lib.trainers.libraries import PreTrainedTokenizerFast


def ask(base: Path, folders: dict[str, Path], question: str, tokens: int) -> dict[str, str]:
    """The greedy answer of each adapter, by name.

    Raises:
        SmeltError: one is no adapter, or was trained on another base.
    """
    model = adapters.open_adapters(base, folders)
    with tempfile.TemporaryDirectory() as folder:
        end = base_tokenizer.write(base, Path(folder))
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, eos_token=end)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False, return_tensors="pt"
    )
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    answers = {}
    for name in folders:
        model.set_adapter(name)
        with torch.inference_mode():
            answer = model.generate(input_ids=ids, max_new_tokens=tokens, do_sample=False, **ends)
        answers[name] = tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True).strip()
    return answers


def _named(text: str) -> tuple[str, Path]:
    name, sign, folder = text.partition("=")
    if not (name and sign and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make adapters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("adapters", type=_named, nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("question")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer, at most")
    given = parser.parse_args()
    try:
        answers = ask(given.base, dict(given.adapters), given.question, given.tokens)
    except SmeltError as error:
        sys.exit(f"adapters: error: {error}")
    for name, answer in answers.items():
        print(f"{name}: {answer}")


if __name__ == "__main__":
    main()
