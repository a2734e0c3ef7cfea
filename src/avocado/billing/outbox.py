"""Outbox: what is to be sent and was not yet, so that a crash loses nothing and doubles nothing.

A customer's outbox is one document, ``outbox/<tenant>``: messages that wait, and the ids of those
that were sent. A message is claimed by a revision before it is sent; of two clerks one gets it. A
claim whose owner died is free again after :data:`CLAIMED`. So a message is sent once, and a second
time only if a process dies between its sending and its ticking off; it carries the same id then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex
from typing import Final, Literal

import msgspec

from avocado.billing.record import ATTEMPTS, Do, Stored, busy, file, read
from avocado.ledger.reader import Reader

_MINUTE: Final = 60 * 1_000_000_000
CLAIMED: Final = 5 * _MINUTE
"""Ns after which a claim is free again: much longer than any sending may take."""
PAUSES: Final = tuple(minutes * _MINUTE for minutes in (1, 5, 30, 120, 360, 720, 1440, 2880))
"""Ns before the next try, after each failure; after the last a message is given up."""
_DAY: Final = 24 * 60 * _MINUTE
DAILY: Final = 25
"""Messages of a customer in a day: what it may have sent to addresses that it names itself. What is
above that is not written; if it is still due the next day, it is written then."""
_REMEMBERED: Final = 300 * _DAY
"""With :data:`DAILY` it keeps an outbox well below the megabyte that a document may take."""
_AT_ONCE: Final = 8


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``id`` makes it one message, however often it is asked for. ``body`` is a mail's text, or a
    webhook's JSON; ``secret`` names the webhook's secret. Times are ns since 1970."""

    id: str
    way: Literal["mail", "webhook"]
    target: str
    body: str
    subject: str = ""
    secret: str = ""
    tries: int = 0
    due: int = 0
    claim: str = ""
    error: str = ""


class Outbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``done``: ids that were sent, and when. ``failed``: the newest that were given up."""

    tenant: str
    waiting: tuple[Message, ...] = ()
    done: dict[str, int] = {}
    failed: tuple[Message, ...] = ()

    def knows(self, id_: str) -> bool:
        """Whether a message was asked for already."""
        known = (*self.waiting, *self.failed)
        return id_ in self.done or any(each.id == id_ for each in known)


Send = Callable[[Message], None]
"""Sends one message. Raises an exception whose text says why it could not."""


def load(reader: Reader, tenant: str) -> Stored[Outbox]:
    return read(reader, f"outbox/{tenant}", Outbox) or Stored(Outbox(tenant), 0)


def _file(do: Do, box: Outbox, revision: int) -> bool:
    return file(do, f"outbox/{box.tenant}", "outbox", box.tenant, box, revision)


def put(
    reader: Reader, do: Do, tenant: str, messages: Sequence[Message], now: int | None = None
) -> int:
    """Puts messages into a customer's outbox; those that are known are left out, and, where ``now``
    (ns) is given, those beyond :data:`DAILY`. Returns how many were put there."""
    for _ in range(ATTEMPTS):
        stored = load(reader, tenant)
        new = {each.id: each for each in messages if not stored.value.knows(each.id)}
        chosen = list(new.values())[: _room(stored.value, now)]
        if not chosen:
            return 0
        box = msgspec.structs.replace(stored.value, waiting=(*stored.value.waiting, *chosen))
        if _file(do, box, stored.revision + 1):
            return len(chosen)
    raise busy(f"the outbox of {tenant}")


def _room(box: Outbox, now: int | None) -> int | None:
    """How many more messages this day takes; None: any number."""
    if now is None:
        return None
    sent = sum(at > now - _DAY for at in box.done.values())
    return max(DAILY - sent - len(box.waiting), 0)


class Delivery(msgspec.Struct, frozen=True):
    """What became of a message; ``error`` is empty where it was sent."""

    tenant: str
    message: Message
    error: str = ""


def deliver(reader: Reader, do: Do, send: Send, now: int) -> tuple[Delivery, ...]:
    """Sends what is due, of all customers, some at once; ticks it off, or sets its next try.

    Its three parts stand alone for whoever must not keep the ledger while a mail server is slow.
    """
    return tick_off(reader, do, send_all(send, claim_due(reader, do, now)), now)


def claim_due(reader: Reader, do: Do, now: int) -> list[tuple[str, Message]]:
    """(customer, message) of what is due now and is ours to send, for :data:`CLAIMED`."""
    boxes = [msgspec.convert(each.content, Outbox) for each in reader.documents("outbox")]
    due = [(box.tenant, each) for box in boxes for each in box.waiting if each.due <= now]
    return [
        (tenant, mine) for tenant, each in due if (mine := _claim(reader, do, tenant, each.id, now))
    ]


def send_all(send: Send, claimed: Sequence[tuple[str, Message]]) -> tuple[Delivery, ...]:
    """Sends what was claimed, some at once. Nothing is on record yet."""
    if not claimed:
        return ()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(
            pool.map(lambda each: Delivery(each[0], each[1], _try(send, each[1])), claimed)
        )


def tick_off(
    reader: Reader, do: Do, deliveries: tuple[Delivery, ...], now: int
) -> tuple[Delivery, ...]:
    """Puts on record what became of the messages, and returns them."""
    for each in deliveries:
        _close(reader, do, each.tenant, each.message, each.error, now)
    return deliveries


def _try(send: Send, message: Message) -> str:
    try:
        send(message)
    except Exception as error:  # whatever a mail server or a stranger's receiver does to us
        return (str(error) or type(error).__name__)[:300]
    return ""


def _claim(reader: Reader, do: Do, tenant: str, id_: str, now: int) -> Message | None:
    """Makes a message ours for a while; None if somebody else has it."""
    for _ in range(ATTEMPTS):
        stored = load(reader, tenant)
        found = next((each for each in stored.value.waiting if each.id == id_), None)
        if found is None or found.due > now:
            return None
        mine = msgspec.structs.replace(found, claim=token_hex(8), due=now + CLAIMED)
        waiting = tuple(mine if each.id == id_ else each for each in stored.value.waiting)
        box = msgspec.structs.replace(stored.value, waiting=waiting)
        if _file(do, box, stored.revision + 1):
            return mine
    raise busy(f"the outbox of {tenant}")


def _close(reader: Reader, do: Do, tenant: str, mine: Message, error: str, now: int) -> None:
    """Ticks a message off, or puts it back; nothing if its claim ran out and another has it."""
    for _ in range(ATTEMPTS):
        stored = load(reader, tenant)
        box = stored.value
        if not any(each.id == mine.id and each.claim == mine.claim for each in box.waiting):
            return
        if _file(do, _closed(box, mine, error, now), stored.revision + 1):
            return
    raise busy(f"the outbox of {tenant}")


def _closed(box: Outbox, mine: Message, error: str, now: int) -> Outbox:
    others = tuple(each for each in box.waiting if each.id != mine.id)
    if not error:
        done = {id_: at for id_, at in box.done.items() if at > now - _REMEMBERED}
        return msgspec.structs.replace(box, waiting=others, done=done | {mine.id: now})
    again = msgspec.structs.replace(mine, tries=mine.tries + 1, error=error, claim="")
    if again.tries > len(PAUSES):
        return msgspec.structs.replace(box, waiting=others, failed=(*box.failed, again)[-20:])
    again = msgspec.structs.replace(again, due=now + PAUSES[again.tries - 1])
    return msgspec.structs.replace(box, waiting=(*others, again))
