"""Accesses of the host and of the stores to the memories of all engines."""

from amaranth import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.port import burst_layout, write_layout


class Spread(wiring.Component):
    """One memory of words of P bytes made of K: word w is word w div K of memory w mod K.

    A host's read is of one word, and the next one comes when it has been answered. No word waits
    here: throughput, latency and back-pressure are those of the memories.

    Parameters
    ----------
    engines : int
        K, a power of two.
    address_bits, port_bytes : int
        Of one memory.

    Members
    -------
    host_bursts : In(stream of burst_layout); host_words : Out(stream of 8 * P)
    host_write, store : In(stream of write_layout)
        These with log2 K bits more of an address than those below.
    reads, host_writes, stores : Out(stream).array(K); words : In(stream of 8 * P).array(K)
    """

    def __init__(self, *, engines, address_bits, port_bytes):
        self._engines, self._address_bits = engines, address_bits
        self._engine_bits = (engines - 1).bit_length()
        word, bits = stream.Signature(8 * port_bytes), address_bits + self._engine_bits
        write = stream.Signature(write_layout(address_bits, port_bytes))
        all_write = stream.Signature(write_layout(bits, port_bytes))
        super().__init__(
            {
                "host_bursts": In(stream.Signature(burst_layout(bits))),
                "host_words": Out(word),
                "host_write": In(all_write),
                "store": In(all_write),
                "reads": Out(stream.Signature(burst_layout(address_bits))).array(engines),
                "words": In(word).array(engines),
                "host_writes": Out(write).array(engines),
                "stores": Out(write).array(engines),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for source, targets in (
            (self.host_bursts, self.reads),
            (self.host_write, self.host_writes),
            (self.store, self.stores),
        ):
            engine = source.payload.address[: self._engine_bits]
            ready = 0
            for k, target in enumerate(targets):
                mine = engine == k
                m.d.comb += target.valid.eq(source.valid & mine)
                for name, _ in target.payload.shape():
                    value = getattr(source.payload, name)
                    value = value >> self._engine_bits if name == "address" else value
                    m.d.comb += getattr(target.payload, name).eq(value)
                ready = ready | (target.ready & mine)
            m.d.comb += source.ready.eq(ready)
        payload, valid = self.words[0].payload, self.words[0].valid
        for words in self.words[1:]:
            payload = Mux(words.valid, words.payload, payload)
            valid = valid | words.valid
        m.d.comb += [
            self.host_words.payload.eq(payload),
            self.host_words.valid.eq(valid),
            *(words.ready.eq(1) for words in self.words),
        ]
        return m
