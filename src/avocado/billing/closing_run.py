"""A closing run: every customer's invoice, read one by one, filed many at a time.

Reading is one thread's work. Filing waits for the disk, and taxing may wait for a tax provider, so
many invoices wait together, and the ledger commits them in one go. Only those are kept in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from avocado.billing.closing import Closing, Draft, check_over, file_once, filing
from avocado.billing.invoices import month_id
from avocado.billing.issuer import Issuer
from avocado.billing.record import Do, Refusals

if TYPE_CHECKING:
    from avocado.ledger.reader import Reader

LANES: Final = 64
"""Invoices that are being filed at the same time."""
_PAGE: Final = 500
_SAID: Final = (*Refusals, ValueError)
"""What is told of one customer; anything else ends the run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a customer's month: a document's id, or why there is none. ``new`` is False
    where another process had filed it meanwhile."""

    tenant: str
    month: str
    document: str | None = None
    refused: str | None = None
    new: bool = True


_Waiting = deque[tuple[Outcome, "Future[bool]"]]


def close_all(
    reader: Reader,
    do: Do,
    issuer: Issuer,
    month: str,
    now: int,
    actor: str = "",
    seen: Callable[[int], object] = lambda _: None,
) -> Iterator[Outcome]:
    """Closes every customer's months up to ``month``; an outcome for each invoice or refusal, none
    for what was closed before. ``do`` is called from :data:`LANES` threads at once; ``seen`` is
    told how many customers were read.

    A customer with several months to close gets one a pass, because each begins where the one
    before it, on record, ends. One customer's refusal stops nobody else's invoice.

    Raises:
        Refused: the month is not over, or no seller is named.
    """
    check_over(month, now)
    issuer.named()
    closing = Closing(reader, issuer, now)
    refused: set[str] = set()
    with ThreadPoolExecutor(LANES, "invoices") as pool:
        more = True
        while more:
            more = False
            waiting: _Waiting = deque()
            for count, tenant in enumerate(tenants(reader), 1):
                seen(count)
                if tenant in refused:
                    continue
                found = _first_due(closing, tenant, month)
                if isinstance(found, Outcome):
                    refused.add(tenant)
                    yield found
                elif found is not None:
                    more = more or found.month != month
                    outcome = Outcome(tenant, found.month, month_id(tenant, found.month))
                    waiting.append((outcome, pool.submit(_issue, closing, do, found, actor)))
                yield from _drain(waiting, 2 * LANES, refused)
            yield from _drain(waiting, 0, refused)


def _first_due(closing: Closing, tenant: str, month: str) -> Draft | Outcome | None:
    """The first month that makes an invoice, or why it makes none; nothing where none is due."""
    each = month
    try:
        for each in closing.due(tenant, month):
            draft = closing.draft(tenant, each)
            if not draft.empty:
                return draft
    except _SAID as error:
        return Outcome(tenant, each, refused=str(error))
    return None


def _issue(closing: Closing, do: Do, draft: Draft, actor: str) -> bool:
    """Taxes a draft, which may mean to ask somebody far away, and files it. Reads nothing."""
    return file_once(do, filing(draft, closing.document(draft), actor))


def _drain(waiting: _Waiting, most: int, refused: set[str]) -> Iterator[Outcome]:
    """The outcomes of what was filed, oldest first, until at most ``most`` wait."""
    while len(waiting) > most:
        outcome, future = waiting.popleft()
        try:
            yield replace(outcome, new=future.result())
        except _SAID as error:
            refused.add(outcome.tenant)
            yield replace(outcome, document=None, refused=str(error))


def tenants(reader: Reader) -> Iterator[str]:
    """Every customer's id, in order of opening, read page by page."""
    seq = 0
    while True:
        sql = f"SELECT tenant, seq FROM customer WHERE seq > ? ORDER BY seq LIMIT {_PAGE}"  # noqa: S608
        page = list(reader.rows(sql, (seq,)))
        for tenant, _ in page:
            yield str(tenant)
        if len(page) < _PAGE:
            return
        seq = int(page[-1][1])
