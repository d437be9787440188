"""Invented values in the formats that people write: numbers with valid check digits, keys, and look-alikes of both.

Every function takes a random generator and returns text. What has a check digit is drawn until python-stdnum accepts
it: none is copied from a real person.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import random
import string
import uuid
from collections.abc import Callable
from types import ModuleType

import stdnum.be.nn
import stdnum.br.cpf
import stdnum.ch.ssn
import stdnum.de.idnr
import stdnum.es.dni
import stdnum.es.nie
import stdnum.fi.hetu
import stdnum.fr.nir
import stdnum.iban
import stdnum.in_.aadhaar
import stdnum.it.codicefiscale
import stdnum.luhn
import stdnum.nl.bsn
import stdnum.pl.pesel
import stdnum.se.personnummer
import stdnum.us.ssn

Rng = random.Random
_UPPER, _ALNUM = string.ascii_uppercase, string.ascii_letters + string.digits


def fill(rng: Rng, shape: str) -> str:
    """`#` becomes a digit, `@` a capital, `*` a letter or digit, `%` a hex digit; the rest stays."""
    classes = {"#": string.digits, "@": _UPPER, "*": _ALNUM, "%": "0123456789abcdef"}
    return "".join(rng.choice(classes[char]) if char in classes else char for char in shape)


def _valid(rng: Rng, draw: Callable[[], str], number: ModuleType) -> str:
    while not number.is_valid(value := draw()):
        pass
    return value


def _day(rng: Rng, order: str = "ymd") -> str:
    parts = {"y": f"{rng.randint(50, 99)}", "m": f"{rng.randint(1, 12):02}", "d": f"{rng.randint(1, 28):02}"}
    return "".join(parts[part] for part in order)


# ----------------------------------------------------------------------------------------------------------------------
# National ids


def us_ssn(rng: Rng) -> str:
    return _valid(rng, lambda: f"{rng.randint(1, 665):03}-{rng.randint(1, 99):02}-{rng.randint(1, 9999):04}",
                  stdnum.us.ssn)  # fmt: skip


def gb_nino(rng: Rng) -> str:
    first, second = rng.choice("ABCEGHJKLMNOPRSTWXYZ"), rng.choice("ABCEGHJKLMNPRSTWXYZ")
    while first + second in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"):
        second = rng.choice("ACEHJLMPRS")
    number = fill(rng, "######")
    pairs = f"{number[:2]} {number[2:4]} {number[4:]}"
    suffix = rng.choice("ABCD")
    return rng.choice([f"{first}{second}{number}{suffix}", f"{first}{second} {pairs} {suffix}"])


def de_idnr(rng: Rng) -> str:
    def draw() -> str:
        digits = rng.sample(string.digits, 9)
        digits.insert(rng.randint(0, 9), rng.choice(digits))
        return "".join(digits) + fill(rng, "#")

    number = _valid(rng, draw, stdnum.de.idnr)
    return rng.choice([number, f"{number[:2]} {number[2:5]} {number[5:8]} {number[8:]}"])


def fr_nir(rng: Rng) -> str:
    department = rng.choice(["13", "31", "33", "59", "69", "75", "93"])
    number = f"{rng.choice('12')}{_day(rng, 'ym')}{department}{rng.randint(1, 300):03}{rng.randint(1, 300):03}"
    key = stdnum.fr.nir.calc_check_digits(number)
    spaced = f"{number[0]} {number[1:3]} {number[3:5]} {number[5:7]} {number[7:10]} {number[10:]} {key}"
    return rng.choice([number + key, spaced])


def es_dni(rng: Rng) -> str:
    number = fill(rng, "########")
    letter = stdnum.es.dni.calc_check_digit(number)
    return rng.choice([number + letter, f"{number}-{letter}"])


def es_nie(rng: Rng) -> str:
    number = rng.choice("XYZ") + fill(rng, "#######")
    letter = stdnum.es.nie.calc_check_digit(number)
    return rng.choice([number + letter, f"{number[0]}-{number[1:]}-{letter}"])


def it_codicefiscale(rng: Rng) -> str:
    letters = "".join(rng.choice("BCDFGLMNPRSTVZ") for _ in range(6))
    day = rng.randint(1, 28) + rng.choice([0, 40])
    number = f"{letters}{rng.randint(50, 99)}{rng.choice('ABCDEHLMPRST')}{day:02}{rng.choice('ABCDEFGHIL')}" + fill(
        rng, "###"
    )
    return number + stdnum.it.codicefiscale.calc_check_digit(number)


def nl_bsn(rng: Rng) -> str:
    return _valid(rng, lambda: fill(rng, "#########"), stdnum.nl.bsn)


def pl_pesel(rng: Rng) -> str:
    number = _day(rng) + fill(rng, "####")
    return number + stdnum.pl.pesel.calc_check_digit(number)


def se_personnummer(rng: Rng) -> str:
    return _valid(rng, lambda: f"{rng.choice(['', '19'])}{_day(rng)}-{fill(rng, '####')}", stdnum.se.personnummer)


def fi_hetu(rng: Rng) -> str:
    checks = "0123456789ABCDEFHJKLMNPRSTUVWXY"
    return _valid(rng, lambda: f"{_day(rng, 'dmy')}-{rng.randint(2, 899):03}{rng.choice(checks)}", stdnum.fi.hetu)


def be_nn(rng: Rng) -> str:
    digits = _valid(rng, lambda: _day(rng) + fill(rng, "#####"), stdnum.be.nn)
    return f"{digits[:2]}.{digits[2:4]}.{digits[4:6]}-{digits[6:9]}.{digits[9:]}"


def ch_ahv(rng: Rng) -> str:
    digits = _valid(rng, lambda: "756" + fill(rng, "##########"), stdnum.ch.ssn)
    return f"{digits[:3]}.{digits[3:7]}.{digits[7:11]}.{digits[11:]}"


def br_cpf(rng: Rng) -> str:
    digits = _valid(rng, lambda: fill(rng, "###########"), stdnum.br.cpf)
    return f"{digits[:3]}.{digits[3:6]}.{digits[6:9]}-{digits[9:]}"


def in_aadhaar(rng: Rng) -> str:
    digits = _valid(rng, lambda: fill(rng, "############"), stdnum.in_.aadhaar)
    return f"{digits[:4]} {digits[4:8]} {digits[8:]}"


NATIONAL_IDS = {
    "us_ssn": us_ssn, "gb_nino": gb_nino, "de_idnr": de_idnr, "fr_nir": fr_nir, "es_dni": es_dni, "es_nie": es_nie,
    "it_codicefiscale": it_codicefiscale, "nl_bsn": nl_bsn, "pl_pesel": pl_pesel, "se_personnummer": se_personnummer,
    "fi_hetu": fi_hetu, "be_nn": be_nn, "ch_ahv": ch_ahv, "br_cpf": br_cpf, "in_aadhaar": in_aadhaar,
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# Numbers with a world-wide form

_PHONES = (
    "+1 212-4##-####", "(312) 6##-####", "415-8##-####", "617.5##.3###", "+1 (503) 2##-####", "1-888-4##-####",
    "020 7#46 0###", "0161 4## ####", "07700 900###", "+44 7911 1#####", "+44 (0)20 79## ####", "01632 960###",
    "0151 234#####", "030 2345####", "+49 89 1234####", "0049 221 456####", "+49 (0)40 3456##", "0711/23456#",
    "06 12 3# ## ##", "01.42.6#.##.##", "+33 1 44 ## ## ##", "+33612######",
    "+34 612 ## ## ##", "+34 91# ### ###", "+39 347 #######", "+39 02 4### ####",
    "+91 98### #####", "+234 803 ### ####", "+86 138 #### ####", "+81 90-3###-####", "+82 10-2###-####",
    "+48 601 ### ###", "+55 11 9####-####", "+90 532 ### ## ##", "+353 87 1## ####", "+20 100 ### ####",
)  # fmt: skip
_CARDS = ("4###############", "4###############", "51##############", "2321############", "37#############",
          "6011############", "3530############")  # fmt: skip
_IBANS = ("DE", "##################"), ("GB", "NWBK##############"), ("FR", "##########***#######*##"), (
    "ES", "####################"), ("IT", "X######################"), ("NL", "INGB##########"), (
    "PL", "########################"), ("CH", "#################"), ("BE", "############")  # fmt: skip


def phone(rng: Rng) -> str:
    return fill(rng, rng.choice(_PHONES))


def card(rng: Rng) -> str:
    digits = _valid(rng, lambda: fill(rng, rng.choice(_CARDS)), stdnum.luhn)
    separator = rng.choice(["", " ", " ", "-"])
    if len(digits) == 15:
        return separator.join([digits[:4], digits[4:10], digits[10:]])
    return separator.join(digits[start : start + 4] for start in range(0, 16, 4))


def bank_account(rng: Rng) -> str:
    country, shape = rng.choice(_IBANS)
    body = fill(rng, shape).upper()
    if country == "BE":
        body = body[:10] + f"{int(body[:10]) % 97 or 97:02}"
    number = country + stdnum.iban.calc_check_digits(f"{country}00{body}") + body
    return rng.choice([number, " ".join(number[start : start + 4] for start in range(0, len(number), 4))])


def ipv4(rng: Rng) -> str:
    """A public address or one of a private network, never one that is reserved for documentation."""
    first = rng.choice([10, 192, rng.choice([5, 23, 46, 52, 81, 88, 104, 142, 185, 212])])
    second = 168 if first == 192 else rng.randint(1, 250)
    return f"{first}.{second}.{rng.randint(1, 250)}.{rng.randint(2, 254)}"


def ipv6(rng: Rng) -> str:
    prefix = rng.choice(["2a01:4f8", "2606:4700", "2003:e6", "fd12:3456", "fe80:0"])
    address = ipaddress.IPv6Address(int(ipaddress.IPv6Address(f"{prefix}::")) + rng.getrandbits(rng.choice([16, 64])))
    return rng.choice([address.compressed, address.compressed, address.exploded])


# ----------------------------------------------------------------------------------------------------------------------
# Keys and tokens


def _jwt(rng: Rng) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return ".".join([part({"alg": "HS256", "typ": "JWT"}), part({"sub": fill(rng, "######")}), fill(rng, "*" * 43)])


def _base64(rng: Rng) -> str:
    return base64.b64encode(rng.randbytes(rng.choice([24, 32, 40]))).decode()


def key(rng: Rng) -> str:
    """A key whose form tells what it is, or one of a provider without any form: letters and digits drawn evenly."""
    shapes = ("AKIA" + "@" * 16, "ghp_" + "*" * 36, "github_pat_" + "*" * 22 + "_" + "*" * 59, "glpat-" + "*" * 20,
              "xoxb-############-############-" + "*" * 24, "sk_live_" + "*" * 24, "sk-proj-" + "*" * 48,
              "AIza" + "*" * 35, "npm_" + "*" * 36, "SG." + "*" * 22 + "." + "*" * 43, "hf_" + "*" * 34,
              "dop_v1_" + "%" * 64, "*" * 32, "*" * 40)  # fmt: skip
    return rng.choice([_jwt, _base64, *([lambda rng: fill(rng, rng.choice(shapes))] * 6)])(rng)


def password(rng: Rng) -> str:
    """What people choose, and what a password manager draws."""
    words = ("Sommer", "dragon", "Welcome", "pass", "tiger", "Blaubeere", "horse", "monkey")
    chosen = f"{rng.choice(words)}{rng.choice(['', '_', '-'])}{rng.randint(10, 9999)}{rng.choice(['', '!', '#', '$'])}"
    drawn = "".join(rng.choice(_ALNUM + "!#$%&*+-_?") for _ in range(rng.randint(12, 20)))
    return rng.choice([chosen, drawn])


# ----------------------------------------------------------------------------------------------------------------------
# Look-alikes, which are nobody's


def look_alike(rng: Rng, kind: str) -> str:
    shapes = {
        "sha1": "%" * 40, "sha256": "%" * 64, "md5": "%" * 32, "short": "%" * 7, "order": "45########",
        "sku": "@@@-####-@@", "ticket": "OPS-####", "amount": "#,###.##", "number": "3###### ",
        "isbn": "978-0-##-######-#",
        "part": "0####-###-##", "build": "20241###.#", "ean": "40############"[:13], "mac": "%%:%%:%%:%%:%%:%%",
        "serial": "SN########", "coordinate": "52.#####, 13.#####", "vin": "WVWZZZ1JZ3W######",
    }  # fmt: skip
    if kind == "uuid":
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))
    if kind == "date":
        day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2015, 2026)
        return rng.choice([f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}", f"{month}/{day}/{year}"])
    if kind == "time":
        return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
    if kind == "version":
        return (
            f"{rng.randint(1, 12)}.{rng.randint(0, 20)}.{rng.randint(0, 30)}{rng.choice(['', '.' + fill(rng, '####')])}"
        )
    return fill(rng, shapes[kind]).strip()
