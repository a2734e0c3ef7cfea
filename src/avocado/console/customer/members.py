"""Members: who else of the customer may come in. Its admins decide."""

from __future__ import annotations

from avocado.console import events, letters, links, people
from avocado.console.page import Nav, NotFound, Pages, Redirect, Reply, Shown, Values, Visit
from avocado.console.people import Person
from avocado.console.roles import ADMIN, CUSTOMER, Role
from avocado.errors import Refused

PAGES = Pages()
MOST = 200


@PAGES.show(
    "/members",
    roles=CUSTOMER,
    template="customer/members.html",
    nav=Nav("nav.members", "people", 80),
)
def members(visit: Visit) -> Values:
    database = visit.console.threads.database()
    return {
        "members": people.of_tenant(database, visit.tenant),
        "waiting": links.waiting(database, visit.tenant, visit.now),
        "mail": visit.console.workspace.config.mail is not None,
    }


@PAGES.act("/members/invite", roles=ADMIN, again=members)
def invite(visit: Visit) -> Reply:
    """Sends an invitation; without ``[mail]`` its link is shown, to be passed on."""
    console, database = visit.console, visit.console.threads.database()
    email = people.read_email(visit.form.get("email", ""))
    role: Role = "admin" if visit.form.get("role") == "admin" else "member"
    if people.by_email(database, email) is not None:
        raise Refused(visit.t("members.taken", email=email))
    known = len(people.of_tenant(database, visit.tenant))
    if known + len(links.waiting(database, visit.tenant, visit.now)) >= MOST:
        raise Refused(visit.t("members.too_many", most=MOST))
    links.withdraw(database, email, visit.tenant)
    token = links.make(database, "invite", email, role, visit.tenant, visit.who.email, visit.now)
    _note(visit, "invited", email)
    if console.workspace.config.mail is None:
        url = letters.link_url(console, token)
        return Shown("customer/invited.html", {"email": email, "url": url})
    letters.send(console, letters.of_link(console, visit.speaker, "invite", email, token))
    return Redirect("/members", visit.t("members.invited", email=email))


@PAGES.act("/members/withdraw", roles=ADMIN, again=members)
def withdraw(visit: Visit) -> Reply:
    email = visit.form.text("email", 254)
    links.withdraw(visit.console.threads.database(), email, visit.tenant)
    _note(visit, "invitation-withdrawn", email)
    return Redirect("/members", visit.t("members.withdrawn", email=email))


@PAGES.act("/members/{person}/role", roles=ADMIN, again=members)
def change_role(visit: Visit) -> Reply:
    person = _mine(visit)
    role: Role = "admin" if visit.form.get("role") == "admin" else "member"
    people.set_role(visit.console.threads.database(), person, role)
    _note(visit, "role-changed", f"{person.email} is {role}")
    return Redirect("/members", visit.t("members.changed", email=person.email))


@PAGES.act("/members/{person}/remove", roles=ADMIN, again=members)
def remove(visit: Visit) -> Reply:
    person = _mine(visit)
    people.remove(visit.console.threads.database(), person)
    _note(visit, "removed", person.email)
    if person.id == visit.who.id:
        return Redirect("/sign-in")
    return Redirect("/members", visit.t("members.removed", email=person.email))


def _mine(visit: Visit) -> Person:
    """A person of this customer. Raises NotFound for anybody else."""
    person = people.by_id(visit.console.threads.database(), visit.path["person"])
    if person is None or person.tenant != visit.tenant:
        raise NotFound
    return person


def _note(visit: Visit, kind: str, detail: str) -> None:
    events.note(
        visit.console.threads.database(),
        visit.now,
        kind,
        visit.who.email,
        tenant=visit.tenant,
        address=visit.address,
        detail=detail,
    )
