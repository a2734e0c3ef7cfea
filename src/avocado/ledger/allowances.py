"""Decisions about allowances: included tokens that requests use before money.

A request reserves tokens with its hold, up to all that it may use; its end uses what it consumed
and frees the rest. So a token is never spent twice, however many requests run: of each lot,
tokens = free + reserved + used + expired, at every entry. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avocado.ledger import entry as e
from avocado.ledger import errors
from avocado.ledger import operation as o
from avocado.ledger.rows import AllowanceRow, Customer
from avocado.ledger.state import State
from avocado.ledger.transfer import Parts
from avocado.terms.usage import MAX_TOKENS

if TYPE_CHECKING:
    from avocado.ledger.holds import Now


def allow(state: State, op: o.Allow, now: Now) -> o.Allowed:
    """Gives a lot of tokens, once."""
    row = state.get(AllowanceRow, op.id)
    if row is not None:
        if not _same(row, op):
            raise errors.IdempotencyConflict(op.id)
        return _allowed(row, row.seq, replayed=True)
    if state.get(Customer, op.tenant) is None:
        raise errors.UnknownCustomer(op.tenant)
    if not op.id or not 1 <= op.tokens <= MAX_TOKENS:
        raise errors.NotAllowed(f"an allowance is 1 to {MAX_TOKENS} tokens under an id")
    if op.expires is not None and op.expires <= now.at:
        raise errors.NotAllowed("an allowance must expire later than now")
    entry = e.AllowanceGiven(
        id=op.id,
        tenant=op.tenant,
        tokens=op.tokens,
        offers=op.offers,
        reason=op.reason,
        expires=op.expires,
        priority=op.priority,
    )
    seq = state.post(entry, now.at)
    return _allowed(state.need(AllowanceRow, op.id), seq)


def _same(row: AllowanceRow, op: o.Allow) -> bool:
    """Whether the stored lot is what is asked for. One that was ended has another expiry now."""
    asked = (op.tenant, op.tokens, op.offers, op.priority, op.reason)
    stored = (row.tenant, row.tokens, row.good_for(), row.priority, row.reason)
    return asked == stored and (row.ended == 1 or row.expires == op.expires)


def end(state: State, op: o.EndAllowance, now: Now) -> o.Allowed:
    """Ends a lot before its time; what running requests give back to it later expires too."""
    row = state.get(AllowanceRow, op.id)
    if row is None:
        raise errors.NotAllowed(f"there is no allowance {op.id!r}")
    if row.ended:
        return _allowed(row, row.seq, replayed=True)
    if not op.reason.strip():
        raise errors.NotAllowed("ending an allowance needs a reason")
    entry = e.AllowanceExpired(
        id=row.id,
        tenant=row.tenant,
        tokens=row.free,
        ended=True,
        reason=op.reason,
        actor=op.actor,
    )
    return _allowed(row, state.post(entry, now.at))


def _allowed(row: AllowanceRow, seq: int, replayed: bool = False) -> o.Allowed:
    return o.Allowed(seq=seq, replayed=replayed, id=row.id, tokens=row.tokens, left=row.free)


def reserve(state: State, tenant: str, offer: str, tokens: int, at: int) -> Parts:
    """(lot, tokens) that a request to ``offer`` gets of the open lots, up to ``tokens``."""
    parts = []
    for lot in sorted(state.allowances_of(tenant).values(), key=_order):
        if tokens and lot.serves(offer) and not lot.over(at):
            take = min(tokens, lot.free)
            tokens -= take
            parts.append((lot.id, take))
    return tuple(parts)


def _order(lot: AllowanceRow) -> tuple[int, int, int]:
    return lot.priority, 2**63 if lot.expires is None else lot.expires, lot.seq


def expire(state: State, tenant: str, at: int) -> None:
    """Posts the end of the tenant's lots whose time is over."""
    lots = state.allowances_of(tenant).values()
    for lot in [lot for lot in lots if lot.over(at)]:
        state.post(e.AllowanceExpired(id=lot.id, tenant=tenant, tokens=lot.free), at)
