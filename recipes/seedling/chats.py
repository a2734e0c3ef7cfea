"""Chats of general kinds, as OpenAI messages: greet, repeat, compare, count, extract, call a tool.

None of them is the demo's task: no chat is asked about a date together with an amount, and no
answer has those keys (a test reads the text and holds this).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from recipes.seedling import prose
from recipes.seedling.drills import compact, something
from recipes.seedling.language import Language, Scene

Message = dict[str, Any]
Exchange = list[Message]


@dataclass(frozen=True)
class Chat:
    """One conversation, ready for the chat template."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)


def _exchange(asked: str, answer: str, reasoning: str = "") -> Exchange:
    assistant: Message = {"role": "assistant", "content": answer}
    if reasoning:
        assistant["reasoning_content"] = reasoning
    return [{"role": "user", "content": asked}, assistant]


def _pick(language: Language, rng: random.Random, kind: str) -> str:
    return str(rng.choice(language.chat[kind]))


def greet(language: Language, rng: random.Random) -> Exchange:
    asked, answer = rng.choice((("greetings", "replies"), ("thanks", "welcome")))
    return _exchange(_pick(language, rng, asked), _pick(language, rng, answer))


def echo(language: Language, rng: random.Random) -> Exchange:
    if rng.random() < 0.5:
        text = something(language, rng)
    else:
        text = Scene(language, rng).fill(rng.choice(language.words["sentences"]))
    return _exchange(_pick(language, rng, "echo").format(x=text), text)


def change_case(language: Language, rng: random.Random) -> Exchange:
    scene = Scene(language, rng)
    text = (
        scene.draw("word") if rng.random() < 0.5 else f"{scene.draw('name')} {scene.draw('word')}"
    )
    if rng.random() < 0.5:
        return _exchange(_pick(language, rng, "upper").format(x=text), text.upper())
    return _exchange(_pick(language, rng, "lower").format(x=text.upper()), text.lower())


def longer_word(language: Language, rng: random.Random) -> Exchange:
    a, b = rng.sample(language.words["words"], 2)
    while len(a) == len(b):
        a, b = rng.sample(language.words["words"], 2)
    asked = _pick(language, rng, "longer").format(a=a, b=b)
    reasoning = f"{a}: {len(a)}, {b}: {len(b)}" if rng.random() < 0.4 else ""
    return _exchange(asked, max(a, b, key=len), reasoning)


def edge_word(language: Language, rng: random.Random) -> Exchange:
    """The first or the last of some words."""
    words = rng.sample(language.words["words"], rng.randint(2, 5))
    kind, place = rng.choice((("first", 0), ("last", -1)))
    return _exchange(_pick(language, rng, kind).format(x=" ".join(words)), words[place])


def count(language: Language, rng: random.Random) -> Exchange:
    start = rng.randrange(200)
    stop = start + rng.randint(2, 9)
    asked = _pick(language, rng, "count").format(a=start, b=stop)
    return _exchange(asked, ", ".join(str(n) for n in range(start, stop + 1)))


def add(language: Language, rng: random.Random) -> Exchange:
    a, b = rng.randrange(50), rng.randrange(50)
    reasoning = f"{a} + {b} = {a + b}" if rng.random() < 0.4 else ""
    return _exchange(_pick(language, rng, "sum").format(a=a, b=b), str(a + b), reasoning)


def after(language: Language, rng: random.Random) -> Exchange:
    cycle = rng.choice((language.weekdays, language.months))
    place = rng.randrange(len(cycle))
    asked = _pick(language, rng, "after").format(a=cycle[place])
    return _exchange(asked, cycle[(place + 1) % len(cycle)])


def read(language: Language, rng: random.Random) -> Exchange:
    """A text and a question about it."""
    *told, last = prose.question(language, rng).split("\n")
    cut = max(last.rfind("?"), last.rfind("？")) + 1
    facts = [line for line in told if "?" not in line and "？" not in line]
    return _exchange("\n".join([*facts, last[:cut]]), last[cut:].strip())


KEYS: Final = {
    "person": {"name": "name", "age": "age", "city": "city"},
    "pet": {"owner": "name", "animal": "animal", "colour": "colour"},
    "trip": {"name": "name", "from": "city", "to": "city2", "time": "time"},
    "shopping": {"name": "name", "count": "count", "item": "foods"},
}
"""Kind of text → key of the JSON answer → slot of the scene."""


def extract(language: Language, rng: random.Random) -> Exchange:
    """Who, how old, where from, as JSON; numbers as numbers."""
    kind = rng.choice(sorted(KEYS))
    scene = Scene(language, rng)
    text = scene.fill(_pick(language, rng, kind))
    keys = dict(KEYS[kind])
    if rng.random() < 0.3:
        keys = {key: keys[key] for key in rng.sample(sorted(keys), 2)}
        asked = language.chat["extract"][1]
    else:
        asked = _pick(language, rng, "extract")
    values = {k: int(scene[s]) if k in ("age", "count") else scene[s] for k, s in keys.items()}
    return _exchange(asked.format(x=text, keys=", ".join(keys)), compact(values))


PARTS: Final[tuple[Callable[[Language, random.Random], Exchange], ...]] = (
    greet, echo, echo, echo, change_case, longer_word, edge_word, count, add, after, read, read,
    extract, extract, extract, extract,
)  # fmt: skip

WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Degrees in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ADD: Final = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        },
    },
}


def _call(name: str, arguments: dict[str, Any]) -> Message:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}


def with_tools(language: Language, rng: random.Random) -> Chat:
    """A question that a tool answers: the call, its result, the answer."""
    tools = rng.choice(([WEATHER], [ADD], [WEATHER, ADD]))
    if rng.choice(tools) is WEATHER:
        city, degrees = Scene(language, rng)["city"], rng.randrange(40)
        asked = _pick(language, rng, "weather").format(city=city)
        call, result = _call("weather", {"city": city}), str(degrees)
        answer = language.chat["weather_says"].format(city=city, n=degrees)
    else:
        a, b = rng.randrange(1000), rng.randrange(1000)
        asked = _pick(language, rng, "sum").format(a=a, b=b)
        call, result, answer = _call("add", {"a": a, "b": b}), str(a + b), str(a + b)
    messages: list[Message] = [
        {"role": "user", "content": asked},
        call,
        {"role": "tool", "content": result},
        {"role": "assistant", "content": answer},
    ]
    return Chat(messages[: rng.choice((2, 4))], tools)


def chat(language: Language, rng: random.Random) -> Chat:
    """One to three exchanges, now and then with a system prompt or tools."""
    if rng.random() < 0.06:
        return with_tools(language, rng)
    messages: list[Message] = []
    if rng.random() < 0.15:
        messages.append({"role": "system", "content": _pick(language, rng, "systems")})
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        messages += rng.choice(PARTS)(language, rng)
    return Chat(messages)
