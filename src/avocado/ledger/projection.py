"""What each journal entry does to the rows: the projections of the book, one function an entry.

Called by ``State.apply`` only, after the entry's legs have moved. The writer and the proof both run
this code, so a replayed book equals the stored one, or one of them is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from avocado.ledger import entry as e
from avocado.ledger import filing, transfer
from avocado.ledger.periods import TOTAL, month_of, volume_name
from avocado.ledger.rows import (
    OPEN,
    SETTLED,
    VOIDED,
    Account,
    AllowanceRow,
    Customer,
    GrantRow,
    HoldRow,
    Key,
    Movement,
    Posting,
    Price,
    Promise,
    Spent,
    sheet_of,
)
from avocado.terms.price import PriceSheet

if TYPE_CHECKING:
    from avocado.ledger.state import State


Posted: TypeAlias = e.Deposited | e.Granted | e.Billed | e.Refunded | e.Adjusted


# -- counters --------------------------------------------------------------------------------------


def count(state: State, hold: HoldRow, delta: int, create: bool) -> None:
    """Adds to the counters of each limited subject; only a new hold may start one."""
    customer = state.need(Customer, hold.tenant)
    bump(state, f"customer:{hold.tenant}", customer, hold, delta, create)
    if hold.key_id is not None:
        key = state.need(Key, hold.key_id)
        bump(state, f"key:{hold.key_id}", key, hold, delta, create)


def bump(
    state: State, subject: str, who: Customer | Key, hold: HoldRow, delta: int, create: bool
) -> None:
    if who.month_limit is None and who.total_limit is None:
        return
    for name, limit in (
        (f"{subject}/{month_of(hold.opened)}", who.month_limit),
        (f"{subject}/{TOTAL}", who.total_limit),
    ):
        if limit is None:
            continue
        row = state.get(Spent, name)
        if row is not None:
            state.edit(row).amount += delta
        elif create:
            state.add(Spent(name, delta))


def use_volume(state: State, hold: HoldRow, tokens: int) -> None:
    """Counts tokens towards the tiers of the price, in the month in which the request began."""
    if not sheet(state, hold.price_version).tiers:
        return
    name = volume_name(hold.tenant, hold.price_version, hold.opened)
    row = state.get(Spent, name)
    if row is None:
        state.add(Spent(name, tokens))
    else:
        state.edit(row).amount += tokens


def sheet(state: State, version: str) -> PriceSheet:
    """The published price sheet of that version. Raises KeyError."""
    return sheet_of(state.need(Price, version).terms)


def start_counter(state: State, name: str, amount: int) -> None:
    row = state.get(Spent, name)
    if row is None:
        state.add(Spent(name, amount))
    else:
        state.edit(row).amount = amount


# -- one function an entry -------------------------------------------------------------------------


def opened(state: State, entry: e.CustomerOpened, seq: int, at: int) -> None:
    state.add(
        Customer(entry.tenant, entry.name, entry.currency, entry.credit_limit, None, None, at, seq)
    )
    state.add(Account(transfer.wallet(entry.tenant), entry.currency, 0, -entry.credit_limit))
    state.add(Account(transfer.held(entry.tenant), entry.currency, 0, 0))


def credit_limit(state: State, entry: e.CreditLimitSet, seq: int, at: int) -> None:
    state.edit(state.need(Customer, entry.tenant)).credit_limit = entry.credit_limit
    account = state.need(Account, transfer.wallet(entry.tenant))
    state.edit(account, account.balance).floor = -entry.credit_limit


def spend_limit(state: State, entry: e.SpendLimitSet, seq: int, at: int) -> None:
    who: Customer | Key
    if entry.key_id is None:
        who, subject = state.need(Customer, entry.tenant), f"customer:{entry.tenant}"
    else:
        who, subject = state.need(Key, entry.key_id), f"key:{entry.key_id}"
    state.edit(who)
    who.month_limit, who.total_limit = entry.month, entry.total
    if entry.month is not None:
        start_counter(state, f"{subject}/{entry.period}", entry.spent_month)
    if entry.total is not None:
        start_counter(state, f"{subject}/{TOTAL}", entry.spent_total)


def key_added(state: State, entry: e.KeyAdded, seq: int, at: int) -> None:
    state.add(
        Key(
            entry.key_id,
            entry.tenant,
            entry.name,
            entry.digest,
            entry.created,
            entry.expires,
            None,
            None,
            None,
            seq,
        )
    )


def key_revoked(state: State, entry: e.KeyRevoked, seq: int, at: int) -> None:
    state.edit(state.need(Key, entry.key_id)).revoked = at


def price(state: State, entry: e.PricePublished, seq: int, at: int) -> None:
    state.add(Price(entry.version, json.dumps(entry.terms, sort_keys=True), at, seq))


def posting(
    state: State,
    entry: Posted,
    content: str,
    seq: int,
) -> None:
    kind = type(entry).__name__
    row = Posting(entry.id, kind, entry.tenant, entry.currency, entry.amount, 0, content, seq)
    if isinstance(entry, e.Deposited):
        row.tax, row.pays = entry.tax, entry.pays or ""
    state.add(row)
    moved(state, entry, seq, 0)


def moved(state: State, entry: Posted | e.GrantExpired, seq: int, at: int) -> None:
    """Notes an entry of money that is no hold; the legs do the rest."""
    state.add(Movement(seq, entry.tenant))


def deposited(state: State, entry: e.Deposited, seq: int, at: int) -> None:
    posting(state, entry, entry.reference, seq)


def billed(state: State, entry: e.Billed, seq: int, at: int) -> None:
    posting(state, entry, f"{entry.item} {entry.reason}", seq)


def frozen(state: State, entry: e.CustomerFrozen, seq: int, at: int) -> None:
    customer = state.edit(state.need(Customer, entry.tenant))
    customer.frozen = entry.reason if entry.frozen else ""


def granted(state: State, entry: e.Granted, seq: int, at: int) -> None:
    posting(state, entry, f"{entry.priority} {entry.expires} {entry.reason}", seq)
    lot = state.add(
        GrantRow(entry.id, entry.tenant, entry.amount, entry.priority, entry.expires, 0, seq)
    )
    state.file_lot(lot)


def nothing(state: State, entry: e.AnyEntry, seq: int, at: int) -> None:
    """The legs were all of it."""


def adjusted(state: State, entry: e.Adjusted, seq: int, at: int) -> None:
    posting(state, entry, f"{entry.actor}: {entry.reason}", seq)


def refunded(state: State, entry: e.Refunded, seq: int, at: int) -> None:
    posting(state, entry, f"{entry.of} {entry.reason}", seq)
    hold = state.get(HoldRow, entry.of)
    if hold is not None:
        state.edit(hold, hold.state).refunded += entry.amount
        count(state, hold, -entry.amount, create=False)
    else:
        state.edit(state.need(Posting, entry.of)).refunded += entry.amount


def allowed(state: State, entry: e.AllowanceGiven, seq: int, at: int) -> None:
    lot = AllowanceRow(
        entry.id,
        entry.tenant,
        entry.tokens,
        entry.tokens,
        0,
        0,
        0,
        json.dumps(list(entry.offers)),
        entry.priority,
        entry.expires,
        entry.reason,
        0,
        0,
        at,
        seq,
    )
    state.file_allowance(state.add(lot))
    customer = state.need(Customer, entry.tenant)
    if not customer.allowed:
        state.edit(customer).allowed = 1


def allowance_expired(state: State, entry: e.AllowanceExpired, seq: int, at: int) -> None:
    lot = shift(state, entry.id, free=-entry.tokens, expired=entry.tokens)
    if entry.ended:
        lot.ended, lot.expires = 1, at


def shift(
    state: State, lot_id: str, free: int = 0, reserved: int = 0, used: int = 0, expired: int = 0
) -> AllowanceRow:
    """Moves tokens of a lot between its states; the changes sum to zero."""
    lot = state.need(AllowanceRow, lot_id)
    state.edit(lot, lot.free)
    lot.free += free
    lot.reserved += reserved
    lot.used += used
    lot.expired += expired
    lot.closed = int(lot.free == 0)
    state.file_allowance(lot)
    return lot


def give_back(state: State, hold: HoldRow, covered: int) -> None:
    """A hold's reserved tokens are used as far as ``covered`` goes; the rest is free again."""
    for lot_id, tokens in hold.reserved():
        take = min(tokens, covered)
        covered -= take
        shift(state, lot_id, free=tokens - take, reserved=-tokens, used=take)


def placed(state: State, entry: e.HoldPlaced, seq: int, at: int) -> None:
    sources = [(name, -delta) for name, delta in entry.legs if delta < 0]
    plain = not sources or (len(sources) == 1 and sources[0][0] == transfer.wallet(entry.tenant))
    hold = HoldRow(
        entry.id,
        entry.tenant,
        entry.key_id,
        entry.offer,
        entry.release,
        entry.price_version,
        entry.currency,
        entry.prompt_tokens,
        entry.max_tokens,
        entry.n,
        int(entry.batch),
        entry.lifetime,
        entry.epoch,
        entry.idempotency_key,
        entry.fingerprint,
        entry.amount,
        "" if plain else json.dumps(sources, separators=(",", ":")),
        at,
        seq,
        entry.volume,
        json.dumps(entry.lots, separators=(",", ":")) if entry.lots else "",
    )
    state.add(hold)
    for lot_id, tokens in entry.lots:
        shift(state, lot_id, free=-tokens, reserved=tokens)
    if entry.idempotency_key is not None:
        promise(state, entry.tenant, entry.idempotency_key, entry.fingerprint or "", entry.id)
    count(state, hold, entry.amount, create=True)


def promise(state: State, tenant: str, key: str, fingerprint: str, hold: str) -> None:
    name = f"{tenant}/{key}"
    row = state.get(Promise, name)
    if row is None:
        state.add(Promise(name, fingerprint, hold))
    else:
        state.edit(row)
        row.fingerprint, row.hold = fingerprint, hold


def close(state: State, hold_id: str, end: str, seq: int, at: int) -> HoldRow:
    hold = state.edit(state.need(HoldRow, hold_id), OPEN)
    hold.state = end
    hold.closed = at
    hold.closed_seq = seq
    hold.progress = None
    return hold


def settled(state: State, entry: e.HoldSettled, seq: int, at: int) -> None:
    hold = close(state, entry.id, SETTLED, seq, at)
    usage = entry.usage
    hold.prompt, hold.completion = usage.prompt, usage.completion
    hold.cached, hold.reasoning = usage.cached, usage.reasoning
    hold.charge = entry.charge
    hold.covered = entry.covered
    if hold.lots:
        give_back(state, hold, entry.covered)
    hold.finish = entry.finish
    use_volume(state, hold, usage.total)
    count(state, hold, entry.charge - hold.amount, create=False)


def voided(state: State, entry: e.HoldVoided, seq: int, at: int) -> None:
    hold = close(state, entry.id, VOIDED, seq, at)
    hold.finish = entry.reason
    if hold.lots:
        give_back(state, hold, 0)
    count(state, hold, -hold.amount, create=False)


APPLY: Final[dict[type[e.Entry], Callable[[State, Any, int, int], None]]] = {
    e.CustomerOpened: opened,
    e.CreditLimitSet: credit_limit,
    e.SpendLimitSet: spend_limit,
    e.KeyAdded: key_added,
    e.KeyRevoked: key_revoked,
    e.PricePublished: price,
    e.Deposited: deposited,
    e.Granted: granted,
    e.GrantExpired: moved,
    e.Billed: billed,
    e.CustomerFrozen: frozen,
    e.AllowanceGiven: allowed,
    e.AllowanceExpired: allowance_expired,
    e.HoldPlaced: placed,
    e.HoldSettled: settled,
    e.HoldVoided: voided,
    e.UsageFlagged: nothing,
    e.Refunded: refunded,
    e.Adjusted: adjusted,
    e.DocumentFiled: filing.filed,
}
