"""Runs on the accelerator: a device behind a port, or a simulated board that is started for the run."""

import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from sterna.firmware.program import build_program
from sterna.host import protocol
from sterna.host.console import progress_bar
from sterna.host.driver import Device
from sterna.host.errors import DeviceError, UsageError
from sterna.host.protocol import Register
from sterna.host.runtime import Runtime
from sterna.host.transport import open_transport
from sterna.host.upload import BLOCK_BYTES, differences, upload
from sterna.sim.golden import fp24

COUNTERS_EVERY_S = 5.0  # the counters have 32 bits, which 200 MHz fill in 21 s
SIMULATION_STALL_S = 600.0  # a large model takes minutes per token in simulation


class DeviceRuntime(Runtime):
    """A model on a device.

    Parameters
    ----------
    model : Model
    device : Device
        Closed by ``close``.
    tell : callable(str)
        Takes lines of information.
    simulated : bool
        The device's cycles are simulated ones.
    loaded : bool
        The model lies in the device's memory already.
    fresh : bool
        The memory holds nothing yet; otherwise what it holds is compared, and only what differs is sent.

    Attributes
    ----------
    uploaded : Upload or None
        What was sent.

    Raises
    ------
    ImageError, ProgramError, DeviceError
        The model does not fit the device, or the device fails.
    """

    piece_tokens = 64  # of a prompt, read in one run

    def __init__(self, model, device, tell, *, simulated=False, loaded=False, fresh=False):
        super().__init__(model)
        self.device, info = device, device.info
        self.resources = ExitStack()  # what close ends besides the device
        self.statistics.config, self.statistics.simulated = info, simulated
        self._image = model.image_for(info, tell)
        program = build_program(info, model.geometry)
        self._map = program.memory_map
        self.label = f"{device.name}: {model.name} on {info.rows} x {info.columns}, {info.lanes} lanes"
        device.halt()
        device.reset()
        self.uploaded = None
        if not loaded:
            with progress_bar() as bars:
                self.uploaded = upload(device, self._image.regions(info), compare=not fresh, bars=bars)
        device.load_program(program.words)
        device.write_scalars(program.scalars)

    def verify(self):
        """Compare the device's hashes of the model with the image; DeviceError at the first difference."""
        with progress_bar() as bars:
            for address, data in self._image.regions(self.device.info):
                task = bars.add_task("verifying", total=len(data))
                parts = differences(self.device, address, data,
                                    lambda done, total, task=task: bars.update(task, completed=done))
                if parts:
                    begin, end = parts[0]
                    self._wrong_byte(address + begin, data[begin:min(end, begin + BLOCK_BYTES)])

    def _wrong_byte(self, address, wanted):
        """Name the first byte that differs, in a block whose hash does."""
        found = np.frombuffer(self.device.read(address, len(wanted)), np.uint8)
        wrong = np.flatnonzero(found != wanted).tolist()
        what = f"the hash of {len(wanted)} bytes from 0x{address:08x} is wrong, but they read back right"
        if wrong:
            what = (f"byte 0x{address + wrong[0]:08x} of the memory is 0x{found[wrong[0]]:02x} instead of "
                    f"0x{wanted[wrong[0]]:02x}")
        raise DeviceError(f"{self.device.name}: {what}: upload again, then check the memory's timing")

    @property
    def model_bytes(self):
        return len(self._image.data)

    def close(self):
        self.device.close()
        self.resources.close()

    def _start(self, position, limit, prompt_end):
        registers = {Register.POSITION: position, Register.START: position if position == 0 else protocol.NEVER,
                     Register.PROMPT_END: prompt_end, Register.STOP: protocol.NEVER, Register.LIMIT: limit,
                     Register.CONTROL: protocol.CONTROL_RUN}
        for register, value in registers.items():
            self.device.write_register(register, value)

    def _read(self, tokens, cancelled):
        # In pieces that end with the device at rest, so that the counters tell reading from making exactly.
        done, size = 0, max(1, min(self.device.info.ring // 2, self.piece_tokens))
        self.device.halt()
        if tokens:
            self._begin_count()
        while done < len(tokens) and not cancelled():
            piece = tokens[done:done + size]
            first = self.position
            self.device.write_ring(first, piece)
            # An output is wanted only behind prompt_end, which lies beyond this piece.
            self._start(first, first + len(piece), first + len(piece) + 1)
            self._await(first, first + len(piece))
            self.device.halt()
            self._count(self.statistics.prompt_counters)
            done += len(piece)
            yield done

    def _await(self, position, limit):
        """Wait until the device has read the positions below ``limit``."""
        moved = time.monotonic()
        while position < limit:
            # Tokens of a prompt send no event; asking for the position every few milliseconds costs nothing.
            time.sleep(0.002)
            _, _, fault, now = self.device.status()
            if fault:
                raise DeviceError(f"{self.device.name}: fault {fault} at position {now}: "
                                  "reset the board, then start again")
            if now != position:
                position, moved = now, time.monotonic()
            if time.monotonic() - moved > self.device.stall_s:
                raise DeviceError(f"{self.device.name}: no progress for {self.device.stall_s:g} s "
                                  f"at position {position}: reset the board, then start again")

    def _make(self, token, n, sampling, stop, cancelled):
        device = self.device
        self._begin_count()
        end = self.position + n
        bits = sampling.inverse_temperature_bits
        run = device.run([token], n, seed=sampling.seed, sample=sampling.temperature > 0,
                         inverse_temperature_bits=bits or None, stop=stop, start_position=self.position,
                         reset_state=self.position == 0)
        ended = False
        try:
            with closing(run):
                for _, token in run:
                    ended = token == stop
                    yield self._known(token)
                    if time.monotonic() - self._sampled_at > COUNTERS_EVERY_S:
                        self._count(self.statistics.counters)
                    if cancelled():
                        break
        except GeneratorExit:
            # The caller has seen enough, at a stop string for instance; the device has gone further.
            self.tokens += [] if ended else self._ahead(end)
            self._count(self.statistics.counters)
            raise
        # After Ctrl-C too the device may have gone further, and its state is that of the last token it read.
        yield from [] if ended else self._ahead(end)
        self._count(self.statistics.counters)

    def _ahead(self, end):
        """Tokens that the device has made beyond ``tokens``, once it is at rest, at position ``end`` at most."""
        position = self.device.status()[3]
        count = position + 1 - len(self.tokens)
        if position > end or not 0 <= count <= self.device.info.ring:
            raise DeviceError(f"{self.device.name}: reports position {position} and was at {self.position}: "
                              "reset the board, then start again")
        return list(map(self._known, self.device.read_ring(len(self.tokens), count)))

    def _known(self, token):
        """A token from the device; DeviceError unless the model has it."""
        if token >= self.model.geometry.vocab_size:
            raise DeviceError(f"{self.device.name}: made token {token}, and the model has "
                              f"{self.model.geometry.vocab_size}: reset the board, then start again")
        return token

    def _begin_count(self):
        self._before, self._sampled_at = self.device.counters(), time.monotonic()

    def _count(self, sums):
        """Add what the counters have moved since the last time; they wrap."""
        before = self._before
        self._begin_count()
        sums.update({name: (value - before[name]) % (1 << 32) for name, value in self._before.items()})

    def _values(self):
        geometry, where = self.model.geometry, self._map
        raw = np.frombuffer(self.device.read_state(where.state_address, where.state_bytes), "<u4")
        layers = raw.reshape(geometry.num_hidden_layers, where.layer_state_bytes // 4)
        return fp24.from_bits(layers[:, :geometry.hidden_size])

    def _set_values(self, values):
        where = self._map
        layers = np.zeros((len(values), where.layer_state_bytes // 4), "<u4")
        layers[:, :values.shape[1]] = fp24.to_bits(values)
        self.device.halt()
        self.device.write_state(where.state_address, layers.tobytes())


def _files(stack, image, config):
    """(path, offset, bytes, address) of the regions, from a file that lives as long as ``stack``."""
    if config.memory == "onchip":
        raise UsageError(f"--preload: the memory of {config.name} is on the chip: leave --preload out")
    path, parts, at = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "memory", [], 0
    with path.open("wb") as file:
        for address, data in image.regions(config):
            file.write(data)
            parts.append((path, at, len(data), address))
            at += len(data)
    return parts


def open_port(port, baud, model, tell):
    """The DeviceRuntime of a serial port or URL; TransportError, DeviceError or ProtocolError if there is none."""
    device = Device(open_transport(port, baud))
    try:
        return DeviceRuntime(model, device, tell)
    except BaseException:
        device.close()
        raise


def open_simulation(config, model, tell, *, waves=None, preload=False, timing=None):
    """The DeviceRuntime of a simulated board; ``waves``, ``preload`` and ``timing`` as for ``open_runtime``."""
    from sterna.sim.board.board import SimulatedBoard
    with ExitStack() as stack:
        image = model.image_for(config, tell)  # refused before anything is compiled
        build_program(config, model.geometry)
        if preload is None:  # waveforms of an upload are larger than those of many tokens
            preload = waves is not None and config.memory == "external"
        parts = _files(stack, image, config) if preload else None
        board = stack.enter_context(SimulatedBoard(config, preload=parts, waves=waves, on_compile=tell,
                                                   **timing or {}))
        device = Device(open_transport(board.url), stall_s=SIMULATION_STALL_S)
        stack.callback(device.close)
        runtime = DeviceRuntime(model, device, tell, simulated=True, loaded=preload, fresh=True)
        runtime.resources = stack.pop_all()
        if waves is not None:
            runtime.piece_tokens = 1  # so that a limit of the file is looked at behind every token
        return runtime
