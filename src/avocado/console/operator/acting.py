"""Acting: what every change by the operator's people has in common.

A change is asked for twice: the first POST shows what will happen and asks why, the second one does
it. It goes to the ledger's record as a document of kind ``action``, hash-chained
like everything there: who did what to whom, why, and which journal entries came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from avocado.console.page import Shown, Visit
from avocado.errors import Refused

if TYPE_CHECKING:
    from avocado.gateway.admin import Submit

KIND: Final = "action"
LONGEST: Final = 500
"""Characters of a reason."""
_OURS: Final = ("csrf", "confirmed", "reason", "once")


def reason_of(visit: Visit) -> str:
    """Why it is done.

    Raises:
        Refused: nothing was said.
    """
    text = visit.form.text("reason", LONGEST)
    if not text:
        raise Refused(visit.t("op.reason_missing"))
    return text


def ask_first(
    visit: Visit, title: str, sentence: str, back: str, *, danger: bool = True
) -> Shown | None:
    """The page that asks "are you sure?" and for a reason; None once that was answered.

    ``title`` and ``sentence`` are what will be done, in the person's language; ``back`` is where
    "cancel" goes. The form's own fields travel along.
    """
    if visit.form.get("confirmed") == "yes" and visit.form.text("reason", LONGEST):
        return None
    problems = (visit.t("op.reason_missing"),) if visit.form.get("confirmed") == "yes" else ()
    fields = [
        (name, value) for name in visit.form if name not in _OURS for value in visit.form.many(name)
    ]
    values: dict[str, Any] = {
        "title": title,
        "sentence": sentence,
        "back": back,
        "action": visit.url,
        "fields": fields,
        "danger": danger,
        "problems": problems,
    }
    return Shown("operator/confirm.html", values, 422 if problems else 200)


def record(
    visit: Visit,
    do: Submit,
    what: str,
    subject: str,
    *,
    tenant: str = "",
    reason: str = "",
    entries: Sequence[int] = (),
    **details: str | int,
) -> None:
    """Puts on record who did ``what`` (such as ``refund``) to ``subject``, and why. ``entries`` are
    the journal's of the change itself. The same form sent again changes nothing."""
    from avocado.ledger.operation import File

    do(
        File(
            id=f"action/{visit.once}",
            kind=KIND,
            tenant=tenant,
            content={
                "what": what,
                "subject": subject,
                "reason": reason,
                "entries": list(entries),
                **details,
            },
            actor=visit.who.email,
        )
    )
