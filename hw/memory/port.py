"""The memory port: what lies between the accelerator and any memory or controller."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

MAX_BURST_WORDS = 32


def read_layout(address_bits, tree_rows=0, words_bits=24):
    """A long read: ``words`` words from a word address. With ``tree_rows`` it has the kind of a
    FETCH: a walk or a gather reads records of so many words of a table that begins at the address.
    """
    count_bits = tree_rows.bit_length()
    fields = {"kind": 2, "trees": count_bits, "levels": 5, "always": count_bits}
    return data.StructLayout(
        {"address": address_bits, "words": words_bits, **(fields if tree_rows else {})}
    )


def burst_layout(address_bits):
    """A read burst of ``length`` consecutive words, 1..MAX_BURST_WORDS, from a word address."""
    return data.StructLayout({"address": address_bits, "length": 8})


def write_layout(address_bits, port_bytes):
    """One word to write; bit k of ``mask`` enables byte k."""
    return data.StructLayout({"address": address_bits, "data": 8 * port_bytes, "mask": port_bytes})


class MemoryPort(wiring.Signature):
    """Reads in bursts, writes word by word, seen from the accelerator.

    Words of all bursts come back in order and are always accepted. A read that is commanded after a
    write has been accepted sees that write. ``refreshing`` marks cycles in which the memory cannot
    deliver (for the counters only).

    Members
    -------
    read_command : Out(stream of burst_layout)
    read_data : In(stream of 8 * P)
    write : Out(stream of write_layout)
    refreshing : In(1)
    """

    def __init__(self, address_bits, port_bytes):
        super().__init__(
            {
                "read_command": Out(stream.Signature(burst_layout(address_bits))),
                "read_data": In(stream.Signature(8 * port_bytes)),
                "write": Out(stream.Signature(write_layout(address_bits, port_bytes))),
                "refreshing": In(1),
            }
        )
