"""Scopes, models, an earlier end, and whose word for an address is believed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avocado.gateway.access import Policy, change, complete, read
from avocado.gateway.exchange import Exchange
from avocado.gateway.keys import KeyRecord
from avocado.gateway.proxies import Proxies
from avocado.gateway.shelf import open_database

MakeStand = Callable[..., Any]


def test_a_policy_keeps_what_is_not_changed(tmp_path: Path) -> None:
    database = open_database(tmp_path / "shelf.sqlite")
    change(database, "key:a", "ann", models=("m",), requests_per_minute=3)
    change(database, "key:a", "ann", requests_per_minute=None, scopes=("read",))
    database.close()
    database = open_database(tmp_path / "shelf.sqlite")
    assert read(database, ["key:a", "key:b"]) == {"key:a": Policy(models=("m",), scopes=("read",))}
    database.close()


def test_the_earlier_end_counts() -> None:
    record = KeyRecord("k", "acme", "d", expires=100)
    assert complete(record, Policy(until=50), Policy(), Policy()).expires == 50
    assert complete(record, Policy(until=150), Policy(), Policy()).expires == 100
    assert complete(record, Policy(), Policy(), Policy()).expires == 100


def test_a_key_asks_only_for_its_models(stand: Any) -> None:
    stand.policy(f"key:{stand.key.id}", models=("another",))
    answer = stand.ask()
    assert (answer.status, answer.error["code"]) == (403, "model_not_allowed")
    assert answer.error["param"] == "model"
    assert stand.call("GET", "/v1/models").json["data"] == []
    assert stand.call("GET", "/v1/models/avocado-1").status == 404
    assert stand.charges == []


def test_an_unknown_model_stays_a_404(stand: Any) -> None:
    stand.policy(f"key:{stand.key.id}", models=("another",))
    assert stand.ask(model="nobody").status == 404


@pytest.mark.parametrize(
    ("scopes", "asks", "reads"),
    [(("read",), 403, 200), (("inference",), 200, 403), (("inference", "read"), 200, 200)],
)
def test_scopes(stand: Any, scopes: tuple[str, ...], asks: int, reads: int) -> None:
    stand.policy(f"key:{stand.key.id}", scopes=scopes)
    assert stand.ask().status == asks
    assert stand.call("GET", "/v1/models").status == reads


def test_a_rotated_key_works_until_its_end_and_not_after(stand: Any) -> None:
    stand.policy(f"key:{stand.key.id}", until=time.time_ns() + 1_500_000_000)
    assert stand.ask().status == 200
    time.sleep(1.6)
    assert stand.ask().status == 401


# -- proxies ---------------------------------------------------------------------------------------


def client(peer: str, forwarded: str | None, *networks: str) -> str:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded is not None else []
    scope = {"method": "GET", "path": "/", "headers": headers, "client": (peer, 1)}

    async def unused(*_: Any) -> Any:
        raise AssertionError

    return Proxies(networks).client(Exchange(scope, unused, unused))


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("10.0.0.9", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.9", "1.1.1.1, 203.0.113.7", "203.0.113.7"),  # the client's own word comes first
        ("10.0.0.9", "203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("198.51.100.1", "203.0.113.7", "198.51.100.1"),  # a stranger's word
        ("10.0.0.9", None, "10.0.0.9"),
        ("10.0.0.9", "", "10.0.0.9"),
        ("10.0.0.9", "unknown", "10.0.0.9"),
        ("10.0.0.9", "203.0.113.7:4711", "203.0.113.7"),
        ("10.0.0.9", "[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:10.0.0.9", "203.0.113.7", "203.0.113.7"),
    ],
)
def test_the_client_s_address(peer: str, forwarded: str | None, found: str) -> None:
    assert client(peer, forwarded, "10.0.0.0/8") == found


def test_behind_a_trusted_proxy_one_client_s_mistakes_do_not_lock_out_another(
    make_stand: MakeStand,
) -> None:
    stand = make_stand(proxies=["127.0.0.1"])

    def tries(address: str, key: str) -> int:
        headers = {"X-Forwarded-For": address, "Authorization": f"Bearer {key}"}
        return int(stand.call("GET", "/v1/models", headers=headers).status)

    assert [tries("203.0.113.1", "wrong") for _ in range(40)][-1] == 429
    assert tries("203.0.113.1", stand.key.text) == 429
    assert tries("203.0.113.2", stand.key.text) == 200


def test_without_trusted_proxies_the_header_is_nobody_s_word(stand: Any) -> None:
    statuses = [
        stand.call(
            "GET",
            "/v1/models",
            headers={"X-Forwarded-For": f"203.0.113.{n}", "Authorization": "Bearer wrong"},
        ).status
        for n in range(40)
    ]
    assert statuses[-1] == 429
