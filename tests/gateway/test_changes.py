"""The record of policies: complete, in order, and whoever alters it is found out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.gateway.access import Policy, backup, change, read
from avocado.gateway.changes import changes
from avocado.gateway.shelf import Database, open_database


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "shelf.sqlite")


def three(database: Database) -> None:
    change(database, "key:a", "ann", requests_per_minute=3)
    change(database, "customer:acme", "bob", tokens_per_minute=100)
    change(database, "key:a", "bob", requests_per_minute=5, until=7)


def test_who_when_and_what_old_and_new(database: Database) -> None:
    began = time.time_ns()
    three(database)
    found = changes(database)
    assert [(each.seq, each.who, each.subject, each.old, each.new) for each in found] == [
        (1, "ann", "key:a", "{}", '{"requests_per_minute":3}'),
        (2, "bob", "customer:acme", "{}", '{"tokens_per_minute":100}'),
        (3, "bob", "key:a", '{"requests_per_minute":3}', '{"requests_per_minute":5,"until":7}'),
    ]
    assert began <= found[0].at <= found[2].at <= time.time_ns()


def test_a_change_of_nothing_is_none(database: Database) -> None:
    assert change(database, "key:a", "ann", models=None) == Policy()
    assert changes(database) == []
    three(database)
    change(database, "key:a", "ann", until=7)
    assert len(changes(database)) == 3
    change(database, "key:a", "ann", until=8)
    assert [each.seq for each in changes(database)] == [1, 2, 3, 4]


def test_a_change_that_fails_leaves_neither_policy_nor_record(database: Database) -> None:
    three(database)
    with pytest.raises(TypeError):
        change(database, "key:a", "ann", colour="red")
    assert len(changes(database)) == 3
    assert read(database, ["key:a"])["key:a"].requests_per_minute == 5


def test_a_policy_from_before_the_record_is_its_first_old(database: Database) -> None:
    database.run("INSERT INTO gateway_policy VALUES ('key:old', '{\"until\":5}')")
    change(database, "key:old", "ann", until=6)
    assert [(each.old, each.new) for each in changes(database)] == [('{"until":5}', '{"until":6}')]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE gateway_change SET who = 'eve' WHERE seq = 2", "change 2"),
        ("UPDATE gateway_change SET at = at + 1 WHERE seq = 1", "change 1"),
        ("UPDATE gateway_change SET subject = 'key:b' WHERE seq = 1", "change 1"),
        ("UPDATE gateway_change SET new = old WHERE seq = 3", "change 3"),
        ("DELETE FROM gateway_change WHERE seq = 1", "change 1"),
        ("DELETE FROM gateway_change WHERE seq = 3", "ends at change 2"),
        ("DELETE FROM gateway_head", "ends at change 3"),
        ("INSERT INTO gateway_change SELECT 4, at, who, subject, old, new, seal"
         " FROM gateway_change WHERE seq = 3", "change 4"),
        ("UPDATE gateway_policy SET terms = '{}' WHERE subject = 'key:a'", "key:a"),
        ("DELETE FROM gateway_policy WHERE subject = 'customer:acme'", "customer:acme"),
    ],
)  # fmt: skip
def test_what_was_altered_is_named(database: Database, statement: str, said: str) -> None:
    three(database)
    assert len(changes(database)) == 3
    database.run(statement)
    with pytest.raises(Refused, match=said):
        changes(database)


def many_at_once(opened: Callable[[], Database]) -> None:
    """Eight connections, five changes each, of one subject and of eight."""

    def work(number: int) -> None:
        own = opened()
        for turn in range(5):
            change(own, "customer:acme", f"u{number}", tokens_per_minute=1 + 5 * number + turn)
            change(own, f"key:{number}", f"u{number}", requests_per_minute=1 + turn)
        own.close()

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = opened()
    found = changes(own)
    assert len(found) == 80
    latest = [each for each in found if each.subject == "customer:acme"][-1]
    policy = read(own, ["customer:acme"])["customer:acme"]
    assert f'"tokens_per_minute":{policy.tokens_per_minute}' in latest.new
    own.close()


def test_changes_at_once_follow_one_another(tmp_path: Path) -> None:
    many_at_once(lambda: open_database(tmp_path / "shelf.sqlite"))


def test_a_backup_has_policies_and_their_record_and_no_answers(
    database: Database, tmp_path: Path
) -> None:
    three(database)
    database.run(
        "INSERT INTO gateway_answer VALUES ('acme/k', 'f', 'r', 'text', ?, 6, 9)", (b"secret",)
    )
    backup(database, tmp_path / "copy.sqlite")
    copy = open_database(tmp_path / "copy.sqlite")
    assert changes(copy) == changes(database)
    change(copy, "key:a", "ann", until=9)
    assert len(changes(copy)) == 4
    copy.close()
    assert b"secret" not in (tmp_path / "copy.sqlite").read_bytes()
    with pytest.raises(FileExistsError):
        backup(database, tmp_path / "copy.sqlite")
