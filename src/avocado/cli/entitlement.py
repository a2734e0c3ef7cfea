"""What a subscription means to the gateway: the plan and the limits of a customer's policy."""

from __future__ import annotations

from collections.abc import Sequence

from avocado.billing.clerk import Done, Entitled, entitled
from avocado.billing.subscription import Subscription
from avocado.cli.book import shelf
from avocado.ledger.reader import Reader
from avocado.workspace import Workspace

_AT_ONCE = 500


def entitle(workspace: Workspace, people: Sequence[Entitled], who: str) -> list[Done]:
    """Makes the gateway's policies say what the subscriptions say; a server knows it within a
    second. A plan that sets a limit sets it for everybody on it; other limits stay as they are
    until the customer's plan changes. Who never had a subscription is left alone."""
    from avocado.gateway.access import Policy, change, read

    made = []
    with shelf(workspace) as database:
        for start in range(0, len(people), _AT_ONCE):
            page = {f"customer:{each.tenant}": each for each in people[start : start + _AT_ONCE]}
            known = read(database, list(page))
            for subject, each in page.items():
                before = known.get(subject, Policy())
                terms = _terms(before, each)
                if any(getattr(before, name) != value for name, value in terms.items()):
                    change(database, subject, who, **terms)
                    made.append(Done("entitled", each.tenant, each.plan if each.on else "no plan"))
    return made


def _terms(before: object, each: Entitled) -> dict[str, object]:
    """What the policy has to say. A plan that somebody set by hand after the end stays."""
    plan = getattr(before, "plan", None)
    limits = {
        "requests_per_minute": each.limits.requests_per_minute,
        "tokens_per_minute": each.limits.tokens_per_minute,
    }
    if not each.on:
        return {"plan": None, **dict.fromkeys(_set(limits))} if plan == each.plan else {}
    return {"plan": each.plan, **(_set(limits) if plan == each.plan else limits)}


def _set(limits: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in limits.items() if value is not None}


def entitle_one(workspace: Workspace, reader: Reader, sub: Subscription, who: str) -> None:
    """The same for one customer, whose subscription has just changed."""
    entitle(workspace, list(entitled(reader, [sub])), who)
