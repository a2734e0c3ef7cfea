"""How a command reaches the ledger: through the running server, or by opening it itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from avocado.errors import Refused
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.ledger.operation import AnyOperation, AnyResult
    from avocado.ledger.reader import Reader

    Do = Callable[[AnyOperation], AnyResult]


@contextmanager
def writing(workspace: Workspace) -> Iterator[Do]:
    """Yields a function that does one operation, durably.

    One process owns the ledger. Where a server of this workspace runs, it does the work.
    """
    from avocado.gateway.admin import AdminClient, NotRunning
    from avocado.ledger.errors import LedgerError, LedgerLocked
    from avocado.ledger.ledger import open_ledger

    try:
        client = AdminClient(workspace.admin_socket)
    except NotRunning:
        client = None
    if client is not None:
        with client:
            yield client.submit
        return
    try:
        with open_ledger(workspace.ledger) as ledger:
            yield ledger.do_now
    except LedgerLocked as error:
        raise Refused(
            f"process {error.pid} has the ledger open and takes no operations: wait for it"
        ) from error
    except LedgerError as error:
        raise Refused(str(error)) from error


@contextmanager
def reading(workspace: Workspace) -> Iterator[Reader]:
    """Yields a reader of the ledger, which may be written to meanwhile."""
    from avocado.ledger.errors import LedgerError
    from avocado.ledger.reader import open_reader

    if not workspace.ledger.exists():
        raise Refused("this workspace has no ledger yet: add a customer with: avocado customer add")
    try:
        with open_reader(workspace.ledger) as reader:
            yield reader
    except LedgerError as error:
        raise Refused(str(error)) from error
