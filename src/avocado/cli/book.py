"""How a command reaches the ledger: through the running server, or by opening it itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from avocado.errors import Refused
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.gateway.admin import Submit
    from avocado.ledger.reader import Reader


def writing(workspace: Workspace) -> AbstractContextManager[Submit]:
    """A function that does one operation, durably: through the server if one runs, else directly.

    One process owns the ledger; where a server of this workspace runs, it does the work.
    """
    from avocado.gateway.admin import reach_ledger

    return reach_ledger(workspace.ledger, workspace.admin_socket)


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
