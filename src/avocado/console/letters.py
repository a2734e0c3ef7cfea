"""Letters: the console's mails: links and invitations, in the reader's language."""

from __future__ import annotations

import logging
import secrets
import smtplib
from collections.abc import Callable
from dataclasses import dataclass

from avocado.billing import mail
from avocado.cli.billing import mail_server
from avocado.configuration import Config
from avocado.console.console import Console
from avocado.console.links import LIFETIMES, Kind
from avocado.console.words import Speaker
from avocado.errors import Refused

log = logging.getLogger("avocado.console")


@dataclass(frozen=True)
class Letter:
    to: str
    subject: str
    text: str


def require_mail(config: Config) -> None:
    """Raises Refused where the workspace has no ``[mail]``."""
    if config.mail is None:
        raise Refused(
            "this console cannot send mail: [mail] is missing in avocado.toml; "
            "make a link with: avocado console link --email ADDRESS"
        )


def link_url(console: Console, token: str) -> str:
    return f"{console.origin}/link/{token}"


def of_link(console: Console, speaker: Speaker, kind: Kind, email: str, token: str) -> Letter:
    """The letter that carries a link."""
    word = kind.replace("-", "_")
    shop = console.workspace.config.name
    text = speaker.say(
        f"letter.{word}",
        shop=shop,
        url=link_url(console, token),
        time=speaker.say("letter.minutes", count=LIFETIMES[kind] // 60)
        if LIFETIMES[kind] < 7200
        else speaker.say("letter.days", count=LIFETIMES[kind] // 86_400),
    )
    return Letter(email, speaker.say(f"letter.{word}_subject", shop=shop), text)


def send(console: Console, letter: Letter) -> None:
    """Sends it now.

    Raises:
        Refused: there is no ``[mail]``, or its server did not take it.
    """
    require_mail(console.workspace.config)
    server = mail_server(console.workspace)
    assert server is not None
    message = mail.compose(
        server, secrets.token_hex(16), letter.to, letter.subject, letter.text, console.clock()
    )
    try:
        mail.send(server, message)
    except (OSError, smtplib.SMTPException) as error:
        raise Refused(f"the mail server at {server.host} did not take it: {error}") from error


def soon(console: Console, to: str, work: Callable[[], None]) -> None:
    """Does ``work``, which writes to ``to``, in another thread and waits for nothing."""

    def guarded() -> None:
        try:
            work()
        except Exception as error:
            log.error("a letter to %s was not sent: %s", to, error)

    console.threads.submit(guarded)


def send_soon(console: Console, letter: Letter) -> None:
    """Sends a letter in another thread: a page does not wait for a mail server."""
    soon(console, letter.to, lambda: send(console, letter))
