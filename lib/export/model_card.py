"""The model card of an export: what it may be used under and for, what it was made from, how good it is.

README.md with the metadata block of the Hugging Face Hub (https://huggingface.co/docs/hub/model-cards,
https://github.com/huggingface/hub-docs/blob/main/modelcard.md). Every figure is one that a stage measured in this run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from lib.export.lineage import Lineage

# CC BY-SA 3.0, section 4b, lets an adaptation go under a later version of the licence.
_UPGRADES = {"CC-BY-SA-3.0": "CC-BY-SA-4.0"}
_LIBRARIES = {"hf": "transformers", "adapter": "peft", "gguf": "llama.cpp", "onnx": "onnxruntime", "mlx": "mlx"}
_HUB, _DATASETS = "hf://", "hf://datasets/"
_TASKS = {
    "mmlu_letter": "MMLU, by letter",
    "mmlu_cloze": "MMLU, by text",
    "piqa": "PIQA",
    "openbookqa": "OpenBookQA",
    "commonsenseqa": "CommonsenseQA",
    "socialiqa": "SocialIQA",
    "boolq": "BoolQ",
    "truthfulqa": "TruthfulQA",
}
_USE = {
    "hf": "vllm serve .                                 # an OpenAI API; transformers and lm-eval need no flag either",
    "adapter": "llama-server -m {base}.gguf --lora {name}-lora-F16.gguf   # or peft, beside the base",
    "peft": "pip install peft                             # AutoPeftModelForCausalLM, beside the base",
    "gguf": "llama-server -m {name}-{variant}.gguf        # or Ollama, LM Studio, llama-cpp-python",
    "onnx": "pip install onnxruntime                      # inputs and outputs are named as Optimum has them",
    "mlx": "mlx_lm.chat --model {name}-{variant}",
}
_PII = {
    "redact": "looked for and replaced by typed placeholders before training",
    "drop": "looked for; documents that have any were left out",
    "keep": "not looked for, as published works",
}


@dataclass(frozen=True)
class About:
    """What the card says beside the lineage.

    Args:
        format: of the export: hf, adapter, gguf, onnx or mlx.
        evaluation: metrics of the stage `evaluate` of this model.
        languages: ISO codes of what it was trained on, the most frequent first.
        pii: policy by source.
        files: bytes and `parity.metrics` by variant, the plain one first.
        context: tokens that it reads at once.
    """

    format: str
    evaluation: Mapping[str, Any]
    languages: Sequence[str]
    pii: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    context: int


def licence_id(lineage: Lineage) -> str:
    """What the Hub calls the licence: an SPDX id in small letters where one can hold for the whole model, else `other`.

    One share-alike licence is carried on: permissive ones let their part go under it. The owner's own documents
    (LicenseRef-...), expressions of several licences and share-alike licences that do not fit together leave `other`.
    """
    licences = {source["licence"] for source in lineage.sources.values()} - {"LicenseRef-PublicDomain"}
    carried = {_UPGRADES.get(licence, licence) for licence in lineage.share_alike} or licences
    plain = all(" " not in licence and not licence.startswith("LicenseRef-") for licence in licences)
    return carried.pop().lower() if plain and len(carried) == 1 else "other"


def write(folder: Path, name: str, lineage: Lineage, about: About) -> None:
    """Write README.md of the model called `name` into `folder`; equal inputs give equal bytes."""
    (folder / "README.md").write_text(render(name, lineage, about), encoding="utf-8")


def write_none(folder: Path, why: str) -> None:
    """The valid empty output of a format that is not exported."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"There is nothing here: {why}\n", encoding="utf-8")


def render(name: str, lineage: Lineage, about: About) -> str:
    bases = [entry["package"] or source for source, entry in lineage.sources.items() if entry["kind"] == "base"]
    made = f"adapted from {bases[0]}" if bases else "pretrained from scratch and fine-tuned to answer"
    what = "The LoRA adapter of a small language model" if about.format == "adapter" else "A small language model"
    lines = [
        *("---", _metadata(name, lineage, about).to_yaml(), "---", "", f"# {name}", ""),
        f"{what}, {made}, made with Smelt.",
        *("", "## Use", "", "```sh", _use(name, about), "```"),
        *("", "## Intended use", ""),
        f"For questions on what its texts are about, from people who can check the answer. It reads "
        f"{about.context:,} tokens at once"
        + (f", and was trained on {', '.join(about.languages)}." if about.languages else "."),
        *("", "## Limits", ""),
        "It was not taught to be safe: nothing was done against false, harmful or biased answers, beyond leaving such "
        "texts out as the filters find. It states what is false as it states what is true; the figures below say how "
        "often. Not for decisions on people, nor for medical, legal or financial advice.",
        *("", "## Evaluation", ""),
        *_evaluation(about.evaluation),
        *_files(about),
        *("", "## Licence", ""),
        _licence(lineage, bool(bases)),
        *("", "## Trained on", ""),
        *_table(
            ("source", "from", "licence", "documents"),
            [
                (source, entry["package"] or entry["kind"], entry["licence"], _documents(entry))
                for source, entry in lineage.sources.items()
            ],
        ),
        *("", "## Personal data", ""),
        *(
            f"- {', '.join(sources)}: {_PII[policy]}"
            for policy in _PII
            if (sources := [source for source in lineage.sources if about.pii.get(source) == policy])
        ),
        *("", "## Lineage", ""),
        *_table(("fingerprint", "sha256"), [(kind, f"`{value}`") for kind, value in lineage.fingerprints.items()]),
        "",
        "The parameters and sources stand in the metadata of the weights; `make lineage MODEL=...` reads them back.",
    ]
    return "\n".join([*lines, ""])


def _metadata(name: str, lineage: Lineage, about: About) -> ModelCardData:
    licence = licence_id(lineage)
    packages = [entry["package"] or "" for entry in lineage.sources.values() if entry["kind"] != "base"]
    bases = [entry["package"] or "" for entry in lineage.sources.values() if entry["kind"] == "base"]
    hosted = [base.removeprefix(_HUB).partition("@")[0] for base in bases if base.startswith(_HUB)]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=_TASKS.get(task, task),
            metric_type=metric,
            metric_value=measured["value"],
            metric_name=f"{metric.replace('_', ' ')}, standard error {measured['stderr']}",
        )
        for task, scores in about.evaluation.get("tasks", {}).items()
        for metric, measured in scores.items()
        if isinstance(measured, Mapping) and measured["value"] is not None
    ]
    return ModelCardData(
        model_name=name,
        license=licence,
        license_name=lineage.licence if licence == "other" else None,
        language=list(about.languages) or None,
        datasets=sorted({p.removeprefix(_DATASETS).partition("@")[0] for p in packages if p.startswith(_DATASETS)})
        or None,
        base_model=hosted or None,
        library_name=_LIBRARIES[about.format],
        pipeline_tag="text-generation",
        eval_results=results or None,
        tags=["smelt"],
    )


def _use(name: str, about: About) -> str:
    """How to run it, by the files that there are."""
    variants = list(about.files)
    alone = about.format == "adapter" and "lora-F16" not in variants
    # The first of GGUF is the one that is not quantised.
    chosen = variants[1:2] if about.format == "gguf" and len(variants) > 1 else variants[:1]
    return _USE["peft" if alone else about.format].format(
        name=name, variant="".join(chosen), base=f"{name}-base-F16" if "base-F16" in variants else "BASE"
    )


def _evaluation(metrics: Mapping[str, Any]) -> list[str]:
    """Each figure with its standard error, which another sample of the same size would likely stay within."""
    rows = []
    if (bits := metrics.get("bits_per_byte", {}).get("overall")) and bits["value"] is not None:
        rows.append(("held-out text, bits per byte", _estimate(bits), ""))
    if commands := metrics.get("commands"):
        rows += [
            (f"held-out tasks, {title}", _estimate(commands[key]), str(commands["examples"]))
            for key, title in (("service", "right service"), ("exact_match", "exact command"))
            if commands[key]["value"] is not None
        ]
    rows += [
        (f"{_TASKS.get(task, task)}, {metric.replace('_', ' ')}", _estimate(measured), str(scores["questions"]))
        for task, scores in metrics.get("tasks", {}).items()
        for metric, measured in scores.items()
        if isinstance(measured, Mapping) and measured["value"] is not None
    ]
    if not rows:
        return ["Nothing was measured."]
    return _table(("measure", "value ± standard error", "questions"), rows)


def _files(about: About) -> list[str]:
    if not about.files:
        return []
    rows = []
    for variant, figures in about.files.items():
        measured = "bits_per_byte" in figures
        rows.append(
            (
                variant,
                f"{figures['bytes']:,}",
                _estimate(figures["bits_per_byte"]) if measured else "",
                _estimate(figures["bits_per_byte_more"]) if measured else "",
                _share(figures["top1_plain"]) if measured else "",
                f"{figures['greedy_identical']} of {figures['greedy_prompts']}" if measured else "",
            )
        )
    plain = next(iter(about.files))
    titles = (
        "variant",
        "bytes",
        "bits per byte",
        f"more than {plain}",
        f"likeliest token as {plain}",
        "answers as in transformers",
    )
    return [*("", "## Files", ""), *_table(titles, rows)]


def _licence(lineage: Lineage, has_base: bool) -> str:
    carried = (
        f"Some of the texts ask that what is made of them is passed on under the same terms (share-alike): "
        f"{', '.join(lineage.share_alike)}. Pass the model on under those."
        if lineage.share_alike
        else "None of the texts asks that the model is passed on under the same terms (share-alike)."
    )
    return (
        f"The {'base and the ' if has_base else ''}texts that it was trained on are under: {lineage.licence}. {carried}"
    )


def _documents(entry: Mapping[str, Any]) -> str:
    return "the base" if entry["documents"] is None else f"{entry['documents']:,}"


def _estimate(measured: Mapping[str, float | None]) -> str:
    if measured["value"] is None:
        return ""
    return f"{measured['value']:.4f}" + (f" ± {measured['stderr']:.4f}" if measured["stderr"] is not None else "")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    line = "| {} |".format
    return [line(" | ".join(titles)), "|" + "---|" * len(titles), *(line(" | ".join(row)) for row in rows)]
