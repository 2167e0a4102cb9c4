"""Proofs about the AXI masters: the standard's rules (tests/axi_rules.py), and words in the order of the commands."""

import pytest
from amaranth.hdl import Array, Mux, Signal
from axi_rules import MASTER, MEMORY, AxiRules
from prove import Proof, disproved, further, planted
from sterna.hw.memory.axi.bus import Axi4

pytestmark = pytest.mark.formal
SHAPE = {"beat_bytes": 1, "block_bytes": 2, "address_bits": 13}
READER, WRITER, COMBINER = "memory.axi.reader", "memory.axi.writer", "memory.axi.combiner"


def beside(proof, axi, silent=(), **options):
    """AxiRules of the channels that ``axi`` has, the others at rest; the memory keeps its rules, ours are claimed."""
    bus = {"address_bits": SHAPE["address_bits"], "data_bytes": 1, "id_bits": options.pop("id_bits")}
    rules = AxiRules(**bus, **options)
    proof.m.submodules.rules = rules
    for name in Axi4(**bus).members:
        if hasattr(axi, name):
            proof.m.d.comb += getattr(rules, name).eq(getattr(axi, name))
    for name in MEMORY:
        proof.assume(~rules.broken[name])
    for name in MASTER:
        if name not in silent:
            proof.claim(name, ~rules.broken[name])
    return rules


def reads(module, cycles=9, errors=False):
    """Commands of any place and length, a memory that answers the bursts in any order and mixes their beats: every
    beat is that of its address, in the order of the commands.

    A beat's data are the low bits of its address, which the rules count for each ID.
    """
    proof = Proof()
    m = proof.m
    dut = module.AxiReader(**SHAPE, id_bits=1)
    proof.add(dut)
    rules = beside(proof, dut.axi, id_bits=1)
    command = dut.command
    proof.offered_well(command)
    first = command.payload.address[0]
    proof.assume(~command.valid | ((command.payload.length >= 1) & (command.payload.length <= 2 - first)))
    if errors:
        proof.implies("no_error", proof.past(dut.error), dut.error)
    else:
        proof.assume(~dut.axi.rvalid | (dut.axi.rresp == 0))
        proof.claim("no_error", ~dut.error)
    proof.assume(~dut.axi.rvalid | (dut.axi.rdata == Array(rules.next_address)[dut.axi.rid][:8]))
    # The commands that are not read yet: four places are more than two bursts, the AR register and the output need.
    queue = [Signal(8, name=f"address{k}") for k in range(5)]
    lengths = [Signal(2, name=f"length{k}") for k in range(5)]
    level, done = Signal(3), Signal(2)
    takes, gives = command.valid & command.ready, dut.o.valid & dut.o.ready
    leaves = gives & (done + 1 == lengths[0])
    with m.If(gives):
        m.d.sync += done.eq(Mux(leaves, 0, done + 1))
    m.d.sync += level.eq(level + takes - leaves)
    for k in range(5):
        for places, arriving in ((queue, command.payload.address[:8]), (lengths, command.payload.length)):
            above = places[k + 1] if k < 4 else 0
            m.d.sync += places[k].eq(Mux(takes & (level - leaves == k), arriving, Mux(leaves, above, places[k])))
    proof.claim("few", level < 5)
    proof.implies("some", dut.o.valid, level != 0)
    proof.implies("data", dut.o.valid, dut.o.payload == (queue[0] + done)[:8])
    proof.offers_well(o=dut.o)
    proof.check(cycles)


def test_reader():
    reads(planted(READER))


@pytest.mark.rest
def test_reader_under_errors():
    reads(planted(READER), cycles=8, errors=True)


@pytest.mark.parametrize("old, new, match", [
    ("(~axi.arvalid | axi.arready) & (used != slots)", "(used != slots)", "ar_stays|data"),
    *further(
    ("(~axi.arvalid | axi.arready) & (used != slots)", "(~axi.arvalid | axi.arready)", "ar_id|data|no_error"),
    ("axi.arlen.eq((command.payload.length - 1)[:LENGTH_BITS])", "axi.arlen.eq(command.payload.length)", None),
    ("there[oldest] > next_beat", "used != 0", "data"),
    ("write.addr.eq(Cat(number[: (block - 1).bit_length()], identity))",
     "write.addr.eq(Cat(number[: (block - 1).bit_length()], oldest))", "data"),
    ("with m.If(axi.arready):", "with m.If(1):", "ar_stays"),
    )])
def test_reader_catches_planted_bug(old, new, match):
    with disproved(match=match):
        reads(planted(READER, old, new))


def writes(module, cycles=8):
    """Bursts of any length, whose address comes with their last beat: the rules, a response for each, and beats and
    masks as they came.
    """
    proof = Proof()
    m = proof.m
    most = 2
    dut = module.AxiWriter(beat_bytes=1, block_bytes=2, address_bits=13, most=most)
    proof.add(dut)
    beside(proof, dut.axi, id_bits=1, writes=most)
    proof.offered_well(dut.command, dut.beats)
    beat, command = dut.beats.valid & dut.beats.ready, dut.command.valid & dut.command.ready
    # Beats that are not commanded yet, and bursts without a response.
    fresh, under_way = Signal(2), Signal(3)
    last = dut.beats.payload.last
    m.d.sync += [under_way.eq(under_way + command - dut.done), fresh.eq(Mux(command, 0, fresh + beat))]
    proof.assume(~dut.command.valid | (dut.beats.valid & last & (dut.command.payload.length == fresh + 1)))
    proof.assume(~dut.beats.valid | (last == dut.command.valid))
    proof.assume(command == (beat & last))
    proof.assume(fresh + beat <= 2)
    proof.assume(~(fresh == 1) | ~dut.beats.valid | last)
    proof.assume(~dut.command.valid | ~dut.command.payload.address[0] | (dut.command.payload.length == 1))
    proof.assume((under_way < most) | ~dut.command.valid)
    proof.assume(~dut.axi.bvalid | (dut.axi.bresp == 0))
    proof.claim("no_error", ~dut.error)
    # One beat, whichever: it leaves as it came.
    number, mark = proof.constant(3, "number"), Signal(10)
    came, left = Signal(3), Signal(3)
    m.d.sync += [came.eq(came + beat), left.eq(left + (dut.axi.wvalid & dut.axi.wready))]
    offered = dut.beats.payload.as_value()
    with m.If(beat & (came == number)):
        m.d.sync += mark.eq(offered)
    proof.implies("beat", dut.axi.wvalid & (left == number),
                  (came > number) & (dut.axi.wdata == mark[:8]) & (dut.axi.wstrb == mark[8])
                  & (dut.axi.wlast == mark[9]))
    proof.implies("done", dut.done, under_way != 0)
    proof.check(cycles)


def test_writer():
    writes(planted(WRITER))


@pytest.mark.parametrize("old, new, match", [
    ("command.ready.eq(~axi.awvalid | axi.awready)", "command.ready.eq(1)", "aw_stays"),
    *further(
    ("axi.wvalid.eq(fifo.r_rdy & (open_ != 0))", "axi.wvalid.eq(fifo.r_rdy)", "w_unasked"),
    ("axi.wlast.eq(beat.last)", "axi.wlast.eq(fifo.r_level == 1)", "w_last|w_stays|beat"),
    ("axi.awsize.eq((self._beat_bytes - 1).bit_length())", "axi.awsize.eq(1)", "aw_size"),
    ("m.d.sync += axi.awvalid.eq(0)", "m.d.sync += axi.awvalid.eq(axi.wlast)", "aw_stays|overflow|w_last|aw_|b"),
    )])
def test_writer_catches_planted_bug(old, new, match):
    with disproved(match=match):
        writes(planted(WRITER, old, new))


def combines(module, cycles=8):
    """Words of any order and masks, writers that have room or not and answer when they like: each word leaves once, in
    order, at its address; a burst stays in its block; and a group waits from its word on until all have answered.
    """
    proof = Proof()
    m = proof.m
    dut = module.Combiner(address_bits=5, ports=2, beat_bytes=1, block_bytes=2, most=2)
    proof.add(dut)
    proof.offered_well(dut.write)
    room = [beat.ready for beat in dut.beats]
    command, beats = dut.command, dut.beats
    pushed = beats[0].valid
    number, mark, word_at = proof.constant(3, "number"), Signal(18), Signal(5)
    came, left = Signal(3), Signal(3)
    takes = dut.write.valid & dut.write.ready
    m.d.sync += [came.eq(came + takes), left.eq(left + pushed)]
    payload = dut.write.payload
    with m.If(takes & (came == number)):
        m.d.sync += [mark[:16].eq(payload.data), word_at.eq(payload.address)]
        m.d.sync += mark[16:].eq(payload.mask)
    proof.claim("all_or_none", (beats[1].valid == pushed) & (~pushed | (room[0] & room[1] & dut.command.ready)))
    proof.implies("in_order", pushed & (left == number),
                  (came > number) & (beats[0].payload.data == mark[:8]) & (beats[1].payload.data == mark[8:16])
                  & (beats[0].payload.mask == mark[16]) & (beats[1].payload.mask == mark[17]))
    # The address of a burst is that of its last word less those before it, within a block of two.
    length = Signal(2)
    with m.If(pushed):
        m.d.sync += length.eq(Mux(command.valid, 0, length + 1))
    proof.implies("command", command.valid,
                  pushed & beats[0].payload.last & (command.payload.length == length + 1)
                  & (command.payload.address[0] + command.payload.length <= 2))
    proof.implies("place", command.valid & (left == number), command.payload.address + length == word_at)
    proof.implies("last", pushed, beats[0].payload.last == command.valid)
    # Answers come for bursts only.
    answers = []
    for k, done in enumerate(dut.done):
        waiting = Signal(3, name=f"waiting{k}")
        m.d.sync += waiting.eq(waiting + command.valid - done)
        proof.assume(~done | (waiting != 0))
        answers.append(waiting)
    # The group of the chosen word waits until both have answered its burst.
    ahead = [Signal(3, name=f"ahead{k}") for k in range(2)]  # answers until its own, from its burst on
    state = Signal(2)  # 1: accepted, 2: its burst has gone
    with m.If(takes & (came == number)):
        m.d.sync += state.eq(1)
    with m.If(command.valid & (left <= number) & (left + 1 > number) & (state == 1)):
        m.d.sync += state.eq(2)
        m.d.sync += [ahead[k].eq(answers[k] - dut.done[k] + 1) for k in range(2)]
    with m.Elif((state == 1) & pushed & (left == number)):
        m.d.sync += state.eq(3)
    with m.Elif((state == 3) & command.valid):
        m.d.sync += state.eq(2)
        m.d.sync += [ahead[k].eq(answers[k] - dut.done[k] + 1) for k in range(2)]
    for k in range(2):
        with m.If((state == 2) & dut.done[k] & (ahead[k] != 0)):
            m.d.sync += ahead[k].eq(ahead[k] - 1)
    unanswered = (state == 1) | (state == 3) | ((state == 2) & ((ahead[0] != 0) | (ahead[1] != 0)))
    proof.implies("waits", unanswered & (dut.group == word_at[1:]), dut.waits)
    proof.check(cycles)


def test_combiner():
    combines(planted(COMBINER))


@pytest.mark.parametrize("old, new, match", [
    ("full_block | (patience == 0)", "(patience == 0)", "command|place"),
    *further(
    ("room.eq(Cat(*ready).all() & self.command.ready & ~taken[-1])",
     "room.eq(Cat(*ready).all() & self.command.ready)", "waits"),
    ("retires.eq(Cat(*(count != 0 for count in answers)).all())", "retires.eq(answers[0] != 0)", "waits"),
    ("self.waits.eq(Cat(*matches, in_burst).any())", "self.waits.eq(Cat(*matches).any())", "waits"),
    ("group.eq(Mux(behind, above, here))", "group.eq(here)", "waits"),
    ("beat.payload.last.eq(self.command.valid)", "beat.payload.last.eq(ends)", "last|command"),
    )])
def test_combiner_catches_planted_bug(old, new, match):
    with disproved(match=match):
        combines(planted(COMBINER, old, new))
