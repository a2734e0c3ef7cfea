"""OpenID Connect against a real provider on this machine, which signs, and sometimes lies."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from avocado.console import events
from avocado.console.store import open_store
from tests.console.conftest import House, MakeHouse

SECRET = "a client secret of this test"


@dataclass
class Issuer:
    """An OpenID provider that knows one person. ``claims`` and ``key`` make it lie."""

    email: str = "admin@acme.example"
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    key: Any = None
    url: str = ""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.own = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})

    def authorize(self, url: str) -> str:
        """What the browser does at the provider's: signs in, and goes back with a code."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.asked.append(asked)
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return f"/oidc/callback?code={code}&state={asked['state']}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        asked = self.codes.pop(form.get("code", ""), None)
        basic = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        if asked is None or basic != f"console:{SECRET.replace(' ', '+')}".replace("+", " "):
            return 400, {"error": "invalid_grant"}
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked.get("code_challenge") != challenge or asked["code_challenge_method"] != "S256":
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "console",
            "sub": "42",
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            "email": self.email,
            "email_verified": True,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": "RS256", "kid": "one", **self.header}
        signed = jwt.encode(header, claims, self.key or self.own, algorithms=[header["alg"]])
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": signed}


def handler(issuer: Issuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/.well-known/openid-configuration":
                self.send(
                    200,
                    {
                        "issuer": issuer.url,
                        "authorization_endpoint": f"{issuer.url}/authorize",
                        "token_endpoint": f"{issuer.url}/token",
                        "jwks_uri": f"{issuer.url}/keys",
                    },
                )
            elif self.path == "/keys":
                self.send(200, KeySet([issuer.own]).as_dict(private=False))
            else:
                self.send(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self.send(*issuer.token(form, self.headers.get("authorization", "")))

        def send(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    return Handler


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    found = Issuer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(found))
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def house(make_house: MakeHouse, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("CONSOLE_OIDC_SECRET", SECRET)
    made = make_house(
        f'[console.oidc]\nissuer = "{issuer.url}"\nclient_id = "console"\n'
        'secret_variable = "CONSOLE_OIDC_SECRET"\nname = "Acme SSO"\n'
    )
    made.person("admin")
    return made


def go(house: House, issuer: Issuer, path: str = "/oidc/start") -> tuple[Any, Any]:
    """A browser that went to the provider and came back; and the answer to its coming back."""
    browser = house.browser()
    begun = browser.get(path)
    assert begun.status_code == 303, begun.text
    return browser, browser.get(issuer.authorize(begun.headers["location"]))


def test_signing_in_with_the_provider(house: House, issuer: Issuer) -> None:
    assert "Acme SSO" in house.browser().get("/sign-in").text
    browser, answer = go(house, issuer, "/oidc/start?next=/usage")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/usage"
    assert browser.get("/overview").status_code == 200
    asked = issuer.asked[0]
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"].endswith("/oidc/callback")
    assert len(asked["state"]) >= 32
    assert len(asked["nonce"]) >= 32


LIES: list[tuple[str, dict[str, Any]]] = [
    ("issuer", {"iss": "https://evil.example"}),
    ("audience", {"aud": "somebody else"}),
    ("several audiences without azp", {"aud": ["console", "other"]}),
    ("over", {"exp": int(time.time()) - 3600}),
    ("from the future", {"iat": int(time.time()) + 3600, "nbf": int(time.time()) + 3600}),
    ("nonce", {"nonce": "another"}),
    ("no nonce", {"nonce": None}),
    ("no subject", {"sub": None}),
    ("not verified", {"email_verified": False}),
    ("verified in words", {"email_verified": "true"}),
    ("no word of it", {"email_verified": None}),
    ("no address", {"email": None}),
]


@pytest.mark.parametrize(("name", "claims"), LIES, ids=[name for name, _ in LIES])
def test_a_token_that_says_something_else_is_not_believed(
    house: House, issuer: Issuer, name: str, claims: dict[str, Any]
) -> None:
    issuer.claims = claims
    browser, answer = go(house, issuer)
    assert answer.headers["location"] == "/sign-in", name
    assert browser.get("/overview").status_code == 303
    newest = events.newest(open_store(house.console.place), 1)[0]
    assert newest.kind == "sign-in-failed"


def test_a_token_signed_by_somebody_else_is_not_believed(house: House, issuer: Issuer) -> None:
    public = json.dumps(issuer.own.as_dict(private=False)).encode()
    for key, header in (
        (RSAKey.generate_key(2048, {"kid": "one"}), {}),
        (ECKey.generate_key("P-256", {"kid": "one"}), {"alg": "ES256"}),
        (OctKey.import_key(SECRET.ljust(32)), {"alg": "HS256"}),
        (OctKey.import_key(public), {"alg": "HS256"}),
    ):
        issuer.key, issuer.header = key, header
        browser, answer = go(house, issuer)
        assert answer.headers["location"] == "/sign-in"
        assert browser.get("/overview").status_code == 303


def test_a_key_that_was_changed_meanwhile_is_fetched(house: House, issuer: Issuer) -> None:
    assert go(house, issuer)[1].headers["location"] == "/"
    issuer.own = RSAKey.generate_key(2048, {"kid": "two"})
    issuer.header = {"kid": "two"}
    assert go(house, issuer)[1].headers["location"] == "/"


def test_who_has_no_account_gets_none(house: House, issuer: Issuer) -> None:
    issuer.email = "stranger@acme.example"
    browser, answer = go(house, issuer)
    assert answer.headers["location"] == "/sign-in"
    assert "Nobody signs in here as stranger@acme.example" in browser.get("/sign-in").text


def test_an_answer_that_another_browser_began_is_refused(house: House, issuer: Issuer) -> None:
    """Login CSRF: somebody sends you the end of their own sign-in."""
    other = house.browser()
    link = issuer.authorize(other.get("/oidc/start").headers["location"])
    victim = house.browser()
    assert victim.get(link).headers["location"] == "/sign-in"
    victim.get("/oidc/start")
    assert victim.get(link).headers["location"] == "/sign-in"
    assert victim.get("/overview").status_code == 303


def test_a_code_works_once_and_a_refusal_is_told(house: House, issuer: Issuer) -> None:
    browser = house.browser()
    link = issuer.authorize(browser.get("/oidc/start").headers["location"])
    assert browser.get(link).headers["location"] == "/"
    fresh = house.browser()
    for cookie in browser.http.cookies.jar:
        if cookie.name == "av_oidc":
            fresh.http.cookies.set(cookie.name, cookie.value or "")
    assert fresh.get(link).headers["location"] == "/sign-in"
    browser = house.browser()
    begun = browser.get("/oidc/start").headers["location"]
    state = parse_qs(urlsplit(begun).query)["state"][0]
    answer = browser.get(f"/oidc/callback?error=access_denied&state={state}")
    assert answer.headers["location"] == "/sign-in"
    assert "access_denied" in browser.get("/sign-in").text


def test_without_a_provider_there_is_no_such_page(make_house: MakeHouse) -> None:
    house = make_house()
    assert house.browser().get("/oidc/start").status_code == 404
    assert house.browser().get("/oidc/callback?code=x").status_code == 404


def test_a_provider_in_plain_http_far_away_is_refused(make_house: MakeHouse) -> None:
    house = make_house(
        '[console.oidc]\nissuer = "http://sso.example"\nclient_id = "c"\nsecret_variable = "X"\n'
    )
    answer = house.browser().get("/oidc/start")
    assert answer.status_code == 422
    assert "is not https" in answer.text
