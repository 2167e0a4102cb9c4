"""sterna serve as its users run it: OpenAI's own client, LangChain and curl, signals, and what is refused."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from debian import program as program_of_debian
from serving import ask, served
from sterna.host.server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "tiny" / "tiny.sterna"
pytestmark = pytest.mark.rest


@contextmanager
def program(*arguments, **variables):
    """(process, URL) of a running ``sterna serve``."""
    process = subprocess.Popen([sys.executable, "-m", "sterna", "serve", "-m", str(MODEL), "--port", "0", *arguments],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                               env=os.environ | variables)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server():
    with served(MODEL, "cpu", Settings(api_key="key")) as running:
        yield running


@pytest.fixture
def client(server):
    import openai
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="key", max_retries=0) as made:
        yield made


def direct(server, prompt="Once upon a time", **options):
    """(text, reason) by the engine itself."""
    with server.engine.generate(prompt, **({"temperature": 1.0, "seed": 5} | options)) as generation:
        return generation.result(), generation.finish_reason


def test_openai_completions(server, client):
    made = client.completions.create(model="tiny", prompt="Once upon a time", max_tokens=30, seed=5)
    assert (made.choices[0].text, made.choices[0].finish_reason) == direct(server, max_tokens=30)
    assert made.usage.completion_tokens == 30 and made.usage.total_tokens == made.usage.prompt_tokens + 30
    assert made.usage.prompt_tokens_details.cached_tokens >= 0
    parts = list(client.completions.create(model="tiny", prompt="Once upon a time", max_tokens=30, seed=5,
                                           stream=True, stream_options={"include_usage": True}))
    assert "".join(part.choices[0].text for part in parts[:-1]) == made.choices[0].text
    assert parts[-1].usage.completion_tokens == 30 and not parts[-1].choices
    echoed = client.completions.create(model="tiny", prompt="Once", max_tokens=3, echo=True, stop="\n", temperature=0,
                                       extra_body={"top_k": 5, "ignore_eos": True})
    assert echoed.choices[0].text.startswith("Once")


def test_openai_chats(server, client):
    said = [{"role": "user", "content": "Once upon a time"}]
    made = client.chat.completions.create(model="tiny", messages=said, max_completion_tokens=25, seed=5)
    text, reason = direct(server, max_tokens=25)
    assert (made.choices[0].message.content, made.choices[0].message.role) == (text, "assistant")
    assert made.choices[0].finish_reason == reason == "length" and made.object == "chat.completion"
    stop = text[-3:]
    with client.chat.completions.stream(model="tiny", messages=said, stop=stop, seed=5) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text[:text.index(stop)]
    assert final.choices[0].finish_reason == "stop"
    parts = [{"type": "text", "text": "Once upon"}, {"type": "text", "text": " a time"}]
    again = client.chat.completions.create(model="tiny", seed=5, max_tokens=25, messages=[
        {"role": "user", "content": parts}])
    assert again.choices[0].message.content == text
    several = client.chat.completions.create(model="tiny", messages=said, n=3, seed=5, max_tokens=25)
    assert several.choices[0].message.content == text and len({one.message.content for one in several.choices}) == 3
    assert [model.id for model in client.models.list()] == ["tiny"] and client.models.retrieve("tiny").id == "tiny"


def test_openai_errors(server, client):
    import openai
    said = [{"role": "user", "content": "a"}]
    for options, param, code in (({"logprobs": True}, "logprobs", "unsupported_parameter"),
                                 ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools",
                                  "unsupported_parameter"),
                                 ({"response_format": {"type": "json_object"}}, "response_format",
                                  "unsupported_parameter"),
                                 ({"temperature": 3}, "temperature", "decimal_above_max_value"),
                                 ({"extra_body": {"min_p": 0.1}}, "min_p", "unknown_parameter")):
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(model="tiny", messages=said, **options)
        assert (error.value.param, error.value.code) == (param, code)
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="gpt-4o", messages=said)
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="tiny", prompt="a", max_tokens=99_999)
    assert error.value.code == "context_length_exceeded"


def test_openai_asynchronous_and_stopped(server):
    import openai

    async def run():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="key", max_retries=0) as client:
            async def one(seed):
                made = await client.completions.create(model="tiny", prompt="Once upon a time", max_tokens=20,
                                                       seed=seed)
                return made.choices[0].text
            texts = await asyncio.gather(*map(one, range(20)))
            stream = await client.completions.create(model="tiny", prompt="One", max_tokens=4000, stream=True,
                                                     extra_body={"ignore_eos": True})
            async for _ in stream:
                break
            await stream.close()
            return texts
    texts = asyncio.run(run())
    assert texts == [direct(server, max_tokens=20, seed=seed)[0] for seed in range(20)]
    for _ in range(400):
        if not any(device.running for device in server.engine.devices):
            break
        threading.Event().wait(0.01)
    assert not any(device.running for device in server.engine.devices)


def test_langchain(server):
    from langchain_openai import ChatOpenAI, OpenAI
    known = {"model": "tiny", "base_url": f"{server.url}/v1", "api_key": "key", "max_retries": 0}
    model = ChatOpenAI(**known, temperature=0.5, max_tokens=20, seed=5)
    wanted = direct(server, max_tokens=20, temperature=0.5)[0]
    answer = model.invoke("Once upon a time")
    assert answer.content == wanted and answer.usage_metadata["output_tokens"] == 20
    assert answer.response_metadata["finish_reason"] == "length"
    assert "".join(part.content for part in model.stream("Once upon a time")) == wanted
    later = model.invoke([("system", "A story."), ("human", "Once"), ("ai", " upon"), ("human", "a time")])
    assert later.content
    assert OpenAI(**known, max_tokens=20, seed=5, temperature=0.5).invoke("Once upon a time") == wanted


def curl(*arguments):
    done = subprocess.run([program_of_debian("curl", "curl"), "-sS", "--max-time", "20", *arguments],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(server):
    key = ["-H", "Authorization: Bearer key"]
    post = [*key, "-H", "Content-Type: application/json"]
    assert json.loads(curl(*key, f"{server.url}/v1/models"))["data"][0]["id"] == "tiny"
    body = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 10, "seed": 5}
    wanted = direct(server, max_tokens=10)[0]
    made = json.loads(curl(*post, f"{server.url}/v1/completions", "-d", json.dumps(body)))
    assert made["choices"][0]["text"] == wanted
    stream = curl(*post, "-N", f"{server.url}/v1/completions", "-d", json.dumps(body | {"stream": True}))
    assert stream.endswith("data: [DONE]\n\n")
    parts = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    assert "".join(part["choices"][0]["text"] for part in parts) == wanted
    status = curl("-o", os.devnull, "-w", "%{http_code}", "-X", "OPTIONS", f"{server.url}/v1/completions",
                  "-H", "Origin: http://example.org", "-H", "Access-Control-Request-Method: POST")
    assert status == "403"
    assert json.loads(curl(*post, f"{server.url}/v1/completions", "-d", "{"))["error"]["type"] == \
        "invalid_request_error"


def test_a_client_that_reads_nothing_holds_no_slot_and_is_cut_off():
    settings = Settings(send_s=0.5, context=3000)
    body = json.dumps({"model": "tiny", "prompt": "One", "max_tokens": 2500, "ignore_eos": True, "n": 16, "seed": 1,
                       "stream": True, "temperature": 2}).encode()
    with served(MODEL, "cpu", settings) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        for _ in range(3000):
            if "client=gone" in server.log.getvalue():
                break
            threading.Event().wait(0.01)
        line, = server.log.getvalue().splitlines()
        assert "client=gone" in line and not server.server.server_state.connections
        assert not any(device.running for device in server.engine.devices) and not server.engine.waiting
        assert ask(server.port, "GET", "/health")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_answers_end(number):
    with program("--device", "golden") as (process, url):
        port = int(url.rpartition(":")[2])
        found = []
        body = {"model": "tiny", "prompt": "One", "max_tokens": 60, "ignore_eos": True, "seed": 1}
        asking = threading.Thread(target=lambda: found.append(ask(port, "POST", "/v1/completions", body)))
        asking.start()
        while asking.is_alive() and not ask(port, "GET", "/health")[2]["devices"][0]["running"]:
            threading.Event().wait(0.05)
        process.send_signal(number)
        asking.join(30)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0 and not out and err.endswith("the server has ended\n"), err
        assert found[0][0] == 200 and found[0][2]["usage"]["completion_tokens"] == 60
        assert "POST /v1/completions 200" in err and "One" not in err and "Traceback" not in err


def test_texts_are_in_the_log_if_wanted_and_the_key_is_taken_from_the_variable():
    with program("--log-prompts", "--allow-host", "Sterna.Example", STERNA_API_KEY="hidden") as (process, url):
        port, key = int(url.rpartition(":")[2]), {"Authorization": "Bearer hidden"}
        body = {"model": "tiny", "prompt": "One\u2028day", "max_tokens": 3}
        assert ask(port, "POST", "/v1/completions", body)[0] == 401
        assert ask(port, "POST", "/v1/completions", body, key | {"Host": "sterna.example:80"})[0] == 200
        assert b"hidden" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.send_signal(signal.SIGTERM)
        assert 'texts={"prompts": ["<|endoftext|>One\\u2028day"]' in process.communicate(timeout=30)[1]


@pytest.mark.parametrize("arguments, words", [
    (["--host", "0.0.0.0"], "others can reach this address"),
    (["--port", "70000"], "--port 70000"),
    (["--queue", "0"], "--queue 0"),
    (["--chat-template", "absent"], "absent"),
    (["--device", "nonsense"], "nonsense"),
    (["-m", "absent.sterna"], "absent.sterna"),
])
def test_refused_arguments(arguments, words):
    done = subprocess.run([sys.executable, "-m", "sterna", "serve", "-m", str(MODEL), *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2) and words in done.stderr and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1 and not done.stdout


def test_missing_packages_are_named():
    script = ("import sys; sys.modules['starlette'] = None; from importlib import util; "
              "find = util.find_spec; util.find_spec = lambda name: None if name == 'starlette' else find(name); "
              "from sterna.host.cli import main; sys.exit(main())")
    done = subprocess.run([sys.executable, "-c", script, "serve", "-m", str(MODEL)], capture_output=True, text=True)
    assert done.returncode == 2 and "starlette: not installed" in done.stderr and ".[serve]" in done.stderr
    assert done.stderr.count("\n") == 1
