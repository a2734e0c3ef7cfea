"""Rendering: templates become HTML. Everything is escaped; a missing value is an error."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from avocado.console.formats import FILTERS
from avocado.console.words import LANGUAGES, NAMES

STATIC: Final = files("avocado.console") / "static"
MEDIA_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def static_file(name: str) -> tuple[bytes, str] | None:
    """(content, media type) of a file of ours; None for any other name."""
    names = {each.name for each in STATIC.iterdir()}
    if name not in names:
        return None
    return (STATIC / name).read_bytes(), MEDIA_TYPES[name.rpartition(".")[2]]


@cache
def static_url(name: str) -> str:
    """A URL that changes with the content, so that browsers may keep it for a year."""
    found = static_file(name)
    assert found is not None, f"there is no static/{name}"
    return f"/static/{name}?v={sha256(found[0]).hexdigest()[:12]}"


@cache
def environment() -> Environment:
    """The templates of the console."""
    env = Environment(
        loader=PackageLoader("avocado.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FILTERS:
        env.filters[name] = _filter(name)
    env.globals.update(
        t=pass_context(lambda context, key, **values: context["speaker"].say(key, **values)),
        static=static_url,
        once=lambda: secrets.token_hex(12),
        languages=[(each, NAMES[each]) for each in LANGUAGES],
    )
    return env


def _filter(name: str) -> Any:
    @pass_context
    def apply(context: Context, *values: Any) -> str:
        return str(getattr(context["formats"], name)(*values))

    return apply


def render(template: str, values: Mapping[str, Any]) -> str:
    """Raises jinja2.TemplateError for a template that is wrong or lacks a value."""
    return environment().get_template(template).render(values)
