"""Rules of AXI4 as an Amaranth component beside a bus: in proofs, and as a monitor in simulation.

Written after the text of the standard (ARM IHI 0022, "Basic read and write transactions", "Single interface
requirements", "Transaction identifiers"); each rule has a name, under which it is told. The rules of a master are
claims about ours, those of a memory are what a proof may assume of one.
"""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from sterna.hw.memory.axi.bus import Axi4, Burst

MASTER = ("reset_ar", "reset_aw", "reset_w", "ar_stays", "aw_stays", "w_stays", "ar_burst", "aw_burst", "ar_boundary",
          "aw_boundary", "ar_size", "aw_size", "w_last", "w_unasked", "ar_id", "overflow")
MEMORY = ("reset_r", "reset_b", "r_stays", "b_stays", "r_unasked", "r_last", "b_unasked", "r_response", "b_response")


class AxiRules(wiring.Component):
    """Watches a bus; ``broken[name]`` is high in a cycle in which the rule of that name is broken.

    reset_*: VALID is low in the first cycle after a reset. *_stays: VALID stays and what it offers is stable until
    READY. *_burst: INCR, as all masters here have it. *_boundary: no burst crosses a boundary of 4 KB. *_size: a beat
    is as wide as the data lines, and its address a multiple. w_last: WLAST with the last beat of its burst, and only
    then. w_unasked: no beat before its address is offered (the standard would allow it; our masters do not). ar_id: no
    two reads of one ID under way, which is how ours keep the order. overflow: more under way than the rules can count.
    r_unasked, b_unasked: no answer without a burst that waits for one: for R its address must have been taken, for B
    also its last beat. r_last: RLAST with the last beat. *_response: no EXOKAY, since nothing exclusive was asked for.

    Parameters
    ----------
    address_bits, data_bytes, id_bits
        Of ``Axi4``.
    writes : int
        Bursts to write that may be under way.

    Members
    -------
    axi : In(Axi4 as its master sees it), all of whose signals are inputs here
    """

    def __init__(self, *, writes=8, **shape):
        self._shape, self._writes = shape, writes
        bus = Axi4(**shape)
        super().__init__({name: In(member.shape) for name, member in bus.members.items()})
        self.broken = {name: Signal(name=f"broken_{name}") for name in (*MASTER, *MEMORY)}
        # Beats that each ID still gets, 0: none of this ID; for proofs about data also the address of the next one.
        count = 1 << shape["id_bits"]
        self.left = [Signal(9, name=f"left{k}") for k in range(count)]
        self.next_address = [Signal(shape["address_bits"], name=f"next_address{k}") for k in range(count)]

    def elaborate(self, platform):
        m = Module()
        started = Signal()
        m.d.sync += started.eq(1)
        held = {}
        for channel, names in {
                "ar": ("arid", "araddr", "arlen", "arsize", "arburst"), "r": ("rid", "rdata", "rresp", "rlast"),
                "aw": ("awid", "awaddr", "awlen", "awsize", "awburst"), "w": ("wdata", "wstrb", "wlast"),
                "b": ("bid", "bresp")}.items():
            valid, ready = getattr(self, f"{channel}valid"), getattr(self, f"{channel}ready")
            offered = Cat(*(Value.cast(getattr(self, name)) for name in names))
            before, stalled = Signal(len(offered), name=f"before_{channel}"), Signal(name=f"stalled_{channel}")
            m.d.sync += [before.eq(offered), stalled.eq(valid & ~ready)]
            held[f"{channel}_stays"] = stalled & (~valid | (offered != before))
            held[f"reset_{channel}"] = ~started & valid
        data_bytes = self._shape["data_bytes"]
        size = (data_bytes - 1).bit_length()
        for channel in ("ar", "aw"):
            valid, address = getattr(self, f"{channel}valid"), getattr(self, f"{channel}addr")
            end = Signal(14, name=f"end_{channel}")
            m.d.comb += end.eq(address[:12] + ((getattr(self, f"{channel}len") + 1) << size))
            held |= {f"{channel}_burst": valid & (getattr(self, f"{channel}burst") != Burst.INCR),
                     f"{channel}_boundary": valid & (end > 4096),
                     f"{channel}_size": valid & ((getattr(self, f"{channel}size") != size)
                                                 | (address[:size] != 0 if size else 0))}

        # Reads: per ID what is left.
        left, places = Array(self.left), Array(self.next_address)
        asks, gives = self.arvalid & self.arready, self.rvalid & self.rready
        mine = Signal(9)
        m.d.comb += mine.eq(left[self.rid])
        with m.If(gives & (mine != 0)):
            m.d.sync += [left[self.rid].eq(mine - 1), places[self.rid].eq(places[self.rid] + data_bytes)]
        with m.If(asks):
            m.d.sync += [left[self.arid].eq(self.arlen + 1), places[self.arid].eq(self.araddr)]
        held |= {"ar_id": self.arvalid & (left[self.arid] != 0),
                 "r_unasked": self.rvalid & (mine == 0),
                 "r_last": self.rvalid & (mine != 0) & (self.rlast != (mine == 1)),
                 "r_response": self.rvalid & (self.rresp == 1), "b_response": self.bvalid & (self.bresp == 1)}

        # Writes: lengths of bursts from their address being offered to their last beat; then answers that are due.
        most = self._writes
        lengths = [Signal(8, name=f"length{k}") for k in range(most + 1)]
        offered_before = Signal()  # the address at the pins has been counted
        open_, begun = Signal(range(most + 2)), Signal(8)
        addressed, ended = Signal(range(most + 2)), Signal(range(most + 2))  # taken, and without an answer
        enters = self.awvalid & ~offered_before
        beat = self.wvalid & self.wready
        last = beat & self.wlast
        answered = self.bvalid & self.bready
        m.d.sync += [offered_before.eq(self.awvalid & ~self.awready), open_.eq(open_ + enters - last),
                     addressed.eq(addressed + (self.awvalid & self.awready) - answered),
                     ended.eq(ended + last - answered)]
        with m.If(beat):
            m.d.sync += begun.eq(Mux(self.wlast, 0, begun + 1))
        level = open_ - last
        for k, length in enumerate(lengths):
            above = lengths[k + 1] if k < most else self.awlen
            m.d.sync += length.eq(Mux(enters & (level == k), self.awlen, Mux(last, above, length)))
        first = Mux(open_ == 0, self.awlen, lengths[0])
        held |= {"w_unasked": self.wvalid & (open_ == 0) & ~enters,
                 "w_last": self.wvalid & (self.wlast != (begun == first)),
                 "b_unasked": self.bvalid & ((addressed == 0) | (ended == 0)),
                 "overflow": (open_ > most) | (addressed > most) | (ended > most)}
        m.d.comb += [self.broken[name].eq(condition) for name, condition in held.items()]
        return m


def watch(m, axi, name="rules", **options):
    """Puts rules beside a bus whose master and memory are driven elsewhere; the AxiRules.

    Parameters
    ----------
    m : Module
    axi : interface of Axi4
    name : str
        Of the submodule.
    """
    bus = axi.signature
    rules = AxiRules(address_bits=bus.address_bits, data_bytes=bus.data_bytes, id_bits=bus.id_bits, **options)
    m.submodules[name] = rules
    m.d.comb += [getattr(rules, member).eq(getattr(axi, member)) for member in bus.members]
    return rules
