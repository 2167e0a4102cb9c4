"""The token program of a model geometry: docs/numerics.md, sections 6 to 8, in the order of the stream.

Layout of the program: what comes before the first layer, then ``tail`` (scalars of two norms and of one matrix),
which attention, o_proj and the channel mixer share. There is no call instruction: who entered the tail is told by
``left``, which the tail's own NEXT instructions count down to one of four values. Behind the tail: the head, then the
layer. Its channel mixer is a part that `glu` and `tree` make.

Deadlock is avoided by construction: every vector of the stream is taken before the product behind it is issued, and
no more fetches are unfinished when one is queued than the queue holds: four, and more with trees (`tree`). On-chip
memory needs no fetch ahead of time: there the words of every fetch are taken by instructions before the next one.
"""

from sterna.firmware import isa
from sterna.firmware.isa import MEM, ONE, RANDOM, RANDOM_LN2, ROW, STREAM8, TO_SAMPLE, ZERO, scalar
from sterna.firmware.programs.pieces import (
    INVERSE_TEMPERATURE,
    LN2,
    ROW_AREG,
    SELECT,
    STATE_IN_AREG,
    STATE_OUT_AREG,
    STREAM_AREG,
    WS,
    WS_INNER,
    X1,
    M,
    Pieces,
    Q,
    S,
)


class TokenProgram(Pieces):
    """The parts of the program, in its order, but for those of the channel mixer.

    Attributes
    ----------
    MIXER : str
        The part of the stream behind "out".
    """

    MIXER: str

    def start(self):
        """Up to the first norm. The embedding row comes last:
        what precedes it was fetched before the token was known.
        """
        where, port = self.map, self.port
        if self.ahead:
            self.jump(isa.FRESH, "first token")  # the token before has fetched what does not depend on this one
            self.asm.label("begin")
        else:
            self.first_fetches()
        self.emit(isa.SETA, areg=STATE_OUT_AREG, value=where.state_address // port)
        self.emit(isa.ROWA, areg=ROW_AREG, base=where.embedding_address // port, stride=where.row_bytes // port)
        if self.ahead:
            self.fetch(ROW_AREG, where.row_bytes)
            self.fetch_stream("mixer", "out", self.MIXER)
        self.begin_channels()
        self.strip(self.h)
        self.load("outer", "u0", "u1", "u2", *WS)
        self.load_layer()
        if not self.ahead:
            self.fetch(ROW_AREG, where.row_bytes)
        self.load_row()
        self.first_norm()

    def begin_channels(self):
        """What the channel mixers of a run need at its beginning, when all embedding rows have been queued."""

    def load_row(self):
        """x from the embedding row."""
        self.load(X1)
        self.vop(self.v["x"].write(), STREAM8, scalar(X1))

    def first_norm(self):
        """The first norm's sums and vectors, and the way into the tail."""
        self.clear(3)
        self.loop("first norm", self.h)
        self.norm_strip(3)
        self.again("first norm")
        self.emit(isa.LOOP, count=self.geometry.num_hidden_layers)
        self.enter_fold(3)
        self.jump(isa.ALWAYS, "tail")

    def first_fetches(self):
        """The fetches of a token that do not depend on it, up to the state of the first layer."""
        for areg, address in ((STREAM_AREG, self.map.stream_address), (STATE_IN_AREG, self.map.state_address)):
            self.emit(isa.SETA, areg=areg, value=address // self.port)
        self.fetch_stream("norm", "gates")
        if self.ahead:
            self.fetch_state()

    def fetch_state(self):
        self.fetch(STATE_IN_AREG, self.map.layer_state_bytes)

    def next_token(self):
        """What can be fetched for the next token; it may be what this one has stored."""
        self.emit(isa.WAITM)
        if self.ahead:
            self.first_fetches()

    def load_layer(self):
        """The vectors of a layer's mixer and its state."""
        self.load("keep", "w_g", "w_o")
        if not self.ahead:
            self.fetch_state()
        self.load("h")

    def tail(self):
        self.asm.label("attention norm")
        self.enter_fold(0)
        self.asm.label("tail")
        self.fold("p1", "p2")
        self.scalars(WS[0], two=True)
        self.emit(isa.NEXT, target="out or another", strip=SELECT, step=0)
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
        self.vop(t0.offer() if self.config.top_k else t0.write(), t0.read(), s(INVERSE_TEMPERATURE))
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
        self.fetch_channels("norm", "gates")
        self.fetch_state()
        self.fetch_stream("mixer", "out", self.MIXER)
        self.jump(isa.ALWAYS, "fetched")
        self.asm.label("fetch end")
        self.fetch_channels("end")
        self.jump(isa.NOT_WANTED, "fetched")
        self.fetch_stream("head")
        self.asm.label("fetched")

    def mixer(self):
        v, s, vop = self.v, scalar, self.vop
        keep, t1, s1 = (v[name] for name in ("keep", "t1", "s1"))
        self.asm.label("layer")
        self.strip(self.h)
        self.load_layer()
        self.asm.label("loaded")
        self.strip(self.h)
        self.first_state()
        vop(isa.to_activation(0), v["u0"].read(), s(Q[0]))
        self.fetch_stream_now("mixer", "out", self.MIXER)
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
        self.new_state()
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

    def first_state(self):
        """The state of the start position."""
        self.jump(isa.AT_START, "zero state")
        self.asm.label("state")

    def new_state(self):
        """The i rows: the new state, and what its gate lets through in place of keep."""
        self.loop("i", self.h)
        self.input()
        self.advance()
        self.gated()
        self.again("i")

    def input(self):
        """t and s of a strip of i rows."""
        t1, s0 = self.v["t1"], self.v["s0"]
        self.vop(t1.write(), ROW, scalar(S[1]))
        self.vop(s0.write(), t1.read(), table="SIGMOID")

    def advance(self):
        """d and the new h of a strip; every C operand is the state before."""
        keep, h, t1, s0, s1 = (self.v[name] for name in ("keep", "h", "t1", "s0", "s1"))
        self.vop(s1.write(), t1.read(), s0.read(), h.read(plus=True), negc=True)
        self.vop(h.write(plus=True), keep.read(plus=True), s1.read(), h.read(plus=True))

    def gated(self):
        keep, h, t1 = (self.v[name] for name in ("keep", "h", "t1"))
        self.vop(t1.write(), h.read(plus=True), table="SIGMOID")
        self.vop(keep.write(plus=True), h.read(plus=True), t1.read())

    def aside(self):
        """What the mixer jumps to."""
        self.asm.label("zero state")
        self.vop(self.v["h"].write(), ZERO)
        self.jump(isa.ALWAYS, "state")

    def out(self):
        self.asm.label("gate or first")
        self.emit(isa.NEXT, target="loaded", strip=SELECT, step=0)
        self.jump(isa.ALWAYS, "gate")
        self.asm.label("out or another")
        self.emit(isa.NEXT, target="gate or first", strip=SELECT, step=0)
        self.quantise("w_o", 0, 0, self.h)
        self.product(0, self.h, self.h)
        # The state leaves while the array works and no rows wait.
        self.store_state()
        self.clear(1)
        self.loop("o", self.h)
        self.accumulate_x()
        self.norm_strip(1)
        self.again("o")
        self.load_channels()
        self.enter_fold(2)
        self.jump(isa.ALWAYS, "tail")

    def store_state(self):
        self.emit(isa.STORE, areg=STATE_OUT_AREG, words=self.shape.stored_words(self.h))
        self.strip(self.h)
        self.vop(MEM, self.v["h"].read())

    def load_channels(self):
        """The vectors of the channel mixer."""
        raise NotImplementedError

    def fetch_channels(self, norm, *behind):
        """The fetches of the channel mixer and of the ``norm`` behind it, and of the parts ``behind`` that."""
        raise NotImplementedError

    def channels(self):
        """The channel mixer, from the codes of its norm on: its scalars are those of matrix slot 0."""
        raise NotImplementedError

    def inner_norm(self):
        """The scalars of the inner norm and of what is behind it."""
        self.enter_fold()
        self.fold("p1")
        self.scalars(WS_INNER, two=False)

    def emit_all(self):
        """Every part, in the order of the program."""
        for part in (self.start, self.tail, self.head, self.mixer, self.aside, self.out, self.channels):
            part()
