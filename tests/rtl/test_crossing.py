"""Clock domains: the list of them, and a stream across two clocks of any phase and ratio, with uncertain captures."""

import dataclasses
import types
from pathlib import Path

import bench
import pytest
from amaranth.hdl import Cat, Const, Fragment, Module, Mux, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from sterna.hw import stream as streams
from sterna.hw.accelerator import Accelerator
from sterna.hw.boards import BOARDS
from sterna.hw.boards.board import load
from sterna.hw.memory import crossing, external
from sterna.hw.memory.ddr3.phy import FAST
from sterna.hw.presets import PRESETS
from sterna.hw.soc import Soc

OTHER = {"write": "read", "read": "write"}


class UncertainPlatform:
    """Synchronisers whose first flip-flop may miss a change that it should see for the first time.

    In the cycle behind a change of the input each bit that changed in the input's last step is captured as it is or
    as it was, by chance and independently; one cycle later the change is certain. This is what metastability leaves.
    """

    def __init__(self):
        self._made = 0

    def get_ff_sync(self, synchroniser):
        m = Module()
        domain, value = synchroniser._o_domain, synchroniser.i
        self._made += 1
        chance = Signal(32, init=bench.rng(f"chance {self._made}").getrandbits(32) | 1, reset_less=True)
        before = Signal.like(value, name="before")  # the input one step of its own clock earlier
        seen = Signal.like(value, name="seen")
        first = Signal.like(value, name="first", init=synchroniser._init, reset_less=True)
        second = Signal.like(value, name="second", init=synchroniser._init, reset_less=True)
        random = Cat(chance[(7 * k + 3) % 32] for k in range(len(value)))
        m.d[OTHER[domain]] += before.eq(value)
        m.d[domain] += [
            chance.eq((chance >> 1) ^ Mux(chance[0], Const(0xA3000000, 32), 0)), seen.eq(value),
            first.eq(Mux(seen == value, value, (value & ~random) | (before & random))),
            second.eq(first),
        ]
        m.d.comb += synchroniser.o.eq(second)
        return m


class Crossed(wiring.Component):
    """The crossing on a platform whose synchronisers are uncertain."""

    def __init__(self, depth=8):
        self._depth = depth
        super().__init__({"input": In(stream.Signature(16)), "output": Out(stream.Signature(16))})

    def elaborate(self, platform):
        m = Module()
        part = streams.AsyncQueue(16, i_domain="write", o_domain="read", depth=self._depth)
        m.submodules.crossing = Fragment.get(part, UncertainPlatform())
        connect(m, flipped(self.input), part.i)
        connect(m, part.o, flipped(self.output))
        return m


@pytest.mark.rtl
def test_stream_crossing(simulator):
    bench.run(Crossed(), "bench_crossing", "crossing", simulator)


@pytest.mark.rtl
@pytest.mark.icarus
def test_too_few_places_are_caught():
    """The words of a memory cannot wait: half of the places that never fill is too few."""
    assert crossing.RETURNED >= 8
    with pytest.raises(AssertionError, match="full .* times, though all is taken"):
        bench.run(Crossed(4), "bench_crossing", "crossing", "icarus")


def binary_pointers():
    """The FIFO of amaranth.lib with binary pointers instead of Gray ones, and a test for "full" that fits them."""
    text = Path(fifo.__file__).read_text()
    for old, new in (("_gray_encode(produce_w_nxt)", "produce_w_nxt"),
                     ("_gray_encode(consume_r_nxt)", "consume_r_nxt"),
                     ("_gray_decode(consume_w_gry)", "consume_w_gry"),
                     ("(produce_w_gry[-2]  != consume_w_gry[-2])", "(produce_w_gry[-2]  == consume_w_gry[-2])")):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    text = text.replace("_gray_decode(produce_r_gry)", "produce_r_gry")
    result = types.ModuleType("binary_fifo")
    result.__package__ = "amaranth.lib"
    exec(compile(text, "fifo with binary pointers", "exec"), result.__dict__)
    return result.AsyncFIFO


@pytest.mark.rtl
def test_binary_pointers_are_caught(monkeypatch, simulator):
    monkeypatch.setattr(streams, "AsyncFIFO", binary_pointers())
    with pytest.raises(AssertionError, match="valid fell|instead of|items came"):
        bench.run(Crossed(), "bench_crossing", "crossing", simulator)


def domains_of(fragment):
    # The domain async_ff is a reset's own.
    found = {domain for domain in fragment.statements if domain not in ("comb", "async_ff")}
    found |= {port._domain for port in (*getattr(fragment, "_read_ports", ()), *getattr(fragment, "_write_ports", ()))
              if port._domain != "comb"}
    for child, _, _ in fragment.subfragments:
        found |= domains_of(child)
    return found


@pytest.mark.parametrize("name", ["up5k", "lanes10"])
def test_the_accelerator_has_the_listed_domains(name):
    config = dataclasses.replace(PRESETS[name], fifo_words=64)
    assert domains_of(Fragment.get(Accelerator(config), None)) == {"sync"}


def crossings_of(fragment):
    """(from, to, name) of each part that has registers of two clocks, or a synchroniser."""
    for child, name, _ in fragment.subfragments:
        inside = domains_of(child)
        if len(inside) > 1 and not any(len(domains_of(part)) > 1 for part, _, _ in child.subfragments):
            yield name, inside
        else:
            yield from crossings_of(child)


@pytest.mark.parametrize("own_clock", [True, False])
def test_a_board_has_the_listed_domains_and_crossings(own_clock):
    config = BOARDS["ulx3s-85f"].config
    if not own_clock:
        config = dataclasses.replace(config, memory_hz=config.clock_hz)
    fragment = Fragment.get(Soc(config, 1_000_000), None)
    assert domains_of(fragment) == (set(external.DOMAINS) if own_clock else {"sync"})
    found = [name for name, _ in crossings_of(fragment)]
    # Both ends of a synchroniser of one level are wires: it has registers of one domain only.
    listed = [name for _, _, name, _ in external.CROSSINGS if name != "refreshing"]
    assert len(found) == (len(listed) if own_clock else 0), found


@pytest.mark.parametrize("name", ["ecpix5-85", pytest.param("ecpix5-85-litedram", marks=pytest.mark.rest)])
def test_a_board_with_ddr3_has_the_listed_domains_and_crossings(name):
    board = BOARDS[name]
    fragment = Fragment.get(load(board.top)(board), load(board.platform)())
    # The cells have no flip-flops of the fabric
    assert domains_of(fragment) == ({*external.DOMAINS, *external.DDR3_DOMAINS} - {FAST})
    found = [name for name, inside in crossings_of(fragment) if inside <= set(external.DOMAINS)]
    assert len(found) == len([name for _, _, name, _ in external.CROSSINGS if name != "refreshing"]), found


@pytest.mark.parametrize("options, message", [({"depth": 6}, "depth 6: use a power of two"),
                                              ({"o_domain": "write"}, "domain 'write' on both sides")])
def test_refused_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        streams.AsyncQueue(8, **({"i_domain": "write", "o_domain": "read"} | options))
