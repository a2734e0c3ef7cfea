"""Postman: sends a message the way that it says, by mail or by webhook."""

from __future__ import annotations

import time
from collections.abc import Sequence

from avocado.billing import mail, webhook
from avocado.billing.mail import MailServer
from avocado.billing.notices import wire_id
from avocado.billing.outbox import Message, Send
from avocado.errors import Refused


def postman(server: MailServer | None, root: bytes, networks: Sequence[str] = ()) -> Send:
    """A :data:`Send`. ``root`` makes the webhooks' secrets; ``networks`` may be reached although
    they are not public.

    It raises Refused without a mail server, or where a webhook must not or does not go; and what
    ``mail.send`` and ``webhook.post`` raise.
    """

    def send(message: Message) -> None:
        now = time.time_ns()
        if message.way == "webhook":
            secret = webhook.secret_of(root, message.secret)
            headers = webhook.headers_of(secret, wire_id(message), message.body, now)
            webhook.post(message.target, headers, message.body, networks)
            return
        if server is None:
            raise Refused("there is no mail server: write [mail] into avocado.toml")
        made = mail.compose(server, message.id, message.target, message.subject, message.body, now)
        mail.send(server, made)

    return send
