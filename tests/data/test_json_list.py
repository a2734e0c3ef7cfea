"""JSON files are read element by element: whatever the chunks, the rows are what JSON says."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avocado.data import json_list, lines
from avocado.data.rejection import Rejection
from avocado.errors import Refused

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
rows = st.lists(st.dictionaries(st.text(max_size=4), values, max_size=3), min_size=1, max_size=6)


def read(path: Path) -> list[Any]:
    return list(json_list.rows(path, path.name))


def decoded(path: Path) -> list[Any]:
    found = read(path)
    assert [each[0] for each in found] == list(range(1, len(found) + 1))
    return [each[1] for each in found]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=rows,
    indent=st.sampled_from([None, 0, 2]),
    chunk=st.integers(1, 40),
    ascii_only=st.booleans(),
    wrapped=st.booleans(),
)
def test_any_list_is_read_as_json_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[Any],
    indent: int | None,
    chunk: int,
    ascii_only: bool,
    wrapped: bool,
) -> None:
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    whole: Any = {"v": {"x": [1, {"y": "]}"}]}, "n": -1.5, "data": rows, "e": None}
    whole = whole if wrapped else rows
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole, indent=indent, ensure_ascii=ascii_only), "utf-8")
    assert decoded(path) == rows


def test_a_file_of_json_lines_may_be_called_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert [each[:2] for each in read(path)] == [(1, {"a": 1}), (3, {"a": 2})]
    path.write_text('{"text": "only one"}')
    assert decoded(path) == [{"text": "only one"}]


def test_a_packed_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf [{"a": 1}] \n'))
    assert decoded(path) == [{"a": 1}]


def test_fault_41_a_bad_row_does_not_hide_those_after_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": 1}, {"a": oops}, {"a": "\xff"}, {"a": "\\ud800"}, [1}, {"a": 2}]')
    found = read(path)
    assert [each for each in found if not isinstance(each, Rejection)] == [
        (1, {"a": 1}),
        (6, {"a": 2}),
    ]
    assert [(each.row, each.reason) for each in found if isinstance(each, Rejection)] == [
        (2, "not JSON"),
        (3, "not UTF-8"),
        (4, "not JSON"),
        (5, "not JSON"),
    ]


@pytest.mark.parametrize(
    ("text", "row", "said"),
    [
        ('[{"a": 1}', 2, "the file ends inside the list"),
        ('[{"a": 1}, {"a": [', 2, "the file ends inside a row"),
        ('[{"a": 1}, {"a": "x', 2, "the file ends inside a row"),
        ('[{"a": 1} {"a": 2}]', 2, "a comma is missing before it"),
        ('[{"a": 1}] [1]', 2, "something follows after the list's end"),
        ('[{"a": 1}, }', 2, "a value is missing"),
    ],
)
def test_fault_41_where_a_list_breaks_is_said(
    tmp_path: Path, text: str, row: int, said: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    first, broken = read(path)
    assert first == (1, {"a": 1})
    assert isinstance(broken, Rejection)
    assert (broken.row, broken.detail) == (row, f"{said}; nothing from there on can be read")


def test_fault_41_an_endless_row_is_rejected_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_ROW_BYTES", 100)
    monkeypatch.setattr(json_list, "CHUNK", 16)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": 1}, {"a": "x" * 200}]))
    _, rejected = read(path)
    assert (rejected.row, rejected.reason) == (2, "row too long")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": [1], "b": [2]}', "holds two lists, 'a' and 'b'"),
        ('{"a": {"b": 1}}', "holds no list of rows"),
        ('{\n"messages": [{"role": "user"}]}', "is one row, not a list of rows"),
        ('{"data": [{"a": 1}]', "the file ends inside an object"),
        ('{"data" [{"a": 1}]}', "a colon is missing after 'data'"),
        ("hello", "is no JSON: it begins with 'h'"),
    ],
)
def test_fault_41_a_file_without_one_list_of_rows_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(Refused) as caught:
        read(path)
    assert said in str(caught.value)
