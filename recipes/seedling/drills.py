"""Drills in no particular language: copying, counting, sums, JSON, tables, code.

Copying is the skill that matters most later: a refined model answers with what the prompt said.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final

from recipes.seedling.language import Language, Scene, clock, code_word

SLOTS: Final = (
    "word",
    "name",
    "city",
    "number",
    "money",
    "date",
    "time",
    "code",
    "country",
    "unit",
)
VARIABLES: Final = ("x", "y", "z", "n", "total", "item", "size", "left", "right", "index")
KEYS: Final = (
    "id",
    "title",
    "size",
    "tags",
    "ok",
    "owner",
    "x",
    "y",
    "next",
    "items",
    "color",
    "note",
)


def compact(value: object) -> str:
    """JSON without spaces, other scripts as they are: the form of every JSON of the seedling."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def something(language: Language, rng: random.Random) -> str:
    """One to four words, numbers or codes in a row."""
    scene = Scene(language, rng)
    return " ".join(scene.draw(rng.choice(SLOTS)) for _ in range(rng.randint(1, 4)))


def copying(language: Language, rng: random.Random) -> str:
    """Lines that say the same thing twice, apart by the same sign."""
    sign = rng.choice((" = ", " -> ", " | ", "\n", " => ", ": "))
    lines = []
    for _ in range(rng.randint(1, 4)):
        text = something(language, rng)
        lines.append(f"{text}{sign}{text}")
    return "\n".join(lines)


def reshaping(language: Language, rng: random.Random) -> str:
    """Lines that say the same in another form: words turned round, signs left out, spelled."""
    kind = rng.randrange(4)
    sign = rng.choice((" = ", " -> ", " => "))
    lines = []
    for _ in range(rng.randint(2, 4)):
        words = rng.sample(language.words["words"], 3)
        code = f"{code_word(rng)}-{code_word(rng)}"
        before, after = (
            (" ".join(words), " ".join(reversed(words))),
            (code, "".join(c for c in code if c.isalnum())),
            (words[0], "-".join(words[0])),
            (", ".join(words), compact(words)),
        )[kind]
        lines.append(f"{before}{sign}{after}")
    return "\n".join(lines)


def quoting(language: Language, rng: random.Random) -> str:
    """A table of names and codes, then some of its rows again in another order: look-up."""
    rows = {
        Scene(language, rng)["name"]: rng.choice((code_word(rng), language.number(rng)))
        for _ in range(rng.randint(2, 6))
    }
    again = rng.sample(sorted(rows), min(len(rows), 3))
    return "\n".join(
        [*(f"{k}: {v}" for k, v in rows.items()), "", *(f"{k}: {rows[k]}" for k in again)]
    )


def counting(language: Language, rng: random.Random) -> str:
    start, step, length = (
        rng.randrange(1000),
        rng.choice((1, 1, 1, 2, 5, 10, -1)),
        rng.randint(5, 15),
    )
    glue = rng.choice((" ", ", ", "\n"))
    return glue.join(str(start + step * k) for k in range(length))


def sums(language: Language, rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(2, 6)):
        a, b = rng.randrange(50), rng.randrange(50)
        lines.append(f"{a} + {b} = {a + b}" if rng.random() < 0.6 else f"{a + b} - {b} = {a}")
    return "\n".join(lines)


def _value(language: Language, rng: random.Random, depth: int) -> Any:
    match rng.randrange(7 if depth else 5):
        case 0:
            return rng.randrange(1000)
        case 1:
            return rng.choice((True, False, None))
        case 2:
            return code_word(rng)
        case 3 | 4:
            return Scene(language, rng).draw(
                rng.choice(("word", "name", "city", "thing", "number"))
            )
        case 5:
            return [_value(language, rng, 0) for _ in range(rng.randint(1, 3))]
        case _:
            return _object(language, rng, depth - 1)


def _object(language: Language, rng: random.Random, depth: int) -> dict[str, Any]:
    keys = rng.sample(KEYS, rng.randint(2, 4))
    return {key: _value(language, rng, depth) for key in keys}


def structure(language: Language, rng: random.Random) -> str:
    """A JSON object, compact or indented, or a small CSV table."""
    if rng.random() < 0.7:
        value = _object(language, rng, 2)
        return (
            compact(value)
            if rng.random() < 0.8
            else json.dumps(value, indent=2, ensure_ascii=False)
        )
    header = rng.sample(KEYS, 3)
    rows = [
        ",".join((code_word(rng), Scene(language, rng)["word"], str(rng.randrange(100))))
        for _ in range(rng.randint(2, 5))
    ]
    return "\n".join([",".join(header), *rows])


def code(language: Language, rng: random.Random) -> str:
    """A few lines of Python or a shell."""
    a, b = rng.sample(VARIABLES, 2)
    n, word = rng.randrange(100), Scene(language, rng)["word"]
    snippets: tuple[Callable[[], str], ...] = (
        lambda: f"def add({a}, {b}):\n    return {a} + {b}\n\nprint(add({n}, {n + 1}))",
        lambda: f"for {a} in range({n}):\n    print({a})",
        lambda: f'{a} = "{word}"\nif {a}:\n    {b} = len({a})  # {len(word)}',
        lambda: f"{a} = [{n}, {n + 2}, {n + 4}]\n{b} = sum({a})  # {3 * n + 6}",
        lambda: f'$ echo "{word} {n}"\n{word} {n}',
        lambda: f'log("{clock(rng)}", "{word}", {n})',
    )
    return rng.choice(snippets)()
