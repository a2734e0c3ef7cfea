"""Usage, costs, credits, keys and generations: exact, paged, and nobody else's."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import msgspec
import openai
import pytest

from avocado.engine.scripted import Script
from avocado.gateway.query import LATEST
from avocado.ledger.operation import Refund, SetSpendLimit

MakeStand = Callable[..., Any]
DAY = 86_400
USAGE = "/v1/organization/usage/completions"
COSTS = "/v1/organization/costs"


def get(stand: Any, path: str, key: Any = None, status: int = 200) -> Any:
    headers = {} if key is None else {"Authorization": f"Bearer {key.text}"}
    answer = stand.call("GET", path, headers=headers)
    assert answer.status == status, answer.body
    return answer.json if status == 200 else answer.error


def test_usage_adds_up_by_model_and_key(stand: Any) -> None:
    for _ in range(3):
        stand.ask()
    since = int(time.time()) // DAY * DAY
    page = get(stand, f"{USAGE}?start_time={since}&group_by=model&group_by[]=api_key_id")
    results = [result for bucket in page["data"] for result in bucket["results"]]
    (result,) = results
    assert (result["model"], result["api_key_id"]) == ("avocado-1", stand.key.id)
    assert (result["num_model_requests"], result["output_tokens"]) == (3, 18)
    assert result["input_tokens"] == sum(charge.usage.prompt for charge in stand.charges)
    ungrouped = get(stand, f"{USAGE}?start_time={since}")
    (result,) = [result for bucket in ungrouped["data"] for result in bucket["results"]]
    assert (result["model"], result["api_key_id"]) == (None, None)
    other = get(stand, f"{USAGE}?start_time={since}&models=none&api_key_ids={stand.key.id}")
    assert all(bucket["results"] == [] for bucket in other["data"])


def test_pages_cover_each_bucket_once(stand: Any) -> None:
    stand.ask()
    now = int(time.time())
    since, until = now - 10 * 3600 - 17, now + 1
    query = f"{USAGE}?start_time={since}&end_time={until}&bucket_width=1h&limit=4"
    buckets, page = [], ""
    while True:
        found = get(stand, query + (f"&page={page}" if page else ""))
        buckets += found["data"]
        assert len(found["data"]) <= 4
        if not found["has_more"]:
            assert found["next_page"] is None
            break
        page = found["next_page"]
    assert (buckets[0]["start_time"], buckets[-1]["end_time"]) == (since, until)
    for before, after in itertools.pairwise(buckets):
        assert before["end_time"] == after["start_time"]
        assert after["start_time"] % 3600 == 0
    assert sum(len(bucket["results"]) for bucket in buckets) == 1


def test_costs_are_exact_and_less_refunds(stand: Any) -> None:
    stand.ask()
    answer = stand.ask()
    name = answer.headers["x-request-id"]
    stand.ledger.do_now(Refund(id="r", of=name, reason="a try", amount=100))
    since = int(time.time()) // DAY * DAY
    body = stand.call("GET", f"{COSTS}?start_time={since}&group_by=line_item").body
    page = msgspec.json.decode(body)
    (result,) = [result for bucket in page["data"] for result in bucket["results"]]
    total = sum(charge.charge - charge.refunded for charge in stand.charges)
    assert b'"value":0.0000103,' in body, "a decimal, not a float"
    assert round(result["amount"]["value"] * 1e9) == total == 10_300
    assert (result["amount"]["currency"], result["line_item"]) == ("usd", "avocado-1")


def test_credits_and_key(stand: Any) -> None:
    stand.ask()
    spent = stand.charges[0].charge / 1e9
    credits = get(stand, "/api/v1/credits")["data"]
    assert (credits["total_credits"], credits["total_usage"]) == (1, pytest.approx(spent))
    key = get(stand, "/api/v1/key")["data"]
    assert (key["label"], key["limit"], key["usage"]) == ("test", None, pytest.approx(spent))
    assert key["usage_daily"] == key["usage_monthly"] == key["usage"]
    limit = SetSpendLimit(tenant="acme", key_id=stand.key.id, month=50_000, total=70_000)
    stand.ledger.do_now(limit)
    key = get(stand, "/api/v1/key")["data"]
    assert (key["limit"], key["limit_reset"]) == (0.00005, "monthly")
    assert key["limit_remaining"] == pytest.approx(0.00005 - spent)


@pytest.mark.parametrize("prefix", ["", "chatcmpl-", "gen-"])
def test_a_generation(stand: Any, prefix: str) -> None:
    answer = stand.ask()
    name = answer.headers["x-request-id"]
    facts = get(stand, f"/api/v1/generation?id={prefix}{name}")["data"]
    assert (facts["id"], facts["model"], facts["finish_reason"]) == (name, "avocado-1", "stop")
    assert facts["total_cost"] == answer.json["usage"]["cost"]
    assert facts["tokens_completion"] == 6


def test_fault_32_what_is_another_customers_is_a_404(
    stand: Any, add_customer: Callable[..., Any]
) -> None:
    other = add_customer(stand.ledger, "other", 1_000_000)
    answer = stand.ask()
    name = answer.headers["x-request-id"]
    path = f"/api/v1/generation?id={name}"
    assert get(stand, path)["data"]["id"] == name
    told = get(stand, path, other, 404)
    unknown = get(stand, "/api/v1/generation?id=req_unknown", other, 404)
    assert told["code"] == unknown["code"] == "not_found"
    assert told["message"].replace(name, "") == unknown["message"].replace("req_unknown", "")
    since = int(time.time()) // DAY * DAY
    for path in (USAGE, COSTS):
        page = get(stand, f"{path}?start_time={since}&api_key_ids={stand.key.id}", other)
        assert all(bucket["results"] == [] for bucket in page["data"])
    assert get(stand, "/api/v1/credits", other)["data"]["total_usage"] == 0
    assert get(stand, "/api/v1/key", other)["data"]["usage"] == 0


def test_what_runs_or_was_voided_is_no_generation(make_stand: MakeStand) -> None:
    stand = make_stand(Script(fail_after=0))
    answer = stand.ask()
    get(stand, f"/api/v1/generation?id={answer.headers['x-request-id']}", status=404)


@pytest.mark.parametrize(
    ("path", "param"),
    [
        (USAGE, "start_time"),
        (f"{USAGE}?start_time=x", "start_time"),
        (f"{USAGE}?start_time=-1", "start_time"),
        (f"{USAGE}?start_time=1&start_time=2", "start_time"),
        (f"{USAGE}?start_time={LATEST + 1}", "start_time"),
        (f"{USAGE}?start_time=9&end_time=9", "end_time"),
        (f"{USAGE}?start_time=1&limit=32", "limit"),
        (f"{USAGE}?start_time=1&limit=0", "limit"),
        (f"{USAGE}?start_time=1&bucket_width=2d", "bucket_width"),
        (f"{USAGE}?start_time=1&group_by=project_id", "group_by"),
        (f"{USAGE}?start_time=1&group_by=colour", "group_by"),
        (f"{USAGE}?start_time=1&page=7", "page"),
        (f"{USAGE}?start_time=1&page=", "page"),
        (f"{USAGE}?start_time=1&models=x" + "&models=x" * 50, "models"),
        (f"{USAGE}?start_time=1&page=page_0", "page"),
        (f"{USAGE}?start_time=1&project_ids=x", "project_ids"),
        (f"{USAGE}?start_time=1&models=%00", "models"),
        (f"{USAGE}?start_time=1&models=%ff", "models"),
        (f"{COSTS}?start_time=1&bucket_width=1h", "bucket_width"),
        ("/api/v1/generation", "id"),
        ("/api/v1/credits?x=1", "x"),
    ],
)
def test_what_is_wrong_is_named(stand: Any, path: str, param: str) -> None:
    assert get(stand, path, status=400)["param"] == param


def test_openais_admin_client_reads_usage_and_costs(stand: Any) -> None:
    stand.ask()
    client = openai.OpenAI(
        base_url=f"{stand.url}/v1", api_key=stand.key.text, admin_api_key=stand.key.text
    )
    since = int(time.time()) // DAY * DAY
    usage = client.admin.organization.usage.completions(start_time=since, group_by=["model"])
    (result,) = [result for bucket in usage.data for result in bucket.results]
    assert getattr(result, "model", None) == "avocado-1"
    costs = client.admin.organization.usage.costs(start_time=since)
    assert costs.data[0].results
