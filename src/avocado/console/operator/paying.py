"""Payments and disputes: what came in by card, what is contested, and what waits for a person."""

from __future__ import annotations

import os

from avocado.billing import payment as p
from avocado.billing.disputes import disputes, let_go
from avocado.billing.payments import settle_problem, troubles
from avocado.billing.provider import API_KEY, WEBHOOK_SECRET
from avocado.console.operator.acting import ask_first, reason_of, record
from avocado.console.operator.doors import DOORS
from avocado.console.page import Nav, NotFound, Pages, Redirect, Reply, Values, Visit
from avocado.ledger import entry as e

PAGES = Pages()
NEWEST = 30


@PAGES.show(
    "/operator/payments",
    roles=DOORS["payments"],
    template="operator/payments.html",
    nav=Nav("op.payments", "card", 240, "op.group_money"),
)
def payments(visit: Visit) -> Values:
    """The provider's state, deposits, open questions and disputes."""
    config = visit.console.workspace.config.payments
    book = visit.daybook
    listed = book.entries(most=NEWEST, kinds=("Deposited",))
    found = [record for each in listed if (record := visit.reader.entry(each.seq)) is not None]
    return {
        "configured": config is not None,
        "key_set": bool(os.environ.get(API_KEY)),
        "secret_set": bool(os.environ.get(WEBHOOK_SECRET)),
        "deposits": [each for each in found if isinstance(each.entry, e.Deposited)],
        "disputes": list(reversed(disputes(visit.reader))),
        "troubles": troubles(visit.reader),
    }


@PAGES.act("/operator/payments/dispute", roles=DOORS["payments"], again=payments)
def release_dispute(visit: Visit) -> Reply:
    """Lets a customer go whom a lost dispute left frozen."""
    name = visit.form.text("dispute", 150)
    document = visit.reader.document(p.dispute_id(name))
    if document is None:
        raise NotFound
    asked = ask_first(
        visit,
        visit.t("op_pay.let_go_title"),
        visit.t("op_pay.let_go_text", name=document.tenant),
        "/operator/payments",
    )
    if asked is not None:
        return asked
    reason = reason_of(visit)
    with visit.writing() as do:
        let_go(visit.reader, do, name, visit.who.email)
        record(visit, do, "dispute settled", name, tenant=document.tenant, reason=reason)
    return Redirect("/operator/payments", visit.t("op_pay.let_go_done", name=document.tenant))


@PAGES.act("/operator/payments/problem", roles=DOORS["payments"], again=payments)
def close_problem(visit: Visit) -> Reply:
    """Notes that somebody dealt with money that could not be credited."""
    name = visit.form.text("problem", 150).removeprefix("payment-problem/")
    document = visit.reader.document(p.problem_id(name))
    if document is None:
        raise NotFound
    asked = ask_first(
        visit,
        visit.t("op_pay.problem_title"),
        visit.t("op_pay.problem_text", payment=name),
        "/operator/payments",
        danger=False,
    )
    if asked is not None:
        return asked
    reason = reason_of(visit)
    with visit.writing() as do:
        settle_problem(visit.reader, do, name, reason, visit.who.email)
        record(visit, do, "payment problem settled", name, reason=reason)
    return Redirect("/operator/payments", visit.t("op_pay.problem_done"))
