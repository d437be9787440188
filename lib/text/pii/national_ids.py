"""Numbers that a state gives to a person: their forms, their check digits, and the words that announce them.

The check digits are python-stdnum's. Where form and check would still let one number in ten through (plain digits with
one check digit), it counts only when a word before it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ch import ssn as ahv
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.us import ssn


class NationalId(NamedTuple):
    form: str
    valid: Callable[[str], bool]
    announced: str | None = None  # a pattern of the words before it, without which it is just a number
    shape: bytes | None = None  # as in scan.py, for an id that does not begin with seven digits
    marks_count: bool = False  # + and - say in which century


_NINO_PREFIX = r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"  # HMRC manual NIM39110

NATIONAL_IDS: dict[str, NationalId] = {
    "us_ssn": NationalId(
        r"\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}|\d{9}", ssn.is_valid, r"ssn|social\W+security|soc\W+sec"
    ),
    "gb_nino": NationalId(
        _NINO_PREFIX + r" ?\d{2} ?\d{2} ?\d{2} ?[A-D]", lambda number: True, shape=rb"AA ?00 ?00 ?00 ?A"
    ),
    "de_idnr": NationalId(r"\d{2} ?\d{3} ?\d{3} ?\d{3}", idnr.is_valid),
    "fr_nir": NationalId(r"[12] ?\d{2} ?[0-9]{2} ?[0-9][0-9AB] ?\d{3} ?\d{3} ?\d{2}", nir.is_valid),
    "es_dni": NationalId(r"\d{8}[ -]?[A-Z]", dni.is_valid),
    "es_nie": NationalId(r"[XYZ][ -]?\d{7}[ -]?[A-Z]", nie.is_valid, shape=rb"A[ -]?0000000[ -]?A"),
    "it_codicefiscale": NationalId(
        r"[A-Z]{6}[0-9L-NP-V]{2}[A-EHLMPR-T][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]",
        codicefiscale.is_valid,
        shape=rb"AAAAAA[0A][0A]A[0A][0A]A[0A][0A][0A]A",
    ),
    "nl_bsn": NationalId(r"\d{9}|\d{4}\.\d{2}\.\d{3}", bsn.is_valid, r"bsn|burgerservice|sofi"),
    "pl_pesel": NationalId(r"\d{11}", pesel.is_valid, r"pesel"),
    "se_personnummer": NationalId(r"(?:\d{2})?\d{6}[-+]\d{4}", personnummer.is_valid, marks_count=True),
    "fi_hetu": NationalId(
        r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Z]", hetu.is_valid, shape=rb"000000[-+A]000[0A]", marks_count=True
    ),
    "be_nn": NationalId(r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", nn.is_valid),
    "ch_ahv": NationalId(r"756[. ]?\d{4}[. ]?\d{4}[. ]?\d{2}", ahv.is_valid),
    "br_cpf": NationalId(r"\d{3}\.\d{3}\.\d{3}-\d{2}", cpf.is_valid),
    "in_aadhaar": NationalId(r"\d{4} ?\d{4} ?\d{4}", aadhaar.is_valid, r"aadha+r|uidai|uid"),
}
"""By the names that `pii.national_ids` in params.yaml uses."""
