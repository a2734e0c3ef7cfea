"""A suite is read strictly, compared fairly and hashed by content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avocado.evaluate.graders import Choice, Exact, JsonFields, JsonValue, Judge
from avocado.evaluate.suite import Suite, SuiteError

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
    assert (suite.name, suite.grade, suite.languages) == ("dates", JsonValue(), ("de", "zh"))
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
    mixed = Suite.read(write(tmp_path, ROW, {**ROW, "id": "b", "answer": "7"}))
    assert mixed.grade == Exact()
    assert Suite.read(write(tmp_path, ROW), Exact()).grade == Exact()


def test_items_carry_clusters_choices_and_fields(tmp_path: Path) -> None:
    row = {**ROW, "answer": "b", "choices": ["a", "b"], "cluster": "page 3", "fields": {"k": 1}}
    suite = Suite.read(write(tmp_path, row), Choice(), role="guard", name="g", max_tokens=9)
    (item,) = suite.items
    assert (item.cluster, item.choices, item.fields) == ("page 3", ("a", "b"), {"k": 1})
    assert (suite.name, suite.role, suite.max_tokens, suite.metric) == ("g", "guard", 9, "acc_norm")
    assert Suite.read(suite.write(tmp_path), Choice()).items == suite.items


def test_a_judge_needs_no_answer_and_other_grades_do(tmp_path: Path) -> None:
    bare = write(tmp_path, {k: v for k, v in ROW.items() if k != "answer"})
    assert Suite.read(bare, Judge(url="http://127.0.0.1:1/v1", model="j")).items[0].answer == ""
    with pytest.raises(SuiteError, match="line 1: no 'answer'"):
        Suite.read(bare, Exact())


def test_the_hash_follows_what_is_asked(tmp_path: Path) -> None:
    first = Suite.read(write(tmp_path, ROW))
    hashes = {first.sha256, Suite(first.name, first.items, Exact()).sha256}
    for change in (
        {"id": "z"},
        {"language": "en"},
        {"answer": "{}"},
        {"cluster": "c"},
        {"fields": {"a": 1}},
    ):
        hashes.add(Suite.read(write(tmp_path, {**ROW, **change})).sha256)
    hashes.add(replace(first, max_tokens=7).sha256)
    hashes.add(replace(first, thinking=True).sha256)
    hashes.add(replace(first, grade=JsonFields()).sha256)
    assert len(hashes) == 10
    assert Suite("other name", first.items, JsonValue(), "guard").sha256 == first.sha256
