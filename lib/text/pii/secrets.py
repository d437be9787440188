"""Keys, tokens and passwords: by a known form, by the name they are assigned to, or by chance-like letters alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from lib.text.pii.found import Found
from lib.text.pii.scan import Scan

# Forms that providers chose so that scanners find them (compare the rules of gitleaks, MIT).
_FORMS = {
    "AKIA": r"AKIA[0-9A-Z]{16}", "ASIA": r"ASIA[0-9A-Z]{16}", "ghp_": r"ghp_\w{36}", "gho_": r"gho_\w{36}",
    "ghs_": r"ghs_\w{36}", "github_pat_": r"github_pat_\w{60,90}", "glpat-": r"glpat-[\w-]{20,}",
    "xox": r"xox[abeoprs]-[\w-]{10,}", "sk_": r"sk_(?:live|test)_\w{16,}", "rk_": r"rk_(?:live|test)_\w{16,}",
    "sk-": r"sk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,}", "AIza": r"AIza[\w-]{35}", "ya29.": r"ya29\.[\w-]{20,}",
    "npm_": r"npm_\w{36}",
    "pypi-": r"pypi-[\w-]{50,}", "SG.": r"SG\.[\w-]{16,}\.[\w-]{16,}", "hf_": r"hf_[A-Za-z0-9]{30,}",
    "dop_v1_": r"dop_v1_[0-9a-f]{64}", "shp": r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    "eyJ": r"eyJ[\w-]{8,}\.eyJ[\w-]{4,}\.[\w-]{8,}",
    "PRIVATE KEY": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+-----END [A-Z ]*PRIVATE KEY-----",
}  # fmt: skip
_FORM = {hint: re.compile(r"(?<![A-Za-z0-9])" + form) for hint, form in _FORMS.items()}

_LOGIN = re.compile(r"://[^\s:@/]+:([^\s@/]{3,})@")  # user:password@host
_BEARER = re.compile(r"\b(?:Bearer|Basic|bearer|basic)\s+([A-Za-z0-9._~+/-]{16,}=*)")
_PASSWORD_WORDS = ("passw", "pwd", "passphrase", "kennwort")
_NAMES = (*map(str.encode, _PASSWORD_WORDS), b"secret", b"token", b"key", b"credential")
_KEY = re.compile(r"(?:api|access|auth|private|account|secret)[_-]?\Z", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"""(?P<name>passw(?:or)?[dt]|passwd|pwd|passphrase|kennwort|secret|token|key|credentials?)[\w.-]*["']?
    \s*(?::=|=>|[:=]|\s(?:is|was|ist|lautet)\s)\s*(?:["'](?P<quoted>[^"'\s]{6,200})["']|(?P<bare>[^\s"',;<>]{6,200}))""",
    re.IGNORECASE | re.VERBOSE,
)
_TEMPLATE = re.compile(r"\$(?:[{(]|[A-Za-z_]+$)|[<{]|%[(s{]|\*{3}|x{4}")  # ${VAR}, $VAR, <secret>, {{ secret }}, ***
_REFERENCE = re.compile(_TEMPLATE.pattern + r"|[A-Za-z_]\w*[.(\[]|/")  # os.environ[..], getSecret(..), a path
_LONG = re.compile(r"[A-Za-z0-9+/_=-]{20,}")
_HASH = re.compile(r"(?:sha\d+[-:]|base64,|[?&#]\w*=|/)$")
_URL = re.compile(r"://[^\s:@?]*$")  # the path of a link
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_MAX_PIECE = 2.75  # mean length of the pieces of a drawn string: 1.9 for letters and digits, over 3.5 in camelCase
_MAX_PIECE_OF_PASSWORD = 4.0
_SIGN_INSIDE = re.compile(r"\w[?!@#$%^&*+~]+\S*\w")  # no word of a sentence has one


def entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits per character. 32 drawn letters and digits have about 4.5."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def _piece_length(value: str) -> float:
    """Mean length of what camelCase would call words."""
    return len(value) / max(1, len(_PIECE.findall(value)))


def _drawn(value: str, min_entropy: float) -> bool:
    """Whether small letters, capitals and digits alternate as only chance (or base64) makes them."""
    mixed = re.search(r"[a-z]", value) and re.search(r"[A-Z]", value) and re.search(r"\d", value)
    return bool(mixed) and _piece_length(value) <= _MAX_PIECE and entropy(value) >= min_entropy


def _assigned(match: re.Match[str]) -> tuple[int, int] | None:
    """The span of the value, unless it is code that fetches one, a mere number or a word."""
    group = "quoted" if match["quoted"] else "bare"
    value = match[group]
    if group == "bare":
        value = value.rstrip(".)}]")
        if _REFERENCE.match(value):
            return None
    elif _TEMPLATE.match(value):
        return None
    password = match["name"].lower().startswith(_PASSWORD_WORDS)
    has_letter, has_digit = any(map(str.isalpha, value)), any(map(str.isdigit, value))
    drawn = group == "quoted" and _piece_length(value) < _MAX_PIECE_OF_PASSWORD
    telling = has_digit or (password and (drawn or bool(_SIGN_INSIDE.search(value))))
    if not telling or not (has_letter or password) or len(value) < (6 if password else 12):
        return None
    if not password and (value.count(".") + value.count("/") > 2 or entropy(value) < 3.0):
        return None
    return match.start(group), match.start(group) + len(value)


def find_secrets(scan: Scan, min_length: int, min_entropy: float) -> Iterator[Found]:
    """Keys of a known form, values assigned to a telling name, and drawn strings of `min_length` characters."""
    text = scan.text
    spans: list[tuple[int, int]] = []
    for hint, form in _FORM.items():
        if hint in text:
            spans += [match.span() for match in form.finditer(text)]
    if "://" in text:
        spans += [match.span(1) for match in _LOGIN.finditer(text) if not _TEMPLATE.match(match[1])]
    if scan.has(b"bearer", b"basic"):
        spans += [match.span(1) for match in _BEARER.finditer(text)]
    for at in scan.places(*_NAMES):
        match = _ASSIGNED.match(text, at)
        if match and (match["name"].lower() != "key" or _KEY.search(text[max(0, at - 8) : at])):
            spans += [span] if (span := _assigned(match)) else []
    if max(map(len, text.split()), default=0) >= min_length:
        for match in _LONG.finditer(text):
            value = match[0]
            if (
                len(value) >= min_length
                and _drawn(value, min_entropy)
                and not _HASH.search(text[max(0, match.start() - 12) : match.start()])
                and not _URL.search(text[max(0, match.start() - 80) : match.start()])
            ):
                spans.append(match.span())
    for start, end in spans:
        if "EXAMPLE" not in text[start:end]:  # AKIAIOSFODNN7EXAMPLE: every manual has it
            yield Found(start, end, "secret", text[start:end])
