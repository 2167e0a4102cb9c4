"""The memory port on AXI4 ports, against a memory that nobody here wrote, and the rules of the standard beside it."""

import bench
import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from axi_rules import MASTER, MEMORY, watch
from prove import planted
from sterna.hw.memory.axi import memory
from sterna.hw.memory.axi.bus import Axi4
from sterna.hw.memory.pins import joined
from sterna.hw.memory.port import MemoryPort

pytestmark = pytest.mark.rtl


class Watched(wiring.Component):
    """An AxiMemory whose pins m0_arid ... are flat, the rules beside them, and as many pins s0_arid ... for AxiRam.
    """

    def __init__(self, *, ports, beat_bytes, word_address_bits, **options):
        self._memory = memory.AxiMemory(ports=ports, beat_bytes=beat_bytes, word_address_bits=word_address_bits,
                                        **options)
        self._ports = ports
        bus = Axi4(data_bytes=beat_bytes, id_bits=memory.ID_BITS).members
        members = {"port": In(MemoryPort(word_address_bits, ports * beat_bytes)), "error": Out(1),
                   "broken": Out(len(MASTER) + len(MEMORY))}
        for k in range(ports):
            members |= {f"m{k}_{name}": member for name, member in bus.items()}
            members |= {f"s{k}_{name}": In(member.shape) for name, member in bus.items()}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = inner = self._memory
        connect(m, flipped(self.port), inner.port)
        m.d.comb += self.error.eq(inner.error)
        rules = []
        for k, axi in enumerate(inner.axi):
            m.d.comb += joined(axi, self, f"m{k}_")
            rules.append(watch(m, axi, f"rules{k}", writes=memory.WRITES))
        m.d.comb += self.broken.eq(Cat(*(Cat(*(rule.broken[name] for rule in rules)).any()
                                         for name in (*MASTER, *MEMORY))))
        return m


def run(simulator, testcase, *, ports=2, beat_bytes=4, block_bytes=64, bits=10, base=0, latency=20, pause=0.0,
        reorder=1, **more):
    bench.run(Watched(ports=ports, beat_bytes=beat_bytes, block_bytes=block_bytes, word_address_bits=bits, base=base),
              "bench_axi", f"axi{ports}_{beat_bytes}_{block_bytes}_{base}", simulator, testcase=testcase,
              env={"PORTS": ports, "BEAT": beat_bytes, "BLOCK": block_bytes, "ADDRESS_BITS": bits, "BASE": base,
                   "LATENCY": latency, "PAUSE": pause, "REORDER": reorder, "RULES": ",".join((*MASTER, *MEMORY)),
                   **more})


@pytest.mark.parametrize("options", [
    {"pause": 0.2, "latency": 60}, {"latency": 0, "reorder": 0}, {"ports": 4, "block_bytes": 16, "base": 1 << 20},
    {"ports": 1, "beat_bytes": 16, "block_bytes": 256},
    {"ports": 2, "beat_bytes": 8, "block_bytes": 8, "pause": 0.5}],
    ids=str)
def test_traffic(options, simulator):
    run(simulator, "traffic", **options)


def test_a_word_per_cycle(simulator):
    run(simulator, "rate", latency=60, reorder=0)


@pytest.mark.parametrize("error", ["read", "write"])
def test_an_error_stops_the_words(error, simulator):
    run(simulator, "wrong_answers", reorder=0, ERROR=error)


@pytest.mark.rest
@pytest.mark.parametrize("fault, match", [("waits", "written was"), ("place", "written was|does not hold")])
def test_a_fault_is_found(fault, match, monkeypatch):
    """Reads that do not wait for the writes before; a port whose blocks lie elsewhere on the way in and out."""
    if fault == "waits":
        monkeypatch.setattr(memory, "Combiner", planted(
            "memory.axi.combiner", "self.waits.eq(Cat(*matches, in_burst).any())", "self.waits.eq(0)").Combiner)
    else:
        right = memory.AxiMemory._beat_address
        monkeypatch.setattr(memory.AxiMemory, "_beat_address", lambda self, word, port: right(self, word, port ^ 1))
    with pytest.raises(AssertionError, match=match):
        run("verilator", "traffic", pause=0.2, latency=60)
