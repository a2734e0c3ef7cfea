"""Webhooks (fault 44): credited once, whatever comes how often in which order; bad ones refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.billing import payment as p
from avocado.billing.events import decide
from avocado.billing.record import read
from avocado.billing.standing import Paid, Standing
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.errors import LedgerUnavailable
from tests.billing.stripe_stand_in import SECRET, StandIn, signed
from tests.billing.till import EURO, Crash, Till, provider_at, till_at


@pytest.fixture
def till(stripe: StandIn, tmp_path: Path) -> Iterator[Till]:
    stripe.events.clear()
    with till_at(stripe, tmp_path) as desk:
        yield desk


# -- fault 44 --------------------------------------------------------------------------------------


def test_fault_44_a_duplicate_is_credited_once(till: Till, stripe: StandIn) -> None:
    stripe.pay(till.checkout())
    event = stripe.event("payment_intent.succeeded")
    outcomes = [till.deliver(event) for _ in range(5)]
    assert [each.status for each in outcomes] == [200] * 5
    assert [each.changed for each in outcomes] == [True, False, False, False, False]
    assert till.wallet() == 10 * EURO
    assert till.account("taxes:EUR") == 1_900_000_000


def test_fault_44_two_events_of_one_payment_and_the_success_page_credit_once(
    till: Till, stripe: StandIn
) -> None:
    session = till.checkout()
    assert till.payments.confirm("acme", session) is None  # not paid yet
    stripe.pay(session)
    till.deliver(stripe.event("checkout.session.completed"))
    till.deliver(stripe.event("payment_intent.succeeded"))
    confirmed = till.payments.confirm("acme", session)
    assert confirmed is not None
    assert not confirmed.changed
    assert till.wallet() == 10 * EURO
    assert len(till.deposits()) == 1


def test_fault_44_fifty_deliveries_at_once_credit_once(till: Till, stripe: StandIn) -> None:
    stripe.pay(till.checkout())
    kinds = ["payment_intent.succeeded", "checkout.session.completed"]
    statuses: list[int] = []

    def deliver(kind: str) -> None:
        from avocado.billing.events import receive
        from avocado.ledger.reader import open_reader

        with open_reader(till.target) as reader:
            body, signature = signed(stripe.event(kind))
            outcome = receive(body, signature, till.provider, reader, till.do)
        statuses.append(outcome.status)

    threads = [threading.Thread(target=deliver, args=(kinds[n % 2],)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 50
    assert till.wallet() == 10 * EURO


def test_fault_44_every_order_of_success_refund_and_dispute_ends_the_same(
    till: Till, stripe: StandIn
) -> None:
    """Refund and dispute may come before the success that they are of."""
    ends = set()
    for number, order in enumerate(permutations(range(4))):
        tenant = f"t{number}"
        till.open(tenant)
        payment = stripe.pay(till.checkout(10 * EURO, tenant))
        succeeded = stripe.event("payment_intent.succeeded")
        stripe.refund(payment, 595)
        refunded = stripe.event("refund.created")
        opened = stripe.dispute(payment)
        closed = stripe.close_dispute(opened["data"]["object"]["id"], "won")
        events = [succeeded, refunded, opened, closed]
        assert all(till.deliver(events[index]).status == 200 for index in order)
        assert all(till.deliver(event).status == 200 for event in events[:2])
        ends.add((till.wallet(tenant), till.frozen(tenant)))
    assert ends == {(5 * EURO, "")}


def test_fault_44_late_but_freshly_signed_is_credited(till: Till, stripe: StandIn) -> None:
    """Stripe signs each delivery anew: a retry after a day is as good as the first."""
    stripe.pay(till.checkout())
    event = stripe.event("payment_intent.succeeded") | {"created": int(time.time()) - 86_400}
    assert till.deliver(event).status == 200
    assert till.wallet() == 10 * EURO


def test_fault_44_a_body_replayed_after_a_day_is_refused(till: Till, stripe: StandIn) -> None:
    stripe.pay(till.checkout())
    event = stripe.event("payment_intent.succeeded")
    old = till.deliver(event, at=int(time.time()) - 86_400)
    assert old.status == 400
    assert "tolerance" in old.words
    assert till.deliver(event, at=int(time.time()) - 301).status == 400
    assert till.wallet() == 0


def test_fault_44_forged_bodies_are_refused(till: Till, stripe: StandIn) -> None:
    stripe.pay(till.checkout())
    body, signature = signed(stripe.event("payment_intent.succeeded"))
    stolen = body.replace(b'"acme"', b'"evil"')
    wrong = signed(stripe.event("payment_intent.succeeded"), secret="whsec_of_somebody_else")
    stamp = int(time.time())
    for bad, header in [
        (stolen, signature),
        wrong,
        (body, None),
        (body, ""),
        (body, "t=1"),
        (body, f"t={stamp},v0=00"),
        (body, f"t={stamp},v1=\udc80é"),
        (b"\xff\xfe", signature),
        (b"", signature),
        (b"[" * 5_000, signature),
        signed({"object": "v2.core.event", "id": "evt_1"}),
        signed({"object": "event", "id": "evt_1", "livemode": False, "type": 5}),
        signed({}),
    ]:
        outcome = till.payments.receive(bad, header)
        assert outcome.status == 400, outcome
    assert till.wallet() == 0
    assert till.deposits() == []


def test_fault_44_test_money_is_not_taken_for_real_money(till: Till, stripe: StandIn) -> None:
    stripe.pay(till.checkout())
    outcome = till.deliver(stripe.event("payment_intent.succeeded") | {"livemode": True})
    assert outcome.status == 400
    assert "test money" in outcome.words


def test_fault_44_without_the_secret_every_webhook_is_refused(
    till: Till, stripe: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avocado.billing.provider import open_provider
    from tests.billing.stripe_stand_in import KEY

    deaf = open_provider("stripe", {"STRIPE_API_KEY": KEY}, stripe.base)
    assert not deaf.listens
    stripe.pay(till.checkout())
    from avocado.billing.events import receive

    body, signature = signed(stripe.event("payment_intent.succeeded"), secret="")
    outcome = receive(body, signature, deaf, till.reader, till.do)
    assert outcome.status == 400
    assert "STRIPE_WEBHOOK_SECRET" in outcome.words


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"currency": "usd"}, "in USD"),
        ({"currency": "usdc"}, "cannot be read"),
        ({"amount_received": 100_000}, "1000.00 EUR came in"),
        ({"amount_received": 1189}, "11.89 EUR came in"),
        ({"customer": "cus_unknown"}, "cus_unknown"),
        ({"metadata": {"avocado_tenant": "acme"}}, "cannot be read"),
        (
            {"metadata": {"avocado_tenant": "acme", "avocado_net": "-5", "avocado_tax": "0"}},
            "cannot be read",
        ),
        (
            {"metadata": {"avocado_tenant": "nobody", "avocado_net": "10", "avocado_tax": "1.9"}},
            "no customer 'nobody'",
        ),
        (
            {"metadata": {"avocado_tenant": "other", "avocado_net": "10", "avocado_tax": "1.9"}},
            "not this customer",
        ),
    ],
)
def test_fault_44_what_does_not_fit_is_kept_for_the_operator(
    till: Till, stripe: StandIn, change: dict[str, Any], why: str
) -> None:
    """Money is there, and crediting it would be a guess: it is on record and waits for a person."""
    from avocado.billing.payments import settle_problem, troubles

    till.open("other")
    payment = stripe.pay(till.checkout())
    event = stripe.event("payment_intent.succeeded")
    event["data"]["object"] |= change
    outcomes = [till.deliver(event) for _ in range(2)]
    assert [each.status for each in outcomes] == [200, 200]
    assert why in outcomes[0].words
    assert till.deposits() == []
    (trouble,) = troubles(till.reader)
    assert trouble.id == f"payment-problem/{payment}"
    assert why in trouble.words
    settle_problem(till.reader, till.do, payment, "paid back by bank", "finance")
    assert troubles(till.reader) == []


def test_a_problem_ends_when_its_payment_can_be_credited_after_all(
    till: Till, stripe: StandIn
) -> None:
    session = till.checkout()
    payment = stripe.pay(session)
    event = stripe.event("payment_intent.succeeded")
    right = json.loads(json.dumps(event))
    event["data"]["object"]["amount_received"] = 5
    till.deliver(event)
    assert till.deliver(right).deposit == f"pay_{payment}"
    problem = read(till.reader, p.problem_id(payment), p.Problem)
    assert problem is not None
    assert problem.value.state == "settled"


def test_payments_that_are_not_ours_are_left_alone(till: Till, stripe: StandIn) -> None:
    stripe.pay(till.checkout())
    for kind in ("payment_intent.succeeded", "checkout.session.completed"):
        event = stripe.event(kind)
        event["data"]["object"]["metadata"] = {"order": "a pizza"}
        assert till.deliver(event).status == 200
    other = stripe.make("pi", "payment_intent", amount=500, currency="eur", status="succeeded")
    assert "not one of ours" in till.deliver(stripe.dispute(other["id"])).words
    stripe.refund(other["id"], 500)
    assert "not one of ours" in till.deliver(stripe.event("refund.created")).words
    assert till.deliver(stripe.happen("invoice.paid", other)).status == 200
    assert till.wallet() == 0


def test_a_ledger_that_is_away_asks_for_another_delivery(till: Till, stripe: StandIn) -> None:
    from avocado.billing.events import receive

    def away(_: o.AnyOperation) -> o.AnyResult:
        raise LedgerUnavailable("the database is away")

    stripe.pay(till.checkout())
    body, signature = signed(stripe.event("payment_intent.succeeded"))
    outcome = receive(body, signature, till.provider, till.reader, away)
    assert outcome.status == 503
    assert till.deliver(stripe.event("payment_intent.succeeded")).status == 200
    assert till.wallet() == 10 * EURO


def test_a_provider_that_is_away_asks_for_another_delivery(till: Till, stripe: StandIn) -> None:
    """A dispute of a payment that is not on record yet needs to ask the provider for it."""
    payment = stripe.pay(till.checkout())
    opened = stripe.dispute(payment)
    nowhere = provider_at("http://127.0.0.1:9")
    from avocado.billing.events import receive

    body, signature = signed(opened)
    assert receive(body, signature, nowhere, till.reader, till.do).status == 503
    assert till.deliver(opened).status == 200
    assert till.wallet() == 10 * EURO
    assert till.frozen().startswith("dispute of a payment")


def test_a_crash_at_any_step_of_an_event_is_made_up_for(till: Till, stripe: StandIn) -> None:
    """Dies before each operation in turn; the next delivery ends where it always ends."""
    for step in range(6):
        tenant = f"crash{step}"
        till.open(tenant)
        payment = stripe.pay(till.checkout(10 * EURO, tenant))
        till.deliver(stripe.event("payment_intent.succeeded"))
        till.use(6_000, tenant)
        till.deliver(stripe.dispute(payment))
        dispute = stripe.event("charge.dispute.created")["data"]["object"]["id"]
        lost = stripe.close_dispute(dispute, "lost")
        left = [step]

        def dies(_: o.AnyOperation, left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] < 0

        till.fail = dies
        try:
            till.deliver(lost)
        except Crash:
            till.fail = lambda _: False
        till.fail = lambda _: False
        till.deliver(lost)
        assert till.wallet(tenant) == 0
        record = read(till.reader, p.dispute_id(dispute), p.Dispute)
        assert record is not None
        assert (record.value.state, record.value.loss) == ("lost", 6 * EURO)
    assert till.account("payments:EUR") == 0


def test_fault_44_on_postgresql_too(stripe: StandIn) -> None:
    from tests.ledger.conftest import Server

    pytest.importorskip("pgserver", reason="PostgreSQL tests need pgserver and psycopg")
    server = Server()
    try:
        till = Till(server.database("till"), stripe)
        payment = stripe.pay(till.checkout())
        succeeded = stripe.event("payment_intent.succeeded")
        stripe.refund(payment, 595)
        opened = stripe.dispute(payment)
        for event in (opened, succeeded, stripe.event("refund.created"), succeeded):
            assert till.deliver(event).status == 200
        assert (till.wallet(), till.frozen() != "") == (5 * EURO, True)
        lost = stripe.close_dispute(opened["data"]["object"]["id"], "lost")
        assert till.deliver(lost).status == 200
        assert till.wallet() == till.account("payments:EUR") == 0
        assert till.proven()
        till.close()
    finally:
        server.stop()


# -- disputes --------------------------------------------------------------------------------------


def test_a_dispute_freezes_until_it_is_won(till: Till, stripe: StandIn) -> None:
    payment = till.paid()
    opened = stripe.dispute(payment)
    till.deliver(opened)
    assert till.frozen().startswith("dispute of a payment")
    with pytest.raises(Exception, match="frozen"):
        till.use(1)
    till.deliver(stripe.close_dispute(opened["data"]["object"]["id"], "won"))
    assert till.frozen() == ""
    till.use(1)
    assert till.deliver(opened).status == 200  # the first event again, late
    assert till.frozen() == ""


def test_a_lost_dispute_takes_the_credit_back(till: Till, stripe: StandIn) -> None:
    from avocado.billing.disputes import disputes

    payment = till.paid()
    dispute = stripe.dispute(payment)["data"]["object"]["id"]
    till.deliver(stripe.event("charge.dispute.created"))
    for _ in range(3):
        till.deliver(stripe.close_dispute(dispute, "lost"))
    assert till.wallet() == 0
    assert till.account("payments:EUR") == 0
    assert till.account("taxes:EUR") == 0
    assert till.frozen() == ""  # nothing is owed
    (listed,) = disputes(till.reader)
    assert (listed.id, listed.value.state, listed.value.loss) == (dispute, "lost", 0)


def test_what_was_used_of_a_lost_dispute_is_our_loss_and_the_customer_stays_frozen(
    till: Till, stripe: StandIn
) -> None:
    from avocado.billing.disputes import let_go

    payment = till.paid()
    till.use(6_000)
    dispute = stripe.dispute(payment)["data"]["object"]["id"]
    till.deliver(stripe.event("charge.dispute.created"))
    with pytest.raises(Refused, match="open"):
        let_go(till.reader, till.do, dispute, "finance")
    till.deliver(stripe.close_dispute(dispute, "lost"))
    assert till.wallet() == 0
    assert till.account("writeoffs:EUR") == -6 * EURO
    assert till.account("payments:EUR") == 0  # as at the bank: what came in has gone back
    assert till.frozen() != ""
    for _ in range(2):
        assert let_go(till.reader, till.do, dispute, "finance").loss == 6 * EURO
    assert till.frozen() == ""
    till.deliver(stripe.event("charge.dispute.closed"))  # again, after a person let it go
    assert till.frozen() == ""


def test_a_customer_on_credit_owes_after_a_lost_dispute_what_it_owed_before(
    till: Till, stripe: StandIn
) -> None:
    till.open("credit", credit_limit=50 * EURO)
    payment = till.paid(10 * EURO, "credit")
    till.use(25_000, "credit")
    assert till.wallet("credit") == -15 * EURO
    dispute = stripe.dispute(payment)["data"]["object"]["id"]
    till.deliver(stripe.close_dispute(dispute, "lost"))
    assert till.wallet("credit") == -15 * EURO
    assert till.account("payments:EUR") == 0
    assert till.account("writeoffs:EUR") == -10 * EURO


def test_a_dispute_lost_and_then_won_gives_the_credit_back(till: Till, stripe: StandIn) -> None:
    payment = till.paid()
    till.use(6_000)
    dispute = stripe.dispute(payment)["data"]["object"]["id"]
    till.deliver(stripe.close_dispute(dispute, "lost"))
    till.deliver(stripe.close_dispute(dispute, "won"))
    assert till.wallet() == 4 * EURO
    assert till.account("writeoffs:EUR") == 0
    assert till.account("payments:EUR") == -11_900_000_000
    assert till.frozen() == ""


def test_an_inquiry_freezes_nobody_until_it_becomes_a_dispute(till: Till, stripe: StandIn) -> None:
    payment = till.paid()
    opened = stripe.dispute(payment, "warning_needs_response")
    till.deliver(opened)
    assert till.frozen() == ""
    dispute = stripe.objects[opened["data"]["object"]["id"]]
    till.deliver(stripe.close_dispute(dispute["id"], "warning_closed"))
    assert till.frozen() == ""
    second = stripe.dispute(payment, "warning_needs_response")["data"]["object"]["id"]
    till.deliver(stripe.event("charge.dispute.created"))
    stripe.objects[second]["status"] = "needs_response"
    till.deliver(stripe.happen("charge.dispute.updated", stripe.objects[second]))
    assert till.frozen() != ""
    till.deliver(opened)
    assert till.frozen() != ""


def test_two_disputes_and_an_operators_freeze_end_each_for_itself(
    till: Till, stripe: StandIn
) -> None:
    first, second = till.paid(), till.paid()
    one = stripe.dispute(first)["data"]["object"]["id"]
    till.deliver(stripe.event("charge.dispute.created"))
    two = stripe.dispute(second)["data"]["object"]["id"]
    till.deliver(stripe.event("charge.dispute.created"))
    till.deliver(stripe.close_dispute(one, "won"))
    assert till.frozen() != ""
    till.do(o.Freeze(tenant="acme", frozen=True, reason="abuse", actor="operator"))
    till.deliver(stripe.close_dispute(two, "won"))
    assert till.frozen() == "abuse"  # not ours to lift


# -- refunds that somebody made in the provider's pages -------------------------------------------


def test_a_refund_in_the_dashboard_is_followed(till: Till, stripe: StandIn) -> None:
    payment = till.paid()
    for _ in range(2):
        stripe.refund(payment, 238)
        for _ in range(2):
            till.deliver(stripe.event("refund.created"))
    assert till.wallet() == 6 * EURO
    assert till.account("payments:EUR") == -(1190 - 476) * EURO // 100
    till.use(5_000)
    stripe.refund(payment, 714)  # more than is unused: the money is gone, so the loss is ours
    till.deliver(stripe.event("refund.created"))
    assert till.wallet() == 0
    assert till.account("payments:EUR") == 0
    assert till.account("writeoffs:EUR") == -5 * EURO


@pytest.mark.parametrize("order", list(permutations(["created", "failed", "failed"])))
def test_a_refund_that_fails_is_undone_whatever_is_told_first(
    till: Till, stripe: StandIn, order: tuple[str, ...]
) -> None:
    payment = till.paid()
    refund = stripe.refund(payment, 595)
    stripe.fail_refund(refund["id"])
    for kind in order:
        till.deliver(stripe.event(f"refund.{kind}"))
    assert till.wallet() == 10 * EURO
    assert till.account("payments:EUR") == -11_900_000_000
    assert till.account("taxes:EUR") == 1_900_000_000


# -- cards -----------------------------------------------------------------------------------------


def test_the_newest_card_is_kept_by_brand_and_four_digits_only(till: Till, stripe: StandIn) -> None:
    till.paid()
    for event in stripe.events:
        till.deliver(event)
    stored = read(till.reader, "payment/acme", p.Account)
    assert stored is not None
    card = stored.value.card
    assert card is not None
    assert str(card) == "visa •••• 4242, until 12/2030"
    journal = b"".join(bytes(body) for (body,) in till.reader.rows("SELECT body FROM journal", ()))
    assert b"4242424242424242" not in journal
    assert SECRET.encode() not in journal
    till.auto()
    stored = read(till.reader, "payment/acme", p.Account)
    saved_before = stripe.event("payment_method.attached")
    saved_before["data"]["object"] |= {"id": "pm_older", "created": 5}
    till.deliver(saved_before)  # old news of another card
    assert read(till.reader, "payment/acme", p.Account) == stored
    stripe.remove_card(card.method)
    till.deliver(stripe.event("payment_method.detached"))
    assert till.stopped() == "the card was removed"
    for event in stripe.events:
        till.deliver(event)  # all of it again: what is gone stays gone
    assert till.stopped() == "the card was removed"
    stranger = stripe.make("pm", "payment_method", type="card", card={}, customer="cus_else")
    assert (
        "no customer here" in till.deliver(stripe.happen("payment_method.attached", stranger)).words
    )


# -- the decision, alone ---------------------------------------------------------------------------


@given(
    net=st.integers(1, 10**8),
    rate=st.integers(0, 100),
    parts=st.lists(st.integers(1, 10**8), max_size=6),
)
def test_parts_of_a_payment_take_what_went_back_and_never_more(
    net: int, rate: int, parts: list[int]
) -> None:
    """In coins: after each part the ledger has taken out what went back, to a nano-unit a part."""
    coin = 10_000_000
    tax = net * rate // 100
    returned = gross = 0
    for count, wanted in enumerate(parts, 1):
        part = min(wanted, net + tax - gross)
        returned += p.net_back(net * coin, tax * coin, returned, part * coin)
        gross += part
        assert 0 <= returned <= net * coin
        assert abs(returned + tax * returned // net - gross * coin) <= count
    if gross == net + tax:
        assert returned == net * coin


@given(
    wallet=st.integers(-(10**12), 10**12),
    net=st.integers(1, 10**12),
    tax=st.integers(0, 10**12),
    part=st.floats(0.01, 1),
)
def test_a_reversal_leaves_the_wallet_as_the_ledger_allows(
    wallet: int, net: int, tax: int, part: float
) -> None:
    """Adjustments and refund of a decision, added up: never below zero in between, and in the end
    what is left of the wallet, or the debt that was there before."""
    gross = max(int((net + tax) * part), 1)
    paid = Paid("pay_x", "acme", "EUR", net, tax)
    now = Standing(tenant="acme", paid=paid, wallet=wallet)
    what = p.RefundMade("re_1", "x", "EUR", gross)
    operations = decide(what, now).operations
    balance = wallet
    for operation in operations:
        if isinstance(operation, o.Adjust):
            balance += operation.amount
        elif isinstance(operation, o.Refund):
            assert operation.amount is not None
            assert operation.amount <= max(balance, 0)
            balance -= operation.amount
    assert balance >= min(wallet, 0)
    assert balance <= max(wallet, 0)


def test_the_decision_is_pure_and_ends() -> None:
    """Once everything is there, there is nothing to do."""
    order = p.Order("acme", 10, 2, "EUR")
    what = p.PaymentSucceeded("pi_1", "cus_1", "EUR", 12, order)
    fresh = Standing(tenant="acme", currency="EUR", payer_of="acme")
    (deposit,) = decide(what, fresh).operations
    assert isinstance(deposit, o.Deposit)
    assert (deposit.id, deposit.amount, deposit.tax) == ("pay_pi_1", 10, 2)
    there = Standing(
        tenant="acme",
        currency="EUR",
        payer_of="acme",
        paid=Paid("pay_pi_1", "acme", "EUR", 10, 2),
    )
    assert decide(what, there).operations == ()
    assert decide(what, there).deposit == "pay_pi_1"


# -- everything together ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))]
)
def test_random_histories_end_as_the_bank_has_it(till: Till, stripe: StandIn, seed: int) -> None:
    """Payments, use, refunds and disputes; events lost, doubled and out of order; deaths in the
    middle. In the end the ledger's payments are what the bank holds, to a nano-unit a refund."""
    random = Random(seed)
    till.fail = lambda _: random.random() < 0.02
    paid: list[str] = []
    disputed: dict[str, str] = {}
    lost = 0

    def received() -> int:
        return int(sum(stripe.objects[each]["amount"] for each in paid))

    def left(payment: str) -> int:
        gone = sum(r["amount"] for r in stripe._refunds(payment) if r["status"] != "failed")
        return int(stripe.objects[payment]["amount"] - gone)

    def deliver_some() -> None:
        for event in random.choices(stripe.events, k=random.randint(0, 3)) if stripe.events else ():
            with suppress(Crash):
                assert till.deliver(event).status == 200

    for _ in range(25):
        open_ones = [each for each in paid if each not in disputed and left(each)]
        match random.choice(["pay", "use", "refund", "fail", "operator", "dispute", "close"]):
            case "pay":
                with suppress(Crash):
                    paid.append(stripe.pay(till.checkout(random.randint(5, 30) * EURO)))
            case "use" if till.wallet() > 0 and not till.frozen():
                till.fail, failing = lambda _: False, till.fail
                till.use(random.randint(1, till.wallet() // 1_000_000))
                till.fail = failing
            case "refund" if open_ones:
                payment = random.choice(open_ones)
                stripe.refund(payment, random.randint(1, left(payment)))
            case "fail" if made := [r for r in stripe.made("refund") if r["status"] != "failed"]:
                made = [r for r in made if r["payment_intent"] in open_ones]
                if made:
                    stripe.fail_refund(random.choice(made)["id"])
            case "operator" if open_ones:
                with suppress(Crash, Refused):
                    gross = random.randint(1, 1000) * EURO // 100
                    forced = random.random() < 0.5
                    till.payments.refund(random.choice(open_ones), "x", "op", gross, forced)
            case "dispute" if open_ones:
                payment = random.choice(open_ones)
                event = stripe.dispute(payment)
                dispute = event["data"]["object"]["id"]
                stripe.objects[dispute]["amount"] = left(payment)
                event["data"]["object"]["amount"] = left(payment)
                disputed[payment] = dispute
            case "close" if open_disputes := [
                each for each in disputed.values() if stripe.objects[each]["status"][0] == "n"
            ]:
                dispute = random.choice(open_disputes)
                verdict = random.choice(["won", "lost"])
                stripe.close_dispute(dispute, verdict)
                lost += stripe.objects[dispute]["amount"] if verdict == "lost" else 0
        deliver_some()
    till.fail = lambda _: False
    for _ in range(2):
        list(till.payments.sync(0))
    gone = sum(r["amount"] for p_ in paid for r in stripe._refunds(p_) if r["status"] != "failed")
    held = (received() - gone - lost) * EURO // 100
    refunds = sum(len(stripe._refunds(each)) for each in paid) + len(disputed)
    assert abs(-till.account("payments:EUR") - held) <= refunds
    assert till.wallet() >= 0
    still_open = [each for each in disputed.values() if stripe.objects[each]["status"][0] == "n"]
    if still_open:
        assert till.frozen() != ""
    assert not any(each.changed for each in till.payments.sync(0))
