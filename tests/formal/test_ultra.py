"""Proof that the deep queue in UltraRAM is the one of amaranth.lib.fifo, cycle by cycle."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from prove import Proof, disproved, further, planted
from sterna.hw.memory import ultra

pytestmark = pytest.mark.formal
WIDTH, CYCLES = 2, 12


class Both(wiring.Component):
    """Both queues with the same inputs; `same`: their outputs are equal, the data where an item is offered."""

    w_data: In(WIDTH)
    w_en: In(1)
    r_en: In(1)
    same: Out(3)

    def __init__(self, module, depth):
        self._queues = SyncFIFOBuffered(width=WIDTH, depth=depth), module.UltraQueue(width=WIDTH, depth=depth)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.known, m.submodules.ultra = known, ultra = self._queues
        for queue in self._queues:
            m.d.comb += [getattr(queue, name).eq(getattr(self, name)) for name in ("w_data", "w_en", "r_en")]
        m.d.comb += [self.same[0].eq(known.w_rdy == ultra.w_rdy), self.same[1].eq(known.r_rdy == ultra.r_rdy),
                     self.same[2].eq(~known.r_rdy | (known.r_data == ultra.r_data))]
        return m


def queues(module, depth):
    proof = Proof()
    both = Both(module, depth)
    proof.add(both)
    for k, name in enumerate(("takes", "offers", "data")):
        proof.claim(name, both.same[k])
    proof.check(CYCLES)


@pytest.mark.parametrize("depth", [5, *further(3, 4, 6)])
def test_the_queue_is_the_known_one(depth):
    queues(ultra, depth)


@pytest.mark.parametrize("old, new, claim", [
    ("level != places", "level != places - 1", "takes"), ("~self.r_rdy | self.r_en", "self.r_en", "offers"),
    ("with m.If(at == places - 1)", "with m.If(at == places)", "data")])
def test_a_bug_is_found(old, new, claim):
    with disproved(claim):
        queues(planted("memory.ultra", old, new), 4)
