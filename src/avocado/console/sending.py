"""Sending: what a page returned becomes status, headers, cookies and bytes."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from avocado.console.console import Console
from avocado.console.page import (
    Answer,
    Data,
    Download,
    Redirect,
    Route,
    Shown,
    SignedIn,
    SignedOut,
    Streamed,
    Visit,
)
from avocado.console.rendering import render

FLASH_BYTES: Final = 1500
YEAR: Final = 365 * 86_400


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
        return see(found.url, tuple(cookies))
    if visit.route.method == "GET":
        return Answered(303, "text/plain", b"", (("location", found.url),), tuple(cookies))
    # form-action 'self' holds for where a form's answer leads too, so another site is gone to from
    # a page of ours.
    return page(visit, Shown("leaving.html", {"to": found.url}))


def see(url: str, cookies: tuple[Cookie, ...] = ()) -> Answered:
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


def data(visit: Visit, found: Data) -> Answered:
    body = json.dumps(found.value, ensure_ascii=False).encode()
    return Answered(found.status, "application/json", body)


def _signed_in(visit: Visit, found: SignedIn) -> Answered:
    age = visit.console.config.session_hours * 3600
    cookies = [Cookie(cookie_name(visit.console, "session"), found.token, age)]
    cookies.append(Cookie(cookie_name(visit.console, "visit"), None))
    if found.flash:
        cookies.append(_flash_cookie(visit, found.flash, "good"))
    return see(found.url, tuple(cookies))


def _signed_out(visit: Visit, found: SignedOut) -> Answered:
    cookies = [Cookie(cookie_name(visit.console, "session"), None)]
    if found.flash:
        cookies.append(_flash_cookie(visit, found.flash, "plain"))
    return see(found.url, tuple(cookies))


_SENDERS: Final[Mapping[type[Any], Callable[[Visit, Any], Answered]]] = {
    Shown: page,
    Redirect: _redirect,
    Download: _download,
    Streamed: _streamed,
    Data: data,
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


def onward(url: str) -> str:
    """``url`` if it is a page of ours, else the first page: nobody is led to another site."""
    fine = url.startswith("/") and not url.startswith(("//", "/\\")) and url.isprintable()
    return url if fine and len(url) < 1000 else "/"
