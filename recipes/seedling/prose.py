"""Running text in five languages: sentences, small stories, lists, facts, text with a question.

Each function takes a language and a random source and gives one document as plain text.
"""

from __future__ import annotations

import random

from recipes.seedling.language import Language, Scene


def sentences(language: Language, rng: random.Random) -> str:
    """A few sentences that have little to do with each other, each about its own scene."""
    glue = " " if language.spaced else ""
    templates = rng.sample(language.words["sentences"], rng.randint(2, 5))
    return glue.join(Scene(language, rng).fill(template) for template in templates)


def story(language: Language, rng: random.Random) -> str:
    """Opening, some middles and an ending, all about the same names and things."""
    scene = Scene(language, rng)
    words = language.words
    parts = [
        rng.choice(words["openings"]),
        *rng.sample(words["middles"], rng.randint(2, 5)),
        rng.choice(words["endings"]),
    ]
    return (" " if language.spaced else "").join(scene.fill(part) for part in parts)


def question(language: Language, rng: random.Random) -> str:
    """Some facts, then questions about them with the answers: reading, by copying what was said."""
    facts = []
    for context, asked, answer in rng.sample(language.words["qa"], rng.randint(2, 4)):
        scene = Scene(language, rng)
        facts.append((scene.fill(context), scene.fill(asked), scene.fill(answer)))
    told = [context for context, _, _ in facts]
    rng.shuffle(facts)
    asked_and_answered = [f"{asked} {answer}" for _, asked, answer in facts]
    return "\n".join(told + asked_and_answered)


def calendar(language: Language, rng: random.Random) -> str:
    """The order of months and weekdays."""
    months, weekdays = language.months, language.weekdays
    match rng.randrange(4):
        case 0:
            start = rng.randrange(12)
            return ", ".join(months[(start + k) % 12] for k in range(rng.randint(3, 12)))
        case 1:
            start = rng.randrange(7)
            return ", ".join(weekdays[(start + k) % 7] for k in range(rng.randint(3, 7)))
        case 2:
            picked = rng.sample(range(12), 3)
            fact = language.words["month_fact"]
            return "\n".join(fact.format(month=months[n], n=n + 1) for n in picked)
        case _:
            picked = rng.sample(range(7), 2)
            fact = language.words["weekday_fact"]
            return "\n".join(fact.format(a=weekdays[n], b=weekdays[(n + 1) % 7]) for n in picked)


def names(language: Language, rng: random.Random) -> str:
    """A list of countries, languages, things or whatever else has a name."""
    words = language.words
    pool = rng.choice(
        (language.countries, language.languages, words["things"], words["foods"], words["words"])
    )
    picked = rng.sample(pool, rng.randint(3, 7))
    mark = rng.choice(("- ", "* ", ""))
    if not mark:
        return ", ".join(picked)
    return "\n".join(mark + item for item in picked)
