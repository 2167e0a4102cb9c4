"""The token program of a model geometry: docs/numerics.md, sections 6 to 8, in the order of the stream.

Layout of the program: what comes before the first layer, then ``tail`` (scalars of two norms and of one matrix), which
attention, o_proj and gate_proj share. There is no call instruction: who entered the tail is told by ``left``,
which the tail's own NEXT instructions count down to one of four values. Behind the tail: the head, then the layer.

Deadlock is avoided by construction: every vector of the stream is taken before the product behind it is issued, and
at most four fetches are unfinished when one is queued. On-chip memory needs no fetch ahead of time: there the words
of every fetch are taken by instructions before the next one.
"""

from dataclasses import dataclass

from sterna.firmware import isa
from sterna.firmware.allocate import AllocationError, place
from sterna.firmware.assembler import Assembler, AssemblerError
from sterna.firmware.disassembler import disassemble
from sterna.firmware.isa import (MEM, ONE, RANDOM, RANDOM_LN2, ROW, STREAM8, STREAM32, TO_SAMPLE, ZERO, scalar,
                                 to_scalar)
from sterna.host.image import ALIGN, ImageError, MemoryMap, layout, memory_map
from sterna.sim.golden import fp24
from sterna.sim.golden.fp24 import round24, to_bits

INVERSE_TEMPERATURE = 2  # written by the host per run
_CONSTANTS = (PER_H, PER_I, OUTER_EPS, INNER_EPS, FLOOR, THREE_HALVES, HALF, TWO, C127, LARGE, LN2) = range(3, 14)
M, WS, S, Q = (14, 15, 16), (17, 18, 19), (20, 21, 22), (23, 24, 25)  # of up to three matrices behind one norm
R, X1, X2, T, Y, WS_DOWN = range(26, 32)  # the last one is lost in a sampling (isa.BEST_SCALAR)
_ROW, _STREAM, _STATE_IN, _STATE_OUT = range(4)  # address registers
_SELECT = 64  # step of the tail's entry numbers


class ProgramError(ValueError):
    """A geometry that does not fit the device; one line that names what is too large."""


@dataclass(frozen=True)
class Program:
    """Result of ``build_program``.

    Attributes
    ----------
    words : list of int
        96-bit instructions.
    scalars : dict of int to int
        fp24 bits of the scalar registers that the host writes before the first token.
    listing : str
        Disassembly.
    memory_map : MemoryMap
    vectors : dict of str to Vector
        Placement in the vector banks.
    vector_words : tuple of int
        Words used of each bank.
    """

    words: list
    scalars: dict
    listing: str
    memory_map: MemoryMap
    vectors: dict
    vector_words: tuple

    @property
    def data(self):
        """Bytes of the program memory."""
        return isa.program_bytes(self.words)


def constants(geometry):
    """{scalar register: fp24 bits} of docs/numerics.md, section 5, without 1/temperature."""
    values = (1 / geometry.hidden_size, 1 / geometry.intermediate_size, geometry.rms_norm_eps, 1e-6, 1e-5, 1.5, 0.5,
              2.0, 127.0, 1.27e7, fp24.LN2)
    return {register: int(to_bits(round24(v))) for register, v in zip(_CONSTANTS, values, strict=True)}


def inverse_temperature(temperature):
    """fp24 bits of round(1 / temperature) for register ``INVERSE_TEMPERATURE``; 0 counts as 1 (greedy)."""
    return int(to_bits(round24(1 / temperature if temperature > 0 else 1.0)))


class _Writer:
    """Emits the parts of the program into ``asm``."""

    def __init__(self, config, geometry, addresses):
        self.config, self.geometry, self.map = config, geometry, addresses
        self.shape = layout(config, geometry)
        self.h, self.i = geometry.hidden_size, self.shape.inner
        self.banks = place(config, self.h, self.i)
        self.v = self.banks.vectors
        self.asm = Assembler(config.lanes, config.program_words)
        self.vop = self.asm.vop
        widths = (8, 2) if config.lanes == 1 else (8,) if config.lanes == 2 else ()
        self.shrink = dict(zip((16, 4), widths, strict=False))  # after level d, this vector length is enough
        self.port = config.port_bytes
        self.ahead = config.memory == "external"  # fetch ahead of time

    def emit(self, opcode, **fields):
        self.asm.emit(opcode, **fields)

    def strip(self, elements, strip=None):
        self.emit(isa.STRIP, elements=elements, strip=strip or elements)

    def loop(self, label, elements):
        """Start of a loop over strips; ``again`` ends it."""
        self.strip(elements, self.config.strip)
        self.asm.label(label)

    def again(self, label, step=True):
        self.emit(isa.NEXT, target=label, strip=self.config.strip,
                  step=self.config.strip // self.config.lanes if step else 0)

    def jump(self, condition, label):
        self.emit(isa.JUMP, condition=condition, target=label)

    def fetch(self, areg, size):
        if size // self.port >= 1 << 24:
            raise ProgramError(f"memory: one part of the stream has {size // self.port} words: "
                               f"a fetch takes {(1 << 24) - 1}; use a wider port")
        self.emit(isa.FETCH, areg=areg, words=size // self.port)

    def fetch_stream(self, *parts):
        self.fetch(_STREAM, sum(self.shape.part_bytes(part) for part in parts))

    def fetch_stream_now(self, *parts):
        """The parts that the next instructions take, where nothing is fetched ahead."""
        if not self.ahead:
            self.fetch_stream(*parts)

    def load(self, *names):
        """Vectors from the stream: names of vectors, or numbers of scalar registers."""
        for name in names:
            if isinstance(name, int):
                self.vop(to_scalar(name), STREAM32, one=True)
            else:
                self.vop(self.v[name].write(), STREAM32)

    def quantise(self, name, buffer, slot, length):
        self.strip(length)
        self.vop(isa.to_activation(buffer), self.v[name].read(), scalar(Q[slot]))

    def product(self, buffer, rows, columns):
        self.emit(isa.MATVEC, buffer=buffer, rows=rows, chunks=-(-columns // self.config.columns))

    def clear(self, peaks):
        """Zero both partial sums and the first ``peaks`` maxima: min(|0|, m) clears a second register at once."""
        p = self.v["p1"]
        self.strip(2 * isa.PARTIAL_SUMS)
        self.vop(isa.to_banks(0b110, p.address, words=2 * p.words), ZERO, minimum=M[0])
        if peaks == 3:
            self.vop(to_scalar(M[1]), ZERO, one=True, minimum=M[2])

    def sum_square(self, name, bank, sums):
        """sums += name^2; ``name`` is a Vector operand factory without offset unless it is x."""
        operand = self.v[name].read(plus=name == "x")
        self.vop(self.v[sums].write(mod=True), operand, operand, self.v[sums].read(number=bank, mod=True))

    def norm_strip(self, folded):
        """A strip of y = x w_outer, of both sums of squares, and of u = x W with their peaks, in place."""
        x = self.v["x"].read(plus=True)
        self.vop(self.v["t1"].write(), x, self.v["outer"].read(plus=True))
        self.sum_square("x", 2, "p1")
        for slot in range(folded):
            u = self.v[f"u{slot}"]
            self.vop(u.write(plus=True), x, u.read(plus=True), maximum=M[slot])
        self.sum_square("t1", 2, "p2")

    def accumulate_x(self):
        x = self.v["x"]
        self.vop(x.write(plus=True), ROW, scalar(S[0]), x.read(plus=True))

    def fold(self, *sums):
        """The tree over 64 partial sums; results go to X1, X2. A vector length longer than a level only adds junk."""
        lanes = self.config.lanes
        for d in (32, 16, 8, 4, 2, 1):
            for name, register in zip(sums, (X1, X2), strict=False):
                p = self.v[name]
                c = p.read(number=2, offset=d // lanes, rotate=0 if d >= lanes else d)
                self.vop(to_scalar(register) if d == 1 else p.write(), p.read(number=1), ONE, c, one=d <= lanes)
            if d in self.shrink:
                following = f"fold {len(self.asm)}"
                self.emit(isa.NEXT, target=following, strip=self.shrink[d], step=0)
                self.asm.label(following)

    def enter_fold(self, entry=0):
        """Sets the fold's vector length, and ``left`` so that the tail returns to entry 0 to 3."""
        self.strip(sum(self.shrink.values()) + _SELECT * (entry + 1), isa.PARTIAL_SUMS // 2)

    def scalars(self, ws, *, two):
        """r of the norm, and S and qm of matrix slot 0 (its scale in register ``ws``)."""
        vop, s, t = self.vop, scalar, to_scalar

        def one(d, a, b=ONE, c=ZERO, **options):
            vop(d, a, b, c, one=True, **options)

        # Two chains, the norm's and that of 1 / peak, take turns: no operation needs the result of the one before it
        # as long as both go on.
        if two:
            one(t(X1), s(X1), s(PER_H), s(OUTER_EPS))
            one(t(X2), s(X2), s(PER_H))
            one(t(Q[0]), s(M[0]), table="RECIP")
            one(t(T), s(X1), s(INNER_EPS), s(X2))
        else:
            one(t(T), s(X1), s(PER_I), s(INNER_EPS))
            one(t(Q[0]), s(M[0]), table="RECIP")
        one(t(S[0]), s(FLOOR))
        one(t(Y), s(T), table="RSQRT")
        one(t(X2), s(M[0]), s(Q[0]), s(TWO), negp=True)
        one(t(X1), s(Y), s(Y))
        one(t(X2), s(Q[0]), s(X2))
        one(t(X1), s(X1), s(T))
        one(t(X1), s(X1), s(HALF), s(THREE_HALVES), negp=True)
        one(t(R), s(Y), s(X1))
        one(t(Q[0]), s(R), s(LARGE))
        one(isa.NOWHERE, s(M[0]), s(R), maximum=S[0])
        one(isa.NOWHERE, s(X2), s(C127), minimum=Q[0])
        one(t(S[0]), s(S[0]), s(ws))

    def more_scalars(self):
        """S and qm of the matrix slots 1 and 2, side by side; z in X1 and X2."""
        slots = ((1, X1), (2, X2))
        for steps in (
                lambda n, z: [(to_scalar(S[n]), scalar(FLOOR)), (to_scalar(Q[n]), scalar(M[n]), {"table": "RECIP"})],
                lambda n, z: [(to_scalar(z), scalar(M[n]), scalar(Q[n]), scalar(TWO), {"negp": True}),
                              (isa.NOWHERE, scalar(M[n]), scalar(R), {"maximum": S[n]})],
                lambda n, z: [(to_scalar(z), scalar(Q[n]), scalar(z)),
                              (to_scalar(S[n]), scalar(S[n]), scalar(WS[n]))],
                lambda n, z: [(to_scalar(Q[n]), scalar(R), scalar(LARGE))],
                lambda n, z: [(isa.NOWHERE, scalar(z), scalar(C127), {"minimum": Q[n]})]):
            for n, z in slots:
                for step in steps(n, z):
                    options = step[-1] if isinstance(step[-1], dict) else {}
                    self.vop(*(o for o in step if not isinstance(o, dict)), one=True, **options)

    def start(self):
        """Up to the first norm. The embedding row comes last: what precedes it was fetched before the token was known."""
        where, port = self.map, self.port
        if self.ahead:
            self.jump(isa.FRESH, "first token")  # the token before has fetched what does not depend on this one
            self.asm.label("begin")
        else:
            self.first_fetches()
        self.emit(isa.SETA, areg=_STATE_OUT, value=where.state_address // port)
        self.emit(isa.ROWA, areg=_ROW, base=where.embedding_address // port, stride=where.row_bytes // port)
        if self.ahead:
            self.fetch(_ROW, where.row_bytes)
            self.fetch_stream("mixer", "out", "glu")
        self.strip(self.h)
        self.load("outer", "u0", "u1", "u2", *WS)
        self.load_layer()
        if not self.ahead:
            self.fetch(_ROW, where.row_bytes)
        self.load(X1)
        self.vop(self.v["x"].write(), STREAM8, scalar(X1))
        self.clear(3)
        self.loop("first norm", self.h)
        self.norm_strip(3)
        self.again("first norm")
        self.emit(isa.LOOP, count=self.geometry.num_hidden_layers)
        self.enter_fold(3)
        self.jump(isa.ALWAYS, "tail")

    def first_fetches(self):
        """The fetches of a token that do not depend on it, up to the state of the first layer."""
        for areg, address in ((_STREAM, self.map.stream_address), (_STATE_IN, self.map.state_address)):
            self.emit(isa.SETA, areg=areg, value=address // self.port)
        self.fetch_stream("norm", "gates")
        if self.ahead:
            self.fetch(_STATE_IN, self.map.layer_state_bytes)

    def next_token(self):
        """What can be fetched for the next token; it may be what this one has stored."""
        self.emit(isa.WAITM)
        if self.ahead:
            self.first_fetches()

    def load_layer(self):
        """The vectors of a layer's mixer and its state."""
        self.load("keep", "w_g", "w_o")
        if not self.ahead:
            self.fetch(_STATE_IN, self.map.layer_state_bytes)
        self.load("h")

    def tail(self):
        self.asm.label("attention norm")
        self.enter_fold(0)
        self.asm.label("tail")
        self.fold("p1", "p2")
        self.scalars(WS[0], two=True)
        self.emit(isa.NEXT, target="out or another", strip=_SELECT, step=0)
        self.emit(isa.AGAIN, target="layer")

    def head(self):
        vocab, v, s = self.geometry.vocab_size, self.v, scalar
        t0, t1, s0, s1 = (v[name] for name in ("t0", "t1", "s0", "s1"))
        self.jump(isa.NOT_WANTED, "no output")
        self.quantise("u0", 0, 0, self.h)
        self.fetch_stream_now("head")
        self.product(0, vocab, self.h)
        self.next_token()
        self.emit(isa.SAMPLE, end=0)
        self.jump(isa.GREEDY, "greedy")
        self.loop("sampled", vocab)
        self.vop(t1.write(), RANDOM, table="LOG1M")
        self.vop(s0.write(), RANDOM, t1.read(), RANDOM_LN2)
        self.vop(s1.write(), s0.read(), table="LOG2")
        self.vop(t0.write(), ROW, s(S[0]))
        self.vop(s1.write(), s0.read(), ONE, s1.read(), table="EXPONENT")
        self.vop(t0.write(), t0.read(), s(INVERSE_TEMPERATURE))
        self.vop(TO_SAMPLE, s1.read(), s(LN2), t0.read(), negp=True)
        self.again("sampled", step=False)
        self.jump(isa.ALWAYS, "chosen")
        self.asm.label("greedy")
        self.loop("greedy strip", vocab)
        self.vop(TO_SAMPLE, ROW, s(S[0]))
        self.again("greedy strip", step=False)
        self.asm.label("chosen")
        self.emit(isa.SAMPLE, end=1)
        self.emit(isa.HALT)
        self.asm.label("no output")
        self.next_token()
        self.emit(isa.HALT)
        if self.ahead:
            self.asm.label("first token")
            self.first_fetches()
            self.jump(isa.ALWAYS, "begin")

    def fetches(self):
        """Everything up to the middle of the next layer, or the rest of the token in the last one."""
        self.jump(isa.LAST_LAYER, "fetch end")
        self.fetch_stream("norm", "down", "gates")
        self.fetch(_STATE_IN, self.map.layer_state_bytes)
        self.fetch_stream("mixer", "out", "glu")
        self.jump(isa.ALWAYS, "fetched")
        self.asm.label("fetch end")
        self.fetch_stream("end", "down")
        self.jump(isa.NOT_WANTED, "fetched")
        self.fetch_stream("head")
        self.asm.label("fetched")

    def mixer(self):
        v, s, vop = self.v, scalar, self.vop
        keep, h, t1, s0, s1 = (v[name] for name in ("keep", "h", "t1", "s0", "s1"))
        self.asm.label("layer")
        self.strip(self.h)
        self.load_layer()
        self.asm.label("loaded")
        self.strip(self.h)
        self.jump(isa.AT_START, "zero state")
        self.asm.label("state")
        vop(isa.to_activation(0), v["u0"].read(), s(Q[0]))
        self.fetch_stream_now("mixer", "out", "glu")
        self.product(0, self.h, self.h)
        self.more_scalars()
        vop(isa.to_activation(1), v["u1"].read(), s(Q[1]))
        self.product(1, self.h, self.h)
        if self.ahead:
            self.fetches()
        self.loop("f", self.h)
        vop(t1.write(), ROW, s(S[0]), negp=True)
        vop(s1.write(), t1.read(), table="SIGMOID")
        vop(keep.write(plus=True), s1.read(), keep.read(plus=True))
        self.again("f")
        self.quantise("u2", 0, 2, self.h)
        self.product(0, self.h, self.h)
        self.clear(1)
        self.loop("i", self.h)
        vop(t1.write(), ROW, s(S[1]))
        vop(s0.write(), t1.read(), table="SIGMOID")
        vop(s1.write(), t1.read(), s0.read(), h.read(plus=True), negc=True)
        vop(h.write(plus=True), keep.read(plus=True), s1.read(), h.read(plus=True))
        vop(t1.write(), h.read(plus=True), table="SIGMOID")
        vop(keep.write(plus=True), h.read(plus=True), t1.read())
        self.again("i")
        w_g, w_o = v["w_g"], v["w_o"]
        self.loop("g", self.h)
        vop(t1.write(), ROW, s(S[2]))
        vop(s1.write(), t1.read(), keep.read(plus=True))
        self.sum_square("t1", 2, "p1")
        vop(t1.write(), s1.read(), w_g.read(plus=True))
        vop(w_o.write(plus=True), t1.read(), w_o.read(plus=True), maximum=M[0])
        self.sum_square("t1", 2, "p2")
        self.again("g")
        self.strip(self.h)
        self.load(WS[0], "outer", "u0")
        self.enter_fold(1)
        self.jump(isa.ALWAYS, "tail")

    def zero_state(self):
        self.asm.label("zero state")
        self.vop(self.v["h"].write(), ZERO)
        self.jump(isa.ALWAYS, "state")

    def out(self):
        self.asm.label("gate or first")
        self.emit(isa.NEXT, target="loaded", strip=_SELECT, step=0)
        self.jump(isa.ALWAYS, "gate")
        self.asm.label("out or another")
        self.emit(isa.NEXT, target="gate or first", strip=_SELECT, step=0)
        self.quantise("w_o", 0, 0, self.h)
        self.product(0, self.h, self.h)
        # The state leaves while the array works and no rows wait.
        self.emit(isa.STORE, areg=_STATE_OUT, words=self.map.layer_state_bytes // self.port)
        self.strip(self.h)
        self.vop(MEM, self.v["h"].read())
        self.clear(1)
        self.loop("o", self.h)
        self.accumulate_x()
        self.norm_strip(1)
        self.again("o")
        self.load(WS[0], WS_DOWN)
        self.strip(self.i)
        self.load("w_d")
        self.enter_fold(2)
        self.jump(isa.ALWAYS, "tail")

    def glu(self):
        v, s, vop = self.v, scalar, self.vop
        t0, t1, s0, s1, w_d = (v[name] for name in ("t0", "t1", "s0", "s1", "w_d"))
        self.asm.label("gate")
        self.quantise("u0", 0, 0, self.h)
        self.product(0, 2 * self.i, self.h)
        self.clear(1)
        self.loop("gate strip", self.i)
        vop(t1.write(), ROW, s(S[0]))
        vop(s0.write(), t1.read(), table="SIGMOID")
        vop(t0.write(), t1.read(), s0.read())
        vop(t1.write(), ROW, s(S[0]))
        vop(s1.write(), t1.read(), t0.read())
        self.sum_square("s1", 2, "p1")
        vop(w_d.write(plus=True), s1.read(), w_d.read(plus=True), maximum=M[0])
        self.again("gate strip")

    def down(self):
        self.enter_fold()
        self.fold("p1")
        self.scalars(WS_DOWN, two=False)
        self.strip(self.h)
        self.jump(isa.LAST_LAYER, "end norm")
        self.fetch_stream_now("norm", "down", "gates")
        self.load("outer", "u0", "u1", "u2", *WS)
        self.jump(isa.ALWAYS, "norm loaded")
        self.asm.label("end norm")
        self.fetch_stream_now("end", "down")
        self.load("outer", "u0", WS[0])  # what u1 and u2 hold is finite, and nobody reads what comes of it
        self.asm.label("norm loaded")
        self.quantise("w_d", 0, 0, self.i)
        self.product(0, self.h, self.i)
        self.clear(3)
        self.loop("down", self.h)
        self.accumulate_x()
        self.norm_strip(3)
        self.again("down")
        self.jump(isa.ALWAYS, "attention norm")


def build_program(config, geometry, addresses=None):
    """Token program of a geometry on a configuration.

    Parameters
    ----------
    config : hw.config.Config
    geometry : sim.golden.packed.Geometry
    addresses : MemoryMap, optional
        Default: ``host.image.memory_map(config, geometry)``.

    Returns
    -------
    Program

    Raises
    ------
    ProgramError
        Vector memory, activation memory, program memory or (with ImageError's text) model memory is too small.
    """
    try:
        addresses = addresses or memory_map(config, geometry)
        inner = layout(config, geometry).inner
        codes = -(-max(geometry.hidden_size, inner) // config.columns)
        if codes > config.activation_words:
            raise ProgramError(f"activation memory: the model needs {codes} words of {config.columns} codes and the "
                               f"device has {config.activation_words}")
        if max(geometry.hidden_size, inner) >= 1 << 16:
            raise ProgramError(f"size {max(geometry.hidden_size, inner)}: a vector has at most 65535 elements")
        if ALIGN % config.port_bytes:
            raise ProgramError(f"port_bytes {config.port_bytes}: at most {ALIGN}")
        writer = _Writer(config, geometry, addresses)
        for part in (writer.start, writer.tail, writer.head, writer.mixer, writer.zero_state, writer.out, writer.glu,
                     writer.down):
            part()
        words = writer.asm.words()
    except (AllocationError, ImageError, AssemblerError) as error:
        raise ProgramError(str(error)) from None
    return Program(words, constants(geometry), disassemble(words), addresses, writer.v, tuple(writer.banks.used))
