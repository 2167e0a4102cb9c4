"""The gated linear unit as channel mixer: products with the gate and the down matrix."""

from sterna.firmware import isa
from sterna.firmware.isa import ROW, scalar
from sterna.firmware.programs.decoder import TokenProgram
from sterna.firmware.programs.pieces import WS, WS_INNER, M, S


class GluProgram(TokenProgram):
    """The parts of the channel mixer. The norm of the next layer stands in the stream before the down matrix."""

    MIXER = "glu"

    def inner_vector(self):
        self.i = self.shape.inner
        return "w_d", self.i

    def load_channels(self):
        self.load(WS[0], WS_INNER)
        self.strip(self.i)
        self.load("w_d")

    def fetch_channels(self, norm, *behind):
        self.fetch_stream(norm, "down", *behind)

    def channels(self):
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
        self.inner_norm()
        self.load_norm("down")
        self.quantise("w_d", 0, 0, self.i)
        self.product(0, self.h, self.i)
        self.add_rows("down")
