"""Reading files: each bad row is named by file and row with its reason, and nothing is skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.data import sources
from avocado.data.example import Example, parse
from avocado.data.rejection import InvalidRow, Rejection
from avocado.errors import Refused

GOOD = {
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
}


def read(path: Path, **settings: Any) -> list[Example | Rejection]:
    return [item for file in sources.find([path]) for item in sources.read(file, **settings)]


def row(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def user(content: Any = "a", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def assistant(content: Any = "b", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def call(name: str = "f", arguments: Any = "{}") -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "arguments": arguments}}]


TOOL = {"role": "tool", "content": "ok"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1], "must be a JSON object"),
        ({"prompt": "a", "completion": "b"}, "it has no messages (it has: completion, prompt)"),
        (row(), "at least a user and an assistant turn"),
        (row(user(), assistant(), score=1), "unknown key 'score'"),
        (row(user(), assistant(refusal="x")), "unknown key 'refusal' (in message 2"),
        ({"messages": ["a", "b"]}, "message 1 must be an object"),
        (row({"role": "human", "content": "a"}, assistant()), "message 1 has the role 'human'"),
        (row(user(), assistant("  ")), "message 2 (assistant) is empty"),
        (row(user(""), assistant()), "message 1 (user) is empty"),
        (row(user(3), assistant()), "content must be a text or a list"),
        (row(user([{"type": "image_url"}]), assistant()), "a part of type 'image_url'"),
        (row(user()), "no assistant turn"),
        (row(user(), assistant(), user()), "it ends with a user turn"),
        (row(assistant(), user(), assistant()), "the first turn must be the user's"),
        (
            row(user(), {"role": "system", "content": "s"}, assistant()),
            "a system message may only come first",
        ),
        (row(user(), TOOL, assistant()), "must follow the assistant's tool call"),
        (row(user(), assistant("", tool_calls=call()), assistant()), "followed by the tool's"),
        (row(user(tool_calls=call()), assistant()), "only an assistant calls tools"),
        (row(user(), assistant("", tool_calls=call(arguments=1))), "must be JSON text or an obj"),
        (row(user(), assistant("", tool_calls=[{}])), "needs function.name"),
        (row(user(), assistant(weight=0)), "every assistant turn has weight 0"),
        (row(user(), assistant(weight=0.5)), "weight must be 0 or 1"),
        (row(user(reasoning_content="x"), assistant()), "only an assistant has reasoning"),
        (row(user(), assistant(), tools=[{"name": "f"}]), "tools must be a list of"),
        (row(user(), assistant(), language=3), "language must be a text"),
        (row(user(), assistant(), license=" "), "license must be a text"),
    ],
)
def test_fault_41_a_bad_row_says_why(value: Any, said: str) -> None:
    with pytest.raises(InvalidRow) as caught:
        parse(value, file="a.jsonl", row=1)
    assert said in str(caught.value)


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
    monkeypatch.setattr(sources, "MAX_ROW_BYTES", 200)
    good = json.dumps(GOOD)
    (tmp_path / "a.jsonl").write_text(f"{good}\n{'x' * 1000}\n{good}\n")
    first, second, third = read(tmp_path / "a.jsonl")
    assert isinstance(second, Rejection)
    assert (second.row, second.reason) == (2, "row too long")
    assert isinstance(first, Example)
    assert isinstance(third, Example)
    assert third.row == 3


@pytest.mark.parametrize("content", ["", "\n \n\n"])
def test_fault_41_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(Refused, match="is empty: it needs one JSON object a line"):
        sources.find([path])


def test_missing_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no data file or folder"):
        sources.find([tmp_path / "no.jsonl"])
    with pytest.raises(Refused, match=r"has no \*.jsonl file"):
        sources.find([tmp_path])
    with pytest.raises(Refused, match="no data is named"):
        sources.find([])


def test_a_folder_is_read_by_name_and_namesakes_are_told_apart(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a.jsonl", "c/x.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(GOOD))
    (tmp_path / "notes.txt").write_text("no data")
    assert [file.name for file in sources.find([tmp_path])] == ["a.jsonl", "b/x.jsonl", "c/x.jsonl"]
    apart = sources.find([tmp_path / "b/x.jsonl", tmp_path / "c/x.jsonl"])
    assert [file.name for file in apart] == ["x.jsonl", "x.jsonl (2)"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from("messages role content tools tool_calls function name".split()), inner
        )
    ),
    max_leaves=12,
)


def example_or_reason(value: Any) -> Example | str:
    try:
        return parse(value, file="a", row=1)
    except InvalidRow as error:
        return str(error)


@given(value=json_values)
def test_any_json_is_an_example_or_a_reason(value: Any) -> None:
    assert example_or_reason(value)


@given(messages=st.lists(json_values, max_size=4))
def test_any_messages_are_an_example_or_a_reason(messages: list[Any]) -> None:
    assert example_or_reason({"messages": messages})
