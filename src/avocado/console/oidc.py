"""Sign-in by OpenID Connect: the code flow, with PKCE, state and nonce, as OpenID Connect Core 1.0
and RFC 9700 want it.

What must not be forged between the two visits (state, nonce, the verifier, where to go then) lies
in a sealed cookie of ten minutes in the very browser that began. The ID token's signature, issuer,
audience, times and nonce are checked. It tells an address that its issuer has verified; who has no
account here under that address gets none by it.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import threading
import time
from typing import Any, Final
from urllib.parse import urlsplit

from avocado.configuration import CONFIG, OidcConfig
from avocado.console import events, people
from avocado.console.console import Console
from avocado.console.page import NotFound, Pages, Redirect, Reply, Visit
from avocado.console.roles import PUBLIC
from avocado.console.sending import cookie_name, onward
from avocado.console.signing_in import enter
from avocado.errors import Refused

PAGES = Pages()
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
"""Signatures by the issuer's private key. Never "none", nor one by a secret that we have too."""
TIMEOUT_SECONDS: Final = 10
LEEWAY_SECONDS: Final = 60
REMEMBERED_SECONDS: Final = 3600


class NotSignedIn(Refused):
    """The provider's answer is not believed, or says no."""


class Provider:
    """A provider's addresses and keys, read when they are first needed and each hour."""

    def __init__(self, config: OidcConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._read = 0.0
        self._found: dict[str, Any] = {}
        self._keys: dict[str, Any] = {}

    def about(self) -> dict[str, Any]:
        """The discovery document. Raises Refused."""
        with self._lock:
            if not self._found or time.monotonic() - self._read > REMEMBERED_SECONDS:
                issuer = self.config.issuer.rstrip("/")
                found = _get(f"{issuer}/.well-known/openid-configuration")
                if str(found.get("issuer", "")).rstrip("/") != issuer:
                    raise Refused(f"[console.oidc] {issuer} says that it is another issuer")
                self._found, self._keys, self._read = found, {}, time.monotonic()
            return self._found

    def keys(self, afresh: bool = False) -> dict[str, Any]:
        """The issuer's public keys. Raises Refused."""
        url = self.about()["jwks_uri"]
        with self._lock:
            if afresh or not self._keys:
                self._keys = _get(url)
            return self._keys


def _get(url: str) -> dict[str, Any]:
    import requests

    _check(url)
    try:
        answer = requests.get(url, timeout=TIMEOUT_SECONDS, allow_redirects=False)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise Refused(f"the sign-in provider did not answer at {url}: {error}") from error
    return found


def _check(url: str) -> None:
    """Tokens and keys travel over TLS, or stay on this machine."""
    parts = urlsplit(url)
    near = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and near):
        raise Refused(f"[console.oidc] in {CONFIG}: {url} is not https")


def provider_of(console: Console) -> Provider:
    """Raises NotFound where none is configured."""
    if console.config.oidc is None:
        raise NotFound
    found = console.kept.setdefault("oidc", Provider(console.config.oidc))
    assert isinstance(found, Provider)
    return found


def _session(console: Console, provider: Provider) -> Any:
    from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]

    config = provider.config
    secret = os.environ.get(config.secret_variable)
    if not secret:
        raise Refused(f"[console.oidc] secret_variable: {config.secret_variable} is not set")
    return OAuth2Session(
        config.client_id,
        secret,
        scope="openid email",
        redirect_uri=f"{console.origin}/oidc/callback",
        code_challenge_method="S256",
        default_timeout=TIMEOUT_SECONDS,
    )


@PAGES.show("/oidc/start", roles=PUBLIC)
def start(visit: Visit) -> Reply:
    """Sends the browser to the provider."""
    provider = provider_of(visit.console)
    target = provider.about()["authorization_endpoint"]
    _check(target)
    begun = {
        "state": secrets.token_urlsafe(24),
        "nonce": secrets.token_urlsafe(24),
        "verifier": secrets.token_urlsafe(48),
        "next": onward(visit.query.get("next", "/")),
    }
    url, _ = _session(visit.console, provider).create_authorization_url(
        target, state=begun["state"], nonce=begun["nonce"], code_verifier=begun["verifier"]
    )
    packed = base64.urlsafe_b64encode(json.dumps(begun).encode()).decode()
    sealed = f"{packed}.{visit.console.sign('oidc', packed)}"
    return Redirect(url, abroad=True, briefly=(("oidc", sealed),))


@PAGES.show("/oidc/callback", roles=PUBLIC)
def callback(visit: Visit) -> Reply:
    """Takes the browser back, and in."""
    provider = provider_of(visit.console)
    try:
        begun = _begun(visit)
        email = _email(visit, provider, begun)
    except NotSignedIn as refused:
        return _turned_away(visit, "; ".join(refused.reasons))
    database = visit.console.threads.database()
    person = people.by_email(database, email)
    if person is None:
        return _turned_away(visit, visit.t("door.unknown", email=email))
    return enter(visit, person, f"OpenID Connect by {provider.config.issuer}", begun["next"])


def _begun(visit: Visit) -> dict[str, str]:
    """What this browser began with. Raises NotSignedIn where it began nothing, or something else
    (somebody else's link: login CSRF)."""
    packed, _, seal = visit.cookies.get(cookie_name(visit.console, "oidc"), "").partition(".")
    if not packed or not hmac.compare_digest(
        seal.encode(), visit.console.sign("oidc", packed).encode()
    ):
        raise NotSignedIn(visit.t("door.oidc_begin"))
    begun: dict[str, str] = json.loads(base64.urlsafe_b64decode(packed))
    if not hmac.compare_digest(visit.query.get("state", "").encode(), begun["state"].encode()):
        raise NotSignedIn(visit.t("door.oidc_begin"))
    if "error" in visit.query:
        raise NotSignedIn(visit.t("door.oidc_no", why=visit.query.text("error")))
    return begun


def _email(visit: Visit, provider: Provider, begun: dict[str, str]) -> str:
    """The verified address that the provider vouches for. Raises NotSignedIn."""
    import requests
    from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]

    about = provider.about()
    _check(about["token_endpoint"])
    try:
        token = _session(visit.console, provider).fetch_token(
            about["token_endpoint"],
            code=visit.query.get("code", ""),
            code_verifier=begun["verifier"],
            grant_type="authorization_code",
        )
    except (AuthlibBaseError, requests.RequestException, ValueError) as error:
        raise NotSignedIn(visit.t("door.oidc_no", why=str(error)[:200])) from error
    claims = _claims(visit, provider, str(token.get("id_token", "")), begun["nonce"])
    if claims.get("email_verified") is not True or not isinstance(claims.get("email"), str):
        raise NotSignedIn(visit.t("door.oidc_email"))
    return people.read_email(claims["email"])


def _claims(visit: Visit, provider: Provider, token: str, nonce: str) -> dict[str, Any]:
    """The ID token's claims, after every check of OpenID Connect Core 1.0, 3.1.3.7."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    config = provider.config
    rules = jwt.JWTClaimsRegistry(
        now=lambda: visit.now // 10**9,
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": provider.about()["issuer"]},
        aud={"essential": True, "value": config.client_id},
        exp={"essential": True},
        iat={"essential": True},
        sub={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    for afresh in (False, True):  # a key that the issuer has just changed is fetched once
        try:
            keys = KeySet.import_key_set(provider.keys(afresh))  # type: ignore[arg-type]
            found = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
            rules.validate(found.claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            if afresh:
                raise NotSignedIn(visit.t("door.oidc_token", why=str(error)[:200])) from error
            continue
        audience = found.claims["aud"]
        if isinstance(audience, list) and found.claims.get("azp") != config.client_id:
            raise NotSignedIn(visit.t("door.oidc_token", why="azp"))
        return dict(found.claims)
    raise AssertionError("unreachable")


def _turned_away(visit: Visit, why: str) -> Redirect:
    events.note(
        visit.console.threads.database(),
        visit.now,
        "sign-in-failed",
        "OpenID Connect",
        address=visit.address,
        detail=why,
    )
    return Redirect("/sign-in", why, "bad", briefly=(("oidc", None),))
