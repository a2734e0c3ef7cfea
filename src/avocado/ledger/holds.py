"""Decisions about holds: reserve before the first token, charge what was used, give back the rest.

Pure: each function reads a State, raises a LedgerError before it changes anything, or posts entries
and returns the result. Money comes from the price sheet that the hold pinned, never from a caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from avocado.ledger import allowances, errors, transfer
from avocado.ledger import entry as e
from avocado.ledger import operation as o
from avocado.ledger.grants import available, balance_of, expire_grants, live_lots
from avocado.ledger.periods import TOTAL, month_of, volume_name
from avocado.ledger.rows import (
    OPEN,
    PROMISED,
    SETTLED,
    Customer,
    HoldRow,
    Key,
    Price,
    Promise,
    Spent,
    sheet_of,
)
from avocado.ledger.state import Overdrawn, State
from avocado.ledger.transfer import Parts
from avocado.terms.money import MoneyError
from avocado.terms.price import PriceSheet
from avocado.terms.usage import MAX_TOKENS, Usage

_MAX_LIFETIME = 7 * 86_400 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Now:
    """When and for whom a batch is decided: wall time ``at`` in ns, and the writer's epoch."""

    at: int
    epoch: str


def customer_of(state: State, tenant: str) -> Customer:
    customer = state.get(Customer, tenant)
    if customer is None:
        raise errors.UnknownCustomer(tenant)
    return customer


# -- hold ------------------------------------------------------------------------------------------


def place(state: State, op: o.Hold, now: Now) -> o.Held:
    """Reserves the ceiling of a request, or says why not."""
    if state.get(HoldRow, op.id) is not None:
        return _placed_before(state, op, now)
    customer = customer_of(state, op.tenant)
    if customer.frozen:
        raise errors.AccountFrozen(op.tenant, customer.frozen)
    key = _usable_key(state, op)
    _check_promise(state, op, now)
    sheet, volume, amount = _ceiling(state, op, customer, now.at)
    expire_grants(state, op.tenant, now.at)
    lots: Parts = ()
    if customer.allowed and amount:
        lots, amount = _cover(state, op, sheet, volume, now.at)
    _check_limits(state, op, customer, key, amount, now.at)
    legs = transfer.place(op.tenant, _sources(state, customer, amount, now.at))
    seq = state.post(
        e.HoldPlaced(
            id=op.id,
            tenant=op.tenant,
            key_id=op.key_id,
            offer=op.offer,
            release=op.release,
            price_version=op.price_version,
            prompt_tokens=op.prompt_tokens,
            max_tokens=op.max_tokens,
            n=op.n,
            batch=op.batch,
            volume=volume,
            lifetime=op.lifetime,
            epoch=now.epoch,
            idempotency_key=op.idempotency_key,
            fingerprint=op.fingerprint,
            amount=amount,
            currency=customer.currency,
            legs=legs,
            lots=lots,
        ),
        now.at,
    )
    return o.Held(
        seq=seq,
        hold=op.id,
        amount=amount,
        currency=customer.currency,
        available=available(state, op.tenant, now.at),
    )


def _placed_before(state: State, op: o.Hold, now: Now) -> o.Held:
    """The same hold again: the first answer. Another one by the same id: a conflict."""
    row = state.get(HoldRow, op.id)
    assert row is not None
    same = all(
        getattr(row, name) == getattr(op, name)
        for name in (
            "tenant",
            "key_id",
            "offer",
            "release",
            "price_version",
            "prompt_tokens",
            "max_tokens",
            "n",
            "batch",
            "lifetime",
            "idempotency_key",
            "fingerprint",
        )
    )
    if not same:
        raise errors.IdempotencyConflict(op.id)
    if row.state != OPEN:
        raise errors.HoldNotOpen(op.id, row.state)
    left = available(state, op.tenant, now.at)
    return o.Held(
        seq=row.seq,
        replayed=True,
        hold=op.id,
        amount=row.amount,
        currency=row.currency,
        available=left,
    )


def _usable_key(state: State, op: o.Hold) -> Key | None:
    if op.key_id is None:
        return None
    key = state.get(Key, op.key_id)
    if key is None or key.tenant != op.tenant:
        raise errors.UnknownKey(op.key_id)
    if key.revoked is not None:
        raise errors.KeyRevoked(op.key_id)
    return key


def _check_promise(state: State, op: o.Hold, now: Now) -> None:
    if op.idempotency_key is None:
        return
    promise = state.get(Promise, f"{op.tenant}/{op.idempotency_key}")
    if promise is None:
        return
    first = state.get(HoldRow, promise.hold)
    if first is not None and first.closed is not None and first.closed + PROMISED <= now.at:
        return
    if promise.fingerprint != (op.fingerprint or ""):
        raise errors.IdempotencyConflict(op.idempotency_key)
    if first is not None and first.state in (OPEN, SETTLED):
        raise errors.Duplicate(first.id, first.state)


def _ceiling(state: State, op: o.Hold, customer: Customer, at: int) -> tuple[PriceSheet, int, int]:
    """(sheet, volume that picks its tier, nano-units to hold if no allowance covers any)."""
    price = state.get(Price, op.price_version)
    if price is None:
        raise errors.UnknownPrice(op.price_version)
    if not (0 < op.lifetime <= _MAX_LIFETIME):
        raise errors.NotAllowed("a hold lives for more than nothing and at most a week")
    if not (op.n >= 1 and op.prompt_tokens >= 0 and op.max_tokens >= 0):
        raise errors.NotAllowed("a hold needs token counts of zero or more, and n of at least one")
    if max(op.prompt_tokens, op.n * op.max_tokens) > MAX_TOKENS:
        raise errors.NotAllowed("a hold for that many tokens is not believed")
    sheet = sheet_of(price.terms)
    if not sheet.in_force(at):
        raise errors.PriceNotInForce(op.price_version)
    volume = 0
    if sheet.tiers:
        counter = state.get(Spent, volume_name(op.tenant, op.price_version, at))
        volume = counter.amount if counter else 0
    try:
        amount = sheet.ceiling(op.prompt_tokens, op.max_tokens, op.n, op.batch, volume)
    except MoneyError as error:
        raise errors.NotAllowed(str(error)) from None
    if amount.currency != customer.currency:
        raise errors.CurrencyMismatch(customer.currency, amount.currency)
    return sheet, volume, amount.nanos


def _cover(state: State, op: o.Hold, sheet: PriceSheet, volume: int, at: int) -> tuple[Parts, int]:
    """(tokens reserved of each lot, nano-units to hold for the rest).

    Free requests don't come here: they leave an allowance alone.
    """
    allowances.expire(state, op.tenant, at)
    most = op.prompt_tokens + op.n * op.max_tokens
    lots = allowances.reserve(state, op.tenant, op.offer, most, at)
    covered = sum(tokens for _, tokens in lots)
    amount = sheet.ceiling(op.prompt_tokens, op.max_tokens, op.n, op.batch, volume, covered)
    return lots, amount.nanos


def _check_limits(
    state: State, op: o.Hold, customer: Customer, key: Key | None, amount: int, at: int
) -> None:
    subjects: list[tuple[str, str, Customer | Key]] = [
        ("customer", f"customer:{op.tenant}", customer)
    ]
    if key is not None:
        subjects.append(("key", f"key:{key.key_id}", key))
    for scope, subject, who in subjects:
        for word, period, limit in (
            ("month", None, who.month_limit),
            ("total", TOTAL, who.total_limit),
        ):
            if limit is None:
                continue
            counter = state.get(Spent, f"{subject}/{period or month_of(at)}")
            spent = counter.amount if counter else 0
            if amount and spent + amount > limit:
                raise errors.SpendLimitReached(scope, word, limit, spent, amount)


def _sources(state: State, customer: Customer, amount: int, at: int) -> Parts:
    """Takes ``amount`` from grants, then from the wallet down to its credit limit."""
    if not amount:
        return ()
    parts = []
    left = amount
    for lot in live_lots(state, customer.tenant, at):
        name = transfer.grant(lot.id)
        take = min(left, balance_of(state, name))
        if take:
            parts.append((name, take))
            left -= take
    if left:
        wallet = transfer.wallet(customer.tenant)
        room = balance_of(state, wallet) + customer.credit_limit
        if left > room:
            raise errors.InsufficientFunds(amount - left + room, amount)
        parts.append((wallet, left))
    return tuple(parts)


# -- settle, void, progress ------------------------------------------------------------------------


def _open_hold(state: State, hold_id: str) -> HoldRow:
    hold = state.get(HoldRow, hold_id)
    if hold is None:
        raise errors.HoldNotOpen(hold_id, "unknown")
    if hold.state != OPEN:
        raise errors.HoldNotOpen(hold_id, hold.state)
    return hold


def _sheet(state: State, hold: HoldRow) -> PriceSheet:
    price = state.get(Price, hold.price_version)
    if price is None:
        raise errors.LedgerCorrupt(f"hold {hold.id!r} names a price that is gone", hold.seq)
    return sheet_of(price.terms)


def _disbelief(hold: HoldRow, usage: Usage) -> str | None:
    """Why this usage cannot be that of this hold."""
    if usage.prompt > hold.prompt_tokens:
        return f"{usage.prompt} prompt tokens where {hold.prompt_tokens} were counted"
    if usage.completion > hold.n * hold.max_tokens:
        return f"{usage.completion} completion tokens where {hold.n * hold.max_tokens} were allowed"
    return None


def settle(state: State, op: o.Settle, now: Now) -> o.Settled:
    """Charges usage, once. The same settlement again returns the first result."""
    before = state.get(HoldRow, op.hold)
    if before is not None and before.state == SETTLED:
        if before.usage() == op.usage and before.finish == op.finish:
            return _settled(state, before, now, replayed=True)
        raise errors.HoldNotOpen(op.hold, SETTLED)
    hold = _open_hold(state, op.hold)
    sheet = _sheet(state, hold)
    wrong = _disbelief(hold, op.usage)
    covered = min(hold.tokens(), op.usage.total) if hold.lots else 0
    charge = 0 if wrong else sheet.charge(op.usage, bool(hold.batch), hold.volume, covered).nanos
    if charge > hold.amount:
        wrong = f"it costs {charge} nano-units where {hold.amount} are held"
    if wrong:
        state.post(
            e.UsageFlagged(id=hold.id, tenant=hold.tenant, usage=op.usage, detail=wrong), now.at
        )
        raise errors.UsageBeyondHold(op.hold, wrong)
    income = transfer.revenue(hold.release, hold.currency)
    state.post(
        e.HoldSettled(
            id=hold.id,
            tenant=hold.tenant,
            usage=op.usage,
            finish=op.finish,
            charge=charge,
            currency=hold.currency,
            legs=transfer.settle(hold.tenant, hold.sources(), charge, income),
            covered=covered,
        ),
        now.at,
    )
    return _settled(state, hold, now, replayed=False)


def _settled(state: State, hold: HoldRow, now: Now, replayed: bool) -> o.Settled:
    usage = hold.usage()
    return o.Settled(
        seq=hold.closed_seq or 0,
        replayed=replayed,
        hold=hold.id,
        charge=hold.charge,
        currency=hold.currency,
        usage=usage,
        lines=tuple(_sheet(state, hold).lines(usage, bool(hold.batch), hold.volume, hold.covered)),
        available=available(state, hold.tenant, now.at),
        covered=hold.covered,
    )


def void(state: State, op: o.Void, now: Now) -> o.Voided:
    """Gives a hold back, once. The same again returns the first result."""
    before = state.get(HoldRow, op.hold)
    if before is not None and before.state not in (OPEN, SETTLED) and before.finish == op.reason:
        seq = before.closed_seq or 0
        left = available(state, before.tenant, now.at)
        return o.Voided(seq=seq, replayed=True, hold=op.hold, available=left)
    hold = _open_hold(state, op.hold)
    back = transfer.settle(hold.tenant, hold.sources(), 0, "")
    seq = state.post(
        e.HoldVoided(
            id=hold.id, tenant=hold.tenant, reason=op.reason, currency=hold.currency, legs=back
        ),
        now.at,
    )
    return o.Voided(seq=seq, hold=op.hold, available=available(state, hold.tenant, now.at))


def progress(state: State, op: o.Progress, now: Now) -> o.Noted:
    """Remembers what an open hold has used. Late news of a closed hold is no error.

    Counts only grow: an older report that arrives late is ignored.
    """
    hold = state.get(HoldRow, op.hold)
    if hold is None or hold.state != OPEN:
        return o.Noted(seq=state.seq)
    wrong = _disbelief(hold, op.usage)
    if wrong:
        raise errors.UsageBeyondHold(op.hold, wrong)
    if hold.progress is not None and progress_of(hold).completion > op.usage.completion:
        return o.Noted(seq=state.seq)
    state.note(hold, msgspec.json.encode(op.usage).decode())
    return o.Noted(seq=state.seq)


def progress_of(hold: HoldRow) -> Usage:
    """The last durable progress of an open hold; nothing if there was none."""
    return msgspec.json.decode(hold.progress, type=Usage) if hold.progress else Usage()


def close(state: State, hold_id: str, cause: str, now: Now) -> o.Settled | o.Voided:
    """Ends a hold that nobody will end: its process died or its lifetime ran out.

    It is settled at its last durable progress, or voided if it had made none.
    """
    hold = _open_hold(state, hold_id)
    used = progress_of(hold)
    if used.total:
        return settle(state, o.Settle(hold=hold_id, usage=used, finish=cause), now)
    return void(state, o.Void(hold=hold_id, reason=cause), now)


def overdrawn(error: Overdrawn) -> errors.LedgerError:
    """The refusal that stands for a balance which would pass its floor, or int64."""
    if error.floor is None or error.delta > 0:
        return errors.NotAllowed(f"{error.account} would leave the range of int64 nano-units")
    return errors.InsufficientFunds(error.balance - error.floor, -error.delta)
