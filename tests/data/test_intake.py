"""Intake: shapes are detected from many rows, and every row is a record or a reason."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.intake import Intake, lines
from avocado.data.preference import Preference
from avocado.data.problem import Problem
from avocado.data.record import RecordType
from avocado.data.rejection import Rejection
from avocado.data.sources import Source
from avocado.errors import Refused

TALK = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
ALPACA = {"instruction": "a", "output": "b"}
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def told(intake: Intake) -> list[str]:
    return lines({"files": intake.facts(), "left_out": intake.left_out})


def rejections(intake: Intake) -> list[str]:
    return [str(each) for each in intake if isinstance(each, Rejection)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_a_file_is_read_by_how_its_name_ends(tmp_path: Path, name: str) -> None:
    rows = [TALK, TALK]
    text = (
        json.dumps(rows)
        if ".json" in name and ".jsonl" not in name
        else "".join(json.dumps(row) + "\n" for row in rows)
    )
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    intake = Intake([Source(tmp_path / name)])
    assert intake.kind is Example
    assert [each.row for each in intake] == [1, 2]


def test_tables_and_a_folder_of_mixed_files_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", TALK)
    (tmp_path / "b.csv").write_text("instruction,output\n1,2\n")
    (tmp_path / "c.tsv").write_text("prompt\tcompletion\n1\t2\n")
    pq.write_table(pa.Table.from_pylist([TALK]), tmp_path / "d.parquet")
    intake = Intake([Source(tmp_path)])
    assert [type(each) for each in intake] == [Example] * 4
    assert [each["shape"] for each in intake.facts()] == [
        *("messages", "alpaca", "completion", "messages"),
    ]
    assert told(intake) == [
        "a.jsonl: 1 row, OpenAI messages",
        "b.csv: 1 row, Alpaca",
        "c.tsv: 1 row, prompt and completion",
        "d.parquet: 1 row, OpenAI messages",
    ]


def test_fault_41_a_file_of_two_shapes_names_both_rows(tmp_path: Path) -> None:
    intake = Intake([Source(write(tmp_path / "a.jsonl", TALK, TALK, ALPACA))])
    assert rejections(intake) == [
        "a.jsonl, row 3: it is of the shape 'Alpaca', and row 1 of 'OpenAI messages': "
        "a file has one shape"
    ]


def test_the_shape_is_that_of_most_rows_not_of_the_first(tmp_path: Path) -> None:
    intake = Intake([Source(write(tmp_path / "a.jsonl", 3, ALPACA, TALK, TALK))])
    assert rejections(intake) == [
        "a.jsonl, row 1: a row must be a JSON object, such as one with messages",
        "a.jsonl, row 2: it is of the shape 'Alpaca', and row 3 of 'OpenAI messages': "
        "a file has one shape",
    ]


def test_fault_41_a_wrong_column_says_what_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "a", "response": "b"})
    (said,) = rejections(Intake([Source(path)], Example))
    assert said == (
        "a.jsonl, row 1: its columns are of no known shape (question, response); "
        "what can be read: OpenAI messages, ShareGPT, Alpaca, prompt and completion"
    )
    (said,) = rejections(Intake([Source(path)]))
    assert "preference pairs" in said
    assert "raw text" in said


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        (
            Preference,
            TALK,
            "cannot be read as preference pairs: row 1 is of the shape 'OpenAI mess",
        ),
        (
            Example,
            PAIR,
            "cannot be read as conversations: row 1 is of the shape 'preference pairs'",
        ),
        (Document, TALK, "cannot be read as raw text"),
        (Problem, {"text": "a"}, "cannot be read as prompts: row 1 is of the shape 'raw text'"),
    ],
)
def test_data_that_cannot_serve_the_method_is_refused(
    tmp_path: Path, kind: RecordType, row: Any, said: str
) -> None:
    with pytest.raises(Refused) as caught:
        Intake([Source(write(tmp_path / "a.jsonl", row))], kind)
    assert said in str(caught.value)


def test_without_a_method_all_files_must_be_of_one_kind(tmp_path: Path) -> None:
    texts = write(tmp_path / "t.jsonl", {"text": "a"})
    with pytest.raises(Refused, match=r"t\.jsonl cannot be read as conversations"):
        Intake([Source(write(tmp_path / "a.jsonl", TALK)), Source(texts)])


def test_a_shape_that_is_named_is_not_detected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**TALK, **ALPACA})
    (found,) = Intake([Source(path, shape="alpaca")])
    assert isinstance(found, Example)
    assert len(found.messages) == 2
    with pytest.raises(Refused, match=r"no shape is called 'llama' \(known: preference, "):
        Intake([Source(path, shape="llama")])
    with pytest.raises(Refused, match="cannot be read as preference pairs"):
        Intake([Source(path, shape="alpaca")], Preference)
    (said,) = rejections(Intake([Source(path, shape="sharegpt")], Example))
    assert "and row 1 of 'ShareGPT'" in said


def test_fault_41_columns_that_nothing_reads_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**TALK, "score": 1, "id": 7}, {**TALK, "tool": []})
    intake = Intake([Source(path)])
    assert not rejections(intake)
    assert intake.facts()[0]["unused"] == {"score": 1, "tool": 1}
    assert told(intake)[1:] == [
        "  the column 'score' of 1 row is not used",
        "  the column 'tool' of 1 row is not used",
    ]


def test_the_column_that_groups_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**TALK, "customer": 1})
    intake = Intake([Source(path, group="customer")])
    assert [each.group for each in intake if isinstance(each, Example)] == ["1"]
    assert "unused" not in intake.facts()[0]


def test_fault_41_what_cannot_be_unpacked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_text("hello")
    with pytest.raises(Refused, match=r"a\.jsonl\.gz cannot be unpacked"):
        Intake([Source(path)])
    packed = gzip.compress("".join(json.dumps(TALK) + "\n" for _ in range(9000)).encode())
    path.write_bytes(packed[:-20])
    with pytest.raises(Refused, match=r"a\.jsonl\.gz cannot be unpacked"):
        list(Intake([Source(path)]))


@pytest.mark.parametrize(
    "name", ["a.jsonl", pytest.param("a.json", marks=pytest.mark.slow), "a.csv", "a.jsonl.gz"]
)
def test_a_file_is_never_in_memory(tmp_path: Path, name: str) -> None:
    rows = 30_000
    text = json.dumps({"prompt": "p" * 300, "completion": "c" * 300}) + "\n"
    if name == "a.csv":
        text = f"{'p' * 300},{'c' * 300}\n"
    begin = {"a.csv": "prompt,completion\n", "a.json": "["}.get(name, "")
    body = text * rows if name != "a.json" else ",".join([text] * rows) + "]"
    data = (begin + body).encode()
    (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    del body
    tracemalloc.start()
    try:
        assert sum(isinstance(each, Example) for each in Intake([Source(tmp_path / name)])) == rows
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20
    assert len(data) > 18_000_000
