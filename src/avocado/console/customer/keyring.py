"""A customer's keys: made, bounded, rotated and revoked by the customer's own people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from avocado.cli.book import shelf
from avocado.cli.limits import RATES, end_of
from avocado.console.customer.models import policy_of
from avocado.console.page import NotFound, Visit
from avocado.errors import Refused
from avocado.gateway import access, keys
from avocado.gateway.access import Policy
from avocado.ledger.operation import AddKey, RevokeKey, SetSpendLimit
from avocado.ledger.rows import Key

INTERNAL: Final = "console playground"
"""The name of keys that the playground makes for itself. They are not shown."""
HOUR: Final = 3600 * 1_000_000_000
MOST: Final = 500
"""Working keys of a customer."""


@dataclass(frozen=True)
class Bounds:
    """What a key may do. Money in nano-units; None: no bound of its own."""

    scopes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    month: int | None = None
    total: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def policy(self) -> dict[str, object]:
        """The part that lies on the gateway's shelf."""
        names = ("scopes", "models", *RATES)
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class Shown:
    """A key as its owner sees it. ``state`` is active, revoked or ended."""

    key: Key
    policy: Policy
    state: str
    ends: int | None
    spent: int
    """This month, nano-units."""


def shown_keys(visit: Visit, spent: dict[str, int]) -> list[Shown]:
    """The customer's own keys, working ones first, the newest first."""
    stored = [each for each in visit.reader.keys(visit.tenant) if each.name != INTERNAL]
    policies = policy_of(visit, *(f"key:{each.key_id}" for each in stored)) if stored else {}
    found = []
    for key in reversed(stored):
        policy = policies.get(f"key:{key.key_id}", Policy())
        ends = end_of(key, policy)
        ended = ends is not None and ends <= visit.now
        state = "revoked" if key.revoked is not None else "ended" if ended else "active"
        found.append(Shown(key, policy, state, ends, spent.get(key.key_id, 0)))
    return sorted(found, key=lambda each: each.state != "active")


def find(visit: Visit, key_id: str) -> Key:
    """One of the customer's own keys.

    Raises:
        NotFound: there is none, or it is another customer's.
    """
    for key in visit.reader.keys(visit.tenant):
        if key.key_id == key_id and key.name != INTERNAL:
            return key
    raise NotFound


def create(
    visit: Visit, name: str, expires: int | None, bounds: Bounds, internal: bool = False
) -> str:
    """A new key's text, which cannot be had again. ``expires`` in ns.

    Raises:
        Refused: a name that is none, or too many keys.
    """
    if not internal:
        if not name or not name.isprintable() or len(name) > 100 or name == INTERNAL:
            raise Refused(visit.t("keys.bad_name"))
        working = [each for each in visit.reader.keys(visit.tenant) if each.revoked is None]
        if len(working) >= MOST:
            raise Refused(visit.t("keys.too_many", most=MOST))
    workspace = visit.console.workspace
    made = keys.mint(workspace.pepper())
    if bounds.policy:
        with shelf(workspace) as database:  # first: a key is never without its bounds
            access.change(database, f"key:{made.id}", visit.actor, **bounds.policy)
    with visit.writing() as do:
        do(
            AddKey(
                key_id=made.id,
                tenant=visit.tenant,
                name=name,
                digest=made.digest,
                created=visit.now,
                expires=expires,
            )
        )
        if (bounds.month, bounds.total) != (None, None):
            do(
                SetSpendLimit(
                    tenant=visit.tenant, key_id=made.id, month=bounds.month, total=bounds.total
                )
            )
    return made.text


def bound(visit: Visit, key: Key, bounds: Bounds) -> None:
    """Changes what a key may do; scopes stay."""
    terms = {name: getattr(bounds, name) for name in ("models", *RATES)}
    with shelf(visit.console.workspace) as database:
        access.change(database, f"key:{key.key_id}", visit.actor, **terms)
    if (bounds.month, bounds.total) != (key.month_limit, key.total_limit):
        with visit.writing() as do:
            do(
                SetSpendLimit(
                    tenant=key.tenant, key_id=key.key_id, month=bounds.month, total=bounds.total
                )
            )


def rotate(visit: Visit, key: Key, hours: int) -> str:
    """A new key with the same bounds; the old one ends after so many hours.

    Raises:
        Refused: it does not work any more.
    """
    subject = f"key:{key.key_id}"
    policy = policy_of(visit, subject).get(subject, Policy())
    ends = end_of(key, policy)
    if key.revoked is not None or (ends is not None and ends <= visit.now):
        raise Refused(visit.t("keys.over"))
    bounds = Bounds(
        policy.scopes,
        policy.models,
        key.month_limit,
        key.total_limit,
        policy.requests_per_minute,
        policy.tokens_per_minute,
    )
    text = create(visit, key.name, key.expires, bounds)
    until = visit.now + hours * HOUR
    if policy.until is not None:
        until = min(until, policy.until)  # no rotation lengthens a life
    with shelf(visit.console.workspace) as database:
        access.change(database, subject, visit.actor, until=until)
    return text


def revoke(visit: Visit, key: Key) -> None:
    with visit.writing() as do:
        do(RevokeKey(key_id=key.key_id))
