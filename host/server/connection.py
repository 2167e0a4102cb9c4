"""A connection of the server: uvicorn's, with limits for clients that are slow, say too much, or break off."""

import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sterna.host.server.guard import CLIENT_GONE, HEADERS, REFUSED
from sterna.host.server.visits import Visit

AHEAD_BYTES = 1 << 16  # that a client may send ahead, while an answer is on its way


def plain_error(status, words, message):
    """Bytes of a whole answer with an error, after which the connection ends."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()
    lines = [f"HTTP/1.1 {status} {words}".encode(), b"content-type: application/json",
             b"content-length: %d" % len(body), b"connection: close", *(b": ".join(pair) for pair in HEADERS)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class _TooLarge(Exception):
    """A head, or what is like one behind a body, that is too large."""


class Connection(HttpToolsProtocol):
    """See HttpToolsProtocol; the class attributes are set by ``connection_class``.

    What the application never sees is told to ``figures`` from here: requests that break off in their heads, are no
    HTTP, or wait behind another one of a client that goes away. A connection that ends without a byte was no request.
    """

    settings = None
    figures = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self._timer, self._current = None, None
        self._head_bytes = self._field_bytes = self._ahead_bytes = 0  # since the last request's end; of fields; ahead
        self._in_head, self._in_body = False, False
        if len(self.connections) > self.settings.connections:
            self._refuse(503, "Service Unavailable", "too many connections: try again later", "too_many_connections")
            return
        self._wait()

    # A client without an answer to wait for has ``head_s`` seconds for its next request, or the rest of the last one.

    def _wait(self):
        self._head_bytes = 0
        self._timer = self._timer or self.loop.call_later(self.settings.head_s, self._too_slow)

    def _stop_timer(self):
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self):
        self._timer = None
        if self.transport.is_closing():
            return
        if self._head_bytes and not self._in_body:
            self._refuse(408, "Request Timeout", "the request's head came too slowly", "timeout")
        else:
            self._leave()

    def _leave(self):
        """Closes, and cuts off a client that does not read the rest."""
        self._stop_timer()
        self._head_bytes = 0  # what breaks off from now on has been told
        self.transport.close()
        self.loop.call_later(self.settings.send_s, self.transport.abort)

    def _busy(self):
        return self._current is not None and not self._current.response_complete

    def _refuse(self, status, words, message, code):
        """Answers a request that is none, unless that would go into the midst of another answer, and leaves."""
        mine = self._busy() and self._current is self.cycle and self._in_body  # of which the application tells
        if mine:
            self._current.scope["extensions"][REFUSED] = status, code
        else:
            method, path = self._behind()
            self.figures.never_seen(Visit(self.client[0] if self.client else "-", method, path, status=status,
                                          problem=code))
        if not self._busy() or mine and not self._current.response_started:
            self.transport.write(plain_error(status, words, message))
        self._leave()

    def _behind(self):
        """Takes out the request that waits behind another one and whose body is coming: its method and path."""
        if not self._in_body or not self.pipeline or self.pipeline[0][0] is not self.cycle:
            return "-", "-"
        cycle, _ = self.pipeline.popleft()  # the latest is first there
        return cycle.scope["method"], cycle.scope["path"]

    def data_received(self, data):
        if self.transport.is_closing():
            return
        if self._timer and not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > self.settings.head_bytes:
            self._refuse_large()
        elif self.pipeline:
            # Reading goes on, or nobody would see that the client has gone; so what comes ahead has a limit.
            self._ahead_bytes += len(data)
            if self._ahead_bytes > AHEAD_BYTES:
                self._refuse(400, "Bad Request", "too much was sent ahead", "too_much_ahead")
            else:
                self.flow.resume_reading()
        elif not self._timer and not self._busy() and not self.timeout_keep_alive_task:
            self._wait()  # for the rest of a body that is not wanted, say

    def _refuse_large(self):
        self._refuse(431, "Request Header Fields Too Large",
                     f"the request's head has more than {self.settings.head_bytes} bytes", "head_too_large")

    def on_message_begin(self):
        super().on_message_begin()
        self.scope["extensions"] = {"sterna.abort": self.transport.abort}
        self._field_bytes, self._in_head, self._in_body = 0, True, False
        if not self._timer:
            self._wait()

    def _count(self, size):
        self._field_bytes += size
        if self._field_bytes > self.settings.head_bytes:
            raise _TooLarge

    def on_url(self, url):
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name, value):
        self._count(len(name) + len(value) + 4)  # trailers too, which may come behind a body
        super().on_header(name, value)

    def on_headers_complete(self):
        self._stop_timer()
        self._head_bytes, self._in_head, self._in_body = 0, False, True
        super().on_headers_complete()

    def on_message_complete(self):
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg):
        if self._field_bytes > self.settings.head_bytes:
            self._refuse_large()
        else:
            self._refuse(400, "Bad Request", "this is no valid HTTP request", "invalid_http")

    def _start_asgi_task(self, cycle, app):
        self._current = cycle
        if not self.pipeline:
            self._ahead_bytes = 0
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc):
        self._stop_timer()
        current, client = self._current, self.client[0] if self.client else "-"
        for cycle, _ in reversed(self.pipeline):  # nobody waits for those answers
            self.figures.never_seen(Visit(client, cycle.scope["method"], cycle.scope["path"], status=CLIENT_GONE,
                                          gone=True))
        self.pipeline.clear()
        if self._in_head and self._head_bytes:
            self.figures.never_seen(Visit(client, "-", "-", status=CLIENT_GONE, gone=True))
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if current and not current.response_complete:  # uvicorn tells the latest request alone
            current.disconnected = True
            current.message_event.set()

    def timeout_keep_alive_handler(self):
        if not self.transport.is_closing():
            self._leave()


def connection_class(settings, figures):
    """The class of a server's connections."""
    return type("Connection", (Connection,), {"settings": settings, "figures": figures})
