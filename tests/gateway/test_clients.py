"""The official openai client, against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest

from avocado.engine.scripted import Script

MESSAGES: Any = [{"role": "user", "content": "hi"}]
MakeStand = Callable[..., Any]


def test_a_plain_answer(stand: Any) -> None:
    answer = stand.client().chat.completions.create(model="avocado-1", messages=MESSAGES)
    assert answer.choices[0].message.content == "one two three four five"
    assert answer.usage.total_tokens == 8
    assert answer.usage.cost == pytest.approx(0.0000052)
    assert answer._request_id == stand.charges[0].request


def test_a_stream(stand: Any) -> None:
    stream = stand.client().chat.completions.create(
        model="avocado-1", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "one two three four five"
    assert chunks[-1].usage.completion_tokens == 6
    assert stand.charges[0].usage.completion == 6


def test_the_stream_helper_accumulates(stand: Any) -> None:
    with stand.client().chat.completions.stream(model="avocado-1", messages=MESSAGES) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "one two three four five"


def test_an_answer_can_be_sent_back(make_stand: MakeStand) -> None:
    client = make_stand(Script()).client()
    first = client.chat.completions.create(model="avocado-1", messages=MESSAGES)
    history = [*MESSAGES, first.choices[0].message, {"role": "user", "content": "again"}]
    second = client.chat.completions.create(model="avocado-1", messages=history)
    assert second.choices[0].message.content == "again"


def test_the_async_client_many_at_once(stand: Any) -> None:
    async def many() -> list[Any]:
        client = openai.AsyncOpenAI(base_url=f"{stand.url}/v1", api_key=stand.key.text)
        async with client:
            return await asyncio.gather(
                *(
                    client.chat.completions.create(model="avocado-1", messages=MESSAGES)
                    for _ in range(20)
                )
            )

    assert len(asyncio.run(many())) == 20
    assert len(stand.charges) == 20


def test_models(stand: Any) -> None:
    client = stand.client()
    assert [model.id for model in client.models.list()] == ["avocado-1"]
    assert client.models.retrieve("avocado-1").owned_by == "avocado"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_a_wrong_key(stand: Any) -> None:
    for key in ("wrong", "av_live_", stand.key.text[:-1] + "!"):
        with pytest.raises(openai.AuthenticationError) as caught:
            stand.client(key).chat.completions.create(model="avocado-1", messages=MESSAGES)
        assert caught.value.code == "invalid_api_key"


def test_no_money(make_stand: MakeStand) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        make_stand(credit=0).client().chat.completions.create(model="avocado-1", messages=MESSAGES)
    assert caught.value.status_code == 402
    assert caught.value.code == "credit_balance_exhausted"


def test_an_unknown_model(stand: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        stand.client().chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_an_unsupported_parameter(stand: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        stand.client().chat.completions.create(
            model="avocado-1", messages=MESSAGES, service_tier="flex"
        )
    assert caught.value.param == "service_tier"


def test_an_error_mid_stream_is_raised(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="a b c", fail_after=2))
    stream = stand.client().chat.completions.create(
        model="avocado-1", messages=MESSAGES, stream=True
    )
    seen = [next(stream).choices[0].delta.content for _ in range(3)]
    with pytest.raises(openai.APIError) as caught:
        next(stream)
    assert seen == ["", "a ", "b "]
    assert caught.value.code == "engine_error"


def test_retries_of_a_failed_engine_are_charged_once(make_stand: MakeStand) -> None:
    tries: list[int] = []

    def script(prompt: Any, sampling: Any) -> Script:
        tries.append(1)
        return Script(reply="ok") if len(tries) > 1 else Script(fail_after=0)

    stand = make_stand()
    stand.engine.script = script
    client = stand.client(max_retries=2)
    client.chat.completions.create(model="avocado-1", messages=MESSAGES)
    assert len(tries) == 2
    assert len(stand.charges) == 1


def test_closing_a_stream_early_stops_the_engine(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="a " * 1000, delay=0.01))
    stream = stand.client().chat.completions.create(
        model="avocado-1", messages=MESSAGES, stream=True
    )
    for _ in range(3):
        next(iter(stream))
    stream.close()
    stand.until(lambda: stand.engine.running == 0, 1)
    stand.idle()
    (charge,) = stand.charges
    assert charge.finish == "disconnect"
