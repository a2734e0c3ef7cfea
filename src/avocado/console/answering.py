"""Answering: from a request to its page: who asks, may they, what does the page say.

``answer`` is blocking and runs in one of the console's threads; what it returns is plain, so that
the event loop only has to send it.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from avocado.console import sessions
from avocado.console.console import Console
from avocado.console.formats import Formats
from avocado.console.page import (
    Answer,
    Data,
    Download,
    Form,
    NotFound,
    Redirect,
    Route,
    Shown,
    SignedIn,
    SignedOut,
    Streamed,
    TooManyTries,
    Visit,
)
from avocado.console.people import Person
from avocado.console.rendering import render
from avocado.console.sessions import Session
from avocado.console.words import Speaker, choose
from avocado.errors import Refused
from avocado.gateway.shelf import ShelfUnavailable
from avocado.ledger.errors import LedgerError, LedgerUnavailable, UnknownCustomer

log = logging.getLogger("avocado.console")

FLASH_BYTES: Final = 1500
_COMMAND: Final = re.compile(r"(?:: | with: |; \w[\w ]* with: )avocado [a-z].*$", re.DOTALL)
"""What a reason tells the operator to type: customers have no command line of ours."""
YEAR: Final = 365 * 86_400


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


@dataclass(frozen=True)
class Cookie:
    """``value`` None takes it away; ``age`` in seconds, None: until the browser closes."""

    name: str
    value: str | None
    age: int | None = None


@dataclass(frozen=True)
class Answered:
    """What is to be sent."""

    status: int
    media_type: str
    body: bytes | Iterator[bytes] | Callable[[], AsyncIterator[bytes]]
    headers: tuple[tuple[str, str], ...] = ()
    cookies: tuple[Cookie, ...] = ()


def cookie_name(console: Console, name: str) -> str:
    """``__Host-`` binds a cookie to this very host, over HTTPS. Browsers refuse such a name over
    plain HTTP, where the console listens on the loopback alone; there the plain name is used."""
    return f"__Host-av_{name}" if console.secure else f"av_{name}"


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


# -- what is sent ---------------------------------------------------------------------------------


def sent(visit: Visit, found: Answer) -> Answered:
    """Turns what a page returned into bytes."""
    if isinstance(found, Mapping):
        return page(visit, Shown(visit.route.template, found))
    return _SENDERS[type(found)](visit, found)


def page(visit: Visit, shown: Shown) -> Answered:
    """A template, with everything that every template has."""
    visit, cookies = _with_token(visit)
    flash, spent = _flash(visit)
    text = render(shown.template, {**_frame(visit, flash), **shown.values})
    return Answered(shown.status, "text/html; charset=utf-8", text.encode(), (), (*cookies, *spent))


def fragment(visit: Visit, values: Mapping[str, Any]) -> str:
    """A piece of a page, for live updates."""
    return render(visit.route.template, {**_frame(visit, None), **values})


def _frame(visit: Visit, flash: Mapping[str, str] | None) -> dict[str, Any]:
    person = visit.person
    return {
        "visit": visit,
        "person": person,
        "speaker": visit.speaker,
        "formats": visit.formats,
        "csrf": visit.csrf,
        "flash": flash,
        "typed": visit.form,
        "problems": (),
        "now": visit.now,
        "theme": _theme(visit),
        "language": visit.speaker.language,
        "shop": visit.console.workspace.config.name,
        "currency": visit.console.workspace.config.currency,
        "here": visit.route.path,
        "menu": menu(visit),
    }


def _theme(visit: Visit) -> str:
    kept = visit.cookies.get(cookie_name(visit.console, "theme"))
    theme = (visit.person.theme if visit.person else None) or kept
    return theme if theme in ("light", "dark") else "system"


def menu(visit: Visit) -> list[tuple[str, list[Route]]]:
    """(group, entries) that the person may see, in order."""
    role = visit.person.role if visit.person else None
    routes = [each for each in visit.console.routes if each.nav and role in each.roles]
    routes.sort(key=lambda each: each.nav.order if each.nav else 0)
    groups: list[tuple[str, list[Route]]] = []
    for route in routes:
        assert route.nav is not None
        if not groups or groups[-1][0] != route.nav.group:
            groups.append((route.nav.group, []))
        groups[-1][1].append(route)
    return groups


def _with_token(visit: Visit) -> tuple[Visit, tuple[Cookie, ...]]:
    """A visitor who is not signed in gets a random cookie, for the token of the forms."""
    if visit.csrf:
        return visit, ()
    seed = secrets.token_urlsafe(24)
    cookie = Cookie(cookie_name(visit.console, "visit"), seed)
    return replace(visit, csrf=visit.console.sign("csrf", seed)), (cookie,)


def _redirect(visit: Visit, found: Redirect) -> Answered:
    console = visit.console
    cookies = [Cookie(cookie_name(console, name), value, YEAR) for name, value in found.keep]
    cookies += [Cookie(cookie_name(console, name), value, 600) for name, value in found.briefly]
    if found.flash:
        cookies.append(_flash_cookie(visit, found.flash, found.tone))
    if not found.abroad:
        return _see(found.url, tuple(cookies))
    if visit.route.method == "GET":
        return Answered(303, "text/plain", b"", (("location", found.url),), tuple(cookies))
    # form-action 'self' holds for where a form's answer leads too, so another site is gone to from
    # a page of ours.
    return page(visit, Shown("leaving.html", {"to": found.url}))


def _see(url: str, cookies: tuple[Cookie, ...] = ()) -> Answered:
    assert url == onward(url), f"{url} is not our own page"
    return Answered(303, "text/plain", b"", (("location", url),), cookies)


def _download(visit: Visit, found: Download) -> Answered:
    name = "".join(each if each.isalnum() or each in "-._" else "-" for each in found.name)
    how = "inline" if found.inline else "attachment"
    plain = name.encode("ascii", "replace").decode().replace("?", "-")
    headers = [("content-disposition", f'{how}; filename="{plain}"')]
    if found.policy:
        headers.append(("content-security-policy", found.policy))
    return Answered(200, found.media_type, found.body, tuple(headers))


def _streamed(visit: Visit, found: Streamed) -> Answered:
    return Answered(200, found.media_type, found.make)


def _data(visit: Visit, found: Data) -> Answered:
    body = json.dumps(found.value, ensure_ascii=False).encode()
    return Answered(found.status, "application/json", body)


def _signed_in(visit: Visit, found: SignedIn) -> Answered:
    age = visit.console.config.session_hours * 3600
    cookies = [Cookie(cookie_name(visit.console, "session"), found.token, age)]
    cookies.append(Cookie(cookie_name(visit.console, "visit"), None))
    if found.flash:
        cookies.append(_flash_cookie(visit, found.flash, "good"))
    return _see(found.url, tuple(cookies))


def _signed_out(visit: Visit, found: SignedOut) -> Answered:
    cookies = [Cookie(cookie_name(visit.console, "session"), None)]
    if found.flash:
        cookies.append(_flash_cookie(visit, found.flash, "plain"))
    return _see(found.url, tuple(cookies))


_SENDERS: Final[Mapping[type[Any], Callable[[Visit, Any], Answered]]] = {
    Shown: page,
    Redirect: _redirect,
    Download: _download,
    Streamed: _streamed,
    Data: _data,
    SignedIn: _signed_in,
    SignedOut: _signed_out,
}


# -- what is said once ----------------------------------------------------------------------------


def _flash_cookie(visit: Visit, text: str, tone: str) -> Cookie:
    value = json.dumps([tone, text[:400]], ensure_ascii=False).encode()[:FLASH_BYTES]
    packed = base64.urlsafe_b64encode(value).decode()
    seal = visit.console.sign("flash", packed)
    return Cookie(cookie_name(visit.console, "flash"), f"{packed}.{seal}", 60)


def _flash(visit: Visit) -> tuple[Mapping[str, str] | None, tuple[Cookie, ...]]:
    """What the page before wanted said, and the end of its cookie."""
    name = cookie_name(visit.console, "flash")
    packed, _, seal = visit.cookies.get(name, "").partition(".")
    if not packed:
        return None, ()
    gone = (Cookie(name, None),)
    if not hmac.compare_digest(seal.encode(), visit.console.sign("flash", packed).encode()):
        return None, gone
    tone, text = cast("list[str]", json.loads(base64.urlsafe_b64decode(packed)))
    return {"tone": tone, "text": text}, gone


# -- what is not done -----------------------------------------------------------------------------


def refused(visit: Visit, error: Refused | LedgerError) -> Answered:
    """The page of the form once more, with the reasons; or a page that has only them."""
    reasons = error.reasons if isinstance(error, Refused) else (str(error),)
    if visit.person is None or not visit.person.operator:
        reasons = tuple(_COMMAND.sub("", each) for each in reasons)
    if visit.route.kind == "hook":  # its sender asks again later
        return _data(visit, Data({"error": {"message": "\n".join(reasons)}}, 503))
    if visit.route.kind == "act" and wants_json(visit):
        return _data(visit, Data({"error": {"message": "\n".join(reasons)}}, 422))
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
            return _data(visit, Data({"error": {"message": visit.t("error.signed_out")}}, 401))
        onward = visit.url if visit.route.method == "GET" else "/"
        return _see(f"/sign-in?next={_quote(onward)}")
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
        return replace(_data(visit, Data(told, status)), headers=headers)
    shown = page(visit, Shown("error.html", {"status": status, "word": word}, status))
    return replace(shown, headers=headers)


def wants_json(visit: Visit) -> bool:
    """Whether a program asks: one of our scripts, or another machine."""
    return visit.route.kind == "hook" or "application/json" in visit.headers.get("accept", "")


def _quote(url: str) -> str:
    from urllib.parse import quote

    return quote(url, safe="/")


def onward(url: str) -> str:
    """``url`` if it is a page of ours, else the first page: nobody is led to another site."""
    fine = url.startswith("/") and not url.startswith(("//", "/\\")) and url.isprintable()
    return url if fine and len(url) < 1000 else "/"
