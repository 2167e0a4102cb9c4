"""Runs a model on the simulated board and on the golden side, for comparison token by token and vector by vector.

What needs a build with slots is in ``soc_slots``.
"""

import dataclasses

import numpy as np
from sterna.firmware.program import build_program, inverse_temperature
from sterna.host.device.driver import Device
from sterna.host.device.transport import open_transport
from sterna.host.device.upload import upload as host_upload
from sterna.host.model.image import Image, build_image
from sterna.host.runtime.open import memory_file
from sterna.hw.presets import PRESETS
from sterna.sim.board.board import SimulatedBoard, read_trace
from sterna.sim.golden import fp24
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import Geometry, random_model
from sterna.sim.machine.compare import first_difference  # noqa: F401 (for the tests)
from sterna.sim.machine.machine import Machine

# The preset with banks that just hold the vectors of the largest model: built in half the time.
LANES320 = dataclasses.replace(PRESETS["lanes320"], vector_words=2048)


def board_image(packed, config, tokenizer="{}"):
    """Image of a PackedModel for a configuration."""
    return Image(build_image(packed, config, tokenizer, "test", 0))


def random_image(rng, config, geometry):
    """Image of a random model."""
    return board_image(random_model(rng, Geometry(*geometry)), config)


def random_timing(rng):
    """Options of SimulatedBoard: any memory, and random bits in registers and memory at the start."""
    interval = int(rng.integers(100, 1000))
    return {"latency_cycles": int(rng.integers(0, 200)), "bandwidth": int(rng.integers(40, 257)),
            "refresh_interval_cycles": interval, "refresh_cycles": int(rng.integers(0, interval // 2)),
            "seed": int(rng.integers(1, 1 << 31))}


def placed(image, config, base):
    """The image's MemoryMap moved up by ``base`` bytes."""
    where = image.check(config)
    return dataclasses.replace(where, **{name: getattr(where, name) + base for name in (
        "embedding_address", "stream_address", "state_address", "end")})


def golden_outcome(image, prompt, count, **options):
    """(tokens, state) that ``Session.outcome`` must give, of the golden model."""
    model = GoldenModel(image.unpack())
    state = model.start(1)
    tokens = model.generate(prompt, count, start_state=state, **options)
    return tokens, fp24.to_bits(state[:, 0]).tolist()


def _regions(config, image, where):
    """[(byte address, uint8 array)] of the image, moved up to the addresses of a MemoryMap as ``placed`` makes it."""
    return [(where.embedding_address + address, data) for address, data in image.regions(config)]


class Session:
    """A simulated board with a model in it; a context manager.

    Parameters
    ----------
    config : Config
    image : Image
    folder : Path
        Receives the trace and, with ``preload``, what lies in the memory.
    preload : bool
        Put the image into the memory directly instead of over the link.
    addresses : MemoryMap, optional
        Where the image goes; by default at the start of the memory.
    trace : bool
        Record every vector.
    board
        Options of SimulatedBoard.

    Attributes
    ----------
    device : Device
        The connected host side; ``reconnect`` makes a new one.
    program : Program
    """

    def __init__(self, config, image, folder, preload=False, addresses=None, trace=True, **board):
        self.config, self.image, self.folder, self.addresses = config, image, folder, addresses
        if preload:
            where = addresses or image.check(config)
            board["preload"] = memory_file(folder / "memory", _regions(config, image, where))
        self._preloaded = preload
        self.board = SimulatedBoard(config, trace=folder / "trace.bin" if trace else None, **board)

    def __enter__(self):
        self.board.start()
        try:
            self.device = Device(open_transport(self.board.url))
            self.load(self.image, self.addresses, upload=not self._preloaded)
        except BaseException:
            self.board.stop()
            raise
        return self

    def __exit__(self, kind, value, traceback):
        self.device.close()
        self.board.__exit__(kind, value, traceback)

    def load(self, image, addresses=None, upload=True):
        """Puts a model, its program and its constants into the device; ``upload`` False leaves the model out."""
        self.image, self.program = image, build_program(self.config, image.geometry, addresses)
        if upload:
            host_upload(self.device, _regions(self.config, image, self.program.memory_map), compare=False)
        where = self.program.memory_map
        # What lies there is loaded and not used; the interpreter's trace has zeros.
        self.device.write_state(where.state_address, bytes(where.state_bytes))
        self.device.load_program(self.program.words)
        for slot in range(self.config.batch):
            self.device.write_scalars(self.program.scalars, slot)

    def connect(self, **options):
        """A new Device in place of the one before, which must have been closed."""
        self.device = Device(open_transport(self.board.url), **options)
        return self.device

    def run(self, prompt, count, *, temperature=0.0, seed=0, **options):
        """Generator of (position, token), as of Device.run."""
        return self.device.run(prompt, count, seed=seed, sample=temperature > 0,
                               inverse_temperature_bits=inverse_temperature(temperature), **options)

    def generate(self, *prompt_and_count, **options):
        """Tokens that follow the prompt, as the board generates them; arguments of ``run``."""
        return [token for _, token in self.run(*prompt_and_count, **options)]

    def state(self):
        """Recurrent state in the device's memory, fp24 bits as lists [L][H]."""
        where, geometry = self.program.memory_map, self.image.geometry
        words = np.frombuffer(self.device.read_state(where.state_address, where.state_bytes), "<u4")
        return words.reshape(geometry.num_hidden_layers, -1)[:, :geometry.hidden_size].tolist()

    def outcome(self, *prompt_and_count, **options):
        """As ``generate``, with the state behind it: (tokens, state)."""
        return self.generate(*prompt_and_count, **options), self.state()

    def trace(self):
        """Every vector the board has written so far, after the board has been left."""
        return read_trace(self.folder / "trace.bin", self.config.batch * self.config.lanes)


class Expected:
    """The same model on the instruction interpreter, with its trace."""

    def __init__(self, config, image, addresses=None):
        self.program = build_program(config, image.geometry, addresses)
        where = self.program.memory_map
        memory = np.zeros(where.end, np.uint8)
        for address, data in _regions(config, image, where):
            memory[address:address + len(data)] = data
        self.vectors = []
        self.machine = Machine(config, memory, self._record)
        self.machine.load(self.program)

    def _record(self, *vector):
        self.vectors.append(vector)

    def generate(self, prompt, count, *, temperature=0.0, seed=0):
        """Tokens that follow the prompt; it and they must fit the token ring."""
        machine = self.machine
        machine.ring[:len(prompt)] = prompt
        machine.position = machine.start = 0
        machine.prompt_end, machine.seed = len(prompt), seed
        machine.limit, machine.flags = len(prompt) + count - 1, int(temperature > 0)
        machine.write_scalar(2, inverse_temperature(temperature))
        return [report.token for report in machine.run()]


def play(rng, session, images):
    """Makes greedy and sampled texts with each image in turn, all compared with interpreter and golden model.

    Parameters
    ----------
    rng : numpy Generator
    session : Session
        With the first image.
    images : list of Image

    Returns
    -------
    list
        The interpreter's vectors, which those of ``session.trace()`` must equal.
    """
    vectors = []
    for number, image in enumerate(images):
        if number:
            session.load(image)
        golden, vocab = Expected(session.config, image), image.geometry.vocab_size
        for temperature in (0.0, float(rng.uniform(0.3, 2))):
            prompt = rng.integers(0, vocab, rng.integers(1, 5)).tolist()
            count, key = int(rng.integers(1, 5)), int(rng.integers(1 << 32))
            options = {"temperature": temperature, "seed": key}
            print(f"{image.geometry}, prompt {prompt}, {count} tokens, {options}")
            wanted = golden.generate(prompt, count, **options)
            assert len(wanted) == count
            assert wanted == GoldenModel(image.unpack()).generate(prompt, count, **options)
            assert session.generate(prompt, count, **options) == wanted
        vectors += golden.vectors
    return vectors
