"""Reads the rows that a batch will need, many at once, before it is decided.

Only speed depends on this: a State reads what is missing by itself, one row at a time. Two rounds,
because a settlement's hold has to be known before its customer is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from avocado.ledger import book, transfer
from avocado.ledger import operation as o
from avocado.ledger.filing import filing_name
from avocado.ledger.periods import month_of, spent_names, volume_name
from avocado.ledger.rows import (
    Account,
    AllowanceRow,
    Customer,
    DocumentRow,
    Filing,
    HoldRow,
    Key,
    Posting,
    Price,
    Promise,
    Series,
    Spent,
    sheet_of,
)
from avocado.ledger.state import State

_ENDS: Final = (o.Settle, o.Void, book.Close)
_REQUESTS: Final = (o.Hold, o.Progress, *_ENDS)
_POSTED: Final = (o.Deposit, o.Grant, o.Bill, o.Adjust)


def load(state: State, operations: Sequence[book.AnyInternal], at: int) -> None:
    """Fills ``state`` with what deciding ``operations`` at ``at`` (ns) will look at."""
    placed = [op for op in operations if isinstance(op, o.Hold)]
    ended = [op.hold for op in operations if isinstance(op, _ENDS)]
    noted = [op.hold for op in operations if isinstance(op, o.Progress)]
    state.prefetch(HoldRow, [*(op.id for op in placed), *ended, *noted])
    state.prefetch(
        Promise, [f"{op.tenant}/{op.idempotency_key}" for op in placed if op.idempotency_key]
    )
    holds = [hold for id_ in ended if (hold := state.get(HoldRow, id_)) is not None]
    state.prefetch(
        Price, [*(op.price_version for op in placed), *(hold.price_version for hold in holds)]
    )
    others: list[str] = []
    if len(placed) + len(ended) + len(noted) < len(operations):
        others = _others(state, [op for op in operations if not isinstance(op, _REQUESTS)])
    _subjects(state, placed, holds, others)
    _accounts(state, placed, holds)
    _counters(state, placed, holds, at)


def _others(state: State, operations: Sequence[book.AnyInternal]) -> list[str]:
    """What is no request, and rare beside requests; returns whose it is."""
    posted = [op for op in operations if isinstance(op, _POSTED)]
    state.prefetch(Posting, [op.id for op in posted])
    filed = [op for op in operations if isinstance(op, o.File)]
    state.prefetch(DocumentRow, [op.id for op in filed])
    state.prefetch(Filing, [filing_name(op.id, op.revision) for op in filed])
    state.prefetch(Series, [op.series for op in filed if op.series is not None])
    given = [op for op in operations if isinstance(op, o.Allow)]
    state.prefetch(AllowanceRow, [op.id for op in given])
    return [op.tenant for op in (*posted, *filed, *given) if op.tenant]


def _subjects(
    state: State, placed: Sequence[o.Hold], holds: Sequence[HoldRow], others: Iterable[str]
) -> None:
    tenants = [*(op.tenant for op in placed), *(hold.tenant for hold in holds), *others]
    state.prefetch(Customer, tenants)
    state.prefetch_lots(tenants)
    known = state.rows[Customer]
    allowed = [t for t in tenants if (row := known[t]) is not None and row.allowed]
    if allowed:
        state.prefetch_allowances(allowed)
        state.prefetch(AllowanceRow, [lot for hold in holds for lot, _ in hold.reserved()])
    key_ids = [*(op.key_id for op in placed), *(hold.key_id for hold in holds)]
    state.prefetch(Key, [key_id for key_id in key_ids if key_id is not None])
    state.prefetch(
        Account,
        [name for tenant in tenants for name in (transfer.wallet(tenant), transfer.held(tenant))],
    )


def _accounts(state: State, placed: Sequence[o.Hold], holds: Sequence[HoldRow]) -> None:
    names = [transfer.revenue(hold.release, hold.currency) for hold in holds]
    names += [name for hold in holds if hold.parts for name, _ in hold.sources()]
    for tenant in (*(op.tenant for op in placed), *(hold.tenant for hold in holds)):
        names += [transfer.grant(lot) for lot in state.lots_of(tenant)]
    state.prefetch(Account, names)


def _counters(state: State, placed: Sequence[o.Hold], holds: Sequence[HoldRow], at: int) -> None:
    names: list[str] = []
    items = [(op.tenant, op.key_id, at) for op in placed]
    items += [(hold.tenant, hold.key_id, hold.opened) for hold in holds]
    for tenant, key_id, when in items:
        customer = state.get(Customer, tenant)
        key = state.get(Key, key_id) if key_id is not None else None
        if any(
            who is not None and (who.month_limit is not None or who.total_limit is not None)
            for who in (customer, key)
        ):
            names += spent_names(tenant, key_id, month_of(when))
    versions = [(op.tenant, op.price_version, at) for op in placed]
    versions += [(hold.tenant, hold.price_version, hold.opened) for hold in holds]
    for tenant, version, when in versions:
        price = state.get(Price, version)
        if price is not None and sheet_of(price.terms).tiers:
            names.append(volume_name(tenant, version, when))
    state.prefetch(Spent, names)
