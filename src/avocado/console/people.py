"""People: who may sign in, as what, and with which password (Argon2id).

The operator's people have no tenant; a customer's people have one. An address is one person. What
is said about a wrong password, and how long it takes, is the same for an address that nobody has.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Final, cast

from avocado.console.roles import ROLES, Role, belongs
from avocado.errors import Refused
from avocado.gateway.shelf import Database

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST: Final = 10
LONGEST: Final = 200
"""Characters of a password."""
_EMAIL: Final = re.compile(
    r"[^@\s\"<>(),;:\\\x00-\x1f]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,180}[a-z0-9])?"
)
_COLUMNS: Final = "id, email, tenant, role, password, language, theme, created, seen"
_HASHING: Final = BoundedSemaphore(2)
"""Each takes 64 MiB: no more than two at once."""


@dataclass(frozen=True)
class Person:
    """``tenant`` is None for the operator's people. Times are ns since 1970."""

    id: str
    email: str
    tenant: str | None
    role: Role
    password: str | None
    language: str | None
    theme: str | None
    created: int
    seen: int | None

    @property
    def operator(self) -> bool:
        return self.tenant is None


def read_email(text: str) -> str:
    """An address in the form in which it is stored: lower case.

    Raises:
        Refused: it is none.
    """
    found = text.strip().lower()
    if not _EMAIL.fullmatch(found) or ".." in found:
        raise Refused(f"{text.strip()[:100]!r} is no e-mail address such as ada@example.com")
    return found


def add(
    database: Database,
    email: str,
    role: Role,
    tenant: str | None,
    now: int,
    password: str | None = None,
) -> Person:
    """A new person; ``password`` is a hash, as :func:`hash_password` makes it.

    Raises:
        Refused: the address is none or taken, or the role is not one of that side.
    """
    address = read_email(email)
    if role not in ROLES or not belongs(role, tenant):
        side = "a customer's people" if tenant else "the operator's people"
        raise Refused(f"{role!r} is no role of {side}")
    person = Person(secrets.token_hex(8), address, tenant, role, password, None, None, now, None)
    added = database.run(
        f"INSERT INTO console_person ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
        " ON CONFLICT (email) DO NOTHING RETURNING id",
        (person.id, address, tenant, role, password, None, None, now, None),
    )
    if not added:
        raise Refused(f"{address} has an account already")
    return person


def by_email(database: Database, email: str) -> Person | None:
    return _one(database, "email = ?", email.strip().lower())


def by_id(database: Database, person: str) -> Person | None:
    return _one(database, "id = ?", person)


def everybody(database: Database) -> list[Person]:
    """All people, the operator's first."""
    return _many(database, "1 = 1 ORDER BY tenant IS NOT NULL, tenant, email")


def of_tenant(database: Database, tenant: str | None) -> list[Person]:
    """A customer's people, or (None) the operator's."""
    if tenant is None:
        return _many(database, "tenant IS NULL ORDER BY email")
    return _many(database, "tenant = ? ORDER BY email", tenant)


def change(database: Database, person: Person, **fields: str | None) -> None:
    """Sets ``language``, ``theme`` or ``password`` (a hash)."""
    for name, value in fields.items():
        assert name in {"language", "theme", "password"}, f"{name} is not changed like this"
        database.run(
            f"UPDATE console_person SET {name} = ? WHERE id = ?",  # noqa: S608
            (value, person.id),
        )


def set_role(database: Database, person: Person, role: Role) -> None:
    """Raises Refused where nobody would be left to rule (an owner, or a customer's admin)."""
    if not belongs(role, person.tenant):
        raise Refused(f"{role!r} is no role for {person.email}")
    with database.transaction():
        if role != person.role:
            _keep_a_ruler(database, person)
        database.run("UPDATE console_person SET role = ? WHERE id = ?", (role, person.id))


def remove(database: Database, person: Person) -> None:
    """Takes the person away, with every session and open link.

    Raises:
        Refused: nobody would be left to rule.
    """
    with database.transaction():
        _keep_a_ruler(database, person)
        database.run("DELETE FROM console_session WHERE person = ?", (person.id,))
        database.run("DELETE FROM console_link WHERE email = ?", (person.email,))
        database.run("DELETE FROM console_person WHERE id = ?", (person.id,))


def _keep_a_ruler(database: Database, person: Person) -> None:
    ruler = "owner" if person.operator else "admin"
    others = [
        each
        for each in of_tenant(database, person.tenant)
        if each.role == ruler and each.id != person.id
    ]
    if person.role == ruler and not others:
        raise Refused(f"{person.email} is the last {ruler}: make somebody else one first")


def _one(database: Database, where: str, *values: object) -> Person | None:
    return next(iter(_many(database, where, *values)), None)


def _many(database: Database, where: str, *values: object) -> list[Person]:
    sql = f"SELECT {_COLUMNS} FROM console_person WHERE {where}"  # noqa: S608
    return [_person(row) for row in database.run(sql, values)]


def _person(row: Sequence[Any]) -> Person:
    return Person(row[0], row[1], row[2], cast(Role, row[3]), *row[4:])


# -- passwords ------------------------------------------------------------------------------------


@cache
def hasher() -> PasswordHasher:
    """RFC 9106's second recommended option: Argon2id, 64 MiB, three passes, four lanes."""
    from argon2 import PasswordHasher
    from argon2.profiles import RFC_9106_LOW_MEMORY

    return PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


_nobody: Final[dict[tuple[int, int], str]] = {}


def _nobodys() -> str:
    """A hash that no password has, of today's parameters: what an unknown address is compared
    with."""
    cost = (hasher().memory_cost, hasher().time_cost)
    if cost not in _nobody:
        _nobody[cost] = hasher().hash(secrets.token_hex(16))
    return _nobody[cost]


def hash_password(email: str, password: str) -> str:
    """What is stored. Raises Refused for one that is too short, too long or the address itself."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise Refused(f"a password has {SHORTEST} to {LONGEST} characters")
    if password.strip().lower() in (email, email.partition("@")[0]):
        raise Refused("a password must not be the e-mail address")
    with _HASHING:
        return hasher().hash(password)


def check_password(database: Database, person: Person | None, password: str) -> bool:
    """Whether it is the person's. As slow for nobody, and for a person without a password. A hash
    of older parameters is replaced when its password was right."""
    from argon2.exceptions import InvalidHashError, VerificationError

    stored = person.password if person is not None else None
    with _HASHING:
        try:
            hasher().verify(stored or _nobodys(), password[:LONGEST])
            right = True
        except (VerificationError, InvalidHashError):
            right = False
    if not right or person is None or stored is None:
        return False
    if hasher().check_needs_rehash(stored):
        with _HASHING:
            fresh = hasher().hash(password)
        change(database, person, password=fresh)
    return True
