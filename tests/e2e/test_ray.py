"""The server over several nodes of Ray: streams through its proxy, and a node that is killed costs no answer."""

import asyncio
import json
import os
import threading
import time
from pathlib import Path

import pytest
import sterna
from serving import ask
from sterna.host.errors import DeviceError
from sterna.host.serving.engine import EngineClosed

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "story" / "story.sterna"
PORT, REQUESTS, TOKENS = 8765, 60, 300
PATIENT = {"RAY_agent_register_timeout_ms": "180000", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
           "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60"}  # Ray's own few seconds can be too short
pytestmark = [pytest.mark.rest, pytest.mark.ray]


def add_node(cluster, **options):
    """A node of a cluster, tried again if it took longer to appear than the half minute that Ray gives it."""
    for left in reversed(range(3)):
        try:
            return cluster.add_node(object_store_memory=80 << 20, **options)
        except Exception as error:  # Ray has no type of its own for it
            if not left or "timed out during startup" not in str(error):
                raise


@pytest.fixture(scope="module")
def cluster():
    """A head with the front, and two nodes, a raylet each with its workers, of which each has a replica."""
    os.environ.update(PATIENT)  # read as Ray is imported, here and by what it starts
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster
    from sterna.host.server.ray import app
    cluster = Cluster()
    add_node(cluster, num_cpus=1, resources={"head": 1}, include_dashboard=False)
    workers = [add_node(cluster, num_cpus=1, resources={"device": 1}) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(app({"model": str(MODEL), "replicas": "2", "threads": "1", "resource": "device", "front": "head"}))
    cluster.workers = workers
    yield cluster
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def wanted():
    """The texts that the requests must give."""
    with sterna.load(MODEL, "cpu", threads=1) as engine:
        made = [engine.generate("Once upon a time", max_tokens=TOKENS, temperature=1.0, seed=seed, ignore_end=True)
                for seed in range(REQUESTS)]
        return [generation.result() for generation in made]


def request(seed, stream):
    body = {"model": "story", "prompt": "Once upon a time", "max_tokens": TOKENS, "seed": seed, "ignore_eos": True,
            "stream": stream}
    status, _, value = ask(PORT, "POST", "/v1/completions", body, timeout_s=500)
    assert status == 200, value
    if not stream:
        return value["choices"][0]["text"]
    parts = [json.loads(part[6:]) for part in value.split("\n\n")[:-2]]
    assert value.endswith("data: [DONE]\n\n"), value[-300:]
    return "".join(part["choices"][0]["text"] for part in parts)


def test_streams_through_the_proxy(cluster, wanted):
    assert request(1, True) == wanted[1] and request(2, False) == wanted[2]
    assert ask(PORT, "GET", "/")[0] == 200 and ask(PORT, "GET", "/v1/models")[2]["data"][0]["id"] == "story"
    status, _, value = ask(PORT, "POST", "/v1/completions", {"model": "story", "prompt": "a", "temperature": 9})
    assert status == 400 and value["error"]["param"] == "temperature"
    import openai
    with openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none", max_retries=0) as client:
        parts = client.completions.create(model="story", prompt="Once upon a time", max_tokens=TOKENS, seed=3,
                                          stream=True, extra_body={"ignore_eos": True})
        assert "".join(part.choices[0].text for part in parts) == wanted[3]


def test_a_node_that_is_killed_costs_no_answer(cluster, wanted):
    found, first = {}, threading.Event()

    def one(seed):
        try:
            found[seed] = request(seed, seed % 2 == 0)
        except Exception as error:  # noqa: BLE001 (shown below)
            found[seed] = error
        first.set()

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(REQUESTS)]
    for thread in threads:
        thread.start()
    first.wait(60)
    time.sleep(0.05)
    under_way = REQUESTS - len(found)
    cluster.remove_node(cluster.workers[0], allow_graceful=False)
    for thread in threads:
        thread.join(500)
    assert under_way > REQUESTS // 4, under_way
    wrong = {seed: found.get(seed) for seed in range(REQUESTS) if found.get(seed) != wanted[seed]}
    assert not wrong, wrong


class Handle:
    """As Ray's of replicas: each call gives the next of several answers, an exception in one is raised."""

    def __init__(self, *answers):
        self._answers, self.pieces, self.remote = list(answers), self, self._remote

    def options(self, stream):
        return self

    async def _remote(self, ids, options):
        for part in self._answers.pop(0):
            if isinstance(part, Exception):
                raise part
            yield part


def remote(handle, function):
    """What an asynchronous function makes of a RemoteEngine with a handle."""
    from sterna.host.server.ray import RemoteEngine
    engine = RemoteEngine.__new__(RemoteEngine)
    engine.__dict__.update(handle=handle, running=set(), _queue=2, _devices=[])

    async def run():
        return await asyncio.wait_for(function(engine), 20)
    return asyncio.run(run())


@pytest.mark.parametrize("fault", [DeviceError("unplugged"), EngineClosed("closed"), None])
def test_an_answer_goes_on_where_a_device_works(fault, monkeypatch):
    import ray.exceptions
    from sterna.host.server import ray as module
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    error = ray.exceptions.RayActorError() if fault is None else \
        ray.exceptions.RayTaskError("pieces", "trace", fault).as_instanceof_cause()

    async def text(engine):
        generation = engine.generate([1], seed=1)
        found = await generation
        return found, generation.finish_reason, generation.usage.completion_tokens, len(engine.running)
    handle = Handle([("ab", 1), error], [("a", 1), ("bc", 2), ("stop", 2, 0, 0.0)])
    assert remote(handle, text) == ("abc", "stop", 2, 0)


def test_what_is_cancelled_at_once_leaves_no_trace():
    async def all_ended(engine):
        many = [engine.generate([1], seed=1) for _ in range(2)]
        for generation in many:
            generation.cancel()
        return [([piece async for piece in generation], await generation, generation.finish_reason)
                for generation in many], len(engine.running)
    assert remote(Handle(), all_ended) == ([([], "", "cancelled")] * 2, 0)
