"""Many clients of a server at once, each with one request after the other; a process of its own.

    python -m docs.figures.serving.clients PORT CLIENTS SECONDS < REQUEST.json
"""

import asyncio
import json
import sys
import time


class Client(asyncio.Protocol):
    """A connection that sends a request, reads its stream, and begins anew; as cheap as Python allows.

    Parameters
    ----------
    request : callable() -> bytes
    log : list
        Gets (seconds to the first text, seconds in all) of each answer, or the start of one that is an error.
    """

    def __init__(self, request, log):
        self._request, self._log = request, log
        self.ended = asyncio.get_running_loop().create_future()
        self._more = True

    def connection_made(self, transport):
        self._transport = transport
        self._begin()

    def _begin(self):
        self._began, self._first, self._seen, self._tail, self._good = time.monotonic(), None, 0, b"", False
        self._transport.write(self._request())

    def data_received(self, data):
        now = time.monotonic()
        self._good = self._good or data.startswith(b"HTTP/1.1 200")
        if not self._good:
            self._log.append(data[:200].decode(errors="replace"))
            self._transport.close()
            return
        self._seen += data.count(b"data: ")
        # The first event of a chat says who speaks, the second one has text.
        if self._first is None and self._seen > 1:
            self._first = now
        self._tail = (self._tail + data)[-32:]
        if self._tail.endswith(b"0\r\n\r\n"):
            self._log.append((self._first - self._began, now - self._began))
            if self._more:
                self._begin()
            else:
                self._transport.close()

    def finish(self):
        """Ends behind the answer that is under way."""
        self._more = False

    def connection_lost(self, error):
        if not self.ended.done():
            self.ended.set_result(None)


async def get(port, path):
    """The value of JSON at a path of the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    data = await reader.read()
    writer.close()
    return json.loads(data.partition(b"\r\n\r\n")[2])


async def run(port, count, seconds, body):
    """What ``count`` clients see in some seconds (dict)."""
    log, number, loop = [], 0, asyncio.get_running_loop()

    def request():
        nonlocal number
        number += 1
        data = json.dumps(body | {"seed": number}).encode()
        return b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" \
               b"Content-Length: %d\r\n\r\n%s" % (len(data), data)

    clients = [(await loop.create_connection(lambda: Client(request, log), "127.0.0.1", port))[1]
               for _ in range(count)]
    await asyncio.sleep(min(5.0, seconds / 4))  # until all are under way
    log.clear()
    before, began = await get(port, "/health"), time.monotonic()
    await asyncio.sleep(seconds)
    after, took = await get(port, "/health"), time.monotonic() - began
    seen = list(log)
    for client in clients:
        client.finish()
    await asyncio.wait_for(asyncio.gather(*(client.ended for client in clients)), 120)
    tokens = [sum(device["tokens"] for device in health["devices"]) for health in (before, after)]
    answers = [one for one in seen if not isinstance(one, str)]
    return {"tokens_per_second": (tokens[1] - tokens[0]) / took, "seconds": took, "answers": len(answers),
            "first_s": [one[0] for one in answers], "total_s": [one[1] for one in answers],
            "errors": [one for one in log if isinstance(one, str)]}


if __name__ == "__main__":
    port, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(asyncio.run(run(port, count, seconds, json.load(sys.stdin)))))
