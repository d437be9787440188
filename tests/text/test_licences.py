from pathlib import Path

import pytest

from lib import licences as command
from lib.pipeline.errors import SmeltError
from lib.text.documents import Document, write_documents
from lib.text.licences import accepted, parse, share_alike
from tests.text import project

ALLOW = ["MIT", "Apache-2.0", "GPL-2.0-only WITH Classpath-exception-2.0", "LicenseRef-Private"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("mit", True),  # SPDX ids have no case
        ("MIT AND Apache-2.0", True),
        ("MIT AND CC-BY-NC-4.0", False),
        ("MIT OR CC-BY-NC-4.0", True),
        ("(MIT OR CC-BY-NC-4.0) AND (Apache-2.0 OR GPL-3.0-only)", True),
        ("(MIT AND CC-BY-NC-4.0) OR GPL-3.0-only", False),
        ("GPL-2.0-only", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True),
        ("LicenseRef-Private", True),
        ("LicenseRef-Other", False),
    ],
)
def test_accepted(expression: str, expected: bool) -> None:
    assert accepted(expression, ALLOW) is expected


@pytest.mark.parametrize("expression", ["", "Apache 2", "MIT AND", "No-Such-Licence-9.9", "CC BY-SA"])
def test_what_is_not_spdx_is_an_error(expression: str) -> None:
    with pytest.raises(ValueError, match="is not an SPDX"):
        parse(expression)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("CC-BY-SA-4.0", True),
        ("MIT AND CC-BY-SA-3.0", True),
        ("GFDL-1.3-or-later", True),
        ("CC-BY-4.0", False),
        ("CC0-1.0", False),
        ("LicenseRef-Private", False),
    ],
)
def test_share_alike(expression: str, expected: bool) -> None:
    assert share_alike(expression) is expected


def corpus(root: Path, licences: list[str]) -> None:
    text = "A sentence of the corpus. " * 20
    write_documents(
        root / "data/dedup/documents",
        [Document(f"notes/{n}", f"{n} {text}", f"file:{n}", "notes", licence) for n, licence in enumerate(licences)],
    )


def test_a_document_outside_the_list_stops_mix_by_name(tmp_path: Path) -> None:
    sources = {
        "notes": project.folder("notes", licence="CC0-1.0"),
        "scans": project.folder("scans", licence="CC-BY-NC-4.0"),
        "typo": project.folder("typo", licence="Apache 2"),
        "unused": project.folder("unused", licence="CC-BY-NC-4.0", weight=0.0),
    }
    root = project.make(tmp_path, sources)
    corpus(root, ["CC0-1.0"] * 40 + ["CC-BY-ND-4.0"] * 2)
    with pytest.raises(SmeltError) as stopped:
        project.run(root, "mix")
    lines = str(stopped.value).splitlines()
    assert lines[1:-1] == [
        "  notes: CC-BY-ND-4.0, 2 documents, first file:40: not in licences.allow",
        "  scans: CC-BY-NC-4.0, of the source: not in licences.allow",
        f"  typo: Apache 2, of the source: {lines[3].partition('source: ')[2]}",
    ]
    assert "is not an SPDX" in lines[3]
    assert not (root / "data/mix").exists()


def test_a_wider_list_lets_them_in(tmp_path: Path) -> None:
    def allow(params: dict) -> None:
        params["licences"]["allow"].append("CC-BY-ND-4.0")

    root = project.make(tmp_path, {"notes": project.folder("notes", weight="all")}, allow)
    corpus(root, ["CC0-1.0"] * 40 + ["CC-BY-ND-4.0"] * 2)
    assert project.run(root, "mix")["sources"]["notes"]["documents"]["available"] == 42


def test_the_table_names_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"notes": project.folder("notes"), "wiki": project.folder("wiki", licence="CC-BY-SA-4.0")}
    monkeypatch.chdir(project.make(tmp_path, sources))
    monkeypatch.setenv("COLUMNS", "200")
    command.main()
    rows = [[cell.strip() for cell in line.split("│")[1:5]] for line in capsys.readouterr().out.splitlines()]
    assert ["notes", "CC0-1.0", "yes", "no"] in rows
    assert ["wiki", "CC-BY-SA-4.0", "yes", "yes"] in rows
    sources["scans"] = project.folder("scans", licence="CC-BY-NC-4.0")
    monkeypatch.chdir(project.make(tmp_path, sources))
    with pytest.raises(SystemExit, match="`mix` will stop"):
        command.main()
    assert "not in licences.allow" in capsys.readouterr().out
