"""The model card, read back by the Hub's own library."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lib.export import model_card
from lib.export.lineage import Lineage


def lineage_of(**licences: tuple[str, bool]) -> Lineage:
    return Lineage(
        {"data": "d"},
        {
            name: {"kind": "folder", "licence": licence, "share_alike": alike, "package": None, "documents": 3}
            for name, (licence, alike) in licences.items()
        },
        {},
    )


MIT, BY_SA_3, BY_SA_4 = ("MIT", False), ("CC-BY-SA-3.0", True), ("CC-BY-SA-4.0", True)
PUBLIC, OWN = ("LicenseRef-PublicDomain", False), ("LicenseRef-Private", False)


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        ([MIT], "mit"),
        ([MIT, PUBLIC], "mit"),
        ([MIT, ("Apache-2.0", False)], "other"),
        ([MIT, PUBLIC, BY_SA_3, BY_SA_4], "cc-by-sa-4.0"),
        ([MIT, BY_SA_3], "cc-by-sa-4.0"),
        ([BY_SA_4, ("GPL-3.0-only", True)], "other"),
        ([MIT, BY_SA_4, OWN], "other"),
        ([("MIT OR Apache-2.0", False)], "other"),
    ],
)
def test_the_licence_follows_from_the_sources(licences: list[tuple[str, bool]], expected: str) -> None:
    assert model_card.licence_id(lineage_of(**{f"s{n}": licence for n, licence in enumerate(licences)})) == expected


def test_share_alike_is_carried_on(tmp_path: Path) -> None:
    model_card.write(tmp_path, "tiny", lineage_of(wiki=BY_SA_4, manual=MIT))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "cc-by-sa-4.0"
    assert "(share-alike): CC-BY-SA-4.0. Pass the model on under those." in card.text
    assert "| wiki | folder | CC-BY-SA-4.0 | 3 |" in card.text


def test_what_is_not_one_licence_is_named(tmp_path: Path) -> None:
    model_card.write(tmp_path, "tiny", lineage_of(own=OWN, manual=MIT))
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "LicenseRef-Private AND MIT")
    assert "None of the texts asks" in card.text


def test_a_base_of_others_is_named(tmp_path: Path) -> None:
    lineage = lineage_of(manual=MIT)
    base = {"kind": "base", "licence": "Apache-2.0", "share_alike": False, "package": "them==1", "documents": None}
    lineage.sources["data/assets/them"] = base
    model_card.write(tmp_path, "tiny", lineage)
    card = ModelCard.load(tmp_path / "README.md")
    assert "adapted from them==1" in card.text
    assert "pretrained from scratch" not in card.text
    assert "| data/assets/them | them==1 | Apache-2.0 | the base |" in card.text
    assert card.data.license == "other"
