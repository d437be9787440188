"""The model card of an exported model: what it may be used under, and what it was made from.

README.md with the metadata block of the Hugging Face Hub (https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from lib.export.lineage import Lineage

# CC BY-SA 3.0, section 4b, lets an adaptation go under a later version of the licence.
_UPGRADES = {"CC-BY-SA-3.0": "CC-BY-SA-4.0"}


def licence_id(lineage: Lineage) -> str:
    """What the Hub calls the licence: an SPDX id in small letters where one can hold for the whole model, else `other`.

    One share-alike licence is carried on: permissive ones let their part go under it. The owner's own documents
    (LicenseRef-...), expressions of several licences and share-alike licences that do not fit together leave `other`.
    """
    licences = {source["licence"] for source in lineage.sources.values()} - {"LicenseRef-PublicDomain"}
    carried = {_UPGRADES.get(licence, licence) for licence in lineage.share_alike} or licences
    plain = all(" " not in licence and not licence.startswith("LicenseRef-") for licence in licences)
    return carried.pop().lower() if plain and len(carried) == 1 else "other"


def _documents(entry: dict[str, Any]) -> str:
    return "the base" if entry["documents"] is None else f"{entry['documents']:,}"


def write(folder: Path, name: str, lineage: Lineage) -> None:
    """Write README.md of the model called `name` into `folder`; equal lineage gives equal bytes."""
    licence = licence_id(lineage)
    data = ModelCardData(
        model_name=name,
        license=licence,
        license_name=lineage.licence if licence == "other" else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["smelt"],
    )
    rows = [
        f"| {source} | {entry['package'] or entry['kind']} | {entry['licence']} | {_documents(entry)} |"
        for source, entry in lineage.sources.items()
    ]
    bases = [entry["package"] or source for source, entry in lineage.sources.items() if entry["kind"] == "base"]
    made = f"adapted from {bases[0]}" if bases else "pretrained from scratch and fine-tuned to answer"
    carried = (
        f"Some of the texts ask that what is made of them is passed on under the same terms (share-alike): "
        f"{', '.join(lineage.share_alike)}. Pass the model on under those."
        if lineage.share_alike
        else "None of the texts asks that the model is passed on under the same terms (share-alike)."
    )
    fingerprints = [f"| {kind} | `{value}` |" for kind, value in lineage.fingerprints.items()]
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {name}",
        "",
        f"A small language model, {made}, made with Smelt.",
        "",
        "## Licence",
        "",
        f"The {'base and the ' if bases else ''}texts that it was trained on are under: {lineage.licence}. {carried}",
        "",
        "## Trained on",
        "",
        "| source | from | licence | documents |",
        "|---|---|---|---|",
        *rows,
        "",
        "## Lineage",
        "",
        "| fingerprint | sha256 |",
        "|---|---|",
        *fingerprints,
        "",
        "The parameters and sources stand in the metadata of the weights; `make lineage MODEL=...` reads them back.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
