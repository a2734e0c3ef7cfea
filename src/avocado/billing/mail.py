"""Mail over SMTP: one plain-text message, to one address, through the seller's own server."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from hashlib import sha256
from ipaddress import ip_address
from typing import Final, Literal

from avocado.billing.alert import ADDRESS
from avocado.errors import Refused

TIMEOUT_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail goes out, and by whom. ``context`` is for tests: whom TLS trusts."""

    host: str
    sender: str
    port: int = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: str | None = None
    context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        """Raises Refused for a password that would travel in the open."""
        if self.username is not None and self.security == "none" and not _is_loopback(self.host):
            raise Refused(
                f"[mail] would send a password to {self.host} in the open: "
                'set security = "starttls" or "tls"'
            )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def compose(
    server: MailServer, id_: str, to: str, subject: str, text: str, at: int
) -> EmailMessage:
    """A message; ``at`` (ns) is its date. The same ``id_`` gives the same Message-ID, so that a
    receiver knows one that came twice.

    Raises:
        Refused: ``to`` is no plain address.
    """
    if not ADDRESS.fullmatch(to):
        raise Refused(f"{to!r} is no mail address such as finance@example.com")
    domain = server.sender.rpartition("@")[2].rstrip(">")
    message = EmailMessage()
    message["From"] = server.sender
    message["To"] = to
    message["Subject"] = " ".join(subject.split())
    message["Date"] = format_datetime(datetime.fromtimestamp(at // 1_000_000_000, UTC))
    message["Message-ID"] = f"<{sha256(f'{id_} {to}'.encode()).hexdigest()[:32]}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return message


def send(server: MailServer, message: EmailMessage) -> None:
    """Hands a message to the server, over TLS unless told otherwise.

    Raises:
        OSError, smtplib.SMTPException: it was not taken; its text says why.
    """
    context = server.context or ssl.create_default_context()
    if server.security == "tls":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        smtp = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_SECONDS)
    with smtp:
        if server.security == "starttls":
            smtp.starttls(context=context)
        if server.username is not None:
            smtp.login(server.username, server.password or "")
        smtp.send_message(message)
