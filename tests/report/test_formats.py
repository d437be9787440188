from lib.report import formats
from lib.report.formats import SPACE


def plain(text: str) -> str:
    return text.replace(SPACE, " ")


def test_units_change_where_they_should() -> None:
    assert [plain(formats.duration(seconds)) for seconds in (0.04, 59.94, 59.97, 60, 3599.6, 3600)] == [
        "0.0 s", "59.9 s", "1 min 00 s", "1 min 00 s", "1 h 00 min", "1 h 00 min",
    ]  # fmt: skip
    assert [plain(formats.compact(value)) for value in (0, 999, 1000, 5_310_000, 999_999, 3e9)] == [
        "0", "999", "1 k", "5.31 M", "1 M", "3 B",
    ]  # fmt: skip
    assert [plain(formats.size(value)) for value in (0, 999, 1500, 3_900_000, 999_999_999)] == [
        "0 B", "999 B", "1.5 kB", "3.9 MB", "1 GB",
    ]  # fmt: skip


def test_estimates_show_their_error_or_that_it_is_unknown() -> None:
    assert plain(formats.estimate({"value": 1.7344, "stderr": 0.0119})) == "1.734 ± 0.012"
    assert plain(formats.estimate({"value": 0.3419, "stderr": 0.0388}, as_percent=True)) == "34.2 ± 3.9%"
    assert plain(formats.estimate({"value": 1.7344, "stderr": None})) == "1.734 ± ?"
    assert formats.estimate({"value": None, "stderr": None}) == formats.NONE


def test_unreadable_energy_is_not_zero() -> None:
    assert formats.energy(None) == formats.NONE
    assert plain(formats.energy(0.0)) == "0.00 Wh"
    assert plain(formats.energy(7200.0)) == "2.00 Wh"
