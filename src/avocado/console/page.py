"""Pages: how a page of the console is written, and what it is given.

A room of pages is a :class:`Pages`. A page is a plain, blocking function; it runs in a thread that
has a reader of the ledger of its own, and returns the values of its template::

    PAGES = Pages()

    @PAGES.show("/operator/customers/{tenant}", roles=OPERATOR, template="operator/customer.html",
                nav=None)
    def customer(visit: Visit) -> Values:
        page = visit.reader.customer(visit.path["tenant"])     # UnknownCustomer → 404
        return {"page": page}

    @PAGES.act("/operator/customers/{tenant}/refund", roles=FINANCE, again=customer)
    def refund(visit: Visit) -> Reply:
        with visit.writing() as do:
            do(Refund(id=f"rf_{visit.once}", …))
        return Redirect(f"/operator/customers/{visit.path['tenant']}", visit.t("customer.refunded"))

``show`` answers GET and HEAD, ``act`` POST. A ``Refused`` or a ledger's error in an act shows the
page ``again`` once more with what was typed and the reasons. Every POST has passed the guards
(Host, Origin, CSRF token) before its function runs. What belongs to another customer is
:class:`NotFound`, never "forbidden".
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from avocado.console.roles import PUBLIC, Role, Roles
from avocado.errors import Refused

if TYPE_CHECKING:
    from avocado.billing.daybook import Daybook
    from avocado.console.console import Console
    from avocado.console.formats import Formats
    from avocado.console.people import Person
    from avocado.console.sessions import Session
    from avocado.console.words import Speaker
    from avocado.gateway.admin import Submit
    from avocado.ledger.reader import Reader

Values = Mapping[str, Any]
"""What a template is filled with."""

_ONCE: Final = re.compile(r"[0-9a-f]{24}")


class NotFound(Exception):
    """There is no such page or thing, or it is not this person's to know."""


class TooManyTries(Exception):
    """Wait ``seconds`` and try again: 429."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:.0f} s")
        self.seconds = seconds


# -- what a function may answer -------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A page by another template, or with another status, than its route's."""

    template: str
    values: Values
    status: int = 200


@dataclass(frozen=True)
class Redirect:
    """Goes to a path of this console (303), where ``flash`` is said once. ``url`` may be another
    site's only with ``abroad``: a payment provider's page."""

    url: str
    flash: str = ""
    tone: Literal["good", "bad", "plain"] = "good"
    abroad: bool = False
    keep: tuple[tuple[str, str], ...] = ()
    """What the browser keeps for a year: ``theme``, ``language``."""
    briefly: tuple[tuple[str, str | None], ...] = ()
    """What it keeps for ten minutes; None takes it away."""


@dataclass(frozen=True)
class Download:
    """A file: ``body`` may be made piece by piece."""

    name: str
    media_type: str
    body: bytes | Iterator[bytes]
    inline: bool = False
    policy: str = ""
    """A content security policy of its own, for a document that is not one of our pages."""


@dataclass(frozen=True)
class Streamed:
    """What comes piece by piece from elsewhere; ``make`` runs on the event loop, and is cancelled
    where the browser goes away."""

    make: Callable[[], AsyncIterator[bytes]]
    media_type: str = "text/event-stream"


@dataclass(frozen=True)
class Data:
    """JSON, for our own scripts."""

    value: Any
    status: int = 200


@dataclass(frozen=True)
class SignedIn:
    """Starts a session and goes to ``url``; ``token`` is what the browser will keep."""

    token: str
    url: str
    flash: str = ""


@dataclass(frozen=True)
class SignedOut:
    url: str = "/sign-in"
    flash: str = ""


Reply = Shown | Redirect | Download | Streamed | Data | SignedIn | SignedOut
Answer = Values | Reply


class Form(Mapping[str, str]):
    """Fields of a form or a query: the first value of a name; ``many`` gives all."""

    def __init__(self, fields: Mapping[str, Sequence[str]] | None = None) -> None:
        self._fields = {name: list(values) for name, values in (fields or {}).items() if values}

    def __getitem__(self, name: str) -> str:
        return self._fields[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def many(self, name: str) -> list[str]:
        return list(self._fields.get(name, ()))

    def text(self, name: str, most: int = 200) -> str:
        """A field without space around it, "" if it is missing.

        Raises:
            Refused: it is longer than ``most`` characters or holds control characters.
        """
        value = self.get(name, "").strip()
        if len(value) > most or any(ord(each) < 32 and each not in "\r\n\t" for each in value):
            raise Refused(f"{name}: at most {most} characters, and no control characters")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number, kept within its bounds; ``default`` for what is none."""
        text = self.get(name, "")
        return min(most, max(least, int(text))) if re.fullmatch(r"-?\d{1,18}", text) else default


# -- what a function is given ---------------------------------------------------------------------


@dataclass(frozen=True)
class Visit:
    """One request: who asks, for what, with everything that its answer needs."""

    console: Console
    person: Person | None
    session: Session | None
    route: Route
    path: Mapping[str, str]
    query: Form
    form: Form
    speaker: Speaker
    formats: Formats
    now: int
    """ns since 1970."""
    address: str
    """The client's, as far as it can be told."""
    url: str
    """The path and query that were asked for."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    csrf: str = ""

    @property
    def who(self) -> Person:
        """The signed-in person: there is one on every page that is not public."""
        assert self.person is not None, f"{self.route.path} is not public"
        return self.person

    @property
    def tenant(self) -> str:
        """The customer that the person belongs to. Raises NotFound for the operator's people."""
        if self.who.tenant is None:
            raise NotFound
        return self.who.tenant

    @property
    def reader(self) -> Reader:
        """This thread's reader of the ledger."""
        return self.console.threads.reader()

    @property
    def daybook(self) -> Daybook:
        """This thread's daybook (usage by day), up to date. Not inside ``reader.snapshot()``."""
        return self.console.threads.daybook()

    def writing(self) -> AbstractContextManager[Submit]:
        """Yields ``do(operation) -> result``, through the running server or on the book itself."""
        return self.console.writing()

    @property
    def once(self) -> str:
        """A word that each form carries: the same for every click on one button, so that ids made
        of it let a second click change nothing.

        Raises:
            Refused: the form came without it.
        """
        value = self.form.get("once", "")
        if not _ONCE.fullmatch(value):
            raise Refused(self.t("form.stale"))
        return value

    @property
    def actor(self) -> str:
        """Who does it, for the record."""
        return f"console:{self.who.email}"

    def t(self, key: str, **values: object) -> str:
        """A sentence in the person's language; see ``words``."""
        return self.speaker.say(key, **values)


# -- how pages are registered ---------------------------------------------------------------------


@dataclass(frozen=True)
class Nav:
    """A place in the menu. ``label`` is a key of ``words``, ``icon`` a name of ``icons.html``;
    ``group`` a key of words for the heading above it, "" for none."""

    label: str
    icon: str
    order: int
    group: str = ""


Show = Callable[[Visit], Answer]
Act = Callable[[Visit], Reply]


@dataclass(frozen=True)
class Route:
    """One path and method. ``kind``: ``show`` (GET), ``act`` (POST), ``live`` (a stream of
    fragments of a page) or ``hook`` (POST from another machine: raw body, no cookies)."""

    kind: Literal["show", "act", "live", "hook"]
    path: str
    roles: Roles
    function: Show
    template: str = ""
    nav: Nav | None = None
    again: Show | None = None
    """The function of the page to show once more where an act is refused."""
    every: float = 0.0
    most: int = 256 * 1024
    """Bytes of a body."""

    @property
    def method(self) -> str:
        return "POST" if self.kind in ("act", "hook") else "GET"

    @property
    def public(self) -> bool:
        return self.roles == PUBLIC

    def admits(self, role: Role | None) -> bool:
        return self.public or role in self.roles


class Pages:
    """Some pages of the console, in the order in which they were written."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def show(
        self, path: str, *, roles: Roles, template: str = "", nav: Nav | None = None
    ) -> Callable[[Show], Show]:
        """A page, or (without a template) a download."""
        return self._register(lambda fn: Route("show", path, roles, fn, template, nav))

    def act(
        self, path: str, *, roles: Roles, again: Show | None = None, most: int = 256 * 1024
    ) -> Callable[[Act], Act]:
        """What a form does. ``again``: the page to show once more where it is refused."""
        return self._register(lambda fn: Route("act", path, roles, fn, again=again, most=most))

    def live(
        self, path: str, *, roles: Roles, template: str, every: float = 5.0
    ) -> Callable[[Show], Show]:
        """A fragment that is made anew every so many seconds and sent where it changed. A page has
        it with ``<div data-live="PATH">{% include "fragment.html" %}</div>``."""
        return self._register(lambda fn: Route("live", path, roles, fn, template, every=every))

    def hook(self, path: str, *, most: int = 1024 * 1024) -> Callable[[Act], Act]:
        """What another machine sends: it must prove by itself who it is. No cookie is read."""
        return self._register(lambda fn: Route("hook", path, PUBLIC, fn, most=most))

    def _register(self, make: Callable[[Any], Route]) -> Callable[[Any], Any]:
        def register(function: Any) -> Any:
            self.routes.append(make(function))
            return function

        return register
