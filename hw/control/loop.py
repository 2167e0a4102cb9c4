"""The slot loop of the sequencer: for which slot an instruction is executed (docs/isa.md)."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.firmware import isa


class SlotLoop(wiring.Component):
    """Counts the slots of a loop and says which of them an instruction in its body acts on.

    The masks are looked at when a loop begins. Between loops every instruction acts on all slots.

    Members
    -------
    begin, again : In(1)
        SLOT takes effect at the end of this cycle: it begins a loop; it ends the body for one slot.
    which : In(2); prior : In(1)
        Fields of SLOT.
    active, reads, writes, first : In(B); chained : In(1)
        The slots of each kind; they do not change while a loop runs.
    repeat : Out(1)
        ``again``: the body is executed for a further slot.
    skip : Out(1)
        In a loop, and the slot is none of those that the loop is for.
    slots : Out(B)
        The slots that are written: all outside of a loop, else one; in a loop over `reads` with
        chained slots all.
    slot : Out(3); chains : Out(1)
        The slot of the loop, 0 outside; operand C comes from the slot before.

    Parameters
    ----------
    batch : int
        B, at least 2.
    """

    def __init__(self, batch):
        self._batch = batch
        masks = {name: In(batch) for name in isa.WHICH}
        super().__init__(
            {
                "begin": In(1),
                "again": In(1),
                "which": In(2),
                "prior": In(1),
                **masks,
                "chained": In(1),
                "repeat": Out(1),
                "skip": Out(1),
                "slots": Out(batch),
                "slot": Out(3),
                "chains": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        here = Signal(self._batch)  # one hot; 0 outside of a loop
        chosen = Signal(self._batch)
        number = Signal(range(self._batch))
        spreads = Signal()
        looping = here.any()
        m.d.comb += [
            self.repeat.eq(looping & ~here[-1]),
            self.skip.eq(looping & ~(here & chosen).any()),
            self.slots.eq(Mux(looping & ~spreads, here, ~0)),
            self.slot.eq(number),
        ]
        with m.If(self.begin):
            m.d.sync += [
                here.eq(1),
                number.eq(0),
                self.chains.eq(self.prior & self.chained),
                spreads.eq((self.which == isa.READS) & self.chained),
            ]
            with m.Switch(self.which):
                for code, name in enumerate(isa.WHICH):
                    with m.Case(code):
                        m.d.sync += chosen.eq(getattr(self, name))
        with m.Elif(self.again):
            m.d.sync += [
                here.eq(Cat(0, here[:-1])),
                number.eq(Mux(self.repeat, number + 1, 0)),
            ]
            with m.If(~self.repeat):
                m.d.sync += self.chains.eq(0)
        return m
