"""The remote engine against a real HTTP server that misbehaves in each known way."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from avocado.data.chat import Chat, ChatTemplate
from avocado.engine.engine import (
    Calls,
    Delta,
    EngineBusy,
    EngineError,
    Finish,
    Json,
    JsonSchema,
    PromptTooLong,
    Regex,
    Sampling,
    Unsupported,
)
from avocado.engine.reply import Called, Reply, Said, Thought, joined
from avocado.engine.upstream import VLLM, Question, body
from avocado.terms.usage import Usage
from tests.engine.fake_upstream import (
    HELLO,
    SOME,
    Plan,
    collect,
    eventually,
    play,
    remote,
)


@pytest.mark.parametrize("usage", ["continuous", "last"])
@pytest.mark.parametrize("split", [0, 1, 7])
@pytest.mark.parametrize("ids", [True, False])
def test_text_and_exact_usage_however_events_are_cut(
    template: ChatTemplate, usage: Any, split: int, ids: bool
) -> None:
    async def scene() -> None:
        options: dict[str, Any] = {"template": template, "dialect": VLLM} if ids else {}
        async with remote(**options) as (engine, (fake,)):
            words = ("Grüße", " 🥑", "\n\ndata: [DONE]\n\n", "!")
            fake.plan = Plan(words, usage=usage, split=split)
            text, finish = await collect(engine, SOME)
            prompt = len(engine.prepare(HELLO).ids) if ids else 7
            assert text == "".join(words)
            assert finish == Finish("stop", Usage(prompt, 5))
            assert fake.paths == ["/v1/completions" if ids else "/v1/chat/completions"]

    play(scene())


def test_the_very_prompt_goes_out_and_nothing_else(template: ChatTemplate) -> None:
    async def scene() -> None:
        async with remote(template=template, dialect=VLLM, api_key="k") as (engine, (fake,)):
            sampling = Sampling(
                9,
                0.5,
                0.9,
                7,
                seed=3,
                stop=("x",),
                stop_ids=(1,),
                presence_penalty=0.5,
                frequency_penalty=-1,
                logit_bias=((5, 2.0),),
                grammar=JsonSchema('{"type": "object"}'),
                cache_salt="tenant",
            )
            await engine.check(sampling)
            await collect(engine, sampling)
            assert fake.keys == ["Bearer k"]
            assert fake.bodies == [
                {
                    "model": "m",
                    "prompt": list(engine.prepare(HELLO).ids),
                    "max_tokens": 9,
                    "temperature": 0.5,
                    "top_p": 0.9,
                    "top_k": 7,
                    "min_p": 0.0,
                    "repetition_penalty": 1.0,
                    "seed": 3,
                    "stop": ["x"],
                    "stop_token_ids": sorted({1, *template.stop_ids}),
                    "presence_penalty": 0.5,
                    "frequency_penalty": -1,
                    "logit_bias": {"5": 2.0},
                    "cache_salt": "tenant",
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {
                            "name": "answer",
                            "strict": True,
                            "schema": {"type": "object"},
                        },
                    },
                    "stream": True,
                    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                }
            ]

    play(scene())


def test_messages_go_out_as_they_came_and_extras_are_refused() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            tools = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
            chat = Chat(({"role": "user", "content": "Hi\ud83e\udd51"},), tools)
            await collect(engine, replace(SOME, grammar=Json()), HELLO)
            await collect(engine, SOME, Chat(HELLO.messages, tools))
            assert fake.bodies[0] == {
                "model": "m",
                "messages": [{"role": "user", "content": "Hi"}],
                "max_tokens": 50,
                "temperature": 0.0,
                "top_p": 1.0,
                "response_format": {"type": "json_object"},
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            assert fake.bodies[1]["tools"] == list(tools)
            assert len(engine.prepare(chat).ids) > 512
            for sampling, field in (
                (replace(SOME, top_k=3), "top_k"),
                (replace(SOME, stop_ids=(3,)), "stop_ids"),
                (replace(SOME, grammar=Regex("a")), "response_format"),
                (replace(SOME, grammar=Calls(SCHEMAS, must=False, several=True)), "grammar"),
            ):
                with pytest.raises(Unsupported) as caught:
                    await engine.check(sampling)
                assert caught.value.field == field
                with pytest.raises(Unsupported):
                    engine.generate(engine.prepare(HELLO), sampling)
            with pytest.raises(ValueError, match="strin"):
                await engine.check(replace(SOME, grammar=JsonSchema('{"type": "strin"}')))
            with pytest.raises(Unsupported):
                engine.prepare_text("raw")

    play(scene())


def test_details_of_usage_are_read() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            fake.plan = Plan(
                usage='{"prompt_tokens": 7, "completion_tokens": 4, "prompt_tokens_details":'
                '{"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 2}}'
            )
            _, end = await collect(engine, SOME)
            assert end.usage == Usage(7, 4, 5, 2)

    play(scene())


def test_conversations_stay_and_spread() -> None:
    async def scene() -> None:
        async with remote(4) as (engine, fakes):
            for turn in range(3):
                for n in range(20):
                    opening = [{"role": "user", "content": f"question {n}"}]
                    more = [{"role": "assistant", "content": "so"}, *opening] * turn
                    await collect(engine, SOME, Chat((*opening, *more)))
            homes: dict[str, set[int]] = {}
            for place, fake in enumerate(fakes):
                for body in fake.bodies:
                    homes.setdefault(body["messages"][0]["content"], set()).add(place)
            assert all(len(home) == 1 for home in homes.values())
            assert len(set().union(*homes.values())) == 4

    play(scene())


def test_limits_of_context_and_capacity(template: ChatTemplate) -> None:
    async def scene() -> None:
        async with remote(template=template, capacity=2, context_length=99) as (engine, (fake,)):
            fake.plan = Plan(hang_after=1)
            prompt = engine.prepare(HELLO)
            with pytest.raises(PromptTooLong):
                engine.generate(prompt, Sampling(99))
            running = [engine.generate(prompt, SOME) for _ in range(2)]
            assert engine.occupancy.running == 2
            with pytest.raises(EngineBusy):
                engine.generate(prompt, SOME)
            for each in running:
                await anext(each)
                await each.cancel()
            assert engine.occupancy.running == 0

    play(scene())


def test_closing_ends_what_runs() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            fake.plan = Plan(hang_after=1)
            generation = engine.generate(engine.prepare(HELLO), SOME)
            await anext(generation)
            await engine.close()
            with pytest.raises(EngineError, match="closed"):
                await anext(generation)
            await eventually(lambda: fake.running == 0)

    play(scene())


def test_thoughts_and_calls_that_come_apart_are_put_back_together() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            call = {"index": 0, "id": "c", "type": "function"}
            fake.plan = Plan(
                deltas=(
                    {"role": "assistant", "content": ""},
                    {"reasoning_content": "h"},
                    {"reasoning_content": "m"},
                    {"content": "Look:"},
                    {"tool_calls": [{**call, "function": {"name": "f", "arguments": ""}}]},
                    {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
                    {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
                    {"tool_calls": [{"index": 1, "function": {"name": "g"}}]},
                ),
                finish="tool_calls",
            )
            prompt = engine.prepare(HELLO)
            text, finish = await collect(engine, SOME)
            reply = Reply(prompt.text, ({"function": {"name": "f"}},))
            pieces = joined([*reply.feed(text), *reply.end()])
            assert pieces == [
                Thought("hm"),
                Said("Look:"),
                Called(0, "f", '{"a": 1}'),
                Called(1, "g", "{}"),
            ]
            assert finish.reason == "stop"
            fake.plan = replace(fake.plan, delay=0.02)
            deltas = [
                event.text
                async for event in engine.generate(prompt, SOME)
                if isinstance(event, Delta)
            ]
            assert any(text.endswith('"arguments": {"a"') for text in deltas), "not held back"

    play(scene())


def test_a_server_that_goes_back_to_a_call_is_not_believed() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            calls = [
                {"index": index, "function": {"name": name, "arguments": arguments}}
                for index, name, arguments in ((0, "f", "{}"), (1, "g", "{}"), (0, "", "{}"))
            ]
            fake.plan = Plan(deltas=tuple({"tool_calls": [call]} for call in calls))
            with pytest.raises(EngineError, match="went back"):
                await collect(engine, SOME)

    play(scene())


def test_log_probabilities_of_both_kinds(template: ChatTemplate) -> None:
    async def scene() -> None:
        sampling = replace(SOME, logprobs=True, top_logprobs=1)
        async with remote() as (engine, (fake,)):
            one = {"token": "\ufffd", "logprob": -0.5, "bytes": [240], "top_logprobs": []}
            top = {"token": "x", "logprob": -0.25, "bytes": None}
            fake.plan = Plan(
                ("ab",), logprobs=({"content": [one, {**one, "top_logprobs": [top]}]},)
            )
            events = [event async for event in engine.generate(engine.prepare(HELLO), sampling)]
            assert isinstance(events[0], Delta)
            first, second = events[0].logprobs
            assert (first.bytes, first.logprob, first.top) == (b"\xf0", -0.5, ())
            assert second.top[0].bytes == b"x"
        async with remote(template=template, dialect=VLLM) as (engine, (fake,)):
            (token,) = template.encode("x")
            stop = min(template.stop_ids)
            fake.plan = Plan(
                ("x", ""),
                logprobs=(
                    {
                        "tokens": [f"token_id:{token}"],
                        "token_logprobs": [-1.5],
                        "top_logprobs": [{f"token_id:{token}": -1.5, "token_id:300": -0.5}],
                    },
                    {"tokens": [f"token_id:{stop}"], "token_logprobs": [-0.1]},
                ),
            )
            events = [event async for event in engine.generate(engine.prepare(HELLO), sampling)]
            told = [each for e in events if isinstance(e, Delta) for each in e.logprobs]
            assert [(each.bytes, each.logprob) for each in told] == [(b"x", -1.5)]
            assert [each.logprob for each in told[0].top] == [-0.5]
            assert (fake.bodies[0]["logprobs"], fake.bodies[0]["return_tokens_as_token_ids"]) == (
                1,
                True,
            )

    play(scene())


def test_a_schema_reaches_the_server_as_it_was_written() -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            schema = '{"type":"object","properties":{"b":{"type":"integer"},"a":{}}}'
            await collect(engine, replace(SOME, grammar=JsonSchema(schema)))
            sent = fake.bodies[0]["response_format"]["json_schema"]["schema"]
            assert json.dumps(sent, separators=(",", ":")) == schema

    play(scene())


SCHEMAS = (("f", '{"type":"object"}'),)


def test_calls_reach_a_server_in_its_own_words(template: ChatTemplate) -> None:
    async def scene() -> None:
        async with remote() as (engine, (fake,)):
            await collect(engine, replace(SOME, grammar=Calls(SCHEMAS, must=True, several=True)))
            sent = fake.bodies[0]["response_format"]
            assert sent["json_schema"]["schema"]["properties"]["name"] == {"const": "f"}
        async with remote(template=template, dialect=VLLM) as (engine, (fake,)):
            for must in (True, False):
                grammar = Calls(SCHEMAS, must=must, several=not must)
                await engine.check(replace(SOME, grammar=grammar))
                await collect(engine, replace(SOME, grammar=grammar))
            wrong = Calls((("f", '{"type": "strin"}'),), must=False, several=True)
            with pytest.raises(ValueError, match="strin"):
                await engine.check(replace(SOME, grammar=wrong))
            must_be, may_be = (body["response_format"]["format"] for body in fake.bodies)
            tag = {
                "type": "tag",
                "begin": '<tool_call>\n{"name": "f", "arguments": ',
                "content": {"type": "json_schema", "json_schema": {"type": "object"}},
                "end": "}\n</tool_call>",
            }
            assert must_be == {
                "type": "tags_with_separator",
                "separator": "\n",
                "at_least_one": True,
                "tags": [tag],
                "stop_after_first": True,
            }
            assert may_be == {
                "type": "triggered_tags",
                "triggers": ["<tool_call>"],
                "tags": [tag],
                "stop_after_first": False,
            }

    play(scene())


@pytest.mark.parametrize(
    ("opening", "thinking", "before"),
    [
        ("", False, None),
        ("", True, "or"),
        ("<think>\n", True, "tag"),
        ("<think>\n\n</think>\n\n", False, None),
    ],
)
def test_a_thought_comes_before_what_a_server_holds(
    opening: str, thinking: bool, before: str | None
) -> None:
    chat = Chat(({"role": "user", "content": "Hi"},), (), thinking)
    prompt = Question(f"assistant\n{opening}", (1, 2), chat)
    for grammar in (Json(), JsonSchema('{"type":"object"}'), Regex("a+")):
        sampling = replace(SOME, grammar=grammar)
        sent = json.loads(body(prompt, sampling, "m", VLLM, ids=True))
        if before is None:
            assert sent.get("response_format", {}).get("type") != "structural_tag"
            continue
        first, second = sent["response_format"]["format"]["elements"]
        assert first["type"] == before
        assert second["type"] == ("regex" if isinstance(grammar, Regex) else "json_schema")
    if before is not None:
        held = replace(SOME, grammar=Calls(SCHEMAS, must=False, several=True))
        sent = json.loads(body(prompt, held, "m", VLLM, ids=True))["response_format"]["format"]
        (thought, _) = sent["elements"]
        thought = thought if before == "tag" else thought["elements"][0]
        assert thought["content"] == {"type": "any_text", "excludes": ["<tool_call>"]}


def test_a_server_with_another_tokenizer_is_told_once(
    template: ChatTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with remote(template=template) as (engine, (fake,)):
            ours = len(engine.prepare(HELLO).ids)
            for theirs in (ours, ours + 3, ours + 3):
                fake.plan = Plan(prompt_tokens=theirs)
                _, finish = await collect(engine, SOME)
                assert finish.usage.prompt == ours
            (said,) = [each.message for each in caplog.records]
            assert f"{fake.url} counts {ours + 3} prompt tokens" in said
            assert f"make {ours}" in said

    play(scene())


def test_cancelled_before_it_began_it_ends_and_its_place_is_free(template: ChatTemplate) -> None:
    async def scene() -> None:
        async with remote(template=template, dialect=VLLM) as (engine, (fake,)):
            prompt = engine.prepare(HELLO)
            stream = engine.generate(prompt, SOME)
            assert await stream.cancel() == Usage(len(prompt.ids))
            assert engine.occupancy.running == 0
            assert fake.bodies == []

    play(scene())
