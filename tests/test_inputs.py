from pathlib import Path

from lib import inputs
from tests.text import project


def test_missing_input_folders_are_made(tmp_path: Path) -> None:
    project.make(tmp_path, {"a": project.folder("a", input="data/deep/a"), "b": project.folder("b")})
    (tmp_path / "data/b").mkdir(parents=True)
    assert inputs.make(tmp_path) == ["data/deep/a", "data/pairs"]
    assert (tmp_path / "data/deep/a").is_dir()
    assert inputs.make(tmp_path) == []
    assert inputs.not_crawled(tmp_path) == []
