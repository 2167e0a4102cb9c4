"""What the token program is made of: register numbers, fetches, loads, products, norms,
folds and chains of scalars.
"""

from sterna.firmware import isa
from sterna.firmware.allocate import place
from sterna.firmware.assembler import Assembler
from sterna.firmware.isa import ONE, ROW, STREAM32, ZERO, scalar, to_scalar
from sterna.firmware.layout import layout
from sterna.sim.golden.errors import SternaError

INVERSE_TEMPERATURE = 2  # written by the host per run
CONSTANTS = (PER_H, PER_INNER, OUTER_EPS, INNER_EPS, FLOOR, THREE_HALVES, HALF, TWO, C127, LARGE, LN2) = range(3, 14)
M, WS, S, Q = (14, 15, 16), (17, 18, 19), (20, 21, 22), (23, 24, 25)  # of up to three matrices behind one norm
R, X1, X2, T, Y, WS_INNER = range(26, 32)  # the last one is lost in a sampling (isa.BEST_SCALAR)
ROW_AREG, STREAM_AREG, STATE_IN_AREG, STATE_OUT_AREG = range(4)
SELECT = 64  # step of the tail's entry numbers


class ProgramError(SternaError, ValueError):
    """A geometry that does not fit the device; one line that names what is too large."""


class Pieces:
    """What the parts of a token's program are made of, emitted into ``asm``."""

    def __init__(self, config, geometry, addresses):
        self.config, self.geometry, self.map = config, geometry, addresses
        self.shape = layout(config, geometry)
        self.h = geometry.hidden_size
        self.banks = place(config, self.h, *self.inner_vector(), strip=max(config.strip, self.longest_strip()))
        self.v = self.banks.vectors
        self.asm = Assembler(config.lanes, config.program_words)
        self.vop = self.asm.vop
        widths = (8, 2) if config.lanes == 1 else (8,) if config.lanes == 2 else ()
        self.shrink = dict(zip((16, 4), widths, strict=False))  # after level d, this vector length is enough
        self.port = self.shape.word_bytes
        self.ahead = config.memory == "external"  # fetch ahead of time

    def inner_vector(self):
        """(name, elements) of the vector behind the inner norm of the channel mixer."""
        raise NotImplementedError

    def longest_strip(self):
        """Elements of the longest strip that has a ``t1``, where it is longer than those of the configuration."""
        return 0

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
        self.fetch(STREAM_AREG, sum(self.shape.part_bytes(part) for part in parts))

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
        """sums += name^2; ``name`` is the vector of a strip, or one of those that are longer."""
        operand = self.v[name].read(plus=name in ("x", "z"))
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
        self.strip(sum(self.shrink.values()) + SELECT * (entry + 1), isa.PARTIAL_SUMS // 2)

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
            one(t(T), s(X1), s(PER_INNER), s(INNER_EPS))
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
