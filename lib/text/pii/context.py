"""Names by what stands around them: headers, salutations, sign-offs, titles, form fields, addresses, legal forms.

A recogniser for Presidio. The small model was trained on news and talk shows; it does not know what `Assignee:` is, nor
many of the world's names. Mail, tickets and code say in a few fixed ways whose name follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import regex
from presidio_analyzer import EntityRecognizer, RecognizerResult

PRESIDIO = {"person": "PERSON", "place": "LOCATION", "organisation": "ORGANIZATION"}


def _any(words: str, after: str = "") -> str:
    """One of the phrases, which commas separate, in any case: `after` is what stands before them."""
    phrases = sorted((phrase.strip() for phrase in words.replace("\n", " ").split(",")), key=len, reverse=True)
    return rf"(?i:{after}(?:{'|'.join(phrase.replace(' ', '[ _]') for phrase in phrases)}))"


# Jean-Luc, O'Connor, al-Rashid, McDonald; J.; María de la Cruz; Okafor, Ngozi
_WORD = r"(?:(?:d'|D'|O'|O’|al-|el-|Al-|El-|Mc|Mac)?\p{Lu}[\p{Ll}’']+(?:-\p{L}\p{Ll}*)*(?:'\p{Lu}\p{Ll}+)?)"
_PARTICLE = _any(
    "de la, de, da, do, dos, del, della, di, van der, van den, van, von, zu, bin, ibn, al, el, ter, la, le"
)
_PART = rf"(?:{_WORD}|\p{{Lu}}\.)"
_NAME = rf"(?:{_PART}(?: (?:{_PARTICLE} )?{_PART}){{0,3}})"
_FULL = rf"{_WORD}(?: {_WORD}){{1,2}}"
_REVERSED = rf"{_WORD}(?: {_WORD})?, {_WORD}(?: {_WORD})?"
_FIRM_WORD = r"(?:St\.? )?\p{Lu}[\p{L}'’&-]*"
_FIRM = rf"{_FIRM_WORD}(?: (?:& |of |de )?{_FIRM_WORD}){{0,4}}"

_TITLE = (
    r"(?:Mr|Mrs|Ms|Mx|Miss|Dr|Prof|Professor|Doctor|Sir|Madam|Dame|Lady|Lord|Rev|Capt|Herrn?|Frau|Madame|Monsieur|Mme|"
    r"[Ss]eñora?|Sra?|[Ss]ignora?|Sig|Dott)\.?"
)
_GREETING = (
    r"(?:Dear|Hi|Hello|Hey|Hej|Hallo|Ciao|Hola|Bonjour|Salut|Lieber?|Good (?:morning|afternoon|evening)|Chère?|"
    r"Querid[oa]|Estimad[oa]|Car[oa]|Greetings|(?:Many )?[Tt]hanks|Thank you|Sorry)"
)
_FAREWELL = (
    r"(?:(?:(?:With )?(?:Kind|kind|Best|best|Warm|Many|Kindest|Warmest) )?(?:[Rr]egards|[Ww]ishes|[Gg]reetings)|Best|"
    r"Cheers|Thanks(?: again)?|Thank you|Many thanks|Sincerely(?: yours)?|Yours(?: sincerely| faithfully| truly)?|"
    r"Respectfully|Love|All the best|Take care|xx?|"
    r"(?:Mit )?(?:[Ff]reundlichen?|[Vv]iele|[Bb]esten?|[Ll]iebe|[Hh]erzlichen?) Gr(?:ü|ue)(?:ß|ss)en?|MfG|LG|VG|"
    r"(?:Bien )?[Cc]ordialement|Amicalement|(?:Un )?[Ss]aludos?|Atentamente|Un abrazo|Cordiali saluti|"
    r"Distinti saluti|Saluti|Um abraço|Atenciosamente|Abraços|Pozdrawiam)"
)
_NOT_IN_WORD = r"(?<!\p{L})"
_PERSON_FIELD = _any(
    """name, full name, first name, last name, family name, given name, user name, display name, customer name,
    contact name, client name, customer, client, contact, assignee, assigned to, reporter, reported by,
    requested by, requester, owner, author, creator, created by, opened by, closed by, approved by, approver,
    reviewer, maintainer, manager, supervisor, employee, patient, doctor, applicant, candidate, tenant,
    landlord, card ?holder, account holder, account owner, beneficiary, payee, billed to, shipped to, ship to,
    attn, attention, signed by, signed off by, signed-off-by, reported-by, tested-by, acked-by, reviewed-by,
    co-authored-by, suggested-by, cc, bcc, from, to, sender, recipient, reply-to, von, an, de, à, para, comment
    by, next of kin, emergency contact, caller, agent, spokesperson, present, attendees, participants,
    apologies, absent, members, speaker, speakers, chair, host, organi[sz]er""",
    _NOT_IN_WORD,
)
_LIST_FIELD = _any("present, attendees, participants, apologies, absent, members, speakers, invited, cc", _NOT_IN_WORD)
PLACE_FIELD = _any(
    """city, town, place, location, birthplace, place of birth, country, state, county, region, residence, ville,
    ciudad, office, branch, site, venue, destination, origin, departure, arrival, hometown, home town, province,
    ort, wohnort, stadt, geburtsort, land, lieu, lieu de naissance, pays, luogo, luogo di nascita, città, paese,
    país, cidade, lugar, lugar de nacimiento, plaats, woonplaats, miasto, kraj, stad""",
    _NOT_IN_WORD,
)
_FIRM_FIELD = _any(
    """company, employer, organi[sz]ation, org, vendor, supplier, hospital, clinic, school, bank, university, firm,
    institution, merchant, insurer""",
    _NOT_IN_WORD,
)
_BEFORE_PERSON = _any(
    """my name is, i am, i'm, this is, ask, asked, told, invite, invited, met, call, called, named, contact, spoke
    to, spoke with, talked to, met with, signed by, written by, je suis, soy, ich bin, mein name ist, me llamo,
    mi chiamo, je m'appelle, le escribe""",
    r"\b",
)
_KIN = _any(
    """brother, sister, wife, husband, son, daughter, mother, father, friend, colleague, boss, neighbour, cousin,
    uncle, aunt, mari, marido, esposa, esposo, mujer, mann""",
    r"\b",
)
_BEFORE_PLACE = _any(
    """live in, lives in, lived in, living in, vivimos en, vivo en, wohnt in, wohne in, wohnhaft in, geboren in, habite
    à, habitons à, né à, née à, abito a, vivo a, moro em, based in, located in, situated in, resident in,
    residing in, resides in, registered in, office in, offices in, branch in, store in, plant in, factory in,
    warehouse in, hotel in, flat in, house in, clinic in, move from, moved from, moves from, move to, moved to,
    moves to, moving to, relocate to, relocated to, relocating to, travel to, travels to, travelled to,
    traveling to, travelling to, trip to, flight to, flights to, fly to, flies to, flew to, drive to, drove to,
    train to, bus to, back from, back to, returned from, lands in, land in, landed in, arrive in, arrives in,
    arrived in, stay in, staying in, stayed in, born in, grew up in, raised in, met in, conference in, workshop
    in, fair in, sales in, meeting in, meet in, is in, are in, was in, be in, suburb of, suburbs of, north of,
    south of, east of, west of, outskirts of, town of, city of, village of, estaremos en, serai à, sommes à,
    sono a, bin in, sind in""",
    r"\b",
)
_BEFORE_FIRM = _any(
    "work for, work at, works for, works at, worked for, worked at, working for, employed by, joined, job at",
    r"\b",
)
_LEGAL = (
    r"(?:Ltd\.?|Limited|Inc\.?|LLC|LLP|PLC|plc|Corp\.?|Corporation|Company|Co\., Ltd\.?|GmbH(?: & Co\. KG)?|AG|KG|SE|"
    r"SARL|S\.A\.S\.|S\.A\.|SA|"
    r"S\.L\.|S\.p\.A\.|SpA|S\.r\.l\.|Srl|B\.V\.|BV|N\.V\.|AB|A/S|ApS|Oy|AS|Sp\. z o\.o\.|K\.K\.|"
    r"(?:Pvt|Pty)\.? Ltd\.?|d\.o\.o\.|s\.r\.o\.|Kft\.)"
)
_BODY = (
    r"(?:Bank|University|Hospital|Clinic|School|College|Institute|Council|Trust|Group|Association|Foundation|Cooperative|"
    r"Union|Insurance|Centre|Center|Authority|Agency|Ministry|Department|Church|Museum|Partners|Holdings|Industries|"
    r"Logistics|Society|Federation|Airlines|Pharmacy|Brothers|& Sons|Academy)"
)
_WORDS = rf"(?!National Ins){_FIRM_WORD}(?: {_FIRM_WORD}){{0,3}}"
_BODY_FIRST = (
    r"(?:University|Bank|Ministry|Department|Institute|Museum|Church|Banque|Universität|Université|Universidad)"
)
_STREET = r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Court|Square|Boulevard|Blvd|Way|Close|Terrace)"
_IS = r"""["']?\s?[:=]\s?"""
_VALUE_END = r"""(?=["'),;.<\]}]|\s*$|\s[<(|–-]|\sand\b)"""

# type, score, pattern: group x is the name
_RULES = [
    # Jane Doe <jane@..>, "Doe, Jane" <jane@..>, Jane Doe (jane@..); a cell of a table before an address
    ("person", 0.9, rf"(?P<x>{_NAME}|{_REVERSED})[\"']? ?[<(](?:mailto:)?[^\s<>()@]+@"),
    ("person", 0.7, rf"^[^\n,;|\t]*[,;|\t] ?(?P<x>{_NAME})[,;|\t] ?[^\s,;@]+@"),
    # Dear Dr Doe,    Mrs Doe    Best regards,\nJane
    ("person", 0.9, rf"(?:^|(?<=[>.!|] )){_GREETING}(?: and)?[ ,]+(?:{_TITLE} )*(?P<x>{_NAME})(?=\s*[,:!.–-]|\s*$)"),
    ("person", 0.9, rf"\b{_TITLE} (?:{_TITLE} )*(?P<x>{_NAME})"),
    (
        "person",
        0.9,
        rf"^(?:[-–*]\s?)?{_FAREWELL}[,.!]? *\n(?: *\n)?(?:[-–~]+ ?)?(?:(?:i\. ?A\.|i\. ?V\.|p\.p\.) )?(?:{_TITLE} )?"
        rf"(?P<x>{_NAME}) *$",
    ),
    # Assignee: Jane Doe    "name": "Jane Doe"    @author Jane Doe    closed for "Jane Doe"
    ("person", 0.8, rf"{_PERSON_FIELD}{_IS}[\"'(]?(?P<x>{_REVERSED}(?!,? \p{{Lu}})|{_NAME})(?:{_VALUE_END}|(?=,))"),
    ("person", 0.8, rf"(?:@author|TODO\(|TODO:?|FIXME:?|XXX:?) ?(?P<x>{_NAME})(?=[ )])"),
    ("person", 0.7, rf"{_any('for, by, user, of, from, to, customer, client', _NOT_IN_WORD)} [\"'](?P<x>{_FULL})[\"']"),
    # > Jane Doe: said    Jane Doe wrote:    called Jane Doe    my brother John    1. Jane Doe, Leeds:
    ("person", 0.7, rf"^[>|\s]*(?P<x>{_FULL}): "),
    ("person", 0.8, rf"(?:On \p{{L}}+,? )?(?P<x>{_NAME}) (?:wrote|schrieb|a écrit|escribió|ha scritto)\s?:"),
    ("person", 0.8, rf"{_BEFORE_PERSON} (?P<x>{_FULL})"),
    ("person", 0.8, rf"{_KIN}[ ,]+(?P<x>{_NAME})"),
    ("person", 0.7, rf"^\s*(?:[-*•]|\d{{1,2}}[.)])\s(?P<x>{_FULL})(?=[,:(]|\s[(–-]|\s\p{{Ll}})"),
    # City: Leeds    lives in Leeds    moved from Leeds to York    12 Elm Street    Lindenstraße 5
    ("place", 0.8, rf"{PLACE_FIELD}{_IS}[\"']?(?P<x>{_NAME}){_VALUE_END}"),
    ("place", 0.7, rf"{_BEFORE_PLACE} (?P<x>{_WORD}(?: (?:{_PARTICLE} )?{_WORD})?)"),
    ("place", 0.7, rf"\b(?:moved?|moves|flies|drove) from {_WORD}(?: {_WORD})? to (?P<x>{_WORD}(?: {_WORD})?)"),
    ("place", 0.7, rf"\b(?P<x>\d{{1,4}} {_WORD}(?: {_WORD})? {_STREET})\b"),
    ("place", 0.7, rf"\b\d{{1,4}} {_WORD}(?: {_WORD})? {_STREET}\.?,\s(?P<x>{_WORD}(?: {_WORD})?)"),
    ("place", 0.7, rf"^(?:[A-Z]{{1,2}}-)?\d{{4,6}} (?P<x>{_WORD}(?: (?:{_PARTICLE} )?{_WORD})?)\s*$"),
    ("place", 0.7, r"\b(?P<x>\p{Lu}[\p{L}-]*(?:straße|strasse|weg|platz|gasse|allee) \d{1,4}[a-z]?)\b"),
    # Doe GmbH    Doe Bank    University of Leeds    Doe & Roe    Company: Doe    works for Doe
    ("organisation", 0.9, rf"(?P<x>\b{_FIRM_WORD}(?: (?:& )?{_FIRM_WORD}){{0,4}} {_LEGAL})(?!\p{{L}})"),
    ("organisation", 0.8, rf"(?P<x>\b{_WORDS} {_BODY}(?: {_BODY})?)(?!\p{{L}})"),
    ("organisation", 0.8, rf"\b(?P<x>{_BODY_FIRST} (?:of |de |für )?\p{{Lu}}\p{{L}}+(?: \p{{Lu}}\p{{L}}+)?)"),
    ("organisation", 0.8, r"(?P<x>\b\p{Lu}\p{Ll}+ & \p{Lu}\p{Ll}+)(?!\p{L})"),
    ("organisation", 0.7, rf"{_FIRM_FIELD}{_IS}[\"']?(?P<x>{_FIRM})"),
    ("organisation", 0.7, rf"{_BEFORE_FIRM} (?P<x>{_FIRM})"),
    # Present: Jane Doe, John Roe and Ann Poe
    ("person", 0.8, rf"{_LIST_FIELD}: ?(?P<x>{_NAME})(?:(?:, and|,| and|;) (?P<x>{_NAME}))*"),
]  # fmt: skip
_COMPILED = [(kind, score, regex.compile(pattern, regex.MULTILINE)) for kind, score, pattern in _RULES]


class ContextRecognizer(EntityRecognizer):
    """Presidio's interface to the rules; every one has a score of its own."""

    def __init__(self) -> None:
        super().__init__(supported_entities=list(PRESIDIO.values()))

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        return [
            RecognizerResult(PRESIDIO[kind], start, end, score)
            for kind, start, end, score in _matches(text)
            if PRESIDIO[kind] in entities
        ]


def _matches(text: str) -> Iterator[tuple[str, int, int, float]]:
    for kind, score, pattern in _COMPILED:
        for match in pattern.finditer(text):
            for start, end in match.spans("x"):
                yield kind, start, end, score
