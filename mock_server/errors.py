"""The error bodies of the Gemini API that are no 429: pure values, no HTTP library.

Texts are as recorded from the service up to November 2026 (the 429s live in `mock_server.refusals`). Raise an
`ApiError` anywhere below the server; it alone turns it into a response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
SERVICE = "generativelanguage.googleapis.com"
_TYPE = "type.googleapis.com/google.rpc."


class ApiError(Exception):
    """An answer other than 200: HTTP code, message, and details in Google's form.

    ``extra`` are further fields beside ``status``.
    """

    def __init__(self, code: int, message: str, details: list[dict[str, Any]] | None = None, status: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or []
        self.status = status or STATUS[code]
        self.extra: dict[str, Any] = {}

    def body(self) -> dict[str, Any]:
        """Return the JSON body; without details the key is absent, as on the service."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "status": self.status}
        if self.details:
            error["details"] = self.details
        return {"error": error | self.extra}


def wrong_key() -> ApiError:
    """Refuse a key that does not exist: a 400, not a 401."""
    message = "API key not valid. Please pass a valid API key."
    info = {
        "@type": f"{_TYPE}ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": SERVICE},
    }
    return ApiError(400, message, [info, {"@type": f"{_TYPE}LocalizedMessage", "locale": "en-US", "message": message}])


def _forbidden(message: str, reason: str = "") -> ApiError:
    info = {
        "@type": f"{_TYPE}ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"service": SERVICE},
    }
    return ApiError(403, message, [info] if reason else None)


# What may be wrong with a key that a profile rejects, in the recorded words.
_REJECTIONS: dict[str, Callable[[], ApiError]] = {
    "invalid": wrong_key,
    "expired": lambda: ApiError(400, "API key expired. Please renew the API key."),
    "location": lambda: ApiError(400, "User location is not supported for the API use.", status="FAILED_PRECONDITION"),
    "leaked": lambda: _forbidden("Your API key was reported as leaked. Please use another API key."),
    "denied": lambda: _forbidden("Your project has been denied access. Please contact support."),
    "suspended": lambda: _forbidden(
        "Permission denied: Consumer 'api_key:REDACTED' has been suspended.", "CONSUMER_SUSPENDED"
    ),
    "referrer": lambda: _forbidden("Requests from referer <empty> are blocked.", "API_KEY_HTTP_REFERRER_BLOCKED"),
    "disabled": lambda: _forbidden(
        "Generative Language API has not been used in project 1 before or it is disabled. Enable it by visiting "
        f"https://console.developers.google.com/apis/api/{SERVICE}/overview?project=1 then retry. If you enabled this "
        "API recently, wait a few minutes for the action to propagate to our systems and retry.",
        "SERVICE_DISABLED",
    ),
}
REJECTIONS = tuple(_REJECTIONS)


def rejected_key(reason: str) -> ApiError:
    """Refuse a key for one of `REJECTIONS`."""
    return _REJECTIONS[reason]()


def no_key() -> ApiError:
    """Refuse a call without a key."""
    return ApiError(
        403,
        "Method doesn't allow unregistered callers (callers without established identity). "
        "Please use API Key or other form of API consumer identity to call this API.",
    )


def no_token() -> ApiError:
    """Refuse a call to Vertex without an access token."""
    message = (
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
    )
    info = {"@type": f"{_TYPE}ErrorInfo", "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED", "domain": "googleapis.com"}
    return ApiError(401, message, [info])


def unknown_model(name: str, version: str, method: str) -> ApiError:
    """Refuse a model that the catalogue does not hold, or that cannot do this."""
    return ApiError(
        404,
        f"models/{name} is not found for API version {version}, or is not supported for {method}. "
        "Call ModelService.ListModels to see the list of available models and their supported methods.",
    )


def unknown_path() -> ApiError:
    """Refuse a path that no method answers."""
    return ApiError(404, "Requested entity was not found.")


def invalid(message: str) -> ApiError:
    """Refuse a request that makes no sense, in the given words."""
    return ApiError(400, message)


def invalid_json(what: str, field: str = "") -> ApiError:
    """Refuse a payload that does not fit the message type; ``what`` continues Google's sentence."""
    message = f"Invalid JSON payload received. {what}"
    violation = {"description": message} if not field else {"field": field, "description": message}
    return ApiError(400, message, [{"@type": f"{_TYPE}BadRequest", "fieldViolations": [violation]}])


def too_many_tokens(limit: int, *, vertex: bool = False) -> ApiError:
    """Refuse a prompt longer than the model takes; Vertex writes the number without parentheses."""
    number = str(limit) if vertex else f"({limit})"
    return ApiError(400, f"The input token count exceeds the maximum number of tokens allowed {number}.")


def no_cache() -> ApiError:
    """Refuse a cache that is not there, or not this project's: the service does not tell which."""
    return ApiError(403, "CachedContent not found (or permission denied)")


def no_file(name: str) -> ApiError:
    """Refuse a file: the mock stores none, so none is found."""
    return ApiError(404, f"File {name[:80]} not found.")


def too_large() -> ApiError:
    """Refuse a body longer than the front end takes."""
    return ApiError(413, "Request payload size exceeds the limit.")


def overloaded_old() -> ApiError:
    """Make a 503, in the text of early 2026."""
    return ApiError(503, "The model is overloaded. Please try again later.")


def cancelled() -> ApiError:
    """Make a 499."""
    return ApiError(499, "The operation was cancelled.")


def overloaded() -> ApiError:
    """Make a 503, in the newer of its two texts."""
    return ApiError(
        503,
        "This model is currently experiencing high demand. Spikes in demand are usually temporary. "
        "Please try again later.",
    )


def store_lost() -> ApiError:
    """Make a 503 for counters that cannot be reached."""
    return ApiError(503, "The service is currently unavailable.")


def internal() -> ApiError:
    """Make a plain 500."""
    return ApiError(500, "Internal error encountered.")


def deadline() -> ApiError:
    """Make a 504."""
    return ApiError(504, "Deadline expired before operation could complete.")
