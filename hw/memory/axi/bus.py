"""AXI4, as far as a memory needs it: five channels between a master and a memory."""

from enum import IntEnum

from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.axi.layout import beats

LENGTH_BITS = 8  # of AxLEN, the beats less one
ADDRESS_BITS = 40  # of the memory map of an UltraScale+ processing system below 1 TB


class Burst(IntEnum):
    """AxBURST."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Response(IntEnum):
    """RRESP and BRESP. What is no OKAY of a plain access is an error."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class Axi4(wiring.Signature):
    """The channels, seen from the master; names and widths as in AMBA AXI and ACE (ARM IHI 0022),
    chapter "Signal descriptions". What a master may leave at its default there (lock, cache,
    protection, quality of service, region, user) is left to the board.

    Parameters
    ----------
    address_bits, data_bytes, id_bits : int
        ``data_bytes``: of a beat, a power of two up to 128.

    Members
    -------
    arid, araddr, arlen, arsize, arburst, arvalid : Out; arready : In
    rid, rdata, rresp, rlast, rvalid : In; rready : Out
    awid, awaddr, awlen, awsize, awburst, awvalid : Out; awready : In
    wdata, wstrb, wlast, wvalid : Out; wready : In
    bid, bresp, bvalid : In; bready : Out
    """

    def __init__(self, *, address_bits=ADDRESS_BITS, data_bytes, id_bits):
        self.address_bits, self.data_bytes, self.id_bits = address_bits, data_bytes, id_bits
        members = {}
        for channel in ("ar", "aw"):
            members |= {
                f"{channel}id": Out(id_bits),
                f"{channel}addr": Out(address_bits),
                f"{channel}len": Out(LENGTH_BITS),
                f"{channel}size": Out(3),
                f"{channel}burst": Out(2),
                f"{channel}valid": Out(1),
                f"{channel}ready": In(1),
            }
        members |= {
            "rid": In(id_bits),
            "rdata": In(8 * data_bytes),
            "rresp": In(2),
            "rlast": In(1),
            "rvalid": In(1),
            "rready": Out(1),
            "wdata": Out(8 * data_bytes),
            "wstrb": Out(data_bytes),
            "wlast": Out(1),
            "wvalid": Out(1),
            "wready": In(1),
            "bid": In(id_bits),
            "bresp": In(2),
            "bvalid": In(1),
            "bready": Out(1),
        }
        super().__init__(members)


class Axi4Read(wiring.Signature):
    """The two channels of ``Axi4`` that read."""

    def __init__(self, **shape):
        super().__init__(_half(Axi4(**shape), "ar", "r"))


class Axi4Write(wiring.Signature):
    """The three channels of ``Axi4`` that write."""

    def __init__(self, **shape):
        super().__init__(_half(Axi4(**shape), "aw", "w", "b"))


def _half(signature, *channels):
    """Members of some channels by name: "aw" and "ar" begin as "a", "w" and "r" do not."""
    return {
        name: member
        for name, member in signature.members.items()
        if name[: 2 if name.startswith("a") else 1] in channels
    }


def burst_command(address_bits, beat_bytes, block_bytes):
    """A burst of ``length`` beats, 1 to those of a block, from the beat ``address``, its byte
    address over the bytes of a beat; it stays within a block.
    """
    return data.StructLayout(
        {
            "address": address_bits - (beat_bytes - 1).bit_length(),
            "length": beats(1, beat_bytes, block_bytes).bit_length(),
        }
    )
