"""A small project around one stage: our params.yaml and dvc.yaml with other sources, in a folder of its own."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lib.params.load import read_yaml
from lib.pipeline.run import execute

REPOSITORY = Path(__file__).parents[2]


def make(root: Path, sources: dict[str, Any], change: Callable[[dict], None] = lambda params: None) -> Path:
    """Write params.yaml (with these `sources`, then `change`d), dvc.yaml and pyproject.toml into `root`."""
    params = read_yaml(REPOSITORY / "params.yaml")
    params["sources"] = sources
    params["index"]["sources"] = {}
    params["evaluate"]["forgetting"]["sources"] = []
    params["synthesize"]["sources"] = {}
    params["chat"]["own"]["sources"] = list(sources)[:1]
    params["dedup"]["decontaminate"]["sets"] = {}
    change(params)
    stages = read_yaml(REPOSITORY / "dvc.yaml")
    deps = stages["stages"]["dedup"]["deps"]
    stages["stages"]["dedup"]["deps"] = [dep for dep in deps if not dep.startswith("data/")]
    stages["stages"]["dedup"]["deps"] += [f"data/clean/{name}" for name in sources]
    sets = params["dedup"]["decontaminate"]["sets"]
    stages["stages"]["dedup"]["deps"] += [f"data/assets/{name}" for name in sets]
    root.mkdir(parents=True, exist_ok=True)
    YAML().dump(params, root / "params.yaml")
    YAML().dump(stages, root / "dvc.yaml")
    (root / "data/synthetic").mkdir(parents=True, exist_ok=True)  # no teacher wrote anything
    (root / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text())
    return root


def run(root: Path, stage: str, item: str | None = None) -> dict[str, Any]:
    """Run a stage in `root`, in this process; its metrics come back."""
    execute(root, stage, item, import_module(f"stages.{stage}").main.__wrapped__)
    path = root / "reports" / stage / (item or "") / "metrics.json"
    if not path.exists():
        return {}
    metrics = json.loads(path.read_text())[stage]
    return metrics[item] if item else metrics


def folder(name: str, /, **changes: Any) -> dict[str, Any]:
    """A source of kind folder."""
    return {
        "kind": "folder",
        "input": f"data/{name}",
        "licence": "CC0-1.0",
        "weight": 1.0,
        "epochs": 1,
        "rules": "prose",
        "limit": None,
        "pii": "keep",
        "text": "{text}",
        "keep": [],
        "limits": {"seconds": 30, "memory_mib": 1024, "document_mib": 128, "unpacked_mib": 4096, "depth": 4},
        **changes,
    }
