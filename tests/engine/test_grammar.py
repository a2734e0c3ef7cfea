"""Whatever the model, a text under a grammar is what the grammar says, unless it is cut short."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from avocado.data.chat import Prompt
from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.engine import (
    Calls,
    EngineError,
    Finish,
    Grammar,
    Json,
    JsonSchema,
    Regex,
    Sampling,
)
from avocado.engine.grammar import LONGEST, GrammarError, check
from avocado.engine.reply import Called, Reply, joined
from avocado.engine.sampler import decide
from tests.engine.conftest import make

Tiny = Callable[[str], Path]


def schema(draw: random.Random, depth: int = 3) -> dict[str, Any]:
    """A random schema of the kinds that people send."""
    names = draw.sample(["a", "naïve", "c d", "e_f"], draw.randint(1, 3))
    kinds: list[Callable[[], dict[str, Any]]] = [
        lambda: {"type": "boolean"},
        lambda: {
            "type": "integer",
            "minimum": draw.randint(-9, 9),
            "maximum": draw.randint(9, 999),
        },
        lambda: {"enum": draw.sample(["red", "groß", 1, None, 'a"b', 2.5], 3)},
        lambda: {"type": "string", "maxLength": draw.randint(0, 12)},
        lambda: {"type": "string", "pattern": draw.choice(["^[a-f]{2,6}$", "^\\d{4}-\\d{2}$"])},
        lambda: {"const": draw.choice(["x", 7, True])},
        lambda: {"type": ["string", "null"], "maxLength": 5},
    ]
    if depth:
        nested: list[Callable[[], dict[str, Any]]] = [
            lambda: {
                "type": "array",
                "items": schema(draw, depth - 1),
                "minItems": draw.randint(0, 2),
                "maxItems": draw.randint(2, 3),
            },
            lambda: {
                "type": "object",
                "properties": {name: schema(draw, depth - 1) for name in names},
                "required": draw.sample(names, draw.randint(0, len(names))),
                "additionalProperties": False,
            },
            lambda: {"anyOf": [schema(draw, depth - 1), schema(draw, depth - 1)]},
        ]
        kinds += 2 * nested
    return draw.choice(kinds)()


async def say(
    engine: EmbeddedEngine, grammar: Grammar | None, limit: int = 400, **more: Any
) -> tuple[str, Finish]:
    prompt = engine.prepare_text(more.pop("text", "Say it: "))
    sampling = Sampling(limit, more.pop("temperature", 1.0), grammar=grammar, **more)
    await engine.check(sampling)
    text = ""
    async for event in engine.generate(prompt, sampling):
        if isinstance(event, Finish):
            return text, event
        text += event.text
    raise AssertionError("it ended without Finish")


def play(folder: Path, scene: Callable[[EmbeddedEngine], Any]) -> None:
    async def bounded() -> None:
        engine = EmbeddedEngine.load(folder)
        try:
            await asyncio.wait_for(scene(engine), 100)
        finally:
            await engine.close()

    asyncio.run(bounded())


def test_random_schemas_are_kept_by_a_model_that_knows_nothing(tiny: Tiny) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        draw = random.Random(11)
        schemas = [schema(draw) for _ in range(40)]
        work = [
            say(engine, JsonSchema(json.dumps(each)), seed=n, temperature=draw.choice((0, 1.0)))
            for n, each in enumerate(schemas)
        ]
        ended = 0
        for each, (text, finish) in zip(schemas, await asyncio.gather(*work), strict=True):
            if finish.reason == "length":
                continue
            ended += 1
            jsonschema.validate(json.loads(text), each)
        assert ended > 30

    play(tiny("qwen3"), scene)


def test_a_row_with_a_grammar_and_its_neighbours_keep_to_themselves(tiny: Tiny) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        wanted = JsonSchema('{"type": "array", "items": {"type": "integer"}, "maxItems": 4}')

        def work() -> list[Any]:
            return [
                say(engine, None, 40, seed=1),
                say(engine, wanted, seed=2),
                say(engine, Regex("[ab]{3}c+"), 12, seed=3, text="Other: "),
                say(engine, None, 40, temperature=0),
                say(engine, Json(), 60, seed=4),
            ]

        alone = [await each for each in work()]
        assert list(await asyncio.gather(*work())) == alone
        assert json.loads(alone[1][0]) is not None
        assert re.fullmatch("[ab]{3}c+", alone[2][0])

    play(tiny("qwen3"), scene)


def test_json_is_an_object_and_may_be_cut(tiny: Tiny) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        ended = 0
        for seed in range(12):
            text, finish = await say(engine, Json(), 200, seed=seed)
            if finish.reason == "stop":
                ended += 1
                assert isinstance(json.loads(text), dict)
            else:
                assert text.startswith("{")
                assert finish.usage.completion == 200
        assert ended

    play(tiny("qwen3"), scene)


def test_characters_of_several_tokens_pass(tiny: Tiny) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        text, finish = await say(engine, Regex("🦔{2}(né|会)"), 40)
        assert re.fullmatch("🦔{2}(né|会)", text)
        assert finish.reason == "stop"

    play(tiny("qwen3"), scene)


def test_a_thought_comes_before_the_grammar(tiny: Tiny) -> None:
    """The prompt opened a thought: what is thought is free, what is said is bound."""

    async def scene(engine: EmbeddedEngine) -> None:
        decoder: Any = engine._scheduler._decoder
        real, steps = decoder.step, 0
        script = engine.template.encode("hm</think>")

        def spoken(tokens: list[int]) -> Any:
            nonlocal steps
            logits = real(tokens)
            if steps < len(script):
                logits[:, script[steps]] += 1000
            steps += 1
            return logits

        decoder.step = spoken
        text, finish = await say(engine, Regex("[01]{8}"), 60, text="Say: <think>\n", seed=1)
        thought, mark, said = text.partition("</think>")
        assert thought.endswith("hm")
        assert mark
        assert re.fullmatch("[01]{8}", said)
        assert finish.usage.reasoning == 1 + len(script)

    play(tiny("qwen3"), scene)


CLOSED = "<think>\n\n</think>\n\n"
"""Thinking is off."""
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose marks are tokens of their own."""
    return make("qwen3", tmp_path_factory.mktemp("marked"), MARKS)


Lead = Callable[[EmbeddedEngine, str], None]


@pytest.fixture
def lead(monkeypatch: pytest.MonkeyPatch) -> Lead:
    """The next answer's model wants nothing so much as to begin with a text."""
    script: list[int] = []

    def led(logits: Any, choices: Any) -> Any:
        if script:
            logits[:, script.pop(0)] += 1000
        return decide(logits, choices)

    def wish(engine: EmbeddedEngine, text: str) -> None:
        script[:] = engine.template.encode(text)

    monkeypatch.setattr("avocado.engine.scheduler.decide", led)
    return wish


def test_a_model_may_open_a_thought_before_the_grammar(marked: Path, lead: Lead) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        lead(engine, "<think>hm</think>")
        text, finish = await say(engine, Regex("[01]{8}"), 60, text="Say: ", seed=1)
        assert re.fullmatch("<think>hm</think>[01]{8}", text)
        assert finish.usage.reasoning == len(engine.template.encode("<think>hm</think>"))
        lead(engine, "0<think>")
        text, _ = await say(engine, Regex("[01]{8}"), 60, text="Say: ", seed=1)
        assert re.fullmatch("[01]{8}", text), "later is too late"
        lead(engine, "<think>")
        text, _ = await say(engine, Regex("[01]{8}"), 60, text=CLOSED, seed=1)
        assert re.fullmatch("[01]{8}", text), "thinking is off"

    play(marked, scene)


TOOLS = (
    (
        "add",
        '{"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"],'
        ' "additionalProperties": false, "$defs": {"n": {"enum": [1, 22, 333]}}}',
    ),
    (
        "say",
        '{"type": "object", "properties": {"w": {"enum": ["</tool_call>", "b"]}},'
        ' "required": ["w"], "additionalProperties": false}',
    ),
)
SCHEMAS = {name: json.loads(schema) for name, schema in TOOLS}


def calls_in(text: str) -> list[Called]:
    reply = Reply("assistant\n", ({"function": {"name": "add"}},))
    pieces = joined([*reply.feed(text), *reply.end()])
    return [piece for piece in pieces if isinstance(piece, Called)]


@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("several", [True, False])
def test_calls_that_must_be_made_are_calls_whatever_the_model(
    tiny: Tiny, marked: Path, tokens: bool, several: bool
) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        grammar = Calls(TOOLS, must=True, several=several)
        counts = []
        for seed in range(8):
            text, finish = await say(engine, grammar, 300, seed=seed, text=CLOSED)
            if finish.reason == "length":
                continue
            calls = calls_in(text)
            counts.append(len(calls))
            for call in calls:
                jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
            assert text.startswith("<tool_call>")
        assert counts
        assert min(counts) >= 1
        assert several or max(counts) == 1

    play(marked if tokens else tiny("qwen3"), scene)


@pytest.mark.parametrize("tokens", [True, False])
def test_a_call_that_the_model_opens_by_itself_is_held(
    tiny: Tiny, marked: Path, lead: Lead, tokens: bool
) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        grammar = Calls(TOOLS, must=False, several=True)
        free = "It is <so>, and {no} call: </function> 会."
        lead(engine, free + "<|im_end|>")
        assert (await say(engine, grammar, 60))[0] == free
        held = 0
        for seed in range(6):
            lead(engine, "Well. <tool_call>\n<function=add>")
            text, _ = await say(engine, grammar, 200, seed=seed)
            assert text.startswith("Well. <tool_call>")
            for call in calls_in(text):
                if call.arguments.endswith("}"):
                    held += 1
                    jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
            assert "<function" not in text
        assert held

    play(marked if tokens else tiny("qwen3"), scene)


def test_a_thought_does_not_end_in_a_call_that_nothing_holds(marked: Path, lead: Lead) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        call = '<tool_call>\n{"name": "say", "arguments": {"w": "b"}}\n</tool_call>'
        for opening in ("Say: ", "Say: <think>"):
            first = "<think>" if opening == "Say: " else ""
            lead(engine, f"{first}hm<tool_call>x</think>{call}")
            grammar = Calls(TOOLS, must=True, several=False)
            text, finish = await say(engine, grammar, 120, text=opening)
            thought, _, said = text.partition("</think>")
            assert "<tool_call>" not in thought
            assert (said, finish.reason) == (call, "stop")

    play(marked, scene)


def test_one_call_ends_the_answer_where_one_is_allowed(marked: Path, lead: Lead) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        call = '<tool_call>\n{"name": "say", "arguments": {"w": "b"}}\n</tool_call>'
        lead(engine, call + " and more")
        text, finish = await say(engine, Calls(TOOLS, must=False, several=False), 120)
        assert (text, finish.reason) == (call, "stop")

    play(marked, scene)


WRONG: list[tuple[Grammar, str]] = [
    (JsonSchema("{"), "no JSON"),
    (JsonSchema("[]"), "must be an object"),
    (JsonSchema('{"type": "strin"}'), "strin"),
    (JsonSchema('{"type": "array", "uniqueItems": true}'), "uniqueItems"),
    (JsonSchema('{"$ref": "http://127.0.0.1:1/x"}'), "127.0.0.1"),
    (JsonSchema('{"$ref": "#/nowhere"}'), "nowhere"),
    (JsonSchema('{"enum": ["' + "x" * LONGEST + '"]}'), "longer than"),
    (JsonSchema('{"a":' * 5000 + "1" + "}" * 5000), "schema"),
    (Calls((("f", '{"type": "strin"}'),), must=True, several=True), "strin"),
    (Calls((("f", '{"enum": ["' + "x" * LONGEST + '"]}'),), must=False, several=True), "longer"),
    (Regex("(a"), "unclosed group"),
    (Regex("a(?=b)"), "look-around"),
    (Regex("x" * (LONGEST + 1)), "longer than"),
]


@pytest.mark.parametrize(("grammar", "said"), WRONG)
def test_what_is_wrong_is_named_before_anything_runs(grammar: Grammar, said: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(said)) as caught:
        check(grammar)
    assert len(str(caught.value)) < 400


def test_a_wrong_grammar_is_refused_by_check_and_by_generate(tiny: Tiny) -> None:
    async def scene(engine: EmbeddedEngine) -> None:
        for grammar, said in WRONG:
            with pytest.raises(ValueError, match=re.escape(said)):
                await engine.check(Sampling(9, grammar=grammar))
            with pytest.raises(ValueError, match=re.escape(said)):
                engine.generate(engine.prepare_text("a"), Sampling(9, grammar=grammar))
        fresh = Sampling(9, grammar=Regex("(b"))  # nobody asked: it fails alone, later
        beside = asyncio.create_task(say(engine, None, 30))
        with pytest.raises(EngineError, match="unclosed group"):
            async for _ in engine.generate(Prompt("a", engine.template.encode("a")), fresh):
                pass
        await beside
        late = Sampling(9, grammar=Regex("[xy]{4}"))
        text = ""
        async for event in engine.generate(engine.prepare_text("a"), late):
            text += "" if isinstance(event, Finish) else event.text
        assert re.fullmatch("[xy]{4}", text)

    play(tiny("qwen3"), scene)


def test_large_grammars_are_refused_or_compiled_soon(tiny: Tiny) -> None:
    nasty: list[Grammar] = [
        Regex("(a{1000}){1000}"),
        Regex("(a|b)*a(a|b){40}"),
        Regex("(x+x+)+y"),
        JsonSchema(json.dumps({"type": "array", "minItems": 10**6, "items": {}})),
        JsonSchema(json.dumps({"type": "string", "minLength": 10**6})),
        JsonSchema(
            json.dumps(
                {
                    "allOf": [
                        {"anyOf": [{"required": [f"a{i}{j}"], "type": "object"} for j in range(5)]}
                        for i in range(9)
                    ]
                }
            )
        ),
    ]

    async def scene(engine: EmbeddedEngine) -> None:
        for grammar in nasty:
            begun = time.process_time()
            with contextlib.suppress(GrammarError, EngineError):
                await say(engine, grammar, 10)
            assert time.process_time() - begun < 3

    play(tiny("qwen3"), scene)


def test_what_is_told_of_wrong_tools_shows_none_of_our_grammar() -> None:
    calls = Calls((("f", '{"type": "bogus"}'),), must=True, several=False)
    with pytest.raises(GrammarError) as caught:
        check(calls)
    assert str(caught.value) == "the tools' schemas cannot be used: Invalid type: bogus"
