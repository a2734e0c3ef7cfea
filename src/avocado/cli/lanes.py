"""Many operations at the ledger at once, from threads: so that it commits them together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from avocado.cli.book import writing
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.gateway.admin import AdminClient, Submit
    from avocado.ledger.operation import AnyOperation, AnyResult


@contextmanager
def writing_at_once(workspace: Workspace) -> Iterator[Submit]:
    """Like :func:`avocado.cli.book.writing`, for many threads.

    Our own ledger takes operations from any thread. A running server answers one operation a
    connection, so each thread gets a connection of its own.
    """
    from avocado.gateway.admin import AdminClient, NotRunning

    try:
        first = AdminClient(workspace.admin_socket)
    except NotRunning:
        with writing(workspace) as do:
            yield do
        return
    with ExitStack() as stack:
        stack.enter_context(first)
        yield _Lanes(workspace, stack)


class _Lanes:
    """A submit with a connection a thread."""

    def __init__(self, workspace: Workspace, stack: ExitStack) -> None:
        self._path = workspace.admin_socket
        self._stack = stack
        self._own = threading.local()
        self._lock = threading.Lock()

    def __call__(self, operation: AnyOperation) -> AnyResult:
        client: AdminClient | None = getattr(self._own, "client", None)
        if client is None:
            from avocado.gateway.admin import AdminClient

            client = AdminClient(self._path)
            with self._lock:
                self._stack.enter_context(client)
            self._own.client = client
        return client.submit(operation)
