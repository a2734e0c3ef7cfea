"""``avocado licence attest``: a person answers for a licence, or states the operator's size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import click

from avocado.cli.arguments import workspace_here
from avocado.cli.components import (
    PURPOSES,
    found_base,
    known_components,
    log_of,
    parts_of,
    today,
)
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.terms.attestation import Attestation, Statement, check
from avocado.terms.licence import Component, judge
from avocado.terms.licence_facts import Purpose, find
from avocado.workspace import Workspace

THRESHOLD: Final = "threshold"
QUARTER: Final = 92
"""Days for which a stated size of the operator holds, where no end is given: sizes grow."""

_OWN: Final = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")


def to_json(each: Attestation) -> dict[str, Any]:
    said = each.statement
    return {
        **each.cited(),
        "kind": said.kind,
        "subject": said.subject,
        "scope": said.scope,
        "text_sha256": said.text_sha256,
        "licence": said.licence,
        "allows": list(said.allows),
        "values": dict(said.values),
        "reason": said.reason,
        "until": said.until,
    }


def in_words(each: Attestation) -> str:
    said = each.statement
    end = f", until {said.until}" if said.until else ""
    if said.kind == THRESHOLD:
        what = ", ".join(f"{name} {value:,}" for name, value in said.values)
    else:
        allows = f", allowing {' and '.join(said.allows)}" if said.allows else ""
        what = f"{said.subject}@{shortened(said.scope)} is {said.licence}{allows}"
    return f"attested {each.seq}: {what}; by {said.by} on {said.date}{end}: {said.reason}"


def shortened(scope: str) -> str:
    return scope.removeprefix("sha256:")[:12] or "any"


@click.command(short_help="Answer for a licence, or for your size.")
@click.argument("component", metavar="COMPONENT|threshold")
@click.option("--licence", "id_", help="SPDX id, or LicenseRef-… for an agreement of your own.")
@click.option(
    "--allow",
    "allows",
    type=click.Choice(PURPOSES),
    multiple=True,
    help="You answer for this purpose, where the licence leaves it to a person.",
)
@click.option(
    "--monthly-users", type=click.IntRange(0), help="Most active users in a month, affiliates too."
)
@click.option(
    "--revenue", type=click.IntRange(0), help="US dollars in twelve months, affiliates too."
)
@click.option("--by", required=True, help="Who answers for it.")
@click.option("--reason", help="What was read, and why it says so.")
@click.option("--date", "day", help="When it was read; today if left out.")
@click.option("--until", help="The last day that it holds; a threshold's: a quarter of a year.")
@with_output
def attest(
    out: Output,
    component: str,
    id_: str | None,
    allows: tuple[Purpose, ...],
    monthly_users: int | None,
    revenue: int | None,
    by: str,
    reason: str | None,
    day: str | None,
    until: str | None,
) -> None:
    """Answer, by name, for the licence of COMPONENT, or for the operator's size (threshold).

    COMPONENT is a base, a data source or a teacher as `licence explain` names it, also NAME@HASH
    where a name means several. It holds for that very thing: another revision, another LICENSE or
    other data needs its own word. The log only grows, and is sealed line by line.
    """
    workspace = workspace_here()
    day = day or today()
    values = _sizes(component, monthly_users, revenue, id_, allows)
    if values:
        statement = Statement(
            kind="threshold",
            by=by,
            date=day,
            reason=reason or f"stated by {by}",
            until=until or _later(day),
            values=values,
        )
    else:
        if id_ is None or reason is None:
            raise click.UsageError("say --licence and --reason")
        part = _named(workspace, component)
        chosen = _chosen(part, id_, allows)
        statement = Statement(
            kind="licence",
            by=by,
            date=day,
            reason=reason,
            until=until,
            subject=part.name,
            scope=part.scope,
            text_sha256=part.text_sha256,
            licence=chosen,
            allows=tuple(dict.fromkeys(allows)),
        )
    check(statement, today())
    made = log_of(workspace).append(statement)
    out.result(to_json(made), in_words(made))


def _sizes(
    component: str,
    monthly_users: int | None,
    revenue: int | None,
    id_: str | None,
    allows: Sequence[Purpose],
) -> tuple[tuple[str, int], ...]:
    given = {"monthly-users": monthly_users, "yearly-revenue": revenue}
    values = tuple((name, value) for name, value in given.items() if value is not None)
    if component == THRESHOLD and not values:
        raise click.UsageError("threshold needs --monthly-users or --revenue")
    if component == THRESHOLD and (id_ is not None or allows):
        raise click.UsageError("threshold states a size: leave --licence and --allow out")
    if component != THRESHOLD and values:
        raise click.UsageError("sizes are stated with: avocado licence attest threshold")
    return values


def _later(day: str) -> str:
    try:
        return (date.fromisoformat(day) + timedelta(days=QUARTER)).isoformat()
    except (ValueError, OverflowError):
        raise Refused(f"{day!r} is no date such as 2026-11-24") from None


def _named(workspace: Workspace, text: str) -> Component:
    """The one thing that a person means.

    Raises:
        Refused: nothing in this workspace is called so, or several things are.
    """
    name, _, mark = text.partition("@")
    known = known_components(workspace)
    found = [each for each in known if each.name == text]
    if not found and mark:
        found = [
            each
            for each in known
            if each.name == name and each.scope.removeprefix("sha256:").startswith(mark)
        ]
    if not found and text.partition("-")[0] == "base" and "-" in text:
        found = list(parts_of(workspace, text)[0])
    if not found:
        found = _unrecorded(text, known)
    things = {(each.name, each.scope, each.text_sha256): each for each in found}
    if len(things) > 1:
        shown = ", ".join(f"{each.name}@{shortened(each.scope)}" for each in things.values())
        raise Refused(f"{text!r} means {len(things)} things here: say which of {shown}")
    return _strictest(found)


def _unrecorded(text: str, known: Sequence[Component]) -> list[Component]:
    """A base that nobody has used here yet."""
    if found := found_base(text):
        return found
    names = ", ".join(sorted({each.name for each in known})) or "none yet"
    raise Refused(
        f"no base, data source or teacher of this workspace is called {text!r} (there are: "
        f"{names}); data and bases get known with: avocado data freeze"
    )


def _strictest(found: Sequence[Component]) -> Component:
    """Of one thing that states several licences, the one that is not known, if there is one."""
    return next((each for each in found if find(each.licence) is None), found[0])


def _chosen(part: Component, word: str, allows: Sequence[Purpose]) -> str:
    """The id that is attested.

    Raises:
        Refused: it is no licence, it is known to be another, or it forbids what is to be allowed.
    """
    chosen = find(word)
    if chosen is None:
        if not _OWN.fullmatch(word):
            raise Refused(
                f"{word!r} is no licence that we know (avocado licence list); an agreement of your "
                "own is called LicenseRef-… and needs --allow"
            )
        if not allows:
            raise Refused(f"we have not read {word}: say with --allow what it lets you do")
        return word
    for purpose in allows:
        if chosen.answer(purpose, part.role) == "refused":
            raise Refused(
                f"{chosen.name} itself does not allow {purpose} ({chosen.clause}); a separate "
                "agreement is attested under a name of its own: LicenseRef-…"
            )
    unattested = judge([part], "publication").findings[0]
    other = [each for each in unattested.licences if each.id != chosen.id]
    if other:
        raise Refused(
            f"{part.name} is under {other[0].name}, and a word that it is {chosen.id} does not "
            "change that; a separate agreement is attested under a name of its own: LicenseRef-…"
        )
    return chosen.id
