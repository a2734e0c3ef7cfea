"""Published plans: documents ``plan/<name>/<version>``, numbered from 1, that never change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from avocado.billing.plan import Plan, from_content
from avocado.billing.record import ATTEMPTS, Do, busy, file
from avocado.errors import Refused
from avocado.ledger.reader import Reader


@dataclass(frozen=True, slots=True)
class Published:
    """A plan and its version. ``at`` is when it was filed, in ns."""

    plan: Plan
    version: int
    at: int = 0


def publish(reader: Reader | None, do: Do, plan: Plan, actor: str = "") -> tuple[Published, bool]:
    """Files the plan's next version. The newest once more is that one, and False.

    Raises:
        Refused: its kind or currency is another than that of the version before.
    """
    for _ in range(ATTEMPTS):
        newest = None if reader is None else latest(reader, plan.name)
        if newest is not None and newest.plan == plan:
            return newest, False
        if newest is not None and newest.plan.currency != plan.currency:
            raise Refused(
                f"the plan {plan.name} is in {newest.plan.currency}: give one in "
                f"{plan.currency} another name"
            )
        version = 1 if newest is None else newest.version + 1
        if file(do, f"plan/{plan.name}/{version}", "plan", "", plan, 1, actor):
            return Published(plan, version), True
        if reader is None:
            break
    raise busy(f"the plan {plan.name}")


def version_of(reader: Reader, name: str, version: int) -> Published:
    """One version.

    Raises:
        Refused: there is none.
    """
    found = reader.document(f"plan/{name}/{version}")
    if found is None:
        newest = latest(reader, name)
        known = f"its newest version is {newest.version}" if newest else "no such plan"
        raise Refused(f"there is no version {version} of the plan {name!r}: {known}")
    return Published(from_content(found.content), version, found.at)


def latest(reader: Reader, name: str) -> Published | None:
    """The newest version of a plan, or None for an unknown name."""
    low, high = 0, 1
    while reader.document(f"plan/{name}/{high}") is not None:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if reader.document(f"plan/{name}/{middle}") is None:
            high = middle
        else:
            low = middle
    return version_of(reader, name, low) if low else None


def find(reader: Reader, text: str) -> Published:
    """A plan as people write it: ``pro`` is its newest version, ``pro@3`` that one.

    Raises:
        Refused: there is no such plan, or no such version.
    """
    name, at, version = text.partition("@")
    if at:
        if not (version.isascii() and version.isdigit() and 0 < int(version) < 10**9):
            raise Refused(f"{text!r} names no version: write it as {name}@2")
        return version_of(reader, name, int(version))
    found = latest(reader, name)
    if found is None:
        raise Refused(f"there is no plan {name!r}: avocado plans list shows what there is")
    return found


def published(reader: Reader) -> Iterator[Published]:
    """Every version of every plan, in the order of publication."""
    for document in list(reader.documents("plan")):
        version = int(document.id.rpartition("/")[2])
        yield Published(from_content(document.content), version, document.at)
