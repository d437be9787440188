"""What dvc.yaml says of each stage, its templates filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lib.params import load as parameters
from lib.pipeline.errors import SmeltError

_TEMPLATE = re.compile(r"\$\{([^}]+)\}")

# What a stage takes from every source. DVC cannot say "all children" (a parent folder as a dependency would hash strays
# too), so dvc.yaml lists them one by one; `make align` keeps the lists equal to `sources` of params.yaml.
CHILDREN = {
    "dedup": [("data/clean/{}",)],
    "export": [("reports/clean/{}/metrics.json",)],
    "report": [
        ("reports/collect/{}/run.json", "reports/collect/{}/metrics.json"),
        ("reports/clean/{}/samples.json", "reports/clean/{}/run.json", "reports/clean/{}/metrics.json"),
    ],
}


def _substitute(value: Any, known: Mapping[str, Any]) -> Any:
    """Fill in DVC's `${key}`, `${item}`, `${item.x}` and `${section.name}` in strings, lists and mappings."""
    if isinstance(value, str):
        return _TEMPLATE.sub(lambda match: str(_look_up(known, match[1])), value)
    if isinstance(value, list):
        return [_substitute(entry, known) for entry in value]
    if isinstance(value, dict):
        return {_substitute(key, known): _substitute(entry, known) for key, entry in value.items()}
    return value


def _look_up(known: Mapping[str, Any], name: str) -> Any:
    if name in known:
        return known[name]
    value: Any = known
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise SmeltError(f"dvc.yaml says ${{{name}}}, and params.yaml has no {name}")
        value = value[part]
    return value


def _named(name: str, item: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item, **{f"{name}.{key}": value for key, value in fields.items()}}


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
                known = {**values, "key": item, **_named("item", item, fields)}
                found[f"{name}@{item}"] = Declaration(_substitute(body["do"], known))
        elif "matrix" in body:
            ((axis, items),) = body["matrix"].items()
            for item in items:
                known = {**values, **_named("item", item, {axis: item})}
                found[f"{name}@{item}"] = Declaration(_substitute(body, known))
        else:
            found[name] = Declaration(_substitute(body, values))
    return found
