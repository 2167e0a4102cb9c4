"""The named configurations."""

from sterna.hw.config import Config

_MIB = 1 << 20
# fmt: off
PRESETS = {
    c.name: c
    for c in (
        # iCE40 UP5K: 10 lanes out of 128 KB of SPRAM. No trees: their walk makes bursts, which
        # memory on the chip has none of, and the logic cells are all but used up.
        Config(name="up5k", rows=2, columns=5, lanes=1, port_bytes=2, memory="onchip",
               memory_bytes=128 << 10, vector_words=512, activation_words=32, strip=16,
               clock_hz=24_000_000, fifo_words=64, row_words=32, ring=256, credits=2,
               program_words=256, register_bits=16, counters=False),
        # The others are named after the trits per cycle that their memory port delivers. Their
        # array takes more, so that what the FIFO gathers while the array waits for codes is caught
        # up with. On an ECP5 a list of 64 rows takes two block RAMs and fewer LUTs than a shorter
        # one, which would be in LUT RAM.
        # SDR SDRAM x16 of the ULX3S.
        Config(name="lanes10", rows=1, columns=15, lanes=1, port_bytes=2, memory_bytes=32 * _MIB,
               vector_words=4096, activation_words=1024, strip=16, top_k=64, tree_rows=1024,
               clock_hz=80_000_000, fifo_words=4096, row_words=64, credits=16),
        # DDR3 x16 at 1:2 of ECP5 boards.
        Config(name="lanes40", rows=3, columns=20, lanes=4, port_bytes=8, memory_bytes=256 * _MIB,
               vector_words=2048, activation_words=512, strip=36, top_k=64, tree_rows=1024,
               clock_hz=80_000_000, fifo_words=2048, credits=16),
        # The demo's simulated board: wide enough for several tokens per second of wall time.
        Config(name="sim", rows=8, columns=20, lanes=4, port_bytes=32, memory_bytes=64 * _MIB,
               vector_words=2048, activation_words=512, strip=64, top_k=64, tree_rows=1024,
               clock_hz=100_000_000, fifo_words=512, credits=8),
        # DDR3 x32.
        Config(name="lanes160", rows=5, columns=40, lanes=8, port_bytes=32,
               memory_bytes=1024 * _MIB, vector_words=8192, activation_words=256, strip=40,
               top_k=64, tree_rows=1024, clock_hz=200_000_000, fifo_words=1024, credits=16),
        # DDR4 over four ports of the KV260; holds the 2.7B geometry.
        Config(name="lanes320", rows=10, columns=40, lanes=8, port_bytes=64,
               memory_bytes=1024 * _MIB, vector_words=8192, activation_words=256, strip=80,
               top_k=64, tree_rows=1024, clock_hz=200_000_000, fifo_words=2048, credits=16),
        # DDR3-625 x16 of the ECPIX-5: 16 bytes a cycle of the port, all of which the array takes.
        Config(name="ecpix5-85", rows=4, columns=20, lanes=4, port_bytes=16,
               memory_bytes=512 * _MIB, vector_words=2048, activation_words=512, strip=36,
               top_k=64, tree_rows=1024, clock_hz=78_125_000, ddr3="MT41K256M16-107",
               memory_hz=156_250_000, fifo_words=1024, credits=16),
        # Four AXI ports of 16 bytes into the DDR4 of the KV260, less what Linux keeps. As many
        # trits as lanes320 in tiles of 25 x 16, which the sizes of the published models fill all
        # but wholly: what pads a matrix takes time of the memory. UltraRAM comes in pieces of 4096
        # words, of which the FIFO has to take two side by side.
        Config(name="kv260", rows=25, columns=16, lanes=8, port_bytes=64,
               memory_bytes=2048 * _MIB, vector_words=4096, activation_words=640, strip=200,
               top_k=64, tree_rows=1024, clock_hz=250_000_000, axi_ports=4, fifo_words=8192,
               credits=16),
    )
}
# fmt: on
