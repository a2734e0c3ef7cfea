"""A query string, read strictly, and the page of time that it asks for. Pure.

Each parameter is taken once; one that nobody takes is refused by its name, as in bodies.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl

from avocado.gateway.errors import bad_request, unsupported
from avocado.gateway.statement import Span, Sum

LATEST: Final = 2**33
"""Seconds since 1970."""
MANY: Final = 50
"""Values of one parameter."""


class Given:
    """A query string. Each parameter is taken once; ``end`` refuses what is left."""

    def __init__(self, query: bytes) -> None:
        self._left: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=200)
        except ValueError:
            raise bad_request("The query string cannot be read") from None
        for name, value in pairs:
            if "\0" in value or "\ufffd" in value:
                raise bad_request(f"Invalid value for {name[:50]}", name[:50])
            self._left.setdefault(name.removesuffix("[]"), []).append(value)

    def many(self, name: str) -> list[str]:
        found = self._left.pop(name, [])
        if len(found) > MANY:
            raise bad_request(f"{name} stands there more than {MANY} times", name)
        return found

    def one(self, name: str) -> str:
        found = self.many(name)
        if len(found) > 1:
            raise bad_request(f"{name} stands there {len(found)} times", name)
        if found == [""]:
            raise bad_request(f"Invalid value for {name}: it is empty", name)
        return found[0] if found else ""

    def one_of(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        found = self.one(name) or default
        if found and found not in allowed:
            raise bad_request(f"Invalid value for {name}: one of {', '.join(allowed)}", name)
        return found

    def number(self, name: str, least: int, most: int, default: int | None = None) -> int:
        found = self.one(name)
        if not found:
            if default is None:
                raise bad_request(
                    f"Missing required parameter: {name!r}", name, "missing_parameter"
                )
            return default
        digits = found.isascii() and found.isdigit() and len(found) < 12
        if not digits or not least <= int(found) <= most:
            raise bad_request(f"Invalid value for {name}: an integer from {least} to {most}", name)
        return int(found)

    def groups(self, allowed: tuple[str, ...], foreign: tuple[str, ...]) -> list[str]:
        found = self.many("group_by")
        for each in found:
            if each in foreign:
                raise unsupported("group_by", f"There is no {each} here to group by")
            if each not in allowed:
                raise bad_request(
                    f"Invalid value for group_by: one of {', '.join(allowed)}", "group_by"
                )
        return found

    def end(self) -> None:
        for name in self._left:
            raise bad_request(f"Unknown parameter: {name[:100]!r}", name, "unknown_parameter")


class Page:
    """The buckets that one answer shows. They begin at whole multiples of their width, UTC."""

    def __init__(self, span: Span, next_start: int | None) -> None:
        self.span = span
        self.next = None if next_start is None else f"page_{next_start}"

    def buckets(self, found: list[Sum]) -> Iterator[tuple[int, int, list[Sum]]]:
        width = self.span.width
        inside: dict[int, list[Sum]] = {}
        for each in found:
            inside.setdefault(each.start, []).append(each)
        for start in range(self.span.since // width * width, self.span.until, width):
            yield (
                max(start, self.span.since),
                min(start + width, self.span.until),
                inside.get(start, []),
            )


def read_page(given: Given, width: int, usual: int, most: int) -> Page:
    since = given.number("start_time", 0, LATEST)
    until = given.number("end_time", 1, LATEST, int(time.time()) + 1)
    limit = given.number("limit", 1, most, usual)
    token = given.one("page")
    given.end()
    if until <= since:
        raise bad_request("end_time must be later than start_time", "end_time")
    if token:
        start = token.removeprefix("page_")
        digits = token.startswith("page_") and start.isascii() and start.isdigit()
        if not digits or len(start) > 11 or not since <= int(start) < until:
            raise bad_request("Invalid value for page: send next_page as it came", "page")
        since = int(start)
    end = (since // width + limit) * width
    return Page(Span(since, min(end, until), width), end if end < until else None)
