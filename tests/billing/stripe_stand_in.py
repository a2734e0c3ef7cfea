"""A small server that answers as Stripe's API reference says, where localstripe has no answer.

Checkout Sessions, the Customer Portal, refunds with their limits, disputes, saved cards with the
errors of off-session charges, idempotency keys, and the list of events, newest first, in pages. The
test pays, disputes and fails through methods; Stripe's library speaks to it over HTTP.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import stripe
from stripe import params

SECRET = "whsec_a_secret_of_this_test"
KEY = "sk_test_a_key_of_this_test"
Answer = tuple[int, dict[str, Any]]
PARAMETERS = {
    ("POST", "/v1/customers"): params.CustomerCreateParams,
    ("POST", "/v1/checkout/sessions"): params.checkout.SessionCreateParams,
    ("POST", "/v1/billing_portal/sessions"): params.billing_portal.SessionCreateParams,
    ("POST", "/v1/payment_intents"): params.PaymentIntentCreateParams,
    ("POST", "/v1/refunds"): params.RefundCreateParams,
    ("GET", "/v1/refunds"): params.RefundListParams,
    ("GET", "/v1/events"): params.EventListParams,
}
"""What the library of today says that each call takes: anything else is refused, as Stripe does."""


class StandIn:
    """``base`` is its address. ``calls`` are (method, path, idempotency key) as they came in."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.calls: list[tuple[str, str, str]] = []
        self.answers: dict[str, Answer] = {}
        self.before_answer: Callable[[str, str], None] = lambda _method, _path: None
        self._numbers = count(1)
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # -- what a test makes happen ------------------------------------------------------------------

    def pay(self, session_id: str, card: str = "4242", amount: int | None = None) -> str:
        """The customer pays at a Checkout page; returns the PaymentIntent. ``amount`` is what is
        paid if it is not what was asked for."""
        session = self.objects[session_id]
        data = session.pop("_intent")
        received = session["amount_total"] if amount is None else amount
        method = self.save_card(session["customer"], card)
        intent = self.make(
            "pi",
            "payment_intent",
            amount=received,
            amount_received=received,
            currency=session["currency"],
            customer=session["customer"],
            payment_method=method,
            metadata=data.get("metadata", {}),
            status="succeeded",
        )
        session |= {"payment_status": "paid", "status": "complete", "payment_intent": intent["id"]}
        if amount is not None:
            session["amount_total"] = amount
        self.happen("payment_intent.succeeded", intent)
        self.happen("checkout.session.completed", session)
        return str(intent["id"])

    def save_card(self, customer: str, last4: str = "4242") -> str:
        card = {"brand": "visa", "last4": last4, "exp_month": 12, "exp_year": 2030}
        method = self.make("pm", "payment_method", type="card", card=card, customer=customer)
        self.happen("payment_method.attached", method)
        return str(method["id"])

    def remove_card(self, method: str) -> None:
        found = self.objects[method]
        before, found["customer"] = found["customer"], None
        self.happen("payment_method.detached", found, {"customer": before})

    def dispute(self, intent: str, status: str = "needs_response") -> dict[str, Any]:
        paid = self.objects[intent]
        made = self.make(
            "dp",
            "dispute",
            amount=paid["amount"],
            currency=paid["currency"],
            payment_intent=intent,
            charge="ch_1",
            reason="fraudulent",
            status=status,
        )
        return self.happen("charge.dispute.created", made)

    def close_dispute(self, dispute: str, status: str) -> dict[str, Any]:
        self.objects[dispute]["status"] = status
        return self.happen("charge.dispute.closed", self.objects[dispute])

    def refund(self, intent: str, amount: int, **metadata: str) -> dict[str, Any]:
        """Somebody refunds in the Dashboard; returns the refund."""
        paid = self.objects[intent]
        made = self.make(
            "re",
            "refund",
            amount=amount,
            currency=paid["currency"],
            payment_intent=intent,
            status="succeeded",
            metadata=dict(metadata),
        )
        self.happen("refund.created", made)
        return made

    def fail_refund(self, refund: str) -> dict[str, Any]:
        self.objects[refund] |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
        return self.happen("refund.failed", self.objects[refund])

    def happen(
        self, kind: str, about: dict[str, Any], before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """An event; Stripe takes the object as it is at that moment."""
        data: dict[str, Any] = {"object": json.loads(json.dumps(_public(about)))}
        if before is not None:
            data["previous_attributes"] = before
        event = {
            "id": f"evt_{next(self._numbers)}",
            "object": "event",
            "type": kind,
            "created": int(time.time()),
            "livemode": False,
            "api_version": "2026-10-28.endive",
            "data": data,
        }
        self.events.append(event)
        return event

    def event(self, kind: str) -> dict[str, Any]:
        """The newest event of a kind."""
        return [each for each in self.events if each["type"] == kind][-1]

    def make(self, prefix: str, kind: str, **fields: Any) -> dict[str, Any]:
        made = {
            "id": f"{prefix}_{next(self._numbers)}",
            "object": kind,
            "created": int(time.time()),
            "livemode": False,
            "metadata": {},
            **fields,
        }
        self.objects[made["id"]] = made
        return made

    def made(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.objects.values() if each["object"] == kind]

    # -- what Stripe's library asks ----------------------------------------------------------------

    def answer(self, method: str, path: str, form: dict[str, Any], key: str) -> Answer:
        with self._lock:
            self.calls.append((method, path, key))
            if method == "POST" and key and key in self.answers:
                return self.answers[key]
            given = self._route(method, path, form)
            if method == "POST" and key:
                self.answers[key] = given
        self.before_answer(method, path)
        return given

    def _route(self, method: str, path: str, form: dict[str, Any]) -> Answer:
        known = PARAMETERS.get((method, path))
        if known is not None and (wrong := form.keys() - _names_of(known)):
            said = f"Received unknown parameter: {sorted(wrong)[0]}"
            return 400, _error("invalid_request_error", "parameter_unknown", said)
        match method, path:
            case "POST", "/v1/customers":
                return 200, self.make("cus", "customer", **form)
            case "POST", "/v1/checkout/sessions":
                return self._checkout(form)
            case "POST", "/v1/billing_portal/sessions":
                url = f"https://billing.stripe.com/p/session/{form['customer']}"
                return 200, self.make("bps", "billing_portal.session", url=url, **form)
            case "POST", "/v1/payment_intents":
                return self._charge(form)
            case "POST", "/v1/refunds":
                return self._refund(form)
            case "GET", "/v1/refunds":
                found = [
                    r for r in self.made("refund") if r["payment_intent"] == form["payment_intent"]
                ]
                return 200, _page(found, form, path)
            case "GET", "/v1/events":
                since = int(form.get("created", {}).get("gte", 0))
                found = [
                    e for e in self.events if e["type"] == form["type"] and e["created"] >= since
                ]
                return 200, _page(found[::-1], form, path)
        found_one = self.objects.get(path.rpartition("/")[2])
        if method == "POST" and found_one is not None and path.startswith("/v1/customers/"):
            found_one |= form
            return 200, found_one
        if method == "GET" and found_one is not None:
            return 200, _public(found_one)
        return 404, _error("invalid_request_error", "resource_missing", f"No such thing: {path}")

    def _checkout(self, form: dict[str, Any]) -> Answer:
        items = form["line_items"].values()
        total = sum(int(i["price_data"]["unit_amount"]) * int(i["quantity"]) for i in items)
        session = self.make(
            "cs_test",
            "checkout.session",
            url="https://checkout.stripe.com/c/pay/cs_test",
            amount_total=total,
            currency=next(iter(items))["price_data"]["currency"],
            customer=form["customer"],
            metadata=form["metadata"],
            mode=form["mode"],
            payment_status="unpaid",
            status="open",
            payment_intent=None,
            _intent=form["payment_intent_data"],
            _asked=form,
        )
        return 200, _public(session)

    def _charge(self, form: dict[str, Any]) -> Answer:
        """A saved card: …0341 is declined, …3184 wants its owner (docs.stripe.com/testing)."""
        last4 = self.objects[form["payment_method"]]["card"]["last4"]
        amount = int(form["amount"])
        fields = {name: form[name] for name in ("currency", "customer", "payment_method")}
        intent = self.make(
            "pi", "payment_intent", amount=amount, metadata=form["metadata"], **fields
        )
        if last4 == "4242":
            intent |= {"status": "succeeded", "amount_received": amount}
            self.happen("payment_intent.succeeded", intent)
            return 200, intent
        intent |= {"status": "requires_payment_method", "amount_received": 0}
        code, decline = (
            ("authentication_required", "authentication_required")
            if last4 == "3184"
            else ("card_declined", "insufficient_funds")
        )
        error = _error("card_error", code, "Your card was declined.")
        error["error"] |= {"decline_code": decline}
        intent["last_payment_error"] = dict(error["error"])
        self.happen("payment_intent.payment_failed", intent)
        error["error"]["payment_intent"] = intent
        return 402, error

    def _refunds(self, intent: str) -> list[dict[str, Any]]:
        return [each for each in self.made("refund") if each["payment_intent"] == intent]

    def _refund(self, form: dict[str, Any]) -> Answer:
        intent, amount = self.objects[form["payment_intent"]], int(form["amount"])
        gone = self._refunds(intent["id"])
        left = intent["amount"] - sum(r["amount"] for r in gone if r["status"] != "failed")
        if amount > left:
            said = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            return 400, _error("invalid_request_error", "amount_too_large", said)
        refund = self.make(
            "re",
            "refund",
            amount=amount,
            currency=intent["currency"],
            payment_intent=intent["id"],
            status="succeeded",
            metadata=form.get("metadata", {}),
        )
        self.happen("refund.created", refund)
        return 200, refund


def _names_of(known: Any) -> set[str]:
    """The names of a call's parameters."""
    return set(known.__annotations__)


def signed(event: dict[str, Any], at: int | None = None, secret: str = SECRET) -> tuple[bytes, str]:
    """(body, Stripe-Signature) of a delivery, by the scheme of Stripe's own library."""
    body = json.dumps(event, indent=2)
    header = stripe.WebhookSignature.generate_signature_header(body, secret, at)
    return body.encode(), header


def _public(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if not name.startswith("_")}


def _page(found: list[dict[str, Any]], form: dict[str, Any], url: str) -> dict[str, Any]:
    after = form.get("starting_after")
    names = [each["id"] for each in found]
    start = names.index(after) + 1 if after else 0
    limit = min(int(form.get("limit", 10)), 2)  # small pages, so that turning them is tested
    data = found[start : start + limit]
    return {
        "object": "list",
        "url": url,
        "has_more": len(found) > start + limit,
        "data": [_public(each) for each in data],
    }


def _error(kind: str, code: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "code": code, "message": message}}


def _decode(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """``a[b][0]=c`` as nested dictionaries."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        *parents, last = re.findall(r"[^\[\]]+", name)
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._do("GET", parse_qsl(urlsplit(self.path).query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._do("POST", parse_qsl(body.decode(), keep_blank_values=True))

        def _do(self, method: str, pairs: list[tuple[str, str]]) -> None:
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                status, answer = 401, _error("invalid_request_error", "", "Invalid API Key")
            else:
                path, key = urlsplit(self.path).path, self.headers.get("Idempotency-Key") or ""
                status, answer = stand_in.answer(method, path, _decode(pairs), key)
            body = json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                return  # the client has hung up, as a test may want

        def log_message(self, *_: object) -> None: ...

    return Handler
