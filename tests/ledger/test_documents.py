"""Documents: revisions that follow one another, numbers without a gap, content as it was given."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avocado.ledger import operation as o
from avocado.ledger.documents import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ledger.conftest import Desk, Server

DEEP: dict[str, Any] = {}
for _ in range(70):
    DEEP = {"deeper": DEEP}


def file(id_: str = "plan/pro/1", content: dict[str, Any] | None = None, **changes: Any) -> o.File:
    terms: dict[str, Any] = {"kind": "plan", "actor": "ops"}
    return o.File(id=id_, content=content or {"fee": 10}, **(terms | changes))


def numbered(number: int, **changes: Any) -> o.File:
    return file(f"invoice/{number}", {"total": number}, kind="invoice", series="AV", **changes)


def test_a_document_is_found_as_it_was_filed(desk: Desk) -> None:
    desk.setup()
    content = {"name": "Zoë 東京 🥑", "lines": [{"net": -5, "open": None, "paid": True}], "": []}
    filed = desk.do(file("profile/acme", content, kind="profile", tenant="acme"))
    assert (filed.id, filed.revision, filed.number, filed.replayed) == (
        "profile/acme",
        1,
        None,
        False,
    )
    with desk.reader as reader:
        found = reader.document("profile/acme")
        assert found is not None
        assert found.content == content
        assert list(found.content) == list(content)
        assert (found.kind, found.tenant, found.revision, found.actor) == (
            "profile",
            "acme",
            1,
            "ops",
        )
        assert (found.seq, found.at) == (filed.seq, desk.clock.now())
        assert reader.document("profile/globex") is None
        assert reader.document_history("profile/globex") == []
    assert desk.broken() == []


def test_revisions_replace_one_another_and_all_are_kept(desk: Desk) -> None:
    first = desk.do(file(content={"fee": 10}))
    second = desk.do(file(content={"fee": 12}, revision=2, actor="anna"))
    assert (second.revision, second.replayed) == (2, False)
    again = desk.do(file(content={"fee": 10}, actor="somebody else"))
    assert (again.seq, again.revision, again.replayed) == (first.seq, 1, True)
    assert desk.do(file(content={"fee": 12}, revision=2)).replayed
    with desk.reader as reader:
        newest = reader.document("plan/pro/1")
        history = reader.document_history("plan/pro/1")
    assert newest == history[-1]
    assert [(each.revision, each.content["fee"], each.actor) for each in history] == [
        (1, 10, "ops"),
        (2, 12, "anna"),
    ]
    assert desk.broken() == []


@pytest.mark.parametrize(
    ("changes", "revision", "differs"),
    [
        ({"content": {"fee": 9}}, 1, ["content.fee"]),
        ({"content": {"fee": 10, "more": 1}}, 1, ["content.more"]),
        ({"kind": "coupon"}, 1, ["kind"]),
        ({"tenant": "acme"}, 1, ["tenant"]),
        ({"series": "AV"}, 1, ["series"]),
        ({"revision": 3}, 1, ["revision"]),
        ({"revision": 2, "kind": "coupon"}, 1, ["kind"]),
        ({"id": "other", "revision": 2}, 0, ["revision"]),
        ({"revision": 0}, 1, ["revision"]),
    ],
)
def test_a_conflict_says_what_is_on_record(
    file_desk: Desk, changes: dict[str, Any], revision: int, differs: list[str]
) -> None:
    file_desk.setup()
    file_desk.do(file())
    terms = {"id_": changes.pop("id", "plan/pro/1")} | changes
    refusal = file_desk.refused(file(**terms))
    assert refusal.code == "document_conflict"
    fields = {"id": terms["id_"], "revision": revision, "differs": differs}
    assert refusal.fields() == fields
    assert file_desk.broken() == []


def test_an_older_revision_with_another_content_is_a_conflict(desk: Desk) -> None:
    desk.do(file(content={"fee": 10}))
    desk.do(file(content={"fee": 12}, revision=2))
    refusal = desk.refused(file(content={"fee": 12}))
    assert refusal.fields()["differs"] == ["an older revision's content"]


def test_numbers_of_a_series_have_no_gap(desk: Desk) -> None:
    assert [desk.do(numbered(number)).number for number in range(3)] == [1, 2, 3]
    assert desk.refused(numbered(9, revision=2)).code == "document_conflict"
    assert desk.refused(numbered(9, tenant="nobody")).code == "unknown_customer"
    replay = desk.do(numbered(1))
    assert (replay.number, replay.replayed) == (2, True)
    other = file("note", {"a": 1}, kind="credit-note", series="CN")
    assert desk.do(other).number == 1
    desk.reopen()
    assert desk.do(numbered(3)).number == 4
    assert desk.broken() == []


def test_a_document_keeps_its_number_and_a_draft_may_get_one(desk: Desk) -> None:
    desk.do(numbered(0))
    desk.do(file("draft", {"total": 1}, kind="invoice"))
    paid = file("invoice/0", {"paid": True}, kind="invoice", revision=2)
    assert desk.do(paid).number == 1
    issued = file("draft", {"total": 2}, kind="invoice", revision=2, series="AV")
    assert desk.do(issued).number == 2
    moved = file("draft", {"total": 3}, kind="invoice", revision=3, series="CN")
    assert desk.refused(moved).fields()["differs"] == ["series"]
    with desk.reader as reader:
        assert [document.number for document in reader.documents("invoice")] == [1, 2]
    assert desk.broken() == []


def test_documents_come_by_kind_and_customer_in_order_of_first_filing(desk: Desk) -> None:
    desk.setup()
    desk.setup(tenant="globex")
    for id_, tenant in (("b", "globex"), ("a", "acme"), ("c", "")):
        desk.do(file(id_, kind="alert", tenant=tenant))
    desk.do(file("b", {"fee": 11}, kind="alert", tenant="globex", revision=2))
    desk.do(file("other"))
    with desk.reader as reader:
        assert [document.id for document in reader.documents("alert")] == ["b", "a", "c"]
        assert [document.id for document in reader.documents("alert", "acme")] == ["a"]
        assert [document.id for document in reader.documents("alert", "")] == ["c"]
        assert list(reader.documents("nothing")) == []


@pytest.mark.parametrize(
    "content",
    [
        {"price": 0.1},
        {"price": float("nan")},
        {"big": 2**63},
        {"text": "a\0b"},
        {"te\0xt": 1},
        {"text": "\ud800"},
        {1: "number as a key"},
        {"when": object()},
        {"bytes": b"x"},
        {"lines": [{"net": 1.0}]},
        DEEP,
        {"text": "é" * (MAX_BYTES // 2)},
    ],
)
def test_content_that_would_not_come_back_is_refused(
    file_desk: Desk, content: dict[Any, Any]
) -> None:
    assert file_desk.refused(file(content=content)).code == "not_allowed"
    assert file_desk.do(file()).seq == 1


@pytest.mark.parametrize(
    "changes", [{"series": ""}, {"kind": ""}, {"id_": ""}, {"revision": 1.0}, {"content": ["a"]}]
)
def test_filings_that_make_no_sense_are_refused(file_desk: Desk, changes: dict[str, Any]) -> None:
    assert file_desk.refused(file(**changes)).code == "not_allowed"
    assert file_desk.broken() == []


def test_the_largest_document_is_kept(desk: Desk) -> None:
    room = MAX_BYTES - len(msgspec.json.encode({"text": ""}))
    content = {"text": "é" * (room // 2)}
    desk.do(file(content=content))
    with desk.reader as reader:
        found = reader.document("plan/pro/1")
    assert found is not None
    assert found.content == content


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aβ🥑", max_size=3), inner),
    max_leaves=8,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(contents=st.lists(st.dictionaries(st.text("abc", max_size=2), JSON), max_size=4))
def test_any_json_comes_back_and_replays(
    tmp_path_factory: pytest.TempPathFactory,
    desk_on: Callable[[Path | str], Desk],
    contents: list[dict[str, Any]],
) -> None:
    desk = desk_on(tmp_path_factory.mktemp("desk") / "book.db")
    for number, content in enumerate(contents, 1):
        op = o.File(id="d", kind="k", content=content, revision=number, series="S")
        assert desk.do(op).number == 1
        assert desk.do(o.decode_operation(o.encode(op))).replayed
    with desk.reader as reader:
        assert [each.content for each in reader.document_history("d")] == contents
    assert desk.broken() == []
    desk.close()


def test_ten_thousand_filings_share_their_commits(file_desk: Desk) -> None:
    """Ten commits would do; a slow disk makes batches larger, never more."""
    futures = [file_desk.ledger.submit(numbered(number)) for number in range(10_000)]
    numbers = [future.result().number for future in futures]  # type: ignore[union-attr]
    assert numbers == list(range(1, 10_001))
    assert file_desk.ledger.metrics.commits < 2000
    assert file_desk.broken(deep=False) == []


_FILE = """
import sys
from avocado.ledger import operation as o
from avocado.ledger.ledger import open_ledger
with open_ledger(sys.argv[1]) as ledger:
    print("ready", flush=True)
    sys.stdin.readline()
    futures = [ledger.submit(o.File(id=f"{sys.argv[2]}/{n}", kind="invoice", content={"n": n},
        series="AV")) for n in range(300)]
    futures += [ledger.submit(o.File(id=f"shared/{n}", kind="invoice", content={"n": n},
        series="AV")) for n in range(300)]
    print(*(future.result().number for future in futures), flush=True)
"""


def test_two_processes_number_without_a_gap_and_file_the_same_once(
    server: Server, desk_on: Callable[[str], Desk]
) -> None:
    address = server.database()
    desk = desk_on(address)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _FILE, address, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    numbers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        said, _ = process.communicate(timeout=60)
        numbers.append([int(number) for number in said.split()])
    assert numbers[0][300:] == numbers[1][300:]
    assert sorted({*numbers[0], *numbers[1]}) == list(range(1, 901))
    assert desk.broken() == []


# -- damage is found -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE document SET content = '{}'",
        "UPDATE document SET number = 7 WHERE id = 'invoice/1'",
        "UPDATE document SET revision = 2 WHERE id = 'invoice/1'",
        "DELETE FROM document WHERE id = 'invoice/0'",
        "UPDATE series SET last = 5",
        "DELETE FROM filing WHERE revision = 1",
    ],
)
def test_a_changed_document_is_found(file_desk: Desk, damage: str) -> None:
    import sqlite3

    for number in range(2):
        file_desk.do(numbered(number))
    assert file_desk.broken() == []
    file_desk.close()
    with sqlite3.connect(file_desk.target) as db:
        db.execute(damage)
    db.close()
    assert {check.number for check in file_desk.broken()} == {7}
