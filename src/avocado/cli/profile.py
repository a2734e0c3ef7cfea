"""``avocado profile``: who a customer is for its invoices."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from avocado.cli.arguments import workspace_here
from avocado.cli.book import operator, reading, writing
from avocado.cli.output import Output, with_output

LANGUAGES = ("de", "en", "es", "fr", "zh")


@click.group()
def profile() -> None:
    """Show and set what a customer's invoices say of it."""


@profile.command("show")
@click.argument("customer")
@with_output
def show(out: Output, customer: str) -> None:
    """The billing profile of CUSTOMER."""
    from avocado.billing.profile import profile_of

    with reading(workspace_here()) as reader:
        page = reader.customer(customer)
        found = profile_of(reader, customer)
    value = {"customer": customer, "name": page.name, **msgspec.to_builtins(found)}
    lines = [f"{name}: {_shown(given)}" for name, given in value.items() if given not in ("", ())]
    out.result(value, *lines)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return "none" if value is None else str(value)


@profile.command("set")
@click.argument("customer")
@click.option("--company", help="Legal name; the customer's name in the ledger if empty.")
@click.option("--contact", help="A person or department.")
@click.option(
    "--address", multiple=True, help="A line above the town; repeat for more, empty takes all away."
)
@click.option("--postcode")
@click.option("--city")
@click.option("--region", help="State or province, where an address needs one.")
@click.option("--country", help="Two letters, such as DE.")
@click.option("--vat-id", help="Checked for its format and checksum; empty takes it away.")
@click.option("--vies", help="How the VAT id was checked with the tax office, in your words.")
@click.option("--email", help="Where invoices go.")
@click.option("--language", type=click.Choice(LANGUAGES))
@click.option("--e-invoice", type=click.Choice(["none", "factur-x", "xml"]))
@click.option("--reference", help="The customer's own: a purchase order or Leitweg-ID.")
@with_output
def set_(out: Output, /, customer: str, **given: Any) -> None:
    """Change what invoices of CUSTOMER say from now on; what is left out stays.

    Invoices that were issued before keep what they say.
    """
    from avocado.billing.profile import change_profile

    lines = tuple(line for line in given["address"] if line.strip())
    given["address"] = lines if given["address"] else None
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("say what to change, such as --country DE")
    for name in ("vat_id", "vies"):
        if changes.get(name) == "":
            changes[name] = None
    workspace = workspace_here()
    with reading(workspace) as reader, writing(workspace) as do:
        after = change_profile(reader, do, customer, changes, operator())
    value = {"customer": customer, **msgspec.to_builtins(after)}
    out.result(value, f"Changed the profile of {customer}: {', '.join(changes)}")
