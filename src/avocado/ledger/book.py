"""The book's decisions: what an operation does to a state, or why it is refused. Pure.

``decide`` raises a LedgerError before it changes anything (except for flags, which are entries of
their own), so one refused operation never spoils the batch that it came with. Holds are decided in
``holds``, money that comes and goes in ``postings``, documents in ``documents``, included tokens in
``allowances``; here are customers, keys and prices.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from avocado.ledger import allowances, documents, errors, holds, postings, transfer
from avocado.ledger import entry as e
from avocado.ledger import operation as o
from avocado.ledger.grants import balance_of, expire_grants
from avocado.ledger.holds import Now, customer_of
from avocado.ledger.periods import month_of, month_start
from avocado.ledger.postings import check_amount
from avocado.ledger.rows import Customer, Key, Price
from avocado.ledger.state import Overdrawn, State
from avocado.terms.money import MAX_NANOS, Money, MoneyError
from avocado.terms.price import PriceSheet

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_ID_LENGTH: Final = 200


class Close(o.Operation, frozen=True, kw_only=True):
    """Internal: ends an orphaned hold. It never comes through a socket."""

    hold: str
    cause: str


class ExpireGrants(o.Operation, frozen=True, kw_only=True):
    """Internal: posts the end of a customer's overdue grants and allowances."""

    tenant: str


AnyInternal = o.AnyOperation | Close | ExpireGrants


def decide(state: State, op: AnyInternal, now: Now) -> o.AnyResult:
    """Applies one operation to the state and returns what its caller is told after the commit.

    Raises:
        LedgerError: the operation is refused, and the state is as it was.
    """
    try:
        return _DECIDE[type(op)](state, op, now)
    except Overdrawn as error:
        raise holds.overdrawn(error) from None


def check(op: o.Operation) -> None:
    """Refuses what no database or JSON can carry, before it is queued. Runs in the caller.

    Raises:
        NotAllowed: an id that is not short printable ASCII, NUL or lone surrogates in a text, a
            number beyond int64.
    """
    if type(op) is o.File:
        documents.check_document(op)
    for name in op.__struct_fields__:
        value = getattr(op, name)
        if type(value) is str:
            if not _is_name(value):
                _check_text(name, value)
        elif type(value) is tuple:
            for part in value:
                if not (type(part) is str and _is_name(part)):
                    raise errors.NotAllowed(f"{name} must be short printable ASCII texts")
        elif type(value) is int and abs(value) > MAX_NANOS:
            raise errors.NotAllowed(f"{name} is beyond int64")


def _is_name(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= _ID_LENGTH


def _check_text(name: str, value: str) -> None:
    if name not in ("name", "reason", "reference", "actor", "finish", "cause"):
        raise errors.NotAllowed(f"{name} must be at most {_ID_LENGTH} printable ASCII characters")
    if "\0" in value or len(value) > 2000 or any("\ud800" <= c <= "\udfff" for c in value):
        raise errors.NotAllowed(f"{name} must be Unicode text of at most 2000 characters")


def _recorded(seq: int, id_: str, replayed: bool = False) -> o.Recorded:
    return o.Recorded(seq=seq, id=id_, replayed=replayed)


# -- customers, keys, prices -----------------------------------------------------------------------


def _open_customer(state: State, op: o.OpenCustomer, now: Now) -> o.Recorded:
    known = state.get(Customer, op.tenant)
    if known is not None:
        if (known.name, known.currency) != (op.name, op.currency):
            raise errors.IdempotencyConflict(op.tenant)
        return _recorded(known.seq, op.tenant, replayed=True)
    if not _TENANT.fullmatch(op.tenant):
        raise errors.NotAllowed(
            f"{op.tenant!r} is no customer id: use up to 64 letters, digits, dots, - and _"
        )
    try:
        Money(0, op.currency)
    except MoneyError as error:
        raise errors.NotAllowed(str(error)) from None
    check_amount(op.credit_limit, least=0)
    seq = state.post(
        e.CustomerOpened(
            tenant=op.tenant, name=op.name, currency=op.currency, credit_limit=op.credit_limit
        ),
        now.at,
    )
    return _recorded(seq, op.tenant)


def _set_credit_limit(state: State, op: o.SetCreditLimit, now: Now) -> o.Recorded:
    customer_of(state, op.tenant)
    check_amount(op.credit_limit, least=0)
    balance = balance_of(state, transfer.wallet(op.tenant))
    if balance < -op.credit_limit:
        raise errors.InsufficientFunds(balance + op.credit_limit, 0)
    seq = state.post(e.CreditLimitSet(tenant=op.tenant, credit_limit=op.credit_limit), now.at)
    return _recorded(seq, op.tenant)


def _set_spend_limit(state: State, op: o.SetSpendLimit, now: Now) -> o.Recorded:
    customer_of(state, op.tenant)
    subject = f"customer:{op.tenant}"
    if op.key_id is not None:
        key = state.get(Key, op.key_id)
        if key is None or key.tenant != op.tenant:
            raise errors.UnknownKey(op.key_id)
        subject = f"key:{op.key_id}"
    for limit in (op.month, op.total):
        if limit is not None:
            check_amount(limit, least=0)
    period = month_of(now.at)
    seq = state.post(
        e.SpendLimitSet(
            tenant=op.tenant,
            key_id=op.key_id,
            month=op.month,
            total=op.total,
            period=period,
            spent_month=state.measure(subject, month_start(now.at)),
            spent_total=state.measure(subject, 0),
        ),
        now.at,
    )
    return _recorded(seq, op.key_id or op.tenant)


def _freeze(state: State, op: o.Freeze, now: Now) -> o.Recorded:
    customer = customer_of(state, op.tenant)
    if not op.actor.strip() or (op.frozen and not op.reason.strip()):
        raise errors.NotAllowed("freezing needs a reason and the name of who does it")
    if customer.frozen == (op.reason if op.frozen else ""):
        return _recorded(customer.seq, op.tenant, replayed=True)
    entry = e.CustomerFrozen(tenant=op.tenant, frozen=op.frozen, reason=op.reason, actor=op.actor)
    return _recorded(state.post(entry, now.at), op.tenant)


def _add_key(state: State, op: o.AddKey, now: Now) -> o.Recorded:
    customer_of(state, op.tenant)
    known = state.get(Key, op.key_id)
    if known is not None:
        if (known.tenant, known.digest) != (op.tenant, op.digest):
            raise errors.IdempotencyConflict(op.key_id)
        return _recorded(known.seq, op.key_id, replayed=True)
    if state.key_by_digest(op.digest) is not None:
        raise errors.IdempotencyConflict(op.key_id)
    seq = state.post(
        e.KeyAdded(
            key_id=op.key_id,
            tenant=op.tenant,
            name=op.name,
            digest=op.digest,
            created=op.created,
            expires=op.expires,
        ),
        now.at,
    )
    return _recorded(seq, op.key_id)


def _revoke_key(state: State, op: o.RevokeKey, now: Now) -> o.Recorded:
    key = state.get(Key, op.key_id)
    if key is None:
        raise errors.UnknownKey(op.key_id)
    if key.revoked is not None:
        return _recorded(key.seq, op.key_id, replayed=True)
    return _recorded(
        state.post(e.KeyRevoked(key_id=op.key_id, tenant=key.tenant), now.at), key.key_id
    )


def price_version(op: o.PublishPrice) -> str:
    """The version of a price to publish. Raises NotAllowed for terms that are no price sheet."""
    try:
        return PriceSheet(**op.terms).version
    except (TypeError, ValueError) as error:
        raise errors.NotAllowed(f"these terms are no price sheet: {error}") from None


def _publish_price(state: State, op: o.PublishPrice, now: Now) -> o.Recorded:
    version = price_version(op)
    known = state.get(Price, version)
    if known is not None:
        return _recorded(known.seq, version, replayed=True)
    terms = PriceSheet(**op.terms).terms()
    return _recorded(state.post(e.PricePublished(version=version, terms=terms), now.at), version)


def _close(state: State, op: Close, now: Now) -> o.AnyResult:
    return holds.close(state, op.hold, op.cause, now)


def _expire(state: State, op: ExpireGrants, now: Now) -> o.AnyResult:
    expire_grants(state, op.tenant, now.at)
    allowances.expire(state, op.tenant, now.at)
    return o.Noted(seq=state.seq)


_DECIDE: Final[dict[type[o.Operation], Callable[[State, Any, Now], o.AnyResult]]] = {
    o.OpenCustomer: _open_customer,
    o.SetCreditLimit: _set_credit_limit,
    o.SetSpendLimit: _set_spend_limit,
    o.AddKey: _add_key,
    o.RevokeKey: _revoke_key,
    o.PublishPrice: _publish_price,
    o.Deposit: postings.deposit,
    o.Grant: postings.grant,
    o.Bill: postings.bill,
    o.Freeze: _freeze,
    o.Refund: postings.refund,
    o.Adjust: postings.adjust,
    o.Allow: allowances.allow,
    o.EndAllowance: allowances.end,
    o.File: documents.file,
    o.Hold: holds.place,
    o.Settle: holds.settle,
    o.Void: holds.void,
    o.Progress: holds.progress,
    Close: _close,
    ExpireGrants: _expire,
}
