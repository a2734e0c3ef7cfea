"""A client that leaves at every place of every stream: billed once, the engine let go, money whole.

Each client reads so many events and cuts the connection; the stand proves its book when it closes.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from avocado.engine.scripted import Script

MakeStand = Callable[..., Any]
REPLY = "<think> a b </think> c d e <tool_call>{} f"
WORDS = 12
TOOL: Any = {"name": "f", "parameters": {"type": "object"}}
CHAT: Any = {"messages": [{"role": "user", "content": "q"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {**CHAT, "tools": [{"type": "function", "function": TOOL}]},
    "/v1/completions": {"prompt": "q", "max_tokens": 50},
    "/v1/responses": {"input": "q", "tools": [{"type": "function", **TOOL}]},
    "/v1/messages": {
        **CHAT,
        "max_tokens": 50,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    },
}


def send(stand: Any, path: str, **more: Any) -> socket.socket:
    data = json.dumps({"model": "avocado-1", "stream": True, **BODIES[path], **more}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {stand.key.text}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    link = socket.create_connection(("127.0.0.1", stand.port), timeout=20)
    link.sendall(head.encode() + data)
    return link


def chunks(link: socket.socket) -> Iterator[bytes]:
    """Reads as they come; ends with the answer."""
    seen = b""
    while not seen.endswith(b"0\r\n\r\n"):
        data = link.recv(65536)
        if not data:
            return
        seen += data
        yield data


@pytest.mark.parametrize(
    ("path", "n"),
    [*((path, 1) for path in BODIES), ("/v1/chat/completions", 2), ("/v1/completions", 2)],
)
def test_fault_16_a_client_leaves_after_every_chunk(
    make_stand: MakeStand, path: str, n: int
) -> None:
    stand = make_stand(Script(REPLY, delay=0.004))
    more = {"n": n} if n > 1 else {}
    whole = len(list(chunks(send(stand, path, **more))))
    assert whole >= 5, "a stream comes in pieces"
    stand.idle()
    for read in range(whole + 1):
        before = len(stand.charges)
        link = send(stand, path, **more)
        for _, _ in zip(range(read), chunks(link), strict=False):
            pass
        link.close()
        if not read:  # it may not have begun yet: its line in the log is its end
            stand.until(lambda: len(stand.log) == 2)
        stand.idle()
        stand.until(lambda: stand.engine.running == 0, 1)
        new = stand.charges[before:]
        assert len(new) <= 1, "billed once at most"
        if read:
            (charge,) = new
            assert 1 <= charge.usage.completion <= n * WORDS
            if charge.finish == "disconnect":
                assert charge.usage.completion < n * WORDS
    finishes = {charge.finish for charge in stand.charges}
    assert "disconnect" in finishes
    assert stand.reader.open_holds() == []


@pytest.mark.parametrize("path", list(BODIES))
def test_fault_17_a_client_of_a_whole_answer_leaves(make_stand: MakeStand, path: str) -> None:
    stand = make_stand(Script("a " * 500, delay=0.01))
    link = send(stand, path, stream=False)
    stand.until(lambda: stand.engine.running == 1)
    link.close()
    stand.until(lambda: stand.engine.running == 0, 1)
    stand.idle()
    assert len(stand.charges) <= 1


@pytest.mark.parametrize("path", list(BODIES))
def test_fault_29_content_that_looks_like_the_end_of_a_stream(
    make_stand: MakeStand, path: str
) -> None:
    text = "a\n\ndata: [DONE]\n\nevent: message_stop\ndata: {}\n\n b"
    stand = make_stand(Script(text))
    body = {"model": "avocado-1", "stream": True, **BODIES[path]}
    answer = stand.call(path=path, body=body)
    told = [
        json.loads(line.removeprefix("data: "))
        for line in answer.body.decode().split("\n")
        if line.startswith("data: {")
    ]
    said = "".join(_text(event) for event in told)
    assert said == text


def _text(event: Any) -> str:
    """What one event adds to the text, on whatever surface."""
    if event.get("choices"):
        choice = event["choices"][0]
        return str(choice.get("text", choice.get("delta", {}).get("content")) or "")
    if event.get("type") == "response.output_text.delta":
        return str(event["delta"])
    if event.get("type") == "content_block_delta":
        return str(event["delta"].get("text", ""))
    return ""


@pytest.mark.parametrize("path", list(BODIES))
@pytest.mark.parametrize("text", [b"\\ud800", b"\\udfff x", b"\\ud800\\ud800"])
def test_fault_28_lone_surrogates_on_every_surface(stand: Any, path: str, text: bytes) -> None:
    body = (
        json.dumps({"model": "avocado-1", **BODIES[path]}).encode().replace(b'"q"', b'"%s"' % text)
    )
    answer = stand.call(path=path, body=body)
    assert answer.status == 400
    assert stand.charges == []


@pytest.mark.parametrize("path", list(BODIES))
def test_fault_28_nul_is_carried_or_refused(stand: Any, path: str) -> None:
    body = json.dumps({"model": "avocado-1", **BODIES[path]}).encode()
    answer = stand.call(path=path, body=body.replace(b'"q"', b'"a\\u0000b"'))
    assert answer.status in (200, 400)
