"""What a client is told when a request cannot be answered, in the words of each API."""

import re
from collections.abc import Callable
from typing import Any

from edgeq.errors import ContextError, EdgeqError, TemplateError, TokenizerError, UnsupportedError, UsageError
from edgeq.talk.refused import Refused

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_CALLERS = (ContextError, TemplateError, TokenizerError, UnsupportedError, UsageError)  # of the request, not of us

Shape = Callable[["Failure"], dict[str, Any]]


class Failure(Exception):
    """A request that is refused or cannot go on.

    status       the HTTP status
    code         what programs go by, e.g. "context_length_exceeded"
    param        the field that is wrong
    retry_after  seconds after which to try again
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.code, self.param, self.retry_after = code, param, retry_after

    @property
    def kind(self) -> str:
        return _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")

    @property
    def headers(self) -> dict[str, str]:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**headers, "WWW-Authenticate": "Bearer"} if self.status == 401 else headers


def unsupported(field: str, hint: str = "leave it out") -> Failure:
    """A field that would change the answer, and that this version does not follow."""
    return Failure(400, f"{field} is not supported: {hint}", code="unsupported_parameter", param=field)


def invalid(message: str, field: str | None = None) -> Failure:
    """A request that no answer can be given to."""
    return Failure(400, message, code="invalid_value" if field else None, param=field)


def failure_of(error: Exception) -> Failure:
    """What to say of an error: the caller's mistake as it is, a fault of ours without particulars."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, ContextError):
        return Failure(400, str(error), code="context_length_exceeded", param="messages")
    if isinstance(error, Refused):
        return Failure(400, str(error), code=error.code, param=error.field)
    if isinstance(error, _CALLERS):
        named = re.match(r"(\w+) is ", str(error)) or re.match(r"there is no option '(\w+)'", str(error))
        return Failure(400, str(error), param=named[1] if named else None)
    if isinstance(error, EdgeqError):
        return Failure(500, str(error))
    return Failure(500, "the server made a mistake, which its log names")


def openai_shape(failure: Failure) -> dict[str, Any]:
    """As OpenAI's API says it."""
    what = {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code}
    return {"error": what}


def ollama_shape(failure: Failure) -> dict[str, Any]:
    """As Ollama says it."""
    return {"error": failure.message}


def anthropic_shape(failure: Failure) -> dict[str, Any]:
    """As Anthropic's API says it."""
    return {"type": "error", "error": {"type": failure.kind, "message": failure.message}}


def shape_of(path: str) -> Shape:
    """The shape of errors that the clients of a path understand."""
    if path.startswith("/api/"):
        return ollama_shape
    return anthropic_shape if path.startswith("/v1/messages") else openai_shape
