"""Stripe's adapter: its objects read right, and its API asked right, by ``localstripe`` over HTTP.

localstripe is somebody else's idea of Stripe's API: customers, cards, payments, refunds, events and
signed webhooks. What it has not (Checkout, Portal, disputes, idempotency) our stand-in answers.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.billing import payment as p
from avocado.billing import stripe_events as s
from avocado.billing.events import carry_out, receive
from avocado.billing.provider import Declined, Provider, ProviderAway, ProviderRefused
from avocado.billing.topup import payer_for
from avocado.errors import Refused
from avocado.ledger.reader import open_reader
from tests.billing.stripe_stand_in import KEY, SECRET, StandIn
from tests.billing.till import EURO, Till, provider_at, till_at

GOOD, FAILS, ASKS = "4242424242424242", "4000000000000341", "4000002500003155"
"""Cards of docs.stripe.com/testing: pays; attaches and fails when charged; wants its owner."""


@dataclass
class LocalStripe:
    """A running localstripe, and the webhooks that it delivered: (body, signature)."""

    base: str
    front: str = ""
    """The same, without what is newer than it."""
    delivered: list[tuple[bytes, str]] = field(default_factory=list)

    def post(self, path: str, **form: str) -> dict[str, Any]:
        request = Request(
            self.base + path,
            data=urlencode(form).encode(),
            headers={"Authorization": f"Bearer {KEY}"},
        )
        with urlopen(request, timeout=10) as answer:
            made: dict[str, Any] = json.loads(answer.read() or b"{}")
        return made

    def card(self, payer: str, number: str) -> str:
        """A card that is attached to a customer, as Stripe's own page would do it."""
        made = self.post(
            "/v1/payment_methods",
            **{
                "type": "card",
                "card[number]": number,
                "card[exp_month]": "12",
                "card[exp_year]": "2030",
                "card[cvc]": "123",
            },
        )
        self.post(f"/v1/payment_methods/{made['id']}/attach", customer=payer)
        return str(made["id"])

    def wait(self, kind: str, count: int = 1) -> list[tuple[bytes, str]]:
        """Deliveries of a kind; localstripe sends them a second later."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            found = [each for each in self.delivered if json.loads(each[0])["type"] == kind]
            if len(found) >= count:
                return found
            time.sleep(0.05)
        raise AssertionError(f"no {kind} was delivered")


@pytest.fixture(scope="module")
def localstripe() -> Iterator[LocalStripe]:
    pytest.importorskip("localstripe")
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "localstripe", "--port", str(port), "--from-scratch"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    local = LocalStripe(f"http://127.0.0.1:{port}")
    hook = ThreadingHTTPServer(("127.0.0.1", 0), _receiver(local))
    front = ThreadingHTTPServer(("127.0.0.1", 0), _front(local.base))
    local.front = f"http://127.0.0.1:{front.server_port}"
    threads = [threading.Thread(target=one.serve_forever, args=(0.02,)) for one in (hook, front)]
    for thread in threads:
        thread.start()
    try:
        _until_it_answers(local, server)
        body = {"url": f"http://127.0.0.1:{hook.server_port}/", "secret": SECRET}
        request = Request(
            f"{local.base}/_config/webhooks/test",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        urlopen(request, timeout=10).close()
        yield local
    finally:
        server.terminate()
        server.wait(timeout=10)
        for listening in (hook, front):
            listening.shutdown()
            listening.server_close()
        for thread in threads:
            thread.join()


def _until_it_answers(local: LocalStripe, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            local.post("/v1/customers")
        except OSError:
            assert server.poll() is None, "localstripe ended"
            assert time.monotonic() < deadline, "localstripe does not answer"
            time.sleep(0.1)
        else:
            return


def _front(base: str) -> type[BaseHTTPRequestHandler]:
    """localstripe answers as Stripe did before ``allowed_payment_method_types`` (2026-07-29) and
    refuses what it does not know: that one parameter is taken out on the way to it."""

    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass(None)

        def do_POST(self) -> None:
            form = parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode())
            kept = [each for each in form if not each[0].startswith("allowed_payment_method_types")]
            self._pass(urlencode(kept).encode())

        def _pass(self, body: bytes | None) -> None:
            headers = {"Authorization": self.headers["Authorization"]}
            request = Request(base + self.path, data=body, headers=headers)
            try:
                with urlopen(request, timeout=10) as answer:
                    status, told = answer.status, answer.read()
            except HTTPError as error:
                status, told = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None: ...

    return Front


def _receiver(local: LocalStripe) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            local.delivered.append((body, self.headers["Stripe-Signature"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    return Receiver


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture
def provider(localstripe: LocalStripe) -> Provider:
    return provider_at(localstripe.front)


@pytest.fixture
def till(
    localstripe: LocalStripe, provider: Provider, stand_in: StandIn, tmp_path: Path
) -> Iterator[Till]:
    with till_at(stand_in, tmp_path, provider) as desk:
        yield desk


def save(till: Till, local: LocalStripe, number: str) -> p.Card:
    """A customer at localstripe with a card, known to us. It tells nobody of attached cards, so
    the card is read from it and the news is carried out by hand."""
    payer = payer_for(till.reader, till.do, till.provider, "acme", "acme@example.com")
    card = till.provider.find_card(payer, local.card(payer, number))
    assert card is not None
    carry_out(p.CardSaved(payer, card), till.reader, till.do, till.provider.find_payment)
    return card


# -- against localstripe ---------------------------------------------------------------------------


def test_a_saved_card_is_charged_and_its_webhook_changes_nothing_more(
    till: Till, localstripe: LocalStripe
) -> None:
    card = save(till, localstripe, GOOD)
    assert str(card) == "visa •••• 4242, until 12/2030"
    till.auto(threshold=5, net=20)
    (done,) = till.payments.top_up_due(till.now)
    assert (done.state, till.wallet()) == ("paid", 20 * EURO)
    body, signature = localstripe.wait("payment_intent.succeeded")[-1]
    outcome = till.payments.receive(body, signature)
    assert (outcome.status, outcome.changed, outcome.deposit) == (200, False, done.deposit)
    forged = body.replace(b"2380", b"9380")
    assert forged != body
    assert till.payments.receive(forged, signature).status == 400
    assert till.wallet() == 20 * EURO


def test_a_webhook_alone_credits_a_payment(till: Till, localstripe: LocalStripe) -> None:
    """The process died between charge and credit: what localstripe delivers is enough."""
    card = save(till, localstripe, GOOD)
    payer = payer_for(till.reader, till.do, till.provider, "acme")
    order = p.Order("acme", 10 * EURO, 1_900_000_000, "EUR")
    paid = till.provider.charge_saved(payer, card.method, order, f"key-{payer}")
    assert (paid.order, paid.received) == (order, 11_900_000_000)
    deliveries = localstripe.wait("payment_intent.succeeded")
    mine = [each for each in deliveries if paid.payment.encode() in each[0]]
    while not mine:
        time.sleep(0.05)
        deliveries = localstripe.wait("payment_intent.succeeded", len(deliveries) + 1)
        mine = [each for each in deliveries if paid.payment.encode() in each[0]]
    for _ in range(3):
        with open_reader(till.target) as reader:
            assert receive(*mine[0], till.provider, reader, till.do).status == 200
    assert till.wallet() == 10 * EURO
    assert till.provider.find_payment(paid.payment) == paid


def test_a_card_that_fails(till: Till, localstripe: LocalStripe) -> None:
    save(till, localstripe, FAILS)
    till.auto()
    (done,) = till.payments.top_up_due(till.now)
    assert (done.state, till.wallet(), till.tries()) == ("failed", 0, ["failed"])
    body, signature = localstripe.wait("payment_intent.payment_failed")[-1]
    outcome = till.payments.receive(body, signature)
    assert (outcome.status, outcome.changed) == (200, False)
    assert till.payments.top_up_due(till.now) == ()  # an hour's pause


def test_a_card_that_wants_its_owner(till: Till, localstripe: LocalStripe) -> None:
    save(till, localstripe, ASKS)
    till.auto()
    (done,) = till.payments.top_up_due(till.now)
    assert done.state == "failed"
    assert "confirm the payment" in till.stopped()


def test_refunds(till: Till, localstripe: LocalStripe) -> None:
    save(till, localstripe, GOOD)
    till.auto(net=20)
    (done,) = till.payments.top_up_due(till.now)
    payment = done.deposit.removeprefix("pay_")
    back = till.payments.refund(payment, "half of it", "finance", gross=11_900_000_000)
    assert (back.state, till.wallet()) == ("done", 10 * EURO)
    till.payments.refund(payment, "the rest", "finance")
    assert till.wallet() == till.account("payments:EUR") == 0


def test_events_are_listed_for_sync(till: Till, localstripe: LocalStripe) -> None:
    card = save(till, localstripe, GOOD)
    payer = payer_for(till.reader, till.do, till.provider, "acme")
    for number in range(3):
        order = p.Order("acme", 10 * EURO, 0, "EUR")
        till.provider.charge_saved(payer, card.method, order, f"{payer}-{number}")
    outcomes = list(till.payments.sync(int(time.time()) - 600))
    assert sum(each.changed for each in outcomes) >= 3
    assert till.wallet() == 30 * EURO


def test_what_is_not_there(provider: Provider) -> None:
    assert provider.find_payment("pi_none") is None
    assert provider.find_card("cus_none", "pm_none") is None
    order = p.Order("acme", 10 * EURO, 0, "EUR")
    with pytest.raises(Declined, match="no longer there"):
        provider.charge_saved("cus_none", "pm_none", order, "key")
    with pytest.raises(ProviderRefused):
        provider.refund("pi_none", 10 * EURO, "EUR", "r")
    with pytest.raises(ProviderAway):
        provider_at("http://127.0.0.1:9").find_payment("pi_1")


# -- amounts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nanos", "currency", "minor"),
    [
        (12_340_000_000, "EUR", 1234),
        (500 * EURO, "JPY", 500),
        (5 * EURO, "ISK", 500),
        (5 * EURO, "UGX", 500),
        (5_120_000_000, "KWD", 5120),
        (5 * EURO, "MGA", 5),
        (10_000_000, "USD", 1),
    ],
)
def test_amounts_as_stripe_writes_them(nanos: int, currency: str, minor: int) -> None:
    assert s.to_minor(nanos, currency) == minor
    assert s.from_minor(minor, currency) == nanos


@pytest.mark.parametrize(
    ("nanos", "currency"),
    [
        (0, "EUR"),
        (-EURO, "EUR"),
        (1, "EUR"),
        (EURO // 2, "JPY"),
        (EURO // 2, "ISK"),
        (5_124_000_000, "KWD"),
        (1_000_000 * EURO, "EUR"),
    ],
)
def test_amounts_that_stripe_would_refuse(nanos: int, currency: str) -> None:
    with pytest.raises(Refused):
        s.to_minor(nanos, currency)


@given(
    net=st.integers(1, 10**9),
    tax=st.integers(0, 10**9),
    attempt=st.integers(0, 10**6),
    currency=st.sampled_from(["EUR", "JPY", "KWD"]),
)
def test_metadata_tells_the_order_again(net: int, tax: int, attempt: int, currency: str) -> None:
    unit = s.unit(currency)
    order = p.Order("acme", net * unit, tax * unit, currency, attempt, "top-up-quote/acme/x")
    assert s.order_of(s.metadata_of(order), currency) == order


# -- objects ---------------------------------------------------------------------------------------


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["object", "data", "id", "type", "currency", "metadata", "amount"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from([*s.KINDS, "other"]),
)
def test_an_event_of_any_shape_is_read_or_refused(found: Any, kind: str) -> None:
    event = {"id": "evt_1", "type": kind, "created": 1, "data": {"object": found}}
    with suppress(Refused):
        assert s.read(event).id == "evt_1"


def test_dispute_states() -> None:
    known = {"id": "dp", "payment_intent": "pi", "currency": "eur", "amount": 1, "reason": "x"}
    for status, kind in [
        ("needs_response", p.DisputeOpened),
        ("under_review", p.DisputeOpened),
        ("warning_needs_response", p.DisputeOpened),
        ("won", p.DisputeClosed),
        ("lost", p.DisputeClosed),
        ("warning_closed", p.DisputeClosed),
        ("prevented", p.DisputeClosed),
    ]:
        assert isinstance(s.dispute_of(known | {"status": status}), kind)
    assert isinstance(s.dispute_of(known | {"payment_intent": None}), p.Unrelated)


def test_a_way_to_pay_that_is_no_card() -> None:
    method = {"id": "pm_1", "type": "sepa_debit", "sepa_debit": {"last4": "3000"}, "created": 7}
    assert str(s.card_of(method)) == "sepa_debit •••• 3000"
