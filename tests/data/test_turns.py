"""Rows of OpenAI's form: each bad one says what is wrong and what would be right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.data import shapes
from avocado.data.example import Example
from avocado.data.rejection import InvalidRow


def parse(value: Any) -> Example:
    row = shapes.columns(value)
    found = shapes.parse(row, shapes.BY_NAME["messages"], Example, shapes.Origin("a.jsonl", 1))
    assert isinstance(found, Example)
    return found


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
        (row(), "at least a user and an assistant turn"),
        (row(user(), assistant(), images=["x"]), "it has images: only text is learnt"),
        (row({"role": "system", "content": "s"}), "no assistant turn"),
        (row(user(), assistant(), tools="{"), "tools is a text, but no JSON"),
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
        parse(value)
    assert said in str(caught.value)


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


def example_or_reason(messages: Any) -> Example | str:
    try:
        return parse({"messages": messages})
    except InvalidRow as error:
        return str(error)


@given(messages=json_values.filter(lambda value: value is not None))
def test_anything_as_messages_is_an_example_or_a_reason(messages: Any) -> None:
    assert example_or_reason(messages)


@given(messages=st.lists(json_values, max_size=4))
def test_any_messages_are_an_example_or_a_reason(messages: list[Any]) -> None:
    assert example_or_reason(messages)
