"""``avocado billing``: runs the clerk, which does what is due, once or again and again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import click

from avocado.billing import outbox
from avocado.billing.alerts import Spent
from avocado.billing.clerk import Done, Tools, told, work
from avocado.billing.outbox import Send
from avocado.billing.postman import postman
from avocado.billing.record import Do, Refusals
from avocado.cli.arguments import workspace_here
from avocado.cli.book import reading
from avocado.cli.entitlement import entitle
from avocado.cli.lanes import writing_at_once
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.billing.auto_topup import ToppedUp
    from avocado.billing.events import Outcome
    from avocado.billing.mail import MailServer
    from avocado.ledger.reader import Reader

CLERK = "clerk"
Collect = Callable[[str, int], object]
Writing = Callable[[], AbstractContextManager[Do]]


def seller_name(workspace: Workspace) -> str:
    """Who writes to customers."""
    seller = workspace.config.seller
    return workspace.config.name if seller is None else seller.name


def mail_server(workspace: Workspace) -> MailServer | None:
    """``[mail]`` of avocado.toml, with its password from the environment.

    Raises:
        Refused: the variable that is named for it is not set.
    """
    from avocado.billing.mail import MailServer

    config = workspace.config.mail
    if config is None:
        return None
    password = None
    if config.password_variable is not None:
        password = os.environ.get(config.password_variable)
        if password is None:
            raise Refused(f"[mail] names {config.password_variable}, which is not set")
    return MailServer(
        config.host, config.sender, config.port, config.security, config.username, password
    )


def postman_of(workspace: Workspace) -> Send:
    """Sends mails and webhooks as avocado.toml says."""
    networks = workspace.config.billing.webhook_networks
    return postman(mail_server(workspace), workspace.pepper(), networks)


@dataclass
class Clerk:
    """Works for one workspace. Keep it: it remembers which month it has closed."""

    workspace: Workspace
    closed: str = field(default="", init=False)

    def round(
        self, book: Writing | None = None, clock: Callable[[], int] = time.time_ns
    ) -> tuple[Done, ...]:
        """Does what is due now. ``book`` is how a process writes that has its own way to.

        Raises:
            Refused: the ledger cannot be reached, or [mail] cannot be right.
        """
        send = postman_of(self.workspace)
        book = book or partial(writing_at_once, self.workspace)
        with book() as do, reading(self.workspace) as reader:
            now = clock()
            made = work(reader, do, now, self._tools(reader, do, now, None))
            claimed = outbox.claim_due(reader, do, now)
        if not claimed:
            return made
        # Where no server runs, the ledger was ours: others may have it while mail goes out.
        sent = outbox.send_all(send, claimed)
        with book() as do, reading(self.workspace) as reader:
            outbox.tick_off(reader, do, sent, now)
        return (*made, *told(sent))

    def _tools(self, reader: Reader, do: Do, now: int, send: Send | None) -> Tools:
        workspace, config = self.workspace, self.workspace.config
        chores: list[tuple[str, Callable[[], list[Done]]]] = []
        if config.payments is not None:
            chores.append(("top-ups", lambda: _top_ups(workspace, reader, do, now)))
        chores.append(("credit notes", lambda: _notes(reader, do, now)))
        if config.billing.close == "automatic":
            chores.append(("invoices", lambda: self._close(reader, do, now)))
        return Tools(
            seller=seller_name(workspace),
            send=send,
            entitle=lambda people: entitle(workspace, people, CLERK),
            collect=_collector(workspace, reader, do, now),
            spent=_spending(workspace, reader),
            chores=tuple(chores),
        )

    def _close(self, reader: Reader, do: Do, now: int) -> list[Done]:
        """Invoices of the months that are over; once a month, or until none was refused."""
        from avocado.billing.closing_run import close_all
        from avocado.billing.months import after, month_at
        from avocado.cli.issuer import issuer_of

        month = after(month_at(now), -1)
        if self.closed == month:
            return []
        outcomes = list(close_all(reader, do, issuer_of(self.workspace), month, now, CLERK))
        if not any(each.refused for each in outcomes):
            self.closed = month
        return [
            Done("failed", each.tenant, each.refused)
            if each.refused
            else Done("invoiced", each.tenant, each.document or "")
            for each in outcomes
        ]


def _notes(reader: Reader, do: Do, now: int) -> list[Done]:
    """Credit notes of the last days whose refunds were cut off."""
    from avocado.billing.credit_notes import finish

    since = now - 3 * 86_400 * 1_000_000_000
    return [Done("credited", each.tenant, each.id) for each in finish(reader, do, since, CLERK)]


def _top_ups(workspace: Workspace, reader: Reader, do: Do, now: int) -> list[Done]:
    from avocado.billing.auto_topup import ToppedUp
    from avocado.billing.payment_notices import tell
    from avocado.billing.provider import PaymentsOff
    from avocado.cli.payments import payments_of

    try:
        payments = payments_of(workspace, reader, do)
    except PaymentsOff:
        return []
    made = [
        Done(f"top-up {each.state}" if isinstance(each, ToppedUp) else "payment", *_told(each))
        for each in payments.upkeep(now)
    ]
    tell(reader, do, seller_name(workspace), now)
    return made


def _told(each: ToppedUp | Outcome) -> tuple[str, str]:
    return each.tenant, each.words


def _spending(workspace: Workspace, reader: Reader) -> Spent:
    """The month's spend of every customer, from the daybook: read once a round, if at all."""
    from avocado.billing.daybook import FILE, open_daybook
    from avocado.billing.months import after, month_at

    known: dict[str, dict[str, int]] = {}

    def spent(tenant: str, now: int) -> int:
        month = month_at(now)
        if month not in known:
            with open_daybook(workspace.state / FILE, reader) as book:
                rows = book.months(by=("tenant",), since=month, until=after(month))
            known[month] = {each.tenant or "": each.net for each in rows}
        return known[month].get(tenant, 0)

    return spent


def _collector(workspace: Workspace, reader: Reader, do: Do, now: int) -> Collect | None:
    """Charges a saved card for a fee, where payments are on."""
    from avocado.billing.provider import PaymentsOff
    from avocado.cli.payments import payments_of

    if workspace.config.payments is None:
        return None
    try:
        payments = payments_of(workspace, reader, do)
    except PaymentsOff:
        return None
    return lambda tenant, nanos: payments.collect(tenant, nanos, now)


@click.group()
def billing() -> None:
    """What is due: renewals, fees, alerts, automatic top-ups, invoices."""


@billing.command("run")
@click.option("--every", type=click.IntRange(1, 86_400), help="Again after so many seconds.")
@with_output
def run(out: Output, every: int | None) -> None:
    """Do what is due: renew subscriptions, collect fees, end what ends, top up, close invoices
    ([billing] close = "automatic"), send alerts. Running it twice, or twice at once, does nothing
    twice. The console does the same each minute while it runs.
    """
    clerk = Clerk(workspace_here())
    while True:
        try:
            made = clerk.round()
        except Refusals as error:
            if every is None:
                raise
            made = (Done("failed", "", str(error)),)
        if every is None or made:
            _tell(out, made)
        if every is None:
            return
        time.sleep(every)


def _tell(out: Output, made: tuple[Done, ...]) -> None:
    rows = [{"what": each.what, "customer": each.tenant, "detail": each.detail} for each in made]
    lines = [" ".join(filter(None, (each.tenant, f"{each.what}:", each.detail))) for each in made]
    out.result(rows, *(lines or ["Nothing was due"]))
