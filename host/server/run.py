"""The server's process: a socket, a loop, and an end in which running answers come to theirs."""

import asyncio
import signal
import socket
from contextlib import contextmanager

import uvicorn

from sterna.host.errors import HostError
from sterna.host.server.connection import connection_class

BACKLOG = 1024
GRACE_S = 2.0  # for what is left when answers have been ended


def listening(host, port):
    """A socket that listens at an address; HostError if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM,
                                                                flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise HostError(f"--host {host}: {getattr(error, 'strerror', None) or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen at {host}, port {port}: {error.strerror}: use another --port, or 0 for a "
                        "free one") from None
    return listener


def url_of(listener):
    """The URL (str) of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Uvicorn's server, which a signal ends: answers under way get ``drain_s`` seconds, then they are ended.

    Parameters
    ----------
    app : App
    settings : Settings
    """

    def __init__(self, app, settings):
        super().__init__(uvicorn.Config(
            app, http=connection_class(settings, app.figures), ws="none", lifespan="off", log_config=None,
            access_log=False, log_level="critical",  # there is a line for each request, and the guard tells of faults
            proxy_headers=False, server_header=False, timeout_keep_alive=15, backlog=BACKLOG))
        self._app, self._settings = app, settings

    @contextmanager
    def capture_signals(self):
        """SIGINT and SIGTERM end the server, the second one at once; not where another thread runs the loop."""
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        try:
            for number in numbers:
                if signal.getsignal(number) != signal.SIG_IGN:
                    loop.add_signal_handler(number, self.stop)
        except (ValueError, RuntimeError):
            numbers = ()
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def stop(self):
        """Ends the server; a second call ends its answers too. From the loop's own thread."""
        if self.should_exit:
            self._app.end()
        self.should_exit = True
        self._app.close()

    async def shutdown(self, sockets=None):
        self._app.close()
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(self._settings.drain_s, self._app.end),
                  loop.call_later(self._settings.drain_s + GRACE_S, self._cut_off)]
        try:
            await super().shutdown(sockets)
        finally:
            for timer in timers:
                timer.cancel()

    def _cut_off(self):
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()


def serve(app, settings, listener):
    """Serves until a signal comes.

    Parameters
    ----------
    app : App
    settings : Settings
    listener : socket
    """
    Server(app, settings).run([listener])
