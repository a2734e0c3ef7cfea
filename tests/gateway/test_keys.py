"""Keys: their form, what is stored of them, and who is let in, throttled or turned away."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.gateway import keys
from avocado.gateway.errors import ApiError
from avocado.gateway.keys import Caller, KeyRecord, Keyring, NewKey, Throttle, mint
from avocado.gateway.rates import Draw, Level, MemoryRates
from avocado.gateway.shelf import ShelfUnavailable

PEPPER = b"pepper" * 6


class Shelf:
    """Key records by id, and how often they were read."""

    def __init__(self, *minted: NewKey) -> None:
        self.records = {key.id: KeyRecord(key.id, "acme", key.digest) for key in minted}
        self.reads = 0
        self.now = 100.0

    async def lookup(self, key_id: str) -> KeyRecord | None:
        self.reads += 1
        return self.records.get(key_id)

    def ring(self, **options: object) -> Keyring:
        return Keyring(self.lookup, PEPPER, clock=lambda: self.now, **options)  # type: ignore[arg-type]


def identify(ring: Keyring, key: str | bytes | None, address: str = "a") -> Caller:
    header = None
    if key is not None:
        header = b"Bearer " + (key if isinstance(key, bytes) else key.encode())
    return asyncio.run(ring.identify(header, address))


def status(ring: Keyring, key: str | bytes | None, address: str = "a") -> int:
    try:
        identify(ring, key, address)
    except ApiError as error:
        return error.status
    return 200


def test_a_key_has_its_form_and_at_least_160_secret_bits() -> None:
    key = mint(PEPPER)
    assert re.fullmatch(rf"av_live_{key.id}_[0-9A-Za-z]{{36}}", key.text)
    assert keys.SECRET_LENGTH * math.log2(62) >= 160
    assert keys.key_id(key.text.encode()) == key.id
    assert len({mint(PEPPER).text for _ in range(100)}) == 100
    assert key.text not in repr(key)


def test_the_digest_depends_on_the_whole_key_and_the_pepper() -> None:
    key = mint(PEPPER)
    assert key.digest == keys.digest(key.text.encode(), PEPPER)
    assert key.digest != keys.digest(key.text.encode(), b"other")
    assert len(key.digest) == 64


def test_the_checksum_is_crc32_in_six_base62_digits() -> None:
    assert keys.checksum(b"") == "000000"
    assert keys.checksum(b"123456789") == _base62(0xCBF43926)  # the CRC-32 check value


def _base62(value: int) -> str:
    text = ""
    while value:
        value, digit = divmod(value, 62)
        text = keys.ALPHABET[digit] + text
    return text.rjust(6, "0")


@given(st.integers(0, keys.LENGTH - 1), st.characters(codec="ascii"))
def test_one_changed_character_is_noticed(place: int, other: str) -> None:
    text = "av_live_0123456789AB_" + "abcdefghij" * 3
    key = text + keys.checksum(text.encode())
    assert keys.key_id(key.encode()) == "0123456789AB"
    changed = key[:place] + other + key[place + 1 :]
    if changed != key:
        assert keys.key_id(changed.encode()) is None


def test_a_bad_checksum_costs_no_read() -> None:
    key = mint(PEPPER)
    shelf = Shelf(key)
    ring = shelf.ring()
    wrong = key.text[:-1] + ("0" if key.text[-1] != "0" else "1")
    for bad in (
        wrong,
        "sk-test",
        "",
        key.text[:-1],
        key.text + "0",
        None,
        b"\xff\xfe",
        "x" * 10**6,
    ):
        assert status(ring, bad) == 401
    assert shelf.reads == 0
    assert identify(ring, key.text) == Caller("acme", key.id)


def test_a_right_checksum_with_a_wrong_secret_is_refused() -> None:
    key, other = mint(PEPPER), mint(PEPPER)
    shelf = Shelf(key)
    shelf.records[other.id] = KeyRecord(other.id, "acme", key.digest)
    assert status(shelf.ring(), other.text) == 401
    unknown = mint(PEPPER)
    assert status(shelf.ring(), unknown.text) == 401


def test_fault_31_a_revoked_key_is_refused_within_a_second() -> None:
    key = mint(PEPPER)
    shelf = Shelf(key)
    ring = shelf.ring()
    assert status(ring, key.text) == 200
    shelf.records[key.id] = KeyRecord(key.id, "acme", key.digest, revoked=True)
    shelf.now += 0.99
    assert status(ring, key.text) == 200
    shelf.now += 0.01
    assert status(ring, key.text) == 401


def test_an_expired_key_is_refused() -> None:
    key = mint(PEPPER)
    shelf = Shelf(key)
    shelf.records[key.id] = KeyRecord(key.id, "acme", key.digest, expires=time.time_ns() - 1)
    assert status(shelf.ring(), key.text) == 401
    shelf.records[key.id] = KeyRecord(key.id, "acme", key.digest, expires=time.time_ns() + 10**12)
    assert status(shelf.ring(), key.text) == 200


def test_records_are_read_once_a_second() -> None:
    key = mint(PEPPER)
    shelf = Shelf(key)
    ring = shelf.ring()
    for _ in range(100):
        assert status(ring, key.text) == 200
    assert shelf.reads == 1


def test_failures_are_throttled_by_address_before_the_book_is_read() -> None:
    shelf = Shelf()
    ring = shelf.ring(throttle=Throttle(burst=3, seconds=30))
    statuses = [status(ring, mint(PEPPER).text) for _ in range(6)]
    assert statuses == [401, 401, 401, 429, 429, 429]
    assert shelf.reads == 3
    assert status(ring, mint(PEPPER).text, "another") == 401
    shelf.now += 10
    assert status(ring, mint(PEPPER).text) == 401
    with pytest.raises(ApiError) as caught:
        identify(ring, mint(PEPPER).text)
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 11


def test_failures_count_together_where_rates_are_shared() -> None:
    """Two processes: each refuses from its next failure on after it has heard of twenty."""
    shelf = Shelf()

    async def go() -> list[int]:
        shared = MemoryRates(lambda: int(shelf.now * 1e9))
        rings = [shelf.ring(shared=shared) for _ in range(2)]
        found = []
        for turn in range(40):
            try:
                await rings[turn % 2].identify(f"Bearer {mint(PEPPER).text}".encode(), "bot")
            except ApiError as error:
                found.append(error.status)
            await asyncio.sleep(0)  # what was told is heard
            await asyncio.sleep(0)
        return found

    found = asyncio.run(go())
    assert found[:20] == [401] * 20
    assert found.count(401) <= 21
    assert found[22:] == [429] * 18


def test_a_shelf_that_is_away_leaves_each_process_its_own_throttle() -> None:
    class Away(MemoryRates):
        async def draw(self, draws: Sequence[Draw]) -> list[Level]:
            raise ShelfUnavailable("away")

    async def go() -> list[int]:
        ring, found = Shelf().ring(shared=Away()), []
        for _ in range(25):
            try:
                await ring.identify(f"Bearer {mint(PEPPER).text}".encode(), "bot")
            except ApiError as error:
                found.append(error.status)
            await asyncio.sleep(0)
        return found

    assert asyncio.run(go()) == [401] * 20 + [429] * 5


def test_failures_are_throttled_by_key_id_over_all_addresses() -> None:
    key = mint(PEPPER)
    shelf = Shelf(key)
    ring = shelf.ring(throttle=Throttle(burst=3, seconds=30))
    body = f"av_live_{key.id}_" + "0" * keys.SECRET_LENGTH
    forged = body + keys.checksum(body.encode())
    assert status(ring, key.text, "home") == 200
    statuses = [status(ring, forged, f"bot-{n}") for n in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert status(ring, key.text, "home") == 200, "the owner is not locked out by forgers"
    assert status(ring, key.text, "elsewhere") == 429


def test_a_colleague_with_a_wrong_key_does_not_lock_out_a_right_one() -> None:
    key = mint(PEPPER)
    ring = Shelf(key).ring(throttle=Throttle(burst=2, seconds=30))
    assert status(ring, key.text, "office") == 200
    assert [status(ring, "wrong", "office") for _ in range(4)] == [401, 401, 429, 429]
    assert status(ring, key.text, "office") == 200


def test_the_throttle_forgets_the_oldest_names() -> None:
    throttle = Throttle(burst=1, seconds=1000, names=2)
    for name in ("a", "b", "c"):
        throttle.failed(name, 0.0)
    assert [throttle.wait(name, 0.0) > 0 for name in ("a", "b", "c")] == [False, True, True]


def test_a_key_that_was_right_is_refused_when_its_record_has_another_digest() -> None:
    key = mint(PEPPER)
    shelf = Shelf(key)
    ring = shelf.ring()
    assert status(ring, key.text) == 200
    shelf.records[key.id] = KeyRecord(key.id, "acme", mint(PEPPER).digest)
    shelf.now += 1
    assert status(ring, key.text) == 401
    shelf.records[key.id] = KeyRecord(key.id, "acme", key.digest)
    shelf.now += 1
    assert status(ring, key.text) == 200
