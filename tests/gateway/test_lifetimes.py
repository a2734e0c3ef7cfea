"""Audience and dates of an offer, through a real gateway: what is not for you does not exist."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.gateway.keys import NewKey
from avocado.ledger.ledger import Ledger
from avocado.lineage import Manifest
from avocado.release.offer import Offer
from avocado.terms.price import PriceSheet
from tests.gateway.conftest import RELEASE, Answer, MakeStand, Stand

DAY = 86_400
PRICE = PriceSheet(1, 1)


ONE = "/v1/models/avocado-1"


def call(stand: Stand, method: str, path: str, body: Any = None, key: str | None = None) -> Answer:
    secret = key or stand.key.text
    return stand.call(method, path, body, {"Authorization": f"Bearer {secret}"})


def offered(stand: Stand, **terms: Any) -> None:
    """Sells ``avocado-1`` on other terms from the next request on."""
    stand.offers["avocado-1"] = replace(stand.offers["avocado-1"], **terms)


def asked(stand: Stand, key: str | None = None) -> tuple[int, dict[str, str], Any]:
    body = {"model": "avocado-1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    found = call(stand, "POST", "/v1/chat/completions", body, key)
    return found.status, found.headers, found.json


def listed(stand: Stand, key: str | None = None) -> dict[str, Any]:
    found = call(stand, "GET", "/v1/models", key=key)
    return {each["id"]: each for each in found.json["data"]}


def test_an_offer_outside_of_a_customers_audience_does_not_exist_for_it(
    make_stand: MakeStand, add_customer: Callable[[Ledger, str, int], NewKey]
) -> None:
    stand = make_stand()
    other = add_customer(stand.ledger, "other", 10**9).text
    offered(stand, audience=("acme",))
    assert asked(stand)[0] == 200
    status, _, body = asked(stand, other)
    stand.offers["real"] = stand.offers.pop("avocado-1")
    missing = asked(stand, other)
    stand.offers["avocado-1"] = stand.offers.pop("real")
    assert (status, body) == (missing[0], missing[2]) == (404, body)  # word for word
    assert listed(stand).keys() == {"avocado-1"}
    assert listed(stand, other) == {}
    assert call(stand, "GET", ONE, key=other).status == 404
    assert call(stand, "GET", ONE).status == 200


def test_a_plan_admits_its_customers_within_a_second(
    make_stand: MakeStand, add_customer: Callable[[Ledger, str, int], NewKey]
) -> None:
    stand = make_stand()
    other = add_customer(stand.ledger, "other", 10**9).text
    offered(stand, audience=("plan:pro", "acme"))
    assert asked(stand, other)[0] == 404
    stand.policy("customer:other", plan="pro")
    deadline = time.monotonic() + 5
    while asked(stand, other)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stand.policy("customer:other", plan="free")
    while asked(stand, other)[0] != 404:
        assert time.monotonic() < deadline + 5
        time.sleep(0.1)


def test_a_deprecated_model_warns_in_headers_and_on_the_list(make_stand: MakeStand) -> None:
    stand = make_stand()
    now = int(time.time())
    assert "deprecation" not in asked(stand)[1]
    assert "deprecation" not in listed(stand)["avocado-1"]
    stand.offers["avocado-2"] = replace(stand.offers["avocado-1"], name="avocado-2")
    offered(stand, deprecated=now - DAY, ends=now + DAY, successor="avocado-2")
    status, headers, _ = asked(stand)
    assert status == 200
    assert headers["deprecation"] == f"@{now - DAY}"  # RFC 9745
    assert parsedate_to_datetime(headers["sunset"]).timestamp() == now + DAY  # RFC 8594
    assert headers["link"] == '</v1/models/avocado-2>; rel="successor-version"'
    assert "avocado-1 is deprecated and is sold until" in headers["x-avocado-warning"]
    shown = listed(stand)["avocado-1"]["deprecation"]
    assert (shown["deprecated"], shown["ends"]) == (now - DAY, now + DAY)
    assert shown["successor"] == "avocado-2"
    assert shown["warning"] == headers["x-avocado-warning"]
    one = call(stand, "GET", ONE)
    assert one.json["deprecation"] == shown
    assert one.headers["deprecation"] == headers["deprecation"]


def test_a_stream_and_a_refusal_carry_the_headers_too(make_stand: MakeStand) -> None:
    stand = make_stand()
    now = int(time.time())
    offered(stand, deprecated=now - 1)
    messages = [{"role": "user", "content": "hi"}]
    body: dict[str, Any] = {"model": "avocado-1", "messages": messages, "stream": True}
    streamed = call(stand, "POST", "/v1/chat/completions", body)
    assert streamed.status == 200
    assert streamed.headers["deprecation"] == f"@{now - 1}"
    refused = call(stand, "POST", "/v1/chat/completions", {**body, "max_tokens": 10**9})
    assert refused.status == 400
    assert refused.headers["deprecation"] == f"@{now - 1}"


def test_announced_ahead_it_says_when_and_does_not_warn_yet(make_stand: MakeStand) -> None:
    stand = make_stand()
    now = int(time.time())
    offered(stand, deprecated=now + DAY)
    headers = asked(stand)[1]
    assert headers["deprecation"] == f"@{now + DAY}"
    assert "x-avocado-warning" not in headers
    assert listed(stand)["avocado-1"]["deprecation"]["warning"] is None


def test_after_its_end_it_is_a_404_that_names_the_successor(
    make_stand: MakeStand, add_customer: Callable[[Ledger, str, int], NewKey]
) -> None:
    stand = make_stand()
    offered(stand, ends=1_767_225_600, successor="avocado-2")
    status, _, body = asked(stand)
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert body["error"]["message"] == (
        "The model 'avocado-1' is not sold any more since 2026-01-01 00:00 UTC; "
        "use 'avocado-2' instead"
    )
    assert listed(stand) == {}
    one = call(stand, "GET", ONE)
    assert (one.status, one.json) == (404, body)
    other = add_customer(stand.ledger, "other", 10**9).text
    offered(stand, audience=("acme",))
    assert "any more" not in json.dumps(asked(stand, other)[2])  # it never knew of it


def test_before_its_beginning_it_does_not_exist(make_stand: MakeStand) -> None:
    stand = make_stand()
    offered(stand, begins=int(time.time()) + DAY)
    status, _, body = asked(stand)
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    assert "does not exist" in body["error"]["message"]
    assert listed(stand) == {}


TIMES = st.none() | st.integers(0, 100)


@given(TIMES, TIMES, TIMES, st.integers(-1, 101))
def test_an_offers_life_goes_one_way(
    begins: int | None, deprecated: int | None, ends: int | None, now: int
) -> None:
    order = ["ahead", "sold", "deprecated", "over"]
    try:
        offer = Offer("m", RELEASE, PRICE, 1, begins=begins, deprecated=deprecated, ends=ends)
    except ValueError:
        dates = [each for each in (begins, deprecated, ends) if each is not None]
        assert dates != sorted(set(dates))
        return
    states = [order.index(offer.state(at)) for at in range(-1, 102)]
    assert states == sorted(states)
    assert (offer.state(now) == "over") == (ends is not None and now >= ends)
    assert Offer.from_manifest(offer.manifest()) == replace(offer, id=offer.manifest().id)


def test_offers_without_terms_keep_their_ids_and_bad_ones_are_refused() -> None:
    facts = {"name": "m", "price": PRICE.terms(), "created": 1}
    assert Offer("m", RELEASE, PRICE, 1).manifest() == Manifest(
        "offer", facts, {"release": RELEASE}
    )
    for bad in ({"audience": ("plan:",)}, {"audience": ("a b",)}, {"successor": "m"}):
        with pytest.raises(ValueError, match=r"m|plan"):
            Offer("m", RELEASE, PRICE, 1, **bad)
