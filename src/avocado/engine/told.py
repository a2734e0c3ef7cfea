"""Log-probabilities as OpenAI-compatible servers send them, read into ours. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from avocado.engine.engine import TokenLogprob


class _Content(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[_Content] = []


class _Contents(msgspec.Struct):
    content: list[_Content] | None = None


class _Legacy(msgspec.Struct):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


def told_by_chat(data: bytes) -> list[TokenLogprob]:
    """Log-probabilities as ``/v1/chat/completions`` sends them."""

    def token(each: _Content, top: Iterable[_Content]) -> TokenLogprob:
        spelt = each.token.encode() if each.bytes is None else bytes(each.bytes)
        return TokenLogprob(
            each.token, spelt, each.logprob, tuple(token(other, ()) for other in top)
        )

    found = msgspec.json.decode(data, type=_Contents).content
    return [token(each, each.top_logprobs) for each in found or ()]


def told_by_ids(
    spell: Callable[[int], bytes], top: int, silent: frozenset[int]
) -> Callable[[bytes], list[TokenLogprob]]:
    """Log-probabilities as ``/v1/completions`` sends them, tokens as ``token_id:7``. ``silent``
    tokens end the turn and are not told."""

    def token(name: str, logprob: float, others: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        spelt = spell(_id(name))
        return TokenLogprob(spelt.decode(errors="replace"), spelt, logprob, others)

    def read(data: bytes) -> list[TokenLogprob]:
        found = msgspec.json.decode(data, type=_Legacy)
        out = []
        for place, (name, logprob) in enumerate(
            zip(found.tokens, found.token_logprobs, strict=False)
        ):
            if _id(name) in silent or logprob is None:
                continue
            best = (found.top_logprobs or [])[place : place + 1]
            ranked = sorted((best[0] or {}).items() if best else (), key=lambda pair: -pair[1])
            out.append(token(name, logprob, tuple(token(*each) for each in ranked[:top])))
        return out

    return read


def _id(name: str) -> int:
    return int(name.removeprefix("token_id:"))
