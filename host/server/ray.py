"""The server over many machines, by Ray Serve: a replica for each device, and the HTTP of one machine in front.

    serve run sterna.host.server.ray:app model=/models/story.sterna replicas=2

A replica that dies, with its worker or machine, or whose device fails, loses no answer: another one makes the text
again, which depends on prompt, sampling and seed alone, and what the client has already is not sent twice.
"""

import asyncio
import fcntl
import hashlib
import os
import secrets
import tempfile
import time
from pathlib import Path

import ray.exceptions
from ray import serve

from sterna.host.errors import DeviceError, UsageError
from sterna.host.model.model import Model
from sterna.host.runtime.sampling import SEEDS
from sterna.host.server.app import App
from sterna.host.server.settings import KEY_VARIABLE, Settings
from sterna.host.server.templates import of_model
from sterna.host.serving.engine import DeviceStatus, EngineClosed, QueueFull, load
from sterna.host.serving.generation import CANCELLED, Usage

DEVICES_VARIABLE = "STERNA_DEVICES"  # of a machine: what its replicas may have, with commas between
TRIES = 20  # replicas that may die under one answer
AGAIN_S = 0.5
LOST = (ray.exceptions.RayActorError, ray.exceptions.RaySystemError, ray.exceptions.WorkerCrashedError,
        ray.exceptions.ObjectLostError, ray.exceptions.TaskUnschedulableError)


def cause_of(error):
    """What a replica raised, or the error itself."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(error, ray.exceptions.RayTaskError) and isinstance(cause, Exception) else error


def take_device():
    """(device, file) of a replica: the first of its machine's that no other replica has; the file is its lock."""
    devices = os.environ.get(DEVICES_VARIABLE, "cpu").split(",")
    for device in devices:
        name = f"sterna-{os.getuid()}-{hashlib.sha256(device.encode()).hexdigest()[:16]}.lock"
        file = open(Path(tempfile.gettempdir()) / name, "w")
        if device in ("cpu", "golden"):  # of which there is enough for all
            return device, file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return device, file
        except BlockingIOError:
            file.close()
    raise DeviceError(f"all of {DEVICES_VARIABLE}={','.join(devices)} are taken: start fewer replicas on this "
                      "machine")


class EngineReplica:
    """An engine on a device of the machine that Ray has put it on."""

    def __init__(self, model, threads=None):
        self._device, self._lock = take_device()
        self._engine = load(model, self._device, threads=threads, queue=4096)

    def check_health(self):
        """Raises if no device answers, and Ray starts another replica."""
        if not any(device.alive for device in self._engine.devices):
            raise DeviceError(f"{self._device} does not answer")

    def devices(self):
        """As ``Engine.devices``, each as a tuple."""
        return [(f"{device.name} on {os.uname().nodename}", device.label, device.alive, device.slots, device.running,
                 device.tokens) for device in self._engine.devices]

    async def pieces(self, ids, options):
        """Yields (piece, tokens so far), and at the end (reason, tokens, cached tokens, seconds queued)."""
        with self._engine.generate(ids, **options) as generation:
            async for piece in generation:
                yield piece, len(generation.tokens)
            usage = generation.usage
            yield generation.finish_reason, usage.completion_tokens, usage.cached_tokens, usage.queued_s


class RemoteGeneration:
    """As a Generation, of which some replica makes the text; another one takes over where it dies."""

    def __init__(self, engine, ids, options):
        self.ids, self.text, self.finish_reason, self.seed = ids, "", None, options["seed"]
        self._engine, self._options, self._given = engine, options, 0
        self._made, self._cached, self._queued_s = 0, 0, 0.0
        self._arrived, self._first, self._ended, self._error = time.monotonic(), None, None, None
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._at_its_end)

    @property
    def usage(self):
        now = self._ended or time.monotonic()
        return Usage(len(self.ids), self._cached, self._made, self._queued_s,
                     self._first and self._first - self._arrived, now - self._arrived)

    def cancel(self):
        """End the text; it may have ended already."""
        if self._ended is None:
            self.finish_reason = CANCELLED
            self._task.cancel()

    def __aiter__(self):
        return self

    async def __anext__(self):
        while self._given == len(self.text) and self._ended is None:
            self._changed.clear()
            await self._changed.wait()
        piece, self._given = self.text[self._given:], len(self.text)
        if not piece:
            if self._error:
                raise self._error
            raise StopAsyncIteration
        return piece

    def __await__(self):
        return self._whole().__await__()

    async def _whole(self):
        await asyncio.wait([self._task])
        if self._error:
            raise self._error
        return self.text

    async def _run(self):
        try:
            for left in reversed(range(TRIES)):
                try:
                    await self._once()
                    return
                except Exception as error:
                    if not isinstance(error, LOST) and not isinstance(cause_of(error), DeviceError | EngineClosed):
                        raise
                    if not left:
                        raise DeviceError(f"replica after replica died: {type(error).__name__}") from None
                    await asyncio.sleep(AGAIN_S)
        except asyncio.CancelledError:
            self.finish_reason = CANCELLED
        except Exception as error:  # noqa: BLE001 (it is the reader's)
            self._error = cause_of(error)

    def _at_its_end(self, _task):
        """Also where the task was cancelled before its first step."""
        self._ended = time.monotonic()
        self._engine.running.discard(self)
        self._changed.set()

    async def _once(self):
        """The text by one replica; what is there already is skipped."""
        seen = 0
        answer = self._engine.handle.options(stream=True).pieces.remote(self.ids, self._options)
        try:
            async for part in answer:
                if len(part) > 2:
                    self.finish_reason, self._made, self._cached, self._queued_s = part
                    return
                piece, self._made = part
                new = piece[max(0, len(self.text) - seen):]
                seen += len(piece)
                if new:
                    self._first = self._first or time.monotonic()
                    self.text += new
                    self._changed.set()
        except asyncio.CancelledError:
            answer.cancel()
            raise


class RemoteEngine:
    """As an Engine, whose devices are those of all replicas.

    Parameters
    ----------
    model : Path
    handle : DeploymentHandle
        Of EngineReplica.
    queue : int
        Texts that may be under way.
    """

    def __init__(self, model, handle, queue):
        self.model, self.handle, self.running, self._queue = Model(model), handle, set(), queue
        self._devices = []

    @property
    def waiting(self):
        """Texts under way beyond the slots that are known (int)."""
        return max(0, len(self.running) - sum(device.slots for device in self._devices))

    @property
    def devices(self):
        """The devices that have told of themselves (list of DeviceStatus)."""
        return self._devices or [DeviceStatus("replicas", "none has told of itself yet", True, 0, 0, 0)]

    async def look(self, every_s=2.0):
        """Asks a replica after the other what it has, for ever; one that is gone is forgotten."""
        seen = {}
        while True:
            try:
                for name, *rest in await self.handle.devices.remote():
                    seen[name] = time.monotonic(), DeviceStatus(name, *rest)
            except Exception:  # noqa: BLE001 (a replica that dies: the next one answers)
                pass
            seen = {name: one for name, one in seen.items() if time.monotonic() - one[0] < 30 * every_s}
            self._devices = [status for _, status in seen.values()]
            await asyncio.sleep(every_s)

    def generate(self, ids, *, seed=None, **options):
        """As ``Engine.generate``, of ids."""
        if len(self.running) >= self._queue:
            raise QueueFull(f"{len(self.running)} texts are under way already: try again when some have ended")
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        generation = RemoteGeneration(self, ids, options | {"seed": seed})
        self.running.add(generation)
        return generation


@serve.ingress()
class Front:
    """The HTTP of ``sterna serve`` in front of the replicas."""

    def __init__(self, model, handle, template, settings, queue):
        self._engine = RemoteEngine(model, handle, queue)
        self._app = App(self._engine, settings, of_model(model, template))
        self._look = asyncio.get_running_loop().create_task(self._engine.look())

    async def __serve_build_asgi_app__(self):
        return self._app


def app(arguments):
    """The application for ``serve run`` or ``ray.serve.run``.

    Parameters
    ----------
    arguments : dict of str to str
        ``model``, a path that is the same on every machine; ``replicas``, 1 by default; ``threads`` of each;
        ``resource``, a resource of Ray's of which each replica takes one; ``front``, one that the HTTP side takes a
        bit of; ``template``; ``host``, the address that Ray's proxy listens at, 127.0.0.1 by default: for another one
        the variable STERNA_API_KEY has the key; ``queue``, requests under way at most, 1024 by default.
    """
    known = {"model", "replicas", "threads", "resource", "front", "template", "host", "queue"}
    if wrong := sorted(set(arguments) - known) or [name for name in ("model",) if name not in arguments]:
        raise UsageError(f"{wrong[0]}: give model, and perhaps {', '.join(sorted(known - {'model'}))}")
    settings = Settings(host=arguments.get("host", "127.0.0.1"), api_key=os.environ.get(KEY_VARIABLE))
    count, queue = int(arguments.get("replicas", 1)), int(arguments.get("queue", 1024))
    threads = int(arguments["threads"]) if "threads" in arguments else None

    def taking(name, amount):
        return {"num_cpus": 0, "resources": {arguments[name]: amount} if name in arguments else {}}

    replicas = serve.deployment(EngineReplica).options(
        name="engine", num_replicas=count, max_ongoing_requests=queue, ray_actor_options=taking("resource", 1),
        health_check_period_s=2, health_check_timeout_s=10)
    front = serve.deployment(Front).options(
        name="front", num_replicas=1, max_ongoing_requests=queue + 64, ray_actor_options=taking("front", 0.01))
    return front.bind(arguments["model"], replicas.bind(arguments["model"], threads), arguments.get("template"),
                      settings, queue)
