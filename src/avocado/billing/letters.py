"""Letters: the mails and webhook events that alerts and subscriptions send, in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources
from typing import Final, Literal

import msgspec

from avocado.billing.wording import Wording, read_words
from avocado.errors import Refused
from avocado.terms.money import Money

Letter = Literal["spend", "balance", "past-due", "lapsed", "test"]
EVENTS: Final[dict[str, str]] = {
    "spend": "alert.spend",
    "balance": "alert.balance",
    "past-due": "subscription.past_due",
    "lapsed": "subscription.lapsed",
    "test": "alert.test",
}
"""The ``type`` of each letter's webhook event."""


@cache
def _letters() -> Mapping[str, Mapping[str, str]]:
    source = resources.files("avocado.billing").joinpath("letters.toml")
    return read_words(source.read_text(encoding="utf-8"))


def write(
    letter: Letter, language: str, seller: str, facts: Mapping[str, str | Money | date]
) -> tuple[str, str]:
    """(subject, text) of a mail. Amounts and days in ``facts`` are written as the language does."""
    words = _letters().get(language) or _letters()["en"]
    wording = Wording(language if language in _letters() else "en")
    said = {name: _in_words(wording, value) for name, value in facts.items()} | {"seller": seller}
    return words[f"{letter}-subject"].format(**said), words[letter].lstrip("\n").format(**said)


def _in_words(wording: Wording, value: str | Money | date) -> str:
    if isinstance(value, str):
        return " ".join(value.split())
    try:
        if isinstance(value, Money):
            return wording.money(value.nanos, value.currency)
        return wording.day(value)
    except (Refused, ImportError):  # no Babel: exact and readable all the same
        return str(value)


def event(letter: Letter, at: int, facts: Mapping[str, str | int | Money | date]) -> str:
    """The JSON of a webhook. Amounts are decimal texts, beside their ``currency``."""
    data: dict[str, object] = {}
    for name, value in facts.items():
        if isinstance(value, Money):
            data |= {name: value.decimal(), "currency": value.currency}
        else:
            data[name] = value.isoformat() if isinstance(value, date) else value
    when = datetime.fromtimestamp(at // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")
    return msgspec.json.encode({"type": EVENTS[letter], "timestamp": when, "data": data}).decode()
