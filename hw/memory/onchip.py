"""Model memory in on-chip RAM and its three users: the fetch engine, the stores of the vector
engine, the host.
"""

from amaranth import Array, Cat, ClockSignal, Const, Instance, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.port import burst_layout, write_layout

SPRAM_ADDRESS_BITS = 14


class OnChipMemory(wiring.Component):
    """A single-ported RAM that takes the place of arbiter, memory port and external memory.

    One word per cycle, read or written: the host goes first, because it asks for single words now
    and then, then stores, then the fetch engine. A word comes in the cycle behind the one that
    accepted its read, so a read sees every write accepted before it and needs no queue of owners.
    For a platform whose ``device`` is "iCE40UP5K" and words of two bytes, blocks of SB_SPRAM256KA
    are instantiated: they have no initial contents, which every memory in Verilog made from
    Amaranth has.

    Parameters
    ----------
    address_bits, port_bytes, words : int

    Members
    -------
    fetch_reads : In(stream of addresses); fetch_words : Out(stream of 8 * P)
    host_bursts : In(stream of burst_layout); host_words : Out(stream of 8 * P)
        One or two words; two start at an even address, and the address stays until both have come.
        Words must always be accepted on both.
    store, host_write : In(stream of write_layout)
    quiet : Out(1)
        No word is on its way.
    """

    def __init__(self, *, address_bits, port_bytes, words):
        self._address_bits, self._port_bytes, self._words = address_bits, port_bytes, words
        word, write = 8 * port_bytes, write_layout(address_bits, port_bytes)
        super().__init__(
            {
                "fetch_reads": In(stream.Signature(address_bits)),
                "fetch_words": Out(stream.Signature(word)),
                "host_bursts": In(stream.Signature(burst_layout(address_bits))),
                "host_words": Out(stream.Signature(word)),
                "store": In(stream.Signature(write)),
                "host_write": In(stream.Signature(write)),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        second = Signal()  # of two words for the host, the second is still to be read
        host_read = self.host_bursts.valid | second
        host = self.host_write.valid | host_read
        free = ~(host | self.store.valid)
        word = Signal(8 * self._port_bytes)
        address = Signal(self._address_bits)
        writes = Signal()
        written = Mux(host, self.host_write.payload.data, self.store.payload.data)
        mask = Mux(host, self.host_write.payload.mask, self.store.payload.mask)
        m.d.comb += [
            self.host_write.ready.eq(1),
            self.host_bursts.ready.eq(~self.host_write.valid & ~second),
            self.store.ready.eq(~host),
            self.fetch_reads.ready.eq(free),
            address.eq(
                Mux(
                    host,
                    Mux(
                        self.host_write.valid,
                        self.host_write.payload.address,
                        self.host_bursts.payload.address | second,
                    ),
                    Mux(self.store.valid, self.store.payload.address, self.fetch_reads.payload),
                )
            ),
            writes.eq(self.host_write.valid | (self.store.valid & ~host)),
            self.host_words.payload.eq(word),
            self.fetch_words.payload.eq(word),
            self.quiet.eq(~(self.fetch_words.valid | self.host_words.valid | second)),
        ]
        m.d.sync += [
            self.host_words.valid.eq(host_read & ~self.host_write.valid),
            self.fetch_words.valid.eq(self.fetch_reads.valid & free),
            second.eq(
                Mux(
                    self.host_write.valid,
                    second,
                    self.host_bursts.valid & ~second & (self.host_bursts.payload.length != 1),
                )
            ),
        ]
        if self._port_bytes == 2 and getattr(platform, "device", None) == "iCE40UP5K":
            m.d.comb += word.eq(self._spram(m, address, written, mask, writes))
        else:
            m.submodules.memory = memory = Memory(
                shape=8 * self._port_bytes, depth=self._words, init=[]
            )
            read, write = memory.read_port(), memory.write_port(granularity=8)
            m.d.comb += [
                word.eq(read.data),
                read.addr.eq(address),
                read.en.eq(~writes),
                write.addr.eq(address),
                write.data.eq(written),
                write.en.eq(Mux(writes, mask, 0)),
            ]
        return m

    def _spram(self, m, address, written, mask, writes):
        """Blocks of SPRAM; returns the word whose address was given one cycle before."""
        block_bits = max(0, (self._words - 1).bit_length() - SPRAM_ADDRESS_BITS)
        block = address[SPRAM_ADDRESS_BITS:]
        read_block = Signal(max(1, block_bits))
        m.d.sync += read_block.eq(block)
        words = []
        for k in range(-(-self._words >> SPRAM_ADDRESS_BITS)):
            word = Signal(16, name=f"word_{k}")
            m.submodules[f"spram{k}"] = Instance(
                "SB_SPRAM256KA",
                i_CLOCK=ClockSignal(),
                i_ADDRESS=address[:SPRAM_ADDRESS_BITS],
                i_DATAIN=written,
                # One bit for every four data bits
                i_MASKWREN=Cat(bit.replicate(2) for bit in mask),
                i_WREN=writes,
                i_CHIPSELECT=(block == k) if block_bits else Const(1),
                i_STANDBY=Const(0),
                i_SLEEP=Const(0),
                i_POWEROFF=Const(1),  # the last is low active
                o_DATAOUT=word,
            )
            words.append(word)
        return Array(words)[read_block]  # two four-input cells a bit
