"""What dvc.yaml says of each stage, its templates filled in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib.params import load as parameters

# What a stage takes from every source. DVC cannot say "all children" (a parent folder as a dependency would hash strays
# too), so dvc.yaml lists them one by one; `make align` keeps the lists equal to `sources` of params.yaml.
CHILDREN = {
    "dedup": [("data/clean/{}",)],
    "report": [
        ("reports/collect/{}/run.json", "reports/collect/{}/metrics.json"),
        ("reports/clean/{}/samples.json", "reports/clean/{}/run.json", "reports/clean/{}/metrics.json"),
    ],
}


def _substitute(value: Any, item: str | None, fields: dict[str, Any]) -> Any:
    """Fill in DVC's `${key}`, `${item}` and `${item.x}` in strings, lists and mappings."""
    if isinstance(value, str):
        for name, text in {"key": item, "item": item, **{f"item.{key}": text for key, text in fields.items()}}.items():
            value = value.replace("${" + name + "}", str(text))
        return value
    if isinstance(value, list):
        return [_substitute(entry, item, fields) for entry in value]
    if isinstance(value, dict):
        return {_substitute(key, item, fields): _substitute(entry, item, fields) for key, entry in value.items()}
    return value


def _path(entry: str | dict) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


class Declaration:
    """What dvc.yaml says of one stage: `deps`, `params` (of params.yaml), `pins` (of pyproject.toml) and `outs`."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.desc: str = body["desc"]
        self.deps: list[str] = body.get("deps", [])
        self.params = [entry for entry in body.get("params", []) if isinstance(entry, str)]
        self.pins = [
            key
            for entry in body.get("params", [])
            if isinstance(entry, dict)
            for key in entry.get("pyproject.toml", [])
        ]
        self.outs = [_path(entry) for kind in ("outs", "metrics", "plots") for entry in body.get(kind, [])]

    @property
    def code(self) -> list[str]:
        return [dep for dep in self.deps if dep.startswith(("lib/", "stages/"))]

    @property
    def data(self) -> list[str]:
        return [dep for dep in self.deps if dep not in self.code]


def children(forms: Iterable[str], sources: Iterable[str]) -> list[str]:
    """The paths of one entry of CHILDREN for these sources."""
    return [form.format(name) for name in sources for form in forms]


def left_out(declared: dict[str, Declaration], source: str) -> list[str]:
    """What dvc.yaml should list of a source and does not: the line would go on without its documents."""
    deps = declared["dedup"].deps
    return [path for forms in CHILDREN["dedup"] for path in children(forms, [source]) if path not in deps]


def declarations(root: Path) -> dict[str, Declaration]:
    """Every stage of dvc.yaml by its DVC name (`clean@wiki`), templates filled in."""
    values = parameters.read_yaml(root / "params.yaml")
    found = {}
    for name, body in parameters.read_yaml(root / "dvc.yaml")["stages"].items():
        if "foreach" in body:
            items = body["foreach"]
            if isinstance(items, str):
                items = values[items.removeprefix("${").removesuffix("}")]
            for item, fields in items.items():
                found[f"{name}@{item}"] = Declaration(_substitute(body["do"], item, fields))
        elif "matrix" in body:
            ((axis, items),) = body["matrix"].items()
            for item in items:
                found[f"{name}@{item}"] = Declaration(_substitute(body, item, {axis: item}))
        else:
            found[name] = Declaration(body)
    return found
