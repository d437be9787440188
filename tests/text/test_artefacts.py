from typing import Any

import pytest
from datatrove.data import Document as Row

from lib.params import clean
from lib.text.artefacts import Artefacts
from tests.text import corpus

ALL = dict.fromkeys(clean.Artefacts.model_fields, True)
BEFORE = "The boiler on the third floor is inspected twice a year."
AFTER = "The report of the engineer is kept for ten years."


def edit(text: str, **switches: Any) -> tuple[str, dict[str, int]]:
    step, row = Artefacts(clean.Artefacts(**{**ALL, **switches})), Row(text=text, id="1")
    assert step.apply(row) is None
    return row.text, dict(step.removed)


@pytest.mark.parametrize(
    ("kind", "artefact"),
    [
        ("cookie_banners", "This website uses cookies to ensure you get the best experience. Learn more\nAccept all"),
        ("cookie_banners", "We use cookies to personalise content. By continuing to use this site you consent "
                           "to our use of cookies.\n\nAccept all\nReject all\nCookie settings"),
        ("unsubscribe", "You are receiving this email because you signed up on our website. Unsubscribe here."),
        ("unsubscribe", "Unsubscribe | Manage your preferences | View in browser"),
        ("unsubscribe", "If you no longer wish to receive these emails, click here to unsubscribe."),
        ("unsubscribe", "To stop receiving our newsletter, reply to this message.\nPrivacy Policy · Terms of Use"),
        ("disclaimers", "This e-mail and any attachments are confidential and intended solely for the addressee. If\n"
                        "you have received this message in error, please notify the sender and delete it."),
        ("disclaimers", "CONFIDENTIALITY NOTICE: This transmission may contain privileged information. Any\n"
                        "disclosure or distribution by anyone but the intended recipient is strictly prohibited."),
        ("disclaimers", "© 2021 Example Inc. All rights reserved."),
    ],
)  # fmt: skip
def test_an_artefact_goes_and_what_surrounds_it_stays(kind: str, artefact: str) -> None:
    text = f"{BEFORE}\n\n{artefact}\n\n{AFTER}"
    left, removed = edit(text)
    assert left == f"{BEFORE}\n\n{AFTER}"
    assert removed == {kind: len(text) - len(left)}
    assert edit(f"{BEFORE}\n\n{artefact}")[0] == BEFORE
    assert edit(f"{artefact}\n\n{AFTER}")[0] == AFTER
    assert edit(text, **{kind: False}) == (text, {})


def test_a_line_within_a_paragraph_goes_alone() -> None:
    assert edit(f"{BEFORE}\nCopyright (c) 2020 The Firm. All rights reserved.\n{AFTER}")[0] == f"{BEFORE}\n{AFTER}"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("<p>One &amp; two.</p>\n<p>Three.</p>", "One & two.\n\nThree."),
        ('<div class="x"><span style="a:b">One</span> two</div>', "One two"),
        ("One<br/>two<br>three", "One\ntwo\nthree"),
        ("<!-- hidden --><script>var a = '<b>';</script>Seen", "Seen"),
        ('<style type="text/css">p { color: red }</style>Seen &#8212; it&nbsp;is', "Seen — it is"),
        ("A <b>bold</b> and <a href='x'>linked</a> word", "A bold and linked word"),
    ],
)
def test_html_goes_and_its_text_stays(raw: str, expected: str) -> None:
    assert edit(raw)[0].strip("\n") == expected
    assert edit(raw, html=False) == (raw, {})


@pytest.mark.parametrize(
    "text",
    [
        "Cookies are baked for ten minutes. We use cookies as dessert, and the policy of the house is to share.",
        "An HTTP cookie is stored by the browser. Websites use cookies to keep a session.",
        "To unsubscribe from a topic, use the ``unsubscribe`` command with the ARN of the subscription.",
        "She wanted to unsubscribe from the newsletter, but the link did not work.",
        "The letter was confidential, and he was not its recipient.",
        "If a < b and c > d, then List<String> and vector<int> stay; so do <your-bucket>, <source> and <https://x.org>.",
        "The <b> tag makes text bold, and `<br>` breaks a line.",
        "```html\n<p>An example &amp; more</p>\n```",
        "cp <source> <target>\nAT&T and R&D; Q&A &c.",
        "All rights are reserved to the people, said the charter of 1789, and all duties too.",
        "The use of the yard is prohibited after ten. Delete the old entries, and inform us of new ones by letter "
        "to the office of the house, which is open on weekdays." * 20,
    ],
)
def test_good_text_stays(text: str) -> None:
    assert edit(text) == (text, {})


def test_the_manual_of_python_and_its_code_stay() -> None:
    """300 documents of prose and code, of which not one has a banner, a footer or a disclaimer."""
    for text in [*corpus._prose()[:160], *corpus._code()]:
        left, removed = edit(text, html=False)
        assert "All rights reserved" in text or (left, removed) == (text, {}), removed
