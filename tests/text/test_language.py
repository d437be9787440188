import socket

import pytest
from datatrove.data import Document as Row

from lib.params import clean
from lib.text.language import Language, detect

TEXTS = {
    "en": "The boiler on the third floor is inspected twice a year, and the report is kept for ten years.",
    "de": "Der Kessel im dritten Stock wird zweimal im Jahr geprüft, und der Bericht wird zehn Jahre aufbewahrt.",
    "fr": "La chaudière du troisième étage est contrôlée deux fois par an, et le rapport est conservé dix ans.",
    "ru": "Котёл на третьем этаже проверяют два раза в год, а отчёт хранят десять лет.",
    "ja": "三階のボイラーは年に二回点検され、報告書は十年間保管されます。",
}


@pytest.mark.parametrize("language", TEXTS)
def test_languages_are_told_apart_without_a_network(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("tried the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found, score = detect(TEXTS[language] + "\n" + TEXTS[language])
    assert found == language
    assert 0.5 < score <= 1.0001


def test_the_step_drops_what_is_not_allowed_and_counts_all() -> None:
    step = Language(clean.LanguageRules(allow=["en", "de"], min_score=0.5))
    reasons = {language: step.apply(Row(text=text, id=language)) for language, text in TEXTS.items()}
    assert reasons == {"en": None, "de": None, "fr": "language", "ru": "language", "ja": "language"}
    assert step.languages == dict.fromkeys(TEXTS, 1)


def test_the_score_alone_can_be_asked_for() -> None:
    unclear = Row(text="x1 y2 z3 === foo_bar(baz) 0x7f", id="1")
    _, score = detect(unclear.text)
    rules = [clean.LanguageRules(allow=None, min_score=limit) for limit in (score - 0.01, score + 0.01)]
    assert [Language(rule).apply(unclear) for rule in rules] == [None, "language_min_score"]
