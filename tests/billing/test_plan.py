"""Plans: strict files, versions that never change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from avocado.billing.plan import from_content, parse_plan, read_plan, to_content
from avocado.billing.plans import find, latest, publish, published, version_of
from avocado.errors import Refused
from tests.billing.subscribers import BASIC, FREE, PACKS, PLANS, PRO, Book, plan_of

EXAMPLES = Path(__file__).parents[2] / "recipes" / "plans"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "book.db")
    yield book
    book.close()


def test_the_example_files_are_plans_of_every_kind() -> None:
    plans = [read_plan(path, "EUR") for path in sorted(EXAMPLES.glob("*.toml"))]
    assert {plan.kind for plan in plans} == {"pay-as-you-go", "prepaid", "subscription"}


@pytest.mark.parametrize("text", PLANS)
def test_a_plan_survives_its_document(text: str) -> None:
    plan = plan_of(text)
    assert from_content(to_content(plan)) == plan


def test_a_plan_says_what_it_is_called_in_each_language() -> None:
    assert [plan_of(PRO).called(each) for each in ("de", "fr")] == ["Profi", "Pro"]
    assert plan_of(BASIC).called("de") == "basic"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PRO + "colour = 1", "colour"),
        (PRO.replace("fee =", "fees ="), "fees"),
        (PRO.replace('"30.00"', "30.0"), "subscription.fee: write an amount in quotes"),
        (PRO.replace('"30.00"', '"-1"'), "is not an amount"),
        (PRO.replace("10_000", "0"), ">= 1"),
        (PRO.replace('"subscription"', '"prepaid"'), "[subscription] belongs"),
        (PRO.replace('"pro"', '"p r o"'), "letters, digits"),
        (PRO.replace("de =", "nl ="), "title.nl"),
        (PRO.replace("[subscription]", "[subscription]\nretry_days = [7, 3]"), "retry_days"),
        (PRO.replace(', offers = ["avocado-1"] }', " }"), "each offer in one entry"),
        (FREE.replace('amount = "2.00"', ""), "trial: give tokens"),
        (PACKS.replace('"10.50"', '"0"'), "more than nothing"),
        (PACKS.replace('"prepaid"', '"pay-as-you-go"'), "[[packs]] belong"),
        (PRO + 'currency = "dollars"', "currency"),
        ("name = ", "Invalid value"),
        ("name = 3\nkind = 'prepaid'", "str"),
    ],
)
def test_a_file_that_is_wrong_says_what_is(text: str, said: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_plan(text.encode(), "USD")
    assert said in str(caught.value)


def test_publishing_again_makes_a_version_only_if_something_changed(book: Book) -> None:
    again, new = publish(book.reader, book.do, plan_of(PRO))
    assert (again.version, new) == (1, False)
    dearer = plan_of(PRO.replace("30.00", "35.00"))
    for version in range(2, 12):  # back and forth
        plan = dearer if version % 2 == 0 else plan_of(PRO)
        made, new = publish(book.reader, book.do, plan)
        assert (made.version, new) == (version, True)
    assert version_of(book.reader, "pro", 1).plan == plan_of(PRO)
    newest = latest(book.reader, "pro")
    assert newest is not None
    assert newest.version == 11
    assert find(book.reader, "pro@2").plan == dearer
    assert [each.version for each in published(book.reader) if each.plan.name == "pro"][-1] == 11


def test_what_there_is_not_is_refused_by_name(book: Book) -> None:
    for text, said in (
        ("gold", "no plan 'gold'"),
        ("pro@9", "its newest version is 1"),
        ("pro@x", "names no version"),
        ("gold@1", "no such plan"),
    ):
        with pytest.raises(Refused, match=said):
            find(book.reader, text)
    with pytest.raises(Refused, match="give one in EUR another name"):
        publish(book.reader, book.do, parse_plan(PRO.encode(), "EUR"))
