"""Settings: everybody's own: language, theme, password, where they are signed in."""

from __future__ import annotations

from avocado.console import events, people, sessions
from avocado.console.page import Nav, NotFound, Pages, Redirect, Reply, SignedOut, Values, Visit
from avocado.console.roles import SIGNED_IN
from avocado.console.signing_in import enter, hold_back
from avocado.errors import Refused

PAGES = Pages()
THEMES = ("system", "light", "dark")


@PAGES.show(
    "/settings", roles=SIGNED_IN, template="settings.html", nav=Nav("nav.settings", "gear", 900)
)
def settings(visit: Visit) -> Values:
    assert visit.session is not None
    return {
        "sessions": sessions.of_person(visit.console.threads.database(), visit.who, visit.now),
        "this": visit.session.id,
        "themes": [(each, visit.t(f"settings.{each}")) for each in THEMES],
        "shortest": people.SHORTEST,
    }


@PAGES.act("/settings/password", roles=SIGNED_IN, again=settings)
def change_password(visit: Visit) -> Reply:
    """Ends every other session, and gives this browser a fresh one."""
    console, database = visit.console, visit.console.threads.database()
    person = visit.who
    hold_back(visit, (console.by_account, person.email))
    if person.password is not None:
        given = visit.form.get("current", "")
        if not people.check_password(database, person, given):
            console.by_account.failed(person.email, visit.now / 1e9)
            raise Refused(visit.t("settings.wrong"))
    hashed = people.hash_password(person.email, visit.form.get("password", ""))
    people.change(database, person, password=hashed)
    sessions.end_all(database, person)
    events.note(
        database,
        visit.now,
        "password-changed",
        person.email,
        tenant=person.tenant,
        address=visit.address,
    )
    return enter(visit, person, "new password", "/settings", visit.t("settings.password_changed"))


@PAGES.act("/settings/sessions/{session}/end", roles=SIGNED_IN, again=settings)
def end_session(visit: Visit) -> Reply:
    assert visit.session is not None
    if not sessions.end_one(visit.console.threads.database(), visit.who, visit.path["session"]):
        raise NotFound
    if visit.path["session"] == visit.session.id:
        return SignedOut(flash=visit.t("door.signed_out"))
    return Redirect("/settings", visit.t("settings.ended"))


@PAGES.act("/settings/sessions/end", roles=SIGNED_IN, again=settings)
def end_all_sessions(visit: Visit) -> Reply:
    sessions.end_all(visit.console.threads.database(), visit.who)
    return SignedOut(flash=visit.t("settings.everywhere"))
