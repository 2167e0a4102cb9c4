"""Errors as OpenAI's API has them: one JSON object with message, type, param and code."""

import json

from starlette.responses import Response

from sterna.host.errors import DeviceError, HostError, UsageError
from sterna.host.model.text import TextError
from sterna.host.runtime.runtime import RunError
from sterna.host.serving.engine import QueueFull
from sterna.sim.golden.errors import SternaError

RETRY_S = 1  # what a client is told to wait when the queue is full


class ApiError(Exception):
    """A request that gets an error for an answer.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        One line.
    code, param : str, optional
        What kind of error, and which parameter.
    kind : str
        The field ``type``.
    headers : dict of str
    """

    def __init__(self, status, message, code=None, param=None, kind="invalid_request_error", headers=None):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.kind, self.headers = kind, headers or {}

    def body(self):
        """The error as OpenAI writes it (dict)."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self):
        return json_response(self.body(), self.status, self.headers)


def to_json(value):
    """Bytes of JSON: ASCII alone, so that half of a surrogate pair, which is no character, can be shown too."""
    return json.dumps(value, separators=(",", ":")).encode()


def json_response(value, status=200, headers=None):
    return Response(to_json(value), status, {"content-type": "application/json", **(headers or {})})


def refuse(param, message, code="invalid_value"):
    """The ApiError of a parameter with a value that is not taken."""
    return ApiError(400, message, code, param)


def unsupported(param, why="is not supported with this model"):
    """The ApiError of a parameter of OpenAI's that no device has."""
    return ApiError(400, f"Unsupported parameter: '{param}' {why}.", "unsupported_parameter", param)


def unavailable(message):
    """The ApiError of a server that cannot answer now."""
    return ApiError(503, message, "unavailable", kind="server_error", headers={"retry-after": str(RETRY_S)})


def timed_out(seconds):
    return ApiError(504, f"the answer took longer than {seconds:g} s: ask for fewer tokens", "timeout",
                    kind="server_error")


def of(error, param=None):
    """The ApiError of what the engine raises; ``param`` is what the text came in."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return ApiError(429, f"{error}", "rate_limit_exceeded", kind="requests",
                        headers={"retry-after": str(RETRY_S)})
    if isinstance(error, TextError | RunError):
        return ApiError(400, f"{error}", "invalid_value", param)
    if isinstance(error, UsageError):
        return ApiError(400, f"{error}", "invalid_value")
    if isinstance(error, DeviceError | HostError | SternaError):
        return unavailable(f"{error}")
    return ApiError(500, "the server had an error while processing this request", kind="server_error")
