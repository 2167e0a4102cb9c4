"""Who takes the next section of the stream: the array or the vector engine, in program order."""

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.stream import Queue, Second

QUEUED_SECTIONS = 8


class Router(wiring.Component):
    """Hands the stream to the consumers in the order in which the sequencer announced their
    sections.

    Parameters
    ----------
    port_bytes : int
    sections : int
        How many can be announced ahead of their words, at least 2: two products that wait for their
        rows to be taken.
    pairs : bool
        The array may take two words per cycle.

    Members
    -------
    section : In(stream of 1)
        1: the next section is a matrix for the array; 0: it belongs to a vector operation.
    words : In(stream of 8 * P)
    to_array, to_vector : Out(stream of 8 * P)
    second : In(Second); array_second : Out(Second)
        Only in ``pairs``.
    array_done, vector_done : In(1)
        High in the cycle in which the present consumer has taken the last word of its section.
    """

    def __init__(self, *, port_bytes, sections=QUEUED_SECTIONS, pairs=False):
        self._sections, self._pairs = sections, pairs
        word, second = stream.Signature(8 * port_bytes), Second(port_bytes)
        super().__init__(
            {
                "section": In(stream.Signature(1)),
                "words": In(word),
                "to_array": Out(word),
                "to_vector": Out(word),
                "array_done": In(1),
                "vector_done": In(1),
                **(
                    {
                        "second": In(second),
                        "array_second": Out(second),
                    }
                    if pairs
                    else {}
                ),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(1, self._sections)
        connect(m, flipped(self.section), queue.i)
        m.d.comb += [
            self.to_array.payload.eq(self.words.payload),
            self.to_vector.payload.eq(self.words.payload),
        ]
        if self._pairs:  # the array takes the second word only with the first one
            connect(m, flipped(self.second), flipped(self.array_second))
        for_array = queue.o.valid & queue.o.payload
        for_vector = queue.o.valid & ~queue.o.payload
        m.d.comb += [
            self.to_array.valid.eq(for_array & self.words.valid),
            self.to_vector.valid.eq(for_vector & self.words.valid),
            self.words.ready.eq(
                (for_array & self.to_array.ready) | (for_vector & self.to_vector.ready)
            ),
            queue.o.ready.eq((for_array & self.array_done) | (for_vector & self.vector_done)),
        ]
        return m
