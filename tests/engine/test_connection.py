"""The HTTP client of remote engines, and servers that say legal and illegal things."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from avocado.engine import connection as module
from avocado.engine.connection import Connection, ConnectionBroken, Connections, NoConnection

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Peer:
    """Reads requests, and answers each with the next of its answers."""

    def __init__(self, *answers: bytes, close: bool = False, wait: float = 0.0) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.opened = 0
        self.gone = asyncio.Event()
        self._close, self._wait = close, wait

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                self.heads.append(head)
                writer.write(self.answers.pop(0) if self.answers else b"")
                await writer.drain()
                await asyncio.sleep(self._wait)
                if self._close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()


@asynccontextmanager
async def serving(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Connections]:
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/base/"
    connections = Connections(url, "secret", connect=1.0, idle=0.4, total=0.8)
    try:
        yield connections
    finally:
        connections.close()
        server.close()


async def whole(connection: Connection) -> bytes:
    parts = []
    while part := await connection.read():
        parts.append(part)
    return b"".join(parts)


def play(scene: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 20))


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (SIZED, True),
        (CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", True),
        (CHUNKED + b"5\r\nhello\r\n0\r\nTrailer: t\r\n\r\n", True),
        (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + SIZED, True),
        (SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False),
        (SIZED.replace(b"1.1", b"1.0"), False),
    ],
)
def test_a_whole_answer_is_read_and_its_connection_kept_if_it_may_be(
    answer: bytes, kept: bool
) -> None:
    async def scene() -> None:
        peer = Peer(answer, answer)
        async with serving(peer) as connections:
            for _ in range(2):
                got = await connections.post("/v1/x", b"{}")
                assert (got.status, await whole(got)) == (200, b"hello")
                assert got.complete
                assert await got.read() == b""
                got.release()
                await asyncio.sleep(0.02)
            assert peer.opened == (1 if kept else 2)
            head = peer.heads[0]
            assert head.startswith(b"POST /base/v1/x HTTP/1.1\r\nHost: 127.0.0.1:")
            assert b"\r\nAuthorization: Bearer secret\r\n" in head

    play(scene)


def test_a_body_may_end_with_the_connection() -> None:
    async def scene() -> None:
        async with serving(Peer(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)) as connections:
            got = await connections.post("/", b"{}")
            assert await whole(got) == b"hello"
            got.release()

    play(scene)


@pytest.mark.parametrize(
    ("answer", "before"),
    [
        (CHUNKED + b"5\r\nhello\r\n", b"hello"),
        (SIZED[:-1], b"hell"),
        (CHUNKED + b"5\r\nhello\r\nnonsense\r\n", b"hello"),
        (SIZED.replace(b"\r\n\r\n", b"\r\nX"), None),
        (b"", None),
        (b"no HTTP at all\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (module.HEAD_BYTES + 1), None),
    ],
)
def test_what_breaks_off_or_is_no_http_is_broken_after_what_came(
    answer: bytes, before: bytes | None
) -> None:
    async def scene() -> None:
        async with serving(Peer(answer, close=True)) as connections:
            if before is None:
                with pytest.raises(ConnectionBroken):
                    await connections.post("/", b"{}")
                return
            got = await connections.post("/", b"{}")
            assert await got.read() == before
            with pytest.raises(ConnectionBroken):
                await got.read()
            got.release()

    play(scene)


def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    async def scene() -> None:
        async with serving(Peer()) as connections:
            pass
        with pytest.raises(NoConnection):
            await connections.post("/", b"{}")

    play(scene)


@pytest.mark.parametrize("answer", [b"", CHUNKED + b"5\r\nhello\r\n"])
def test_silence_ends_a_request_and_its_connection(answer: bytes) -> None:
    async def scene() -> None:
        peer = Peer(answer, wait=0.01)
        async with serving(peer) as connections:
            began = asyncio.get_running_loop().time()

            async def ask() -> None:
                got = await connections.post("/", b"{}")
                try:
                    await whole(got)
                finally:
                    got.release()

            with pytest.raises(TimeoutError):
                await ask()
            assert 0.35 < asyncio.get_running_loop().time() - began < 0.7
            await asyncio.wait_for(peer.gone.wait(), 1)

    play(scene)


def test_a_stream_that_goes_on_is_ended_at_the_total() -> None:
    async def scene() -> None:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            writer.write(CHUNKED)
            while not writer.is_closing():
                writer.write(b"1\r\nx\r\n")
                await asyncio.sleep(0.05)

        async with serving(drip) as connections:
            got = await connections.post("/", b"{}")
            began = asyncio.get_running_loop().time()
            with pytest.raises(TimeoutError):
                await whole(got)
            assert 0.5 < asyncio.get_running_loop().time() - began < 1.2
            got.release()

    play(scene)


def test_an_answer_that_is_not_wanted_closes_its_connection() -> None:
    async def scene() -> None:
        peer = Peer(CHUNKED + b"5\r\nhello\r\n", SIZED)
        async with serving(peer) as connections:
            got = await connections.post("/", b"{}")
            got.release()
            await asyncio.wait_for(peer.gone.wait(), 1)
            assert await whole(await connections.post("/", b"{}")) == b"hello"
            assert peer.opened == 2

    play(scene)


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\n\r\n", SIZED])
def test_bytes_that_nobody_asked_for_never_answer_the_next_request(extra: bytes) -> None:
    async def scene() -> None:
        peer = Peer(SIZED + extra.replace(b"hello", b"wrong"), SIZED)
        async with serving(peer) as connections:
            for _ in range(2):
                got = await connections.post("/", b"{}")
                assert await whole(got) == b"hello"
                got.release()
            assert peer.opened == 2

    play(scene)


def test_a_connection_that_rested_too_long_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> None:
        peer = Peer(SIZED, SIZED, SIZED, SIZED)
        async with serving(peer) as connections:

            async def ask() -> None:
                got = await connections.post("/", b"{}")
                assert await whole(got) == b"hello"
                got.release()

            await asyncio.gather(ask(), ask())
            assert peer.opened == 2
            monkeypatch.setattr(module, "KEEP_SECONDS", 0.05)
            await asyncio.sleep(0.1)
            await ask()
            assert peer.opened == 3

    play(scene)


def test_who_reads_slowly_makes_the_server_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 64 * 2**20

    async def scene() -> None:
        sent = 0

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"{}")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            while sent < size:
                writer.write(b"x" * 2**16)
                await writer.drain()
                sent += 2**16

        async with serving(flood) as connections:
            got = await connections.post("/", b"{}")
            await asyncio.sleep(0.3)
            assert sent < size // 2
            assert len(await whole(got)) == size
            got.release()

    play(scene)


def test_health_is_a_status() -> None:
    async def scene() -> None:
        sick = SIZED.replace(b"200 OK", b"503 Away")
        async with serving(Peer(SIZED, sick)) as connections:
            assert await connections.status("/health", 1.0) == 200
            assert await connections.status("/health", 1.0) == 503

    play(scene)


def test_tls_is_checked(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=here"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)

    async def scene() -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        async with serving(Peer(SIZED), tls) as connections:
            with pytest.raises(NoConnection, match="CERTIFICATE"):
                await connections.post("/", b"{}")
            connections._context = ssl.create_default_context(cafile=str(certificate))
            assert await whole(await connections.post("/", b"{}")) == b"hello"

    play(scene)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("localhost:8000", None),
        ("ftp://host", None),
        ("http://", None),
        ("http://h", "a\r\nb: c"),
        ("http://me:secret@h", None),
        ("http://h/a b", None),
    ],
)
def test_an_address_or_key_that_cannot_be_is_refused_at_once(url: str, key: str | None) -> None:
    with pytest.raises(ValueError, match=r"address|ASCII"):
        Connections(url, key, connect=1, idle=1, total=1)
