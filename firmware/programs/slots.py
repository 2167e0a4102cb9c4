"""The token program of a build with slots: one sweep of the weights, a token in each of up to B slots.

All slots compute in step, so most of the program is that of one token. What differs: embedding rows and states come
slot by slot, states leave so, and in chained slots the state runs from slot to slot. While the tokens are sampled,
only what every run needs is fetched ahead: rows and states depend on which slots have a token next.
"""

from sterna.firmware import isa
from sterna.firmware.isa import MEM, STREAM32, ZERO
from sterna.firmware.programs.decoder import TokenProgram
from sterna.firmware.programs.glu import GluProgram
from sterna.firmware.programs.pieces import ROW_AREG, STATE_IN_AREG, STATE_OUT_AREG, STREAM_AREG, WS
from sterna.firmware.programs.tree import TreeProgram


class SlotProgram(TokenProgram):
    """Parts that differ, whatever the channel mixer is; they need memory outside of the chip."""

    def start(self):
        """Up to the first norm. Behind norm and gates the stream has rows, states and matrices, in this order."""
        where, port = self.map, self.port
        self.jump(isa.FRESH, "first token")
        self.asm.label("begin")
        self.emit(isa.SETA, areg=STATE_OUT_AREG, value=where.state_address // port)
        self.emit(isa.SETA, areg=STATE_IN_AREG, value=where.state_address // port)
        self.asm.slots(isa.ACTIVE, self.fetch_row)
        self.fetch_state()
        self.fetch_stream("mixer", "out", self.MIXER)
        self.begin_channels()
        self.strip(self.h)
        self.load("outer", "u0", "u1", "u2", *WS)
        self.load_gates()
        self.asm.slots(isa.ACTIVE, self.load_row)
        self.load_state()
        self.first_norm()

    def fetch_row(self):
        where, port = self.map, self.port
        self.emit(isa.ROWA, areg=ROW_AREG, base=where.embedding_address // port, stride=where.row_bytes // port)
        self.fetch(ROW_AREG, where.row_bytes)

    def first_fetches(self):
        self.emit(isa.SETA, areg=STREAM_AREG, value=self.map.stream_address // self.port)
        self.fetch_stream("norm", "gates")

    def next_token(self):
        self.first_fetches()  # nothing of it is stored by a token, so there is nothing to wait for

    def fetch_state(self):
        self.asm.slots(isa.READS, super().fetch_state)

    def load_state(self):
        """The states that are read, and zeros where a sequence begins."""
        h = self.v["h"]
        self.asm.slots(isa.READS, lambda: self.vop(h.write(), STREAM32))
        self.asm.slots(isa.FIRST, lambda: self.vop(h.write(), ZERO))

    def load_gates(self):
        self.load("keep", "w_g", "w_o")

    def load_layer(self):
        self.load_gates()
        self.load_state()

    def first_state(self):
        pass  # it is in place

    def new_state(self):
        self.jump(isa.CHAINED, "chained")
        super().new_state()
        self.asm.label("advanced")

    def aside(self):
        """The i rows of chained slots: within a strip the state runs from slot to slot."""
        self.asm.label("chained")
        self.loop("chained i", self.h)
        self.input()
        self.asm.slots(isa.ACTIVE, self.advance, prior=True)
        self.gated()
        self.again("chained i")
        self.jump(isa.ALWAYS, "advanced")

    def store_state(self):
        self.strip(self.h)
        self.asm.slots(isa.WRITES, self.store_slot)

    def store_slot(self):
        self.emit(isa.STORE, areg=STATE_OUT_AREG, words=self.shape.stored_words(self.h))
        self.vop(MEM, self.v["h"].read())


class SlotGluProgram(SlotProgram, GluProgram):
    """Slots, and gated linear units."""


class SlotTreeProgram(SlotProgram, TreeProgram):
    """Slots, and trees."""
