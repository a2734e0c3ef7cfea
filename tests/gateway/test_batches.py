"""Files and batches: what is refused, what runs, what is paid, and what a failure leaves.

Every stand proves its book when it closes, so a line that was charged twice cannot pass.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.engine.engine import Occupancy
from avocado.engine.scripted import Script
from avocado.gateway.batches import job, leftovers, stored_batches, stored_files
from avocado.gateway.batches.check import Checker
from avocado.gateway.batches.rows import CHUNK, UPLOADING, BatchLimits, BatchRow, FileRow
from avocado.gateway.batches.share import QUIET_SECONDS, Places, share
from avocado.gateway.batches.store import prepare
from avocado.gateway.batches.upload import Jsonl, boundary_of, take_form
from avocado.gateway.batches.wire import with_cost
from avocado.gateway.errors import ApiError
from avocado.gateway.shelf import SqliteDatabase, open_database
from avocado.gateway.swap import Floor
from avocado.ledger.errors import LedgerUnavailable
from avocado.ledger.operation import RevokeKey
from avocado.release.offer import Offer
from avocado.terms.money import Money
from avocado.terms.price import PriceSheet
from tests.gateway.conftest import DOLLAR, PRICE, RELEASE, MakeStand, Stand

HALF = PriceSheet(200_000_000, 800_000_000, batch=500_000)
CHAT: Any = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
QUICK = BatchLimits(tick=0.02)


def request(custom_id: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    body = {"model": "avocado-1", "messages": messages, "max_tokens": 20, **more}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def lines(*each: Any) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in each)


def upload(client: openai.OpenAI, content: bytes, name: str = "in.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="batch").id


def create(client: openai.OpenAI, content: bytes, endpoint: Any = CHAT) -> Any:
    return client.batches.create(
        input_file_id=upload(client, content), endpoint=endpoint, completion_window="24h"
    )


def wait(client: openai.OpenAI, batch: Any, seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while batch.status not in ENDED:
        assert time.monotonic() < end, batch
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def _counts(client: openai.OpenAI, batch: Any) -> Any:
    return client.batches.retrieve(batch.id).request_counts


def results(client: openai.OpenAI, file: str | None) -> list[dict[str, Any]]:
    assert file is not None
    text = client.files.content(file).text
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def stand(make_stand: MakeStand) -> Stand:
    return make_stand(price=HALF, batch_limits=QUICK)


# -- files -----------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was(stand: Stand) -> None:
    client = stand.client()
    content = lines(*(request(f"x{n}", "é" * 2000) for n in range(200)))
    assert len(content) > 2 * CHUNK
    file = client.files.create(
        file=("deep/in.JSONL", content),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert (file.filename, file.bytes) == ("in.JSONL", len(content))
    assert file.expires_at == file.created_at + 7200
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == content
    assert client.files.delete(file.id).deleted
    for act in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            act(file.id)


def test_files_are_paged(stand: Stand) -> None:
    client = stand.client()
    names = [upload(client, lines(request("x")), f"{n}.jsonl") for n in range(5)]
    page = client.files.list(limit=2)
    assert ([file.id for file in page.data], page.has_more) == (names[:2:-1], True)
    assert [file.id for file in client.files.list(limit=2)] == names[::-1]
    assert [file.id for file in client.files.list(limit=3, order="asc")] == names
    assert [file.id for file in client.files.list(purpose="batch_output")] == []
    with pytest.raises(openai.NotFoundError):
        client.files.list(after="file-nobody")
    with pytest.raises(openai.BadRequestError):
        client.files.list(limit=0)


@pytest.mark.parametrize(
    ("content", "name", "code", "said"),
    [
        (b'{"a": 1}\n{"a": \n', "in.jsonl", "invalid_json_line", "Line 2 "),
        (b'\n\n["a"]\n', "in.jsonl", "invalid_json_line", "Line 3 "),
        (b'{"a": "\xff"}', "in.jsonl", "invalid_json_line", "Line 1 "),
        (b"[" * 5000, "in.jsonl", "invalid_json_line", "Line 1 "),
        (b"\n \n", "in.jsonl", "empty_file", "empty"),
        (b"{}\n" * 50_001, "in.jsonl", "too_many_tasks", "50000"),
        (b'{"a": "' + b"x" * (4 * 1024 * 1024) + b'"}', "in.jsonl", "line_too_long", "Line 1 "),
        (b"{}", "in.txt", None, "Must be .jsonl"),
    ],
    ids=["json", "object", "utf-8", "deep", "empty", "lines", "long", "name"],
)
def test_what_can_be_no_batch_is_refused_when_it_is_sent(
    stand: Stand, content: bytes, name: str, code: str | None, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(stand.client(), content, name)
    assert caught.value.code == code
    assert caught.value.param == "file"
    assert said in str(caught.value)
    assert list(stand.client().files.list()) == []


def form(*parts: tuple[str, bytes]) -> bytes:
    told = b"".join(
        b'--b\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        % (name.encode(), b'; filename="a.jsonl"' if name == "file" else b"", value)
        for name, value in parts
    )
    return told + b"--b--\r\n"


GOOD = (("purpose", b"batch"), ("file", b"{}\n"))


@pytest.mark.parametrize(
    ("body", "kind", "status", "param"),
    [
        (form(*GOOD), "multipart/form-data; boundary=b", 200, None),
        (form(*reversed(GOOD)), "multipart/form-data; boundary=b", 200, None),
        (form(*GOOD), "application/json", 415, None),
        (form(*GOOD), "multipart/form-data", 415, None),
        (form(*GOOD)[:-9], "multipart/form-data; boundary=b", 400, None),
        (b"nonsense", "multipart/form-data; boundary=b", 400, None),
        (b"", "multipart/form-data; boundary=b", 400, None),
        (form(GOOD[0]), "multipart/form-data; boundary=b", 400, "file"),
        (form(GOOD[1]), "multipart/form-data; boundary=b", 400, "purpose"),
        (form(GOOD[1], *GOOD), "multipart/form-data; boundary=b", 400, "file"),
        (form(*GOOD, ("more", b"1")), "multipart/form-data; boundary=b", 400, "more"),
        (
            form(("purpose", b"fine-tune"), GOOD[1]),
            "multipart/form-data; boundary=b",
            400,
            "purpose",
        ),
        (
            form(*GOOD, ("expires_after[seconds]", b"9999")),
            "multipart/form-data; boundary=b",
            400,
            "expires_after[anchor]",
        ),
        (form(("purpose", b"x" * 5000)), "multipart/form-data; boundary=b", 400, "purpose"),
        (b"--b\r\n" + b"a: b\r\n" * 5000, "multipart/form-data; boundary=b", 400, None),
    ],
)
def test_forms(stand: Stand, body: bytes, kind: str, status: int, param: str | None) -> None:
    answer = stand.call("POST", "/v1/files", body, {"Content-Type": kind})
    assert answer.status == status, answer.body
    if status != 200:
        assert answer.error["param"] == param


def test_too_much_is_refused(make_stand: MakeStand) -> None:
    stand = make_stand(batch_limits=BatchLimits(file_bytes=2 * CHUNK, customer_bytes=3 * CHUNK))
    client = stand.client()
    with pytest.raises(openai.APIStatusError) as caught:
        upload(client, lines(request("x", "y" * 1000)) * 1000)
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    first = upload(client, lines(request("x", "y" * 1000)) * 400)
    with pytest.raises(openai.APIStatusError) as caught:
        upload(client, lines(request("x", "y" * 1000)) * 400)
    assert (caught.value.status_code, caught.value.code) == (413, "storage_quota_exceeded")
    client.files.delete(first)
    upload(client, lines(request("x", "y" * 1000)) * 400)


def test_files_expire_and_their_space_is_free(make_stand: MakeStand) -> None:
    stand = make_stand(Script("a b", delay=0.3), batch_limits=QUICK)
    client = stand.client()
    file = upload(client, lines(request("x")))
    read = create(client, lines(request("x")))
    assert stand.call("GET", f"/v1/files/{file}").status == 200
    database = open_database(stand.folder / "files.sqlite")
    database.run("UPDATE gateway_file SET expires = 1")
    assert stand.call("GET", f"/v1/files/{file}").status == 404
    assert list(client.files.list()) == []
    with database.transaction():
        assert leftovers.tidy(database, int(time.time()), 0) is False
    kept = database.run("SELECT file FROM gateway_chunk")
    assert kept == [(read.input_file_id,)], "a batch still reads it"
    batch = wait(client, read)
    assert (batch.status, batch.request_counts.completed) == ("completed", 1)
    for _ in range(2):
        leftovers.tidy(database, 2**40, 0)
    for table in ("chunk", "file", "line"):
        assert database.run(f"SELECT * FROM gateway_{table}") == []
    database.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 50))
def test_a_form_is_the_same_however_it_arrives(pieces: list[bytes], size: int) -> None:
    content = b"".join(pieces)
    whole = form(("purpose", b"batch"), ("file", content))
    found: list[bytes] = []

    async def write(place: int, chunk: bytes) -> None:
        found.append(chunk)

    async def arrive() -> Any:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    boundary = boundary_of(b"multipart/form-data; boundary=b")
    reading = take_form(arrive(), boundary, 10**6, write)
    with pytest.raises(StopIteration) as done:
        reading.send(None)
    assert b"".join(found) == content
    assert done.value.value.fields == {"purpose": "batch"}


LINES = st.lists(
    st.sampled_from([b"", b"{}", b"[1]", b'{"a": 1}', b"nonsense", b'{"custom_id": "\xff"}'])
)


@settings(max_examples=100, deadline=None)
@given(LINES, st.integers(1, 20))
def test_lines_are_the_same_however_they_arrive(given_lines: list[bytes], size: int) -> None:
    content = b"\n".join(given_lines)
    told = []
    for step in (size, len(content) + 1):
        checked = Jsonl(3, 100)
        try:
            for start in range(0, len(content), step):
                checked.feed(content[start : start + step])
            checked.end()
            told.append(str(checked.requests))
        except ApiError as error:
            told.append(error.message)
    assert told[0] == told[1]


# -- batches that are not begun --------------------------------------------------------------------

BAD: list[tuple[str, Any, str, str | None]] = [
    ("no id", {k: v for k, v in request("bad-1").items() if k != "custom_id"},
     "missing_required_parameter", "custom_id"),
    ("id", request("bad-2") | {"custom_id": 7}, "invalid_custom_id", "custom_id"),
    ("twice", request("good"), "duplicate_custom_id", "custom_id"),
    ("method", request("bad-3") | {"method": "GET"}, "invalid_method", "method"),
    ("url", request("bad-4") | {"url": "/v1/embeddings"}, "url_mismatch", "url"),
    ("body", request("bad-5") | {"body": "text"}, "invalid_body", "body"),
    ("no model", request("bad-6", model=None), "missing_required_parameter", "body.model"),
    ("model", request("bad-7", model="gpt-4o"), "model_not_found", "body.model"),
    ("stream", request("bad-8", stream=True), "unsupported_parameter", "body.stream"),
    ("more", request("bad-9") | {"priority": 1}, "unknown_parameter", "priority"),
]  # fmt: skip


def test_a_batch_with_bad_lines_fails_and_names_each(stand: Stand) -> None:
    client = stand.client()
    batch = wait(client, create(client, lines(request("good"), *(bad for _, bad, _, _ in BAD))))
    assert batch.status == "failed"
    assert batch.failed_at
    told = [(error.line, error.code, error.param) for error in batch.errors.data]
    assert told == [(place, code, param) for place, (_, _, code, param) in enumerate(BAD, 2)]
    assert batch.output_file_id is batch.error_file_id is None
    assert stand.charges == []


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"input_file_id": "file-nobody"}, 404, "input_file_id"),
        ({"endpoint": "/v1/messages"}, 400, "endpoint"),
        ({"completion_window": "1h"}, 400, "completion_window"),
        ({"metadata": {"a": "x" * 513}}, 400, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400,
         "output_expires_after.seconds"),
        ({"priority": "high"}, 400, "priority"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_batch(
    stand: Stand, more: dict[str, Any], status: int, param: str
) -> None:
    file = upload(stand.client(), lines(request("x")))
    given = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    answer = stand.call("POST", "/v1/batches", given | more)
    assert (answer.status, answer.error["param"]) == (status, param), answer.body


def test_fault_32_files_and_batches_of_others_are_not_there(
    stand: Stand, add_customer: Callable[..., Any]
) -> None:
    client = stand.client()
    batch = wait(client, create(client, lines(request("x"))))
    other = stand.client(add_customer(stand.ledger, "other", DOLLAR).text)
    mine: Any
    for mine in (batch.input_file_id, batch.output_file_id):
        acts: Any = (other.files.retrieve, other.files.content, other.files.delete)
        for act in acts:
            with pytest.raises(openai.NotFoundError) as caught:
                act(mine)
            with pytest.raises(openai.NotFoundError) as nobody:
                act("file-nobody")
            same = str(caught.value).replace(mine, "file-nobody")
            assert same == str(nobody.value), "word for word like what does not exist"
    for ask in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            ask(batch.id)
    with pytest.raises(openai.NotFoundError):
        other.batches.create(
            input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
        )
    assert not list(other.files.list())
    assert not list(other.batches.list())
    with pytest.raises(openai.NotFoundError):
        other.files.list(after=batch.input_file_id)
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_an_input_stays_while_its_batch_runs(make_stand: MakeStand) -> None:
    stand = make_stand(Script("a b", delay=0.2), batch_limits=QUICK)
    client = stand.client()
    batch = create(client, lines(request("x")))
    with pytest.raises(openai.ConflictError, match=batch.id):
        client.files.delete(batch.input_file_id)
    batch = wait(client, batch)
    assert client.files.delete(batch.input_file_id).deleted
    with pytest.raises(openai.ConflictError, match="completed"):
        client.batches.cancel(batch.id)


def test_the_same_idempotency_key_is_one_batch(stand: Stand) -> None:
    client = stand.client()
    file = upload(client, lines(request("x")))
    made = [
        client.batches.create(
            input_file_id=file,
            endpoint=CHAT,
            completion_window="24h",
            extra_headers={"Idempotency-Key": "night-1"},
        ).id
        for _ in range(3)
    ]
    assert len(set(made)) == 1
    wait(client, client.batches.retrieve(made[0]))
    assert len(stand.charges) == 1


# -- what a batch costs and answers ----------------------------------------------------------------


def test_lines_are_answered_and_paid_at_the_price_of_a_batch(stand: Stand) -> None:
    client = stand.client()
    asked = [request(f"x{n}") for n in range(30)]
    asked[7]["body"]["temperature"] = 9
    batch = wait(client, create(client, lines(*asked)))
    assert (batch.status, batch.model) == ("completed", "avocado-1")
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (30, 29, 1)
    good = results(client, batch.output_file_id)
    assert [line["custom_id"] for line in good] == [f"x{n}" for n in range(30) if n != 7]
    charges = {charge.request: charge for charge in stand.charges}
    assert len(charges) == 29
    for line in good:
        response = line["response"]
        charge = charges[response["request_id"]]
        body = response["body"]
        assert (response["status_code"], line["error"]) == (200, None)
        assert body["choices"][0]["message"]["content"] == "one two three four five"
        assert round(body["usage"]["cost"] * 10**9) == charge.charge
        assert charge.charge == HALF.charge(charge.usage, batch=True).nanos
        assert charge.charge < HALF.charge(charge.usage).nanos
    used = [charge.usage for charge in charges.values()]
    assert batch.usage.input_tokens == sum(each.prompt for each in used)
    assert batch.usage.output_tokens == sum(each.completion for each in used)
    (bad,) = results(client, batch.error_file_id)
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("x7", 400)
    assert bad["response"]["body"]["error"]["param"] == "temperature"
    assert {each["id"][:10] for each in good} == {"batch_req_"}
    times = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("endpoint", "body", "pick"),
    [
        ("/v1/completions", {"prompt": "say it"}, lambda body: body["choices"][0]["text"]),
        ("/v1/responses", {"input": "say it"}, lambda b: b["output"][0]["content"][0]["text"]),
    ],
)
def test_other_endpoints(stand: Stand, endpoint: str, body: Any, pick: Any) -> None:
    client = stand.client()
    line = {
        "custom_id": "x",
        "method": "POST",
        "url": endpoint,
        "body": {"model": "avocado-1", **body},
    }
    batch = wait(client, create(client, lines(line), endpoint))
    (done,) = results(client, batch.output_file_id)
    answer = done["response"]["body"]
    assert pick(answer) == "one two three four five"
    assert round(answer["usage"]["cost"] * 10**9) == stand.charges[0].charge


def test_embeddings_of_a_model_of_text_are_errors_of_their_lines(stand: Stand) -> None:
    client = stand.client()
    body = {"model": "avocado-1", "input": "x"}
    line = {"custom_id": "x", "method": "POST", "url": "/v1/embeddings", "body": body}
    batch = wait(client, create(client, lines(line), "/v1/embeddings"))
    assert (batch.status, batch.output_file_id) == ("completed", None)
    (bad,) = results(client, batch.error_file_id)
    assert bad["response"]["body"]["error"]["param"] == "model"


def test_money_that_ends_fails_the_lines_that_it_does_not_cover(make_stand: MakeStand) -> None:
    one = PRICE.charge(PRICE_USAGE := _usage_of_a_line()).nanos
    most = PRICE.ceiling(PRICE_USAGE.prompt, 20).nanos
    stand = make_stand(credit=9 * one + most, batch_limits=QUICK)
    client = stand.client()
    batch = wait(client, create(client, lines(*(request(f"x{n}") for n in range(14)))))
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (10, 4)
    for bad in results(client, batch.error_file_id):
        error = bad["response"]["body"]["error"]
        assert bad["response"]["status_code"] == 402
        assert (error["type"], error["code"]) == ("insufficient_quota", "credit_balance_exhausted")
    assert len(stand.charges) == 10
    assert stand.balance.available == most - one


def _usage_of_a_line() -> Any:
    from avocado.engine.scripted import ScriptedEngine
    from avocado.terms.usage import Usage

    prompt = ScriptedEngine().prepare_text("user: hi\n")
    return Usage(len(prompt.ids), 6)


def test_a_revoked_key_pays_for_nothing_more(make_stand: MakeStand) -> None:
    stand = make_stand(Script("a b", delay=0.15), batch_limits=BatchLimits(running=2, tick=0.02))
    client = stand.client()
    looking = stand.client(_second_key(stand))
    batch = create(client, lines(*(request(f"x{n}") for n in range(12))))
    stand.until(lambda: _counts(looking, batch).completed > 0)
    stand.ledger.do_now(RevokeKey(key_id=stand.key.id))
    batch = wait(looking, batch)
    paid = len(stand.charges)
    assert batch.status == "completed"
    assert 0 < paid < 12
    assert (batch.request_counts.completed, batch.request_counts.failed) == (paid, 12 - paid)
    statuses = {bad["response"]["status_code"] for bad in results(looking, batch.error_file_id)}
    assert statuses == {401}


def _second_key(stand: Stand) -> str:
    from avocado.gateway.keys import mint
    from avocado.ledger.operation import AddKey
    from tests.gateway.conftest import PEPPER

    key = mint(PEPPER)
    stand.ledger.do_now(
        AddKey(key_id=key.id, tenant="acme", name="second", digest=key.digest, created=1)
    )
    return key.text


def test_an_engine_that_fails_is_tried_three_times(make_stand: MakeStand) -> None:
    seen: Counter[str] = Counter()

    def script(prompt: Any, _: Any) -> Script:
        seen[prompt.text] += 1
        return Script("a b", fail_after=1 if "bad" in prompt.text or seen.total() < 3 else None)

    stand = make_stand(batch_limits=QUICK)
    stand.engine.script = script
    client = stand.client()
    batch = wait(client, create(client, lines(request("x"), request("y", "bad"))))
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    (bad,) = results(client, batch.error_file_id)
    assert bad["custom_id"] == "y"
    assert bad["response"]["body"]["error"]["code"] == "engine_error"
    assert len(stand.charges) == 1


# -- cancelled, expired ----------------------------------------------------------------------------


def test_a_cancelled_batch_keeps_what_was_paid(make_stand: MakeStand) -> None:
    stand = make_stand(Script("a b", delay=0.05), batch_limits=BatchLimits(running=2, tick=0.02))
    client = stand.client()
    batch = create(client, lines(*(request(f"x{n}") for n in range(50))))
    stand.until(lambda: _counts(client, batch).completed > 1)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = wait(client, batch)
    assert batch.status == "cancelled"
    assert batch.cancelling_at <= batch.cancelled_at
    done = results(client, batch.output_file_id)
    assert len(done) == batch.request_counts.completed == len(stand.charges) < 50
    assert batch.error_file_id is None


def test_a_batch_that_is_late_expires_with_what_it_has(make_stand: MakeStand) -> None:
    limits = BatchLimits(window=2, running=2, tick=0.02)
    stand = make_stand(Script("a b", delay=0.1), batch_limits=limits)
    client = stand.client()
    batch = wait(client, create(client, lines(*(request(f"x{n}") for n in range(60)))))
    assert batch.status == "expired"
    assert batch.expired_at >= batch.expires_at
    good, bad = (results(client, each) for each in (batch.output_file_id, batch.error_file_id))
    assert len(good) == len(stand.charges) == batch.request_counts.completed
    assert len(good) + len(bad) == 60
    assert {line["error"]["code"] for line in bad} == {"batch_expired"}
    assert {line["response"] for line in bad} == {None}


# -- what fails while it runs ----------------------------------------------------------------------


class FullDisk(SqliteDatabase):
    """A database on a disk that can be full."""

    pages: int | None = None

    def _connect(self) -> Any:
        db = super()._connect()
        if self.pages is not None:
            db.execute(f"PRAGMA max_page_count = {self.pages}")
        return db


def test_a_full_disk_pauses_a_batch_and_nothing_is_lost(
    make_stand: MakeStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.gateway import conftest

    disks: list[FullDisk] = []
    before = open_database

    def open_one(target: Any, durable: bool = True) -> Any:
        if not str(target).endswith("files.sqlite"):
            return before(target, durable)
        disks.append(FullDisk(str(target), durable))
        return disks[-1]

    monkeypatch.setattr(conftest, "open_database", open_one)
    monkeypatch.setattr(job, "PAUSE_SECONDS", (0.05, 0.2))
    long = " ".join(["word"] * 300)
    stand = make_stand(Script(long), credit=10**12, batch_limits=BatchLimits(running=4, tick=0.02))
    client = stand.client()
    file = upload(client, lines(*(request(f"x{n}", max_tokens=400) for n in range(100))))
    disk = disks[0]  # the one that writes
    disk.pages = 60  # of 4 KiB; the answers take more
    disk._db.execute("PRAGMA max_page_count = 60")
    batch = client.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")
    stand.until(lambda: _paused(stand, batch.id))
    assert "full" in _paused(stand, batch.id) or "stored" in _paused(stand, batch.id)
    paid = len(stand.charges)
    assert 0 < paid < 100
    with pytest.raises(openai.InternalServerError) as caught:
        upload(client, lines(request("x", "y" * 300_000)))
    assert (caught.value.status_code, caught.value.code) == (503, "storage_unavailable")
    disk.pages = None
    disk._db.execute("PRAGMA max_page_count = 4294967294")
    batch = wait(client, batch, 40)
    assert (batch.status, batch.request_counts.completed) == ("completed", 100)
    told = {line["response"]["request_id"] for line in results(client, batch.output_file_id)}
    assert told == {charge.request for charge in stand.charges}
    assert len(told) == 100


def _paused(stand: Stand, batch: str) -> str:
    return str(stand.call("GET", f"/v1/batches/{batch}").json["paused"] or "")


@pytest.mark.parametrize("verb", ["hold", "settle"])
def test_a_ledger_that_is_away_only_delays_a_batch(make_stand: MakeStand, verb: str) -> None:
    stand = make_stand(batch_limits=QUICK)
    client = stand.client()
    stand.book.broken[verb] = LedgerUnavailable("away")
    batch = create(client, lines(*(request(f"x{n}") for n in range(10))))
    stand.until(lambda: _paused(stand, batch.id) or verb == "settle")
    time.sleep(0.3)
    assert _counts(client, batch).completed == 0
    stand.book.broken.clear()
    batch = wait(client, batch)
    assert batch.request_counts.completed == len(stand.charges) == 10


def test_an_answer_whose_settlement_was_not_heard_of_is_not_lost(make_stand: MakeStand) -> None:
    """The ledger commits, and its reply does not arrive: the line has its answer all the same."""
    stand = make_stand(batch_limits=QUICK)
    settle = stand.book.settle
    deaf = [3]

    async def settle_unheard(*given: Any) -> Any:
        settled = await settle(*given)
        if deaf[0]:
            deaf[0] -= 1
            raise LedgerUnavailable("the reply was lost")
        return settled

    stand.book.settle = settle_unheard  # type: ignore[method-assign, assignment]
    client = stand.client()
    batch = wait(client, create(client, lines(*(request(f"x{n}") for n in range(6)))))
    assert (batch.status, batch.request_counts.completed) == ("completed", 6)
    charges = {charge.request: charge.charge for charge in stand.charges}
    told = {
        line["response"]["request_id"]: round(line["response"]["body"]["usage"]["cost"] * 10**9)
        for line in results(client, batch.output_file_id)
    }
    assert told == charges


# -- pure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("occupancy", "own", "others", "quiet", "allowed"),
    [
        (Occupancy(0, capacity=32), 0, 0, True, 16),
        (Occupancy(0, capacity=32), 0, 0, False, 1),
        (Occupancy(3, capacity=32), 1, 2, False, 1),
        (Occupancy(9, capacity=32), 1, 8, False, 2),
        (Occupancy(15, capacity=32), 1, 14, False, 2),
        (Occupancy(20, capacity=32), 4, 16, False, 0),
        (Occupancy(20, 1, 32), 4, 1, False, 0),
        (Occupancy(0, capacity=0), 0, 0, True, 8),
        (Occupancy(0, capacity=1), 0, 0, True, 1),
        (Occupancy(1, capacity=1), 0, 1, False, 0),
        (Occupancy(0, capacity=10**6), 0, 0, True, 64),
        (Occupancy(40, capacity=10**6), 0, 40, False, 10),
        (Occupancy(63, capacity=10**6), 0, 63, False, 1),
    ],
)
def test_how_much_of_an_engine_batches_get(
    occupancy: Occupancy, own: int, others: int, quiet: bool, allowed: int
) -> None:
    assert share(occupancy, own, others, quiet, 64) == allowed


@given(*[st.integers(0, 100)] * 5, st.booleans())
def test_batches_never_get_more_than_half(
    running: int, waiting: int, capacity: int, own: int, others: int, quiet: bool
) -> None:
    got = share(Occupancy(running, waiting, capacity), own, others, quiet, 64)
    assert 0 <= got <= max(1, (capacity or 16) // 2)
    if others >= max(1, (capacity or 16) // 2):
        assert got == 0


def test_a_place_is_given_again_when_it_is_quiet(stand: Stand) -> None:
    now = [0.0]
    offer = Offer("avocado-1", RELEASE, PRICE, 1)
    floor = Floor({"avocado-1": offer}, {RELEASE: stand.engine})
    places = Places(floor, 4, lambda: now[0])
    acme = (RELEASE, "acme")
    assert [places.take("avocado-1", "acme") for _ in range(5)] == [acme] * 4 + [None]
    places.give_back(acme)
    places.noticed(RELEASE)
    floor.serving[RELEASE] = 3
    assert places.take("avocado-1", "acme") is None, "somebody was served a moment ago"
    now[0] += QUIET_SECONDS
    assert places.take("avocado-1", "acme") == acme


def test_customers_get_the_same_number_of_places(stand: Stand) -> None:
    offer = Offer("avocado-1", RELEASE, PRICE, 1)
    floor = Floor({"avocado-1": offer}, {RELEASE: stand.engine})
    places = Places(floor, 8, lambda: 0.0)
    for _ in range(8):
        assert places.take("avocado-1", "first")
        floor.serving[RELEASE] += 1
    assert places.take("avocado-1", "second") is None
    for _ in range(4):  # each time a line of the first ends, the first asks before the second
        places.give_back((RELEASE, "first"))
        floor.serving[RELEASE] -= 1
        assert places.take("avocado-1", "first") is None
        assert places.take("avocado-1", "second")
        floor.serving[RELEASE] += 1
    assert places.take("avocado-9", "third") is None, "eight are running"


def test_of_one_customer_few_batches_are_taken_at_once(tmp_path: Path) -> None:
    database = open_database(tmp_path / "files.sqlite")
    prepare(database)
    for number, tenant in enumerate(["many"] * 9 + ["few"], 1):
        row = BatchRow(f"b{number}", tenant, "k", CHAT, "f", "in_progress", number, 1, 2, 3)
        stored_batches.add_batch(database, row)
    taken = stored_batches.claim(database, "one", 10, 5, 2)
    assert [row.id for row in taken] == ["b1", "b10", "b2"]
    assert stored_batches.claim(database, "two", 10, 5, 2) == []
    stored_batches.release(database, "one")
    again = stored_batches.claim(database, "two", 10, 5, 2)
    assert [(row.id, row.epoch) for row in again] == [("b1", 2), ("b10", 2), ("b2", 2)]
    database.close()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.booleans())
def test_each_line_is_found_where_it_was(size: int, ends: bool) -> None:
    content = lines(*(request(f"x{n}", "é" * n) for n in range(20)))
    content = content if ends else content[:-1]
    checker = Checker("b", CHAT, ("avocado-1",), BatchLimits())
    rows = []
    for start in range(0, len(content), size):
        rows += checker.feed(content[start : start + size])
    rows += checker.end()
    assert checker.errors == []
    assert [row.line for row in rows] == list(range(1, 21))
    for number, row in enumerate(rows):
        line = json.loads(content[row.start : row.start + row.size])
        assert line["custom_id"] == row.custom_id == f"x{number}"


def test_a_cost_is_put_in_where_it_belongs() -> None:
    before = b'{"id":"x","usage":{"total_tokens":3,"cost":0,"cost_currency":"USD"},"z":[1.50]}'
    after = with_cost(before, Money(1_234_567_891, "EUR"))
    assert after == (
        b'{"id":"x","usage":{"total_tokens":3,"cost":1.234567891,"cost_currency":"EUR"},"z":[1.50]}'
    )


def test_contents_are_read_across_chunks(tmp_path: Path) -> None:
    database = open_database(tmp_path / "files.sqlite")
    prepare(database)
    content = os.urandom(2 * CHUNK + 1000)
    stored_files.add_file(database, FileRow("f", "t", "batch", "", 0, 1, 1, 2**40, UPLOADING))
    for place in range(3):
        piece = content[place * CHUNK : (place + 1) * CHUNK]
        assert stored_files.append(database, "f", place, piece)
    for start, size in ((0, 10), (CHUNK - 5, 10), (CHUNK, CHUNK), (5, 10**7), (10**7, 5)):
        assert stored_files.read(database, "f", start, size) == content[start : start + size]
    stored_files.finish_file(database, "f", "batch", "n", 2**40)
    assert not stored_files.append(database, "f", 3, b"more")
    database.close()


# -- the operator ----------------------------------------------------------------------------------


def test_the_operator_lists_shows_and_cancels(
    make_stand: MakeStand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from avocado.cli.main import run
    from avocado.workspace import Workspace

    def said(*words: str) -> Any:
        code = run([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    workspace = Workspace.create(tmp_path / "shop")
    monkeypatch.chdir(workspace.folder)
    assert said("batches", "list") == (0, [])
    stand = make_stand(Script("a b", delay=0.1), batch_limits=BatchLimits(running=1, tick=0.02))
    (workspace.state / "files.sqlite").symlink_to(stand.folder / "files.sqlite")
    client = stand.client()
    batch = create(client, lines(*(request(f"x{n}") for n in range(30))))
    stand.until(lambda: _counts(client, batch).completed > 0)
    code, found = said("batches", "list", "--customer", "acme")
    assert (code, [each["id"] for each in found]) == (0, [batch.id])
    assert said("batches", "list", "--customer", "nobody") == (0, [])
    code, one = said("batches", "show", batch.id[:12])
    assert (code, one["customer"], one["request_counts"]["total"]) == (0, "acme", 30)
    assert run(["batches", "list"]) == run(["batches", "show", batch.id]) == 0
    assert "30 lines" in capsys.readouterr().out
    code, ended = said("batches", "cancel", batch.id)
    assert (code, ended["status"]) == (0, "cancelling")
    assert wait(client, batch).status == "cancelled"
    assert said("batches", "cancel", batch.id)[0] == said("batches", "show", "batch_no")[0] == 1
