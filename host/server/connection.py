"""A connection of the server: uvicorn's, with limits for clients that are slow, say too much, or break off."""

import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sterna.host.server.guard import HEADERS


def plain_error(status, words, message):
    """Bytes of a whole answer with an error, after which the connection ends."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()
    lines = [f"HTTP/1.1 {status} {words}".encode(), b"content-type: application/json",
             b"content-length: %d" % len(body), b"connection: close", *(b": ".join(pair) for pair in HEADERS)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Connection(HttpToolsProtocol):
    """See HttpToolsProtocol; a class attribute ``settings`` is set by ``connection_class``."""

    settings = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self._head_bytes, self._head_timer, self._current = 0, None, None
        if len(self.connections) > self.settings.connections:
            transport.write(plain_error(503, "Service Unavailable", "too many connections: try again later"))
            self._leave()
            return
        self._wait_for_head()

    def _wait_for_head(self):
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.settings.head_s, self._too_slow)

    def _head_is_there(self):
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self):
        if not self.transport.is_closing():
            if self._head_bytes:
                self.transport.write(plain_error(408, "Request Timeout", "the request's head came too slowly"))
            self._leave()

    def _leave(self):
        """Closes, and cuts off a client that does not read the rest."""
        self._head_is_there()
        self.transport.close()
        self.loop.call_later(self.settings.send_s, self.transport.abort)

    def data_received(self, data):
        if self.transport.is_closing():
            return
        if self._head_timer:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer and self._head_bytes > self.settings.head_bytes and not self.transport.is_closing():
            self.transport.write(plain_error(431, "Request Header Fields Too Large",
                                             f"the request's head has more than {self.settings.head_bytes} bytes"))
            self._leave()

    def on_message_begin(self):
        super().on_message_begin()
        self.scope["extensions"] = {"sterna.abort": self.transport.abort}
        if not self._head_timer:
            self._wait_for_head()

    def on_headers_complete(self):
        self._head_is_there()
        super().on_headers_complete()

    def send_400_response(self, msg):
        self.transport.write(plain_error(400, "Bad Request", "this is no valid HTTP request"))
        self._leave()

    def _start_asgi_task(self, cycle, app):
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc):
        self._head_is_there()
        current = self._current
        self.pipeline.clear()  # nobody waits for those answers
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if current and not current.response_complete:  # uvicorn tells the latest request alone
            current.disconnected = True
            current.message_event.set()

    def timeout_keep_alive_handler(self):
        if not self.transport.is_closing():
            self._leave()


def connection_class(settings):
    """The class of a server's connections."""
    return type("Connection", (Connection,), {"settings": settings})
