"""The lineage that travels inside an exported file, as text metadata that GGUF, safetensors and ONNX all hold.

    smelt.fingerprint.data      sha256 over the content hashes of what mix, pretrain, decay and finetune read (without
                                pretrain and decay where others made the base)
    smelt.fingerprint.params    sha256 over their parameters
    smelt.fingerprint.code      sha256 over the hashes of their code and the versions of their packages
    smelt.lineage.sources       JSON: source -> kind, licence, package pin and its sha256, documents trained on, ...
    smelt.lineage.params        JSON: stage -> parameters

Time, host, path and commit are left out on purpose: equal inputs must give equal bytes. `python -m lib.lineage` finds
the commit by the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_value

_FINGERPRINT = "smelt.fingerprint."
_SOURCES = "smelt.lineage.sources"
_PARAMS = "smelt.lineage.params"


class Lineage(NamedTuple):
    fingerprints: dict[str, str]  # data, params, code -> sha256
    sources: dict[str, dict[str, Any]]  # name -> kind, licence, share_alike, package, sha256, documents
    params: dict[str, dict[str, Any]]  # stage -> its parameters

    @property
    def licence(self) -> str:
        """SPDX expression of all the sources together."""
        licences = sorted({source["licence"] for source in self.sources.values()})
        return " AND ".join(f"({licence})" if " " in licence else licence for licence in licences)

    @property
    def share_alike(self) -> list[str]:
        """Licences that ask what is made of the texts to carry them on."""
        return sorted({source["licence"] for source in self.sources.values() if source["share_alike"]})

    def to_metadata(self) -> dict[str, str]:
        """Keys and values to write into a file, always in the same order."""
        return {
            **{_FINGERPRINT + name: value for name, value in sorted(self.fingerprints.items())},
            _PARAMS: json.dumps(self.params, sort_keys=True),
            _SOURCES: json.dumps(self.sources, sort_keys=True),
        }


def combine(
    stages: Sequence[Mapping[str, Any]], mixture: Mapping[str, Any], base: Mapping[str, Any] | None = None
) -> Lineage:
    """The lineage of a model.

    Args:
        stages: the lineage.json of mix, pretrain, decay, finetune and prefer.
        mixture: the metrics of mix, by source. Sources that gave no training document are left out.
        base: base.json of a model that others pretrained: a source then, and pretrain and decay have no part in it.
    """
    if base:
        stages = [stage for stage in stages if stage["stage"] not in ("pretrain", "decay")]

    def fingerprint(*kinds: str) -> str:
        return hash_value([[stage["stage"], *(stage[kind] for kind in kinds)] for stage in stages])

    params = {stage["stage"]: stage["params"] for stage in stages}
    sources = {}
    for name, source in params["mix"]["sources"].items():
        documents = mixture[name]["documents"]["train"]
        if documents:
            sources[name] = {
                "kind": source["kind"],
                "licence": mixture[name]["licence"],  # of its documents, which may have their own
                "share_alike": mixture[name]["share_alike"],
                "package": source.get("package") or _dataset(source),  # null: from neither
                "sha256": source.get("sha256"),
                "documents": documents,
            }
    if base:
        sources[base["path"]] = {
            "kind": "base",
            "licence": base["licence"],
            "share_alike": False,
            "package": base["origin"],
            "sha256": base["sha256"],
            "documents": None,
        }
    return Lineage(
        {"data": fingerprint("inputs"), "params": hash_value(params), "code": fingerprint("code", "pins")},
        sources,
        params,
    )


def _dataset(source: dict[str, Any]) -> str | None:
    return f"hf://datasets/{source['repo']}@{source['revision']}" if "repo" in source else None


def read(path: Path) -> Lineage:
    """The lineage inside an exported GGUF, safetensors or ONNX file.

    Raises:
        SmeltError: it is none of them, it is not whole, or there is no lineage in it.
    """
    with path.open("rb") as stream:
        magic = stream.read(4)
    kind, reader = _reader(path, magic)
    try:
        metadata = reader(path)
    except Exception as error:  # the readers of damaged files raise whatever they stumble over
        raise SmeltError(f"{path} is not a whole {kind} file ({error}); export or download it again") from None
    fingerprints = {
        key.removeprefix(_FINGERPRINT): value for key, value in metadata.items() if key.startswith(_FINGERPRINT)
    }
    if not fingerprints:
        raise SmeltError(f"{path} has no Smelt lineage inside: it was not made by `dvc repro export`")
    return Lineage(fingerprints, json.loads(metadata[_SOURCES]), json.loads(metadata[_PARAMS]))


def _reader(path: Path, magic: bytes) -> tuple[str, Callable[[Path], dict[str, str]]]:
    if magic == b"GGUF":
        return "GGUF", _gguf_metadata
    if path.suffix == ".safetensors":
        return "safetensors", _safetensors_metadata
    if path.suffix == ".onnx":
        return "ONNX", _onnx_metadata
    raise SmeltError(f"{path} is neither a GGUF nor a safetensors nor an ONNX file")


def _gguf_metadata(path: Path) -> dict[str, str]:
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if key.startswith("smelt.")}


def _safetensors_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def _onnx_metadata(path: Path) -> dict[str, str]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    if not model.graph.node:
        raise ValueError("it has no graph")
    return {entry.key: entry.value for entry in model.metadata_props}
