"""``avocado.toml`` as docs/operations.md shows it: every table and key stands there, and reads."""

from __future__ import annotations

import re
from pathlib import Path
from types import UnionType
from typing import get_args, get_type_hints

import msgspec
import pytest

from avocado.configuration import Config, read_config
from avocado.errors import Refused

DOCUMENT = Path(__file__).parents[1] / "docs" / "operations.md"
ELSEWHERE = {"vault", "gate"}
"""Tables that docs/releases.md and docs/gate.md show."""


def shown() -> str:
    return DOCUMENT.read_text("utf-8").partition("```toml\n")[2].partition("```")[0]


def structs(kind: type[msgspec.Struct], place: str = "") -> dict[str, type[msgspec.Struct]]:
    """Every table of a configuration, by its dotted name."""
    found = {place: kind}
    for name, hint in get_type_hints(kind).items():
        options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        for each in options:
            if isinstance(each, type) and issubclass(each, msgspec.Struct):
                found |= structs(each, f"{place}.{name}".strip("."))
    return found


def test_what_the_document_shows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "avocado.toml"
    path.write_text(shown())
    config = read_config(path)
    assert config.seller is not None
    assert config.console.oidc is not None
    assert config.payments is not None


def test_the_document_names_every_key() -> None:
    text = shown()
    for place, kind in structs(Config).items():
        if place.partition(".")[0] in ELSEWHERE:
            continue
        for name in kind.__struct_fields__:
            if name in ELSEWHERE or (place, name) == ("payments", "api_base"):  # for tests
                continue
            assert re.search(rf"\b{name}\b", text), f"no {place}.{name} in docs/operations.md"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('currency = "ERU"', "ISO 4217"),
        ('[seler]\nname = "x"', "seler"),
        ('[tax]\nkind = "vat"', "vat"),
        ('[console]\npublic_url = "console.example.com"', "http"),
        ("[console]\nport = 70000", "65535"),
        ('[mail]\nhost = "h"', "sender"),
        ("[billing]\ndue_days = -1", "0"),
        (
            '[seller]\nname = "n"\naddress = []\npostcode = ""\ncity = ""\ncountry = "Germany"',
            "A-Z",
        ),
    ],
)
def test_a_slip_is_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "avocado.toml"
    path.write_text(f'name = "shop"\n{text}\n')
    with pytest.raises(Refused, match=named):
        read_config(path)
