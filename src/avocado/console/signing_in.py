"""Signing in: by password, by a link in a mail; the links themselves; signing out; how it looks."""

from __future__ import annotations

from avocado.console import events, links, people, sessions
from avocado.console.links import Link, LinkSpent
from avocado.console.page import (
    Answer,
    Pages,
    Redirect,
    Reply,
    Shown,
    SignedIn,
    SignedOut,
    TooManyTries,
    Values,
    Visit,
)
from avocado.console.people import Person
from avocado.console.roles import PUBLIC, SIGNED_IN
from avocado.console.sending import onward
from avocado.console.words import LANGUAGES
from avocado.errors import Refused
from avocado.gateway.keys import Throttle

PAGES_OF_DOOR = Pages()
PAGES = (PAGES_OF_DOOR,)
_SECOND = 1_000_000_000


@PAGES_OF_DOOR.show("/", roles=PUBLIC)
def start(visit: Visit) -> Answer:
    """Everybody's own first page."""
    if visit.person is None:
        return Redirect("/sign-in")
    return Redirect("/operator" if visit.person.operator else "/overview")


@PAGES_OF_DOOR.show("/sign-in", roles=PUBLIC, template="sign_in.html")
def sign_in_page(visit: Visit) -> Answer:
    if visit.person is not None and visit.route.kind == "show" and not visit.form:
        return Redirect("/")
    config = visit.console.workspace.config
    return {
        "next": onward(visit.query.get("next", "/")),
        "by_mail": config.mail is not None,
        "oidc": config.console.oidc,
    }


@PAGES_OF_DOOR.act("/sign-in", roles=PUBLIC, again=sign_in_page)
def sign_in(visit: Visit) -> Reply:
    """By password. Failures are counted by address and by account, before anything is hashed."""
    console, database = visit.console, visit.console.threads.database()
    email = visit.form.get("email", "").strip().lower()[:254]
    names = ((console.by_address, f"address {visit.address}"), (console.by_account, email))
    hold_back(visit, *names)
    person = people.by_email(database, email)
    if not people.check_password(database, person, visit.form.get("password", "")):
        for throttle, name in names:
            throttle.failed(name, visit.now / _SECOND)
        events.note(database, visit.now, "sign-in-failed", email or "nobody", address=visit.address)
        raise Refused(visit.t("door.wrong"))
    assert person is not None
    return enter(visit, person, "password", visit.form.get("next", "/"))


def hold_back(visit: Visit, *names: tuple[Throttle, str]) -> None:
    """Raises TooManyTries where one of the names failed too often."""
    wait = max(throttle.wait(name, visit.now / _SECOND) for throttle, name in names)
    if wait > 0:
        raise TooManyTries(wait)


def enter(visit: Visit, person: Person, how: str, url: str = "/", flash: str = "") -> SignedIn:
    """Starts a fresh session, and ends the one that the browser had."""
    console, database = visit.console, visit.console.threads.database()
    if visit.session is not None:
        sessions.end(database, visit.session.digest)
    token = sessions.begin(
        database,
        person,
        visit.now,
        console.config.session_hours,
        visit.address,
        visit.headers.get("user-agent", ""),
    )
    events.note(
        database,
        visit.now,
        "sign-in",
        person.email,
        tenant=person.tenant,
        address=visit.address,
        detail=how,
    )
    return SignedIn(token, onward(url), flash)


# -- a link by mail -------------------------------------------------------------------------------


@PAGES_OF_DOOR.act("/sign-in/link", roles=PUBLIC, again=sign_in_page)
def send_link(visit: Visit) -> Reply:
    """Sends a link to sign in or to set a password. What is answered does not tell whether anybody
    has that address, and all that differs happens after the answer."""
    from avocado.console import letters

    console = visit.console
    letters.require_mail(console.workspace.config)
    email = people.read_email(visit.form.get("email", ""))
    names = ((console.by_mail, email), (console.by_address, f"address {visit.address}"))
    hold_back(visit, *names)
    for throttle, name in names:
        throttle.failed(name, visit.now / _SECOND)
    kind: links.Kind = "password" if visit.form.get("kind") == "password" else "sign-in"
    made_by, now, speaker = visit.address, visit.now, visit.speaker

    def work() -> None:
        known = console.threads.database()
        person = people.by_email(known, email)
        if person is not None:
            token = links.make(known, kind, email, person.role, person.tenant, made_by, now)
            letters.send(console, letters.of_link(console, speaker, kind, email, token))

    letters.soon(console, email, work)
    return Shown("link_sent.html", {"email": email})


# -- the page behind a link -----------------------------------------------------------------------


@PAGES_OF_DOOR.show("/link/{token}", roles=PUBLIC, template="link.html")
def link_page(visit: Visit) -> Answer:
    """Says what the link does. Looking at it uses nothing up."""
    database = visit.console.threads.database()
    try:
        link = links.look(database, visit.path["token"], visit.now)
    except LinkSpent as spent:
        return refuse(visit, spent)
    return _of_link(visit, link)


def _of_link(visit: Visit, link: Link) -> Values:
    return {"link": link, "shortest": people.SHORTEST, "need": _needs_password(visit, link)}


def _needs_password(visit: Visit, link: Link) -> bool:
    """Whoever has none comes back by a mailed link or by single sign-on, where there is one."""
    if link.kind != "invite":
        return link.kind in ("first", "password")
    config = visit.console.workspace.config
    return config.mail is None and config.console.oidc is None


@PAGES_OF_DOOR.act("/link/{token}", roles=PUBLIC, again=link_page)
def use_link(visit: Visit) -> Reply:
    database = visit.console.threads.database()
    token = visit.path["token"]
    try:
        link = links.look(database, token, visit.now)
        return _use(visit, link, token)
    except LinkSpent as spent:
        return refuse(visit, spent)


def _use(visit: Visit, link: Link, token: str) -> Reply:
    database = visit.console.threads.database()
    email = people.read_email(link.email or visit.form.get("email", ""))
    password = visit.form.get("password", "")
    hashed = None
    if password or _needs_password(visit, link):
        hashed = people.hash_password(email, password)
    with database.transaction():
        links.use(database, token, visit.now)
        person = people.by_email(database, email)
        if person is None:
            person = people.add(database, email, link.role, link.tenant, visit.now, hashed)
        elif link.kind in ("first", "invite"):
            raise Refused(visit.t("door.taken", email=email))
        elif hashed is not None:
            people.change(database, person, password=hashed)
            sessions.end_all(database, person)
    if link.kind == "first":
        visit.console.first_link.unlink(missing_ok=True)
    return enter(visit, person, f"{link.kind} link")


def refuse(visit: Visit, spent: LinkSpent) -> Shown:
    """403, and on record."""
    link = spent.link
    events.note(
        visit.console.threads.database(),
        visit.now,
        "link-refused",
        (link.email or "first operator") if link else "unknown link",
        tenant=link.tenant if link else None,
        address=visit.address,
        detail=f"{link.kind} link, {'used before' if link.used else 'over'}" if link else "",
    )
    return Shown("error.html", {"status": 403, "word": "spent"}, 403)


# -- out, and how it looks ------------------------------------------------------------------------


@PAGES_OF_DOOR.act("/sign-out", roles=SIGNED_IN)
def sign_out(visit: Visit) -> Reply:
    assert visit.session is not None
    sessions.end(visit.console.threads.database(), visit.session.digest)
    return SignedOut(flash=visit.t("door.signed_out"))


@PAGES_OF_DOOR.act("/theme", roles=PUBLIC)
def set_theme(visit: Visit) -> Reply:
    theme = visit.form.get("theme", "")
    theme = theme if theme in ("light", "dark") else "system"
    if visit.person is not None:
        people.change(visit.console.threads.database(), visit.person, theme=theme)
    return Redirect(onward(visit.form.get("next", "/")), keep=(("theme", theme),))


@PAGES_OF_DOOR.act("/language", roles=PUBLIC)
def set_language(visit: Visit) -> Reply:
    wanted = visit.form.get("language", "")
    language = wanted if wanted in LANGUAGES else LANGUAGES[0]
    if visit.person is not None:
        people.change(visit.console.threads.database(), visit.person, language=language)
    return Redirect(onward(visit.form.get("next", "/")), keep=(("language", language),))
