"""Audit log: who did what and why: the ledger's journal, the gateway's policies, the console.

Three records, shown as one by time. The journal's requests are left out (the customer's page has
them); what stands here is everything that a person did or that moved money beside requests.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from avocado.billing.daybook import Listed
from avocado.cli.limits import change_in_words
from avocado.console import events
from avocado.console.operator.doors import DOORS
from avocado.console.operator.overview import currency_of
from avocado.console.page import Nav, Pages, Values, Visit
from avocado.errors import Refused
from avocado.ledger import entry as e
from avocado.ledger.views import Record
from avocado.terms.money import NANO, Money

PAGES = Pages()
MOST: Final = 50
FAR: Final = 2**63 - 1
SOURCES: Final = ("ledger", "gateway", "console")
KINDS: Final[dict[str, tuple[str, ...]]] = {
    "money": ("Deposited", "Granted", "GrantExpired", "Billed", "Refunded", "Adjusted"),
    "customers": ("CustomerOpened", "CreditLimitSet", "SpendLimitSet", "CustomerFrozen"),
    "keys": ("KeyAdded", "KeyRevoked"),
    "prices": ("PricePublished",),
    "documents": ("DocumentFiled",),
    "allowances": ("AllowanceGiven", "AllowanceExpired"),
    "flagged": ("UsageFlagged",),
}
"""Groups of the journal's entries, as the filter names them."""
_HIDDEN: Final = (
    "legs", "digest", "content", "kind", "id", "tenant", "actor", "reason", "created", "key_id",
    "version", "currency", "reference", "spent_month", "spent_total", "priority",
)  # fmt: skip
_TOLD: Final = ("what", "subject", "reason", "entries")
_AMOUNTS: Final = ("amount", "tax", "charge", "credit_limit", "month", "total")


@dataclass(frozen=True)
class Line:
    """One thing that happened. ``at`` in ns; ``place`` is where it stands in its record."""

    at: int
    seq: int
    source: str
    place: str
    kind: str
    who: str
    tenant: str
    subject: str
    what: str
    why: str


@PAGES.show(
    "/operator/audit",
    roles=DOORS["audit"],
    template="operator/audit.html",
    nav=Nav("op.audit", "list", 410, "op.group_trust"),
)
def audit(visit: Visit) -> Values:
    before = _cursor(visit.query.get("before", ""))
    source = visit.query.get("source", "")
    kind = visit.query.get("kind", "")
    tenant = visit.query.text("customer", 64) or None
    who = visit.query.text("who", 254).lower()
    lines: list[Line] = []
    problems: tuple[str, ...] = ()
    if source in ("", "ledger"):
        lines += _of_ledger(visit, before, KINDS.get(kind, ()), tenant)
    if source in ("", "gateway") and not kind:
        try:
            lines += _of_gateway(visit, before, tenant)
        except Refused as refused:  # an altered record is the first thing that an audit must say
            problems = refused.reasons
    if source in ("", "console") and not kind:
        lines += _of_console(visit, before, tenant)
    lines.sort(key=lambda line: (-line.at, -line.seq))
    shown = lines[:MOST]
    more = f"{shown[-1].at}-{shown[-1].seq}" if len(lines) > MOST else ""
    if who:  # within the page: nobody's name is an index of the journal
        shown = [line for line in shown if who in line.who.lower()]
    filters = {"source": source, "kind": kind, "customer": tenant or "", "who": who}
    return {
        "lines": shown,
        "older": more,
        "filters": filters,
        "kinds": list(KINDS),
        "sources": SOURCES,
        "first_page": before == (FAR, FAR),
        "problems": problems,
        "tenants": [each.tenant for each in visit.reader.customers()][:500],
    }


def _cursor(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,19})-(\d{1,19})", text, re.ASCII)
    return (int(match[1]), int(match[2])) if match else (FAR, FAR)


def _of_ledger(
    visit: Visit, before: tuple[int, int], kinds: tuple[str, ...], tenant: str | None
) -> list[Line]:
    book = visit.daybook
    listed = book.entries(before, MOST + 1, kinds, tenant)
    currency = currency_of(visit)
    return [_entry_line(each, visit.reader.entry(each.seq), currency) for each in listed]


def _entry_line(listed: Listed, record: Record | None, currency: str) -> Line:
    entry: Any = record.entry if record else None
    who, why = getattr(entry, "actor", ""), getattr(entry, "reason", "")
    kind, subject, what = listed.kind, listed.id, in_words(entry, currency)
    if isinstance(entry, e.DocumentFiled):
        kind = entry.sort
        if entry.sort == "action":
            content = entry.content
            subject, why = str(content.get("subject", "")), str(content.get("reason", ""))
            kind = str(content.get("what", ""))
    elif isinstance(entry, e.Deposited):
        why = entry.reference
    return Line(
        listed.at,
        listed.seq,
        "ledger",
        str(listed.seq),
        kind,
        who,
        listed.tenant,
        subject,
        what,
        why,
    )


def in_words(entry: Any, currency: str) -> str:
    """An entry's own fields, short: amounts as money (of ``currency`` where it names none), times
    as dates; legs and hashes are left to the journal."""
    if entry is None:
        return ""
    if isinstance(entry, e.DocumentFiled):
        if entry.sort == "action":
            return _action(entry.content, currency)
        number = f"{entry.series}-{entry.number:06d}, " if entry.number else ""
        return f"{number}revision {entry.revision}"
    named = getattr(entry, "currency", None) or currency
    parts = []
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if name not in _HIDDEN and value not in (None, "", (), False, 0):
            parts.append(f"{name.replace('_', ' ')} {_plain(name, value, named)}")
    return ", ".join(parts)


def _action(content: dict[str, Any], currency: str) -> str:
    """What the console noted beside an action: its numbers, and the entries that it made."""
    told = {key: value for key, value in content.items() if key not in _TOLD and value}
    words = [
        f"{name.replace('_', ' ')} {_plain(name, each, currency)}" for name, each in told.items()
    ]
    if entries := content.get("entries"):
        words.append(f"journal entry {', '.join(map(str, entries))}")
    return ", ".join(words)


def _plain(name: str, value: Any, currency: str) -> str:
    if isinstance(value, str):
        return value
    if type(value) is int and name in (*_AMOUNTS, "before", "after", "per_hour"):
        return str(Money(value, currency))
    if type(value) is int and name == "expires":
        return time.strftime("%Y-%m-%d", time.gmtime(value // NANO))
    return msgspec.json.encode(value).decode()[:300]


def _of_gateway(visit: Visit, before: tuple[int, int], tenant: str | None) -> list[Line]:
    """Changes of policies, checked against their seals.

    Raises:
        Refused: the record was altered.
    """
    from avocado.cli.limits import changes_of

    found = []
    for row in changes_of(visit.console.workspace, tenant):
        at = _nanos(row["at"])
        if at < before[0]:
            told = ", ".join(
                change_in_words(name, **change) for name, change in row["changed"].items()
            )
            found.append(
                Line(at, 0, "gateway", str(row["seq"]), "policy", row["who"],
                     row["customer"] or "", row["subject"], told, "")
            )  # fmt: skip
    return sorted(found, key=lambda line: -line.at)[: MOST + 1]


def _nanos(text: str) -> int:
    from datetime import UTC, datetime

    when = datetime.fromisoformat(text)
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e9)


def _of_console(visit: Visit, before: tuple[int, int], tenant: str | None) -> list[Line]:
    database = visit.console.threads.database()
    return [
        Line(each.at, 0, "console", each.id[:8], each.kind, each.who, each.tenant or "",
             each.address, each.detail, "")
        for each in events.newest(database, MOST + 1, before[0], tenant)
    ]  # fmt: skip
