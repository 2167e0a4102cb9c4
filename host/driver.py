"""A device as the host sees it: memory, registers, program, token ring and runs (docs/protocol.md)."""

import time

from sterna.host import protocol
from sterna.host.errors import DeviceError, HostError
from sterna.host.protocol import DeviceInfo, Register
from sterna.host.run import Run
from sterna.host.window import RequestWindow

CHUNK_BYTES = protocol.MAX_DATA_BYTES


class Device:
    """One connected device.

    Parameters
    ----------
    transport : object with name, baud, read(timeout_s), write(data), close()
        See ``sterna.host.transport``.
    timeout_s : float
        Seconds without any undamaged frame after which the device counts as gone.
    retry_s : float or None
        Seconds after which a request is sent again; None: as ``RequestWindow`` finds right for the transport.
    poll_s : float
        Seconds without a TOKEN frame after which a run asks for the position.
    stall_s : float
        Seconds for one token after which a device that still answers counts as hung.

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

    def __init__(self, transport, *, timeout_s=10.0, retry_s=None, poll_s=0.5, stall_s=120.0):
        self.transport = transport
        self.name = transport.name
        self.poll_s = poll_s
        self.stall_s = stall_s
        self._window = RequestWindow(transport, timeout_s, retry_s)
        self.info = DeviceInfo.parse(self.read(protocol.REGISTERS, protocol.HELLO_BYTES), self.name)
        self._window.size = self.info.credits

    @property
    def requests_repeated(self):
        """Requests that were sent again since the device was opened (int)."""
        return self._window.requests_repeated

    # Memory

    def read(self, address, n_bytes, progress=None):
        """``n_bytes`` from ``address``, both multiples of 4 (bytes); calls ``progress(done, total)`` in bytes."""
        self._aligned(address, n_bytes)
        chunks = [(k, min(CHUNK_BYTES, n_bytes - k)) for k in range(0, n_bytes, CHUNK_BYTES)]
        parts = [b""] * len(chunks)
        done = 0

        def answered(index, reply):
            nonlocal done
            parts[index] = reply.data
            done += len(reply.data)
            if progress:
                progress(done, n_bytes)

        self._window.exchange((lambda s, k=k, n=n: protocol.read(s, address + k, n) for k, n in chunks), answered)
        return b"".join(parts)

    def write(self, address, data, progress=None):
        """``data`` (bytes-like) to ``address``, address and length multiples of 4; ``progress`` as for ``read``."""
        data = memoryview(data).cast("B")
        self._aligned(address, len(data))
        done = 0

        def answered(index, reply):
            nonlocal done
            done += reply.length
            if progress:
                progress(done, len(data))

        self._window.exchange((lambda s, k=k: protocol.write(s, address + k, data[k:k + CHUNK_BYTES])
                               for k in range(0, len(data), CHUNK_BYTES)), answered)

    def exchange(self, frames, answered):
        """Requests of any kind; see ``RequestWindow.exchange``."""
        self._window.exchange(frames, answered)

    @staticmethod
    def _aligned(address, n_bytes):
        if address % 4 or n_bytes % 4 or n_bytes < 0 or not 0 <= address <= (1 << 32) - n_bytes:
            raise ValueError(f"address {address:#x}, {n_bytes} bytes: both must be multiples of 4 within 32 bits")

    def read_state(self, address, n_bytes):
        """The state region of the model in device memory (bytes), to be written back by ``write_state``."""
        return self.read(address, n_bytes)

    def write_state(self, address, state):
        """Puts back what ``read_state`` returned; only while no token runs."""
        self.reset()  # the next token's first state may have been fetched already
        self.write(address, state)

    # Registers, program, scalars

    def read_register(self, register):
        """A register of the block at 0x90000000 by byte offset (int)."""
        return int.from_bytes(self.read(protocol.REGISTERS + register, 4), "little")

    def write_register(self, register, value):
        """Writes a register of the block at 0x90000000."""
        self.write(protocol.REGISTERS + register, int(value).to_bytes(4, "little"))

    def load_program(self, words):
        """Writes a program: ``words`` are its 96-bit instructions (sequence of int). Resets the engines, which may have
        fetched for a token of another one.
        """
        if len(words) > self.info.program_words:
            raise DeviceError(f"{self.name}: the program has {len(words)} instructions and the device holds "
                              f"{self.info.program_words}: use a bitstream with a larger program memory")
        self.reset()
        self.write(protocol.PROGRAM, b"".join(int(word).to_bytes(16, "little") for word in words))

    def write_scalars(self, values):
        """Writes scalar registers: {number: bits of an fp24 number}; only while no token runs."""
        for number, bits in values.items():
            self.write(protocol.SCALARS + 4 * number, int(bits).to_bytes(4, "little"))

    def status(self):
        """(running a token, enabled, fault, next position): bool, bool, int, int."""
        block = self.read(protocol.REGISTERS + Register.STATUS, 8)
        status = int.from_bytes(block[:4], "little")
        return bool(status & 1), bool(status & 2), status >> 8 & 0xFF, int.from_bytes(block[4:], "little")

    def counters(self):
        """All counters by name (dict of int, 32-bit, wrapping)."""
        block = self.read(protocol.REGISTERS + protocol.COUNTERS, 4 * len(protocol.COUNTER_NAMES))
        return {name: int.from_bytes(block[4 * k:4 * k + 4], "little")
                for k, name in enumerate(protocol.COUNTER_NAMES)}

    def reset(self):
        """Resets the sequencer and the engines, for instance after a fault; the memory stays."""
        self.write_register(Register.CONTROL, protocol.CONTROL_RESET)

    # Token ring

    def write_ring(self, position, tokens):
        """Puts tokens (sequence of int) into the ring at ``position`` and the positions behind it."""
        for place, part in self._ring_parts(position, len(tokens)):
            words = tokens[place - position:place - position + part]
            self.write(protocol.RING + 4 * (place % self.info.ring),
                       b"".join(int(t).to_bytes(4, "little") for t in words))

    def read_ring(self, position, count):
        """``count`` tokens from the ring, from ``position`` on (list of int)."""
        words = b"".join(self.read(protocol.RING + 4 * (place % self.info.ring), 4 * part)
                         for place, part in self._ring_parts(position, count))
        return [int.from_bytes(words[k:k + 4], "little") for k in range(0, len(words), 4)]

    def _ring_parts(self, position, count):
        """Cuts positions where the ring ends: pairs (position, number)."""
        while count:
            part = min(count, self.info.ring - position % self.info.ring)
            yield position, part
            position, count = position + part, count - part

    # Events and runs

    def wait_token(self, wait_s):
        """The next TOKEN frame as (position, token), waiting up to ``wait_s``; None if none came."""
        return self._window.wait_token(wait_s)

    def forget_tokens(self):
        """Drops TOKEN frames of earlier runs."""
        self._window.forget_tokens()

    def halt(self):
        """Ends a run: the current token finishes, then nothing runs; returns the next position (int).

        DeviceError if a token does not finish within ``stall_s``.
        """
        self.write_register(Register.CONTROL, 0)
        deadline = time.monotonic() + self.stall_s
        while True:
            running, _, _, position = self.status()
            if not running:
                break
            if time.monotonic() > deadline:
                raise DeviceError(f"{self.name}: position {position} did not finish within {self.stall_s:g} s: "
                                  "reset the board")
            time.sleep(0.001)
        self.status()  # a TOKEN frame may leave behind the first reply, not behind the second
        self.forget_tokens()
        return position

    def run(self, prompt_ids, n, *, seed=0, sample=False, inverse_temperature_bits=None, stop=None, start_position=0,
            reset_state=True):
        """Runs a prompt and yields the ``n`` tokens that follow it, as they arrive.

        Prompt and generated tokens may be longer than the token ring: the prompt is written in pieces as positions
        are processed, and ``limit`` is raised as tokens are read. Once tokens are sampled, ``limit`` is raised only
        after the device has come to it, so a raise can never overtake the device's own lowering at the stop token.

        Parameters
        ----------
        prompt_ids : sequence of int
            At least one token; the first one belongs to ``start_position``.
        n : int
            Tokens to generate at most.
        seed : int
            32 bits; with ``sample``, the same seed gives the same tokens.
        sample : bool
            Sample; otherwise greedy.
        inverse_temperature_bits : int or None
            fp24 bits for scalar register 2; None leaves it.
        stop : int or None
            Token after which the run ends; it is yielded.
        start_position : int
            First position of the prompt. To go on with a sequence: the position of the last token that was yielded,
            with that token as the first of ``prompt_ids`` and ``reset_state=False``.
        reset_state : bool
            Start from a zero state; otherwise from the one that is in the device's memory.

        Yields
        ------
        (position, token) : (int, int)
            Positions are consecutive.

        Closing the generator (or Ctrl-C in it) lets the current token finish and leaves the device ready for the
        next run.

        Raises
        ------
        DeviceError
            The device stopped answering for ``timeout_s``, hangs in a token for ``stall_s``, or reports a fault.
        """
        prompt_ids = [int(token) for token in prompt_ids]
        if not prompt_ids or n < 0 or start_position < 0 or start_position + len(prompt_ids) + n >= protocol.NEVER:
            raise ValueError(f"{len(prompt_ids)} prompt tokens, {n} tokens from position {start_position}: "
                             "a run needs a prompt and positions below 2^32 - 1")
        self.halt()
        if inverse_temperature_bits is not None:
            self.write_scalars({2: inverse_temperature_bits})
        for register, value in (
                (Register.POSITION, start_position),
                (Register.START, start_position if reset_state else protocol.NEVER),
                (Register.LIMIT, start_position), (Register.PROMPT_END, start_position + len(prompt_ids)),
                (Register.SEED, seed), (Register.FLAGS, int(sample)),
                (Register.STOP, protocol.NEVER if stop is None else stop)):
            self.write_register(register, value)
        if n == 0:
            return
        try:
            yield from Run(self, prompt_ids, n, stop, start_position).tokens()
        except HostError:
            raise  # the device does not answer or hangs: asking it again would only take as long again
        except BaseException:
            self.halt()
            raise
        self.halt()

    def close(self):
        """Closes the transport."""
        self.transport.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
