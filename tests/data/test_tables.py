"""CSV, TSV and Parquet: cells become columns, and what is no table says where it is none."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avocado.data import lines, tables
from avocado.data.rejection import Rejection
from avocado.errors import Refused


def read(path: Path, delimiter: str = ",") -> list[Any]:
    return list(tables.delimited(path, path.name, delimiter))


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(cells, cells), max_size=5),
    delimiter=st.sampled_from([",", "\t"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_table_was_written_with_is_read(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, end: str
) -> None:
    written = io.StringIO()
    writer = csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerows([("a", "b"), *rows])
    path = tmp_path / "a.csv"
    path.write_bytes(written.getvalue().encode())
    assert read(path, delimiter) == [
        (number, {name: cell for name, cell in zip("ab", row, strict=True) if cell})
        for number, row in enumerate(rows, 1)
    ]


def test_a_packed_table_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf\na,b\r\n1,\r\n\r\n2,3"))
    assert read(path) == [(1, {"a": "1"}), (2, {"a": "2", "b": "3"})]


def test_fault_41_bad_bytes_and_ragged_rows_name_their_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,\xff\n1,2,3\n1\nx,y\n")
    bad, more, less, good = read(path)
    assert str(bad) == "a.csv, row 1: b is not valid UTF-8"
    assert str(more) == "a.csv, row 2: it has 3 cells where the first line names 2 columns"
    assert str(less) == "a.csv, row 3: it has 1 cells where the first line names 2 columns"
    assert good == (4, {"a": "x", "b": "y"})


def test_fault_41_a_quote_that_never_closes_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n"3,4\n' + "5,6\n" * 50)
    _, rejected = read(path)
    assert rejected.row == 2
    assert rejected.detail.endswith("nothing from there on can be read")
    monkeypatch.setattr(lines, "MAX_ROW_BYTES", 20)
    _, rejected = read(path)
    assert "field larger than field limit" in rejected.detail
    path.write_text("a,b\n1,2\n" + "x" * 50)
    _, rejected = read(path)
    assert rejected.detail.startswith("line 3 is longer than")


@pytest.mark.parametrize(
    ("header", "said"),
    [("a,a", "names the column 'a' twice"), ("a,", "'' is no name"), ("a,\x01", "is no name")],
)
def test_fault_41_a_table_without_a_header_is_refused(
    tmp_path: Path, header: str, said: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n1,2\n")
    with pytest.raises(Refused, match=said):
        read(path)


def parquet(path: Path) -> list[Any]:
    return list(tables.parquet(path, path.name))


def test_parquet_gives_rows_as_json_would(tmp_path: Path) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    written = [
        {"messages": [{"role": "user", "content": "a", "name": None}], "n": 1, "when": when},
        {"messages": [{"role": "user", "content": "b", "name": "x"}], "n": None, "when": when},
    ] * 100
    pq.write_table(pa.Table.from_pylist(written), tmp_path / "a.parquet", row_group_size=70)
    found = parquet(tmp_path / "a.parquet")
    assert [number for number, _ in found] == list(range(1, 201))
    assert found[0][1] == {
        "messages": [{"role": "user", "content": "a"}],
        "n": 1,
        "when": "2026-01-02T00:00:00+00:00",
    }
    assert found[1][1]["messages"] == [{"role": "user", "content": "b", "name": "x"}]
    assert "n" not in found[1][1]


def test_fault_41_bad_bytes_in_parquet_name_their_row(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"\xff", b"fine"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    first, bad, last = parquet(tmp_path / "a.parquet")
    assert (first, last) == ((1, {"text": "good"}), (3, {"text": "fine"}))
    assert isinstance(bad, Rejection)
    assert (bad.row, bad.reason) == (2, "not UTF-8")


@pytest.mark.parametrize("content", [b"", b"hello", b"PAR1" + b"x" * 100 + b"PAR1"])
def test_fault_41_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(Refused, match=r"a\.parquet (is no Parquet file|cannot be read)"):
        parquet(tmp_path / "a.parquet")


def test_fault_41_parquet_damaged_inside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {n}" * 20 for n in range(2000)]}), path)
    data = bytearray(path.read_bytes())
    data[100:2000] = b"\xee" * 1900
    path.write_bytes(data)
    with pytest.raises(Refused, match=r"a\.parquet (is no Parquet file|cannot be read)"):
        parquet(path)
