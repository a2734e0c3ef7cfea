"""Notices of automatic top-ups: a customer hears of a charge that failed, and that they stopped.

They follow from what is on record, under ids that follow from it too, so that each is sent once and
none is forgotten where a process died.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final, Literal

from avocado.billing import outbox
from avocado.billing import payment as p
from avocado.billing.auto_topup import attempts
from avocado.billing.outbox import Message
from avocado.billing.profile import Profile, profile_of
from avocado.billing.record import Do
from avocado.billing.topup import account_of
from avocado.billing.wording import Wording, read_words
from avocado.errors import Refused
from avocado.ledger.reader import Reader
from avocado.terms.money import NANO, Money

RECENT: Final = 7 * 86_400 * NANO
"""Ns in which a failure is still news."""


@cache
def _letters() -> Mapping[str, Mapping[str, str]]:
    source = resources.files("avocado.billing").joinpath("payment_letters.toml")
    return read_words(source.read_text(encoding="utf-8"))


def message(
    attempt: p.Attempt, off: bool, profile: Profile, tenant: str, name: str, seller: str
) -> Message | None:
    """What a failed attempt says to a customer called ``name``; None if it has no address."""
    if attempt.state != "failed" or not profile.email:
        return None
    letter: Literal["failed", "stopped"] = "stopped" if off else "failed"
    words = _letters()[profile.language]
    said = {
        "seller": seller,
        "customer": " ".join(name.split()),
        "amount": _amount(attempt, profile.language),
        "reason": " ".join(attempt.reason.split()),
    }
    return Message(
        f"{p.attempt_id(tenant, attempt.number)}/{letter}/mail",
        "mail",
        profile.email,
        words[letter].lstrip("\n").format(**said),
        words[f"{letter}-subject"].format(**said),
    )


def _amount(attempt: p.Attempt, language: str) -> str:
    nanos = attempt.net + attempt.tax
    try:
        return Wording(language).money(nanos, attempt.currency)
    except (Refused, ImportError):  # no Babel: exact and readable all the same
        return str(Money(nanos, attempt.currency))


def tell(reader: Reader, do: Do, seller: str, now: int) -> int:
    """Puts what is due into the outboxes; returns how many messages were new. ``now`` is in ns."""
    new = 0
    for document in list(reader.documents("payment")):
        if not document.content.get("auto"):
            continue
        tenant, tried = document.tenant, attempts(reader, document.tenant)
        stored = account_of(reader, tenant)
        if not tried or stored is None or stored.value.auto is None:
            continue
        at, last = tried[-1]
        auto = stored.value.auto
        if now - at > RECENT or last.value.number <= auto.armed:
            continue
        name = reader.customer(tenant).name
        due = message(last.value, bool(auto.off), profile_of(reader, tenant), tenant, name, seller)
        if due is not None:
            new += outbox.put(reader, do, tenant, [due])
    return new
