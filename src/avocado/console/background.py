"""Background: what the console's process does by the minute, whoever looks at its pages.

The clerk renews plans, sends alerts, tops up and closes invoices; each step is idempotent, so that
it does no harm if ``avocado billing run`` does the same elsewhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from avocado.cli.billing import Clerk
from avocado.console.console import Console
from avocado.errors import Refused
from avocado.ledger.errors import LedgerError

log = logging.getLogger("avocado.console")
EVERY_SECONDS: Final = 60.0


@contextmanager
def keep_up(console: Console) -> Iterator[None]:
    """Runs the clerk each minute in a thread of its own until the end of the block."""
    over = threading.Event()
    clerk = Clerk(console.workspace)

    def keep() -> None:
        while not over.wait(EVERY_SECONDS):
            try:
                for done in clerk.round(console.writing, console.clock):
                    log.info("clerk: %s %s %s", done.what, done.tenant, done.detail)
            except (Refused, LedgerError) as error:
                log.warning("the clerk could not do its work: %s", error)
            except Exception:
                log.exception("the clerk failed")

    console.threads.submit(lambda: _fill_daybook(console))  # before somebody waits for a page
    thread = threading.Thread(target=keep, name="clerk", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def _fill_daybook(console: Console) -> None:
    """Takes up what the ledger wrote while no console ran: seconds after a million requests."""
    try:
        console.threads.daybook()
    except (Refused, LedgerError) as error:
        log.warning("the daybook is not up to date: %s", error)
