"""``avocado.toml``: what a person writes, as frozen values. An unknown key is an error.

Secrets never stand there: the file names the environment variables that hold them.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from avocado.errors import Refused

CONFIG = "avocado.toml"

CURRENCIES = frozenset(
    """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP
    BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP
    GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES
    KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU
    MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON
    RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND
    TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW
    ZWG
    """.split()
)
"""ISO 4217: currencies that are tender somewhere (source: CLDR 48, ``supplementalData``, read
2026-11). A slip such as ERU would stand in the ledger for good."""


class ServeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[serve]``: where the paid API listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8000
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-For is believed, such as ``10.0.0.0/8``."""


class LedgerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[ledger]``: a ``postgresql://`` address that many servers share, or our own file."""

    url: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None and not self.url.startswith(("postgresql://", "postgres://")):
            raise ValueError("url must begin with postgresql://")


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[limits]`` of a server; what is left out is the gateway's default."""

    requests_per_minute: Annotated[int, msgspec.Meta(ge=1)] | None = None
    tokens_per_minute: Annotated[int, msgspec.Meta(ge=1)] | None = None
    running: Annotated[int, msgspec.Meta(ge=1)] | None = None
    running_per_customer: Annotated[int, msgspec.Meta(ge=1)] | None = None
    connections: Annotated[int, msgspec.Meta(ge=1)] | None = None
    body_bytes: Annotated[int, msgspec.Meta(ge=1024)] | None = None
    default_max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    drain_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None

    def given(self) -> dict[str, int | float]:
        """What is set."""
        pairs = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in pairs if value is not None}


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[engine]``: what turns prompts into tokens. ``settings`` are the engine's own."""

    kind: Literal["embedded", "remote", "vllm"] = "embedded"
    settings: dict[str, Any] = {}


class TelemetryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[telemetry]``: where traces go, and whether prompts stand in the request log."""

    otlp_endpoint: str | None = None
    log_prompts: bool = False

    def __post_init__(self) -> None:
        given = self.otlp_endpoint
        if given is not None and not given.startswith(("http://", "https://")):
            raise ValueError(f"otlp_endpoint {given!r} does not begin with http:// or https://")


class VaultConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[vault]``: the key under which paid weights lie encrypted; without one they lie in plain,
    readable by their owner alone."""

    key_file: str | None = None
    """A file of mode 0600, best on another disk than the weights."""
    key_variable: str | None = None
    """Or the environment variable that holds the key."""
    plain_folder: str | None = None
    """A folder in memory (tmpfs), for engines that read plain files: vLLM."""

    def __post_init__(self) -> None:
        if self.key_file is not None and self.key_variable is not None:
            raise ValueError("name key_file or key_variable, not both")

    @property
    def used(self) -> bool:
        return self.key_file is not None or self.key_variable is not None


class SellerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[seller]``: who sells, as an invoice has to say. Without it invoices can be drawn up and
    not be closed."""

    name: str
    address: tuple[str, ...]
    """Street and what else stands above the town."""
    postcode: str
    city: str
    country: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$")]
    """ISO 3166, two letters."""
    vat_id: str | None = None
    tax_number: str | None = None
    email: str | None = None
    phone: str | None = None
    iban: str | None = None
    bic: str | None = None
    invoice_series: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9/-]{1,24}$")] = "INV"
    """What stands before an invoice's number; a new one begins again at 1."""
    register: str | None = None
    """Where the company is entered, such as ``Amtsgericht Berlin, HRB 12345``."""


class TaxConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[tax]``: what is added to invoices. ``none`` adds nothing and says why in ``note``."""

    kind: Literal["none", "table", "stripe"] = "none"
    table: str | None = None
    """A TOML file of rates with dates, beside avocado.toml; the shipped one if left out."""
    note: str | None = None
    """Such as ``Kein Ausweis von Umsatzsteuer, § 19 UStG``."""


class BillingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[billing]``: when invoices are closed and when they are due."""

    close: Literal["automatic", "by hand"] = "by hand"
    due_days: Annotated[int, msgspec.Meta(ge=0, le=365)] = 14
    webhook_networks: tuple[str, ...] = ()
    """Networks that are not public and that customers' webhooks may go to all the same, such as
    ``10.0.0.0/8``; there also without TLS."""

    def __post_init__(self) -> None:
        for each in self.webhook_networks:
            ip_network(each)


class MailConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[mail]``: the SMTP server that takes our mail. The password stands in the environment."""

    host: str
    sender: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password_variable: str | None = None


class PaymentsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[payments]``: who takes money for us. Its keys stand in the environment:
    ``STRIPE_API_KEY`` and ``STRIPE_WEBHOOK_SECRET``."""

    provider: Literal["stripe"] = "stripe"
    api_base: str | None = None
    """Another address than Stripe's own, for tests."""
    minimum: str = "5.00"
    """The least top-up, in units of the workspace's currency."""


class OidcConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[console.oidc]``: people sign in where they have an account already."""

    issuer: str
    client_id: str
    secret_variable: str
    """The environment variable that holds the client secret."""
    name: str = "Single sign-on"
    """What the button says."""


class ConsoleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[console]``: where customers' and operators' pages are served."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8100
    public_url: str | None = None
    """How browsers reach it, such as ``https://console.example.com``; its host is the only one
    answered. Without it that is this machine alone, over HTTP."""
    api_url: str | None = None
    """How customers reach the paid API, as the snippets show it; ``[serve]``'s if left out."""
    trusted_proxies: tuple[str, ...] = ()
    session_hours: Annotated[int, msgspec.Meta(ge=1, le=720)] = 12
    oidc: OidcConfig | None = None

    def __post_init__(self) -> None:
        for given in (self.public_url, self.api_url):
            if given is not None and not given.startswith(("http://", "https://")):
                raise ValueError(f"{given!r} does not begin with http:// or https://")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``avocado.toml``. An unknown key is an error, so a typo never passes for a setting."""

    name: str
    currency: str = "USD"
    serve: ServeConfig = ServeConfig()
    ledger: LedgerConfig = LedgerConfig()
    limits: LimitsConfig = LimitsConfig()
    engine: EngineConfig = EngineConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    vault: VaultConfig = VaultConfig()
    seller: SellerConfig | None = None
    tax: TaxConfig = TaxConfig()
    billing: BillingConfig = BillingConfig()
    mail: MailConfig | None = None
    payments: PaymentsConfig | None = None
    console: ConsoleConfig = ConsoleConfig()
    gate: dict[str, Any] | None = None
    """``[gate]``: what a release has to prove; ``release.rules`` reads it, as strictly."""

    def __post_init__(self) -> None:
        if self.currency not in CURRENCIES:
            raise ValueError(f"currency {self.currency!r} is none of ISO 4217, such as EUR or USD")


def read_config(path: Path) -> Config:
    """Reads ``avocado.toml``.

    Raises:
        Refused: no TOML, an unknown key or a value of the wrong type; the sentence names it.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Config)
    except (msgspec.DecodeError, OSError) as error:
        raise Refused(f"{path}: {error}") from error
