"""Paying, automatic top-ups, refunds and what a lost webhook leaves: over real HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from avocado.billing import payment as p
from avocado.billing.auto_topup import HOUR, attempts, due
from avocado.billing.issuer import Issuer
from avocado.billing.papers import without_invoice
from avocado.billing.payments import Payments, troubles
from avocado.billing.provider import PaymentsOff, ProviderAway, open_provider
from avocado.billing.record import read
from avocado.billing.refunds import gross_of, net_of
from avocado.billing.standing import Paid
from avocado.billing.topup import account_of, payer_for
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.reader import open_reader
from tests.billing.stripe_stand_in import KEY, StandIn
from tests.billing.till import EURO, Crash, Till, provider_at, till_at, vat


@pytest.fixture
def till(stripe: StandIn, tmp_path: Path) -> Iterator[Till]:
    stripe.events.clear()
    stripe.calls.clear()
    with till_at(stripe, tmp_path) as desk:
        yield desk


def charges(stripe: StandIn) -> list[str]:
    return [key for method, path, key in stripe.calls if path == "/v1/payment_intents"]


# -- with nothing set ------------------------------------------------------------------------------


def test_without_a_key_payments_are_off_and_say_so() -> None:
    with pytest.raises(PaymentsOff, match="avocado credit CUSTOMER AMOUNT"):
        open_provider("stripe", {})
    with pytest.raises(Refused, match="no payment provider"):
        open_provider("cash", {"STRIPE_API_KEY": KEY})
    with pytest.raises(Refused, match="in plain"):
        open_provider("stripe", {"STRIPE_API_KEY": KEY}, "http://stripe.example.com")


def test_a_wrong_key_is_said_clearly(till: Till, stripe: StandIn) -> None:
    wrong = open_provider("stripe", {"STRIPE_API_KEY": "sk_test_wrong"}, stripe.base)
    payments = Payments(wrong, till.reader, till.do, vat)
    with pytest.raises(Refused, match="does not accept the key"):
        payments.open_checkout("acme", 10 * EURO, "https://c.test/ok", "https://c.test/no")


# -- paying ----------------------------------------------------------------------------------------


def test_a_checkout_asks_for_net_and_tax_and_saves_the_card(till: Till, stripe: StandIn) -> None:
    session = stripe.objects[till.checkout(10 * EURO)]
    assert session["amount_total"] == 1190
    asked = session["_asked"]
    assert asked["mode"] == "payment"
    assert asked["payment_intent_data"]["setup_future_usage"] == "off_session"
    assert asked["adaptive_pricing"] == {"enabled": "false"}
    assert asked["metadata"] == asked["payment_intent_data"]["metadata"]
    assert asked["metadata"]["avocado_tenant"] == "acme"
    assert (asked["metadata"]["avocado_net"], asked["metadata"]["avocado_tax"]) == ("10.00", "1.90")
    names = [item["price_data"]["product_data"]["name"] for item in asked["line_items"].values()]
    assert names == ["Credit", "Tax"]


def test_an_amount_that_cannot_be_paid_is_refused_before_anything_is_asked(
    till: Till, stripe: StandIn
) -> None:
    for net, why in [(4 * EURO, "least top-up is 5.00 EUR"), (5 * EURO + 1, "multiple of 0.01")]:
        with pytest.raises(Refused, match=why):
            till.checkout(net)
    with pytest.raises(Refused, match="more than one payment"):
        till.checkout(9_000_000 * EURO)
    assert stripe.calls == []


def test_one_provider_customer_for_a_tenant_however_many_ask_at_once(
    till: Till, stripe: StandIn
) -> None:
    before, found = len(stripe.made("customer")), []

    def ask() -> None:
        with open_reader(till.target) as reader:
            found.append(payer_for(reader, till.do, till.provider, "acme"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(stripe.made("customer")) == before + 1


def test_a_checkout_of_somebody_else_is_not_shown(till: Till, stripe: StandIn) -> None:
    till.open("other")
    session = till.checkout()
    stripe.pay(session)
    with pytest.raises(Refused, match="no payment"):
        till.payments.confirm("other", session)
    assert till.payments.confirm("acme", "cs_none") is None
    assert till.wallet() == till.wallet("other") == 0


def test_the_portal_is_the_customers_own(till: Till) -> None:
    payer = payer_for(till.reader, till.do, till.provider, "acme")
    assert till.payments.portal("acme", "https://c.test/").endswith(payer)


def test_the_invoice_of_a_top_up_keeps_the_tax_that_was_quoted(till: Till, stripe: StandIn) -> None:
    """Also if a crash comes between credit and invoice, and if the tax is another one by then."""
    from avocado.billing.credit_notes import issue_credit_note
    from avocado.billing.invoices import invoice_from
    from avocado.billing.tax_table import read_table
    from avocado.billing.topups import issue_topup_invoice, topup_id
    from tests.billing.shop import SELLER

    issuer = Issuer(SELLER, read_table())

    class Writer:
        broken = True

        def invoice(self, tenant: str, deposit: str, taxes: Any) -> object:
            if self.broken:
                raise Refused("the process is about to die")
            return issue_topup_invoice(
                till.reader, till.do, issuer, tenant, deposit, till.now, taxes
            )

        def credit(self, tenant: str, invoice: str, refund: str, reason: str) -> object:
            return issue_credit_note(
                till.reader, till.do, issuer, invoice, reason, "payments", till.now, refund=refund
            )

    writer = Writer()
    till.payments = Payments(till.provider, till.reader, till.do, vat, writer)
    payment = till.paid()
    invoice = topup_id("acme", f"pay_{payment}")
    assert till.reader.document(invoice) is None
    assert without_invoice(till.reader, 0) == ["acme"]
    writer.broken = False
    list(till.payments.upkeep(till.now))
    assert without_invoice(till.reader, 0) == []
    document = till.reader.document(invoice)
    assert document is not None
    drawn = invoice_from(document)
    assert (drawn.net_minor, drawn.gross_minor, drawn.paid_minor, drawn.due_minor) == (
        1000,
        1190,
        1190,
        0,
    )
    till.payments.refund(payment, "not needed", "finance", gross=595 * EURO // 100)
    till.payments.write("acme")
    (note,) = list(till.reader.documents("credit-note", "acme"))
    assert (note.content["net_minor"], note.content["gross_minor"]) == (500, 595)


# -- automatic top-ups -----------------------------------------------------------------------------


def test_a_balance_below_the_threshold_is_topped_up_once(till: Till, stripe: StandIn) -> None:
    till.save_card()
    till.auto(threshold=5, net=20)
    (done,) = till.payments.top_up_due(till.now)
    assert (done.state, till.wallet()) == ("paid", 20 * EURO)
    assert till.payments.top_up_due(till.now) == ()
    till.deliver(stripe.event("payment_intent.succeeded"))  # its event changes nothing
    till.use(15_001)
    till.payments.top_up_due(till.now)
    assert till.wallet() == 24_999_000_000
    assert till.tries() == ["paid", "paid"]
    assert len(set(charges(stripe))) == 2


def test_many_clerks_at_once_charge_a_crossing_once(till: Till, stripe: StandIn) -> None:
    from avocado.billing.auto_topup import top_up

    till.save_card()
    till.auto()

    def work() -> None:
        with open_reader(till.target) as reader:
            top_up(reader, till.do, till.provider, vat, "acme", till.now)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert till.wallet() == 20 * EURO
    assert len(set(charges(stripe))) == 1
    assert till.tries() == ["paid"]


@pytest.mark.parametrize("step", range(5))
def test_a_crash_anywhere_in_an_automatic_top_up_charges_once(
    till: Till, stripe: StandIn, step: int
) -> None:
    till.save_card()
    till.auto()
    left = [step]

    def dies(_: o.AnyOperation) -> bool:
        left[0] -= 1
        return left[0] < 0

    till.fail = dies
    with suppress(Crash):
        till.payments.top_up_due(till.now)
    till.fail = lambda _: False
    for _ in range(3):
        till.later(60 * EURO)
        till.payments.top_up_due(till.now)
    assert till.wallet() == 20 * EURO
    assert len(set(charges(stripe))) == 1


def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_key(
    till: Till, stripe: StandIn
) -> None:
    till.save_card()
    till.auto()
    away = provider_at("http://127.0.0.1:9")
    lost = Payments(away, till.reader, till.do, vat)
    (done,) = lost.top_up_due(till.now)
    assert done.state == "unknown"
    till.later(19 * HOUR)
    (done,) = till.payments.top_up_due(till.now)
    assert done.state == "paid"
    assert till.wallet() == 20 * EURO


def test_what_is_not_known_for_a_day_is_never_charged_again(till: Till, stripe: StandIn) -> None:
    """The provider has forgotten the key by then: asking again could charge twice."""
    till.save_card()
    till.auto()
    lost = Payments(provider_at("http://127.0.0.1:9"), till.reader, till.do, vat)
    lost.top_up_due(till.now)
    till.later(21 * HOUR)
    (done,) = till.payments.top_up_due(till.now)
    assert done.state == "unknown"
    assert "not known" in till.stopped()
    assert till.payments.top_up_due(till.now) == ()
    assert charges(stripe) == []
    assert "automatic top-ups stopped" in troubles(till.reader)[0].words


def test_failures_pause_and_the_third_in_a_row_stops(till: Till, stripe: StandIn) -> None:
    till.save_card("0341")
    till.auto()
    tried = 0
    for _hour in range(100):
        tried += len(till.payments.top_up_due(till.now))
        till.later(HOUR)
    assert till.tries() == ["failed"] * 3
    assert tried == len(charges(stripe)) == 3
    assert "3 charges in a row failed" in till.stopped()
    stopped = till.stopped()
    for event in stripe.events:
        till.deliver(event)  # what the provider tells of it changes nothing more
    assert till.stopped() == stopped
    till.save_card("4242")
    assert till.payments.top_up_due(till.now) == ()  # it stays off until somebody turns it on
    till.auto()
    (done,) = till.payments.top_up_due(till.now)
    assert done.state == "paid"


def test_a_card_that_wants_its_owner_stops_at_once(till: Till, stripe: StandIn) -> None:
    till.save_card("3184")
    till.auto()
    (done,) = till.payments.top_up_due(till.now)
    assert done.state == "failed"
    assert till.stopped().startswith("the card cannot be charged")
    till.later(100 * HOUR)
    assert till.payments.top_up_due(till.now) == ()
    assert len(charges(stripe)) == 1
    till.auto()  # turned on again, it counts from here
    assert till.stopped() == ""


def test_the_months_limit_holds(till: Till, stripe: StandIn) -> None:
    till.save_card()
    till.auto(threshold=5, net=20, most=45)
    for _ in range(5):
        till.payments.top_up_due(till.now)
        till.use(int(till.wallet() // 1_000_000))
    assert till.tries() == ["paid", "paid"]
    till.later(32 * 24 * HOUR)
    till.payments.top_up_due(till.now)
    assert till.tries() == ["paid"] * 3


def test_a_frozen_customer_is_not_charged(till: Till, stripe: StandIn) -> None:
    till.save_card()
    till.auto()
    till.do(o.Freeze(tenant="acme", frozen=True, reason="abuse", actor="operator"))
    assert till.payments.top_up_due(till.now) == ()


def test_a_fee_is_collected_once_and_only_with_consent(till: Till, stripe: StandIn) -> None:
    assert not till.payments.collect("acme", 29 * EURO, till.now)
    till.save_card()
    assert not till.payments.collect("acme", 29 * EURO, till.now)  # no automatic top-ups agreed
    till.auto(net=20)
    assert till.payments.collect("acme", 29_000_000_001, till.now)
    assert till.wallet() == 29_010_000_000
    assert not till.payments.collect("acme", 29_000_000_001, till.now)  # it is there
    assert len(charges(stripe)) == 1


def test_a_fee_is_collected_beneath_a_credit_limit_not_with_the_debt(
    till: Till, stripe: StandIn
) -> None:
    """What was used on credit has an invoice of its own: the card pays what the fee lacks."""
    till.do(o.SetCreditLimit(tenant="acme", credit_limit=50 * EURO))
    till.save_card()
    till.auto(threshold=0, net=5)
    till.use(50_000)
    assert till.wallet() == -50 * EURO
    assert till.payments.collect("acme", 10 * EURO, till.now)
    assert [each.amount for each in till.deposits()] == [10 * EURO]
    till.do(o.Bill(id="fee", tenant="acme", amount=10 * EURO, currency="EUR", item="plan:a@1"))


def test_what_auto_top_up_is_set_to_is_checked(till: Till) -> None:
    with pytest.raises(Refused, match="not paid by card"):
        till.auto()
    payer_for(till.reader, till.do, till.provider, "acme")
    with pytest.raises(Refused, match="no saved card"):
        till.auto()
    till.save_card()
    for change, why in [
        ({"net": 4}, "least top-up"),
        ({"net": 20, "most": 19}, "allows no top-up"),
        ({"threshold": -1}, "below zero"),
    ]:
        with pytest.raises(Refused, match=why):
            till.auto(**change)  # type: ignore[arg-type]


def test_real_and_test_money_have_accounts_of_their_own(till: Till, stripe: StandIn) -> None:
    till.save_card()
    till.auto()
    stored = account_of(till.reader, "acme")
    assert stored is not None
    assert stored.value.provider == "stripe-test"

    class Live:
        """The same provider, once its key is for real money."""

        name = "stripe"

        def __getattr__(self, name: str) -> Any:
            return getattr(till.provider, name)

    live: Any = Live()
    assert Payments(live, till.reader, till.do, vat).top_up_due(till.now) == ()
    assert payer_for(till.reader, till.do, live, "acme") != stored.value.payer
    after = account_of(till.reader, "acme")
    assert after is not None
    assert (after.value.provider, after.value.card, after.value.auto) == ("stripe", None, None)


def test_a_customer_hears_of_each_failure_once_and_that_it_stopped(
    till: Till, stripe: StandIn
) -> None:
    from avocado.billing.outbox import load
    from avocado.billing.payment_notices import tell
    from avocado.billing.profile import change_profile

    change_profile(till.reader, till.do, "acme", {"email": "a@b.example", "language": "de"}, "x")
    till.save_card("0341")
    till.auto()
    for _hour in range(60):
        till.payments.top_up_due(till.now)
        tell(till.reader, till.do, "Avocado", till.now)
        till.later(HOUR)
    waiting = load(till.reader, "acme").value.waiting
    assert [each.id for each in waiting] == [
        "auto-topup/acme/1/failed/mail",
        "auto-topup/acme/2/failed/mail",
        "auto-topup/acme/3/stopped/mail",
    ]
    assert waiting[2].subject == "Avocado: Die automatische Aufladung ist ausgeschaltet"
    assert "23,80" in waiting[2].body
    assert "declined" in waiting[2].body


@pytest.mark.parametrize(
    ("available", "tried", "off", "failures", "month", "step"),
    [
        (10, [], "", 0, 0, "wait"),
        (9, [], "", 0, 0, "charge"),
        (9, [(0, "asked")], "", 0, 0, "resume"),
        (99, [(0, "asked")], "off", 0, 0, "resume"),
        (9, [(-21, "asked")], "", 0, 0, "give up"),
        (9, [(0, "failed")], "", 1, 0, "wait"),
        (9, [(-2, "failed")], "", 1, 0, "charge"),
        (9, [(-2, "failed")], "", 2, 0, "wait"),
        (9, [(-25, "failed")], "", 2, 0, "charge"),
        (9, [(0, "paid")], "", 0, 0, "charge"),
        (9, [(0, "paid")], "", 0, 81, "wait"),
        (9, [], "off", 0, 0, "wait"),
    ],
)
def test_when_an_automatic_top_up_is_due(
    available: int,
    tried: list[tuple[int, Any]],
    off: str,
    failures: int,
    month: int,
    step: str,
) -> None:
    now = 100 * HOUR
    auto = p.AutoTopUp(threshold=10, net=20, most=100, off=off)
    known = [
        (now + hours * HOUR, p.Attempt(number, 20, 0, "EUR", "cus", "pm", state=state))
        for number, (hours, state) in enumerate(tried, 1)
    ]
    assert due(auto, available, known, failures, month, now).step == step


# -- refunds by the operator -----------------------------------------------------------------------


def test_a_refund_leaves_wallet_and_card_as_they_were(till: Till, stripe: StandIn) -> None:
    payment = till.paid()
    done = till.payments.refund(payment, "not needed", "finance", name="r1")
    assert (done.state, done.gross) == ("done", 11_900_000_000)
    assert till.wallet() == till.account("payments:EUR") == till.account("taxes:EUR") == 0
    again = till.payments.refund(payment, "not needed", "finance", name="r1")
    assert again == done
    till.deliver(stripe.event("refund.created"))
    assert len(stripe._refunds(payment)) == 1
    with pytest.raises(Refused, match="nothing of payment"):
        till.payments.refund(payment, "more", "finance")
    with pytest.raises(Refused, match="no payment 'pi_none'"):
        till.payments.refund("pi_none", "more", "finance")


def test_never_more_than_is_unused_unless_forced(till: Till, stripe: StandIn) -> None:
    payment = till.paid()
    till.use(6_000)
    with pytest.raises(Refused, match=r"at most 4\.76 EUR .*--force"):
        till.payments.refund(payment, "all of it", "finance", gross=11_900_000_000)
    done = till.payments.refund(payment, "what is left", "finance")
    assert done.gross == 4_760_000_000
    assert till.wallet() == 0
    with pytest.raises(Refused, match="used up; --force"):
        till.payments.refund(payment, "more", "finance")
    forced = till.payments.refund(payment, "goodwill", "finance", forced=True)
    assert forced.gross == 7_140_000_000
    assert till.wallet() == 0
    assert till.account("payments:EUR") == 0
    assert till.account("writeoffs:EUR") == -6 * EURO


def test_a_refund_that_the_provider_refuses_gives_the_credit_back(
    till: Till, stripe: StandIn
) -> None:
    """Somebody refunded it in the Dashboard a moment ago, and its event is not here yet."""
    payment = till.paid()
    stripe.refund(payment, 1190)
    with pytest.raises(Refused, match=r"the credit is back.*greater than unrefunded"):
        till.payments.refund(payment, "again", "finance")
    assert till.wallet() == 10 * EURO


def test_a_disputed_payment_is_not_refunded(till: Till, stripe: StandIn) -> None:
    payment = till.paid()
    till.deliver(stripe.dispute(payment))
    with pytest.raises(Refused, match="is disputed"):
        till.payments.refund(payment, "peace", "finance")


@pytest.mark.parametrize("step", range(4))
def test_a_crash_anywhere_in_a_refund_is_made_up_for(
    till: Till, stripe: StandIn, step: int
) -> None:
    payment = till.paid()
    left = [step]

    def dies(_: o.AnyOperation) -> bool:
        left[0] -= 1
        return left[0] < 0

    till.fail = dies
    with suppress(Crash):
        till.payments.refund(payment, "not needed", "finance", name="r1")
    till.fail = lambda _: False
    # At no moment is there credit for money that has gone back already.
    gone = sum(each["amount"] for each in stripe._refunds(payment)) * EURO // 100
    assert till.wallet() == 0 or gone == 0
    list(till.payments.sync(int(time.time()) - 60))
    if step == 0:  # it never was asked for
        assert till.wallet() == 10 * EURO
        return
    assert till.wallet() == till.account("payments:EUR") == 0
    assert len(stripe._refunds(payment)) == 1
    stored = read(till.reader, "refund/r1", p.Return)
    assert stored is not None
    assert stored.value.state == "done"


def test_a_refund_whose_answer_is_lost_is_not_made_twice(till: Till, stripe: StandIn) -> None:
    payment = till.paid()
    lost = Payments(provider_at("http://127.0.0.1:9"), till.reader, till.do, vat)
    with pytest.raises(ProviderAway):
        lost.refund(payment, "not needed", "finance", name="r1")
    assert till.wallet() == 0  # out of reach while nobody knows
    stripe.refund(payment, 1190, avocado_refund="r1")  # it had come through
    list(till.payments.resume())
    assert len(stripe._refunds(payment)) == 1
    assert till.account("payments:EUR") == 0


def test_how_much_can_go_back_is_whole_coins() -> None:
    paid = Paid("pay_x", "acme", "EUR", 10 * EURO, 1_900_000_000)
    coin = 10_000_000
    assert gross_of([paid], 10 * EURO, coin) == 11_900_000_000
    assert gross_of([paid], 3_333_333_333, coin) == 3_960_000_000
    assert gross_of([paid], 0, coin) == 0
    # A wallet that holds a nano-unit less than a coin's worth gives no coin.
    exact = net_of([paid], 3_960_000_000)
    assert gross_of([paid], exact, coin) == 3_960_000_000
    assert gross_of([paid], exact - 1, coin) == 3_950_000_000
    used = Paid("pay_y", "acme", "EUR", 10 * EURO, 1_900_000_000, 9 * EURO)
    assert gross_of([used, paid], 2 * EURO, coin) == 2_380_000_000


# -- webhooks that were lost -----------------------------------------------------------------------


def test_sync_credits_what_webhooks_did_not_bring(till: Till, stripe: StandIn) -> None:
    first, second = stripe.pay(till.checkout()), stripe.pay(till.checkout(20 * EURO))
    stripe.refund(first, 1190)
    opened = stripe.dispute(second)
    done = list(till.payments.sync(int(time.time()) - 3600))
    assert all(each.status == 200 for each in done)
    assert till.wallet() == 20 * EURO
    assert till.frozen() != ""
    again = list(till.payments.sync(int(time.time()) - 3600))
    assert not any(each.changed for each in again)
    assert opened["id"] in {each.event for each in again}
    stored = account_of(till.reader, "acme")
    assert stored is not None
    assert stored.value.card is not None


def test_the_clerk_finds_what_webhooks_lost_once_an_hour(till: Till, stripe: StandIn) -> None:
    def asked() -> int:
        return sum(path == "/v1/events" for _, path, _ in stripe.calls)

    offset = time.time_ns() - till.now
    till.clock.pass_time(offset)
    stripe.pay(till.checkout())
    assert [each.tenant for each in till.payments.upkeep(till.now)] == ["acme", "acme"]
    assert till.wallet() == 10 * EURO
    before = asked()
    assert before > 0
    stripe.pay(till.checkout())
    assert list(till.payments.upkeep(till.now)) == []
    assert asked() == before
    till.later(HOUR)
    assert len(list(till.payments.upkeep(till.now))) > 0
    assert till.wallet() == 20 * EURO


def test_an_event_from_a_file_is_carried_out(till: Till, stripe: StandIn) -> None:
    import json

    stripe.pay(till.checkout())
    body = json.dumps(stripe.event("payment_intent.succeeded")).encode()
    assert till.payments.replay(body).changed
    assert not till.payments.replay(body).changed
    for bad in (b"", b"{}", b"[1]", b'{"object": "event"}'):
        with pytest.raises(Refused):
            till.payments.replay(bad)


def test_every_attempt_names_its_quote(till: Till) -> None:
    till.save_card()
    till.auto()
    till.payments.top_up_due(till.now)
    ((_, stored),) = attempts(till.reader, "acme")
    quoted = read(till.reader, stored.value.quote, p.Quote)
    assert quoted is not None
    assert (quoted.value.net, quoted.value.tax) == (20 * EURO, 3_800_000_000)
    taxes = read(till.reader, p.taxes_id(f"pay_{stored.value.payment}"), p.Quote)
    assert taxes is not None
    assert taxes.value == quoted.value
