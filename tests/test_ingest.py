"""`make ingest`: the index follows a folder, and a kill at any moment leaves it usable."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lib.ingest import ingest
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_text
from lib.rag import build
from lib.rag.bert import Bert
from lib.rag.embed import Embedder
from lib.rag.index import Index
from lib.sources import folder
from lib.text.documents import Document
from tests.rag.hashing import Hashing
from tests.rag.tiny import settings, write_embedder
from tests.text import project

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose index was built by the line from three files."""
    monkeypatch.setattr("lib.ingest.load_embedder", lambda *_: Hashing())
    root = project.make(tmp_path / "repository", {"docs": project.folder("docs", rules="any", text=None)}, configure)
    for name in ("ner", "places"):
        (root / "data/assets" / name).mkdir(parents=True)
    for name in ("a.txt", "b.txt", "sub/c.txt"):
        write(root, name, f"the list of {name}")
    make_index(root, ["a.txt", "b.txt", "sub/c.txt"])
    return root


def configure(params: dict) -> None:
    rules = dict.fromkeys(params["clean"]["own"])
    params["clean"]["any"] = rules
    params["index"]["sources"] = {"docs": None}
    params["pii"]["types"] = ["email"]


def write(root: Path, name: str, text: str) -> None:
    path = root / "data/docs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_index(root: Path, names: list[str], embedder: Embedder | None = None, **changes: Any) -> None:
    shutil.rmtree(root / "models", ignore_errors=True)
    documents = []
    for name in names:
        text = (root / "data/docs" / name).read_text()
        documents.append(Document(f"docs/{name}", text, "u", "docs", "CC0-1.0", hash=hash_text(text)))
    build.write_index(root / "models/index", settings(**changes), embedder or Hashing(), documents).close()


def run(root: Path) -> str:
    said: list[str] = []
    ingest(root, [], 1, said.append)
    return said[0]


def texts(root: Path) -> dict[str, str]:
    index = Index.open(root / "models/index")
    return {name: " ".join(one.text for one in index.document(name)) for name in index.documents()}


def test_the_first_time_finds_what_the_line_has_unchanged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Index.open(root / "models/index").digest
    monkeypatch.setattr(Hashing, "encode", lambda *_: pytest.fail("nothing is new"))
    assert run(root) == "docs: 0 added, 0 changed, 0 removed, 3 unchanged, 0 rejected"
    assert Index.open(root / "models/index").digest == before


def test_the_index_follows_the_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "data/docs/b.txt").unlink()
    write(root, "a.txt", "the bucket instead")
    write(root, "new.md", "# A title\n\nthe bucket is new")
    assert run(root) == "docs: 1 added, 1 changed, 1 removed, 1 unchanged, 0 rejected"
    assert texts(root) == {
        "docs/a.txt": "the bucket instead",
        "docs/new.md": "# A title\n\nthe bucket is new",
        "docs/sub/c.txt": "the list of sub/c.txt",
    }
    read: list[str] = []
    read_files = folder.read_files

    def spy(paths: list[Path], *rest: object) -> object:
        read.extend(path.name for path in paths)
        return read_files(paths, *rest)

    monkeypatch.setattr(folder, "read_files", spy)
    assert run(root) == "docs: 0 added, 0 changed, 0 removed, 3 unchanged, 0 rejected"
    assert read == []
    write(root, "sub/c.txt", "the list, longer than it was")
    (root / "data/docs/new.md").unlink()
    assert run(root) == "docs: 0 added, 1 changed, 1 removed, 1 unchanged, 0 rejected"
    assert read == ["c.txt"]
    assert set(texts(root)) == {"docs/a.txt", "docs/sub/c.txt"}


def test_it_ends_where_a_new_index_would_begin(root: Path) -> None:
    write(root, "new.txt", "the bucket " * 90)
    write(root, "b.txt", "the list " * 70)
    run(root)
    grown = Index.open(root / "models/index")
    followed = {name: grown.document(name) for name in grown.documents()}
    grown.close()
    make_index(root, ["a.txt", "b.txt", "new.txt", "sub/c.txt"])
    fresh = Index.open(root / "models/index")
    assert followed == {name: fresh.document(name) for name in fresh.documents()}


def test_a_file_of_several_documents(root: Path) -> None:
    write(root, "rows.jsonl", '{"text": "the first"}\n{"text": "the second"}\n{"text": "the third"}\n')
    assert run(root).startswith("docs: 3 added")
    write(root, "rows.jsonl", '{"text": "the first"}\n{"text": "the 2nd"}\n')
    assert run(root) == "docs: 0 added, 1 changed, 1 removed, 4 unchanged, 0 rejected"


def test_personal_data_is_redacted_and_rejects_are_counted(root: Path) -> None:
    params = (root / "params.yaml").read_text()
    assert params.count("pii: keep") == 1
    (root / "params.yaml").write_text(params.replace("pii: keep", "pii: redact"))
    write(root, "mail.txt", "write to jane@bucket.org")
    write(root, "broken.pdf", "%PDF-1.4 rubbish")
    assert run(root).startswith("docs: 1 added, 0 changed, 0 removed, 3 unchanged, 1 rejected {'")
    assert texts(root)["docs/mail.txt"] == "write to [EMAIL_1]"
    assert run(root) == "docs: 0 added, 0 changed, 0 removed, 4 unchanged, 0 rejected"  # a reject is not read again


def test_what_cannot_be_kept_up_to_date_says_why(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SmeltError, match="no source 'nope' that is a folder"):
        ingest(root, ["nope"], 1, print)
    make_index(root, [], sources={"docs": 7})
    with pytest.raises(SmeltError, match=r"takes 7 documents of docs alone: set index\.sources\.docs to null"):
        ingest(root, ["docs"], 1, print)
    make_index(root, [], sources={})
    with pytest.raises(SmeltError, match="the index has no source docs"):
        ingest(root, ["docs"], 1, print)
    make_index(root, [], Hashing(1))
    with pytest.raises(SmeltError, match=r"models/index was built with another embedder"):
        run(root)
    shutil.rmtree(root / "models")
    with pytest.raises(SmeltError, match=r"no index in .*: run `make repro`"):
        run(root)


def test_with_the_embedder_that_the_index_names(root: Path) -> None:
    """As the command, in a process of its own."""
    make_index(root, ["a.txt", "b.txt", "sub/c.txt"], Bert(write_embedder(root / "data/assets/minilm"), workers=1))
    write(root, "new.txt", "the bucket is new")
    command, environment = [sys.executable, "-m", "lib.ingest"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=environment)
    said = "docs: 1 added, 0 changed, 0 removed, 3 unchanged, 0 rejected\nmodels/index: 4 documents, 4 passages\n"
    assert (done.returncode, done.stdout) == (0, said), done.stderr
    done = subprocess.run([*command, "wiki"], cwd=root, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr[:14]) == (1, "ingest: error:")


KILLED = """
import os, signal, sys
from pathlib import Path
from lib import ingest as module
from lib.ingest import ingest
from lib.rag.index import Index
from tests.rag.hashing import Hashing

module.load_embedder = lambda *_: Hashing()
opened, last = Index.change, int(sys.argv[1])

def change(self):
    left = [last]
    def count(statement):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    self._db.set_trace_callback(count)
    return opened(self)

Index.change = change
for at in range(1, last + 1, int(sys.argv[2])):
    child = os.fork()
    if not child:
        last = at
        ingest(Path(), [], 1, lambda line: None)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(at, os.WIFSIGNALED(status), flush=True)
    index = Index.open(Path("models/index"))
    index._db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    index._db.rollback()
    assert index._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for name in index.documents():
        assert len(index.document(name)) > 0 and index.keywords(index.document(name)[0].text, 5, None)
    index.close()
"""


def test_a_kill_at_any_statement_leaves_a_usable_index(root: Path) -> None:
    for n in range(4):
        write(root, f"new{n}.txt", f"the bucket number {n} " * 30)
    write(root, "a.txt", "the bucket instead")
    (root / "data/docs/b.txt").unlink()
    command = [sys.executable, "-c", KILLED, "60", "9"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    killed = [line.split()[1] for line in done.stdout.splitlines()]
    assert killed[:3] == ["True"] * 3
    run(root)
    assert set(texts(root)) == {"docs/a.txt", "docs/sub/c.txt", *(f"docs/new{n}.txt" for n in range(4))}
    assert texts(root)["docs/a.txt"] == "the bucket instead"
