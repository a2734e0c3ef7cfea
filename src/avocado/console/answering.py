"""Answering: from a request to its page: who asks, may they, what does the page say.

``answer`` is blocking and runs in one of the console's threads; what it returns is plain, so that
the event loop only has to send it.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from avocado.console import sessions
from avocado.console.console import Console
from avocado.console.formats import Formats
from avocado.console.page import Data, Form, NotFound, Route, Shown, TooManyTries, Visit
from avocado.console.people import Person
from avocado.console.sending import Answered, cookie_name, data, page, see, sent
from avocado.console.sessions import Session
from avocado.console.words import Speaker, choose
from avocado.errors import Refused
from avocado.gateway.shelf import ShelfUnavailable
from avocado.ledger.errors import LedgerError, LedgerUnavailable, UnknownCustomer

log = logging.getLogger("avocado.console")

_COMMAND: Final = re.compile(r"(?:: | with: |; \w[\w ]* with: )avocado [a-z].*$", re.DOTALL)
"""What a reason tells the operator to type: customers have no command line of ours."""


@dataclass(frozen=True)
class Asked:
    """A request as it came, read from HTTP."""

    route: Route
    path: Mapping[str, str]
    query: Form
    body: bytes
    form: Form
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    address: str
    url: str
    """Path and query."""


_GONE: Final = (LedgerUnavailable, ShelfUnavailable)


def answer(console: Console, asked: Asked) -> Answered:
    """Everything between a request and its answer. Where a database went away, connections are
    made afresh; what only reads is tried once more, and the rest is 503: asking again is safe."""
    tries = 2 if asked.route.method == "GET" else 1
    for _ in range(tries):
        try:
            return _answer(console, asked)
        except _GONE as error:
            log.error("%s %s: %s", asked.route.method, asked.route.path, error)
            console.threads.forget()
    text = Speaker(choose(None, asked.headers.get("accept-language", ""))).say("error.ledger")
    return Answered(503, "text/plain; charset=utf-8", f"{text}\n".encode(), (("retry-after", "5"),))


def _answer(console: Console, asked: Asked) -> Answered:
    visit = arrive(console, asked)
    try:
        check(visit)
        return sent(visit, asked.route.function(visit))
    except _GONE:
        raise
    except (Refused, LedgerError) as error:
        if isinstance(error, UnknownCustomer) or (
            isinstance(error, LedgerError) and asked.route.kind not in ("act", "hook")
        ):
            return failed(visit, error)
        return refused(visit, error)
    except Exception as error:
        return failed(visit, error)


# -- who asks -------------------------------------------------------------------------------------


def arrive(console: Console, asked: Asked) -> Visit:
    """The visit behind a request, with its session if it has one."""
    now = console.clock()
    person: Person | None = None
    session: Session | None = None
    token = asked.cookies.get(cookie_name(console, "session"), "")
    if token and asked.route.kind != "hook":
        database = console.threads.database()
        found = sessions.find(database, token, now, console.config.session_hours)
        if found is not None:
            person, session = found
    wanted = (person.language if person else None) or asked.cookies.get(
        cookie_name(console, "language")
    )
    language = choose(wanted, asked.headers.get("accept-language", ""))
    seed = token if session else asked.cookies.get(cookie_name(console, "visit"), "")
    return Visit(
        console=console,
        person=person,
        session=session,
        route=asked.route,
        path=asked.path,
        query=asked.query,
        form=asked.form,
        speaker=Speaker(language),
        formats=Formats(language, now),
        now=now,
        address=asked.address,
        url=asked.url,
        body=asked.body,
        headers=asked.headers,
        cookies=asked.cookies,
        csrf=console.sign("csrf", seed) if seed else "",
    )


class SignInFirst(Exception):
    """The page is for people who are signed in."""


class Forged(Exception):
    """A POST without the token of our forms."""


def check(visit: Visit) -> None:
    """Raises SignInFirst, NotFound or Forged where the route is not for this visit."""
    route = visit.route
    if route.kind == "hook":
        return
    if not route.public:
        if visit.person is None:
            raise SignInFirst
        if not route.admits(visit.person.role):
            raise NotFound
    if route.kind == "act":
        given = visit.form.get("csrf", "") or visit.headers.get("x-csrf-token", "")
        if not visit.csrf or not hmac.compare_digest(given.encode(), visit.csrf.encode()):
            raise Forged


# -- what is not done -----------------------------------------------------------------------------


def refused(visit: Visit, error: Refused | LedgerError) -> Answered:
    """The page of the form once more, with the reasons; or a page that has only them."""
    reasons = error.reasons if isinstance(error, Refused) else (str(error),)
    if visit.person is None or not visit.person.operator:
        reasons = tuple(_COMMAND.sub("", each) for each in reasons)
    if visit.route.kind == "hook":  # its sender asks again later
        return data(visit, Data({"error": {"message": "\n".join(reasons)}}, 503))
    if visit.route.kind == "act" and wants_json(visit):
        return data(visit, Data({"error": {"message": "\n".join(reasons)}}, 422))
    shown_by = {each.function: each for each in visit.console.routes if each.kind == "show"}
    if visit.route.again is not None:
        again = shown_by[visit.route.again]
        try:
            values = again.function(replace(visit, route=again))
            if isinstance(values, Mapping):
                shown = Shown(again.template, {**values, "problems": reasons}, 422)
                return page(replace(visit, route=again), shown)
        except _GONE:
            raise
        except Exception as second:
            return failed(visit, second)
    return page(visit, Shown("refused.html", {"problems": reasons}, 422))


def failed(visit: Visit, error: Exception) -> Answered:
    """An error page; what nobody foresaw goes to the log and says nothing to the visitor."""
    if isinstance(error, SignInFirst):
        if wants_json(visit) or visit.route.kind == "live":
            return data(visit, Data({"error": {"message": visit.t("error.signed_out")}}, 401))
        onward = visit.url if visit.route.method == "GET" else "/"
        return see(f"/sign-in?next={quote(onward)}")
    status, word = 500, "error"
    if isinstance(error, NotFound | UnknownCustomer):
        status, word = 404, "missing"
    elif isinstance(error, Forged):
        status, word = 403, "forged"
        log.warning("refused a POST to %s without our token", visit.route.path)
    elif isinstance(error, TooManyTries):
        status, word = 429, "tries"
    else:
        log.exception("%s %s failed", visit.route.method, visit.route.path, exc_info=error)
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, TooManyTries):
        headers = (("retry-after", str(int(error.seconds) + 1)),)
    if wants_json(visit):
        told = {"error": {"message": visit.t(f"error.{word}")}}
        return replace(data(visit, Data(told, status)), headers=headers)
    shown = page(visit, Shown("error.html", {"status": status, "word": word}, status))
    return replace(shown, headers=headers)


def wants_json(visit: Visit) -> bool:
    """Whether a program asks: one of our scripts, or another machine."""
    return visit.route.kind == "hook" or "application/json" in visit.headers.get("accept", "")
