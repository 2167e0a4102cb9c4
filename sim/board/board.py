"""Starts the simulated board and gives its URL: the compiled accelerator behind a TCP socket on 127.0.0.1."""

import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sterna.sim.board.compile import ACCELERATOR, board_program
from sterna.sim.board.dram import DEFAULT, SETTINGS
from sterna.sim.golden.errors import SternaError

# Exit statuses of the harness: wrong options; a file that could not be written to its end. With any other one the
# model had run, and its initial bits matter.
USAGE, UNWRITTEN = 2, 5


class BoardError(SternaError, RuntimeError):
    """The simulated board stopped; the message is what it said."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A serial line, modelled bit by bit in the clock of the board, behind a USB bridge as those of FTDI.

    The bridge takes bytes from the host once per USB frame. Bytes from the device wait in it until they fill a packet
    or its latency timer, which starts anew with each packet, has run off. The host itself takes no simulated time.

    Attributes
    ----------
    baud : int
        Rate of both ends, nominally.
    error_ppm : int
        By how much the bridge's clock is faster than the board's, in parts per million.
    noise_ppb : int
        Bits of a thousand million that the line inverts, in either direction.
    latency_us, frame_us : int
        Latency timer (FTDI: 16000 unless it is set, down to 1000) and USB frame (high speed 125, full speed 1000).
    packet_bytes : int
        Bytes of a full packet to the host (high speed: 510, full speed: 62).
    log : path or None
        File that gets every byte on the line; see ``read_line``.
    """

    baud: int
    error_ppm: int = 0
    noise_ppb: int = 0
    latency_us: int = 1000
    frame_us: int = 125
    packet_bytes: int = 510
    log: object = None


def read_line(path):
    """Bytes on the line in order: structured array with cycle (of the last bit), to_device and byte."""
    return np.fromfile(path, np.dtype([("cycle", "<u8"), ("to_device", "u1"), ("byte", "u1")]))


def waves_format(path):
    """Format of a file of waveforms, as `sterna.sim.board.compile.board_program` takes it (str)."""
    return "fst" if Path(path).suffix == ".fst" else "vcd"


class SimulatedBoard:
    """Context manager of one running simulated board.

    Parameters
    ----------
    config : sterna.hw.config.Config
        Configuration of the accelerator; compiled on first use, then started in well under a second.
    preload : sequence of (path, offset, bytes, address)
        Parts of files that lie in the model memory from the start (not for on-chip memory), all in bytes.
    waves : path or None
        File of waveforms to write, FST if it ends in .fst, VCD otherwise; needs a compilation of its own and is
        slower.
    waves_limit : int
        Bytes behind which that file ends, with its line (VCD) or block of cycles (FST); 0: no limit.
    record : bool
        Whether the waveforms begin at once, or when ``record`` is called.
    toggles : path or None
        Instead of it: a file for how many bits every signal has changed by; see ``read_toggles``.
    trace : path or None
        File for every intermediate vector; see `read_trace`.
    latency_cycles, bandwidth : int
        Cycles from a read command to its first word; words per 256 cycles (1..256).
    refresh_interval_cycles, refresh_cycles : int
        Every `refresh_interval_cycles` (0: never) the memory transfers nothing for `refresh_cycles`.
    pauses : int
        Of 256 cycles (0..255), drawn at random for each engine's memory: in these it transfers nothing either.
    dram : sterna.sim.board.dram.Dram or None
        What stands behind AXI ports, which takes the place of the four options before; None: the default setting.
    seed : int
        Seed of the bits in all registers before the reset and in all memories of the accelerator and, if not 0, of
        those in the model memory. An error of the running board ends with it.
    max_cycles : int
        The board stops with an error after this many cycles; 0: never.
    port : int
        TCP port; 0: a free one.
    line : Line or None
        A serial line and a USB bridge between socket and device; None: bytes come and go directly.
    greetings : (bytes, bytes) or None
        What a client is sent first, when its turn has come, and what one is sent that has to wait until another one
        leaves; None: nothing is sent.
    flash : path or None
        The board has a flash with this file in it (``sterna.host.device.flash``, or an empty one) and starts from it.
    device, device_sources, on_compile, netlist
        As for `sterna.sim.board.compile.board_program`.

    Attributes
    ----------
    url : str
        "socket://127.0.0.1:PORT" for pyserial, while the board runs.
    cycles : int or None
        Clock cycles simulated in all, known after the end.
    counts : dict of str to int
        After the end, of a chip of SDRAM: commands by name, and "pins", the bits by which its pins have changed; of a
        DRAM behind AXI ports: 64-byte chunks read and written, ACTIVATEs, refreshes, turns to writes.

    Raises
    ------
    BoardError
        If it is to write what it cannot; on entering, if the board does not start; on leaving without another
        error, if it had stopped by itself.
    sterna.sim.board.toolchain.ToolError
        On entering, if a tool is missing or the compilation fails.
    """

    def __init__(self, config, preload=None, waves=None, trace=None, *, latency_cycles=20, bandwidth=256,
                 refresh_interval_cycles=780, refresh_cycles=0, pauses=0, seed=0, max_cycles=0, port=0,
                 device=ACCELERATOR, device_sources=(), on_compile=None, line=None, toggles=None, flash=None,
                 netlist=None, greetings=None, waves_limit=0, record=True, dram=None):
        if latency_cycles < 0 or not 1 <= bandwidth <= 256:
            raise ValueError(f"latency_cycles {latency_cycles}, bandwidth {bandwidth}: use 0 or more, and 1 to 256")
        if refresh_cycles < 0 or refresh_cycles >= (refresh_interval_cycles or refresh_cycles + 1):
            raise ValueError(f"refresh_cycles {refresh_cycles}: use 0 to less than refresh_interval_cycles "
                             f"{refresh_interval_cycles}, or the memory never delivers")
        self._config, self._seed = config, seed
        self._waves = waves_format(waves) if waves is not None else "vcd" if toggles is not None else None
        self._build = {"device": device, "device_sources": device_sources, "on_compile": on_compile,
                       "baud": line and line.baud, "flash": flash is not None,
                       "netlist": netlist}
        self._arguments = ["--watch-stdin", "--port", port, "--seed", seed, "--max-cycles", max_cycles,
                           "--latency", latency_cycles, "--bandwidth", bandwidth,
                           "--refresh-interval", refresh_interval_cycles, "--refresh-cycles", refresh_cycles,
                           *(["--pauses", pauses] if pauses else [])]
        if config.axi_ports:
            self._arguments += ["--dram", (dram or SETTINGS[DEFAULT]).option()]
        if waves is not None and toggles is not None:  # before anything is compiled
            raise BoardError("--toggles: leave --waves out")
        if netlist and trace is not None:
            raise BoardError("--trace: a netlist has no trace")
        if waves is not None:
            self._arguments += ["--waves-limit", int(waves_limit), *["--waves-off"] * (not record)]
        for path, offset, size, address in preload or ():
            self._arguments += ["--preload", f"{address}:{offset}:{size}:{Path(path).resolve()}"]
        if line:
            self._arguments += ["--line-error", line.error_ppm, "--line-noise", line.noise_ppb, "--usb-latency",
                                line.latency_us, "--usb-frame", line.frame_us, "--usb-packet", line.packet_bytes]
        if greetings:
            self._arguments += ["--greeting", greetings[0].hex(), "--wait", greetings[1].hex()]
        for option, path in (("--waves", waves), ("--toggles", toggles), ("--trace", trace),
                             ("--flash", flash), ("--line-log", line and line.log)):
            if path is not None:
                self._arguments += [option, Path(path).absolute()]  # as the user calls it
        self._process = self._errors = None
        self.url = self.cycles = None
        self.counts = {}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, value, traceback):
        try:
            self.stop()
        except BoardError:
            if kind is None:
                raise

    def start(self):
        """Compiles if necessary and starts the board; returns its URL."""
        program = board_program(self._config, waves=self._waves, **self._build)
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen([str(program), *map(str, self._arguments)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=self._errors, text=True,
                                         start_new_session=True)
        word, _, port = self._process.stdout.readline().strip().partition(" ")
        if word != "listening":
            self.stop()
            raise BoardError("the simulated board did not start")
        self.url = f"socket://127.0.0.1:{port}"
        return self.url

    @property
    def running(self):
        """Whether the process is alive (bool)."""
        return self._process is not None and self._process.poll() is None

    def record(self, on):
        """Lets the waveforms pause or go on, from the next byte on that the board is sent; BoardError, as of `stop`,
        if it has ended.
        """
        try:
            self._process.stdin.write(f"waves {'on' if on else 'off'}\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it has died
            self.stop()
            raise BoardError("the simulated board has ended") from None

    def complaint(self):
        """What the running board has said about itself, nothing as a rule (str)."""
        if self._errors is None or self._errors.closed:
            return ""
        return os.pread(self._errors.fileno(), 1 << 16, 0).decode(errors="replace").strip()

    def wait(self):
        """Returns when the board has ended by itself."""
        self._process.wait()

    def stop(self):
        """Ends the board; BoardError with its message if it had stopped with an error."""
        if self._process is None:
            return
        process, self._process, self.url = self._process, None, None
        with suppress(BrokenPipeError):  # it may have ended with something left to read
            process.stdin.close()  # the board ends when its standard input does
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for line in process.stdout.read().splitlines():
            word, *rest = line.split()
            if word == "cycles":
                self.cycles = int(rest[0])
            elif word == "count":
                self.counts[rest[0]] = int(rest[1])
        process.stdout.close()
        self._errors.seek(0)
        message = self._errors.read().strip()
        self._errors.close()
        if process.returncode:
            message = message or f"the simulated board ended with status {process.returncode}"
            if process.returncode not in (USAGE, UNWRITTEN):
                message += f"; initial bits: seed {self._seed}"
            raise BoardError(message)


def read_toggles(path):
    """{path of a signal: bits by which it has changed} of a file of ``toggles``; of several names of one signal the
    innermost.
    """
    rows = (line.split(" ", 2) for line in Path(path).read_text().splitlines())
    return {name: int(count) for count, _, name in rows}


def _beats(path, lanes):
    """The whole records of a trace file (structured array): flags, cycle, values and codes of each beat."""
    record = np.dtype([("flags", "u1"), ("cycle", "<u8"), ("values", "u1", (lanes, 3)), ("codes", "i1", (lanes,))])
    raw = Path(path).read_bytes()
    return np.frombuffer(raw, record, count=len(raw) // record.itemsize)


def trace_cycles(path, lanes):
    """The cycles, from the start of the board, in which the first and the last beat of each vector of `read_trace`
    were written (int64 array [vectors, 2]).
    """
    beats = _beats(path, lanes)
    last = np.flatnonzero(beats["flags"] & 1)
    first = np.concatenate([[0], last[:-1] + 1])
    return beats["cycle"][np.stack([first, last], axis=1)].astype(np.int64)


def read_trace(path, lanes):
    """Vectors of a trace file in order: list of (is_code, values) per vector.

    `values` is an int8 array of codes if `is_code`, else a uint32 array of fp24 bit patterns; both have the padding
    of the last beat. A vector that was cut off at the end is left out.

    With B > 1 `lanes` is B V, those of all slots, and each beat has the V lanes of slot 0, then those of slot 1, and
    so on: ``values.reshape(-1, B, V)`` are beats, slots and lanes.
    """
    beats = _beats(path, lanes)
    values = beats["values"].astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)
    vectors, begin = [], 0
    for end in np.flatnonzero(beats["flags"] & 1) + 1:
        is_code = bool(beats["flags"][end - 1] & 2)
        vectors.append((is_code, (beats["codes"] if is_code else values)[begin:end].reshape(-1)))
        begin = end
    return vectors
