"""The scripted engine keeps the protocol, so what is tested against it holds for the others."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.data.chat import Chat, RenderError
from avocado.engine.engine import Delta, EngineBusy, EngineError, Finish, PromptTooLong, Sampling
from avocado.engine.scripted import Script, ScriptedEngine, words

HELLO = Chat(({"role": "user", "content": "say one two three"},))


async def collect(engine: ScriptedEngine, sampling: Sampling) -> tuple[str, Finish]:
    text, last = "", None
    async for event in engine.generate(engine.prepare(HELLO), sampling):
        if isinstance(event, Delta):
            text += event.text
        last = event
    assert isinstance(last, Finish)
    return text, last


def test_it_echoes_the_last_message_and_counts_the_stop_token() -> None:
    text, finish = asyncio.run(collect(ScriptedEngine(), Sampling(9)))
    assert text == "say one two three"
    assert (finish.reason, finish.usage.prompt, finish.usage.completion) == ("stop", 5, 5)


@pytest.mark.parametrize(("limit", "text"), [(1, "say "), (4, "say one two three")])
def test_max_tokens_ends_it_with_length(limit: int, text: str) -> None:
    got, finish = asyncio.run(collect(ScriptedEngine(), Sampling(limit)))
    assert (got, finish.reason, finish.usage.completion) == (text, "length", limit)


def test_a_stop_string_ends_the_text_before_it_and_counts_its_token() -> None:
    text, finish = asyncio.run(collect(ScriptedEngine(), Sampling(9, stop=("three", "e t"))))
    assert (text, finish.reason, finish.usage.completion) == ("say on", "stop", 3)


@given(st.text(max_size=60), st.text(min_size=1, max_size=3), st.integers(1, 20))
def test_text_is_a_prefix_that_never_holds_the_stop_string(
    reply: str, stop: str, limit: int
) -> None:
    engine = ScriptedEngine(Script(reply))
    text, finish = asyncio.run(collect(engine, Sampling(limit, stop=(stop,))))
    assert reply.startswith(text)
    assert stop not in text
    assert finish.usage.completion <= limit
    if finish.reason == "stop":
        assert text == reply.partition(stop)[0]


def test_it_fails_where_the_script_says() -> None:
    async def play(after: int) -> list[str]:
        engine = ScriptedEngine(Script("a b c", fail_after=after))
        generation = engine.generate(engine.prepare(HELLO), Sampling(9))
        seen: list[str] = []
        for _ in range(after):
            event = await anext(generation)
            assert isinstance(event, Delta)
            seen.append(event.text)
        with pytest.raises(EngineError):
            await anext(generation)
        return seen

    assert asyncio.run(play(0)) == []
    assert asyncio.run(play(2)) == ["a ", "b "]
    assert asyncio.run(play(3)) == ["a ", "b ", "c"]


@pytest.mark.parametrize("after", [0, 2])
def test_a_hanging_request_can_be_cancelled_and_frees_its_place(after: int) -> None:
    async def play() -> None:
        engine = ScriptedEngine(Script("a b c", hang_after=after), capacity=1)
        generation = engine.generate(engine.prepare(HELLO), Sampling(9))
        with pytest.raises(EngineBusy):
            engine.generate(engine.prepare(HELLO), Sampling(9))
        await asyncio.sleep(0.01)
        usage = await generation.cancel()
        assert usage.completion == after
        assert await generation.cancel() == usage
        assert [event async for event in generation] == []
        assert (engine.running, engine.cancelled) == (0, 1)

    asyncio.run(play())


def test_cancel_after_the_end_changes_nothing() -> None:
    async def play() -> None:
        engine = ScriptedEngine()
        generation = engine.generate(engine.prepare(HELLO), Sampling(9))
        events = [event async for event in generation]
        assert isinstance(events[-1], Finish)
        assert await generation.cancel() == events[-1].usage
        assert engine.cancelled == 0

    asyncio.run(play())


def test_closing_fails_what_runs() -> None:
    async def play() -> None:
        engine = ScriptedEngine(Script("a b", hang_after=1))
        generation = engine.generate(engine.prepare(HELLO), Sampling(9))
        assert isinstance(await anext(generation), Delta)
        await engine.close()
        with pytest.raises(EngineError):
            await anext(generation)

    asyncio.run(play())


def test_a_script_may_depend_on_the_request() -> None:
    engine = ScriptedEngine(lambda prompt, sampling: Script(f"{sampling.max_tokens} for you"))
    assert asyncio.run(collect(engine, Sampling(7)))[0] == "7 for you"


def test_what_does_not_fit_or_render_is_refused() -> None:
    engine = ScriptedEngine(context_length=8)
    with pytest.raises(PromptTooLong, match="8 tokens"):
        engine.generate(engine.prepare(HELLO), Sampling(4))
    with pytest.raises(RenderError, match="message 1"):
        engine.prepare(Chat(({"role": "user"},)))


@given(st.text())
def test_words_lose_nothing(text: str) -> None:
    assert "".join(words(text)) == text


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ("",)}, "stop"),
    ],
)
def test_sampling_out_of_range_is_refused_by_name(change: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Sampling(**{"max_tokens": 1, **change})  # type: ignore[arg-type]
