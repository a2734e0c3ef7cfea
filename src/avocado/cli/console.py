"""``avocado console``: pages for customers and for the operator, and who may see them."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, cast

import click

from avocado.cli.arguments import workspace_here
from avocado.cli.book import opened, operator, reading
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.console.links import Kind
    from avocado.console.roles import Role
    from avocado.gateway.shelf import Database

ROLES = ("owner", "finance", "engineer", "admin", "member")
ROLE = click.option(
    "--role",
    type=click.Choice(ROLES),
    help="owner, finance or engineer of yours; admin or member of a customer.",
)
CUSTOMER = click.option("--customer", help="The customer whose person it is; none: one of yours.")


@click.group(invoke_without_command=True)
@click.option("--host", help="Address to listen at; avocado.toml's if left out.")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes any free port.")
@click.option("--open", "open_", is_flag=True, help="Open it in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value when it is ready.")
@click.pass_context
def console(
    ctx: click.Context, host: str | None, port: int | None, open_: bool, as_json: bool
) -> None:
    """Serve the console: pages for customers and for you, beside `avocado serve`.

    The first start prints a link for the first operator. It works once, within an hour.
    """
    if ctx.invoked_subcommand is None:
        run(Output(as_json), workspace_here(), host, port, open_)


def run(
    out: Output, workspace: Workspace, host: str | None, port: int | None, open_: bool = False
) -> None:
    """Serves the console until it is told to stop.

    Raises:
        Refused: it cannot listen there, or an extra is missing.
    """
    from avocado.console.app import build_console
    from avocado.console.background import keep_up
    from avocado.console.console import Console
    from avocado.console.serving import first_link, listen, origin_of, serve
    from avocado.gateway.shelf import ShelfUnavailable
    from avocado.ledger.errors import LedgerError

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    for chatty in ("uvicorn", "stripe", "httpx", "authlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    listener = listen(workspace.config.console, host, port)
    try:
        found = Console(workspace, origin_of(workspace.config.console, listener))
        link = first_link(found)
    except (ShelfUnavailable, LedgerError) as error:
        listener.close()
        raise Refused(str(error)) from error

    def ready() -> None:
        if out.json:
            out.result({"url": found.origin, "first_link": link})
        else:
            out.say(f"Console at {found.origin} (Ctrl-C stops)")
            if link is not None:
                out.say(f"First operator, once, within an hour: {link}")
        sys.stdout.flush()
        if open_:
            click.launch(link or found.origin)

    with keep_up(found):
        serve(found, build_console(found), listener, ready)


def people_of(workspace: Workspace) -> AbstractContextManager[Database]:
    """The console's tables, which may be changed beside a running console."""
    from avocado.console.store import open_store, place_of

    return opened(partial(open_store, place_of(workspace)))


@console.command("link")
@click.option("--email", help="Whose link it is; left out: the first operator's.")
@ROLE
@CUSTOMER
@with_output
def link(out: Output, email: str | None, role: str | None, customer: str | None) -> None:
    """Make a link that signs somebody in, once: for the first operator, for a person who is known,
    or (with --role) for a new one."""
    from avocado.console import links, people
    from avocado.console.serving import known_origin

    workspace = workspace_here()
    with people_of(workspace) as database:
        kind, address, side = _who(database, email, role, customer)
        if customer is not None:
            _known(workspace, customer)
        if kind == "first":
            kept = people.of_tenant(database, None)
            if any(each.role == "owner" for each in kept):
                raise Refused("there is an owner already: name whose link it is with --email")
        token = links.make(database, kind, address, side[0], side[1], operator(), time.time_ns())
    url = f"{known_origin(workspace)}/link/{token}"
    minutes = links.LIFETIMES[kind] // 60
    out.result(
        {"url": url, "email": address or None, "kind": kind, "minutes": minutes},
        url,
    )
    if not out.json:
        click.echo(f"It works once, within {minutes} minutes.", err=True)


def _who(
    database: Database, email: str | None, role: str | None, customer: str | None
) -> tuple[Kind, str, tuple[Role, str | None]]:
    """(kind of link, address, (role, tenant))."""
    from avocado.console import people
    from avocado.console.roles import belongs

    if email is None:
        if customer is not None or role not in (None, "owner"):
            raise click.UsageError("--email is missing")
        return "first", "", ("owner", None)
    address = people.read_email(email)
    known = people.by_email(database, address)
    if known is not None:
        if role not in (None, known.role) or customer not in (None, known.tenant):
            raise Refused(f"{address} is {known.role}{_of(known.tenant)} already")
        return "sign-in", address, (known.role, known.tenant)
    chosen = cast("Role", role or ("member" if customer else "owner"))
    if not belongs(chosen, customer):
        need = "needs --customer" if customer is None else "is no role of a customer's people"
        raise Refused(f"the role {chosen} {need}")
    return "invite", address, (chosen, customer)


def _of(tenant: str | None) -> str:
    return f" of {tenant}" if tenant else ""


def _known(workspace: Workspace, customer: str) -> None:
    from avocado.ledger.errors import UnknownCustomer

    with reading(workspace) as reader:
        try:
            reader.customer(customer)
        except UnknownCustomer as error:
            raise Refused(str(error)) from error


@console.group("users")
def users() -> None:
    """Who may sign in to the console."""


@users.command("list")
@with_output
def list_users(out: Output) -> None:
    """List the people who can sign in, and the invitations that are open."""
    from avocado.console import people

    with people_of(workspace_here()) as database:
        found = people.everybody(database)
    rows = [
        {
            "email": each.email,
            "role": each.role,
            "customer": each.tenant or "",
            "password": "yes" if each.password else "no",
            "last_seen": _day(each.seen),
        }
        for each in found
    ]
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("Nobody yet. Next: avocado console, and open the link that it prints")
    else:
        out.table(list(rows[0]), [list(row.values()) for row in rows])


def _day(nanos: int | None) -> str:
    return "" if nanos is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(nanos // 10**9))


@users.command("invite")
@click.argument("email")
@ROLE
@CUSTOMER
@with_output
def invite(out: Output, email: str, role: str | None, customer: str | None) -> None:
    """Invite EMAIL. The mail is sent where avocado.toml has [mail]; the link is printed anyway."""
    from avocado.console import letters, links
    from avocado.console.console import Console
    from avocado.console.serving import known_origin
    from avocado.console.words import Speaker

    workspace = workspace_here()
    if customer is not None:
        _known(workspace, customer)
    with people_of(workspace) as database:
        kind, address, side = _who(database, email, role, customer)
        if kind != "invite":
            raise Refused(f"{address} can sign in already: avocado console link --email {address}")
        token = links.make(database, kind, address, side[0], side[1], operator(), time.time_ns())
    url = f"{known_origin(workspace)}/link/{token}"
    sent = workspace.config.mail is not None
    if sent:
        sender = Console(workspace, known_origin(workspace))
        try:
            letters.send(sender, letters.of_link(sender, Speaker("en"), kind, address, token))
        finally:
            sender.close()
    out.result(
        {"email": address, "role": side[0], "customer": side[1], "url": url, "sent": sent},
        f"Invited {address} as {side[0]}{_of(side[1])}{' by mail' if sent else ''}",
        url,
    )


@users.command("remove")
@click.argument("email")
@with_output
def remove(out: Output, email: str) -> None:
    """Take EMAIL away: the person is signed out everywhere at once."""
    from avocado.console import events, people

    with people_of(workspace_here()) as database:
        person = people.by_email(database, email)
        if person is None:
            raise Refused(f"nobody signs in as {email}: avocado console users list")
        people.remove(database, person)
        events.note(
            database, time.time_ns(), "removed", operator(), tenant=person.tenant, detail=email
        )
    out.result({"removed": person.email}, f"Removed {person.email}")
