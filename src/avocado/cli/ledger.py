"""``avocado ledger``: copies of the book, and corrections with their reasons."""

from __future__ import annotations

import time
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import click

from avocado.cli.arguments import EXISTING, Amount, workspace_here
from avocado.cli.book import operator, reading, shelf, writing
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.terms.money import NANO, Money

if TYPE_CHECKING:
    from avocado.ledger.operation import AnyOperation, Posted


@click.group()
def ledger() -> None:
    """Back up, export and correct the ledger, while the server runs or not."""


@ledger.command("backup")
@click.argument("file", type=EXISTING)
@with_output
def backup(out: Output, file: Path) -> None:
    """Copy the ledger to FILE as of one moment, and what keys and customers may do to a second file
    beside it (ledger.sqlite and ledger.gateway.sqlite). The first is a ledger: prove it with
    `avocado verify --ledger FILE`. To restore, see docs/operations.md. The pepper, without which no
    key works, is in neither: keep a copy of .avocado/pepper apart from them.
    """
    from avocado.gateway.access import backup as copy_policies
    from avocado.gateway.shelf import ShelfUnavailable
    from avocado.ledger.errors import LedgerError
    from avocado.ledger.export import backup as copy

    workspace = workspace_here()
    source = workspace.ledger
    if not isinstance(source, Path):
        raise Refused(
            "the ledger lies in PostgreSQL: back it up with pg_dump, or its own tools; "
            "the gateway_ tables with policies go along"
        )
    if file.is_dir() or not file.parent.is_dir():
        where = f"{file} is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise Refused(f"no backup was made: {where}; name a new file in one that exists")
    beside = file.with_name(f"{file.stem}.gateway.sqlite")
    if beside.exists():
        raise Refused(f"no backup was made: {beside} exists; a backup never overwrites")
    try:
        copy(source, file)  # first: a key's policy is written before the key
    except (OSError, LedgerError) as error:
        raise Refused(f"no backup was made: {error}") from error
    try:
        with shelf(workspace) as database:
            copy_policies(database, beside)
    except (OSError, Refused, ShelfUnavailable) as error:
        for each in (file, beside):
            each.unlink(missing_ok=True)
        raise Refused(f"no backup was made: {error}") from error
    pepper = workspace.state / "pepper"
    out.result(
        {"backup": str(file), "policies": str(beside), "keep_apart": str(pepper)},
        f"Copied the ledger to {file}, and what keys and customers may do to {beside}",
        f"In neither is {pepper}, without which no key works: keep a copy of it apart from them",
    )


@ledger.command("export")
@click.argument("what", type=click.Choice(["transfers", "usage", "documents"]))
@click.argument("file", type=EXISTING)
@click.option("--customer", help="Usage of one customer only.")
@with_output
def export(out: Output, what: str, file: Path, customer: str | None) -> None:
    """Write transfers (a row a leg), usage (a row a request) or documents (a row a revision:
    invoices, plans, profiles and the like) to FILE, .csv or .parquet."""
    from avocado.ledger import export as exports

    if customer is not None and what != "usage":
        raise click.UsageError("--customer goes with usage")
    if file.exists():
        raise Refused(f"{file} exists: an export never overwrites")
    with reading(workspace_here()) as reader, reader.snapshot():
        if customer is not None:
            reader.customer(customer)
        columns, rows = {
            "transfers": (exports.TRANSFERS, exports.transfers(reader)),
            "usage": (exports.USAGE, exports.usage(reader, customer)),
            "documents": (exports.DOCUMENTS, exports.documents(reader)),
        }[what]
        try:
            count = exports.write(file, columns, rows)
        except (OSError, ValueError) as error:
            file.unlink(missing_ok=True)
            raise Refused(str(error)) from error
    out.result({"rows": count, "file": str(file)}, f"Wrote {count:,} rows to {file}")


@ledger.command("refund")
@click.argument("of")
@click.option("--amount", type=Amount(), help="All that is left if left out.")
@click.option("--reason", required=True, help="Stays in the journal.")
@with_output
def refund(out: Output, of: str, amount: Money | None, reason: str) -> None:
    """Reverse OF, a request's charge, a deposit, a grant or an adjustment, wholly or in part."""
    from avocado.gateway.admin import AdminRefused
    from avocado.ledger.operation import Refund

    nanos = None if amount is None else amount.nanos
    try:
        posted = _post(Refund(id=new_id("ref"), of=of, reason=reason, amount=nanos))
    except AdminRefused as refused:
        if refused.code != "nothing_to_refund":
            raise
        left = Money(int(str(refused.fields["left"])), workspace_here().config.currency)
        raise Refused(
            f"of {of!r} at most {left} can be reversed: it is unknown, or no more is left of it"
        ) from refused
    _tell(out, posted, f"Reversed {of}")


@ledger.command("grant", context_settings={"ignore_unknown_options": True})
@click.argument("customer")
@click.argument("amount", type=Amount())
@click.option("--reason", default="", help="Stays in the journal.")
@click.option("--days", type=click.IntRange(1, 36_500), help="Expires after so many days.")
@with_output
def grant(out: Output, customer: str, amount: Money, reason: str, days: int | None) -> None:
    """Give CUSTOMER money that it never paid: spent before paid money, soonest expiry first."""
    from avocado.ledger.operation import Grant

    expires = None if days is None else time.time_ns() + days * 86_400 * NANO
    posted = _post(
        Grant(
            id=new_id("gra"),
            tenant=customer,
            amount=amount.nanos,
            currency=workspace_here().config.currency,
            reason=reason,
            expires=expires,
        )
    )
    _tell(out, posted, f"Granted {customer} {amount.decimal()}")


@ledger.command("adjust", context_settings={"ignore_unknown_options": True})
@click.argument("customer")
@click.argument("amount", type=Amount(signed=True))
@click.option("--reason", required=True, help="Stays in the journal.")
@click.option("--actor", default=operator, show_default="you", help="Who decided it.")
@with_output
def adjust(out: Output, customer: str, amount: Money, reason: str, actor: str) -> None:
    """Move AMOUNT (either sign) on CUSTOMER's wallet by hand, with who and why."""
    from avocado.ledger.operation import Adjust

    if not amount.nanos:
        raise click.BadParameter("an amount of zero changes nothing", param_hint="AMOUNT")
    posted = _post(
        Adjust(
            id=new_id("adj"),
            tenant=customer,
            amount=amount.nanos,
            currency=workspace_here().config.currency,
            reason=reason,
            actor=actor,
        )
    )
    _tell(out, posted, f"Adjusted {customer} by {amount.decimal()}")


def new_id(kind: str) -> str:
    """A fresh id for an operation of the operator's."""
    return f"{kind}_{token_hex(12)}"


def _post(operation: AnyOperation) -> Posted:
    from avocado.ledger.operation import Posted

    with writing(workspace_here()) as do:
        posted = do(operation)
    assert isinstance(posted, Posted)
    return posted


def _tell(out: Output, posted: Posted, what: str) -> None:
    available = Money(posted.available, workspace_here().config.currency)
    out.result(
        {"id": posted.id, "seq": posted.seq, "available": available.decimal()},
        f"{what} ({posted.id}, journal entry {posted.seq}); {available} can be spent now",
    )
