"""The application: routes, static files, the guard. Starlette speaks HTTP, ``answering`` thinks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp

from avocado.console.answering import Asked, answer, arrive, check, failed
from avocado.console.console import Console
from avocado.console.guard import Guard
from avocado.console.page import Form, Pages, Route
from avocado.console.rendering import environment, static_file
from avocado.console.sending import YEAR, Answered, Cookie, cookie_name, fragment

log = logging.getLogger("avocado.console")

MOST_FIELDS: Final = 500
MOST_STREAMS: Final = 20
"""Streams of fragments that one session may have open."""
LIVE_SECONDS: Final = 900.0
"""A stream of fragments ends after so long; the browser comes again, and is looked at again."""


def all_pages() -> Sequence[Pages]:
    """Every page there is. A new file of pages is named here, or in ``operator.PAGES``."""
    from avocado.console import customer, oidc, operator, settings, signing_in

    return (*signing_in.PAGES, oidc.PAGES, settings.PAGES, *customer.PAGES, *operator.PAGES)


def build_console(console: Console, pages: Sequence[Pages] | None = None) -> ASGIApp:
    """The ASGI application over ``console``. Closes the console at the end of its lifespan."""
    rooms = all_pages() if pages is None else pages
    routes = [route for room in rooms for route in room.routes]
    console.routes = routes
    shows = {each.function for each in routes if each.kind == "show"}
    for each in routes:
        assert each.again is None or each.again in shows, f"{each.path}: `again` is no page"
    environment()  # a template's syntax is wrong now, or never

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(console.close)

    app = Starlette(
        routes=[
            HttpRoute("/static/{name}", _static, methods=["GET"]),
            HttpRoute("/favicon.ico", _icon, methods=["GET"]),
            HttpRoute("/healthz", _healthy, methods=["GET"]),
            *(
                HttpRoute(each.path, _endpoint(console, each), methods=[each.method])
                for each in routes
            ),
        ],
        exception_handlers={404: _missing(console)},
        lifespan=lifespan,
    )
    hosts = {console.host}
    if not console.secure:
        port = console.host.partition(":")[2]
        hosts |= {f"{name}:{port}" if port else name for name in ("127.0.0.1", "localhost")}
    return Guard(app, console.origin, frozenset(hosts))


def _endpoint(console: Console, route: Route):  # type: ignore[no-untyped-def]
    async def endpoint(request: Request) -> Response:
        body = await _body(request, route.most) if route.method == "POST" else b""
        if body is None:
            return PlainTextResponse("This is too large.\n", 413)
        asked = _asked(request, route, body)
        if asked is None:
            return PlainTextResponse("This form cannot be read.\n", 400)
        if route.kind == "live":
            return await _live(console, asked, request)
        return _response(console, await console.threads.run(lambda: answer(console, asked)))

    return endpoint


async def _body(request: Request, most: int) -> bytes | None:
    """The body; None where it is larger than ``most`` bytes, of which no more is read."""
    said = request.headers.get("content-length", "0")
    if not said.isdigit() or int(said) > most:
        return None
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                return None
            parts.append(part)
    except ClientDisconnect:
        return None
    return b"".join(parts)


def _asked(request: Request, route: Route, body: bytes) -> Asked | None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        query = parse_qs(request.url.query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
        form: dict[str, list[str]] = {}
        if kind == "application/x-www-form-urlencoded":
            text = body.decode("utf-8")
            form = parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return None
    url = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return Asked(
        route=route,
        path={name: str(value) for name, value in request.path_params.items()},
        query=Form(query),
        body=body,
        form=Form(form),
        headers=dict(request.headers),
        cookies=request.cookies,
        address=request.client.host if request.client else "",
        url=url,
    )


def _response(console: Console, answered: Answered) -> Response:
    headers = dict(answered.headers)
    body = answered.body
    response: Response
    if isinstance(body, bytes):
        response = Response(body, answered.status, headers, answered.media_type)
    else:
        pieces = body() if callable(body) else _pieces(console, body)
        response = StreamingResponse(pieces, answered.status, headers, answered.media_type)
    for cookie in answered.cookies:
        _set(console, response, cookie)
    return response


def _set(console: Console, response: Response, cookie: Cookie) -> None:
    """Lax: a link from a mail finds its reader signed in, a POST from elsewhere does not."""
    response.set_cookie(
        cookie.name,
        cookie.value or "",
        max_age=0 if cookie.value is None else cookie.age,
        path="/",
        secure=console.secure,
        httponly=True,
        samesite="lax",
    )


async def _pieces(console: Console, body: Iterator[bytes]) -> AsyncIterator[bytes]:
    while True:
        piece = await console.threads.run(lambda: next(body, None))
        if piece is None:
            return
        yield piece


async def _live(console: Console, asked: Asked, request: Request) -> Response:
    """A stream of server-sent events: each is the fragment's HTML, sent where it changed."""

    def first() -> Answered | None:
        visit = arrive(console, asked)
        try:
            check(visit)
        except Exception as error:
            return failed(visit, error)
        return None

    def make() -> str | None:
        visit = arrive(console, asked)  # again each time: a session may have ended meanwhile
        try:
            check(visit)
            found = asked.route.function(visit)
        except Exception as error:
            log.info("a live fragment of %s ended: %r", asked.route.path, error)
            return None
        assert isinstance(found, dict)
        return fragment(visit, found)

    refusal = await console.threads.run(first)
    if refusal is not None:
        return _response(console, refusal)
    who = asked.cookies.get(cookie_name(console, "session"), "")
    if console.streams.get(who, 0) >= MOST_STREAMS:
        return PlainTextResponse("Too many pages are open.\n", 429, {"retry-after": "60"})

    async def events() -> AsyncIterator[bytes]:
        console.streams[who] = console.streams.get(who, 0) + 1
        try:
            async for event in fragments():
                yield event
        finally:
            console.streams[who] -= 1
            if not console.streams[who]:
                del console.streams[who]

    async def fragments() -> AsyncIterator[bytes]:
        before = None
        loop = asyncio.get_running_loop()
        over = loop.time() + LIVE_SECONDS
        while loop.time() < over and not console.stopping.is_set():
            text = await console.threads.run(make)
            if text is None or await request.is_disconnected():
                return
            if text != before:
                before = text
                lines = "".join(f"data: {line}\n" for line in text.splitlines())
                yield f"{lines}\n".encode()
            else:
                yield b": still here\n\n"
            await _wait(console, asked.route.every)

    return StreamingResponse(events(), media_type="text/event-stream")


async def _wait(console: Console, seconds: float) -> None:
    """Sleeps, and wakes at once when the console stops."""
    step = 0.25
    while seconds > 0 and not console.stopping.is_set():
        await asyncio.sleep(min(step, seconds))
        seconds -= step


def _missing(console: Console):  # type: ignore[no-untyped-def]
    nowhere = Route("show", "", frozenset(), lambda _: {})

    async def missing(request: Request, _: Exception) -> Response:
        from avocado.console.page import NotFound

        asked = _asked(request, nowhere, b"")
        if asked is None:
            return PlainTextResponse("Not found.\n", 404)
        found = await console.threads.run(lambda: failed(arrive(console, asked), NotFound()))
        return _response(console, found)

    return missing


async def _static(request: Request) -> Response:
    found = static_file(request.path_params["name"])
    if found is None:
        return PlainTextResponse("Not found.\n", 404)
    cached = f"public, max-age={YEAR}, immutable" if request.query_params.get("v") else "no-cache"
    return Response(found[0], media_type=found[1], headers={"cache-control": cached})


async def _icon(_: Request) -> Response:
    """For documents that are no pages of ours and name no icon: a PDF in its own tab."""
    return RedirectResponse("/static/avocado.svg", 308)


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok\n")
