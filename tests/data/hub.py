"""A stand-in for the hub: one data set at one commit, over HTTP on this machine.

Speaks the few calls that ``huggingface_hub`` and ``datasets`` make to stream a public data set.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repo: str, files: Mapping[str, bytes]) -> Iterator[str]:
    """Serves ``repo``; gives the address to put into ``HF_ENDPOINT``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            wanted = set(re.findall(rb"[\w.-]+", asked.replace(b"%2F", b"/")))
            self._json([each for each in _entries(files) if each["path"].encode() in wanted])

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            found = re.fullmatch(rf"/datasets/{repo}/resolve/[^/]+/(.+)", path)
            if found and found[1] in files:
                self._file(files[found[1]], body=body)
            elif re.fullmatch(rf"/api/datasets/{repo}/tree/[^/]+", path):
                self._json(_entries(files))
            elif path in (f"/api/datasets/{repo}", *_revisions(repo)):
                names = [{"rfilename": name} for name in files]
                self._json({"id": repo, "sha": COMMIT, "siblings": names, "private": False})
            else:
                code = "RevisionNotFound" if f"/{repo}/" in path else "RepoNotFound"
                if found or f"/tree/{COMMIT}/" in path:
                    code = "EntryNotFound"
                self._send(404, b"", {"X-Error-Code": code})

        def _file(self, data: bytes, *, body: bool) -> None:
            first, last = 0, len(data) - 1
            status = 200
            if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                status, first, last = 206, int(asked[1]), min(int(asked[2] or last), last)
            more = {
                "ETag": '"abc"',
                "X-Repo-Commit": COMMIT,
                "Accept-Ranges": "bytes",
                "Content-Range": f"bytes {first}-{last}/{len(data)}",
            }
            self._send(status, data[first : last + 1], more, body=body)

        def _json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send(
            self, status: int, data: bytes, more: Mapping[str, str], *, body: bool = True
        ) -> None:
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body and self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _revisions(repo: str) -> list[str]:
    return [f"/api/datasets/{repo}/revision/{each}" for each in ("main", COMMIT)]


def _entries(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": name, "size": len(data), "oid": f"{number:040x}"}
        for number, (name, data) in enumerate(sorted(files.items()))
    ]
