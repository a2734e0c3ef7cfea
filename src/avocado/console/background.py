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

from avocado.billing.clerk import Done, work
from avocado.cli.billing import Clerk, postman_of
from avocado.cli.book import reading
from avocado.console.console import Console
from avocado.errors import Refused
from avocado.ledger.errors import LedgerError

log = logging.getLogger("avocado.console")
EVERY_SECONDS: Final = 60.0


@contextmanager
def keep_up(console: Console) -> Iterator[None]:
    """Runs the clerk each minute in a thread of its own until the end of the block."""
    over = threading.Event()
    clerk = Rounds(console.workspace)

    def keep() -> None:
        while not over.wait(EVERY_SECONDS):
            try:
                for done in clerk.once(console):
                    log.info("clerk: %s %s %s", done.what, done.tenant, done.detail)
            except (Refused, LedgerError) as error:
                log.warning("the clerk could not do its work: %s", error)
            except Exception:
                log.exception("the clerk failed")

    thread = threading.Thread(target=keep, name="clerk", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


class Rounds(Clerk):
    """The clerk of ``avocado billing run``, writing as the console's pages do."""

    def once(self, console: Console) -> tuple[Done, ...]:
        """Does what is due now. Raises Refused and LedgerError."""
        send = postman_of(self.workspace)
        with console.writing() as do, reading(self.workspace) as reader:
            now = console.clock()
            return work(reader, do, now, self._tools(reader, do, now, send))
