"""The demo's customer: asks the server three questions with the official OpenAI client."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import CompletionUsage


@dataclass(frozen=True)
class Answer:
    """What came back. ``cost`` is in units of the currency, as the server's usage says it."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cost: str
    pieces: int
    """Chunks with text that a streamed answer came in; 1 for a plain one."""


def ask(url: str, key: str, model: str, question: str) -> Answer:
    """One plain request."""
    client = _client(url, key)
    reply = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=100,
    )
    usage = reply.usage
    assert usage is not None
    return Answer(
        reply.choices[0].message.content or "",
        usage.prompt_tokens,
        usage.completion_tokens,
        _cost(usage),
        1,
    )


def ask_streamed(url: str, key: str, model: str, question: str) -> Answer:
    """The same, streamed, with the usage in the last chunk."""
    pieces: list[str] = []
    usage = None
    for chunk in _client(url, key).chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=100,
        stream=True,
        stream_options={"include_usage": True},
    ):
        usage = chunk.usage or usage
        pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    assert usage is not None
    return Answer(
        "".join(pieces),
        usage.prompt_tokens,
        usage.completion_tokens,
        _cost(usage),
        len(pieces),
    )


def ask_with_a_wrong_key(url: str, model: str) -> str:
    """A request that must be refused. Returns the server's message.

    Raises:
        AssertionError: the server answered it.
    """
    from openai import AuthenticationError

    wrong = "av_live_" + "0" * 12 + "_" + "0" * 36
    try:
        _client(url, wrong).chat.completions.create(
            model=model, messages=[{"role": "user", "content": "?"}]
        )
    except AuthenticationError as refusal:
        return f"{refusal.status_code} {refusal.body}"
    raise AssertionError("the server answered a request with a wrong key")


def _cost(usage: CompletionUsage) -> str:
    """The server's ``cost``, a JSON number of units, without an exponent."""
    cost = (usage.model_extra or {}).get("cost")
    return "not told" if cost is None else f"{Decimal(str(cost)):f}"


def _client(url: str, key: str) -> OpenAI:
    from openai import OpenAI

    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)
