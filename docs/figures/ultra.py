"""The simulated board with its deep memories in UltraRAM, as the bitstream of kv260 has them.

Elsewhere the simulated board has the memories that any FPGA has. Here vector banks and stream FIFO are those of
``hw/memory/ultra.py``, with a model in the place of each block: 4096 words of 72 bits, written by port A and read by
port B in the next cycle. What B reads while A writes it is random.
"""

from contextlib import ExitStack
from unittest.mock import patch

from amaranth import Module
from amaranth.hdl import Fragment
from amaranth.lib.memory import Memory

from sterna.hw.accelerator import Accelerator
from sterna.hw.memory import fetch, ultra
from sterna.hw.vector import slot

OPTIONS = {"device": f"{__name__}:UltraAccelerator", "device_sources": [__file__]}  # of SimulatedBoard


def block(name, **pins):
    """What takes the place of ``Instance`` with these pins: a Module."""
    if name != "URAM288_BASE":
        raise ValueError(f"cell {name!r}: only URAM288_BASE has a model here")
    m = Module()
    m.submodules.words = words = Memory(shape=ultra.BLOCK_BITS, depth=ultra.BLOCK_WORDS, init=[],
                                        attrs={"no_rw_check": 1})
    write, read = words.write_port(), words.read_port()
    place = slice(0, (ultra.BLOCK_WORDS - 1).bit_length())
    m.d.comb += [
        write.en.eq(pins["i_EN_A"] & pins["i_RDB_WR_A"]),
        write.addr.eq(pins["i_ADDR_A"][place]),
        write.data.eq(pins["i_DIN_A"]),
        read.en.eq(pins["i_EN_B"] & ~pins["i_RDB_WR_B"][0]),
        read.addr.eq(pins["i_ADDR_B"][place]),
        pins["o_DOUT_B"].eq(read.data),
    ]
    return m


class UltraAccelerator(Accelerator):
    """The accelerator with every memory in UltraRAM that is there on parts that have it."""

    def elaborate(self, platform):
        with ExitStack() as stack:
            for module in (ultra, fetch, slot):
                stack.enter_context(patch.object(module, "in_ultra", lambda _, depth: depth >= ultra.LEAST_WORDS))
            stack.enter_context(patch.object(ultra, "Instance", block))
            return Fragment.get(super().elaborate(platform), platform)
