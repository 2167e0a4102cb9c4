"""The words of a vector from all engines, in their order."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class WordMerge(wiring.Component):
    """Words of vectors from K engines in turn: word w of a section is one of engine w mod K.

    Every engine's part of a section has as many words. Behind the last word of a section, with
    which ``done`` comes, each engine whose turn has not come since has one more, which is thrown
    away; meanwhile no word is offered. Throughput a word per cycle, latency none. Back-pressure:
    an engine's word waits for its turn.

    Parameters
    ----------
    engines, port_bytes : int
        K and P.

    Members
    -------
    parts : In(stream of 8 * P).array(K)
    words : Out(stream of 8 * P)
    done : In(1)
        The word that is taken in this cycle is the last one of its section.
    ends : Out(1).array(K)
        High in the cycle in which an engine's part of the section ends.
    """

    def __init__(self, *, engines, port_bytes):
        self._engines = engines
        word = stream.Signature(8 * port_bytes)
        super().__init__(
            {
                "parts": In(word).array(engines),
                "words": Out(word),
                "done": In(1),
                "ends": Out(1).array(engines),
            }
        )

    def elaborate(self, platform):
        m = Module()
        engine = Signal(range(self._engines))
        drop = Signal(self._engines)
        takes, offered = Signal(), Array(part.valid for part in self.parts)[engine]
        m.d.comb += [
            self.words.valid.eq(offered & ~drop.any()),
            self.words.payload.eq(Array(part.payload for part in self.parts)[engine]),
            takes.eq(self.words.valid & self.words.ready),
        ]
        with m.If(takes):
            m.d.sync += engine.eq(Mux(self.done, 0, engine + 1))
        for k, part in enumerate(self.parts):
            ends = takes & self.done
            m.d.comb += [
                part.ready.eq((takes & (engine == k)) | drop[k]),
                self.ends[k].eq((ends & (engine >= k)) | (drop[k] & part.valid)),
            ]
            with m.If(ends & (engine < k)):
                m.d.sync += drop[k].eq(1)
            with m.Elif(part.valid):
                m.d.sync += drop[k].eq(0)
        return m
