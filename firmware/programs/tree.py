"""Trees of neurons as channel mixer: a walk through a table, and the gather of the rows of another one.

A walk is one product more, whose rows are read as their parents' signs come, and a gather another one (docs/isa.md,
"Walks"). The order of the stream behind the codes of the mixer's norm: the next norm's vectors, the records of the
walk, those of the gather, the next layer. So the memory brings vectors while the barrier before the walk lasts, and
behind the walk what the gather and the next layer take.

No deadlock: the vectors of the next norm are taken before the WALK is issued whose records stand behind them, as all
vectors are before the product behind them. The walk's records are asked for one after the other by what the WALK
makes of them, and it needs nothing from behind them: no codes but those of before, and room for rows, which the
operations behind it take. All records of the gather are known then; its WALK is issued when the last row of the walk
has been taken. Fetches are queued in the middle of a layer, when of those before at most the one of its matrices is
unfinished. Behind it come norm, walk, gather, gates, the states of the slots and the next matrices: seven
with one slot, 6 + B with B, of 8 and 8 + 2 B that the queue holds. At the beginning of a run norm and gates are
unfinished, then B rows, B states and the matrices: 2 + 2 B.
"""

from sterna.firmware import isa
from sterna.firmware.isa import ROW, scalar
from sterna.firmware.programs.decoder import TokenProgram
from sterna.firmware.programs.pieces import ROW_AREG, WS, WS_INNER, M, ProgramError, S

TABLE_AREG = ROW_AREG  # once the embedding rows have been queued


class TreeProgram(TokenProgram):
    """The parts of the channel mixer; they need memory outside of the chip."""

    MIXER = "tree"

    def inner_vector(self):
        self.n = self.geometry.visits
        return "z", self.n

    def begin_channels(self):
        self.emit(isa.SETA, areg=TABLE_AREG, value=self.map.tree_address // self.port)

    def load_channels(self):
        self.load(WS[0], WS_INNER)

    def fetch_channels(self, norm, *behind):
        self.fetch_stream(norm)
        self.fetch_records(isa.KIND_WALK)
        self.skip_table()
        self.fetch_records(isa.KIND_GATHER)
        if behind:
            self.skip_table()
            self.fetch_stream(*behind)

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
        v, s, vop = self.v, scalar, self.vop
        t1, s0, z = (v[name] for name in ("t1", "s0", "z"))
        self.asm.label("gate")
        self.quantise("u0", 0, 0, self.h)
        self.load_norm()
        self.walk(out=0)
        self.clear(1)
        self.loop("walk", self.n)
        vop(t1.write(), ROW, s(S[0]))
        vop(s0.write(), t1.read(), table="SIGMOID")
        vop(z.write(plus=True), t1.read(), s0.read(), maximum=M[0])
        self.sum_square("z", 2, "p1")
        self.again("walk")
        self.inner_norm()
        self.quantise("z", 0, 0, self.n)
        self.walk(out=1)
        self.add_rows("gather")
