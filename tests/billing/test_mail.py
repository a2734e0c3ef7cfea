"""Mail to a real SMTP server: TLS, a password, and what goes wrong."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from avocado.billing.mail import MailServer, compose, send
from avocado.billing.outbox import Message
from avocado.billing.postman import postman
from avocado.errors import Refused
from tests.billing.subscribers import certificate

aiosmtpd = pytest.importorskip("aiosmtpd")

SENDER = "billing@avocado.example"
AT = 1_790_000_000_000_000_000


class Inbox:
    """What a server took; it refuses ``nobody@``."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.secure: list[bool] = []

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        made = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(made, EmailMessage)
        self.mails.append(made)
        self.secure.append(
            session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None
        )
        return "250 OK"


Served = Callable[..., tuple[Inbox, MailServer]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Served]:
    from aiosmtpd.smtp import SMTP, AuthResult

    cert, key = certificate(tmp_path)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(cert, key)
    trusting = ssl.create_default_context(cafile=str(cert))

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        fine = (data.login, data.password) == (b"us", b"secret")
        return AuthResult(success=fine, handled=False)

    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as thread:
        loop = runner.get_loop()
        running = thread.submit(loop.run_forever)

        def start(
            security: Any = "starttls", login: bool = True, password: str = "secret"
        ) -> tuple[Inbox, MailServer]:
            inbox, how = Inbox(), dict[str, Any]()
            if security == "starttls":
                how = {"tls_context": ours, "require_starttls": True}
            if login:
                over_starttls = security == "starttls"
                how |= {"authenticator": check, "auth_required": True}
                how["auth_require_tls"] = over_starttls  # it does not see a socket that is TLS
            listening = loop.create_server(
                lambda: SMTP(inbox, hostname="localhost", loop=loop, **how),
                "127.0.0.1",
                0,
                ssl=ours if security == "tls" else None,
            )
            server = asyncio.run_coroutine_threadsafe(listening, loop).result()
            port = server.sockets[0].getsockname()[1]
            user = "us" if login else None
            return inbox, MailServer(
                "127.0.0.1", SENDER, port, security, user, password, context=trusting
            )

        yield start
        loop.call_soon_threadsafe(loop.stop)
        running.result()


def mail(server: MailServer, to: str = "anna@example.com", text: str = "Grüße\n") -> EmailMessage:
    return compose(server, "alert/acme/1/2026-03", to, "Ausgaben über 20 €", text, AT)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_arrives_over_tls_with_a_password(serve: Served, security: str) -> None:
    inbox, server = serve(security)
    send(server, mail(server))
    (got,) = inbox.mails
    assert inbox.secure == [True]
    assert (got["To"], got["From"], got["Subject"]) == (
        "anna@example.com",
        SENDER,
        "Ausgaben über 20 €",
    )
    assert got.get_content().splitlines() == ["Grüße"]
    assert got["Message-ID"].endswith("@avocado.example>")
    assert (got["Auto-Submitted"], got["Date"]) == (
        "auto-generated",
        "Mon, 21 Sep 2026 14:13:20 +0000",
    )


def test_a_server_in_the_open_takes_no_password_but_mail(serve: Served) -> None:
    inbox, server = serve("none", login=False)
    postman(server, b"root")(Message("x", "mail", "anna@example.com", "text", "subject"))
    assert [each["Subject"] for each in inbox.mails] == ["subject"]
    with pytest.raises(Refused, match=r"a password to mail\.example\.com in the open"):
        MailServer("mail.example.com", SENDER, security="none", username="us")


def test_what_goes_wrong_is_an_error_with_words(serve: Served) -> None:
    inbox, server = serve()
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="no such mailbox"):
        send(server, mail(server, "nobody@example.com"))
    _, wrong = serve(password="guess")
    with pytest.raises(smtplib.SMTPAuthenticationError):
        send(wrong, mail(wrong))
    untrusting = MailServer(server.host, SENDER, server.port, username="us", password="secret")
    with pytest.raises(ssl.SSLCertVerificationError):
        send(untrusting, mail(server))
    away = MailServer("127.0.0.1", SENDER, 1)
    with pytest.raises(OSError, match="refused"):
        send(away, mail(away))
    _, plain = serve("none", login=False)
    asks_for_tls = MailServer(plain.host, SENDER, plain.port)
    with pytest.raises(smtplib.SMTPNotSupportedError):
        send(asks_for_tls, mail(asks_for_tls))
    assert inbox.mails == []


def test_a_message_that_came_twice_can_be_told() -> None:
    server = MailServer("127.0.0.1", SENDER)
    first, second = mail(server), mail(server)
    assert first["Message-ID"] == second["Message-ID"]
    assert mail(server, "otto@example.com")["Message-ID"] != first["Message-ID"]


@pytest.mark.parametrize("to", ["", "anna", "a@b\nBcc: c@d", "a@b.c, d@e.f", "A <a@b.c>"])
def test_an_address_that_is_none_is_refused(to: str) -> None:
    with pytest.raises(Refused, match="no mail address"):
        mail(MailServer("127.0.0.1", SENDER), to)


def test_a_subject_stays_one_line() -> None:
    server = MailServer("127.0.0.1", SENDER)
    made = compose(server, "x", "a@b.c", "Hello\r\nBcc: c@d.e", "text", AT)
    assert made["Subject"] == "Hello Bcc: c@d.e"
    assert "Bcc" not in made.keys()  # noqa: SIM118


def test_without_a_server_it_says_what_to_write() -> None:
    with pytest.raises(Refused, match=r"write \[mail\] into avocado.toml"):
        postman(None, b"root")(Message("x", "mail", "a@b.c", "text"))
