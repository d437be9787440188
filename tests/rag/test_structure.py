import pytest

from lib.rag.structure import is_code, outline

RST = """=====
Title
=====

Some text.

Section
-------

Example::

    code

        more code
    $ # no heading

Sub
~~~

**Example 1: to list**

The end::

\ttabbed
"""


def titles(text: str) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in outline(text).headings]


def test_headings_of_restructuredtext() -> None:
    assert titles(RST) == [(1, "Title"), (2, "Section"), (3, "Sub"), (99, "Example 1: to list")]
    blocks = [RST[start:end] for start, end in outline(RST).blocks]
    assert blocks == ["    code\n\n        more code\n    $ # no heading\n", "\ttabbed\n"]


def test_headings_of_markdown() -> None:
    text = (
        "# One #\n\ntext\n\n### Three\nA title\n=======\n\nTwo\n---\n\n#no\n\n```sh\n# a comment\n\n# another\n```\n\n"
        "~~~\nnever closed\n\n# Heading\n"
    )
    assert titles(text) == [(1, "One"), (3, "Three"), (2, "Two"), (1, "Heading")]
    assert [text[start:end] for start, end in outline(text).blocks] == ["```sh\n# a comment\n\n# another\n```\n"]


NONE = ["", "\n\n", "A line.\nAnother.\n", "a | b\n--|--\n1 | 2\n", "text\n\n----\n\ntext", "* one\n* two\n",
        "**bold** text\n", "word\nTitle\n=====\n"]  # fmt: skip


@pytest.mark.parametrize("text", NONE)
def test_no_headings(text: str) -> None:
    assert titles(text) == []


def test_sections_tile_the_text_and_nest() -> None:
    text = "intro\n\n# A\n\na\n\n## B\n\nb\n\n# C\n\nc\n"
    sections = outline(text).sections(len(text), "Doc")
    assert "".join(text[start:end] for start, end, _ in sections) == text
    assert [path for _, _, path in sections] == ["Doc", "Doc > A", "Doc > A > B", "Doc > C"]
    assert [path for _, _, path in outline("# A\n\na").sections(6, "A")] == ["A"]


def test_code_has_no_headings() -> None:
    assert is_code("internal/src/tool.py")
    assert is_code("networkx/a.py#3")
    assert not is_code("internal/notes.md")
    assert outline("# comment\n\nx = 1\n", code=True).headings == []
