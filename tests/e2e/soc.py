"""Runs a model on the simulated board and on the golden side, for comparison token by token and vector by vector."""

import numpy as np

from sterna.firmware import isa
from sterna.firmware.program import build_program, inverse_temperature
from sterna.host.driver import Device
from sterna.host.image import Image, build_image
from sterna.host.transport import open_transport
from sterna.sim.board.board import SimulatedBoard, read_trace
from sterna.sim.golden.machine import Machine


def board_image(packed, config, tokenizer="{}"):
    """Image of a PackedModel for a configuration."""
    return Image(build_image(packed, config, tokenizer, "test", 0))


class Session:
    """A simulated board with a model in it; a context manager.

    Parameters
    ----------
    config : Config
    image : Image
    folder : Path
        Receives the trace and, with ``preload``, the image file.
    preload : bool
        Put the image into the memory directly instead of over the link.
    """

    def __init__(self, config, image, folder, preload=False, **board):
        self.config, self.image, self.folder = config, image, folder
        self.program = build_program(config, image.geometry)
        if preload:
            path = folder / "image.sterna"
            path.write_bytes(image.data.tobytes())
            where = image.check(config)
            board["preload"] = [
                (path, image.sections[name]["offset"], image.sections[name]["bytes"], address)
                for name, address in (("embedding", where.embedding_address), ("stream", where.stream_address))]
        self._preloaded = preload
        self.board = SimulatedBoard(config, trace=folder / "trace.bin", **board)

    def __enter__(self):
        self.board.start()
        self.device = Device(open_transport(self.board.url))
        self.device.__enter__()
        if not self._preloaded:
            for address, data in self.image.regions(self.config):
                self.device.write(address, data.tobytes() + bytes(-len(data) % 4))
        self.device.load_program(self.program.words)
        self.device.write_scalars(self.program.scalars)
        return self

    def __exit__(self, *exc):
        self.device.__exit__(*exc)
        self.board.stop()

    def generate(self, prompt, count, *, temperature=0.0, seed=0, **options):
        """Tokens that follow the prompt, as the board generates them."""
        return [token for _, token in self.device.run(
            prompt, count, seed=seed, sample=temperature > 0,
            inverse_temperature_bits=inverse_temperature(temperature), **options)]

    def trace(self):
        """Every vector the board has written so far, after the board has been left."""
        return read_trace(self.folder / "trace.bin", self.config.lanes)


class Expected:
    """The same model on the instruction interpreter, with its trace."""

    def __init__(self, config, image):
        memory = np.zeros(_memory_used(config, image), np.uint8)
        for address, data in image.regions(config):
            memory[address:address + len(data)] = data
        self.vectors = []
        self.machine = Machine(config, memory, self._record)
        self.program = build_program(config, image.geometry)
        self.machine.load(self.program)

    def _record(self, pc, fields, r_bits, codes):
        self.vectors.append((pc, fields, r_bits, codes))

    def generate(self, prompt, count, *, temperature=0.0, seed=0):
        """Tokens that follow the prompt."""
        machine = self.machine
        machine.ring[:len(prompt)] = prompt
        machine.position = machine.start = 0
        machine.prompt_end, machine.seed = len(prompt), seed
        machine.limit, machine.flags = len(prompt) + count - 1, int(temperature > 0)
        machine.write_scalar(2, inverse_temperature(temperature))
        return [token for _, token in machine.run()]


def first_difference(expected, actual, lanes):
    """None, or a text that names the first vector in which the board's trace departs from the interpreter's."""
    for number, (pc, fields, r_bits, codes) in enumerate(expected):
        if number >= len(actual):
            return f"vector {number} (instruction {pc}) is missing"
        is_code, values = actual[number]
        want = np.asarray(codes if codes is not None else r_bits).reshape(-1)
        if is_code != (codes is not None):
            return f"vector {number} (instruction {pc}): codes expected {codes is not None}, seen {is_code}"
        got = values[:len(want)] if is_code else values
        if len(got) != len(want):
            return f"vector {number} (instruction {pc}): {len(want)} numbers expected, {len(got)} seen"
        wrong = np.flatnonzero(got != want)
        if len(wrong):
            k = wrong[0]
            name = isa.disassemble(fields) if hasattr(isa, "disassemble") else fields
            return (f"vector {number} (instruction {pc}, {name}): element {k} of {len(want)}: "
                    f"expected {int(want[k]):#x}, got {int(got[k]):#x}")
    return None


def _memory_used(config, image):
    where = image.check(config)
    end = where.state_address + where.state_bytes
    return -(-end // 64) * 64
