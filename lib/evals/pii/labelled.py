"""A labelled set to measure the search for personal data on: templates filled with invented people and values.

Real mail with real people in it cannot be published. The two halves have templates, names, places and firms of their
own: the patterns were developed on `develop`, and `held_out` is what is reported. A template is a document with slots:

    <<a.full>> <<a.first>> <<a.last>> <<a.last_first>>   names of person a (b, c, d); the same within a document
    <<a.email>> <<a.email_written>> <<a.phone>>          how to reach them; `written` hides the at sign from robots
    <<place>> <<org>> <<phone>> <<ip>> <<ipv6>> <<card>> <<iban>> <<key>> <<password>> <<us_ssn>> ...
    <<uuid>> <<sha1>> <<version>> <<order>> <<date>> ...   look-alikes: nobody's, so not labelled

A number after a slot's name (`<<place2>>`) makes it another one of its kind.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from lib.evals.pii import values
from lib.evals.pii.people import DEVELOP, HELD_OUT, Cast

Half = Literal["develop", "held_out"]
CASTS: dict[str, Cast] = {"develop": DEVELOP, "held_out": HELD_OUT}

_SLOT = re.compile(r"<<(\w+(?:\.\w+)?)>>")
_DRAWN: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "phone": ("phone", values.phone),
    "phone_fr": ("phone", lambda rng: values.fill(rng, "06 ## ## ## ##")),
    "ip": ("ip", values.ipv4),
    "ipv": ("ip", values.ipv6),  # <<ipv6>>: the number at the end is taken off
    "card": ("credit_card", values.card),
    "iban": ("iban", values.bank_account),
    "key": ("secret", values.key),
    "password": ("secret", values.password),
    **{name: ("national_id", draw) for name, draw in values.NATIONAL_IDS.items()},
}
_FRESH = (
    "date",
    "time",
    "version",
    "amount",
    "sku",
    "serial",
    "uuid",
    "short",
    "sha256",
    "part",
)  # never the same twice


class Span(NamedTuple):
    """Characters `start` to `end` of a document are a value of this type."""

    start: int
    end: int
    type: str


class Labelled(NamedTuple):
    kind: str  # mail, ticket, log, code or clean
    text: str
    spans: list[Span]


class _Person:
    def __init__(self, rng: random.Random, cast: Cast) -> None:
        given, family = rng.choice(cast.people)
        self.first, self.last = rng.choice(given.split()), rng.choice(family.split())
        self.full, self.last_first = f"{self.first} {self.last}", f"{self.last}, {self.first}"
        plain = unicodedata.normalize("NFKD", f"{self.first} {self.last}".replace("ı", "i")).encode("ascii", "ignore")
        first, last = plain.decode().lower().replace("'", "").split()
        locals_ = (f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{rng.randint(1, 99)}", f"{last}.{first}",
                   f"{first[0]}.{last}", f"{first}+news", f"{first}{rng.randint(60, 99)}")  # fmt: skip
        local = rng.choice(locals_)
        domain = rng.choice(cast.choices("domains"))
        self.email = f"{local}@{domain}"
        self.email_written = (
            f"{local} {rng.choice(['[at]', '(at)'])} {domain.replace('.', rng.choice(['.', ' [dot] ']))}"
        )
        self.phone = values.phone(rng)


class _Filling:
    """What the slots of one document hold."""

    def __init__(self, rng: random.Random, cast: Cast) -> None:
        self._rng, self._cast = rng, cast
        self._people: dict[str, _Person] = {}
        self._known: dict[str, tuple[str | None, str]] = {}

    def __call__(self, slot: str) -> tuple[str | None, str]:
        """The type of a slot, None for a look-alike, and its value."""
        if slot in _FRESH or slot not in self._known:
            self._known[slot] = self._draw(slot)
        return self._known[slot]

    def _draw(self, slot: str) -> tuple[str | None, str]:
        role, dot, field = slot.partition(".")
        if dot:
            person = self._people.get(role)
            while person is None or any(
                person.full == other.full for name, other in self._people.items() if name != role
            ):
                person = self._people[role] = _Person(self._rng, self._cast)
            kind = {"email": "email", "email_written": "email", "phone": "phone"}.get(field, "person")
            return kind, getattr(person, field)
        name = slot if slot in _DRAWN else slot.rstrip("0123456789")
        if name in ("place", "org"):
            taken = {value for _, value in self._known.values()}
            field = "places" if name == "place" else "organisations"
            options = [option for option in self._cast.choices(field) if option not in taken]
            return {"place": "place", "org": "organisation"}[name], self._rng.choice(options)
        if name in _DRAWN:
            kind, draw = _DRAWN[name]
            return kind, draw(self._rng)
        if slot == "port":
            return None, str(self._rng.randint(1024, 65535))
        return None, values.look_alike(self._rng, slot)


def _templates(half: Half) -> list[tuple[str, str]]:
    text = (Path(__file__).parent / f"{half}.txt").read_text(encoding="utf-8")
    documents = re.split(r"^==== (\w+)\n", text, flags=re.MULTILINE)[1:]
    return [(kind, body.rstrip("\n")) for kind, body in zip(documents[::2], documents[1::2], strict=True)]


def labelled(half: Half, rounds: int, seed: int) -> list[Labelled]:
    """Every template of `half`, filled `rounds` times; the same for the same arguments."""
    made = []
    for turn in range(rounds):
        for number, (kind, template) in enumerate(_templates(half)):
            filling = _Filling(random.Random(f"{half}:{seed}:{turn}:{number}"), CASTS[half])
            pieces: list[str] = []
            spans: list[Span] = []
            length = 0
            for index, piece in enumerate(_SLOT.split(template)):
                kind_of, value = filling(piece) if index % 2 else (None, piece)
                if kind_of:
                    spans.append(Span(length, length + len(value), kind_of))
                pieces.append(value)
                length += len(value)
            made.append(Labelled(kind, "".join(pieces), spans))
    return made
