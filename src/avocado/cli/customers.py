"""``avocado customer``, ``key`` and ``credit``: who may ask, and with what money."""

from __future__ import annotations

import re
import time
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import click

from avocado.cli.arguments import Amount, workspace_here
from avocado.cli.book import operator, reading, shelf, writing
from avocado.cli.limits import (
    Limits,
    change_in_words,
    changes_of,
    end_of,
    find_key,
    moment,
    policies_of,
    rotate_key,
    set_limits,
    with_limits,
)
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.terms.money import NANO, Money
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.ledger.operation import Deposit

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PLAN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def add_customer(
    workspace: Workspace, tenant: str, name: str | None, credit: Money, credit_limit: Money
) -> None:
    """Opens a customer's page in the ledger, and deposits ``credit`` if there is any.

    Raises:
        Refused: the id is none, or taken: the same again would deposit again.
    """
    from avocado.gateway.admin import AdminRefused
    from avocado.ledger.operation import OpenCustomer

    taken = f"there is a customer {tenant!r} already: give it money with: avocado credit"
    if not _TENANT.fullmatch(tenant):
        raise Refused(
            f"{tenant!r} is no customer id: use lower-case letters, digits, - and _, at most 64"
        )
    currency = workspace.config.currency
    with writing(workspace) as do:
        opening = OpenCustomer(
            tenant=tenant,
            name=name or tenant,
            currency=currency,
            credit_limit=credit_limit.nanos,
        )
        try:
            opened = do(opening)
        except AdminRefused as error:
            if error.code != "idempotency_conflict":
                raise
            raise Refused(taken) from None  # under another name
        if opened.replayed:
            raise Refused(taken)
        if credit.nanos:
            do(_deposit(tenant, credit.nanos, currency, "credit at opening"))


def _deposit(tenant: str, nanos: int, currency: str, reference: str) -> Deposit:
    from avocado.ledger.operation import Deposit

    return Deposit(
        id=f"dep_{token_hex(12)}",
        tenant=tenant,
        amount=nanos,
        currency=currency,
        reference=reference,
    )


def create_key(
    workspace: Workspace, tenant: str, name: str, days: int | None = None, **policy: Any
) -> str:
    """Mints a key, stores its digest, and its policy (see ``gateway.access.Policy``) if there is
    one. Returns the key, which can't be had again."""
    from avocado.gateway.access import change
    from avocado.gateway.keys import mint
    from avocado.ledger.operation import AddKey

    key = mint(workspace.pepper())
    now = time.time_ns()
    expires = None if days is None else now + days * 86_400 * NANO
    if policy:
        with shelf(workspace) as database:  # first: a key is never without its bounds
            change(database, f"key:{key.id}", operator(), **policy)
    with writing(workspace) as do:
        do(
            AddKey(
                key_id=key.id,
                tenant=tenant,
                name=name,
                digest=key.digest,
                created=now,
                expires=expires,
            )
        )
    return key.text


def add_credit(workspace: Workspace, tenant: str, amount: Money, reference: str) -> Money:
    """Deposits ``amount``. Returns what the customer can spend now."""
    from avocado.ledger.operation import Posted

    with writing(workspace) as do:
        posted = do(_deposit(tenant, amount.nanos, workspace.config.currency, reference))
    assert isinstance(posted, Posted)
    return Money(posted.available, workspace.config.currency)


@click.group()
def customer() -> None:
    """Add and list customers."""


@customer.command("add")
@click.argument("customer")
@click.option("--name", help="Shown on invoices; the id if left out.")
@click.option("--credit", type=Amount(), default="0", help="Prepaid credit, such as 1.00.")
@click.option(
    "--credit-limit", type=Amount(), default="0", help="How far below zero it may go (postpaid)."
)
@with_output
def add(out: Output, customer: str, name: str | None, credit: Money, credit_limit: Money) -> None:
    """Add CUSTOMER, an id such as acme, with prepaid credit if you like."""
    workspace = workspace_here()
    add_customer(workspace, customer, name, credit, credit_limit)
    shown = Money(credit.nanos, workspace.config.currency)
    out.result(
        {"customer": customer, "name": name or customer, "credit": shown.decimal()},
        f"Added customer {customer} with {shown} of credit",
        f"Next: avocado key create {customer}",
    )


@customer.command("list")
@with_output
def list_(out: Output) -> None:
    """List customers and their balances."""
    with reading(workspace_here()) as reader:
        pages = [(each, reader.balance(each.tenant)) for each in reader.customers()]
    rows = [
        {
            "customer": page.tenant,
            "name": page.name,
            "currency": page.currency,
            "available": Money(balance.available, page.currency).decimal(),
            "held": Money(balance.held, page.currency).decimal(),
            "credit_limit": Money(page.credit_limit, page.currency).decimal(),
        }
        for page, balance in pages
    ]
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("No customers yet. Next: avocado customer add acme --credit 1.00")
    else:
        columns = ["customer", "name", "available", "held", "credit_limit", "currency"]
        out.table(columns, [[row[column] for column in columns] for row in rows])


@customer.command("limit")
@click.argument("customer")
@with_limits
@with_output
def limit_customer(
    out: Output,
    customer: str,
    month: Any,
    total: Any,
    requests_per_minute: Any,
    tokens_per_minute: Any,
) -> None:
    """Limit what CUSTOMER may spend, and how fast it may ask. A limit that is not named stays;
    `none` takes one away. A rate of `off` lifts the server's default too.
    """
    with reading(workspace_here()) as reader:
        reader.customer(customer)
    limits = Limits(month, total, requests_per_minute, tokens_per_minute)
    out.result(*set_limits(workspace_here(), customer, None, limits))


@customer.command("plan")
@click.argument("customer")
@click.argument("plan")
@with_output
def plan_(out: Output, customer: str, plan: str) -> None:
    """Put CUSTOMER on PLAN, a word such as pro, or on `none`. Offers can be for a plan alone."""
    from avocado.gateway.access import change

    if not _PLAN.fullmatch(plan):
        raise Refused(f"{plan!r} is no plan: letters, digits, '.', '_' and '-', at most 64")
    workspace = workspace_here()
    with reading(workspace) as reader:
        reader.customer(customer)
    wanted = None if plan == "none" else plan
    with shelf(workspace) as database:
        change(database, f"customer:{customer}", operator(), plan=wanted)
    out.result(
        {"customer": customer, "plan": wanted},
        f"{customer} is on {f'the plan {plan}' if wanted else 'no plan'}; servers know it within a "
        "second",
    )


@customer.command("log")
@click.argument("customer", required=False)
@with_output
def log(out: Output, customer: str | None) -> None:
    """Who changed what CUSTOMER, or anybody, and its keys may do, and when: scopes, models, rates,
    rotations. The record is checked: it is refused where it was altered. Changes of money, and
    keys made and revoked, stand in the ledger's journal.
    """
    rows = changes_of(workspace_here(), customer)
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("Nothing was changed yet.")
    else:
        for row in rows:  # lines, not a table: a record is not cut where a terminal ends
            changed = [change_in_words(name, **each) for name, each in row["changed"].items()]
            whose = row["customer"] or "nobody"
            subject = "" if row["subject"] == f"customer:{whose}" else f" {row['subject']}"
            head = f"{row['seq']}  {row['at']}  {row['who']}  {whose}{subject}"
            out.say(f"{head}  {', '.join(changed)}")


@click.group()
def key() -> None:
    """Create, list, limit, rotate and revoke API keys."""


@key.command("create")
@click.argument("customer")
@click.option("--name", default="default", show_default=True, help="What the key is for.")
@click.option("--days", type=click.IntRange(1, 36_500), help="Expires after so many days.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["inference", "read", "metrics"]),
    help="What it may do, once for each; inference and read if left out.",
)
@click.option(
    "--model", "models", multiple=True, help="The only models it may ask for, once for each."
)
@with_output
def create(
    out: Output,
    customer: str,
    name: str,
    days: int | None,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
) -> None:
    """Create a key for CUSTOMER. It is shown once: only a digest of it is kept."""
    if not name.strip() or not name.isprintable() or len(name) > 100:
        raise click.BadParameter("1 to 100 printable characters", param_hint="--name")
    workspace = workspace_here()
    offered = workspace.store.pointed("offer")
    for model in models:
        if model not in offered:
            raise Refused(f"nothing is offered as {model!r}: a key for it could ask for nothing")
    policy = {"scopes": scopes or None, "models": models or None}
    set_ = {word: value for word, value in policy.items() if value is not None}
    text = create_key(workspace, customer, name, days, **set_)
    out.result({"customer": customer, "name": name, "key": text}, text)
    if not out.json:
        click.echo("This key is shown once. Give it to the customer and keep no copy.", err=True)


@key.command("list")
@click.argument("customer", required=False)
@with_output
def list_keys(out: Output, customer: str | None) -> None:
    """List the keys of CUSTOMER, or of all."""
    now = time.time_ns()
    with reading(workspace_here()) as reader:
        if customer is not None:
            reader.customer(customer)
        keys = reader.keys(customer)
    policies = policies_of(workspace_here(), [each.key_id for each in keys])
    rows = [
        {
            "key": each.key_id,
            "customer": each.tenant,
            "name": each.name,
            "created": _day(each.created),
            "state": "revoked"
            if each.revoked is not None
            else "expired"
            if (end_of(each, policies[each.key_id]) or now + 1) <= now
            else "active",
            "ends": _ends(end_of(each, policies[each.key_id])),
            "scopes": " ".join(policies[each.key_id].scopes or ("inference", "read")),
            "models": " ".join(policies[each.key_id].models or ("all",)),
        }
        for each in keys
    ]
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("No keys yet. Next: avocado key create CUSTOMER")
    else:
        out.table(list(rows[0]), [list(row.values()) for row in rows])


@key.command("limit")
@click.argument("key_id")
@with_limits
@with_output
def limit_key(
    out: Output,
    key_id: str,
    month: Any,
    total: Any,
    requests_per_minute: Any,
    tokens_per_minute: Any,
) -> None:
    """Limit what one key may spend, and how fast it may ask, within its customer's limits. A limit
    that is not named stays; `none` takes one away.
    """
    workspace = workspace_here()
    found = find_key(workspace, key_id)
    limits = Limits(month, total, requests_per_minute, tokens_per_minute)
    out.result(*set_limits(workspace, found.tenant, found, limits))


@key.command("rotate")
@click.argument("key_id")
@click.option(
    "--overlap",
    type=click.IntRange(0, 24 * 365),
    default=24,
    show_default=True,
    help="Hours for which the old key goes on working.",
)
@with_output
def rotate(out: Output, key_id: str, overlap: int) -> None:
    """Replace a key by a new one with the same name, scopes, models and limits. Both work until
    the overlap ends. What the old one spent is not counted against the new one's spend limit.
    """
    workspace = workspace_here()
    text, old = rotate_key(workspace, key_id, overlap)
    out.result(
        {"customer": old.tenant, "name": old.name, "key": text, "replaces": old.key_id}, text
    )
    if not out.json:
        hours = f"{overlap} hour{'s' if overlap > 1 else ''}"
        until = f"for {hours} at most" if overlap else "for a second at most"
        click.echo(f"Shown once. {old.key_id} goes on working {until}.", err=True)


@key.command("revoke")
@click.argument("key_id")
@with_output
def revoke(out: Output, key_id: str) -> None:
    """Revoke a key by its id (as `avocado key list` shows it) or by the key itself."""
    from avocado.ledger.operation import RevokeKey

    workspace = workspace_here()
    found = find_key(workspace, key_id).key_id
    with writing(workspace) as do:
        do(RevokeKey(key_id=found))
    out.result({"revoked": found}, f"Revoked {found}: refused within a second from now")


@click.command(context_settings={"ignore_unknown_options": True})  # -5 is a bad amount, no option
@click.argument("customer")
@click.argument("amount", type=Amount())
@click.option("--reference", default="credit by the operator", help="Names the payment.")
@with_output
def credit(out: Output, customer: str, amount: Money, reference: str) -> None:
    """Give CUSTOMER an AMOUNT of credit, in units of the workspace's currency, such as 5.00.

    It comes without tax and without an invoice: where [tax] is set, enter what was paid with
    avocado invoices topup. A present is avocado ledger grant.
    """
    if not amount.nanos:
        raise click.BadParameter("an amount of zero changes nothing", param_hint="AMOUNT")
    workspace = workspace_here()
    available = add_credit(workspace, customer, amount, reference)
    given = Money(amount.nanos, workspace.config.currency)
    lines = [f"Gave {customer} {given}; it can spend {available} now"]
    if workspace.config.tax.kind != "none":
        lines.append(
            "No tax came with it: a purchase is avocado invoices topup, a present avocado ledger "
            "grant"
        )
    out.result(
        {"customer": customer, "credit": given.decimal(), "available": available.decimal()}, *lines
    )


def _ends(end: int | None) -> str:
    return "" if end is None else moment(end)


def _day(nanos: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(nanos // NANO))
