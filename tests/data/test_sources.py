"""Reading files: each bad row is named by file and row with its reason, and nothing is skipped."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from avocado.data import lines
from avocado.data.example import Example
from avocado.data.intake import Intake
from avocado.data.record import Record
from avocado.data.rejection import Rejection
from avocado.data.sources import Source, find
from avocado.errors import Refused

GOOD = {
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
}


def read(path: Path, **settings: Any) -> list[Record | Rejection]:
    return list(Intake([Source(path, **settings)], Example))


def row(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def user(content: Any = "a", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def assistant(content: Any = "b", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def call(name: str = "f", arguments: Any = "{}") -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "arguments": arguments}}]


TOOL = {"role": "tool", "content": "ok"}


def test_a_good_row_keeps_what_it_says(tmp_path: Path) -> None:
    value = row(
        {"role": "system", "content": "s"},
        user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        assistant(None, tool_calls=call("f", {"x": 1})),
        TOOL,
        assistant(reasoning_content="because"),
        tools=[{"type": "function", "function": {"name": "f"}}],
        language="de",
        license="CC-BY-4.0",
        source="letters",
    )
    (tmp_path / "a.jsonl").write_text(json.dumps(value) + "\n")
    (example,) = read(tmp_path / "a.jsonl", licence="MIT")
    assert isinstance(example, Example)
    assert (example.language, example.licence, example.source) == ("de", "CC-BY-4.0", "letters")
    assert (example.file, example.row) == ("a.jsonl", 1)
    assert example.user_texts == ("ab",)
    assert Example.from_json(json.loads(json.dumps(example.to_json()))) == example


def test_what_a_row_leaves_out_is_said_to_be_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD))
    (unlabelled,) = read(tmp_path / "a.jsonl")
    (labelled,) = read(tmp_path / "a.jsonl", licence="MIT")
    assert isinstance(unlabelled, Example)
    assert isinstance(labelled, Example)
    assert (unlabelled.language, unlabelled.licence) == ("und", "unknown")
    assert (unlabelled.source, labelled.licence) == ("a.jsonl", "MIT")


def test_fault_41_bad_bytes_and_bad_json_name_their_row(tmp_path: Path) -> None:
    good = json.dumps(GOOD).encode()
    deep = b"[" * 100_000
    lines = [good, b'{"messages": "\xff"}', b"not json", b"", deep, b'["\\ud800"]', b"NaN", good]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    found = read(tmp_path / "a.jsonl")
    bad = [item for item in found if isinstance(item, Rejection)]
    assert [item.row for item in bad] == [2, 3, 5, 6, 7]
    assert [item.reason for item in bad] == ["not UTF-8", *["not JSON"] * 4]
    assert str(bad[0]) == "a.jsonl, row 2: byte 15 is not valid UTF-8"
    assert [item.row for item in found if isinstance(item, Example)] == [1, 8]


def test_fault_41_an_endless_row_is_rejected_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_ROW_BYTES", 200)
    good = json.dumps(GOOD)
    (tmp_path / "a.jsonl").write_text(f"{good}\n{'x' * 1000}\n{good}\n")
    first, second, third = read(tmp_path / "a.jsonl")
    assert isinstance(second, Rejection)
    assert (second.row, second.reason) == (2, "row too long")
    assert isinstance(first, Example)
    assert isinstance(third, Example)
    assert third.row == 3


def names(*paths: Path, split: str = "train") -> list[str]:
    return [file.name for file in find([Source(path, split=split) for path in paths]).files]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.gz"])
@pytest.mark.parametrize("content", ["", "\n \n\n"])
def test_fault_41_an_empty_file_is_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if ".gz" in name else content.encode())
    with pytest.raises(Refused, match=rf"{name} is empty: it needs at least one row"):
        Intake([Source(path)])


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet"])
def test_fault_41_a_file_of_no_rows_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("[]" if name == "a.json" else "prompt,completion\n")
    if name == "a.parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(Refused, match="is empty: it needs at least one row"):
        Intake([Source(path)])


def test_missing_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no data file or folder"):
        names(tmp_path / "no.jsonl")
    with pytest.raises(Refused, match=r"has no data file \(\*\.jsonl, "):
        names(tmp_path)
    with pytest.raises(Refused, match="no data is named"):
        names()
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(Refused, match="does not end in a format that is read"):
        names(tmp_path / "a.xlsx")


def test_a_folder_is_read_by_name_and_namesakes_are_told_apart(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a.jsonl", "c/x.jsonl", ".hidden/y.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(GOOD))
    (tmp_path / "notes.txt").write_text("no data")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    found = find([Source(tmp_path)])
    assert [file.name for file in found.files] == ["a.jsonl", "b/x.jsonl", "c/x.jsonl"]
    assert found.left_out == (
        "gone.jsonl: a link to a folder or to nothing",
        "loop: a link to a folder or to nothing",
        "notes.txt: no data format",
    )
    assert names(tmp_path / "b/x.jsonl", tmp_path / "c/x.jsonl") == ["x.jsonl", "x.jsonl (2)"]


def test_the_order_in_which_a_folder_lists_its_files_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.jsonl", "a/z.jsonl", "a.jsonl", "é.jsonl", "A.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(GOOD))
    straight = names(tmp_path)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listed(self), reverse=True))
    assert names(tmp_path) == straight == ["A.jsonl", "a.jsonl", "a/z.jsonl", "b.jsonl", "é.jsonl"]


def test_a_folder_gives_the_split_that_is_wanted_and_says_what_it_left_out(tmp_path: Path) -> None:
    shards = [f"{split}-00000-of-00001.jsonl" for split in ("train", "test", "train_sft")]
    for name in (*shards, "more.jsonl", "dev/x.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(GOOD))
    assert names(tmp_path) == ["more.jsonl", shards[0]]
    assert names(tmp_path, split="train_sft") == ["more.jsonl", shards[2]]
    assert names(tmp_path, split="validation") == ["dev/x.jsonl", "more.jsonl"]
    assert find([Source(tmp_path)]).left_out == (
        "dev/x.jsonl: of the split 'validation'",
        f"{shards[1]}: of the split 'test'",
        f"{shards[2]}: of the split 'train_sft'",
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my-test.jsonl").write_text(json.dumps(GOOD))
    with pytest.raises(Refused, match=r"no file of the split 'train', but of 'test' \(my-test"):
        names(tmp_path / "other")
