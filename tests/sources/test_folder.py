import json
import os
from pathlib import Path

import pytest

from lib.params.sources import FolderSource
from lib.pipeline.errors import SmeltError
from lib.sources import folder
from tests.text import project

SOURCE = FolderSource(**project.folder("internal", licence="LicenseRef-Private", keep=["title"]))
HTML = """<html><head><title>T</title></head><body><nav><a href="/">Home</a></nav><article><h1>Boilers</h1>
<p>The boiler is inspected twice a year by a certified engineer, who writes a report about it.</p>
<p>Reports are kept for ten years in the archive on the third floor.</p></article>
<footer>Copyright</footer></body></html>"""


def read(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Texts and reasons by id."""
    items = list(folder.read(path, "internal", SOURCE, 1))
    assert len({document.id for document, _ in items}) == len(items)
    return (
        {document.id: document.text for document, reason in items if reason is None},
        {document.id: reason for document, reason in items if reason is not None},
    )


def test_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    (tmp_path / "b.MD").write_text("# Title")
    (tmp_path / "c.html").write_text(HTML)
    (tmp_path / "d.jsonl").write_text('{"text": "x", "title": "X"}\n{"text": "y"}\n')
    texts, reasons = read(tmp_path)
    assert reasons == {}
    assert texts["internal/sub/a.txt"] == "one\ntwo"
    assert texts["internal/b.MD"] == "# Title"
    assert texts["internal/d.jsonl#2"] == "y"
    assert "inspected twice a year" in texts["internal/c.html"]
    assert "Home" not in texts["internal/c.html"]
    documents = {document.id: document for document, _ in folder.read(tmp_path, "internal", SOURCE, 1)}
    assert documents["internal/d.jsonl#1"].kept == [{"title": "X"}]
    assert documents["internal/sub/a.txt"].uri == "data/internal/sub/a.txt"


def test_conversations_of_ones_own_are_read_as_a_hubs_are(tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "Hi"}, {"from": "gpt", "value": "Hello"}], "topic": "x"}
    bad = {"messages": [{"role": "user", "content": "Hi"}]}
    (tmp_path / "chat.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    source = FolderSource(**project.folder("internal", text=None, keep=["topic"]))
    (first, none), (_, reason) = folder.read(tmp_path, "internal", source, 1)
    assert (first.text, none, reason) == ("User: Hi\n\nAssistant: Hello", None, "no_answer")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert first.kept == [{"messages": turns, "topic": "x"}]


def test_what_cannot_be_understood_is_rejected_with_its_reason(tmp_path: Path) -> None:
    inside, outside = tmp_path / "internal", tmp_path / "secret.txt"
    inside.mkdir()
    outside.write_text("secret")
    (inside / ".hidden.txt").write_text("x")
    (inside / ".git").mkdir()
    (inside / ".git/x.txt").write_text("x")
    os.mkfifo(inside / "pipe.txt")
    (inside / "empty.md").write_text(" \n")
    (inside / "photo.jpg").write_bytes(b"\xff\xd8")
    (inside / "blank.html").write_text("<html><body></body></html>")
    (inside / "bad.jsonl").write_text('{"text": "good"}\n{"text": \n{"body": "x"}\n')
    (inside / "link.txt").symlink_to(outside)
    (inside / "linked").symlink_to(tmp_path, target_is_directory=True)
    texts, reasons = read(inside)
    assert texts == {"internal/bad.jsonl#1": "good"}
    assert reasons == {
        "internal/pipe.txt": "not_a_regular_file",
        "internal/empty.md": "empty",
        "internal/photo.jpg": "unknown_file_type",
        "internal/blank.html": "no_text_in_html",
        "internal/bad.jsonl#2": "broken_json",
        "internal/bad.jsonl#3": "missing_field",
        "internal/link.txt": "link_out_of_the_folder",
        "internal/linked": "link_out_of_the_folder",
    }


def test_files_that_the_system_refuses_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("x")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    with pytest.raises(SmeltError) as error:
        list(folder.read(tmp_path, "internal", SOURCE, 1))
    assert "gone.txt: No such file" in str(error.value)
    assert "loop.txt" in str(error.value)
    assert "good.txt" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_files_without_permission_are_named(tmp_path: Path) -> None:
    (tmp_path / "locked.txt").write_text("x")
    (tmp_path / "locked.txt").chmod(0)
    with pytest.raises(SmeltError, match=r"locked\.txt: Permission denied"):
        list(folder.read(tmp_path, "internal", SOURCE, 1))


def test_order_is_that_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in folder.files(tmp_path)] == ["a/z.txt", "a.txt", "b.txt"]
