"""What the operator can do for and to a customer: each act asks first, and is put on record."""

from __future__ import annotations

import time
from typing import Any, Final

from avocado.cli.book import shelf
from avocado.console import events, links, people
from avocado.console.operator.acting import ask_first, reason_of, record
from avocado.console.operator.customers import customer, customers
from avocado.console.operator.doors import DOORS
from avocado.console.operator.money import read_amount
from avocado.console.page import NotFound, Pages, Redirect, Reply, Shown, Visit
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.terms.money import NANO, Money, MoneyError

PAGES = Pages()
_HERE: Final = "/operator/customers/{tenant}"
_CARD: Final = "pay_"
"""How the id of a deposit begins that a payment provider took (``payment.deposit_id``)."""


def _page(tenant: str) -> str:
    return f"/operator/customers/{tenant}"


def _known(visit: Visit) -> str:
    """The customer of the path. Raises UnknownCustomer: 404."""
    return visit.reader.customer(visit.path["tenant"]).tenant


def _ask(visit: Visit, word: str, danger: bool = True, **values: object) -> Shown | None:
    """Asks before the act ``word``, in words of its own."""
    title, sentence = (visit.t(f"op_act.{word}_{part}", **values) for part in ("title", "text"))
    return ask_first(visit, title, sentence, _page(visit.path["tenant"]), danger=danger)


def _done(visit: Visit, tenant: str, word: str, **values: object) -> Redirect:
    return Redirect(_page(tenant), visit.t(f"op_act.{word}_done", **values))


def _money(visit: Visit, nanos: int, currency: str) -> str:
    return visit.formats.exact(nanos, currency)


@PAGES.act("/operator/customers", roles=DOORS["customers"], again=None)
def add(visit: Visit) -> Reply:
    """A new customer, without credit."""
    from avocado.cli.customers import add_customer

    tenant = visit.form.text("tenant", 64)
    name = visit.form.text("name", 200)
    nothing = Money(0, visit.console.workspace.config.currency)
    add_customer(visit.console.workspace, tenant, name or None, nothing, nothing)
    with visit.writing() as do:
        record(visit, do, "new customer", tenant, tenant=tenant)
    return Redirect(_page(tenant), visit.t("op_act.added", name=name or tenant))


# -- money ----------------------------------------------------------------------------------------


@PAGES.act(f"{_HERE}/credit", roles=DOORS["customers"], again=customer)
def credit(visit: Visit) -> Reply:
    """Paid money (a transfer that came in) or given money (a grant), by the form's ``kind``."""
    tenant = _known(visit)
    page = visit.reader.customer(tenant)
    amount = _positive(visit, "amount", page.currency)
    granted = visit.form.get("kind") == "grant"
    days = visit.form.number("days", 0, 0, 3660)
    word = "grant" if granted else "credit"
    asked = _ask(visit, word, False, amount=_money(visit, amount, page.currency), name=page.name)
    if asked is not None:
        return asked
    reason = reason_of(visit)
    with visit.writing() as do:
        if granted:
            posted = do(
                o.Grant(
                    id=f"gr_{visit.once}",
                    tenant=tenant,
                    amount=amount,
                    currency=page.currency,
                    reason=reason,
                    expires=time.time_ns() + days * 86_400 * NANO if days else None,
                )
            )
        else:
            posted = do(
                o.Deposit(
                    id=f"dep_{visit.once}",
                    tenant=tenant,
                    amount=amount,
                    currency=page.currency,
                    reference=reason,
                )
            )
        record(
            visit, do, word, tenant, tenant=tenant, reason=reason, entries=[posted.seq],
            amount=amount,
        )  # fmt: skip
    return _done(visit, tenant, word, amount=_money(visit, amount, page.currency))


def _positive(visit: Visit, name: str, currency: str) -> int:
    """A typed amount above zero, in nano-units. Raises Refused."""
    text = visit.form.text(name, 40).replace(",", ".")
    try:
        nanos = Money.parse(text, currency).nanos
    except MoneyError as error:
        raise Refused(str(error)) from error
    if not nanos:
        raise Refused(visit.t("op_act.no_amount"))
    return nanos


@PAGES.act(f"{_HERE}/refund", roles=DOORS["customers"], again=customer)
def refund(visit: Visit) -> Reply:
    """Reverses a request, a deposit, a grant or a fee, in whole or in part."""
    tenant = _known(visit)
    page = visit.reader.customer(tenant)
    of = visit.form.text("of", 200).removeprefix("chatcmpl-")
    if _owner(visit, of) != tenant:
        raise NotFound  # another customer's request is none of this page
    text = visit.form.text("amount", 40)
    amount = _positive(visit, "amount", page.currency) if text else None
    shown = visit.t("op_act.all") if amount is None else _money(visit, amount, page.currency)
    asked = _ask(visit, "refund", True, of=of, amount=shown, name=page.name)
    if asked is not None:
        return asked
    reason = reason_of(visit)
    if of.startswith(_CARD) and visit.console.workspace.config.payments is not None:
        return _refund_card(visit, tenant, of, reason, amount)
    with visit.writing() as do:
        posted = do(o.Refund(id=f"rf_{visit.once}", of=of, reason=reason, amount=amount))
        assert isinstance(posted, o.Posted)
        record(
            visit, do, "refund", of, tenant=tenant, reason=reason, entries=[posted.seq],
            amount=posted.amount,
        )  # fmt: skip
    return _done(visit, tenant, "refund", amount=_money(visit, posted.amount, page.currency))


def _refund_card(visit: Visit, tenant: str, of: str, reason: str, gross: int | None) -> Redirect:
    """Money of a card goes back to the card, tax included, and the credit out of the ledger.

    Raises:
        Refused: payments are off, the credit is used up, or the provider said no.
    """
    from avocado.cli.payments import payments_of

    with visit.writing() as do:
        payments = payments_of(visit.console.workspace, visit.reader, do)
        made = payments.refund(
            of.removeprefix(_CARD), reason, visit.who.email, gross, name=visit.once
        )
        record(
            visit, do, "refund", of, tenant=tenant, reason=reason, amount=made.net,
            gross=made.gross,
        )  # fmt: skip
    return _done(visit, tenant, "refund", amount=_money(visit, made.gross, made.currency))


def _owner(visit: Visit, of: str) -> str | None:
    """Whose a request or posting is; None for what there is not."""
    hold = visit.reader.hold(of)
    if hold is not None:
        return hold.tenant
    sql = "SELECT tenant FROM posting WHERE id = ?"
    return next((str(row[0]) for row in visit.reader.rows(sql, (of,))), None)


@PAGES.act(f"{_HERE}/credit-limit", roles=DOORS["customers"], again=customer)
def credit_limit(visit: Visit) -> Reply:
    tenant = _known(visit)
    page = visit.reader.customer(tenant)
    limit = read_amount(visit, "limit").nanos
    shown = _money(visit, limit, page.currency)
    asked = _ask(visit, "limit", limit > page.credit_limit, amount=shown, name=page.name)
    if asked is not None:
        return asked
    reason = reason_of(visit)
    with visit.writing() as do:
        result = do(o.SetCreditLimit(tenant=tenant, credit_limit=limit))
        record(
            visit, do, "credit limit", tenant, tenant=tenant, reason=reason, entries=[result.seq],
            before=page.credit_limit, after=limit,
        )  # fmt: skip
    return _done(visit, tenant, "limit", amount=shown)


@PAGES.act(f"{_HERE}/freeze", roles=DOORS["customers"], again=customer)
def freeze(visit: Visit) -> Reply:
    """Freezes, or lets a frozen customer start requests again."""
    tenant = _known(visit)
    page = visit.reader.customer(tenant)
    frozen = visit.form.get("frozen") == "yes"
    word = "freeze" if frozen else "thaw"
    asked = _ask(visit, word, frozen, name=page.name, why=page.frozen)
    if asked is not None:
        return asked
    reason = reason_of(visit)
    with visit.writing() as do:
        result = do(o.Freeze(tenant=tenant, frozen=frozen, reason=reason, actor=visit.who.email))
        record(visit, do, word, tenant, tenant=tenant, reason=reason, entries=[result.seq])
    return _done(visit, tenant, word, name=page.name)


# -- plan, keys, members --------------------------------------------------------------------------


@PAGES.act(f"{_HERE}/plan", roles=DOORS["customers"], again=customer)
def change_plan(visit: Visit) -> Reply:
    """Starts, changes or ends a subscription to a published plan."""
    from avocado.billing import subscriptions as s
    from avocado.console.operator.customers import subscription

    tenant = _known(visit)
    plan = visit.form.text("plan", 100)
    at_once = visit.form.get("when") == "now"
    before = subscription(visit.reader, tenant)
    on_plan = before is not None and before.entitled
    if plan == "none" and not on_plan:
        raise Refused(visit.t("op_act.no_plan"))
    word = "cancel" if plan == "none" else "plan"
    asked = _ask(visit, word, plan == "none" or at_once, plan=plan, name=tenant)
    if asked is not None:
        return asked
    reason, actor, now = reason_of(visit), visit.who.email, time.time_ns()
    with visit.writing() as do:
        if plan == "none":
            s.cancel(visit.reader, do, tenant, now, at_once=at_once, reason=reason, actor=actor)
        elif on_plan:
            s.change(visit.reader, do, tenant, plan, now, at_once=at_once, actor=actor)
        else:
            s.start(visit.reader, do, tenant, plan, now, actor=actor)
        record(visit, do, word, tenant, tenant=tenant, reason=reason, plan=plan)
    after = subscription(visit.reader, tenant)
    _entitle(visit, tenant, after.plan if after is not None and after.entitled else None)
    return _done(visit, tenant, word, plan=plan)


def _entitle(visit: Visit, tenant: str, plan: str | None) -> None:
    """Lets the gateway know of the plan at once; the clerk would do so within a minute."""
    from avocado.gateway.access import change

    with shelf(visit.console.workspace) as database:
        change(database, f"customer:{tenant}", visit.actor, plan=plan)


@PAGES.act(f"{_HERE}/keys/revoke", roles=DOORS["customers"], again=customer)
def revoke_key(visit: Visit) -> Reply:
    tenant = _known(visit)
    wanted = visit.form.text("key", 100)
    if wanted not in {each.key_id for each in visit.reader.keys(tenant)}:
        raise NotFound
    asked = _ask(visit, "revoke", which=wanted, name=tenant)
    if asked is not None:
        return asked
    reason = reason_of(visit)
    with visit.writing() as do:
        result = do(o.RevokeKey(key_id=wanted))
        record(visit, do, "revoke key", wanted, tenant=tenant, reason=reason, entries=[result.seq])
    return _done(visit, tenant, "revoke", which=wanted)


@PAGES.act(f"{_HERE}/invite", roles=DOORS["customers"], again=customer)
def invite(visit: Visit) -> Reply:
    """Invites somebody to the customer's own pages; the link goes out by mail, or is shown once
    where this workspace sends none."""
    tenant = _known(visit)
    email = people.read_email(visit.form.text("email", 254))
    role: Any = "member" if visit.form.get("role") == "member" else "admin"
    return send_invitation(visit, email, role, tenant, _page(tenant))


def send_invitation(visit: Visit, email: str, role: Any, tenant: str | None, back: str) -> Reply:
    """Makes a link for somebody who has no account yet, and mails or shows it."""
    from avocado.console import letters

    console, database = visit.console, visit.console.threads.database()
    if people.by_email(database, email) is not None:
        raise Refused(visit.t("op_act.has_account", email=email))
    token = links.make(database, "invite", email, role, tenant, visit.who.email, visit.now)
    events.note(
        database, visit.now, "invited", visit.who.email, tenant=tenant, address=visit.address,
        detail=f"{email} as {role}",
    )  # fmt: skip
    if console.workspace.config.mail is not None:
        letter = letters.of_link(console, visit.speaker, "invite", email, token)
        letters.soon(console, email, lambda: letters.send(console, letter))
        return Redirect(back, visit.t("op_act.invited", email=email))
    url = letters.link_url(console, token)
    return Shown("operator/invited.html", {"email": email, "url": url, "back": back})


@PAGES.act(f"{_HERE}/members/remove", roles=DOORS["customers"], again=customer)
def remove_member(visit: Visit) -> Reply:
    tenant = _known(visit)
    database = visit.console.threads.database()
    email = visit.form.text("email", 254)
    person = people.by_email(database, email)
    if person is None or person.tenant != tenant:
        if any(each.email == email for each in links.waiting(database, tenant, visit.now)):
            links.withdraw(database, email, tenant)
            return _done(visit, tenant, "remove", email=email)
        raise NotFound
    asked = _ask(visit, "remove", email=email, name=tenant)
    if asked is not None:
        return asked
    reason = reason_of(visit)
    people.remove(database, person)
    events.note(
        database, visit.now, "member-removed", visit.who.email, tenant=tenant,
        address=visit.address, detail=f"{email}: {reason}",
    )  # fmt: skip
    return _done(visit, tenant, "remove", email=email)


__all__ = ["PAGES", "customers", "send_invitation"]
