"""The admin socket: other processes of the workspace reach the ledger of the running server."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.gateway.admin import (
    AdminClient,
    AdminRefused,
    AdminServer,
    NotRunning,
    reach_ledger,
)
from avocado.ledger.ledger import open_ledger
from avocado.ledger.operation import Deposit, File, Filed, OpenCustomer, Posted, Recorded


class Running:
    """An admin server over a real ledger, in a thread."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "admin.sock"
        self.ledger = open_ledger(folder / "ledger.sqlite")
        self.server = AdminServer(self.path, self.ledger)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self.server.start())

    def _call(self, what: object) -> None:
        asyncio.run_coroutine_threadsafe(what, self.loop).result(10)  # type: ignore[arg-type]

    def close(self) -> None:
        self._call(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.ledger.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    server = Running(tmp_path)
    yield server
    server.close()


def deposit(amount: int, id_: str = "d1") -> Deposit:
    return Deposit(id=id_, tenant="acme", amount=amount, currency="USD")


def test_operations_and_results_travel(running: Running) -> None:
    with AdminClient(running.path) as client:
        opened = client.submit(OpenCustomer(tenant="acme", name="Acmé"))
        assert isinstance(opened, Recorded)
        posted = client.submit(deposit(5))
        assert isinstance(posted, Posted)
        assert (posted.amount, posted.available, posted.replayed) == (5, 5, False)
        again = client.submit(deposit(5))
        assert isinstance(again, Posted)
        assert again.replayed


def test_threads_that_share_a_connection_get_their_own_answers(running: Running) -> None:
    with AdminClient(running.path) as client, ThreadPoolExecutor(16) as pool:
        client.submit(OpenCustomer(tenant="acme", name="Acme"))
        asked = [deposit(n, f"d{n}") for n in range(1, 301)]
        told = list(pool.map(client.submit, asked))
    assert [(each.id, each.amount) for each in told if isinstance(each, Posted)] == [
        (each.id, each.amount) for each in asked
    ]


def test_the_largest_document_travels_and_a_conflict_says_what_differs(running: Running) -> None:
    content = {"text": "é" * (500 * 1024)}
    with AdminClient(running.path) as client:
        filed = client.submit(File(id="d", kind="k", content=content))
        assert isinstance(filed, Filed)
        with pytest.raises(AdminRefused) as caught:
            client.submit(File(id="d", kind="k", content={"text": "another"}))
    assert caught.value.code == "document_conflict"
    assert caught.value.fields == {"id": "d", "revision": 1, "differs": ["content.text"]}


def test_a_refusal_of_the_ledger_travels_with_its_code(running: Running) -> None:
    with AdminClient(running.path) as client:
        with pytest.raises(AdminRefused) as caught:
            client.submit(deposit(5))
        assert caught.value.code == "unknown_customer"
        assert caught.value.fields == {"tenant": "acme"}
        assert caught.value.reasons == ("there is no customer 'acme'",)
        client.submit(OpenCustomer(tenant="acme", name="Acme"))  # the connection goes on


def test_only_the_owner_may_open_it(running: Running) -> None:
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "line", [b"x\n", b"{}\n", b'{"do":"Explode"}\n', b"[" * 5000 + b"\n", b"\xff\n", b"\n"]
)
def test_what_is_no_operation_is_answered_as_such(running: Running, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(running.path))
        link.settimeout(5)
        link.sendall(line)
        answer = json.loads(link.makefile("rb").readline())
    assert (answer["is"], answer["code"]) == ("Failure", "bad_operation")


def test_a_line_without_end_is_cut(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(running.path))
        link.settimeout(5)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            link.sendall(b"x" * 64 * 1024 * 1024)
    with AdminClient(running.path) as client:
        client.submit(OpenCustomer(tenant="b", name="b"))


def test_no_server_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no server answers"):
        AdminClient(tmp_path / "admin.sock")


def test_a_dead_server_s_socket_is_taken_over_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "admin.sock"))
    dead.close()
    with pytest.raises(NotRunning):
        AdminClient(tmp_path / "admin.sock")
    running = Running(tmp_path)
    try:
        with pytest.raises(Refused, match="running already"):
            asyncio.run(AdminServer(running.path, running.ledger).start())
        with AdminClient(running.path) as client:
            client.submit(OpenCustomer(tenant="a", name="a"))
    finally:
        running.close()
    assert not running.path.exists()


def test_a_workspace_may_lie_deep(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    deep.mkdir(parents=True)
    running = Running(deep)
    try:
        with AdminClient(running.path) as client:
            client.submit(OpenCustomer(tenant="a", name="a"))
        assert stat.S_IMODE(running.path.stat().st_mode) == 0o600
    finally:
        running.close()


def test_a_server_that_goes_away_is_said(running: Running) -> None:
    with AdminClient(running.path) as client:
        client.submit(OpenCustomer(tenant="acme", name="Acme"))
        running._call(running.server.close())
        with pytest.raises(Refused):
            client.submit(deposit(5))


@pytest.mark.parametrize("serving", [False, True])
def test_a_command_reaches_the_ledger_with_and_without_a_server(
    tmp_path: Path, serving: bool
) -> None:
    running = Running(tmp_path) if serving else None
    try:
        with reach_ledger(tmp_path / "ledger.sqlite", tmp_path / "admin.sock") as submit:
            submit(OpenCustomer(tenant="acme", name="Acme"))
            assert submit(deposit(7)).replayed is False
            with pytest.raises(AdminRefused) as caught:
                submit(deposit(-7, "d2"))
        assert caught.value.code == "not_allowed"
    finally:
        if running is not None:
            running.close()


def test_a_ledger_that_another_process_holds_is_said(tmp_path: Path) -> None:
    with (
        open_ledger(tmp_path / "ledger.sqlite"),
        pytest.raises(Refused, match="open for writing"),
        reach_ledger(tmp_path / "ledger.sqlite", tmp_path / "admin.sock"),
    ):
        pass
