"""Deep memories in the UltraRAM of AMD's UltraScale+ parts: a memory of one write and one read port
and a queue of it, for platforms that have these blocks.

Sources: UltraScale Architecture Memory Resources (UG573), chapter UltraRAM; UltraScale Architecture
Libraries Guide (UG974), URAM288_BASE.
"""

from amaranth import Array, Cat, ClockSignal, Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

BLOCK_WORDS, BLOCK_BITS = 4096, 72
ADDRESS_BITS = 23  # of the block's pins, of which a block alone uses the lower 12
# Beginnings of the names of devices that have such blocks: Kria K26 and Alveo. UltraScale without
# the plus has none.
DEVICES = ("xck26", "xcu")
# From here on 72 bits of width take two block RAMs or more; such a part has some two for each
# UltraRAM.
LEAST_WORDS = 513


def in_ultra(platform, depth):
    """Whether a memory of ``depth`` words goes into UltraRAM on a platform (bool), as `elaborate`
    receives it: its ``device`` tells.
    """
    device = getattr(platform, "device", None) or ""
    return device.startswith(DEVICES) and depth >= LEAST_WORDS


def blocks(width, depth):
    """Blocks that a memory of ``depth`` words of ``width`` bits takes (int)."""
    return -(-width // BLOCK_BITS) * -(-depth // BLOCK_WORDS)


class UltraRam(wiring.Component):
    """A memory with a port to write and one to read, whose data come in the cycle behind.

    Explicit blocks: they have no initial contents, which every memory in Verilog made from Amaranth
    has. Throughput one read and one write per cycle; without an enable nothing is written, and the
    data stay. A read of a word that is written in the same cycle may return anything (the block's
    port A, which writes, goes first). No reset. An ``EnableInserter`` does not reach instances:
    the enables are all that counts. More than 4096 words take several blocks, of which a
    multiplexer behind them chooses one.

    Parameters
    ----------
    width, depth : int

    Members
    -------
    write_enable : In(1), write_address : In(range(depth)), write_data : In(width)
    read_enable : In(1), read_address : In(range(depth)), read_data : Out(width)
    """

    def __init__(self, *, width, depth):
        for name, value in (("width", width), ("depth", depth)):
            if value < 1:
                raise ValueError(f"{name} {value!r}: at least 1")
        self._width, self._depth = width, depth
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(range(depth)),
                "write_data": In(width),
                "read_enable": In(1),
                "read_address": In(range(depth)),
                "read_data": Out(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if not in_ultra(platform, self._depth):
            m.submodules.memory = memory = Memory(
                shape=self._width, depth=self._depth, init=[], attrs={"no_rw_check": 1}
            )
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(self.write_enable),
                write.addr.eq(self.write_address),
                write.data.eq(self.write_data),
                read.en.eq(self.read_enable),
                read.addr.eq(self.read_address),
                self.read_data.eq(read.data),
            ]
            return m
        place_bits = BLOCK_WORDS.bit_length() - 1
        rows = -(-self._depth // BLOCK_WORDS)
        words = []
        for row in range(rows):
            word = Signal(self._width, name=f"word{row}")
            writes = self.write_enable
            reads = self.read_enable
            if rows > 1:
                writes = writes & (self.write_address[place_bits:] == row)
                reads = reads & (self.read_address[place_bits:] == row)
            for low in range(0, self._width, BLOCK_BITS):
                m.submodules[f"block{row}_{low // BLOCK_BITS}"] = self._block(
                    writes,
                    reads,
                    self.write_data[low : low + BLOCK_BITS],
                    word[low : low + BLOCK_BITS],
                )
            words.append(word)
        if rows == 1:
            m.d.comb += self.read_data.eq(words[0])
        else:
            chosen = Signal(range(rows))
            with m.If(self.read_enable):
                m.d.sync += chosen.eq(self.read_address[place_bits:])
            m.d.comb += self.read_data.eq(Array(words)[chosen])
        return m

    def _block(self, writes, reads, written, word):
        """A block that is written through port A and read through port B."""

        def address(value):
            used = value[: BLOCK_WORDS.bit_length() - 1]
            return Cat(used, Const(0, ADDRESS_BITS - len(used)))

        unread = Signal(BLOCK_BITS - len(word), name="unread")
        unused = Signal(BLOCK_BITS, name="unused")
        return Instance(
            "URAM288_BASE",
            p_BWE_MODE_A="PARITY_INDEPENDENT",
            p_BWE_MODE_B="PARITY_INDEPENDENT",
            p_EN_AUTO_SLEEP_MODE="FALSE",
            p_IREG_PRE_A="FALSE",
            p_IREG_PRE_B="FALSE",
            p_OREG_A="FALSE",
            p_OREG_B="FALSE",
            i_CLK=ClockSignal(),
            i_SLEEP=Const(0),
            i_ADDR_A=address(self.write_address),
            i_DIN_A=Cat(written, Const(0, BLOCK_BITS - len(written))),
            i_BWE_A=Const(~0, 9),
            i_EN_A=writes,
            i_RDB_WR_A=Const(1),
            o_DOUT_A=unused,
            i_ADDR_B=address(self.read_address),
            i_DIN_B=Const(0, BLOCK_BITS),
            i_BWE_B=Const(0, 9),
            i_EN_B=reads,
            i_RDB_WR_B=Const(0),
            o_DOUT_B=Cat(word, unread),
            **{
                f"i_{pin}_{port}": Const(0)
                for pin in ("RST", "INJECT_SBITERR", "INJECT_DBITERR")
                for port in "AB"
            },
            **{f"i_{pin}_{port}": Const(1) for pin in ("OREG_CE", "OREG_ECC_CE") for port in "AB"},
        )


class UltraQueue(wiring.Component):
    """A deep queue in an ``UltraRam``, in the place of ``amaranth.lib.fifo.SyncFIFOBuffered``:
    with its names, and cycle by cycle what one of the same depth does.

        w_data -> memory of depth - 1 words -> its output, which is r_data

    Throughput one item per cycle, latency two cycles. Back-pressure: ``w_rdy`` falls while all
    places of the memory are taken, and does not depend on ``r_en``.

    Parameters
    ----------
    width, depth : int
        Bits of an item; items, at least 3.

    Members
    -------
    w_data : In(width), w_en : In(1), w_rdy : Out(1)
        An item enters in a cycle in which both bits are high.
    r_data : Out(width), r_rdy : Out(1), r_en : In(1)
        An item leaves in a cycle in which both bits are high.
    """

    def __init__(self, *, width, depth):
        if depth < 3:
            raise ValueError(f"depth {depth!r}: at least 3")
        self._width, self._places = width, depth - 1
        super().__init__(
            {
                "w_data": In(width),
                "w_en": In(1),
                "w_rdy": Out(1),
                "r_data": Out(width),
                "r_rdy": Out(1),
                "r_en": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        places = self._places
        m.submodules.memory = memory = UltraRam(width=self._width, depth=places)
        level = Signal(range(places + 1))  # in the memory
        writes, reads = memory.write_enable, memory.read_enable
        m.d.comb += [
            self.w_rdy.eq(level != places),
            writes.eq(self.w_en & self.w_rdy),
            reads.eq((level != 0) & (~self.r_rdy | self.r_en)),
            memory.write_data.eq(self.w_data),
            self.r_data.eq(memory.read_data),
        ]
        for enable, name in ((writes, "write_address"), (reads, "read_address")):
            at = Signal(range(places), name=f"next_{name}")
            m.d.comb += getattr(memory, name).eq(at)
            with m.If(enable):
                m.d.sync += at.eq(at + 1)
                if places & (places - 1):
                    with m.If(at == places - 1):
                        m.d.sync += at.eq(0)
        with m.If(writes & ~reads):
            m.d.sync += level.eq(level + 1)
        with m.Elif(reads & ~writes):
            m.d.sync += level.eq(level - 1)
        with m.If(reads):
            m.d.sync += self.r_rdy.eq(1)
        with m.Elif(self.r_en):
            m.d.sync += self.r_rdy.eq(0)
        return m
