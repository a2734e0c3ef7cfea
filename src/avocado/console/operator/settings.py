"""Settings: the workspace as it is set up, without secrets, and the operator's own people."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any, Final

import msgspec

from avocado.billing.daybook import FILE
from avocado.console import events, links, people
from avocado.console.operator.acting import ask_first, reason_of
from avocado.console.operator.caring import send_invitation
from avocado.console.operator.doors import DOORS
from avocado.console.page import Nav, NotFound, Pages, Redirect, Reply, Values, Visit
from avocado.console.roles import OPERATOR, Role
from avocado.errors import Refused

PAGES = Pages()
SECTIONS: Final = (
    "serve", "ledger", "limits", "engine", "telemetry", "vault", "seller", "tax", "billing", "mail",
    "payments", "console", "gate",
)  # fmt: skip
_HERE: Final = "/operator/settings"


@PAGES.show(
    "/operator/settings",
    roles=DOORS["settings"],
    template="operator/settings.html",
    nav=Nav("op.settings", "code", 430, "op.group_trust"),
)
def settings(visit: Visit) -> Values:
    workspace = visit.console.workspace
    config = workspace.config
    tables = []
    for name in SECTIONS:
        value = getattr(config, name, None)
        if value is not None and (rows := flat(msgspec.to_builtins(value))):
            tables.append((name, rows))
    database = visit.console.threads.database()
    return {
        "config": config,
        "tables": tables,
        "folder": workspace.folder,
        "version": version("avocado-llm"),
        "variables": [(name, name in os.environ) for name in _variables(config)],
        "people": people.of_tenant(database, None),
        "invited": links.waiting(database, None, visit.now),
        "files": _files(visit),
    }


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """(dotted key, value) of a table. A password inside of an address is not shown."""
    if isinstance(value, dict):
        return [
            pair
            for key, each in value.items()
            for pair in flat(each, f"{name}.{key}" if name else str(key))
        ]
    if value is None or value == [] or value == ():
        return []
    if isinstance(value, list | tuple):
        return [(name, ", ".join(without_password(str(each)) for each in value))]
    if isinstance(value, bool):
        return [(name, "true" if value else "false")]
    return [(name, without_password(str(value)))]


def without_password(text: str) -> str:
    """``postgresql://user:secret@host`` as ``postgresql://user:…@host``; and without a query, which
    may name one too."""
    head, mark, rest = text.partition("://")
    if not mark:
        return text
    place, _, _ = rest.partition("?")
    who, at, host = place.rpartition("@")
    if not at:
        return f"{head}://{place}"
    return f"{head}://{who.partition(':')[0]}:…@{host}" if ":" in who else f"{head}://{place}"


def _variables(config: Any) -> list[str]:
    """Environment variables that the file names, or that payments read."""
    from avocado.billing.provider import API_KEY, WEBHOOK_SECRET

    found = []
    if config.mail is not None and config.mail.password_variable:
        found.append(config.mail.password_variable)
    if config.vault.key_variable:
        found.append(config.vault.key_variable)
    if config.console.oidc is not None:
        found.append(config.console.oidc.secret_variable)
    return found + ([API_KEY, WEBHOOK_SECRET] if config.payments is not None else [])


def _files(visit: Visit) -> list[tuple[str, int]]:
    """What the workspace's own databases take, in bytes."""
    state = visit.console.workspace.state
    names = ("ledger.sqlite", "gateway.sqlite", "console.sqlite", FILE)
    return [(name, (state / name).stat().st_size) for name in names if (state / name).exists()]


# -- the operator's people ------------------------------------------------------------------------


def _role(visit: Visit) -> Role:
    role = visit.form.get("role", "")
    if role not in OPERATOR:
        raise Refused(visit.t("op_settings.bad_role"))
    return role


@PAGES.act("/operator/settings/invite", roles=DOORS["settings"], again=settings)
def invite(visit: Visit) -> Reply:
    email = people.read_email(visit.form.text("email", 254))
    return send_invitation(visit, email, _role(visit), None, _HERE)


@PAGES.act("/operator/settings/person", roles=DOORS["settings"], again=settings)
def change_person(visit: Visit) -> Reply:
    """Another role for one of the operator's people, or none at all any more."""
    database = visit.console.threads.database()
    email = visit.form.text("email", 254)
    person = people.by_email(database, email)
    if person is None or person.tenant is not None:
        if any(each.email == email for each in links.waiting(database, None, visit.now)):
            links.withdraw(database, email, None)
            return Redirect(_HERE, visit.t("op_settings.changed"))
        raise NotFound
    gone = visit.form.get("role") == "none"
    word = "remove" if gone else "role"
    role: Role | None = None if gone else _role(visit)
    named = visit.t(f"role.{role}") if role else ""
    asked = ask_first(
        visit,
        visit.t(f"op_settings.{word}_title"),
        visit.t(f"op_settings.{word}_text", email=email, role=named),
        _HERE,
    )  # fmt: skip
    if asked is not None:
        return asked
    reason = reason_of(visit)
    if role:
        people.set_role(database, person, role)
    else:
        people.remove(database, person)
    events.note(
        database, visit.now, "member-removed" if gone else "role-changed", visit.who.email,
        address=visit.address, detail=f"{email} {role or ''}: {reason}",
    )  # fmt: skip
    return Redirect(_HERE, visit.t("op_settings.changed"))
