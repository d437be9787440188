"""Personal data that has a form: addresses, numbers, keys.

A cheap scan finds where a value may be (an at sign, a run of digits, capitals before digits), and only there is looked
closely. What has a check digit must pass it; what looks like an order number needs a word that says what it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

import phonenumbers
import tldextract
from stdnum import luhn, numdb

from lib.params.text import Pii
from lib.text.pii.found import PATTERNED, Found, without_overlaps
from lib.text.pii.national_ids import NATIONAL_IDS
from lib.text.pii.scan import Scan
from lib.text.pii.secrets import find_secrets

_WINDOW = 48  # characters before a number in which a word may say what it is


def _before(text: str, start: int) -> str:
    """The end of the line before `start`."""
    window = text[max(0, start - _WINDOW) : start]
    return window[window.rfind("\n") + 1 :]


def _compact(value: str) -> str:
    return re.sub(r"[\W_]", "", value).upper()


# ----------------------------------------------------------------------------------------------------------------------
# E-mail

_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}\Z")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w@])")
_WRITTEN = re.compile(
    r"(?<![\w.])([\w.+-]{1,64})\s?[\[(]\s?at\s?[\])]\s?((?:[\w-]{1,63}(?:\.|\s?[\[(]\s?dot\s?[\])]\s?)){1,4}[a-z]{2,24})\b",
    re.IGNORECASE,
)
_EDGE = ".!#$%&'*/=?^`{|}~-"  # may stand inside the local part, and before it in running text
# The list of public suffixes that the package holds; it would otherwise be fetched. RFC 2606 reserves the others.
_suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
_RESERVED = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost)$")


def _is_mailbox(local: str, domain: str) -> bool:
    domain = domain.lower()
    return bool(local.strip(_EDGE) and _suffixes(domain).suffix) and not _RESERVED.search(domain)


def find_emails(scan: Scan) -> Iterator[Found]:
    text = scan.text
    at = text.find("@")
    while at >= 0:
        local, domain = _LOCAL.search(text, max(0, at - 64), at), _DOMAIN.match(text, at + 1)
        if local and domain:
            name = local[0].lstrip(_EDGE)
            name = name.rpartition("=")[2].rpartition("/")[2]  # ?to=name@..., mailto:...
            if _is_mailbox(name, domain[0]):
                yield Found(at - len(name), domain.end(), "email", f"{name}@{domain[0]}".lower())
        at = text.find("@", at + 1)
    if scan.has(b"at]", b"at )", b"at)", b"at ]"):
        for match in _WRITTEN.finditer(text):
            domain = re.sub(r"\s?[\[(]\s?dot\s?[\])]\s?", ".", match[2], flags=re.IGNORECASE)
            if _is_mailbox(match[1], domain):
                yield Found(match.start(), match.end(), "email", f"{match[1]}@{domain}".lower())


# ----------------------------------------------------------------------------------------------------------------------
# IP addresses

_IPV4 = re.compile(rb"0{1,3}\.0{1,3}\.0{1,3}\.0{1,3}")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_FIRST_GROUP = re.compile(r"[0-9A-Fa-f]{0,4}\Z")
_IPV6 = re.compile(r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*[0-9A-Fa-f]")
_VERSION = re.compile(
    r"(?:\b(?:v|ver|version|release|rev|revision|build|firmware|section|chapter|update\w*|to)\.?\s*[(v]?|[=<>~^]=\s*"
    r"|[\w)][:@/-]v?)$",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"://|(?<![a-z])(?:ips?|addr\w*|hosts?|server|dns|gateway|peer|client|src|dst|rip|lip|ping|remote\w*|from|via|at)\W",
    re.IGNORECASE,
)


def _is_someones(value: str) -> str | None:
    """The canonical form of an address that may lead to a person or a machine; None for any other."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    reserved = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_reserved
    documentation = any(address in network for network in _DOCUMENTATION[address.version])
    netmask = address.version == 4 and value.startswith(("255.", "0."))
    return None if reserved or documentation or netmask else address.compressed


_DOCUMENTATION = {
    4: [*map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"))],  # RFC 5737
    6: [*map(ipaddress.ip_network, ("2001:db8::/32", "3fff::/20"))],  # RFC 3849, RFC 9637
}


def find_ips(scan: Scan) -> Iterator[Found]:
    text = scan.text
    for match in _IPV4.finditer(scan.shape):
        start, end = match.span()
        if re.match(r"[\w.]", text[start - 1 : start]) or re.match(r"\w|\.\d|-\d", text[end : end + 2]):
            continue
        value = text[start:end]
        key = _is_someones(value)
        if not key:
            continue
        before = _before(text, start)
        plain = len(value) > 9 and not re.search(r"(?<!\d)0(?!\d)", value)  # 1.4.12.3 is rather a version
        if _ADDRESS.search(before) or (plain and not _VERSION.search(before)) or re.match(r"\W{0,3}$", before):
            yield Found(start, end, "ip", key)
    end = 0
    for colons in _COLONS.finditer(text):
        start = colons.start() - len(
            re.search(r"[0-9A-Fa-f]{0,4}\Z", text[max(0, colons.start() - 4) : colons.start()])[0]
        )
        match = _IPV6.match(text, start) if start >= end else None
        if not match:
            continue
        value, end = match[0], match.end()
        if re.match(r"[\w:.]", text[start - 1 : start]) or re.match(r"\w", text[end : end + 1]):
            continue
        if value.count(":") < 3 and not re.match(r"f[cde]|[23][0-9a-f]{3}", value, re.IGNORECASE):
            continue  # std::a, 10::3
        if any(map(str.isdigit, value)) and (key := _is_someones(value)):
            yield Found(start, end, "ip", key)


# ----------------------------------------------------------------------------------------------------------------------
# Numbers

_CARD = re.compile(
    r"(?<![\d.-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5}|\d{13,19})(?![\d-])(?!\.\d)"
)
# The first digits that the schemes use, and their lengths (ISO/IEC 7812).
_SCHEME = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-6]\d|27[01]|222|2720)\d*|3[47]\d{13}|3(?:0[0-5]|095|[689])\d{11,14}"
    r"|(?:6011|64[4-9]|65|62|35|50|5[6-8]|6[37])\d{10,17}"
)
_CARD_WORDS = re.compile(r"card|karte|carte|tarjeta|carta|visa|master|amex|\bpan\b|credit|debit|\bcc\b", re.IGNORECASE)
_OTHER_NUMBER = re.compile(
    r"(?:\b(?:orders?|invoice|ref(?:erence)?|tracking|ticket|serials?|sn|sku|ean|isbn|issn|part|item|build|version|rev|commit|"
    r"case|lot|batch|pallet|parcel|barcode|article|po|gtin|upc|vin|imei|doi|pmid|coordinates?|position|offset|size|bytes|"
    r"timestamp|time|date|epoch|device|zip|port|number)\b|[#$€£%=_/\\])\W*(?:no\.?|number|nr\.?|id)?\W*$",
    re.IGNORECASE,
)


def _cards(text: str, start: int, end: int) -> Iterator[Found]:
    for match in _CARD.finditer(text, start, end):
        digits = _compact(match[0])
        if not _SCHEME.fullmatch(digits) or not 13 <= len(digits) <= 19 or not luhn.is_valid(digits):
            continue
        before = _before(text, match.start())
        if _CARD_WORDS.search(before) or not _OTHER_NUMBER.search(before):
            yield Found(*match.span(), "credit_card", digits)


_PHONE = re.compile(
    r"(?<![\w.@-])(?:"
    r"(?P<international>(?:\+|00)\(?[1-9](?:[ \-./()–]{0,3}\d){6,13})"
    r"|(?P<american>(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4})"
    r"|(?P<trunk>\(?0\d{1,4}\)?[ /.-]{0,3}\d(?:[ \-./–]?\d){4,10})"
    r"|(?P<other>\d(?:[ .-]?\d){6,11})"
    r")(?![\w@]|[-/.]\d)"
)
# With nothing to tell that it is a phone: spaces, pairs (01.42.68.53.00), one mark after the area code, or a UK mobile.
_TRUNK = re.compile(r"\(?0[\d ()]* [\d ()]*|0\d(?:[.-]\d\d){4}|0\d+[/-]\d{4,}|07\d{9}")
_PHONE_WORDS = re.compile(
    r"\b(?:tel|t[eé]l[eé]ph?one?|telefon\w*|tel[eé]fono|phone[ds]?|mobile?s?|mobil\w*|m[oó]vil|cell\w*|cel|handy\w*|portable|fax|"
    r"call\w*|ring|rung|dial\w*|texte?d?|sms|whatsapp|signal|reach\w*|joindre|contact\w*|llam\w*|ruf\w*|hotline|extension|"
    r"[tmf](?=[.:]))\b",
    re.IGNORECASE,
)
_NO_PHONE = re.compile(  # dates, spans of years, US postcodes, arXiv numbers
    r"(?:19|20)\d{2}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ](?:19|20)\d{2}"
    r"|(?:19|20)\d{2}[-–](?:19|20)\d{2}(?!\d)|\d{5}-\d{4}$|\d{4}\.\d{4,5}$"
)


def _phone_number(value: str, regions: list[str | None], strict: bool) -> str | None:
    """The number in its international form if it may be dialled in one of the regions; `strict`: if it is assigned."""
    for region in regions:
        try:
            number = phonenumbers.parse(value, region)
        except phonenumbers.NumberParseException:
            continue
        if (phonenumbers.is_valid_number if strict else phonenumbers.is_possible_number)(number):
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return None


def _phones(text: str, start: int, end: int, regions: list[str]) -> Iterator[Found]:
    for match in _PHONE.finditer(text, start, end):
        value, form = match[0], match.lastgroup
        before = _before(text, match.start())
        announced = bool(_PHONE_WORDS.search(before))
        if _NO_PHONE.match(value) or (not announced and _OTHER_NUMBER.search(before)):
            continue
        if form == "international":
            number = _phone_number("+" + value[2:] if value.startswith("00") else value, [None], not announced)
        elif form == "american":
            number = _phone_number(value, ["US"], not announced)
        elif announced or (form == "trunk" and _TRUNK.fullmatch(value)):
            number = _phone_number(value, regions, True)
        else:
            number = None
        if number:
            yield Found(*match.span(), "phone", number)


def _national(name: str, form: re.Pattern[str], text: str, start: int, end: int) -> Iterator[Found]:
    kind = NATIONAL_IDS[name]
    for match in form.finditer(text, start, end):
        if not kind.valid(match[0] if kind.marks_count else _compact(match[0])):
            continue
        before = _before(text, match.start())
        if kind.announced:
            dashed = name == "us_ssn" and "-" in match[0]
            if not dashed and not re.search(kind.announced, before, re.IGNORECASE):
                continue
        elif _OTHER_NUMBER.search(before) and not re.search(r"(?:number|no|nr|id)\W*$", before, re.IGNORECASE):
            continue
        yield Found(*match.span(), "national_id", f"{name}:{_compact(match[0])}")


# ----------------------------------------------------------------------------------------------------------------------
# IBAN

_COUNTRY = re.compile(rb"AA00(?=[ -]?[A0]{3})")
_IBAN_BODY = re.compile(r"[A-Za-z0-9](?:[ \n-]?[A-Za-z0-9]){10,29}")
_BANKS = numdb.get("iban")


def _iban_length(country: str) -> int | None:
    """The number of characters of an IBAN of this country, from the registry that python-stdnum holds."""
    properties = _BANKS.info(country)[0][1]
    return 4 + sum(map(int, re.findall(r"\d+", properties["bban"]))) if "bban" in properties else None


def find_ibans(scan: Scan) -> Iterator[Found]:
    text = scan.text
    for match in _COUNTRY.finditer(scan.shape):
        start = match.start()
        if text[start - 1 : start].isalnum() and start:
            continue
        length, body = _iban_length(text[start : start + 2]), _IBAN_BODY.match(text, start)
        if length is None or body is None:
            continue
        value, at = "", start
        while len(value) < length and at < body.end():
            value += text[at] if text[at].isalnum() else ""
            at += 1
        if len(value) == length and not text[at : at + 1].isalnum():
            value = value.upper()
            if int("".join(str(int(char, 36)) for char in value[4:] + value[:4])) % 97 == 1:  # ISO 13616, ISO 7064
                yield Found(start, at, "iban", value)


# ----------------------------------------------------------------------------------------------------------------------
# All of them


class Patterns:
    """The search for the patterned types of `settings.types`."""

    def __init__(self, settings: Pii) -> None:
        self._types = [kind for kind in PATTERNED if kind in settings.types]
        self._regions = settings.phone_regions
        self._ids = {
            name: re.compile(rf"(?<![\w.-])(?:{NATIONAL_IDS[name].form})(?![\w-])(?!\.\d)")
            for name in settings.national_ids
        }
        self._anywhere: dict[str, Callable[[Scan], Iterator[Found]]] = {
            "secret": lambda scan: find_secrets(scan, settings.secret_length, settings.secret_entropy),
            "email": find_emails,
            "iban": find_ibans,
            "national_id": self._lettered,
            "ip": find_ips,
        }

    def find(self, text: str) -> list[Found]:
        """Every value in `text`, in order, none overlapping another."""
        scan = Scan(text)
        found = [one for kind in self._types if kind in self._anywhere for one in self._anywhere[kind](scan)]
        if {"credit_card", "national_id", "phone"} & set(self._types):
            for start, end in scan.numbers():
                digits = scan.shape.count(b"0", start, end)
                if "credit_card" in self._types and digits >= 13:
                    found += _cards(text, start, end)
                if "national_id" in self._types and digits >= 8:
                    for name, form in self._ids.items():
                        if not NATIONAL_IDS[name].shape:
                            found += _national(name, form, text, start, end)
                if "phone" in self._types:
                    found += _phones(text, start, end, self._regions)
        return without_overlaps(found)

    def _lettered(self, scan: Scan) -> Iterator[Found]:
        """Ids with too few digits in a row for `Scan.numbers`."""
        for name, form in self._ids.items():
            if shape := NATIONAL_IDS[name].shape:
                for match in re.finditer(shape, scan.shape):
                    yield from _national(name, form, scan.text, match.start(), match.end() + 2)
