"""Shapes: each is told by its columns, reads back what was written, and serves what it can."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.data import shapes
from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.preference import Label, Preference
from avocado.data.problem import Problem
from avocado.data.record import LEARNT_BY, Record, RecordType
from avocado.data.rejection import InvalidRow
from avocado.lineage import canonical

Turns = list[dict[str, Any]]


def read(value: Any, kind: RecordType | None = None, **origin: Any) -> Record:
    row = shapes.columns(value)
    shape = shapes.detect(row, kind)
    assert shape is not None
    return shapes.parse(row, shape, kind or shape.kind, shapes.Origin("a.jsonl", 1, **origin))


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)
names = st.sampled_from(["weather", "time"])


@st.composite
def conversations(draw: st.DrawFn, *, tools: bool = True) -> Turns:
    said = [turn("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        said.append(turn("user", draw(texts)))
        if tools and draw(st.booleans()):
            arguments = draw(st.dictionaries(texts, st.integers() | texts, max_size=2))
            said.append(turn("assistant", "", tool_calls=[call(draw(names), arguments)]))
            said.append(turn("tool", draw(texts)))
        said.append(turn("assistant", draw(texts)))
    return said


def as_sharegpt(said: Turns) -> list[dict[str, str]]:
    speakers = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
    return [
        {"from": "function_call", "value": json.dumps(each["tool_calls"][0]["function"])}
        if each.get("tool_calls")
        else {"from": speakers[each["role"]], "value": each["content"]}
        for each in said
    ]


@given(said=conversations())
def test_openai_and_sharegpt_say_the_same(said: Turns) -> None:
    openai, sharegpt = read({"messages": said}), read({"conversations": as_sharegpt(said)})
    assert isinstance(openai, Example)
    assert list(openai.messages) == said
    assert sharegpt == openai
    assert Example.from_json(json.loads(json.dumps(openai.to_json()))) == openai


@given(said=conversations(tools=False))
def test_alpaca_says_the_same(said: Turns) -> None:
    talk = said[1:] if said[0]["role"] == "system" else said
    pairs = [[talk[at]["content"], talk[at + 1]["content"]] for at in range(0, len(talk), 2)]
    row: dict[str, Any] = {"instruction": pairs[-1][0], "output": pairs[-1][1], "input": ""}
    row |= {"history": pairs[:-1]} if pairs[:-1] else {}
    row |= {"system": said[0]["content"]} if talk is not said else {}
    assert read(row) == read({"messages": said})


def test_alpaca_puts_the_input_below_the_instruction() -> None:
    found = read({"instruction": "Add.", "input": "1 2", "output": "3"})
    assert isinstance(found, Example)
    assert found.messages == (turn("user", "Add.\n1 2"), turn("assistant", "3"))


@given(said=conversations())
def test_prompt_and_completion_say_the_same(said: Turns) -> None:
    assert read({"prompt": said[:-1], "completion": said[-1:]}) == read({"messages": said})


def test_prompt_and_completion_may_be_texts() -> None:
    expected = read({"messages": [turn("user", "a"), turn("assistant", "b")]})
    assert read({"prompt": "a", "completion": "b"}) == expected


@given(said=conversations(), worse=texts)
def test_all_forms_of_a_pair_say_the_same(said: Turns, worse: str) -> None:
    prompt, better, other = said[:-1], said[-1], turn("assistant", worse + "!")
    whole = {"chosen": [*prompt, better], "rejected": [*prompt, other]}
    openai = {
        "input": {"messages": prompt},
        "preferred_output": [better],
        "non_preferred_output": [other],
    }
    if better == other:
        return
    found = read({"prompt": prompt, "chosen": [better], "rejected": [other]})
    assert isinstance(found, Preference)
    assert (list(found.prompt), found.chosen, found.rejected) == (prompt, better, other)
    assert read(whole) == read({**whole, "prompt": prompt}) == read(openai) == found
    assert Preference.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_pair_may_name_its_question_beside_whole_conversations() -> None:
    """As in the binarized UltraFeedback: the prompt is a text, both sides hold it as a turn."""
    sides = {name: [turn("user", "Q?"), turn("assistant", name)] for name in ("chosen", "rejected")}
    assert read({"prompt": "Q?", **sides, "messages": sides["chosen"]}, Preference) == read(sides)
    with pytest.raises(InvalidRow, match="the prompt is not in it"):
        read({"prompt": "another", **sides})


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "better", "worse"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is", "blue.", "green."),
        ("The sky is blue.", "The sky is black.", "The sky is", "blue.", "black."),
        ("天空是蓝色", "天空是绿色", "天空是", "蓝色", "绿色"),
    ],
)
def test_a_pair_of_texts_shares_its_prompt_and_no_word_is_cut(
    chosen: str, rejected: str, prompt: str, better: str, worse: str
) -> None:
    found = read({"chosen": chosen, "rejected": rejected})
    assert isinstance(found, Preference)
    assert found.prompt == (turn("user", prompt),)
    assert (found.chosen["content"], found.rejected["content"]) == (better, worse)


def test_a_pair_of_transcripts_is_read_turn_by_turn() -> None:
    begin = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
    found = read({"chosen": f"{begin} So.", "rejected": f"{begin} No."})
    assert isinstance(found, Preference)
    assert [each["content"] for each in found.prompt] == ["Hi", "Hello", "Why?"]
    assert (found.chosen, found.rejected) == (turn("assistant", "So."), turn("assistant", "No."))


ASKED, GOOD, BAD = turn("user", "a"), turn("assistant", "b"), turn("assistant", "c")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": [BAD]}, "both be texts or both be lists"),
        ({"chosen": "yes", "rejected": "no"}, "begin with nothing in common"),
        (
            {"chosen": [ASKED, GOOD], "rejected": [turn("user", "z"), BAD]},
            "chosen and rejected differ in turn 1: only the last may differ",
        ),
        (
            {"chosen": [ASKED, GOOD, ASKED, GOOD], "rejected": [ASKED, GOOD]},
            "chosen has 4 turns and rejected 2",
        ),
        ({"prompt": [ASKED, GOOD], "chosen": [ASKED], "rejected": [ASKED]}, "prompt is not in it"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "rejected is empty"),
        ({"input": "a", "preferred_output": [GOOD], "non_preferred_output": [BAD]}, "input must"),
        ({"prompt": "a", "completion": "b", "label": "good"}, "label must be true or false"),
        ({"prompt": "a", "completion": "b", "label": 0.5}, "label must be true or false"),
        ({"prompt": [GOOD], "completion": "b", "label": True}, "first turn must be the user's"),
        ({"conversations": []}, "conversations must be a list"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "message 1 is from 'alien'"),
        ({"conversations": [{"from": "human", "text": "x"}]}, "unknown key 'text'"),
        ({"conversations": [{"from": "human", "value": 1}]}, "value must be a text"),
        ({"conversations": [{"from": "function_call", "value": "x"}]}, "must be JSON"),
        ({"conversations": [{"from": "function_call", "value": "[1]"}]}, "object with name"),
        ({"conversations": [{"from": "function_call", "value": "{}"}]}, "needs function.name"),
        ({"instruction": "a", "output": ""}, "output is empty"),
        ({"instruction": "a"}, "no assistant turn"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "history 1 must be an"),
        ({"prompt": 3, "completion": "b"}, "prompt must be a text, not int"),
        ({"prompt": "a", "completion": "b", "image": {"bytes": "x"}}, "it has image: only text"),
        ({"text": " "}, "text is empty"),
        ({"text": ["a"]}, "text must be a text, not list"),
        ({"prompt": [GOOD]}, "the first turn must be the user's"),
        ({"prompt": [ASKED, GOOD]}, "the prompt ends with a assistant turn"),
        ({"prompt": "a", "answer": float("nan")}, "the reference has no form in JSON"),
        ({"prompt": "a", "picture": b"\xff"}, "the column 'picture' has no form in JSON"),
        ({"text": "a", "group": 1.5}, "group must be a text or a whole number"),
    ],
)
def test_fault_41_a_bad_row_of_any_shape_says_why(row: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRow) as caught:
        read(row)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("label", "good"), [(True, True), ("false", False), (1, True), ("0", False)]
)
def test_a_label_says_good_or_bad(label: Any, good: bool) -> None:
    found = read({"prompt": "a", "completion": "b", "label": label})
    assert isinstance(found, Label)
    assert found.desirable is good
    assert Label.from_json(json.loads(json.dumps(found.to_json()))) == found
    if isinstance(label, bool):
        assert read({"messages": [ASKED, GOOD], "label": label}) == found


def test_a_bad_answer_is_never_read_as_an_example() -> None:
    for row in (
        {"prompt": "a", "completion": "b", "label": False},
        {"messages": [ASKED, GOOD], "label": False},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
    ):
        shape = shapes.detect(row, Example)
        assert shape is not None
        assert Example not in shape.readers


def test_raw_text_is_a_document() -> None:
    found = read({"text": " as it is\n", "license": "MIT"})
    assert found == Document(" as it is\n", licence="MIT", source="a.jsonl", file="a.jsonl", row=1)


@given(said=conversations())
def test_a_conversation_serves_as_a_prompt_with_its_last_answer(said: Turns) -> None:
    found = read({"messages": said, "level": 3}, Problem)
    assert isinstance(found, Problem)
    assert list(found.messages) == said[:-1]
    assert found.reference == said[-1]["content"]
    assert found.fields == {"level": 3}
    asked = read({"messages": said[:-1], "level": 3, "answer": said[-1]["content"]}, Problem)
    assert asked == found
    assert read({"prompt": said[:-1], "level": 3, "reference": found.reference}) == found
    assert Problem.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(("answer", "reference"), [("4", "4"), (4, "4"), ({"a": [1]}, '{"a":[1]}')])
def test_a_reference_is_text(answer: Any, reference: str) -> None:
    found = read({"prompt": "2+2?", "answer": answer, "id": 7, "source": "sums"})
    assert isinstance(found, Problem)
    assert (found.reference, found.fields, found.source) == (reference, {"id": 7}, "sums")


def test_a_row_of_two_shapes_is_read_as_the_one_that_serves() -> None:
    sides = {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}
    row = {"prompt": "a", "messages": [ASKED, GOOD], **sides}
    assert isinstance(read(row), Preference)
    assert isinstance(read(row, Example), Example)
    assert isinstance(read(row, Problem), Problem)


def test_every_method_can_be_served() -> None:
    for kind in LEARNT_BY.values():
        assert shapes.serving(kind)


@pytest.mark.parametrize(
    ("row", "column", "group"),
    [
        ({"group": "g"}, None, "g"),
        ({"metadata": {"group": 7}}, None, "7"),
        ({"customer": 12, "group": "g"}, "customer", "12"),
        ({}, None, ""),
    ],
)
def test_a_group_is_a_column_or_metadata(row: Any, column: str | None, group: str) -> None:
    assert read({"text": "a", **row}, group=column).group == group


def test_a_group_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(InvalidRow, match="it has no column 'customer' to be grouped by"):
        read({"text": "a"}, group="customer")


COLUMNS = sorted({column for shape in shapes.SHAPES for column in shape.columns} | shapes.ORIGIN)
KEYS = "role content from value type text tool_calls function name arguments weight group".split()
WORDS = [*"system user assistant tool human gpt function_call observation text image_url".split()]

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 1)
    | st.floats()
    | st.sampled_from(["", "a", *WORDS]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=10,
)


calls = st.fixed_dictionaries(
    {"type": st.just("function")},
    optional={
        "function": st.fixed_dictionaries(
            {"name": st.sampled_from(["f", "g"])}, optional={"arguments": anything}
        ),
        "id": anything,
    },
)
said = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"])},
        optional={
            "content": st.text(min_size=1) | st.lists(st.fixed_dictionaries({"type": anything})),
            "tool_calls": st.lists(calls, max_size=2),
            "weight": anything,
            "name": anything,
        },
    ),
    max_size=5,
)


@settings(max_examples=300)
@given(row=st.dictionaries(st.sampled_from(COLUMNS), anything | said, max_size=5))
def test_any_row_is_a_record_or_a_reason(row: dict[str, Any]) -> None:
    for kind in {None, *LEARNT_BY.values()}:
        columns = shapes.columns(row)
        shape = shapes.detect(columns, kind)
        if shape is None:
            continue
        for each in shape.readers:
            with contextlib.suppress(InvalidRow):
                found = shapes.parse(columns, shape, each, shapes.Origin("a", 1))
                assert len(found.sha256) == 64
                assert canonical(found.to_json())
