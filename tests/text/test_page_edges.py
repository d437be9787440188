from datatrove.data import Document as Row

from lib.params import clean
from lib.text.page_edges import Pages

RULES = clean.Pages(min_pages=3, edge_lines=2, min_share=0.5)
BODY = [f"{name} says something of its own.\nIt ends with {name}." for name in ("One", "Two", "Three", "Four", "Five")]


def joined(pages: list[str], rules: clean.Pages = RULES) -> tuple[str, dict[str, int]]:
    step, row = Pages(rules), Row(text="\f".join(pages), id="1")
    assert step.apply(row) is None
    return row.text, dict(step.removed)


def test_headers_footers_and_page_numbers_go() -> None:
    pages = [f"Annual Report\n\n{body}\n\nPage {n} of 5\n" for n, body in enumerate(BODY, 1)]
    text, removed = joined(pages)
    assert text == "\n\n".join(BODY)
    assert removed == {"headers": 5 * len("Annual Report") + 5 * len("Page 1 of 5")}


def test_a_bare_number_that_grows_with_the_pages_is_a_page_number() -> None:
    text, removed = joined([f"{body}\n- {n} -" for n, body in enumerate(BODY, 17)])
    assert text == "\n\n".join(BODY)
    assert removed == {"page_numbers": 5 * len("- 17 -")}


def test_headers_that_change_sides_go() -> None:
    pages = [f"{'Smelt' if n % 2 else 'Chapter 3'}\n{BODY[n % 5]} {n}." for n in range(8)]
    assert joined(pages)[0] == "\n\n".join(f"{BODY[n % 5]} {n}." for n in range(8))


def test_rows_of_tables_stay() -> None:
    """They stand at the edges of pages and look alike, but their numbers do not count the pages."""
    pages = [f"Row {7 * n * n + 11}\n{body}\n{1000 - 13 * n * n} {n * 5 + 2}" for n, body in enumerate(BODY)]
    text, removed = joined(pages)
    assert removed == {}
    assert text.split() == "\n".join(pages).split()


def test_what_stands_inside_a_page_stays() -> None:
    pages = [f"first {n * n}\nsecond {n * n}\nThe same line.\nlast but one {n * n}\nlast {n * n}" for n in range(2, 6)]
    assert joined(pages)[0].count("The same line.") == 4


def test_a_sentence_over_the_end_of_a_page_stays_in_one_paragraph() -> None:
    text, _ = joined(["It begins here\n", "and ends here.", "Another begins."])
    assert text == "It begins here\nand ends here.\n\nAnother begins."


def test_few_pages_are_joined_and_no_more() -> None:
    assert joined(["Header\nOne is here.", "Header\nTwo is here."])[0] == "Header\nOne is here.\n\nHeader\nTwo is here."
    assert joined(["no pages at all\n"])[0] == "no pages at all\n"
