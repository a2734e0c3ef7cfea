"""A stand-in for a hub's API, in memory: what huggingface_hub asks of it for a push by LFS."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """``repositories``: name → private; ``files``: of each, path → bytes; ``objects``: by SHA-256.

    ``broken``: part of a path → the status with which it answers; ``cut``: so many uploads succeed.
    """

    repositories: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    cut: int | None = None
    calls: list[str] = field(default_factory=list)
    url: str = ""
    token: str = "hf_right"

    def commit(self, name: str, lines: list[dict[str, Any]]) -> str:
        files = dict(self.files[name])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.files[name] = files
        self.heads[name] = hashlib.sha1(json.dumps(sorted(files)).encode()).hexdigest()
        return self.heads[name]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _say(self, status: int, value: Any = None) -> None:
        data = json.dumps(value if value is not None else {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status >= 400 and isinstance(value, dict) and "error" in value:
            self.send_header("X-Error-Message", value["error"])
        self.end_headers()
        self.wfile.write(data)

    def _begin(self) -> tuple[str, bytes] | None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = self.path.partition("?")[0]
        hub = self.hub
        hub.calls.append(f"{self.command} {path}")
        for part, status in hub.broken.items():
            if part in path:
                self._say(status, {"error": f"broken by the test with {status}"})
                return None
        right = self.headers.get("Authorization") == f"Bearer {hub.token}"
        if not right and not path.startswith("/put/"):  # an address for an upload is its own key
            self._say(401, {"error": "Invalid credentials"})
            return None
        return path, body

    def do_GET(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        path, hub = begun[0], self.hub
        named = re.match(r"/api/models/([^/]+/[^/]+)", path)
        if named and named[1] not in hub.repositories:
            self._say(404, {"error": "Repository not found"})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/main", path):
            files = hub.files[match[1]]
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in files.items()
            ]
            self._say(200, rows)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/main)?", path):
            name = match[1]
            siblings = [{"rfilename": each} for each in hub.files[name]]
            self._say(
                200,
                {
                    "id": name,
                    "sha": hub.heads[name],
                    "private": hub.repositories[name],
                    "siblings": siblings,
                },
            )
        else:
            self._say(404, {"error": "no such page"})

    def do_POST(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        (path, body), hub = begun, self.hub
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'me'}/{asked['name']}"
            if name in hub.repositories:
                self._say(409, {"error": "You already created this model repo", "url": name})
                return
            hub.repositories[name] = asked.get("visibility") == "private"
            hub.files[name] = {".gitattributes": b"* lfs"}
            hub.heads[name] = "1" * 40
            self._say(200, {"url": f"{hub.url}/{name}"})
        elif path == "/api/validate-yaml":
            self._say(200, {"errors": [], "warnings": []})
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", path):
            rows = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            self._say(200, {"files": rows})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = []
            for each in json.loads(body)["objects"]:
                row: dict[str, Any] = {"oid": each["oid"], "size": each["size"]}
                if each["oid"] not in hub.objects:
                    row["actions"] = {"upload": {"href": f"{hub.url}/put/{each['oid']}"}}
                objects.append(row)
            self._say(200, {"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            lines = [json.loads(line) for line in body.splitlines() if line]
            oid = hub.commit(match[1], lines)
            self._say(200, {"commitUrl": f"{hub.url}/{match[1]}/commit/{oid}", "commitOid": oid})
        else:
            self._say(404, {"error": "no such page"})

    def do_PUT(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        (path, body), hub = begun, self.hub
        if hub.cut is not None:
            if hub.cut == 0:
                self._say(403, {"error": "the link was cut"})
                return
            hub.cut -= 1
        oid = path.removeprefix("/put/")
        assert hashlib.sha256(body).hexdigest() == oid
        hub.objects[oid] = body
        self._say(200)


@contextmanager
def standing() -> Iterator[Hub]:
    """A hub that listens on 127.0.0.1."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
