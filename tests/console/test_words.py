"""Words: both languages say everything, and no page says anything past them."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from avocado.console.rendering import environment
from avocado.console.words import LANGUAGES, Speaker, catalogue, choose
from tests.console.conftest import House


def test_both_languages_have_the_same_places_for_values() -> None:
    for key, texts in catalogue().items():
        places = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in texts]
        assert places[0] == places[1], key
        assert len({text.count("|") for text in texts}) == 1, f"{key}: one|many in one of them only"


def test_german_is_not_english() -> None:
    """A forgotten translation shows as the same text twice."""
    same = {"Name", "Team", "Tokens", "Webhook", "Browser", "Playground", "Admin", "Status"}
    for key, (english, german) in catalogue().items():
        longer = len(re.findall(r"[^\W\d_]{2,}", re.sub(r"\{\w+\}", "", english))) > 2
        if longer:
            assert english != german, key
        assert english != german or not longer or english in same


TEXT_ATTRIBUTES = r'\b(?:title|placeholder|aria-label|alt|value)="([^"]*)"'
PLAIN = {"https://", "WELCOME10", "Avocado", "av_live_…", "PDF", "XML", "JSON", "CSV", "UTC"}


def test_no_template_says_anything_itself() -> None:
    """Every word between tags, and in attributes that people read, comes from the catalogue."""
    env = environment()
    assert env.loader is not None
    for name in env.list_templates():
        text = env.loader.get_source(env, name)[0]
        text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", text, flags=re.DOTALL)
        said = re.sub(r"<[^>]*>", "\n", text)
        said = re.sub(r"&\w+;", "", said)
        words = [
            each.strip() for each in said.splitlines() if re.search(r"[A-Za-zÄÖÜäöü]{2,}", each)
        ]
        words = [each for each in words if each not in PLAIN]
        assert not words, f"{name} says {words} itself: put it into words/*.toml"
        for value in re.findall(TEXT_ATTRIBUTES, text):
            if re.search(r"[A-Z][a-z]", value):
                assert value in PLAIN, f"{name} says {value!r} itself"


def keys_named(text: str) -> set[str]:
    """Those that are spelled out: what is put together at run time ends in _ or has no end."""
    return set(re.findall(r"""\bt\(["'](\w+\.\w+)["'](?! [+~])""", text))


def test_every_key_that_a_template_names_is_there() -> None:
    env = environment()
    assert env.loader is not None
    for name in env.list_templates():
        missing = keys_named(env.loader.get_source(env, name)[0]) - set(catalogue())
        assert not missing, f"{name}: {missing} are in no words/*.toml"


def test_counts_choose_their_form() -> None:
    assert Speaker("en").say("keys.days", count=1) == "1 day"
    assert Speaker("de").say("keys.days", count=7) == "7 Tage"
    with pytest.raises(KeyError):
        Speaker("en").say("nothing.such")


@pytest.mark.parametrize(
    ("wanted", "accepted", "language"),
    [
        (None, "", "en"),
        (None, "de-DE,de;q=0.9,en;q=0.8", "de"),
        (None, "fr,en;q=0.2,de;q=0.7", "de"),
        (None, "de;q=0,en;q=0.1", "en"),
        (None, "de;q=x", "en"),
        ("en", "de", "en"),
        ("de", "en", "de"),
        ("xx", "de", "de"),
        (None, "," * 10_000 + "de", "en"),
    ],
)
def test_the_language_is_the_persons_then_the_browsers(
    wanted: str | None, accepted: str, language: str
) -> None:
    assert choose(wanted, accepted) == language


def test_pages_are_in_the_browsers_language_until_one_is_set(house: House) -> None:
    browser = house.signed_in("admin")
    german = browser.get("/overview", **{"accept-language": "de"}).text
    assert '<html lang="de"' in german
    assert "Guthaben" in german
    browser.post("/language", {"language": "en", "next": "/overview"})
    assert '<html lang="en"' in browser.get("/overview", **{"accept-language": "de"}).text
    assert LANGUAGES == ("en", "de")


def test_money_and_dates_are_written_as_the_language_does() -> None:
    from avocado.console.formats import Formats

    english, german = Formats("en", 0), Formats("de", 0)
    assert english.money(1_234_560_000_000, "EUR") == "€1,234.56"
    assert german.money(1_234_560_000_000, "EUR") == "1.234,56\u00a0€".replace("\u00a0", " ")
    assert english.money(8_400, "USD") == "$0.0000084"
    assert english.money(-1_500_000_000, "USD") == "-$1.50"
    assert english.money(5_000_000_000, "JPY") == "¥5"
    assert german.short_day("2026-11-03") == "3. Nov."
    assert english.month("2026-11") == "November 2026"
    assert german.percent(0.125) == "12,5\u00a0%"
