"""The application: the routes of OpenAI's API, those of the chat page, and what tells how the server does."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route, Router

from sterna.host.server import errors, schemas
from sterna.host.server.answers import CHAT, COMPLETION, STREAM_HEADERS, Answer
from sterna.host.server.errors import ApiError, json_response, refuse, to_json
from sterna.host.server.guard import Guard
from sterna.host.server.prompts import Prompts
from sterna.host.server.visits import Figures
from sterna.sim.golden.errors import SternaError

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
LARGE_BYTES = 4096  # a body from which on its tokens are made in a thread of their own
OWNER = "sterna"
EVENTS_PER_SECOND, APART_S = 800, 0.04  # of all streams together; of one, seconds that nobody sees
SETTLE_S = 2.0  # that a device has to end a text, which is within a token, so that the log says how far it was


class _Endpoint:
    """An ASGI application of a function (scope, receive, send), which a Route does not take for one of requests."""

    def __init__(self, path, function):
        self._name, self._function = path.partition("{")[0], function

    async def __call__(self, scope, receive, send):
        scope["visit"].endpoint = self._name
        await self._function(scope, receive, send)


class App:
    """The server's application, of ASGI.

    Parameters
    ----------
    engine : Engine
    settings : Settings
    template : ChatTemplate
    log : file, optional
        Where a line for each request goes; standard error by default.

    Attributes
    ----------
    running : set of Answer
    """

    def __init__(self, engine, settings, template, log=None):
        self.engine, self.settings, self.running = engine, settings, set()
        self.model, self.created = engine.model.name, int(time.time())
        self.prompts = Prompts(engine.model, template, settings.context)
        self.figures = Figures(engine, log)
        self._files = {path.name: (path.read_bytes(), KINDS[path.suffix]) for path in PAGE.iterdir()
                       if path.suffix in KINDS}
        routes = [("/", self.page, "GET"), ("/page/{name}", self.page, "GET"), ("/health", self.health, "GET"),
                  ("/metrics", self.metrics, "GET"), ("/v1/models", self.models, "GET"),
                  ("/v1/models/{name:path}", self.one_model, "GET"), ("/v1/completions", self.completions, "POST"),
                  ("/v1/chat/completions", self.chat, "POST"), ("/tokenize", self.tokenize, "POST"),
                  ("/detokenize", self.detokenize, "POST")]
        self._router = Router([Route(path, _Endpoint(path, function), methods=[method])
                               for path, function, method in routes], redirect_slashes=False)
        self._guard = Guard(self._routed, settings, self.figures)

    async def __call__(self, scope, receive, send):
        await self._guard(scope, receive, send)

    def close(self):
        """Takes no more requests; those that are there go on."""
        self._guard.closing = True

    def end(self):
        """Ends all answers."""
        for answer in tuple(self.running):
            answer.cancel(errors.unavailable("the server is shutting down"))

    async def _routed(self, scope, receive, send):
        method, path = scope["method"], schemas.shown(scope["path"], 200)
        try:
            if path != scope["path"]:  # the router's patterns take a line's end behind a path
                raise HTTPException(404)
            await self._router(scope | {"app": self}, receive, send)
        except HTTPException as error:
            if error.status_code == 405:
                raise ApiError(405, f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different "
                                    "HTTP method?)", "method_not_supported",
                               headers={"allow": (error.headers or {}).get("Allow", "")}) from None
            raise ApiError(404, f"Invalid URL ({method} {path})", "unknown_url") from None

    # The page, and how the server does

    async def page(self, scope, receive, send):
        name = scope["path_params"].get("name", "index.html")
        if name not in self._files:
            raise ApiError(404, f"Invalid URL ({scope['method']} {schemas.shown(scope['path'], 200)})", "unknown_url")
        data, kind = self._files[name]
        await Response(data, headers={"content-type": kind, "cache-control": "no-cache"})(scope, receive, send)

    async def health(self, scope, receive, send):
        devices = self.engine.devices
        good = any(device.alive for device in devices) and not self._guard.closing
        value = {"status": "ok" if good else "unavailable"}
        if scope["trusted"]:
            value |= {"model": self.model, "context": self.settings.context, "waiting": self.engine.waiting,
                      "devices": [{"name": device.name, "label": device.label, "alive": device.alive,
                                   "slots": device.slots, "running": device.running, "tokens": device.tokens}
                                  for device in devices]}
        await json_response(value, 200 if good else 503, {"cache-control": "no-store"})(scope, receive, send)

    async def metrics(self, scope, receive, send):
        await Response(self.figures.text(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})(
            scope, receive, send)

    def _described(self):
        return {"id": self.model, "object": "model", "created": self.created, "owned_by": OWNER}

    async def models(self, scope, receive, send):
        await json_response({"object": "list", "data": [self._described()]})(scope, receive, send)

    async def one_model(self, scope, receive, send):
        self._check_model(scope["path_params"]["name"])
        await json_response(self._described())(scope, receive, send)

    def _check_model(self, name):
        if name not in (self.model, None):
            raise ApiError(404, f"The model '{schemas.shown(name)}' does not exist: this server has "
                                f"'{self.model}'.", "model_not_found", "model")

    # Tokens

    async def tokenize(self, scope, receive, send):
        data, body = await self._body(scope, receive, schemas.Tokenize)
        if (body.prompt is None) == (body.messages is None):
            raise refuse("prompt", "give one of 'prompt' and 'messages'")

        def ids():
            if body.messages is not None:
                return self.prompts.chat(body.messages)
            return self.prompts.text(body.prompt, "prompt", start=body.add_special_tokens, special=body.parse_special)
        ids = await _worked(data, ids)
        await json_response({"count": len(ids), "max_model_len": self.settings.context, "tokens": ids})(
            scope, receive, send)

    async def detokenize(self, scope, receive, send):
        _, body = await self._body(scope, receive, schemas.Detokenize)
        await json_response({"prompt": self.prompts.spelled(body.tokens)})(scope, receive, send)

    # Answers

    async def completions(self, scope, receive, send):
        data, body = await self._body(scope, receive, schemas.Completion)
        self._check_count(len(body.prompt) * body.answers, "n")

        def asked():
            out = []
            for prompt in body.prompt:
                if prompt is None:
                    ids = list(self.prompts.vocabulary.start)
                else:
                    ids = self.prompts.text(prompt, "prompt") if isinstance(prompt, str) else prompt
                echo = prompt if isinstance(prompt, str) else self.prompts.spelled(prompt or []) if body.echo else ""
                out.append((ids, self.prompts.room(ids, body.most, "prompt"), echo if body.echo else ""))
            return out
        await self._answer(scope, receive, send, body, COMPLETION, await _worked(data, asked))

    async def chat(self, scope, receive, send):
        data, body = await self._body(scope, receive, schemas.Chat)
        self._check_count(body.answers, "n")

        def asked():
            ids = self.prompts.chat(body.messages)
            return [(ids, self.prompts.room(ids, body.most, "messages"), "")]
        await self._answer(scope, receive, send, body, CHAT, await _worked(data, asked))

    def _check_count(self, count, param):
        most = self.settings.choices
        if count > most:
            raise refuse(param, f"Invalid '{param}': this server gives at most {most} answers to a request, but "
                                f"{count} were asked for.", "integer_above_max_value")

    def _begun(self, body, asked):
        """Generations of (ids, tokens, echo) each: all of them or, where an error is raised, none."""
        out = []
        try:
            for ids, most, _ in asked:
                for choice in range(body.answers):
                    out.append(self.engine.generate(ids, max_tokens=most, **body.sampling(choice)))
        except BaseException as error:
            for generation in out:
                generation.cancel()
            if isinstance(error, SternaError):
                raise errors.of(error, "messages" if isinstance(body, schemas.Chat) else "prompt") from None
            raise
        return out

    async def _answer(self, scope, receive, send, body, form, asked):
        if body.stream_options is not None and not body.stream:
            raise refuse("stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        visit = scope["visit"]
        if self.settings.log_prompts:
            visit.prompts = [self.prompts.spelled(ids) for ids, _, _ in asked]
        answer = visit.answer = Answer(self._begun(body, asked), form, self.model, body.answers,
                                       [echo for _, _, echo in asked for _ in range(body.answers)],
                                       body.usage_wanted)
        self.running.add(answer)
        work = asyncio.create_task(self._streamed(answer, scope, send) if body.stream else
                                   self._whole(answer, scope, send))
        watch = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                visit.gone = True
                answer.cancel()
                return
            if not work.cancelled():  # which only a client that is cut off does
                work.result()
        finally:
            self.running.discard(answer)
            answer.cancel()
            for task in (work, watch):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
            await answer.settled(SETTLE_S)

    async def _whole(self, answer, scope, send):
        try:
            async with asyncio.timeout(self.settings.request_s):
                value = await answer.whole()
        except TimeoutError:
            raise errors.timed_out(self.settings.request_s) from None
        except SternaError as error:
            raise errors.of(error) from None
        await self._sent(scope, send, {"type": "http.response.start", "status": 200,
                                       "headers": _headers({"content-type": "application/json"}, answer)})
        await self._sent(scope, send, {"type": "http.response.body", "body": to_json(value)})

    async def _streamed(self, answer, scope, send):
        async def event(data):
            await self._sent(scope, send, {"type": "http.response.body", "body": data, "more_body": True})

        # From here on an error is an event: the status tells that the answer has a place in the queue.
        await self._sent(scope, send, {"type": "http.response.start", "status": 200,
                                       "headers": _headers(STREAM_HEADERS, answer)})
        try:
            async with asyncio.timeout(self.settings.request_s):
                await answer.events(event, self._apart_s)
        except (ApiError, SternaError, TimeoutError) as error:
            error = errors.timed_out(self.settings.request_s) if isinstance(error, TimeoutError) else errors.of(error)
            scope["visit"].problem = error.code or error.kind
            await event(b"data: " + to_json(error.body()) + b"\n\n")
        await self._sent(scope, send, {"type": "http.response.body", "body": b""})

    def _apart_s(self):
        """Seconds between two events of a stream: so few events cost little beside the making of tokens."""
        return min(APART_S, len(self.running) / EVENTS_PER_SECOND)

    async def _sent(self, scope, send, message):
        """Sends a message; a client that does not read what was sent to it is cut off."""
        try:
            async with asyncio.timeout(self.settings.send_s):
                await send(message)
        except TimeoutError:
            scope["visit"].gone = True
            scope.get("extensions", {}).get("sterna.abort", lambda: None)()
            raise asyncio.CancelledError from None

    # Requests

    async def _body(self, scope, receive, kind):
        """(bytes, body) of a request; ApiError."""
        content = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        if content.partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, f"Unsupported content type: '{schemas.shown(content)}'. This API method only accepts "
                                "'application/json' requests, but you specified the header 'Content-Type: "
                                f"{schemas.shown(content)}'.", "unsupported_content_type",
                           headers={"connection": "close"})
        data = await self._read(scope, receive)
        body = await _worked(data, lambda: schemas.parse(kind, data))
        self._check_model(body.model)
        return data, body

    async def _read(self, scope, receive):
        """The bytes of a body; ApiError if there are too many of them, or if they come too slowly."""
        most, data = self.settings.body_bytes, bytearray()
        close = {"connection": "close"}
        try:
            async with asyncio.timeout(self.settings.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        scope["visit"].gone = True
                        raise ApiError(400, "the request broke off")
                    data += message.get("body", b"")
                    if len(data) > most:
                        raise ApiError(413, f"the request's body is larger than {most:,} bytes", "request_too_large",
                                       headers=close)
                    if not message.get("more_body"):
                        return bytes(data)
        except TimeoutError:
            raise ApiError(408, f"the request's body took longer than {self.settings.body_s:g} s", "timeout",
                           headers=close) from None


async def _worked(data, function):
    """``function()``, in another thread where a body (bytes) is large."""
    return await asyncio.to_thread(function) if len(data) > LARGE_BYTES else function()


async def _gone(receive):
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _headers(headers, answer):
    pairs = {**headers, "cache-control": "no-store", "x-request-id": answer.id}
    return [(name.encode(), value.encode()) for name, value in pairs.items()]
