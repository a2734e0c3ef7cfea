"""Limits of customers and keys: money in the ledger, rates and the rest on the gateway's shelf."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from avocado.cli.arguments import Amount
from avocado.cli.book import operator, reading, shelf, writing
from avocado.errors import Refused
from avocado.terms.money import NANO, Money
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.gateway.access import Policy
    from avocado.ledger.rows import Customer, Key

F = TypeVar("F", bound=Callable[..., Any])
STAYS: Final = "stays"
RATES: Final = ("requests_per_minute", "tokens_per_minute")


@dataclass(frozen=True)
class Limits:
    """What a ``limit`` command was told: a value, None to take a limit away, or ``stays``."""

    month: Any = STAYS
    total: Any = STAYS
    requests_per_minute: Any = STAYS
    tokens_per_minute: Any = STAYS


class Spend(click.ParamType[Any]):
    """An amount, or ``none``."""

    name = "amount|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "none" else Amount().convert(value, param, ctx)


class PerMinute(click.ParamType[Any]):
    """A number, ``none`` (the server's default holds) or ``off`` (no limit at all)."""

    name = "number|none|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("none", "off"):
            return None if value == "none" else 0
        if not (isinstance(value, str) and value.isascii() and value.isdigit() and int(value)):
            self.fail(f"{value!r} is no number of at least 1, nor none or off", param, ctx)
        if int(value) > 10**12:
            self.fail(f"{value} a minute is no limit", param, ctx)
        return int(value)


class _Stays(click.Option):
    """An option whose absence can be told from ``none``."""

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        return STAYS

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        return STAYS if value in (None, STAYS) else super().type_cast_value(ctx, value)


def with_limits(command: F) -> F:
    """The four options that both ``limit`` commands take."""
    for name, kind, said in (
        ("--tokens-per-minute", PerMinute(), "Tokens, prompt and max_tokens together."),
        ("--requests-per-minute", PerMinute(), "Requests, answered or not."),
        ("--total", Spend(), "Money it may ever spend."),
        ("--month", Spend(), "Money it may spend in a calendar month (UTC)."),
    ):
        command = click.option(name, type=kind, cls=_Stays, help=said)(command)
    return command


def find_key(workspace: Workspace, text: str) -> Key:
    """The key by its id, or by the key itself.

    Raises:
        Refused: there is none.
    """
    from avocado.gateway import keys

    wanted = keys.key_id(text.encode()) or text
    with reading(workspace) as reader:
        stored = reader.keys(None)
    for key in stored:
        if key.key_id == wanted:
            return key
    raise Refused(f"there is no key {wanted}: avocado key list shows what there is")


def policies_of(workspace: Workspace, key_ids: Sequence[str]) -> dict[str, Policy]:
    """The policy of each key, or the default one."""
    from avocado.gateway.access import Policy, read

    found: dict[str, Policy] = {}
    with shelf(workspace) as database:
        for start in range(0, len(key_ids), 500):
            found |= read(database, [f"key:{each}" for each in key_ids[start : start + 500]])
    return {each: found.get(f"key:{each}", Policy()) for each in key_ids}


def set_limits(
    workspace: Workspace, tenant: str, key: Key | None, limits: Limits
) -> tuple[dict[str, Any], str]:
    """Sets the limits that are named. Returns what holds now, as a value and as a line.

    Raises:
        click.UsageError: nothing is named.
    """
    from avocado.gateway.access import Policy, change, read

    given = {name: value for name, value in vars(limits).items() if value != STAYS}
    if not given:
        raise click.UsageError("name a limit: --month, --total, --requests-per-minute, …")
    subject = f"customer:{tenant}" if key is None else f"key:{key.key_id}"
    if "month" in given or "total" in given:
        _set_spend(workspace, tenant, key, given)
    rates = {name: given[name] for name in RATES if name in given}
    with shelf(workspace) as database:
        policy = (
            change(database, subject, operator(), **rates)
            if rates
            else read(database, [subject]).get(subject, Policy())
        )
    row = _row(workspace, tenant, key)
    currency = workspace.config.currency
    now = {
        "subject": subject,
        "month": _decimal(row.month_limit, currency),
        "total": _decimal(row.total_limit, currency),
        **{name: getattr(policy, name) for name in RATES},
    }
    words = ", ".join(
        f"{name.replace('_', ' ')} {'off' if value == 0 else value}"
        for name, value in now.items()
        if name != "subject" and value is not None
    )
    return now, f"{subject}: {words or 'no limits of its own'}"


def _set_spend(workspace: Workspace, tenant: str, key: Key | None, given: dict[str, Any]) -> None:
    from avocado.ledger.operation import SetSpendLimit

    before, currency = _row(workspace, tenant, key), workspace.config.currency
    with reading(workspace) as reader:
        book = reader.customer(tenant).currency
    if book != currency:
        raise Refused(f"the book of {tenant} is in {book}; avocado.toml says {currency}")
    month, total = given.get("month", STAYS), given.get("total", STAYS)
    with writing(workspace) as do:
        do(
            SetSpendLimit(
                tenant=tenant,
                key_id=None if key is None else key.key_id,
                month=before.month_limit if month == STAYS else _nanos(month),
                total=before.total_limit if total == STAYS else _nanos(total),
            )
        )


def _row(workspace: Workspace, tenant: str, key: Key | None) -> Customer | Key:
    if key is not None:
        return find_key(workspace, key.key_id)
    with reading(workspace) as reader:
        return reader.customer(tenant)


def _nanos(money: Money | None) -> int | None:
    return None if money is None else money.nanos


def _decimal(nanos: int | None, currency: str) -> str | None:
    return None if nanos is None else Money(nanos, currency).decimal()


def rotate_key(workspace: Workspace, text: str, overlap_hours: int) -> tuple[str, Key]:
    """A new key that may do what the old one may, which ends after the overlap. Returns the new
    key's text and the old one's record.

    Raises:
        Refused: there is no such key, or it is revoked or has ended.
    """
    from avocado.gateway.access import change
    from avocado.gateway.keys import mint
    from avocado.ledger.operation import AddKey, SetSpendLimit

    old = find_key(workspace, text)
    if old.revoked is not None:
        raise Refused(f"{old.key_id} is revoked: create a new key for {old.tenant}")
    policy = policies_of(workspace, [old.key_id])[old.key_id]
    new, now = mint(workspace.pepper()), time.time_ns()
    ends = end_of(old, policy)
    if ends is not None and ends <= now:
        raise Refused(f"{old.key_id} ended at {moment(ends)}: create a new key for {old.tenant}")
    bounds = {name: getattr(policy, name) for name in ("scopes", "models", *RATES)}
    if any(value is not None for value in bounds.values()):
        with shelf(workspace) as database:
            change(database, f"key:{new.id}", operator(), **bounds)
    with writing(workspace) as do:
        do(
            AddKey(
                key_id=new.id,
                tenant=old.tenant,
                name=old.name,
                digest=new.digest,
                created=now,
                expires=old.expires,
            )
        )
        if (old.month_limit, old.total_limit) != (None, None):
            do(
                SetSpendLimit(
                    tenant=old.tenant,
                    key_id=new.id,
                    month=old.month_limit,
                    total=old.total_limit,
                )
            )
    with shelf(workspace) as database:
        until = now + overlap_hours * 3600 * NANO
        if policy.until is not None:
            until = min(until, policy.until)  # it was rotated before: no rotation lengthens a life
        change(database, f"key:{old.key_id}", operator(), until=until)
    return new.text, old


def end_of(key: Key, policy: Policy) -> int | None:
    """When a key ends by its record or by its policy, whichever is earlier; ns since 1970."""
    return min((end for end in (key.expires, policy.until) if end is not None), default=None)


def changes_of(workspace: Workspace, tenant: str | None) -> list[dict[str, Any]]:
    """Every change of a policy, of one customer and its keys or of all, oldest first; a value that
    was not set, or is not any more, is None.

    Raises:
        Refused: the record was altered.
    """
    from avocado.gateway.changes import changes

    with reading(workspace) as reader:
        if tenant is not None:
            reader.customer(tenant)
        owners = {f"key:{each.key_id}": each.tenant for each in reader.keys(None)}
        owners |= {f"customer:{each.tenant}": each.tenant for each in reader.customers()}
    with shelf(workspace) as database:
        found = changes(database)
    rows = []
    for each in found:
        owner = owners.get(each.subject, "")
        if tenant in (None, owner):
            old, new = json.loads(each.old), json.loads(each.new)
            changed = sorted(name for name in old | new if old.get(name) != new.get(name))
            rows.append(
                {
                    "seq": each.seq,
                    "at": moment(each.at),
                    "who": each.who,
                    "customer": owner,
                    "subject": each.subject,
                    "changed": {
                        name: {"old": _term(name, old), "new": _term(name, new)} for name in changed
                    },
                }
            )
    return rows


def _term(name: str, terms: dict[str, Any]) -> Any:
    value = terms.get(name)
    return moment(value) if name == "until" and value is not None else value


def moment(nanos: int) -> str:
    """A time as people and programs read it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanos // NANO))


def change_in_words(name: str, old: Any, new: Any) -> str:
    """``requests per minute: 3 → off``."""
    return f"{name.replace('_', ' ')}: {_words(name, old)} → {_words(name, new)}"


def _words(name: str, value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, list):
        return " ".join(value)
    return "off" if name in RATES and value == 0 else str(value)
