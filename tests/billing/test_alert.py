"""Alerts: when they fire, and that each is sent once whatever dies or runs beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from avocado.billing import alerts, outbox
from avocado.billing import subscriptions as subs
from avocado.billing.alert import Alert, Position, fires
from avocado.billing.clerk import Tools, work
from avocado.billing.letters import EVENTS, write
from avocado.billing.outbox import CLAIMED, DAILY, PAUSES, Message
from avocado.billing.plan import LANGUAGES
from avocado.billing.record import file
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.reader import open_reader
from avocado.terms.money import NANO, Money
from tests.billing.subscribers import DAY, Book


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "book.db", day=date(2026, 3, 10), money=1000)
    yield book
    assert book.broken() == []
    book.close()


def add(book: Book, **terms: Any) -> Alert:
    made = {"kind": "spend", "currency": "USD", "email": "finance@example.com"} | terms
    return alerts.add(book.reader, book.do, Alert("acme", 0, **made))


class Post:
    """Remembers what was sent; the first ``fails`` times it cannot."""

    def __init__(self, fails: int = 0) -> None:
        self.sent: list[Message] = []
        self.fails = fails

    def __call__(self, message: Message) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("the server is away")
        self.sent.append(message)


def spend(book: Book, units: int) -> None:
    book.use(units * NANO // (200 * NANO // 1_000_000))


# -- when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "spent", "limit", "available", "fired"),
    [
        ({"amount": 10}, 9, None, 0, False),
        ({"amount": 10}, 10, None, 0, True),
        ({"percent": 80}, 79, 99, 0, False),
        ({"percent": 80}, 80, 99, 0, True),
        ({"percent": 80}, 10**18, None, 0, False),
        ({"kind": "balance", "amount": 10}, 0, None, 10, False),
        ({"kind": "balance", "amount": 10}, 0, None, 9, True),
        ({"amount": 10, "removed": True}, 10, None, 0, False),
    ],
)
def test_thresholds(
    terms: dict[str, Any], spent: int, limit: int | None, available: int, fired: bool
) -> None:
    alert = Alert("acme", 1, **({"kind": "spend", "currency": "USD", "email": "a@b.c"} | terms))
    assert bool(fires(alert, Position("2026-03", spent, limit, available))) is fired


@pytest.mark.parametrize(
    "terms",
    [
        {"amount": 1, "percent": 1},
        {},
        {"kind": "balance", "percent": 10},
        {"amount": 1, "email": None},
        {"amount": 1, "email": "a@b.c\nBcc: x@y.z"},
        {"amount": 1, "email": "Anna <a@b.c>"},
    ],
)
def test_alerts_that_make_no_sense(terms: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"alert|address|amount"):
        Alert("acme", 1, **({"kind": "spend", "currency": "USD", "email": "a@b.c"} | terms))


def test_a_spend_alert_fires_once_a_month(book: Book) -> None:
    post = Post()
    add(book, amount=20 * NANO)
    for units, sent in ((15, 0), (5, 1), (50, 1)):
        spend(book, units)
        book.clerk(send=post)
        assert len(post.sent) == sent
    assert post.sent[0].subject == "Avocado: spend has reached US$20.00"
    assert "Acme Ltd has spent US$20.00 in 2026-03" in post.sent[0].body
    book.go(date(2026, 4, 2))
    book.clerk(send=post)
    assert len(post.sent) == 1
    spend(book, 30)
    book.clerk(send=post)
    assert len(post.sent) == 2


def test_a_part_of_the_limit(book: Book) -> None:
    post = Post()
    add(book, percent=50)
    spend(book, 10)
    book.clerk(send=post)
    book.do(o.SetSpendLimit(tenant="acme", month=20 * NANO))
    book.clerk(send=post)
    assert [each.id for each in post.sent] == ["alert/acme/1/2026-03/mail"]


def test_a_balance_alert_fires_once_after_each_credit(book: Book) -> None:
    post = Post()
    add(book, kind="balance", amount=100 * NANO, language="de")
    spend(book, 950)
    for _ in range(2):
        book.clerk(send=post)
    assert len(post.sent) == 1
    assert "unter 100,00\xa0$" in post.sent[0].subject
    book.deposit(500)
    book.clerk(send=post)
    assert len(post.sent) == 1
    spend(book, 500)
    book.clerk(send=post)
    assert len(post.sent) == 2


def test_a_removed_alert_is_silent_and_its_number_is_not_given_again(book: Book) -> None:
    post = Post()
    add(book, amount=1)
    alerts.remove(book.reader, book.do, "acme", 1)
    spend(book, 1)
    book.clerk(send=post)
    assert post.sent == []
    assert add(book, amount=1).number == 2
    with pytest.raises(Refused, match="no alert 1"):
        alerts.remove(book.reader, book.do, "acme", 1)


# -- sending ---------------------------------------------------------------------------------------


def test_what_cannot_be_sent_is_tried_again_later_and_then_given_up(book: Book) -> None:
    post = Post(fails=2)
    add(book, amount=1)
    spend(book, 1)
    assert [each.what for each in book.clerk(send=post)] == ["written", "not sent"]
    assert book.clerk(send=post) == ()  # not before its pause is over
    book.clock.pass_time(PAUSES[0])
    assert [each.detail for each in book.clerk(send=post)] == ["the server is away"]
    book.clock.pass_time(PAUSES[1])
    assert [each.what for each in book.clerk(send=post)] == ["sent"]
    assert outbox.load(book.reader, "acme").value.waiting == ()
    book.go(date(2026, 4, 2))
    spend(book, 1)
    never = Post(fails=100)
    for _ in range(len(PAUSES) + 3):
        book.clerk(send=never)
        book.clock.pass_time(max(PAUSES))
    assert 100 - never.fails == len(PAUSES) + 1
    box = outbox.load(book.reader, "acme").value
    assert (box.waiting, [each.error for each in box.failed]) == ((), ["the server is away"])


def test_a_process_that_dies_while_sending_loses_nothing(book: Book) -> None:
    class Killed(BaseException):
        pass

    def dies(_message: Message) -> None:
        raise Killed

    add(book, amount=1)
    spend(book, 1)
    with pytest.raises(Killed):
        book.clerk(send=dies)
    post = Post()
    assert book.clerk(send=post) == ()  # it may be at it still
    book.clock.pass_time(CLAIMED)
    book.clerk(send=post)
    assert [each.id for each in post.sent] == ["alert/acme/1/2026-03/mail"]
    book.clock.pass_time(10 * CLAIMED)
    assert book.clerk(send=post) == ()


def test_clerks_at_once_send_each_message_once(book: Book) -> None:
    post, lock = Post(), threading.Lock()
    for number in range(6):
        add(book, amount=1, email=f"n{number}@example.com")
    spend(book, 1)

    def send(message: Message) -> None:
        with lock:
            post(message)

    def clerk() -> None:
        with open_reader(book.target) as reader:
            done = work(reader, book.do, book.now, Tools(send=send))
        failed.extend(each for each in done if each.what in ("failed", "not sent"))

    failed: list[Any] = []
    threads = [threading.Thread(target=clerk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    book.clerk(send=post)
    assert failed == []
    assert sorted(each.target for each in post.sent) == [f"n{n}@example.com" for n in range(6)]


def test_nobody_has_more_than_so_many_messages_a_day_sent(book: Book) -> None:
    """Alerts that are removed and added again fire again, to whatever address they name."""
    post = Post()
    spend(book, 1)
    for number in range(DAILY + 20):
        add(book, amount=1, email=f"stranger{number}@example.com")
    for _ in range(5):
        book.clerk(send=post)
        book.clock.pass_time(PAUSES[0])
    assert len(post.sent) == DAILY
    book.days(1)
    book.clerk(send=post)
    assert len(post.sent) == DAILY + 20
    assert len({each.target for each in post.sent}) == DAILY + 20


# -- what subscriptions say ------------------------------------------------------------------------


def test_a_fee_that_cannot_be_collected_is_told_on_each_retry_day(tmp_path: Path) -> None:
    from avocado.billing.profile import Profile

    book, post = Book(tmp_path / "b.db", day=date(2026, 3, 10), money=10), Post()
    profile = Profile(email="anna@example.com", language="fr")
    file(book.do, "profile/acme", "profile", "acme", profile, 1)
    add(book, amount=NANO, webhook="https://example.com/hook", email=None)
    subs.start(book.reader, book.do, "acme", "basic", book.now)
    for _ in range(60):
        book.days(1)
        book.clerk(send=post)
    mails = [each for each in post.sent if each.way == "mail"]
    assert [each.id.removeprefix("subscription/acme/1/") for each in mails] == [
        "2026-04-10/0/mail",
        "2026-04-10/1/mail",
        "2026-04-10/2/mail",
        "lapsed/mail",
    ]
    assert "10,00\xa0$US pour basic n'ont pas pu être prélevés" in mails[0].subject
    assert "24 avril 2026" in mails[0].body
    hooks = [each.body for each in post.sent if each.way == "webhook"]
    assert [hook.split('"')[3] for hook in hooks] == [
        *["subscription.past_due"] * 3,
        "subscription.lapsed",
    ]
    assert '"fee":"10.00","currency":"USD"' in hooks[0]
    assert book.broken() == []
    book.close()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("letter", list(EVENTS))
def test_letters_are_short_and_whole_in_every_language(letter: Any, language: str) -> None:
    day, money = date(2026, 3, 10), Money(1_500_000_000, "EUR")
    names = ("threshold", "spent", "available", "fee")
    facts: dict[str, Any] = {
        "customer": "Acme\r\nBcc: x",
        "plan": "Pro",
        "month": "2026-03",
        "last": day,
    }
    subject, text = write(letter, language, "Seller", {**facts, **dict.fromkeys(names, money)})
    assert "\n" not in subject
    assert "\r" not in text
    assert "{" not in subject + text
    assert len(text) < 400
    assert "Acme Bcc: x" in text


def test_the_days_of_a_claim_are_longer_than_any_sending() -> None:
    assert CLAIMED < DAY
    assert timedelta(microseconds=CLAIMED // 1000) >= timedelta(minutes=5)
