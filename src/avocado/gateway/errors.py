"""ApiError: every refusal of the API, in the shape that OpenAI's clients read.

What the ledger, an engine or a template says no with is translated here, once, so that a status
means the same on every surface: 402 is money, 429 is rate, 503 is us. Knows nothing about sockets.
"""

from __future__ import annotations

from math import ceil
from typing import Final

import msgspec

from avocado.data.chat import RenderError
from avocado.engine.engine import EngineBusy, EngineError, PromptTooLong, Unsupported
from avocado.ledger.errors import (
    AccountFrozen,
    CurrencyMismatch,
    Duplicate,
    IdempotencyConflict,
    InsufficientFunds,
    KeyRevoked,
    LedgerError,
    LedgerUnavailable,
    SpendLimitReached,
    UnknownCustomer,
    UnknownKey,
    UsageBeyondHold,
)

MAX_MESSAGE: Final = 1000
MAX_PARAM: Final = 200
"""Characters of what a client sent that an error may repeat to it."""


KEY_IN_USE: Final = "idempotent_request_exists"
"""The ledger knows the Idempotency-Key; ``retry_after`` is set while its request still runs."""


class ApiError(Exception):
    """One refusal: an HTTP ``status`` and the fields of OpenAI's error object.

    ``retry_after`` is in whole seconds; ``allow`` is the Allow header of a 405.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message[:MAX_MESSAGE]
        self.type = type
        self.code = code
        self.param = param[:MAX_PARAM] if param else param
        self.retry_after = retry_after
        self.allow = allow

    def fields(self) -> dict[str, str | None]:
        """The inner object of ``{"error": …}``."""
        return {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }

    def body(self) -> bytes:
        return msgspec.json.encode({"error": self.fields()})


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A 400 that names the parameter at fault."""
    return ApiError(400, message, param=param, code=code)


def unsupported(param: str, message: str | None = None) -> ApiError:
    """A 400 for what a client may send to other servers but which is not served here."""
    said = message or f"{param} is not supported by this server; leave it out"
    return bad_request(said, param, "unsupported_parameter")


def not_allowed(message: str, code: str, param: str | None = None) -> ApiError:
    """The caller is known, and this is not for it."""
    return ApiError(403, message, type="permission_error", code=code, param=param)


def unauthorized(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key")


def overloaded(message: str, retry_after: int = 1) -> ApiError:
    """More than we can serve now; nothing was counted or charged."""
    return ApiError(
        429, message, type="rate_limit_error", code="overloaded", retry_after=retry_after
    )


def unavailable(message: str, code: str, retry_after: int = 1) -> ApiError:
    return ApiError(503, message, type="server_error", code=code, retry_after=retry_after)


def model_not_found(name: str) -> ApiError:
    return ApiError(
        404,
        f"The model {name!r} does not exist or you have no access to it; GET /v1/models lists "
        "what there is",
        code="model_not_found",
        param="model",
    )


def idempotency_conflict() -> ApiError:
    return ApiError(
        409, "This Idempotency-Key was used with another request body", code="idempotency_conflict"
    )


def internal() -> ApiError:
    """Our own mistake. The cause is in the log, not in the answer."""
    return ApiError(
        500, "The server failed; the request id names it in our log", type="server_error"
    )


def of_ledger(error: LedgerError) -> ApiError:
    """What a customer is told when the book says no."""
    if isinstance(error, InsufficientFunds):
        return ApiError(
            402,
            "Your balance does not cover this request: "
            f"up to {_units(error.needed)} are needed, {_units(error.available)} are available",
            type="insufficient_quota",
            code="credit_balance_exhausted",
        )
    if isinstance(error, SpendLimitReached):
        left = max(0, error.limit - error.spent)
        return ApiError(
            402,
            f"The {error.period} spend limit of this {error.scope} leaves {_units(left)}; "
            f"up to {_units(error.needed)} are needed",
            type="insufficient_quota",
            code="spend_limit_exceeded",
        )
    if isinstance(error, UnknownKey | KeyRevoked | UnknownCustomer):
        return unauthorized("This API key is not valid any more")
    if isinstance(error, AccountFrozen):
        return not_allowed(
            "This account is frozen and starts no requests; ask who runs this service",
            "account_frozen",
        )
    if isinstance(error, IdempotencyConflict):
        return idempotency_conflict()
    if isinstance(error, Duplicate):
        running = error.state == "open"
        said = "is still running" if running else "was charged, and its answer is not kept any more"
        return ApiError(
            409,
            f"This Idempotency-Key was used before: request {error.hold} {said}",
            code=KEY_IN_USE,
            retry_after=1 if running else None,
        )
    if isinstance(error, CurrencyMismatch):
        return ApiError(
            403,
            f"This model is sold in {error.got} and your account is in {error.expected}",
            type="permission_error",
            code="currency_mismatch",
        )
    if isinstance(error, UsageBeyondHold):
        return ApiError(
            502,
            "The engine reported usage that cannot be; nothing was charged",
            type="server_error",
        )
    if isinstance(error, LedgerUnavailable):
        return unavailable(
            "The ledger did not answer, so nothing was served; try again", "ledger_unavailable"
        )
    return internal()


def of_engine(error: BaseException) -> ApiError:
    """What a customer is told when the engine or the template says no."""
    if isinstance(error, PromptTooLong):
        return bad_request(str(error), "messages", "context_length_exceeded")
    if isinstance(error, RenderError):
        return bad_request(str(error), "messages")
    if isinstance(error, EngineBusy):
        return overloaded("The engine is full; try again in a moment", ceil(error.retry_after))
    if isinstance(error, Unsupported):
        return unsupported(error.field, str(error))
    if isinstance(error, EngineError):
        return ApiError(
            503 if error.retryable else 500,
            "The engine failed before it could finish; you were not charged for text that you "
            "did not receive",
            type="server_error",
            code="engine_error",
            retry_after=1 if error.retryable else None,
        )
    return internal()


def _units(nanos: int) -> str:
    """Nano-units as a decimal; the ledger's refusals carry no currency."""
    sign = "-" if nanos < 0 else ""
    whole, fraction = divmod(abs(nanos), 1_000_000_000)
    return f"{sign}{whole}.{fraction:09d}".rstrip("0").rstrip(".")
