"""Requests of every kind, good, bad and broken, against a running server: no status of 500 or more, no hang.

    .venv/bin/python tests/e2e/fuzz_server.py --requests 10000
    .venv/bin/python tests/e2e/fuzz_server.py --requests 40000    # how the server's memory grows
    .venv/bin/python tests/e2e/fuzz_server.py --step 2500 -- --state-cache 0    # and what of it are no states
"""

import argparse
import contextlib
import http.client
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "tiny" / "tiny.sterna"
ANSWER_S = 20  # longer is a hang
GROWTH_BYTES = 24 << 20
PATHS = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/v1/models", "/v1/models/tiny",
         "/health", "/metrics", "/", "/page/main.js")
NAMES = ("model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "n",
         "seed", "stop", "stream", "stream_options", "echo", "ignore_eos", "logprobs", "best_of", "suffix", "tools",
         "logit_bias", "presence_penalty", "response_format", "user", "metadata", "tokens", "add_special_tokens",
         "parse_special", "role", "content", "name", "include_usage")
TEXTS = st.one_of(st.text(max_size=40), st.sampled_from(["", "Once upon a time", "<|endoftext|>", "\0", "\ud800",
                                                         "\u2028", "a" * 3000, "{{ 7 * 7 }}", "<script>"]))
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, -1, 2, 0.5, 1e-9, 2 ** 31, 2 ** 63, 2 ** 64,
                                                                 10 ** 40, -0.0]))
VALUES = st.recursive(st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS), lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(NAMES), TEXTS), inner, max_size=4)),
    max_leaves=8)
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant", "developer"]),
                                           "content": TEXTS}), min_size=1, max_size=4)
GOOD = {"max_tokens": st.integers(1, 40), "temperature": st.floats(0, 2), "n": st.integers(1, 3),
        "seed": st.integers(-9, 9), "stop": st.one_of(TEXTS, st.lists(TEXTS, max_size=4)), "stream": st.booleans(),
        "top_p": st.floats(0, 1), "top_k": st.integers(0, 64), "stream_options": st.fixed_dictionaries(
            {"include_usage": st.booleans()}), "echo": st.booleans()}


def body(prompt):
    """Bodies that are nearly good: some parameters of their kind, and up to two of any."""
    good = st.fixed_dictionaries({"model": st.just("tiny")} | prompt, optional=GOOD)
    bad = st.dictionaries(st.one_of(st.sampled_from(NAMES), TEXTS), VALUES, max_size=2)
    return st.builds(lambda one, other: one | other, good, st.one_of(st.just({}), bad))


BODIES = st.one_of(
    st.tuples(st.just("/v1/completions"), body({"prompt": st.one_of(TEXTS, st.lists(TEXTS, max_size=3), st.lists(
        st.integers(0, 520), max_size=9))})),
    st.tuples(st.just("/v1/chat/completions"), body({"messages": MESSAGES})),
    st.tuples(st.just("/tokenize"), st.fixed_dictionaries({}, optional={"prompt": TEXTS, "messages": MESSAGES})),
    st.tuples(st.just("/detokenize"), st.fixed_dictionaries({"tokens": st.lists(st.integers(-1, 600))})),
    st.tuples(st.sampled_from(PATHS), VALUES))
ENCODED = st.tuples(BODIES, st.sampled_from([None, None, None, b"\xff", b",", b"\0", b"NaN"]), st.integers(0, 400))
HEADERS = st.lists(st.tuples(st.sampled_from([
    "Host", "Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "Authorization", "Origin",
    "Accept-Encoding", "Upgrade", "X-" + "a" * 50]), st.one_of(st.sampled_from([
        "localhost", "example.org", "application/json", "0", "5", "-1", "99999999999", "chunked", "close",
        "keep-alive", "100-continue", "Bearer x", "websocket", "http://localhost", "[::1]:80", "a@b", "gzip", ""]),
        st.text(st.characters(codec="latin-1"), max_size=20))), max_size=6)
LOCAL = st.just([("Host", "localhost")])
TARGETS = st.one_of(st.sampled_from([*PATHS, "*", "//", "/%ff%00", "/v1/models/%2e%2e", "http://localhost/health"]),
                    st.text(max_size=20).map(lambda text: "/" + text))


def head(method, path, version, headers, rest):
    """Bytes of a request."""
    first = f"{method} {path} {version}\r\n".encode("utf-8", "replace")
    lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)
    return first + lines + b"\r\n" + rest


RAW = st.one_of(st.binary(max_size=200), st.builds(
    head, st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "PRI", "get", "CONNECT"]), TARGETS,
    st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", ""]),
    st.one_of(LOCAL, HEADERS, st.builds(list.__add__, LOCAL, HEADERS)), st.binary(max_size=60)))


class Server:
    """A running ``sterna serve`` of the tiny model."""

    def __init__(self, log, *more):
        self.log = log
        arguments = ["--port", "0", "-c", "160", "--max-body", "8000", "--queue", "64", *more]
        self.process = subprocess.Popen([sys.executable, "-m", "sterna", "serve", "-m", str(MODEL), *arguments],
                                        stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        self.port = int(self.process.stdout.readline().strip().rpartition(":")[2])
        self._connection, self.counts = None, Counter()

    def memory_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def ask(self, path, data, method="POST"):
        """A whole request on the connection that is kept; checks its answer."""
        for _ in range(2):  # the server may have closed the one that was kept
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
            try:
                self._connection.request(method, path, data, {"Content-Type": "application/json"})
                answer = self._connection.getresponse()
                text = answer.read()
                break
            except (ConnectionError, http.client.RemoteDisconnected):
                self._connection.close()
                self._connection = None
        else:
            raise AssertionError(f"no answer to {path} {data[:200]!r}")
        self.check(answer.status, answer.headers.get("content-type", ""), text, (path, data))

    def check(self, status, kind, text, what):
        self.counts[status] += 1
        assert status < 500, (status, text[:300], what)
        if status >= 400:
            error = json.loads(text)["error"]
            assert kind == "application/json" and set(error) == {"message", "type", "param", "code"}, (text, what)
            assert "\n" not in error["message"], (text, what)
        elif "event-stream" in kind:
            assert text.endswith(b"data: [DONE]\n\n"), (text[-300:], what)

    def raw(self, data, patience_s):
        """Sends bytes, reads what comes within a moment, and goes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_S) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
                if select.select([connection], [], [], patience_s)[0]:
                    start = connection.recv(4096)
                    if start:
                        status = int(start.split(b" ")[1])
                        self.counts[f"raw {status}"] += 1
                        assert status < 500, (start, data)
                        return
        self.counts["raw without an answer"] += 1

    def close(self):
        self.process.terminate()
        assert self.process.wait(30) == 0


def fuzz(requests, number, log, *arguments, step=10_000):
    """Sends requests to ``sterna serve`` (with further arguments).

    What was found (dict): counts by status, the server's memory before, and behind each ``step``, seconds.
    """
    server, began = Server(log, *arguments), time.monotonic()
    try:
        send(server, max(10, requests // 20), number)  # what is made once is made by then
        before, files = server.memory_bytes(), server.files()
        sent, memory = 0, []
        for done in range(0, requests, step):
            sent += send(server, min(step, requests - done), number + 1 + done)
            memory.append(server.memory_bytes())
        health = rested(server)
        assert health["status"] == "ok" and not health["waiting"] and not health["devices"][0]["running"], health
        assert requests < 1000 or memory[-1] - before < GROWTH_BYTES, (before, memory)
        assert server.files() <= files + 8, (files, server.files())
        return {"requests": sent, "before_bytes": before, "after_bytes": memory, "counts": dict(server.counts),
                "seconds": time.monotonic() - began}
    finally:
        server.close()


def rested(server):
    """What /health says once nothing runs, or after a while."""
    end = time.monotonic() + ANSWER_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_S)
        connection.request("GET", "/health")
        health = json.loads(connection.getresponse().read())
        connection.close()
        busy = health["waiting"] or any(device["running"] for device in health["devices"])
        if not busy or time.monotonic() > end:
            return health
        time.sleep(0.05)


def send(server, requests, number):
    """Sends some requests of a seed; how many they were (int)."""
    sent = 0

    def encoded(value):
        return json.dumps(value).encode()

    @seed(number)
    @settings(max_examples=max(1, requests // 10), database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(st.lists(ENCODED, min_size=8, max_size=8), RAW, st.booleans())
    def one(structured, raw, gone):
        nonlocal sent
        for (path, value), damage, at in structured:
            data = encoded(value)
            server.ask(path, data if damage is None else data[:at] + damage + data[at:])
            sent += 1
        server.raw(raw, 0.02)
        path, value = structured[0][0]
        data = encoded(value)
        sent_with = [("Host", "localhost"), ("Content-Type", "application/json"), ("Content-Length", len(data))]
        whole = head("POST", path, "HTTP/1.1", sent_with, data)
        server.raw(whole[:-1] if gone else whole, 0)  # broken off, or gone before the answer
        sent += 2

    one()
    return sent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--step", type=int, default=10_000, help="requests between two looks at the memory")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("STERNA_SEED", "1")))
    parser.add_argument("--log", type=Path, default=ROOT / "build" / "fuzz-server.log")
    parser.add_argument("arguments", nargs="*", metavar="-- ARGUMENT", help="of sterna serve")
    options = parser.parse_args()
    options.log.parent.mkdir(exist_ok=True)
    with options.log.open("w") as log:
        found = fuzz(options.requests, options.seed, log, *options.arguments, step=options.step)
    assert "Traceback" not in options.log.read_text(), f"see {options.log}"
    print(f"{found['requests']:,} requests in {found['seconds']:.0f} s, seed {options.seed}; memory "
          f"{found['before_bytes'] / 1e6:.1f} MB before, behind each {options.step:,}: "
          + ", ".join(f"{size / 1e6:.1f}" for size in found["after_bytes"]))
    print(", ".join(f"{status}: {count:,}" for status, count in sorted(found["counts"].items(), key=str)))


if __name__ == "__main__":
    main()
