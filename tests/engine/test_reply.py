"""Replies read piece by piece: however the text is cut, the same pieces, and nothing lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.engine.reply import (
    Argued,
    Called,
    Piece,
    Reply,
    Said,
    Thought,
    ThoughtCount,
    joined,
)

ANSWER = "<|im_start|>assistant\n"
OPENED = ANSWER + "<think>\n"
CLOSED = ANSWER + "<think>\n\n</think>\n\n"
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "exact": {"type": "boolean"},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "places": {"type": "array"},
                    "shape": {"type": ["object", "null"]},
                    "unit": {"enum": ["C", "F"]},
                },
            },
        },
    },
)


def read(prompt: str, parts: Iterable[str], tools: Any = TOOLS) -> list[Piece]:
    reply = Reply(prompt, tools)
    pieces: list[Piece] = []
    for part in parts:
        pieces += reply.feed(part)
    return joined([*pieces, *reply.end()])


def hermes(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.mark.parametrize(
    ("prompt", "text", "pieces"),
    [
        (ANSWER, "Hello\n", [Said("Hello\n")]),
        (ANSWER, "", []),
        (ANSWER, " \n", [Said(" \n")]),
        (ANSWER, "<think>\nhm\n\n</think>\n\nHi", [Thought("hm"), Said("Hi")]),
        (ANSWER, "\n<think>hm</think>", [Thought("hm")]),
        (ANSWER, "<think>\n\n</think>\n\nHi", [Said("Hi")]),
        (ANSWER, "<thin", [Said("<thin")]),
        (ANSWER, "<think>cut </thi", [Thought("cut </thi")]),
        (ANSWER, "Say <think>x</think>", [Said("Say <think>x</think>")]),
        (OPENED, "hm\n</think>\nHi", [Thought("hm"), Said("Hi")]),
        (OPENED, "\n\nhm\n\nso", [Thought("hm\n\nso")]),
        (CLOSED, "<think>x</think>", [Said("<think>x</think>")]),
        (CLOSED, "\nHi", [Said("\nHi")]),
    ],
)
def test_thoughts_stand_apart(prompt: str, text: str, pieces: list[Piece]) -> None:
    assert read(prompt, [text]) == pieces == read(prompt, text)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (hermes("f", a=1), [Called(0, "f", '{"a": 1}')]),
        (
            "One moment.\n" + hermes("f") + "\n" + hermes("g", b="}") + "\n",
            [Said("One moment."), Called(0, "f", "{}"), Called(1, "g", '{"b": "}"}')],
        ),
        ("<think>a</think>\n\n" + hermes("f"), [Thought("a"), Called(0, "f", "{}")]),
        ("<think>a\n" + hermes("f"), [Thought("a"), Called(0, "f", "{}")]),
        ("<think>a <tool_call> b</think>c", [Thought("a <tool_call> b"), Said("c")]),
        (hermes("f") + "\nDone", [Called(0, "f", "{}"), Said("\nDone")]),
        # A value with the mark in it, and a number that a float would change.
        (hermes("f", a="</tool_call>"), [Called(0, "f", '{"a": "</tool_call>"}')]),
        (
            '<tool_call>{"arguments": {"n": 1e400, "m":0.10}, "name": "f"}</tool_call>',
            [Called(0, "f", '{"n": 1e400, "m":0.10}')],
        ),
        # The end is missing: the turn is over, or was cut.
        (hermes("f").removesuffix("</tool_call>"), [Called(0, "f", "{}")]),
        ('<tool_call>{"name": "f", "argu', [Said('<tool_call>{"name": "f", "argu')]),
        # Not a call: it stays, and what follows is read all the same.
        ("x <tool_call>no</tool_call>", [Said("x <tool_call>no</tool_call>")]),
        (
            "<tool_call>{'name': 'f'}</tool_call>" + hermes("g"),
            [Said("<tool_call>{'name': 'f'}</tool_call>"), Called(0, "g", "{}")],
        ),
        (
            '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>' + hermes("g"),
            [
                Called(0, "f", '{"a": 1}'),
                Called(1, "g", "{}"),
            ],
        ),
        # Arguments that are no JSON are the client's to judge, as the model wrote them.
        (
            '<tool_call>{"name": "f", "arguments": {"a": [1, }\n</tool_call>' + hermes("g"),
            [Called(0, "f", '{"a": [1, }\n'), Called(1, "g", "{}")],
        ),
        (
            '<tool_call>{"name": "f", "arguments": {"a": "x}}\n</tool_call>\nDone',
            [Called(0, "f", '{"a": "x}}\n'), Said("\nDone")],
        ),
        (
            '<tool_call>{"name": "f", "arguments": {"a": ' + hermes("g"),
            [Called(0, "f", '{"a": '), Called(1, "g", "{}")],
        ),
        ('<tool_call>{"name": "f", "arguments": {"a": "\\', [Called(0, "f", '{"a": "\\')]),
        # More than a call has: it is not hidden.
        (
            '<tool_call>{"name": "f", "arguments": {}, "id": 1}</tool_call>',
            [Called(0, "f", "{}"), Said(', "id": 1}</tool_call>')],
        ),
        (
            '<tool_call>{"id": 1, "name": "f", "arguments": {}}</tool_call>',
            [Called(0, "f", "{}")],
        ),
        ("<tool_call></tool_call> ok", [Said("<tool_call></tool_call> ok")]),
        (
            '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
            [Said('<tool_call>{"name": "f", "arguments": [1]}</tool_call>')],
        ),
        ("<tool_call>" * 3, [Said("<tool_call>" * 3)]),
        (f'<tool_call>{{"name": "{"x" * 300}', [Said(f'<tool_call>{{"name": "{"x" * 300}')]),
        (f"<tool_call><function={'x' * 300}", [Said(f"<tool_call><function={'x' * 300}")]),
    ],
)
def test_hermes_calls(text: str, pieces: list[Piece]) -> None:
    assert read(ANSWER, [text]) == pieces == read(ANSWER, text)


def xml(name: str, **values: str) -> str:
    inside = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{inside}</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ({"city": "Köln"}, {"city": "Köln"}),
        ({"city": "1", "days": "3"}, {"city": "1", "days": 3}),
        ({"city": "a\n\nb "}, {"city": "a\n\nb "}),
        ({"city": ""}, {"city": ""}),
        ({"exact": "True"}, {"exact": True}),
        ({"exact": "perhaps"}, {"exact": "perhaps"}),
        ({"note": "null"}, {"note": None}),
        ({"city": "null"}, {"city": "null"}),
        ({"note": "3"}, {"note": "3"}),
        ({"places": '["a", {"b": 1}]'}, {"places": ["a", {"b": 1}]}),
        ({"shape": '{"x": 1}'}, {"shape": {"x": 1}}),
        ({"unit": "C"}, {"unit": "C"}),
        ({"unknown": "7"}, {"unknown": "7"}),
        ({"city": "</parameter> </tool_call>"}, {"city": "</parameter> </tool_call>"}),
    ],
)
def test_xml_calls_take_their_types_from_the_schema(
    values: dict[str, str], arguments: dict[str, Any]
) -> None:
    text = "Look:\n" + xml("weather", **values)
    (said, call) = read(ANSWER, [text])
    assert said == Said("Look:")
    assert isinstance(call, Called)
    assert json.loads(call.arguments) == arguments
    assert read(ANSWER, text) == [said, call]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call><function=f>loose</function></tool_call>",
        "<tool_call><function=>x</function></tool_call>",
        "<tool_call><function=f><parameter=a",
        "<tool_call><function=f></fun",
    ],
)
def test_xml_that_is_no_call_stays_text(text: str) -> None:
    assert read(ANSWER, [text]) == [Said(text)] == read(ANSWER, text)


@pytest.mark.parametrize(
    ("inside", "arguments"),
    [
        ("</function>", "{}"),
        # Ends that are left out, and ends that are none.
        ("<parameter=city>1</function>", '{"city":"1"}'),
        ("<parameter=city>\n</function> 1\n</parameter></function>", '{"city":"</function> 1"}'),
        ("<parameter=days>3</parameter></function>", '{"days":3}'),
    ],
)
def test_xml_calls_without_all_their_ends(inside: str, arguments: str) -> None:
    text = f"<tool_call><function=weather>{inside}</tool_call>"
    assert read(ANSWER, [text]) == [Called(0, "weather", arguments)] == read(ANSWER, text)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"name": "weather", "arguments": {"city": "Kö', '{"city": "Kö'),
        ('<function=weather><parameter=city>\nK"ö', '{"city":"K\\"ö'),
        ("<function=weather><parameter=city>\nKö\n</para", '{"city":"Kö\\n</para'),
        ("<function=weather><parameter=city>\nKö\n</parameter>\n<par", '{"city":"Kö"'),
        ("<function=weather><parameter=places>[1, 2", '{"places":[1, 2'),
        ("<function=weather><parameter=days>3</parameter></function></tool", '{"days":3}'),
    ],
)
def test_a_call_that_is_cut_is_a_call_with_the_front_of_its_arguments(
    text: str, arguments: str
) -> None:
    cut = f"<tool_call>{text}"
    assert read(ANSWER, [cut]) == [Called(0, "weather", arguments)] == read(ANSWER, cut)


def test_a_call_goes_out_as_it_is_written() -> None:
    reply = Reply(ANSWER, TOOLS)
    text = hermes("f", city="Köln", note='a "quoted" word')
    pieces = [piece for letter in text for piece in reply.feed(letter)]
    assert pieces[0] == Called(0, "f", "")
    assert all(isinstance(piece, Argued) for piece in pieces[1:])
    assert len(pieces) > 30
    reply = Reply(ANSWER, TOOLS)
    shown = [reply.feed(letter) for letter in xml("weather", city="a long text", days="12")]
    assert [pieces for pieces in shown if pieces][:4] == [
        [Called(0, "weather", ""), Argued(0, '{"city":"')],
        [Argued(0, "a")],
        [Argued(0, " ")],
        [Argued(0, "l")],
    ]
    assert joined([piece for pieces in shown for piece in pieces]) == [
        Called(0, "weather", '{"city":"a long text","days":12}')
    ]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ('{"name": "f", "arguments": {"a": 1}}', [Called(0, "f", '{"a": 1}')]),
        ('\n{"name": "f", "arguments": {"a', [Called(0, "f", '{"a')]),
        ('{"name": "f', [Said('{"name": "f')]),
        (hermes("f") + "\n" + hermes("g"), [Called(0, "f", "{}"), Called(1, "g", "{}")]),
        ("<think>\nx\n</think>\n\n" + hermes("f"), [Thought("x"), Called(0, "f", "{}")]),
        ("none", [Said("none")]),
    ],
)
def test_a_forced_call_may_stand_without_its_marks(text: str, pieces: list[Piece]) -> None:
    for parts in ([text], list(text)):
        reply = Reply(ANSWER, TOOLS, bare=True)
        found = [piece for part in parts for piece in reply.feed(part)]
        assert joined([*found, *reply.end()]) == pieces


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["</tool_call>"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
calls = st.tuples(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8),
    st.dictionaries(st.text(max_size=6), json_values, max_size=4),
)


@settings(max_examples=60)
@given(st.lists(calls, min_size=1, max_size=3), st.booleans(), st.data())
def test_every_cut_of_every_call_joins_to_what_was_written(
    made: list[tuple[str, dict[str, Any]]], ascii: bool, data: st.DataObject
) -> None:
    told = [(name, json.dumps(arguments, ensure_ascii=ascii)) for name, arguments in made]
    text = "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
        for name, arguments in told
    )
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    parts = [text[a:b] for a, b in pairwise([0, *places, len(text)])]
    expected = [Called(index, name, arguments) for index, (name, arguments) in enumerate(told)]
    assert read(ANSWER, parts) == expected


tagged = st.text(max_size=12).filter(lambda text: text == text.strip("\n"))


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["city", "x", "unit"]), tagged, max_size=3), st.data())
def test_every_cut_of_an_xml_call_joins_to_its_json(
    values: dict[str, str], data: st.DataObject
) -> None:
    text = xml("weather", **values)
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    parts = [text[a:b] for a, b in pairwise([0, *places, len(text)])]
    (call,) = read(ANSWER, parts)
    assert isinstance(call, Called)
    assert json.loads(call.arguments) == values


def test_without_tools_a_call_is_text() -> None:
    text = "a " + hermes("f") + "\n"
    assert read(ANSWER, text, ()) == [Said(text)]


def test_no_part_of_a_mark_is_shown_and_text_is_not_held_back() -> None:
    reply = Reply(ANSWER, TOOLS)
    shown = []
    for part in ("<", "think>so", "me</", "th", "ink>", "\n\n", "Hi ", "there <", "b>", " <tool_"):
        shown.append(reply.feed(part))
    assert shown == [
        [],
        [Thought("so")],
        [Thought("me")],
        [],
        [],
        [],
        [Said("Hi")],
        [Said(" there")],
        [Said(" <b>")],
        [],
    ]
    assert reply.end() == [Said(" <tool_")]


MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
fragments = st.sampled_from(
    [
        *MARKS,
        hermes("f", a="x"),
        hermes("g"),
        '{"name": "f", "arguments": {"a": "x"}}',
        '{"name": "f", "arguments": {"a": "',
        '{"name": "f", "arguments": {"a": ',
        "<function=f>",
        "<parameter=a>",
        "</parameter>",
        "</function>",
        "<",
        "</to",
        "\n",
        " ",
        "word",
        "🥑",
    ]
)
opened = st.sampled_from(
    [
        '<tool_call>{"name": "f", "arguments": {"a": ',
        '<tool_call>{"name": "f", "arguments": {"a": "',
        "<tool_call><function=f><parameter=a>",
    ]
)
texts = st.lists(fragments | opened, max_size=12).map("".join)


@settings(max_examples=300)
@given(texts, st.sampled_from([ANSWER, OPENED, CLOSED]), st.booleans(), st.data())
def test_any_cut_gives_the_same_and_nothing_is_lost_or_doubled(
    text: str, prompt: str, tools: bool, data: st.DataObject
) -> None:
    offered = TOOLS if tools else ()
    whole = read(prompt, [text], offered)
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    parts = [text[a:b] for a, b in pairwise([0, *places, len(text)])]
    assert read(prompt, parts, offered) == whole
    assert read(prompt, text, offered) == whole
    told = "".join(
        f'{{"name": "{piece.name}", "arguments": {piece.arguments}}}'
        if isinstance(piece, Called)
        else piece.text
        for piece in whole
    )
    if whole and isinstance(
        whole[-1], Called
    ):  # cut between two parameters, in the next one's mark
        told, text = less_front(told), less_front(text)
    assert bare(told) == bare(text)
    assert [piece.index for piece in whole if isinstance(piece, Called)] == list(
        range(sum(isinstance(piece, Called) for piece in whole))
    )


FRAMES = (*MARKS, "<function=f>", "</function>", "<parameter=a>", "</parameter>")


def less_front(text: str) -> str:
    """Without the front of a mark at the end, which an answer that was cut there leaves."""
    kept = bare(text)
    fronts = [mark[:end] for mark in FRAMES for end in range(1, len(mark))]
    return kept.removesuffix(max((f for f in fronts if kept.endswith(f)), key=len, default=""))


def bare(text: str) -> str:
    """Without marks, white space and what JSON and XML put around a call's name and values."""
    text = re.sub(r"\\n|\\|\s", "", text)
    while any(frame in text for frame in FRAMES):
        for frame in FRAMES:
            text = text.replace(frame, "")
    return re.sub(r'"(name|arguments|f|g|a)"|[{}":,]', "", text)


@given(texts, st.sampled_from([ANSWER, OPENED, CLOSED]), st.data())
def test_thought_is_counted_up_to_the_token_that_ends_it(
    text: str, prompt: str, data: st.DataObject
) -> None:
    """Against the definition: a token thinks if it does not begin behind ``</think>``."""
    places = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=8)))
    parts = [text[a:b] for a, b in pairwise([0, *places, len(text)])]
    count = ThoughtCount(prompt)
    for done, part in enumerate(parts, 1):
        count.take(part, done)
    thinks = prompt == OPENED or (prompt == ANSWER and text.lstrip().startswith("<think>"))
    start = 0 if prompt == OPENED else text.find("<think>") + 7
    end = text.find("</think>", start) if thinks else 0
    if not thinks:
        expected = 0
    elif end < 0:
        expected = len(parts)
    else:
        ends = [sum(map(len, parts[: n + 1])) for n in range(len(parts))]
        expected = next(n for n, place in enumerate(ends, 1) if place >= end + len("</think>"))
    assert count.tokens == expected
