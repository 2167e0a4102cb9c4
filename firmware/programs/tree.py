"""Trees of neurons as channel mixer: a walk through a table, and the gather of the rows of another one.

A walk is one product more, whose records are read as the signs of their parents come, and a gather another one
(docs/isa.md, "Walks"). In the stream the records of the walk stand first, then those of the gather, then the next
norm. The gather is over in a moment, so x and the next norm, which follow a dense product strip by strip, are made in
one strip of all of x, and each weight of the norm is multiplied as it comes from the stream: the port has
something to bring while the vector engine works, and no operation loads what another one multiplies.

No deadlock: every vector of the stream is taken before the product behind it is issued. The records of a walk are
asked for one after the other by what its WALK makes of them, and it needs nothing from behind them: its codes are
there, and the operations behind it take its rows. Then all records of the gather are known; its WALK is issued when
the last row of the walk has been taken, and one operation takes all its rows, before any that takes words from
behind the records. Fetches are queued in the middle of a layer, when at most the one of its matrices is unfinished.
Behind it come walk, gather, norm and gates, the states of the slots and the next matrices: six with one slot, 5 + B
with B, of 8 and 8 + 2 B that the queue holds. At the beginning of a run norm and gates are unfinished, then come
B rows, B states and the matrices: 2 + 2 B.
"""

from sterna.firmware import isa
from sterna.firmware.isa import ROW, STREAM32, scalar
from sterna.firmware.programs.decoder import TokenProgram
from sterna.firmware.programs.pieces import ROW_AREG, WS, WS_INNER, M, ProgramError, S

TABLE_AREG = ROW_AREG  # once the embedding rows have been queued


class TreeProgram(TokenProgram):
    """The parts of the channel mixer; they need memory outside of the chip."""

    MIXER = "tree"

    def inner_vector(self):
        self.n = self.geometry.visits
        return "z", self.n

    def longest_strip(self):
        return self.h

    def begin_channels(self):
        self.emit(isa.SETA, areg=TABLE_AREG, value=self.map.tree_address // self.port)

    def load_channels(self):
        self.load(WS[0], WS_INNER)

    def fetch_channels(self, norm, *behind):
        self.fetch_records(isa.KIND_WALK)
        self.skip_table()
        self.fetch_records(isa.KIND_GATHER)
        if behind:
            self.skip_table()
        self.fetch_stream(norm, *behind)

    def fetch_records(self, kind):
        """The records of a walk or gather in the present table."""
        shape = self.geometry
        self.emit(isa.FETCH, areg=TABLE_AREG, kind=kind, words=self.shape.record_bytes // self.port,
                  trees=shape.trees, levels=shape.levels, always=shape.tree_always)

    def skip_table(self):
        words, most = self.shape.table_bytes // self.port, (1 << 24) - 1
        if words > most:
            raise ProgramError(f"trees: a table of {self.geometry.neurons} neurons has {words} words and a skip "
                               f"passes {most}: use a wider port or fewer neurons")
        self.emit(isa.FETCH, areg=TABLE_AREG, kind=isa.KIND_SKIP, words=words)

    def walk(self, out):
        self.emit(isa.WALK, buffer=0, out=out, rows=self.n, chunks=self.shape.record_tiles, length=self.h)

    def channels(self):
        self.asm.label("gate")
        self.quantise("u0", 0, 0, self.h)
        self.walk(out=0)
        self.neurons()
        self.inner_norm()
        self.quantise("z", 0, 0, self.n)
        self.walk(out=1)
        self.clear(3)
        self.strip(self.h)
        self.accumulate_x()
        self.jump(isa.LAST_LAYER, "end norm")
        self.next_norm(3)
        self.jump(isa.ALWAYS, "attention norm")
        self.asm.label("end norm")
        self.next_norm(1)
        self.jump(isa.ALWAYS, "attention norm")

    def neurons(self):
        """z of the visited neurons as their rows come, its peak and its sum of squares."""
        t1, s0, z = (self.v[name] for name in ("t1", "s0", "z"))
        self.clear(1)
        self.loop("neurons", self.n)
        self.vop(t1.write(), ROW, scalar(S[0]))
        self.vop(s0.write(), t1.read(), table="SIGMOID")
        self.vop(z.write(plus=True), t1.read(), s0.read(), maximum=M[0])
        self.sum_square("z", 2, "p1")
        self.again("neurons")

    def next_norm(self, folded):
        """All of ``norm_strip`` in one strip, with the vectors of the norm as they come; then its scales."""
        x = self.v["x"].read(plus=True)
        self.vop(self.v["t1"].write(), STREAM32, x)
        self.sum_square("x", 2, "p1")
        for slot in range(folded):
            self.vop(self.v[f"u{slot}"].write(), STREAM32, x, maximum=M[slot])
        self.sum_square("t1", 2, "p2")
        self.load(*WS[:folded])
