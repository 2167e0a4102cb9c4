"""The server: answers, errors and limits as OpenAI's API has them, on the golden model of a small checkpoint."""

import json
import socket
import time
from contextlib import contextmanager, suppress

import pytest
from serving import ask, served
from small_model import write_folder
from sterna.host.errors import HostError, UsageError
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.sampling import Sampling
from sterna.host.server.run import listening
from sterna.host.server.settings import Settings

SETTINGS = Settings(context=300, body_bytes=4000, head_s=1.5, body_s=1.5, head_bytes=4000, choices=4)
ROOM = 100_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("server") / "small")


@pytest.fixture(scope="module")
def server(folder):
    with served(folder, settings=SETTINGS, queue=6) as running:
        yield running
        assert "Traceback" not in running.log.getvalue()


@pytest.fixture(scope="module")
def roomy(folder):
    """One whose answers may be long."""
    with served(folder, settings=Settings(context=ROOM), queue=6) as running:
        yield running
        assert "Traceback" not in running.log.getvalue()


def complete(server, **body):
    return ask(server.port, "POST", "/v1/completions", {"model": "small", "prompt": "abc", "seed": 3} | body)


def chat(server, content="abc", **body):
    return ask(server.port, "POST", "/v1/chat/completions",
               {"model": "small", "messages": [{"role": "user", "content": content}], "seed": 3} | body)


def alone(server, prompt="abc", n=16, temperature=1.0, seed=3):
    """The text that the golden model makes by itself."""
    model = server.engine.model
    runtime = GoldenRuntime(model)
    tokens = list(runtime.generate(model.vocabulary.encode(prompt), n, Sampling(temperature, seed), model.ends))
    return b"".join(map(model.vocabulary.token_bytes, tokens)).decode(errors="replace")


def events(text):
    """The events (list of dict) of a stream, which ends with [DONE]."""
    *parts, last, rest = text.split("\n\n")
    assert last == "data: [DONE]" and not rest
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def test_a_whole_answer(server):
    status, headers, value = complete(server)
    assert status == 200
    assert value["object"] == "text_completion" and value["id"].startswith("cmpl-") and value["model"] == "small"
    choice, = value["choices"]
    assert choice == {"index": 0, "text": alone(server), "logprobs": None, "finish_reason": "length"}
    usage = value["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (4, 16, 20)
    assert usage["prompt_tokens_details"]["cached_tokens"] in range(4)
    assert headers["x-request-id"] == value["id"]


def test_a_streamed_answer_is_the_whole_one(server):
    _, headers, text = complete(server, stream=True, stream_options={"include_usage": True})
    *parts, last = events(text)
    assert headers["content-type"].startswith("text/event-stream")
    assert "".join(part["choices"][0]["text"] for part in parts) == alone(server)
    assert [part["choices"][0]["finish_reason"] for part in parts][-1] == "length"
    assert all(part["usage"] is None for part in parts) and len({part["id"] for part in parts}) == 1
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 16
    assert all("usage" not in part for part in events(complete(server, stream=True)[2]))


def test_chats(server):
    value = chat(server, max_tokens=9)[2]
    assert value["object"] == "chat.completion"
    assert value["choices"][0]["message"] == {"role": "assistant", "content": alone(server, n=9), "refusal": None,
                                              "annotations": []}
    parts = events(chat(server, max_completion_tokens=9, stream=True)[2])
    assert parts[0]["object"] == "chat.completion.chunk"
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == alone(server, n=9)
    assert parts[-1]["choices"][0]["delta"] == {} and parts[-1]["choices"][0]["finish_reason"] == "length"
    usage = chat(server, "a" * 280, ignore_eos=True)[2]["usage"]  # without a limit: what fits
    assert (usage["prompt_tokens"], usage["total_tokens"]) == (281, 300)


def test_several_answers(server):
    value = complete(server, prompt=["abc", "xy"], n=2, echo=True, max_tokens=5)[2]
    assert [choice["text"] for choice in value["choices"]] == [
        prompt + alone(server, prompt, 5, seed=seed) for prompt in ("abc", "xy") for seed in (3, 4)]
    assert value["usage"]["prompt_tokens"] == 4 + 3 and value["usage"]["completion_tokens"] == 20
    parts = events(complete(server, n=2, max_tokens=5, stream=True)[2])
    for index in range(2):
        mine = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
        assert "".join(one["text"] for one in mine) == alone(server, n=5, seed=3 + index)


def test_stops_ends_and_greedy(server):
    text = alone(server, n=9, temperature=0)
    assert complete(server, max_tokens=9, temperature=0)[2]["choices"][0]["text"] == text
    assert complete(server, max_tokens=9, top_p=0)[2]["choices"][0]["text"] == text
    stop = text[5:7]
    choice = complete(server, max_tokens=9, temperature=0, stop=[stop])[2]["choices"][0]
    assert choice["text"] == text[:text.index(stop)] and choice["finish_reason"] == "stop"


def test_tokens(server):
    ids = ask(server.port, "POST", "/tokenize", {"prompt": "ab"})[2]
    assert ids["count"] == 3 and ids["max_model_len"] == 300 and ids["tokens"][0] == 0
    plain = ask(server.port, "POST", "/tokenize", {"prompt": "ab", "add_special_tokens": False})[2]["tokens"]
    assert plain == ids["tokens"][1:]
    assert ask(server.port, "POST", "/detokenize", {"tokens": plain})[2] == {"prompt": "ab"}
    assert ask(server.port, "POST", "/tokenize", {"prompt": "<|endoftext|>", "parse_special": True,
                                                  "add_special_tokens": False})[2]["tokens"] == [0]
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert ask(server.port, "POST", "/tokenize", {"messages": said})[2]["tokens"] == \
        ask(server.port, "POST", "/tokenize", {"prompt": "ab\nc"})[2]["tokens"]
    by_ids = complete(server, prompt=ids["tokens"], max_tokens=3)[2]
    assert by_ids["choices"] == complete(server, prompt="ab", max_tokens=3)[2]["choices"]


@pytest.mark.parametrize("body, status, param, code", [
    ({"prompt": "<|endoftext|>"}, 400, "prompt", "control_token"),
    ({"model": "other"}, 404, "model", "model_not_found"),
    ({"model": None}, 400, "model", "invalid_type"),
    ({"temperature": 2.1}, 400, "temperature", "decimal_above_max_value"),
    ({"temperature": -1}, 400, "temperature", "decimal_below_min_value"),
    ({"temperature": "1"}, 400, "temperature", "invalid_type"),
    ({"temperature": 1e-5}, 400, "temperature", "invalid_value"),
    ({"max_tokens": 0}, 400, "max_tokens", "integer_below_min_value"),
    ({"max_tokens": 1.5}, 400, "max_tokens", "invalid_type"),
    ({"max_tokens": 297}, 400, "prompt", "context_length_exceeded"),
    ({"top_k": 65}, 400, None, "invalid_value"),
    ({"n": 5}, 400, "n", "integer_above_max_value"),
    ({"n": 2, "best_of": 3}, 400, "best_of", "unsupported_parameter"),
    ({"logprobs": 1}, 400, "logprobs", "unsupported_parameter"),
    ({"presence_penalty": 0.5}, 400, "presence_penalty", "unsupported_parameter"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias", "unsupported_parameter"),
    ({"tools": [{}]}, 400, "tools", "unsupported_parameter"),
    ({"nonsense": 1}, 400, "nonsense", "unknown_parameter"),
    ({"a\n\x1b": 1}, 400, "a\\n\\x1b", "unknown_parameter"),
    ({"stream": True, "stream_options": {"\n": 1}}, 400, "stream_options.\\n", "unknown_parameter"),
    ({"stop": ["a"] * 5}, 400, "stop", "invalid_value"),
    ({"stop": ""}, 400, "stop", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options", "invalid_value"),
    ({"stream": True, "stream_options": {"x": 1}}, 400, "stream_options.x", "unknown_parameter"),
    ({"prompt": []}, 400, "prompt", "invalid_value"),
    ({"prompt": [999]}, 400, "prompt", "invalid_value"),
    ({"prompt": [10 ** 30]}, 400, "prompt", "invalid_value"),
])
def test_refused_values_are_named(server, body, status, param, code):
    found, _, value = complete(server, **body)
    error = value["error"]
    assert (found, error["param"], error["code"]) == (status, param, code), value
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("messages, param, code", [
    ([], "messages", "empty_array"),
    ("abc", "messages", "invalid_type"),
    ([{"role": "robot", "content": "a"}], "messages[0].role", "invalid_value"),
    ([{"role": "user", "content": "a<|endoftext|>"}], "messages[0].content", "control_token"),
    ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content", "invalid_value"),
    ([{"role": "user"}], "messages[0].content", "invalid_value"),
    ([{"role": "assistant"}, {"role": "system", "content": None}], "messages[1].content", "invalid_value"),
    ([{"role": "user", "content": "a", "colour": 1}], "messages[0].colour", "unknown_parameter"),
    ([{"role": "user", "content": "a" * 300}], "messages", "context_length_exceeded"),
])
def test_refused_messages_are_named(server, messages, param, code):
    status, _, value = chat(server, messages=messages)
    assert (status, value["error"]["param"], value["error"]["code"]) == (400, param, code), value


def test_what_has_no_effect_is_taken(server):
    body = {"logprobs": None, "presence_penalty": 0, "frequency_penalty": 0.0, "best_of": 1, "user": "me",
            "metadata": {"a": "b"}, "logit_bias": None, "suffix": None}
    assert complete(server, **body)[2]["choices"][0]["text"] == alone(server)
    assert len(complete(server, n=2, best_of=2)[2]["choices"]) == 2


@pytest.mark.parametrize("method, path, body, headers, status", [
    ("POST", "/v1/completions", b"{", {}, 400),
    ("POST", "/v1/completions", b'{"model": "small", "prompt": "\\ud800"}', {}, 400),
    ("POST", "/v1/completions", b"\xff", {}, 400),
    ("POST", "/v1/completions", b"[" * 3000, {}, 400),
    ("POST", "/v1/completions", b"{}", {"Content-Type": "text/plain"}, 415),
    ("POST", "/v1/completions", b" " * 5000, {}, 413),
    ("GET", "/v1/completions", None, {}, 405),
    ("GET", "/v1/nothing", None, {}, 404),
    ("GET", "/page/../settings.py", None, {}, 404),
    ("GET", "/%0a", None, {}, 404),
    ("GET", "/page/%0a", None, {}, 404),
    ("GET", "/v1/models/other", None, {}, 404),
    ("GET", "/health", None, {"Host": "example.org"}, 403),
    ("GET", "/health", None, {"Origin": "http://example.org"}, 403),
    ("GET", "/health", None, {"Origin": "null"}, 403),
])
def test_refused_requests(server, method, path, body, headers, status):
    found, given, value = ask(server.port, method, path, body, headers)
    assert found == status and value["error"]["message"].isprintable() and "access-control-allow-origin" not in given
    assert "default-src 'none'" in given["content-security-policy"]


def made(server):
    """Tokens that /metrics says were made."""
    return float(ask(server.port, "GET", "/metrics")[2].split("\nsterna_completion_tokens_total ")[1].split()[0])


def waited(condition, seconds=60):
    """Whether a condition comes true."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def last_line(server, *words):
    """The last line of the log, once it has all of these words."""
    assert waited(lambda: all(word in (server.log.getvalue().splitlines() or [""])[-1] for word in words)), words
    return server.log.getvalue().splitlines()[-1]


def test_models_health_metrics_and_page(server):
    assert ask(server.port, "GET", "/v1/models")[2]["data"][0]["id"] == "small"
    assert ask(server.port, "GET", "/v1/models/small")[2]["object"] == "model"
    health = ask(server.port, "GET", "/health")[2]
    assert health["status"] == "ok" and health["devices"][0]["alive"]
    before = made(server)
    complete(server, max_tokens=7)
    assert waited(lambda: made(server) == before + 7)
    status, headers, page = ask(server.port, "GET", "/")
    assert status == 200 and "<script>" not in page and "style=" not in page and "http" not in page
    assert headers["content-type"] == "text/html; charset=utf-8"


def test_the_log_has_a_line_for_each_request_and_no_texts(server):
    complete(server, prompt="secret", max_tokens=2)
    assert "secret" not in last_line(server, "POST /v1/completions 200", "prompt=7", "made=2")
    ask(server.port, "GET", "/%0a%1b[31m")
    last_line(server, "\\u001b")


@contextmanager
def raw(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        yield connection


def received(connection):
    """All that comes until the server closes."""
    out = b""
    while data := connection.recv(65536):
        out += data
    return out


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("data, status", [
    (b"GET / HTTP/1.1\r\nHost", b" 408 "),
    (b"nonsense\r\n\r\n", b" 400 "),
    (HEAD + b"X: " + b"a" * 5000, b" 431 "),
    (HEAD + b"Content-Length: 99\r\n\r\n{", b" 408 "),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1388\r\n" + b" " * 5000, b" 413 "),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b" 400 "),
])
def test_slow_and_broken_clients_get_an_error_and_no_more(server, data, status):
    with raw(server, data) as connection:
        assert status in received(connection).partition(b"\r\n")[0] + b" "


def endless(server, **body):
    """Bytes of a request whose answer goes on for a minute, with ``ROOM``."""
    data = json.dumps({"model": "small", "prompt": "abc", "max_tokens": 90_000, "ignore_eos": True} | body).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data


def idle(server):
    return not server.engine.waiting and not any(device.running for device in server.engine.devices)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("more", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["", "pipelined"])
def test_a_client_that_goes_frees_its_slot(roomy, stream, more):
    server = roomy
    with raw(server, endless(server, stream=stream) + more):
        assert waited(lambda: any(device.running for device in server.engine.devices))
    assert waited(lambda: idle(server))
    last_line(server, "client=gone", "end=cancelled", "200" if stream else "499")
    assert complete(server, max_tokens=2)[0] == 200


def new_lines(server):
    """A function that gives the lines that the log has got since, without those of /metrics."""
    before = len(server.log.getvalue().splitlines())
    return lambda: [line for line in server.log.getvalue().splitlines()[before:] if "GET /metrics" not in line]


@pytest.mark.parametrize("data, words", [
    (b"nonsense\r\n\r\n", "- - 400 total="),
    (b"GET / HTTP/1.1\r\nHost", "- - 408 total="),
    (HEAD + b"X: " + b"a" * 5000, "- - 431 total="),
    (HEAD + b"X: " + b"a" * 5000 + b"\r\n\r\n", "- - 431 total="),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "POST /v1/completions 400 total="),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: 0123456789\r\n" * 500,
     "POST /v1/completions 431 total="),
])
def test_what_is_no_request_has_one_line_and_counts(server, data, words):
    new = new_lines(server)
    with raw(server, data) as connection:
        received(connection)
    assert waited(new) and waited(lambda: not server.server.server_state.connections)
    line, = new()
    assert words in line and "error=" in line
    if words.startswith("-"):
        assert f'{{endpoint="none",status="{words.split()[2]}"}}' in ask(server.port, "GET", "/metrics")[2]


def test_a_head_that_breaks_off_has_a_line_and_a_connection_without_a_byte_has_none(server):
    new = new_lines(server)
    for data in (b"", b"GET / HTTP/1.1\r\nHo"):
        with raw(server, data):
            pass
    assert waited(new) and waited(lambda: not server.server.server_state.connections)
    line, = new()
    assert " - - 499 " in line and line.endswith("client=gone")


@pytest.mark.parametrize("rest", [b"x", b"\r\n"], ids=["body", "no next request"])
def test_a_client_that_trickles_behind_its_answer_is_cut_off(server, rest):
    head = (HEAD if rest == b"x" else HEAD.replace(b"POST", b"GET")).replace(b"Host: localhost", b"Host: elsewhere")
    length = b"Content-Length: 4000\r\n\r\n" if rest == b"x" else b"\r\n"
    with raw(server, head + length) as connection:
        connection.settimeout(0.1)
        end, found = time.monotonic() + 10, b""
        while time.monotonic() < end:
            try:
                connection.sendall(rest)
                data = connection.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if not data:
                break
            found += data
        assert b" 403 " in found.partition(b"\r\n")[0] + b" " and time.monotonic() < end


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_when_it_has_asked_for_more_frees_its_slot(roomy, stream):
    server = roomy
    with raw(server, endless(server, stream=stream)) as connection:
        assert waited(lambda: any(device.tokens and device.running for device in server.engine.devices))
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert waited(lambda: any(one.pipeline for one in tuple(server.server.server_state.connections)))
    assert waited(lambda: idle(server), 20)
    assert waited(lambda: "GET /health 499" in server.log.getvalue())


def test_a_body_that_is_broken_behind_another_request_has_one_line(roomy):
    server, new = roomy, new_lines(roomy)
    with raw(server, endless(server, stream=True)) as connection:
        assert waited(lambda: any(device.tokens and device.running for device in server.engine.devices))
        connection.sendall(HEAD.replace(b"completions", b"chat/completions") +
                           b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert waited(lambda: not server.server.server_state.connections, 20)
    assert waited(lambda: idle(server)) and waited(lambda: len(new()) > 1)
    lines = sorted(line.partition(" POST ")[2].partition("=")[0] for line in new())
    assert lines == ["/v1/chat/completions 400 total", "/v1/completions 200 id"], new()


def test_what_is_sent_ahead_has_a_limit(roomy):
    server = roomy
    with raw(server, endless(server, stream=False)) as connection:
        assert waited(lambda: any(device.running for device in server.engine.devices))
        with suppress(ConnectionError):  # it is cut off in the midst of them
            for _ in range(40_000):
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert waited(lambda: idle(server), 20)
    assert "too_much_ahead" in server.log.getvalue()


def test_a_full_queue_is_429(roomy):
    server = roomy
    device, many = server.engine.devices[0], []
    try:
        for count in range(1, device.slots + 6 + 1):  # one at a time: more at once may find the queue full before
            many.append(socket.create_connection(("127.0.0.1", server.port)))
            many[-1].sendall(endless(server, stream=True))
            assert waited(lambda: server.engine.devices[0].running + server.engine.waiting == count)  # noqa: B023
        assert waited(lambda: server.engine.waiting == 6)
        status, headers, value = complete(server)
        assert status == 429 and headers["retry-after"] and value["error"]["code"] == "rate_limit_exceeded"
        assert complete(server, n=2)[0] == 429
    finally:
        for connection in many:
            connection.close()
    assert waited(lambda: idle(server))


def test_too_many_connections_are_refused(folder):
    with served(folder, settings=Settings(connections=2)) as server:
        idle_ones = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        assert waited(lambda: len(server.server.server_state.connections) == 2)
        with raw(server, b"") as connection:
            assert b" 503 " in received(connection).partition(b"\r\n")[0]
        for connection in idle_ones:
            connection.close()
        assert waited(lambda: not server.server.server_state.connections)
        assert ask(server.port, "GET", "/health")[0] == 200


def test_a_key_is_asked_for(folder):
    with served(folder, settings=Settings(api_key="secret")) as server:
        assert ask(server.port, "GET", "/health")[2] == {"status": "ok"}
        assert ask(server.port, "GET", "/")[0] == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            for path in ("/v1/models", "/metrics", "/nothing"):
                status, given, value = ask(server.port, "GET", path, headers=headers)
                assert status == 401 and value["error"]["code"] == "invalid_api_key"
                assert given["www-authenticate"] == "Bearer"
        right = {"Authorization": "Bearer secret"}
        assert ask(server.port, "GET", "/v1/models", headers=right)[0] == 200
        assert ask(server.port, "GET", "/health", headers=right)[2]["devices"]


def test_an_answer_that_takes_too_long_ends(folder):
    with served(folder, settings=Settings(request_s=0.2, context=ROOM)) as server:
        body = {"max_tokens": 90_000, "ignore_eos": True}
        status, _, value = complete(server, **body)
        assert status == 504 and value["error"]["code"] == "timeout"
        text = complete(server, stream=True, **body)[2]
        assert "[DONE]" not in text and json.loads(text.split("\n\n")[-2][6:])["error"]["code"] == "timeout"
        assert waited(lambda: idle(server))


@pytest.mark.parametrize("drain_s, ends", [(60, True), (0, False)])
def test_running_answers_come_to_their_end(folder, drain_s, ends):
    with served(folder, settings=Settings(drain_s=drain_s, context=ROOM)) as server:
        n = 300 if ends else 90_000
        with raw(server, endless(server, stream=True, max_tokens=n)) as connection:
            assert waited(lambda: any(device.tokens for device in server.engine.devices))
            server.loops[0].call_soon_threadsafe(server.server.stop)
            text = received(connection).decode()
        assert ("[DONE]" in text) == ends and ("shutting down" in text) == (not ends)
        with pytest.raises(OSError):
            ask(server.port, "GET", "/health")


def test_settings_that_are_refused():
    for settings in ({"host": "0.0.0.0"}, {"host": "no such host"}, {"api_key": ""}, {"api_key": "ä"},
                     {"context": 0}, {"drain_s": float("nan")}):
        with pytest.raises(UsageError):
            Settings(**settings)
    assert Settings(host="0.0.0.0", api_key="k").loopback is False
    assert all(Settings(host=host).loopback for host in ("127.0.0.1", "127.1.2.3", "localhost"))
    with listening("127.0.0.1", 0) as listener:
        with pytest.raises(HostError, match="another --port"):
            listening("127.0.0.1", listener.getsockname()[1])
