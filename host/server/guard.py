"""What every request passes: who may ask, by which name and from where; headers of safety; one line in the log."""

import asyncio
import hashlib
import hmac
import traceback
from urllib.parse import urlsplit

from sterna.host.server import errors
from sterna.host.server.errors import ApiError
from sterna.host.server.visits import Visit

OPEN = ("/", "/health")  # without a key; the page's files too
CLIENT_GONE = 499
REFUSED = "sterna.refused"  # an extension of the scope: (status, code) of what the connection has said for the server
HEADERS = [
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                                 b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
                                 b"require-trusted-types-for 'script'; trusted-types 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
LOCAL = ("localhost", "127.0.0.1", "::1")


def name_of(authority):
    """The host (str) of ``name:port``; None for what is none."""
    try:
        parts = urlsplit(f"//{authority}")
        parts.port  # noqa: B018 (raises for a bad one)
        return None if parts.username is not None or parts.path else parts.hostname
    except ValueError:
        return None


class Guard:
    """An ASGI application around another one.

    Parameters
    ----------
    app : ASGI application
        Finds its Visit in the scope, under "visit"; may raise ApiError.
    settings : Settings
    figures : Figures
    """

    def __init__(self, app, settings, figures):
        self._app, self._settings, self._figures = app, settings, figures
        key = settings.api_key
        self._key = None if key is None else hashlib.sha256(key.encode()).digest()
        self.closing = False

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        client = scope.get("client")
        visit = scope["visit"] = Visit(client[0] if client else "-", scope["method"], scope["path"])

        async def watched(message):
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        self._figures.begun()
        try:
            try:
                self._check(scope)
                await self._app(scope, receive, watched)
            except ApiError as error:
                await self._refused(error, visit, scope, receive, watched)
            except Exception as error:  # a fault of ours: all else goes on
                self._figures.note("".join(traceback.format_exception(error)))
                await self._refused(errors.of(error), visit, scope, receive, watched)
            except asyncio.CancelledError:
                visit.gone = True
                raise
        finally:
            if visit.gone and not visit.status:
                said = scope.get("extensions", {}).get(REFUSED)
                visit.status, visit.problem = said or (CLIENT_GONE, visit.problem)
            self._figures.ended(visit)

    async def _refused(self, error, visit, scope, receive, send):
        visit.problem = error.code or error.kind
        if not visit.status and not visit.gone:
            await error.response()(scope, receive, send)

    def _check(self, scope):
        """ApiError for a request that may not be made."""
        if self.closing:
            raise errors.unavailable("the server is shutting down")
        given = {}
        for name, value in scope["headers"]:
            given.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        settings = self._settings
        host = name_of(given.get("host", ""))
        if settings.loopback and host not in (*LOCAL, *settings.hosts, settings.host):
            raise ApiError(403, "this server is called localhost: a request that calls it by another name is refused "
                                "(--allow-host adds one)", "host_not_allowed")
        origin = given.get("origin")
        if origin is not None and urlsplit_netloc(origin) != given.get("host"):
            raise ApiError(403, "pages of other origins may not use this server", "origin_not_allowed")
        path = scope["path"]
        scope["trusted"] = self._key is None or self._allowed(given.get("authorization", ""))
        if not scope["trusted"] and not (path in OPEN or path.startswith("/page/")):
            what = "You didn't provide an API key: send it in the header Authorization, as 'Bearer KEY'." \
                if "authorization" not in given else "Incorrect API key provided."
            raise ApiError(401, what, "invalid_api_key", headers={"www-authenticate": "Bearer"})

    def _allowed(self, header):
        kind, _, key = header.partition(" ")
        digest = hashlib.sha256(key.strip().encode("latin-1", "replace")).digest()
        return hmac.compare_digest(digest, self._key) and kind.lower() == "bearer"


def urlsplit_netloc(origin):
    """``name:port`` of an origin (str), None for what is none, such as null."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
