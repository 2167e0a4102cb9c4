"""A device as the host sees it: registers, program, token rings and runs of its slots (docs/protocol.md)."""

import time

from sterna.firmware import isa
from sterna.host.device.frames import Frame
from sterna.host.device.info import DeviceInfo
from sterna.host.device.link import Link
from sterna.host.device.run import prepare
from sterna.host.errors import DeviceError, HostError
from sterna.hw import protocol
from sterna.hw.protocol import Register

# A large model takes minutes per token in simulation, and a request as many cycles as on a board.
SIMULATION_STALL_S, SIMULATION_TIMEOUT_S = 600.0, 60.0


class Device(Link):
    """One connected device. Where a method takes a slot, 0 is that of a device without slots.

    Parameters
    ----------
    transport : object with name, baud, read(timeout_s), write(data), close()
        See ``sterna.host.device.transport``.
    timeout_s : float
        Seconds without a reply to a request, or a TOKEN frame, after which the device counts as gone.
    retry_s : float or None
        Seconds after which a request is sent again; None: as ``RequestWindow`` finds right for the transport.
    poll_s : float
        Seconds without a TOKEN frame after which a run asks for the position.
    stall_s : float
        Seconds for one token after which a device that still answers counts as hung; a simulated board gets
        SIMULATION_STALL_S at least.
    tell : callable(str)
        Takes a line for the user where something takes long.

    Attributes
    ----------
    info : DeviceInfo

    Raises
    ------
    DeviceError
        Nothing answers.
    ProtocolError
        Not a Sterna device, or another version.
    """

    def __init__(self, transport, *, timeout_s=10.0, retry_s=None, poll_s=0.5, stall_s=120.0,
                 tell=lambda line: None):
        super().__init__(transport, timeout_s, retry_s, tell)
        self.poll_s = poll_s
        self.stall_s = stall_s
        self._runs = None  # of the program, as the device last counted them
        self._positions = {}  # by slot: the last one that is known, which runs only move on
        self._chained = None  # whether the slots are; not known yet
        try:
            self.info = DeviceInfo.parse(self.read(protocol.REGISTERS, protocol.HELLO_BYTES), self.name)
        except BaseException:
            self.close()
            raise
        self._window.size = self.info.credits
        if self.simulated:
            self.stall_s = max(stall_s, SIMULATION_STALL_S)
            self._window.timeout_s = max(timeout_s, SIMULATION_TIMEOUT_S)

    @property
    def slots(self):
        """The numbers of the slots (range)."""
        return range(self.info.batch)

    # Memory

    def at(self, address):
        """The address on the link of a byte of the model memory (int)."""
        return protocol.memory_address(address, self.info.memory_bytes)

    def read_state(self, address, n_bytes, *, slot=0, layer_bytes=None):
        """State in device memory (bytes), to be written back by ``write_state``.

        Parameters
        ----------
        address, n_bytes : int
            The region of all layers and slots.
        slot : int
        layer_bytes : int, optional
            Size of a slot's vector of a layer; without it the whole region is read.
        """
        parts = self._state_parts(address, n_bytes, slot, layer_bytes)
        return b"".join(self.read(self.at(part), size) for part, size in parts)

    def write_state(self, address, state, *, slot=0, layer_bytes=None):
        """Puts back what ``read_state`` returned; only while the slot runs no token."""
        if self.info.batch == 1 or not any(self.status(k)[1] for k in self.slots):
            self.reset()  # the next token's first state may have been fetched already; with slots it never is
        n_bytes = len(state) * self.info.batch if layer_bytes else len(state)
        for at, size in self._state_parts(address, n_bytes, slot, layer_bytes):
            self.write(self.at(at), state[:size])
            state = state[size:]

    def _state_parts(self, address, n_bytes, slot, layer_bytes):
        """Pairs (address, bytes) of a slot's vectors."""
        if layer_bytes is None:
            return [(address, n_bytes)]
        step = self.info.batch * layer_bytes
        return [(address + at + slot * layer_bytes, layer_bytes) for at in range(0, n_bytes, step)]

    # Registers, program, scalars

    def read_register(self, register, slot=0):
        """A register of a slot's block by byte offset (int)."""
        return int.from_bytes(self.read(protocol.register_address(register, slot), 4), "little")

    def write_register(self, register, value, slot=0):
        """Writes a register of a slot's block."""
        if register == Register.POSITION:
            self._positions[slot] = value
        self.write(protocol.register_address(register, slot), int(value).to_bytes(4, "little"))

    def load_program(self, words):
        """Writes a program: ``words`` are its 96-bit instructions (sequence of int). Resets the engines, which may
        have fetched for a token of another one.
        """
        if len(words) > self.info.program_words:
            raise DeviceError(f"{self.name}: the program has {len(words)} instructions and the device holds "
                              f"{self.info.program_words}: use a bitstream with a larger program memory")
        self.reset()
        self.write(protocol.PROGRAM, isa.program_bytes(words))

    def write_scalars(self, values, slot=0):
        """Writes scalar registers: {number: bits of an fp24 number}; only while the slot runs no token."""
        for address, data in protocol.scalar_writes(values, slot):
            self.write(address, data)

    def status(self, slot=0):
        """(running a token, enabled, fault, next position): bool, bool, int, int."""
        block = self.read(protocol.register_address(Register.STATUS, slot), 8)
        status = int.from_bytes(block[:4], "little")
        return bool(status & 1), bool(status & 2), status >> 8 & 0xFF, int.from_bytes(block[4:], "little")

    def counters(self):
        """All counters by name (dict of int, 32-bit, wrapping)."""
        block = self.read(protocol.REGISTERS + protocol.COUNTERS, 4 * len(protocol.COUNTER_NAMES))
        return {name: int.from_bytes(block[4 * k:4 * k + 4], "little")
                for k, name in enumerate(protocol.COUNTER_NAMES)}

    def check_life(self):
        """DeviceError if the device was switched off, reset or programmed anew since this was last asked.

        Its count of runs then begins anew; model, program and registers are gone, and what it would make now is
        anything. Where there are no counters, only ``halt`` sees it. Returns the count (int).
        """
        runs, self._runs = self._runs, self.read_register(protocol.counter_offset("runs"))
        if runs is not None and (self._runs - runs) % (1 << 32) >= 1 << 31:
            raise self._restarted()
        return self._runs

    def _restarted(self):
        return DeviceError(f"{self.name}: the device was restarted: load the model again")

    def reset(self):
        """Resets the sequencer and the engines of all slots, for instance after a fault; the memory stays."""
        self.write_register(Register.CONTROL, protocol.CONTROL_RESET)

    # Token rings

    def write_ring(self, position, tokens, slot=0):
        """Puts tokens (sequence of int) into a ring at ``position`` and the positions behind it."""
        for place, part in self._ring_parts(position, len(tokens)):
            words = tokens[place - position:place - position + part]
            self.write(protocol.ring_address(place, self.info.ring, slot),
                       b"".join(int(t).to_bytes(4, "little") for t in words))

    def read_ring(self, position, count, slot=0):
        """``count`` tokens from a ring, from ``position`` on (list of int)."""
        words = b"".join(self.read(protocol.ring_address(place, self.info.ring, slot), 4 * part)
                         for place, part in self._ring_parts(position, count))
        return [int.from_bytes(words[k:k + 4], "little") for k in range(0, len(words), 4)]

    def _ring_parts(self, position, count):
        """Cuts positions where the ring ends: pairs (position, number)."""
        while count:
            part = min(count, self.info.ring - position % self.info.ring)
            yield position, part
            position, count = position + part, count - part

    # Runs

    def enable(self, slots):
        """Lets the runs of slots begin, in requests that follow one another as closely as the line can.

        DeviceError if the device has lost its memory since it was last asked, see ``check_life``.
        """
        self.check_life()
        word = protocol.CONTROL_RUN.to_bytes(4, "little")
        self.exchange((lambda s, k=k: Frame.write(s, protocol.register_address(Register.CONTROL, k), word)
                       for k in slots), lambda index, reply: None)

    def halt(self, slot=0):
        """Ends a slot's run: the current token finishes, then the slot is idle; returns the next position (int).

        DeviceError if a token does not finish within ``stall_s``, or the device was restarted.
        """
        self.write_register(Register.CONTROL, 0, slot)
        deadline = time.monotonic() + self.stall_s
        while True:
            running, _, _, position = self.status(slot)
            if not running:
                break
            if time.monotonic() > deadline:
                raise DeviceError(f"{self.name}: position {position} did not finish within {self.stall_s:g} s: "
                                  "reset the board")
            time.sleep(0.001)
        self.status(slot)  # a TOKEN frame may leave behind the first reply, not behind the second
        self.forget_tokens(slot)
        if position < self._positions.get(slot, 0):
            raise self._restarted()
        self._positions[slot] = position
        return position

    def await_position(self, position, limit, slot=0):
        """Waits until a slot, now at ``position`` or behind, has processed the positions below ``limit``.

        DeviceError for a fault, or no progress for ``stall_s``.
        """
        moved = time.monotonic()
        while position < limit:
            # Tokens of a prompt send no event; asking for the position every few milliseconds costs nothing.
            time.sleep(0.002)
            _, enabled, fault, now = self.status(slot)
            if fault:
                raise DeviceError(f"{self.name}: fault {fault} at position {now}: "
                                  "reset the board, then start again")
            if not enabled:
                raise self._restarted()
            if now != position:
                position, moved = now, time.monotonic()
            if time.monotonic() - moved > self.stall_s:
                raise DeviceError(f"{self.name}: no progress for {self.stall_s:g} s "
                                  f"at position {position}: reset the board, then start again")

    def chain(self, on):
        """Chains the slots, or makes them independent; they all come to rest before that changes."""
        if on and self.info.batch == 1:
            raise ValueError("one slot cannot be chained")
        if self.info.batch > 1 and self._chained is not on:
            for slot in self.slots:
                self.halt(slot)
            self.write_register(Register.FLAGS, protocol.FLAG_CHAINED if on else 0)
            self._window.chained = self._chained = on

    def start(self, prompt_ids, n, **options):
        """A Run whose registers are set, and which has not begun; see ``sterna.host.device.run.prepare``."""
        return prepare(self, prompt_ids, n, **options)

    def run(self, prompt_ids, n, **options):
        """Runs a prompt and yields the ``n`` tokens that follow it, as they arrive.

        Prompt and generated tokens may be longer than the token ring: the prompt is written in pieces as positions
        are processed, and ``limit`` is raised as tokens are read. Once tokens are sampled, ``limit`` is raised only
        after the device has come to it, so a raise can never overtake the device's own lowering at the stop token.

        Parameters are those of ``device.run.prepare``. Runs of other slots go on meanwhile, unless the chaining
        changes.

        Yields
        ------
        (position, token) : (int, int)
            Positions are consecutive.

        Closing the generator (or Ctrl-C in it) lets the current token finish and leaves the slot ready for the
        next run.

        Raises
        ------
        DeviceError
            The device stopped answering for ``timeout_s``, hangs in a token for ``stall_s``, or reports a fault.
        """
        run = self.start(prompt_ids, n, **options)
        if n == 0:
            return
        try:
            yield from run.tokens()
        except HostError:
            raise  # the device does not answer or hangs: asking it again would only take as long again
        except BaseException:
            self.halt(run.slot)
            raise
        self.halt(run.slot)
