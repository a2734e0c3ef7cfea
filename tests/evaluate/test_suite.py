"""A suite is read strictly, compared fairly and hashed by content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.evaluate.suite import Comparison, Item, Suite, SuiteError

ROW: dict[str, Any] = {
    "id": "a",
    "language": "de",
    "messages": [{"role": "user", "content": "3 € am 1. Mai"}],
    "answer": '{"amount": 3}',
}


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "dates.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_it_reads_items_in_order_and_writes_them_back(tmp_path: Path) -> None:
    suite = Suite.read(write(tmp_path, ROW, {**ROW, "id": "b", "language": "zh"}))
    assert (suite.name, suite.comparison, suite.languages) == ("dates", "json", ("de", "zh"))
    assert suite.items[0].messages[0]["content"] == "3 € am 1. Mai"
    again = Suite.read(suite.write(tmp_path))
    assert (again, again.sha256) == (suite, suite.sha256)
    assert suite.facts()["items"] == {"de": 1, "zh": 1}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: not a JSON object"),
        ("", "line 2: not JSON"),
        ('{"id": "a", "id": "b"}', "a key stands twice"),
        (json.dumps({**ROW, "id": "b", "note": 1}), "unknown key 'note'"),
        (json.dumps({k: v for k, v in ROW.items() if k != "answer"}), "no 'answer'"),
        (json.dumps(ROW), "the id 'a' is that of line 1 too"),
        (json.dumps({**ROW, "id": 7}), "'id' must be text"),
        (json.dumps({**ROW, "id": "b", "answer": " "}), "'answer' must be text and not empty"),
        (json.dumps({**ROW, "id": "b", "messages": []}), "'messages' must be a list"),
        (json.dumps({**ROW, "id": "b", "messages": [{"role": "x"}]}), "message 1 needs a role"),
        (json.dumps({**ROW, "id": "b", "messages": [{"role": "user"}]}), "needs a content"),
        (
            json.dumps({**ROW, "id": "b", "messages": [{"role": "assistant", "content": "x"}]}),
            "the last message must be the user's",
        ),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, bad: str, says: str) -> None:
    with pytest.raises(SuiteError, match=r"dates\.jsonl, line 2: ") as caught:
        Suite.read(write(tmp_path, ROW, bad, {**ROW, "id": "c"}))
    assert says in str(caught.value)


def test_an_empty_a_missing_and_a_binary_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="is empty"):
        Suite.read(write(tmp_path))
    with pytest.raises(SuiteError, match="No such file"):
        Suite.read(tmp_path / "none.jsonl")
    (tmp_path / "dates.jsonl").write_bytes(b"{}\n\xff\n")
    with pytest.raises(SuiteError, match="line 2: not UTF-8"):
        Suite.read(tmp_path / "dates.jsonl")


def test_json_is_the_default_only_where_every_answer_is_a_structure(tmp_path: Path) -> None:
    assert Suite.read(write(tmp_path, ROW, {**ROW, "id": "b", "answer": "7"})).comparison == "exact"
    assert Suite.read(write(tmp_path, ROW), comparison="exact").comparison == "exact"


def suite(comparison: Comparison) -> Suite:
    return Suite("s", (Item("a", "en", ({"role": "user", "content": "?"},), "x"),), comparison)


@pytest.mark.parametrize(
    ("output", "answer", "same"),
    [
        ('{"b":2,"a":1.0}', '{"a": 1, "b": 2}', True),
        ('  {"a": 1}\n', '{"a":1}', True),
        ('{"a": true}', '{"a": 1}', False),
        ('{"a": "1"}', '{"a": 1}', False),
        ('{"a": 1} ok', '{"a": 1}', False),
        ('{"a": 1, "a": 1}', '{"a": 1}', False),
        ("[1, 2]", "[2, 1]", False),
        ('{"a": NaN}', '{"a": NaN}', True),  # the same text is right whatever it means
        ("{'a': 1}", '{"a": 1}', False),
        ('{"a": 0.1}', '{"a": 0.10000000000000001}', False),
        ("[" * 100_000, "[]", False),
        ("1" * 5000, "[]", False),
        ('{"a": 1e99999999999999999999}', '{"a": 1}', False),
        ("", "[]", False),
    ],
)
def test_json_compares_values(output: str, answer: str, same: bool) -> None:
    assert suite("json").is_right(output, answer) is same
    assert suite("exact").is_right(output, answer) is (output.strip() == answer.strip())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(values, values)
def test_json_comparison_is_equality_of_values(left: Any, right: Any) -> None:
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert suite("json").is_right(json.dumps(left, indent=2), json.dumps(right)) is same


def test_the_hash_follows_what_is_asked(tmp_path: Path) -> None:
    first = Suite.read(write(tmp_path, ROW))
    hashes = {first.sha256, Suite(first.name, first.items, "exact").sha256}
    for change in ({"id": "z"}, {"language": "en"}, {"answer": "{}"}):
        hashes.add(Suite.read(write(tmp_path, {**ROW, **change})).sha256)
    assert len(hashes) == 5
    assert Suite("other name", first.items, "json").sha256 == first.sha256
