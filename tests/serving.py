"""A server in this process, in a thread, on a free port of this machine, and plain HTTP to talk to it."""

import asyncio
import contextlib
import http.client
import io
import json
import threading
from types import SimpleNamespace

import sterna
from sterna.host.server.app import App
from sterna.host.server.run import Server, listening
from sterna.host.server.settings import Settings
from sterna.host.server.templates import of_model


@contextlib.contextmanager
def served(model, device="golden", settings=None, template=None, **options):
    """A running server; ``port``, ``url``, ``app``, ``engine``, ``server`` and ``log`` (StringIO).

    Parameters
    ----------
    model : Path
    device : str or list of str
    settings : Settings, optional
    template : Path, optional
    options : dict
        Of ``sterna.load``.
    """
    settings, log = settings or Settings(), io.StringIO()
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    with listener, sterna.load(model, device, **options) as engine:
        app = App(engine, settings, of_model(model, template), log)
        server, loops = Server(app, settings), []

        async def run():
            loops.append(asyncio.get_running_loop())
            await server.serve([listener])

        thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        try:
            yield SimpleNamespace(port=port, url=f"http://127.0.0.1:{port}", app=app, engine=engine, server=server,
                                  log=log, loops=loops)
        finally:
            for _ in range(2):
                loops[0].call_soon_threadsafe(server.stop)
            thread.join(30)
            assert not thread.is_alive(), "the server does not end"


def ask(port, method, path, body=None, headers=None, timeout_s=30):
    """(status, headers, value) of a request; the value is JSON's, or the text of anything else.

    Parameters
    ----------
    body : bytes or a value of JSON, optional
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    headers = ({"Content-Type": "application/json"} if data is not None else {}) | (headers or {})
    with contextlib.closing(connection):
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        kind = answer.headers.get("content-type", "")
        return answer.status, dict(answer.headers), json.loads(text) if kind == "application/json" else text
