"""How a command reaches the ledger: through the running server, or by opening it itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from avocado.errors import Refused
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.gateway.admin import Submit
    from avocado.gateway.shelf import Database
    from avocado.ledger.reader import Reader


def writing(workspace: Workspace) -> AbstractContextManager[Submit]:
    """A function that does one operation, durably: through the server if one runs, else directly.

    One process owns the ledger; where a server of this workspace runs, it does the work.
    """
    from avocado.gateway.admin import reach_ledger

    return reach_ledger(workspace.ledger, workspace.admin_socket)


def shelf(workspace: Workspace) -> AbstractContextManager[Database]:
    """The gateway's own tables. They may be changed beside a running server."""
    from avocado.gateway.shelf import open_database

    return opened(partial(open_database, workspace.shelf))


@contextmanager
def opened(connect: Callable[[], Database]) -> Iterator[Database]:
    """Yields a database and closes it.

    Raises:
        Refused: it cannot be opened, read or written.
    """
    from avocado.gateway.shelf import ShelfUnavailable

    try:
        database = connect()
        try:
            yield database
        finally:
            database.close()
    except ShelfUnavailable as error:
        raise Refused(str(error)) from error


def operator() -> str:
    """Who runs the command, for the record."""
    from getpass import getuser

    try:
        return getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def refresh_servers(workspace: Workspace) -> int:
    """Tells every running server of this workspace that its offers have changed; returns how many
    there are.

    Raises:
        Refused: one of them cannot serve what is offered now, and goes on with what it had.
    """
    from avocado.gateway.admin import AdminClient, NotRunning

    told = 0
    for path in workspace.admin_sockets():
        try:
            client = AdminClient(path)
        except NotRunning:
            continue
        with client:
            client.refresh()
        told += 1
    return told


@contextmanager
def reading(workspace: Workspace) -> Iterator[Reader]:
    """Yields a reader of the ledger, which may be written to meanwhile."""
    from avocado.ledger.errors import LedgerError
    from avocado.ledger.reader import open_reader

    if not workspace.has_ledger:
        raise Refused("this workspace has no ledger yet: add a customer with: avocado customer add")
    try:
        with open_reader(workspace.ledger) as reader:
            yield reader
    except LedgerError as error:
        raise Refused(str(error)) from error
