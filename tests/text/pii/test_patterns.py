from collections.abc import Callable
from pathlib import Path

import pytest

from lib.params.load import load
from lib.text.pii.patterns import Patterns
from lib.text.pii.secrets import entropy
from tests.workspace import ROOT

SETTINGS = load(Path(ROOT / "params.yaml")).pii
PATTERNS = Patterns(SETTINGS)


def found(text: str) -> list[tuple[str, str]]:
    return [(one.type, text[one.start : one.end]) for one in PATTERNS.find(text)]


# Examples that issuers, standards and encyclopedias publish: check digits are not only compared with the library that
# checks them.
@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to Jane.Doe+x@mail.smelt.co.uk, please", "email", "Jane.Doe+x@mail.smelt.co.uk"),
        ("<a href='mailto:jürgen@müller.de'>", "email", "jürgen@müller.de"),
        ("jane [at] smelt (dot) org", "email", "jane [at] smelt (dot) org"),
        ("?to=jane@smelt.org&x=1", "email", "jane@smelt.org"),
        ("Phone: +49 (0)30 901820", "phone", "+49 (0)30 901820"),
        ("call 020 7946 0958 now", "phone", "020 7946 0958"),
        ("or (212) 736-5000.", "phone", "(212) 736-5000"),
        ("mobile 612 34 56 78", "phone", "612 34 56 78"),
        ("from 8.8.4.4 port 53", "ip", "8.8.4.4"),
        ("via [2a00:1450:4001:81b::200e]:443", "ip", "2a00:1450:4001:81b::200e"),
        ("paid with 4111 1111 1111 1111", "credit_card", "4111 1111 1111 1111"),
        ("amex 378282246310005", "credit_card", "378282246310005"),
        ("GB82 WEST 1234 5698 7654 32 is", "iban", "GB82 WEST 1234 5698 7654 32"),
        ("IBAN: DE89370400440532013000.", "iban", "DE89370400440532013000"),
        ("NO9386011117947, Oslo", "iban", "NO9386011117947"),
        ("SSN 219-09-9998", "national_id", "219-09-9998"),
        ("NINO AB 12 34 56 C", "national_id", "AB 12 34 56 C"),
        ("IdNr 86 095 742 719", "national_id", "86 095 742 719"),
        ("NIR 2 55 08 14 168 025 38", "national_id", "2 55 08 14 168 025 38"),
        ("DNI 12345678Z", "national_id", "12345678Z"),
        ("NIE X1234567L", "national_id", "X1234567L"),
        ("CF RSSMRA85T10A562S", "national_id", "RSSMRA85T10A562S"),
        ("BSN 111222333", "national_id", "111222333"),
        ("PESEL 44051401359", "national_id", "44051401359"),
        ("personnummer 811218-9876", "national_id", "811218-9876"),
        ("hetu 131052-308T", "national_id", "131052-308T"),
        ("AHV 756.9217.0769.85", "national_id", "756.9217.0769.85"),
        ("CPF 390.533.447-05", "national_id", "390.533.447-05"),
        ("rijksregister 85.07.30-033.28", "national_id", "85.07.30-033.28"),
        ("Aadhaar 2341 2341 2346", "national_id", "2341 2341 2346"),
        ("key ghp_16C7e42F292c6912E7710c838347Ae178B4a", "secret", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        ("postgres://app:tiger77@db", "secret", "tiger77"),
        ('DB_PASSWORD = "Sommer2024"', "secret", "Sommer2024"),
        ("the password is Tr0ub4dor&3", "secret", "Tr0ub4dor&3"),
        ("Password: Grün?Wald-Uhr", "secret", "Grün?Wald-Uhr"),
        ("client_secret: 9f86d081884c7d659a2feaa0", "secret", "9f86d081884c7d659a2feaa0"),
        ("x = 'wJalrXUtnFEMI7K7MDENGbPxRfiCYzQ4'", "secret", "wJalrXUtnFEMI7K7MDENGbPxRfiCYzQ4"),
    ],
)
def test_it_is_found_whole(text: str, kind: str, value: str) -> None:
    assert found(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com, admin@mail.example, x@localhost.test",
        "logo@2x.png and @decorator and a@b",
        "127.0.0.1, 0.0.0.0, 255.255.255.0, 192.0.2.1, 2001:db8::1, ::1",
        "version 10.12.133.41, numpy==1.22.33.444, v1.2.3.4, section 4.2.1.3",
        "std::vector a::b at 10:22:31, aa:bb:cc:dd:ee:ff",
        "4111 1111 1111 1112",  # Luhn
        "GB82 WEST 1234 5698 7654 33",  # mod 97
        "order 4500123456, invoice no. 020 7946 0958, EAN 4006381333931, 2024-11-05 10:22:31",
        "219099998",  # nine digits that nothing announces
        "the years 2019-2021, pages 8577-8582, arXiv 2105.10094",
        "12345678A X1234567A RSSMRA85T10A562T 756.9217.0769.84 390.533.447-06",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "123e4567-e89b-42d3-a456-426614174000",
        'password = os.environ["DB_PASSWORD"]; token = getToken(user2); secret: ${VAULT2_SECRET}',
        "max_tokens: 819200, tokens_per_second=1234567890123",
        "AbstractTransactionalDataSourceSpringContextTests2HmacSha256WithPadding",
        "AKIAIOSFODNN7EXAMPLE",
        "https://files.example.org/br/j/pope/a/XHswBwRwJyrfL88dmMwYNWp9Qa",
        "[EMAIL_1] called [PERSON_2] on [PHONE_1]",
    ],
)
def test_it_is_nobodys(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("call +44 20 7946 0958", "call 020 7946 0958"),
        ("GB82WEST12345698765432", "GB82 WEST 1234 5698 7654 32"),
        ("4111-1111-1111-1111", "4111111111111111"),
        ("Jane@Smelt.org", "jane [at] smelt [dot] org"),
        ("from 2a00:1450:4001:81b:0:0:0:200e", "from 2a00:1450:4001:81b::200e"),
    ],
)
def test_two_spellings_have_one_key(one: str, another: str) -> None:
    (first,), (second,) = PATTERNS.find(one), PATTERNS.find(another)
    assert (first.type, first.key) == (second.type, second.key)


@pytest.mark.parametrize(
    "text", ["ß" * 9, "İ jane@smelt.org", "😀 +49 30 901820 😀", "é" * 500 + " GB82WEST12345698765432"]
)
def test_places_are_right_beyond_latin(text: str) -> None:
    for one in PATTERNS.find(text):
        assert text[one.start : one.end].strip("😀 éİ") == text[one.start : one.end]
    assert len(PATTERNS.find(text)) == (0 if text.startswith("ß") else 1)


def test_only_the_wanted_types() -> None:
    text = "jane@smelt.org, 4111 1111 1111 1111, SSN 219-09-9998"
    only = Patterns(SETTINGS.model_copy(update={"types": ["credit_card"]}))
    assert [one.type for one in only.find(text)] == ["credit_card"]
    without = Patterns(SETTINGS.model_copy(update={"national_ids": ["nl_bsn"]}))
    assert [one.type for one in without.find(text)] == ["email", "credit_card"]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "1 " * n,
        lambda n: "a@" * n,
        lambda n: "a." * n + "@",
        lambda n: "aB3" * n,
        lambda n: "1:" * n,
        lambda n: "password = " * n,
        lambda n: "DE89 " * n,
        lambda n: "+1-" * n,
    ],
)
def test_a_hostile_text_ends(make: Callable[[int], str]) -> None:
    """Each of these made some pattern here, or its like elsewhere, quadratic; at 100 kB that would take minutes."""
    PATTERNS.find(make(30_000))


def test_entropy_of_even_letters() -> None:
    assert entropy("abcdefgh" * 4) == 3.0
    assert entropy("aaaa") == 0.0
