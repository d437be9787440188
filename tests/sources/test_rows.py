from __future__ import annotations

import bz2
import datetime
import decimal
import gc
import gzip
import io
import json
import lzma
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.sources import rows

ROWS = [{"text": 'Käse\nund "mehr"', "n": number, "nested": [{"a": [1.5, None]}]} for number in range(5)]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def read(content: bytes, name: str, columns: set[str] | None = None) -> list[Any]:
    return [record.reason or record.value for record in rows.read(io.BytesIO(content), name, columns)]


@pytest.mark.parametrize(
    ("extension", "compress"),
    [("", bytes), (".gz", gzip.compress), (".zst", zstd), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
@pytest.mark.parametrize("form", ["lines", "array", "csv"])
def test_text_formats_and_compressions(form: str, extension: str, compress: Any) -> None:
    if form == "csv":
        content = "text,n\n" + "".join(f'"Käse\nund ""mehr""",{number}\n' for number in range(5))
        expected = [{"text": row["text"], "n": str(row["n"])} for row in ROWS]
    else:
        content = "\n".join(map(json.dumps, ROWS)) if form == "lines" else json.dumps(ROWS, indent=1)
        expected = ROWS
    name = {"lines": "x.jsonl", "array": "x.json", "csv": "d/X.CSV"}[form] + extension
    assert read(compress(content.encode()), name) == expected
    assert read(compress(b"\xef\xbb\xbf" + content.encode()), name) == expected


def test_two_gzip_members_are_one_file() -> None:
    assert read(gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n'), "x.jsonl.gz") == [{"a": 1}, {"a": 2}]


def test_parquet_gives_what_is_json(tmp_path: Any) -> None:
    table = [
        {"when": datetime.datetime(2024, 1, 2), "d": decimal.Decimal("1.50"), "b": [b"ab\xff"], "t": "x", "none": None}
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table * 1500), stream, row_group_size=700)
    found = read(stream.getvalue(), "x.parquet")
    assert len(found) == 1500
    assert json.loads(json.dumps(found[0])) == {
        "when": "2024-01-02 00:00:00", "d": "1.50", "b": ["ab�"], "t": "x", "none": None,
    }  # fmt: skip
    assert read(stream.getvalue(), "x.parquet", {"t"})[0] == {"t": "x"}
    with pytest.raises(KeyError) as error:
        read(stream.getvalue(), "x.parquet", {"t", "u"})
    assert error.value.args[0] == ["when", "d", "b", "t", "none"]


def test_a_long_array_is_read_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_CHUNK", 7)
    values = [{"text": "a" * size, "n": [size, -1.5e3, True, None]} for size in range(60)]
    for content in (json.dumps(values), json.dumps(values, indent=2), " [\n]", json.dumps([12345678901, 2, "x"])):
        assert read(content.encode(), "x.json") == json.loads(content)


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl", "x.json.gz", "x.jsonl.zst", "x.csv"])
def test_the_stream_stays_open(name: str) -> None:
    stream = io.BytesIO(gzip.compress(b"[1]") if name.endswith("gz") else zstd(b"1") if name.endswith("zst") else b"a")
    if name == "x.parquet":
        pq.write_table(pa.table({"a": [1]}), stream)
    stream.seek(0)
    list(rows.read(stream, name, None))
    gc.collect()
    assert not stream.closed


def test_what_is_broken_keeps_its_place_and_reason() -> None:
    found = list(rows.read(io.BytesIO(b'{"a": 1}\n\n{"a"\n\xff\n{"a": "\\ud800"}\n7\n'), "x.jsonl", None))
    assert [(one.number, one.reason) for one in found] == [
        (1, None), (3, "broken_json"), (4, "not_utf8"), (5, "broken_unicode"), (6, None),
    ]  # fmt: skip
    assert read(b'[{"a": "\\ud83d"}, {"a": "\\ud83d\\ude00"}]', "x.json") == ["broken_unicode", {"a": "😀"}]
    assert read(b'a,b\n1,2\n1\n1,2,3\n"x"y,2\n3,4\n', "x.csv") == [
        {"a": "1", "b": "2"}, "wrong_number_of_fields", "wrong_number_of_fields", "broken_csv", {"a": "3", "b": "4"},
    ]  # fmt: skip
    assert read(b"a\tb\n1\t2, 3\n", "x.tsv") == [{"a": "1", "b": "2, 3"}]


@pytest.mark.parametrize("name", ["x.parquet", "x.json", "x.jsonl.gz", "x.jsonl.zst", "x.jsonl.xz"])
def test_a_damaged_file_is_one_kind_of_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(b"[garbage that is nothing of the kind", name)
    compress = {"gz": gzip.compress, "zst": zstd, "xz": lzma.compress}.get(name.rpartition(".")[2])
    if compress:
        whole = compress(b"".join(b'{"a": %d}\n' % number for number in range(10000)))
        with pytest.raises(ValueError, match=r"."):
            read(whole[: len(whole) // 2], name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/b.parquet", "parquet"), ("x.JSONL.GZ", "json"), ("x.ndjson", "json"), ("x.json.zst", "json"),
        ("x.csv", "csv"), ("x.tsv.xz", "tsv"), ("x.parquet.gz", None), ("json", None), ("x.gz", None),
        ("README.md", None), ("d.json/x", None),
    ],
)  # fmt: skip
def test_kinds_of_files(name: str, kind: str | None) -> None:
    assert rows.kind(name) == kind
