"""What dvc.yaml declares is what the code does. Hand-kept dependencies rot: DVC does not look at imports."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.inputs import PAIRS
from lib.params import load as params
from lib.pipeline.declarations import declarations

ROOT = Path(__file__).resolve().parent.parent
DVC = params.read_yaml(ROOT / "dvc.yaml")
STAGES = DVC["stages"]
BODIES = {name: body.get("do", body) for name, body in STAGES.items()}
DECLARED = declarations(ROOT)
PARAMS = params.load(ROOT / "params.yaml")
RAW_PARAMS = params.read_yaml(ROOT / "params.yaml")
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]

# Arrows of the house plan: a package of lib may import these other packages of lib, beside pipeline and params.
ARROWS = {
    "params": set(),
    "pipeline": set(),
    "completion": set(),
    "sources": {"text", "completion"},
    "text": set(),
    "tokenizer": {"text"},
    "model": set(),
    "backends": set(),
    "trainers": {"model", "backends", "tokenizer"},
    "evals": {"model", "backends", "rag", "text", "tokenizer", "completion"},
    "judge": {"evals", "completion"},
    "export": {"model", "evals", "text", "tokenizer"},
    "rag": {"text", "backends"},
    "serve": {"rag", "completion"},
    "report": {"evals"},
}
# Carries tasks to machines, or makes one of them quicker, and changes no result: a bump of it must rerun nothing.
CARRIERS = {"ray", "unsloth"}
WITHOUT_TORCH = ("params", "pipeline", "completion", "judge", "sources", "text", "tokenizer", "planner", "report")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide what is imported"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            raise AssertionError(f"{path}:{node.lineno}: a dynamic import cannot be checked")


def local_file(module: str) -> Path | None:
    """The file behind lib.x.y or lib.x.y.name; None when the module is not ours."""
    if module.split(".")[0] not in ("lib", "stages"):
        return None
    for name in (module, module.rpartition(".")[0]):
        path = ROOT / (name.replace(".", "/") + ".py")
        if path.is_file():
            return path
    raise AssertionError(f"{module} is imported, and no file has it")


@functools.cache
def closure(entry: Path) -> frozenset[Path]:
    found, waiting = set(), [entry]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for module in imports(path) if (file := local_file(module))]
    return frozenset(found)


def relative(paths: frozenset[Path]) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in paths}


def covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(dep + "/")


def code_deps(body: dict) -> list[str]:
    return [dep for dep in body["deps"] if dep.startswith(("lib/", "stages/"))]


@pytest.mark.parametrize("name", STAGES)
def test_imports_equal_code_deps_in_both_directions(name: str) -> None:
    files = relative(closure(ROOT / "stages" / f"{name}.py"))
    deps = code_deps(BODIES[name])
    undeclared = sorted(file for file in files if not any(covers(dep, file) for dep in deps))
    # A folder without code, such as prompts, is read and not imported.
    code = [dep for dep in deps if dep.endswith(".py") or any((ROOT / dep).rglob("*.py"))]
    unused = sorted(dep for dep in code if not any(covers(dep, file) for file in files))
    assert not undeclared, f"stage {name} imports what its deps leave out: {undeclared}"
    assert not unused, f"stage {name} declares code that it never imports: {unused}"


def test_data_files_of_lib_lie_inside_a_declared_folder() -> None:
    """Templates and task files are read, not imported; they count when a folder that they lie in is a dep.

    The server's page is no stage's: nothing that the pipeline makes depends on it.
    """
    folders = {dep for body in BODIES.values() for dep in code_deps(body) if (ROOT / dep).is_dir()} | {"lib/serve/page"}
    for path in (ROOT / "lib").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert any(covers(dep, str(path.relative_to(ROOT))) for dep in folders), path


def param_reads(name: str) -> set[str]:
    """The names given to run.param() in a stage; an f-string's fields become `*`."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "stages" / f"{name}.py").read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "param":
            (argument,) = node.args
            if isinstance(argument, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "*" for part in argument.values]
                found.add("".join(str(part) for part in parts))
            else:
                found.add(ast.literal_eval(argument))
    return found


@pytest.mark.parametrize("name", STAGES)
def test_params_read_equal_params_declared(name: str) -> None:
    declared = {entry for entry in BODIES[name].get("params", []) if isinstance(entry, str)}
    assert param_reads(name) == {re.sub(r"\$\{[^}]*\}", "*", entry) for entry in declared}


def named(pin: str) -> str:
    """The package that a pin names, without its extras."""
    return pin.partition("==")[0].partition("[")[0]


@pytest.mark.parametrize("name", STAGES)
def test_pins_equal_the_third_party_imports(name: str) -> None:
    """A bump of a package reruns the stages that import it: its dependency group is one of their params."""
    modules = {module.split(".")[0] for file in closure(ROOT / "stages" / f"{name}.py") for module in imports(file)}
    third_party = modules - sys.stdlib_module_names - {"lib", "stages", "__future__"} - CARRIERS
    owners = importlib.metadata.packages_distributions()
    normal = lambda text: re.sub(r"[-_.]+", "-", text).lower()  # noqa: E731
    # A module may come from several packages: mlx has its library in another for each system.
    providers = {module: {normal(owner) for owner in owners[module]} for module in third_party}
    groups = {
        key.rpartition(".")[2]
        for entry in BODIES[name].get("params", [])
        if isinstance(entry, dict)
        for key in entry["pyproject.toml"]
    }
    pinned = {group: {normal(named(pin)) for pin in GROUPS[group]} for group in (*groups, "pipeline")}
    used, everywhere = set().union(*providers.values()), set().union(*pinned.values())
    missing = [module for module, packages in providers.items() if not packages & everywhere]
    assert not missing, f"stage {name} imports {missing}, which none of its dependency groups pins"
    for group in groups:
        assert used & pinned[group], f"stage {name} declares the group {group} and imports nothing of it"


def test_every_param_is_tracked_by_a_stage() -> None:
    declared = [name for stage in DECLARED.values() for name in stage.params]

    def tracked(path: str, value: object) -> bool:
        if any(path == name or path.startswith(name + ".") for name in declared):
            return True
        return isinstance(value, dict) and all(tracked(f"{path}.{key}", entry) for key, entry in value.items())

    untracked = [section for section, value in RAW_PARAMS.items() if not tracked(section, value)]
    assert not untracked, f"changing {untracked} would rerun nothing"


def test_lists_of_children_equal_the_sources() -> None:
    """A parent folder of foreach outputs is never a dep (it would hash strays too), so children are listed by hand."""
    sets = {f"data/assets/{name}" for name in PARAMS.dedup.decontaminate.sets}
    assert set(DECLARED["dedup"].data) == {f"data/clean/{name}" for name in PARAMS.sources} | sets
    assert sets <= set(DECLARED["synthesize"].data)
    assert sets <= set(DECLARED["contamination"].data)
    outs = {out: name for name, stage in DECLARED.items() for out in stage.outs}
    inputs = {PAIRS, *(source.input for source in PARAMS.sources.values())}  # `python -m lib.inputs` makes them
    for name, stage in DECLARED.items():
        for dep in stage.data:
            made = any(dep == out or dep.startswith(out + "/") for out in outs)
            assert made or dep in inputs, f"{name} depends on {dep}, which no stage makes"
    wanted = {out for out in outs if out.endswith(("metrics.json", "samples.json", "train.csv", "val.csv"))}
    missing = wanted - set(DECLARED["report"].data)
    assert not missing, f"the report leaves out {missing}"


def test_every_set_that_is_evaluated_on_is_kept_out_of_training() -> None:
    loader = params.YAML(typ="rt")
    tasks = [loader.load(path)["dataset_kwargs"] for path in (ROOT / "lib/evals/tasks").glob("*.yaml")]
    used = {(task["asset"], task["file"]) for task in tasks} | {("ifbench", "IFBench_test.jsonl")}
    assert len(used) > 1
    for asset, file in used:
        assert asset in PARAMS.dedup.decontaminate.sets, f"{asset} is evaluated on and not looked for in training text"
        assert file in {Path(member).name for member in PARAMS.assets[asset].members}
    assert {f"data/assets/{asset}" for asset, _ in used} <= set(DECLARED["evaluate@base"].data)


@pytest.mark.parametrize("name", STAGES)
def test_stage_is_well_formed(name: str) -> None:
    body, looped = BODIES[name], STAGES[name] is not BODIES[name] or "matrix" in STAGES[name]
    assert re.fullmatch(rf"python -m stages\.{name}( \$\{{(key|item\.\w+)\}})?", body["cmd"])
    assert looped == ("$" in body["cmd"])
    assert body["desc"], f"{name} has no desc"
    assert not {"always_changed", "frozen"} & body.keys()
    for kind in ("outs", "metrics", "plots"):
        for entry in body.get(kind, []):
            path, flags = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
            assert path.startswith(("data/", "models/", "reports/")), f"{name} writes {path}"
            assert "persist" not in flags, (
                f"{path}: persist switches the run cache off and loses checkpoints in exp run"
            )
            assert flags.get("cache", True) == (kind == "outs"), (
                f"{path}: metrics and plots are in git, outs in the cache"
            )
    run_record = f"reports/{name}/run.json" if not looped else f"reports/{name}/"
    assert any(entry.startswith(run_record) for entry in body["outs"] if isinstance(entry, str)), f"{name}: no run.json"


def test_stage_scripts_and_stages_are_the_same() -> None:
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"} == set(STAGES)


def test_only_the_report_depends_on_run_records() -> None:
    for name, stage in DECLARED.items():
        assert name == "report" or not any(dep.endswith("run.json") for dep in stage.deps), name


def test_import_arrows() -> None:
    for path in (ROOT / "lib").rglob("*/*.py"):
        package = path.relative_to(ROOT / "lib").parts[0]
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "stages":
                raise AssertionError(f"{path} imports a stage")
            if parts[0] == "lib" and parts[1] not in ("pipeline", "params", package):
                assert parts[1] in ARROWS[package], f"{path}: {package} may not import {parts[1]}"
            if package in WITHOUT_TORCH:
                assert parts[0] not in ("torch", "accelerate", "peft", "transformers"), f"{path} imports {module}"
    for path in (ROOT / "stages").glob("*.py"):
        assert not any(module.startswith("stages") for module in imports(path)), f"{path} imports a stage"


def test_packages_are_empty_boxes() -> None:
    """Code in an __init__ would be a dependency of everything in the package."""
    for path in [*(ROOT / "lib").rglob("__init__.py"), ROOT / "stages" / "__init__.py"]:
        assert not path.read_text().strip(), path


def test_dvc_config_has_no_secret() -> None:
    text = (ROOT / ".dvc" / "config").read_text()
    assert not re.search(r"password|secret|token|access_key|credential", text, re.IGNORECASE)
    assert "config.local" in (ROOT / ".dvc" / ".gitignore").read_text()


def test_numbers_in_the_docs_equal_params() -> None:
    """`section.key: value` in the documentation is a promise about params.yaml."""
    found = 0
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for key, shown in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+): ([^`]+)`", path.read_text()):
            value = functools.reduce(lambda section, part: section[part], key.split("."), RAW_PARAMS)
            assert str(value) == str(params.YAML(typ="safe").load(shown)), f"{path.name}: {key}"
            found += 1
    assert found, "the documentation quotes no parameter"


def test_groups_are_pinned_in_the_constraints() -> None:
    """No URL and no index in any pin; every direct pin is the one of constraints.txt."""
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert " @ " not in text
    normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()  # noqa: E731
    pins = {normal(name): version for name, _, version in (line.partition("==") for line in text.split())}
    for group in GROUPS.values():
        for pin in group:
            assert pins[normal(named(pin))] == pin.partition("==")[2], pin
