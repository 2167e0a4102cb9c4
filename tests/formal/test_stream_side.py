"""Proofs about the memory side: fetch engines, gearbox, router, arbiter and store."""

from math import gcd
from types import SimpleNamespace

import pytest
from amaranth.hdl import Cat, Mux, Signal
from prove import Proof, disproved, further, planted
from sterna.hw import stream as streams
from sterna.hw.memory import arbiter, fetch, router, store
from tracked import Tracked, claim_fifo

pytestmark = pytest.mark.formal


def count_ones(value):
    return sum(value[k] for k in range(len(value)))


def no_gaps(value):
    """Ones from bit 0 on, then zeros."""
    return (value & (value + 1)[:len(value)]) == 0


def claim_queue(proof, inside, item, prefix="", name=""):
    """Invariants of a Queue that holds the items of `item`."""
    full = inside[f"{prefix}full"]
    depth = len(full)
    words = Cat(*(inside[f"{prefix}word{k}"] for k in range(depth)))
    proof.claim(f"{name}no_gaps", no_gaps(full))
    proof.claim(f"{name}count", item.count == count_ones(full))
    proof.implies(f"{name}kept", item.inside, words.word_select(item.ahead[:(depth - 1).bit_length()], item.item_bits)
                  == item.value)


def short_queue(module, depth):
    """A word enters whenever there is room and leaves whenever there is one; by induction, so for ever."""
    proof = Proof()
    dut = module.Queue(2, depth)
    inside = proof.add(dut)
    item = Tracked(proof, "word", 4, 2)
    item.enter(dut.i.valid & dut.i.ready, dut.i.payload)
    item.leave(dut.o.ready & dut.o.valid, dut.o.payload, offered=dut.o.valid)
    proof.claim("room", dut.i.ready == (item.count < depth))
    proof.claim("offers", dut.o.valid == (item.count != 0))
    claim_queue(proof, inside, item)
    proof.check(2, induction=True)


@pytest.mark.parametrize("depth", [4, *further(2, 8)])
def test_short_queue(depth):
    short_queue(streams, depth)


def test_short_queue_catches_planted_bug():
    bug = planted("stream", "with m.If(enters & ~leaves):", "with m.If(enters):")
    with disproved(match="count"):
        short_queue(bug, 4)


def halves(inside, count):
    """The two FIFOs of a Fetch in pairs that holds `count` words: name, whether it has the first, words in it."""
    for number, name in enumerate(("even", "odd")):
        first = inside["read_odd"] == number
        yield name, first, ((count + first) >> 1)[:len(count)]


def take_pairs(proof, dut):
    """What `gearbox_bytes` and `router_sections` promise of the consumer: it takes the second word with the first.

    Returns the words that leave in this cycle.
    """
    leaves = dut.words.valid & dut.words.ready
    proof.assume(~dut.second.take | (leaves & dut.second.valid))
    return leaves + dut.second.take


def fetch_credit(module, depth, pairs):
    """`room` + words under way + words in the FIFO = depth, so `room` is never negative and every word fits.

    In pairs it is the same with both halves, between which the words are shared out evenly. The memory answers in any
    cycle what was asked for; by induction.
    """
    proof = Proof()
    dut = module.Fetch(address_bits=6, port_bytes=1, fifo_words=depth, pairs=pairs)
    inside = proof.add(dut)
    due = Signal(range(2 * depth + 1))
    issued = dut.bursts.valid & dut.bursts.ready
    proof.m.d.sync += due.eq(due + Mux(issued, dut.bursts.payload.length, 0) - dut.arriving.valid)
    proof.assume(~dut.arriving.valid | (due != 0))
    room = inside["room"]
    if pairs:
        take_pairs(proof, dut)
        level = inside["even.level"] + inside["odd.level"]
        proof.claim("turns", inside["write_odd"] == inside["read_odd"] ^ level[0])
        for name, _, share in halves(inside, level):
            proof.claim(f"{name}_share", inside[f"{name}.level"] == share)
            proof.claim(f"{name}_level", inside[f"{name}.level"] == inside[f"{name}.inner_level"]
                        + inside[f"{name}.r_rdy"])
        has_room = Mux(inside["write_odd"], inside["odd.w_rdy"], inside["even.w_rdy"])
    else:
        level, has_room = inside["fifo.level"], inside["fifo.w_rdy"]
    proof.claim("room_in_range", room <= depth)
    proof.claim("due_in_range", due <= depth)
    proof.claim("conserved", room + due + level == depth)
    proof.implies("arriving_word_has_room", dut.arriving.valid, has_room)
    proof.implies("idle", dut.idle, (due == 0) & (level == 0))
    proof.implies("burst_length", dut.bursts.valid,
                  (dut.bursts.payload.length != 0) & (dut.bursts.payload.length <= max(1, depth // 4)))
    proof.offers_well(bursts=dut.bursts)
    proof.check(3, induction=True)


@pytest.mark.parametrize("depth, pairs", [
    (16, False), (16, True), *further((4, False), (64, False), (4, True), (64, True))])
def test_fetch_credit(depth, pairs):
    fetch_credit(planted("memory.fetch"), depth, pairs)


@pytest.mark.parametrize("old, new, claim, pairs", [
    ("(room >= burst)", "(room != 0)", "room_in_range", False),
    ("(room >= burst)", "(room != 0)", "room_in_range", True),
    ("return words.valid & words.ready", "return fifo.r_rdy", "conserved", False),
    ("return leaves + second.take", "return leaves", "conserved", True),
    ("(leaves & ~second.take)", "leaves", "turns|share", True),
])
def test_fetch_credit_catches_planted_bug(old, new, claim, pairs):
    with disproved(match=claim):
        fetch_credit(planted("memory.fetch", old, new), 16, pairs)


def fetch_order(module, depth, pairs):
    """Bursts cover the words of each command once, from its first to its last; returning words keep their order.

    In pairs the second word is the one behind the first. That commands keep their order is `short_queue`. By
    induction.
    """
    proof = Proof()
    m = proof.m
    dut = module.Fetch(address_bits=4, port_bytes=1, fifo_words=depth, pairs=pairs)
    inside = proof.add(dut)
    burst, issued = dut.bursts.payload, dut.bursts.valid & dut.bursts.ready
    loads, waiting = inside["queue.o__ready"] & inside["queue.o__valid"], inside["queue.o__payload"]
    proof.assume(~loads | (waiting[4:] != 0))
    expected, left = Signal(4), Signal(5)
    with m.If(loads):
        m.d.sync += [expected.eq(waiting[:4]), left.eq(waiting[4:])]
    with m.Elif(issued):
        m.d.sync += [expected.eq(expected + burst.length), left.eq(left - burst.length)]
    proof.implies("burst_in_place", dut.bursts.valid, (burst.address == expected) & (burst.length <= left))
    proof.implies("command_complete", loads, left == Mux(issued, burst.length, 0))
    proof.claim("left", inside["left"] == left)
    proof.implies("address", left != 0, inside["address"] == expected)

    item = Tracked(proof, "word", depth.bit_length() + 1, 4)
    proof.assume(~dut.arriving.valid | (item.count < depth))  # `fetch_credit`
    item.enter(dut.arriving.valid, dut.arriving.payload[:4])
    if pairs:
        second = dut.second
        leaves = take_pairs(proof, dut)
        proof.implies("second_behind_first", second.valid, dut.words.valid)
        item.leave(dut.words.valid & dut.words.ready, Cat(dut.words.payload[:4], second.payload[:4]), 2, leaves,
                   offered=0)
        for number, word in enumerate((dut.words, second)):
            proof.implies(f"exists_{number}", word.valid, item.count > number)
            proof.implies(f"right_{number}", word.valid & item.inside & (item.ahead == number),
                          word.payload[:4] == item.value)
        proof.claim("turns", inside["write_odd"] == inside["read_odd"] ^ item.count[0])
        for name, first, share in halves(inside, item.count):
            claim_fifo(proof, inside, SimpleNamespace(
                name=name, count=share, inside=item.inside & (item.ahead[0] ^ first), ahead=item.ahead >> 1,
                value=item.value, item_bits=4), name)
        # A second word that is offered stays until it is taken, or is the next first word.
        waits = proof.past(second.valid & ~second.take)
        follows = proof.past(dut.words.ready)
        proof.implies("second_stays", waits & ~follows, second.valid & (second.payload == proof.past(second.payload)))
        proof.implies("second_follows", waits & follows,
                      dut.words.valid & (dut.words.payload == proof.past(second.payload)))
    else:
        item.leave(dut.words.valid & dut.words.ready, dut.words.payload[:4], offered=dut.words.valid)
        claim_fifo(proof, inside, item, "fifo")
    proof.offers_well(words=dut.words)
    proof.check(3, induction=True)


@pytest.mark.parametrize("depth, pairs", [(8, False), (8, True), *further((16, False), (16, True))])
def test_fetch_order(depth, pairs):
    fetch_order(planted("memory.fetch"), depth, pairs)


@pytest.mark.parametrize("old, new, claim, pairs", [
    ("length.eq(Mux(left < most, left, most))", "length.eq(most)", "burst_in_place", False),
    ("(left == 0) | (issued & (left == length))", "(left == 0) | issued", "command_complete", False),
    ("write_odd.eq(write_odd ^ arriving.valid)", "write_odd.eq(~write_odd)", "turns|fifo_count", True),
    ("second.payload.eq(Mux(read_odd, even.r_data, odd.r_data))", "second.payload.eq(odd.r_data)",
     "right_1|second_", True),
    ("second.valid.eq(even.r_rdy & odd.r_rdy)", "second.valid.eq(even.r_rdy | odd.r_rdy)", "exists_1|second_", True),
])
def test_fetch_order_catches_planted_bug(old, new, claim, pairs):
    with disproved(match=claim):
        fetch_order(planted("memory.fetch", old, new), 8, pairs)


def skid_buffer(module, pairs):
    """Its places keep the order of the words, and what is offered stays; by induction."""
    proof = Proof()
    dut = module.SkidBuffer(port_bytes=1, pairs=pairs)
    inside = proof.add(dut)
    item = Tracked(proof, "word", 4, 8)
    words, out = dut.i, dut.o
    if not pairs:
        item.enter(words.valid & words.ready, words.payload)
        item.leave(out.valid & out.ready, out.payload, offered=out.valid)
        claim_queue(proof, inside, item, "queue.")
    else:
        second, out_second = dut.i_second, dut.o_second
        leaves = out.valid & out.ready
        proof.assume(~second.valid | words.valid)
        proof.assume(~out_second.take | (leaves & out_second.valid))
        proof.implies("second_with_first", second.take, words.valid & words.ready & second.valid)
        item.enter(words.valid & words.ready, Cat(words.payload, second.payload), 2, 1 + second.take)
        item.leave(leaves, Cat(out.payload, out_second.payload), 2, leaves + out_second.take, offered=0)
        proof.claim("turns", inside["write_odd"] == inside["read_odd"] ^ item.count[0])
        for number, word in enumerate((out, out_second)):
            proof.implies(f"exists_{number}", word.valid, item.count > number)
            proof.implies(f"right_{number}", word.valid & item.inside & (item.ahead == number),
                          word.payload == item.value)
        for name, first, share in halves(inside, item.count):
            claim_queue(proof, inside, SimpleNamespace(
                count=share, inside=item.inside & (item.ahead[0] ^ first), ahead=item.ahead >> 1, value=item.value,
                item_bits=8), f"{name}.", f"{name}_")
    proof.offers_well(o=out)
    proof.check(2, induction=True)


@pytest.mark.parametrize("pairs", [False, True])
def test_skid_buffer(pairs):
    skid_buffer(planted("stream"), pairs)


@pytest.mark.parametrize("old, new, claim", [
    ("second.valid & even.i.ready & odd.i.ready", "second.valid & odd.i.ready", "turns|count|right|exists"),
    ("(takes & ~second.take)", "takes", "turns|count"),
    ("Mux(reads, out.ready, out_second.take)", "out.ready", "turns|count|exists"),
])
def test_skid_buffer_catches_planted_bug(old, new, claim):
    with disproved(match=claim):
        skid_buffer(planted("stream", old, new), True)


def direct_fetch(module):
    """Two places are enough for the words of a memory that answers in the next cycle, and keep their order.

    By induction; a word holds its own address.
    """
    proof = Proof()
    m = proof.m
    dut = module.DirectFetch(address_bits=4, port_bytes=1)
    inside = proof.add(dut, driven=["arriving"])
    proof.offered_well(dut.command)
    read = dut.reads.valid & dut.reads.ready
    arriving = Signal()
    address = Signal(4)
    m.d.sync += [arriving.eq(read), address.eq(dut.reads.payload)]
    m.d.comb += [dut.arriving.valid.eq(arriving), dut.arriving.payload.eq(address)]
    item = Tracked(proof, "word", 3, 4)
    item.enter(read, dut.reads.payload)
    item.leave(dut.words.valid & dut.words.ready, dut.words.payload[:4], offered=dut.words.valid)
    full = inside["full"]
    places = Cat(inside["place0"][:4], inside["place1"][:4])
    proof.claim("no_gaps", no_gaps(full))
    proof.implies("arriving_word_has_room", arriving, ~full[1])
    proof.claim("count", item.count == full[0] + full[1] + arriving)
    held = full[0] + full[1]
    proof.implies("kept", item.inside & (item.ahead < held), places.word_select(item.ahead[0], 4) == item.value)
    proof.implies("on_its_way", item.inside & (item.ahead >= held), address == item.value)
    proof.offers_well(words=dut.words, reads=dut.reads)
    proof.implies("idle", dut.idle, item.count == 0)
    # A command is read from its first to its last address, and then the next is taken.
    expected, left = Signal(4), Signal(4)
    loads = dut.command.valid & dut.command.ready
    proof.assume(~loads | ((dut.command.payload.words != 0) & (dut.command.payload.words < 16)))
    with m.If(loads):
        m.d.sync += [expected.eq(dut.command.payload.address), left.eq(dut.command.payload.words)]
    with m.Elif(read):
        m.d.sync += [expected.eq(expected + 1), left.eq(left - 1)]
    proof.implies("reads_right", dut.reads.valid, (left != 0) & (dut.reads.payload == expected))
    proof.implies("takes_at_end", dut.command.ready, left == 0)
    proof.claim("end", (inside["end"] - inside["address"])[:4] == left)
    proof.implies("address", left != 0, inside["address"] == expected)
    proof.check(3, induction=True)


def test_direct_fetch():
    direct_fetch(fetch)


@pytest.mark.parametrize("old, new", [("blocked = stays & (arrived | full[1])", "blocked = stays & full[1]"),
                                      ("Mux(full[1], places[1], self.arriving.payload)", "self.arriving.payload")])
def test_direct_fetch_catches_planted_bug(old, new):
    with disproved():
        direct_fetch(planted("memory.fetch", old, new))


def gearbox_bytes(module, port, tile, records=False):
    """Tiles hold the bytes of the words in order; `drop` ends a section and nothing of the next one is taken before.
    With `records` it ends one of many, and only where the section `ends` too nothing is taken in its cycle.

    Where a tile is longer than a word, two words may enter, the second only with the first and for the same tile;
    then a gearbox that is always offered two has a tile in every cycle. What the second word is does not matter here.
    `drop` comes with a tile, as from the array; by induction.
    """
    proof = Proof()
    dut = module.Gearbox(port_bytes=port, tile_bytes=tile, **({"records": True} if records else {}))
    inside = proof.add(dut)
    ends = dut.ends if records else dut.drop
    proof.assume(~ends | dut.drop)
    proof.offered_well(dut.i)
    word, gives = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    proof.assume(~dut.drop | gives)
    item = Tracked(proof, "byte", (port + 2 * tile).bit_length() + 1, 8)
    after = Mux(dut.drop, 0, item.count - Mux(gives, tile, 0))  # bytes that are left for the next tile
    if tile > port:
        second = dut.i_second
        item.enter(word, Cat(dut.i.payload, second.payload), 2 * port, count=Mux(second.take, 2 * port, port))
        proof.implies("second_with_first", second.take, word & second.valid)
        proof.implies("second_for_the_same_tile", second.take, ~ends & (after + port < tile))
        if tile <= 2 * port:
            proof.implies("keeps_up", proof.past(dut.i.valid & second.valid & ~ends), dut.o.valid)
    else:
        item.enter(word, dut.i.payload, port)
    # With the last tile everything else of the last word leaves too.
    item.leave(gives, dut.o.payload, tile, offered=dut.o.valid & ~dut.drop)
    with proof.m.If(dut.drop):
        proof.m.d.sync += item.left.eq(item.entered)
    proof.implies("dropping_tile_right", dut.drop & (item.ahead < tile) & item.inside,
                  dut.o.payload.word_select(item.ahead[:max(1, (tile - 1).bit_length())], 8) == item.value)
    proof.implies("takes_only_what_the_tile_needs", word, ~ends & (after < tile))
    held = inside["held"]
    proof.claim("level", item.count == inside["level"])
    proof.claim("level_in_range", inside["level"] < port + tile)
    proof.claim("level_in_steps", inside["level"] % gcd(port, tile) == 0)
    proof.implies("kept", item.inside,
                  held.word_select(item.ahead[:(port + tile - 1).bit_length()], 8) == item.value)
    proof.offers_well(o=dut.o)
    proof.check(2, induction=True)


@pytest.mark.parametrize("port, tile", [(4, 5), (2, 3), (2, 4), (2, 5), (8, 3), (2, 1)])
def test_gearbox(port, tile):
    gearbox_bytes(planted("stream"), port, tile)


@pytest.mark.parametrize("port, tile", [(2, 3), (4, 5), (8, 3)])
def test_gearbox_of_records(port, tile):
    gearbox_bytes(planted("stream"), port, tile, records=True)


@pytest.mark.parametrize("old, new, claim", [
    ("(after < tile) & ~ends", "(after < tile)", "takes_only"),
    ("level - tile, level", "level - tile + 1, level", "level|takes_only|byte_"),
    ("takes & second.valid & (after < tile - port)", "second.valid & (after < tile - port)", "second_with_first"),
    ("& (after < tile - port)", "& (after < tile)", "second_for_the_same_tile"),
    ("& (after < tile - port)", "& (after < tile - port - 1)", "keeps_up"),
    ("Cat(arriving, second.payload)", "Cat(second.payload, arriving)", "byte_|kept"),
])
def test_gearbox_catches_planted_bug(old, new, claim):
    with disproved(match=claim):
        gearbox_bytes(planted("stream", old, new), 4, 5)


@pytest.mark.parametrize("old, new, claim", [
    ("m.d.comb += after.eq(0)", "m.d.comb += after.eq(level)", "level|takes_only|byte_|kept"),
    ("ends = self.ends if self._records else self.drop", "ends = self.drop", "keeps_up"),
    ("ends = self.ends if self._records else self.drop", "ends = 0", "takes_only"),
])
def test_gearbox_of_records_catches_planted_bug(old, new, claim):
    with disproved(match=claim):
        gearbox_bytes(planted("stream", old, new), 4, 5, records=True)


def router_sections(module, sections, pairs):
    """Each word goes to one consumer, the one announced for its section, and none before an announcement.

    A consumer ends its section while it is the present one; by induction. In pairs the array takes the second word
    only with the first, which is what guarantees that it is the present consumer then (`gearbox_bytes`).
    """
    proof = Proof()
    dut = module.Router(port_bytes=1, sections=sections, pairs=pairs)
    inside = proof.add(dut)
    proof.offered_well(dut.words, dut.section)
    item = Tracked(proof, "section", sections.bit_length() + 1, 1)
    kind, present = inside["queue.o__payload"], inside["queue.o__valid"]
    proof.assume(~dut.array_done | (present & kind))
    proof.assume(~dut.vector_done | (present & ~kind))
    item.enter(dut.section.valid & dut.section.ready, dut.section.payload)
    item.leave(dut.array_done | dut.vector_done, kind)
    claim_queue(proof, inside, item, "queue.")
    tracked = item.inside & (item.ahead == 0)
    for consumer, number in ((dut.to_array, 1), (dut.to_vector, 0)):
        proof.implies(f"announced_{number}", consumer.valid & (item.number == item.left),
                      tracked & (item.value == number))
        proof.implies(f"same_word_{number}", consumer.valid, consumer.payload == dut.words.payload)
    to_array = dut.to_array.valid & dut.to_array.ready
    if pairs:
        proof.assume(~dut.array_second.take | (to_array & dut.array_second.valid))
        proof.implies("second_for_the_array", dut.second.take,
                      present & kind & dut.second.valid & dut.words.valid & dut.words.ready)
        proof.claim("same_second", (dut.second.take == dut.array_second.take)
                    & (dut.second.valid == dut.array_second.valid)
                    & (dut.second.payload == dut.array_second.payload))
    given = to_array + (dut.to_vector.valid & dut.to_vector.ready)
    proof.claim("exactly_one", given == (dut.words.valid & dut.words.ready))
    proof.implies("none_before", item.count == 0, ~dut.words.ready)
    proof.check(2, induction=True)


@pytest.mark.parametrize("sections, pairs", [(2, False), (8, False), (8, True)])
def test_router(sections, pairs):
    router_sections(router, sections, pairs)


@pytest.mark.parametrize("old, new, pairs", [
    ("for_vector = queue.o.valid & ~queue.o.payload", "for_vector = ~queue.o.payload", False),
    ("self.to_array.valid.eq(for_array & self.words.valid)", "self.to_array.valid.eq(self.words.valid)", True),
    ("connect(m, flipped(self.second), flipped(self.array_second))", "m.d.comb += self.second.take.eq(1)", True),
])
def test_router_catches_planted_bug(old, new, pairs):
    with disproved(match="second|exactly_one" if pairs else "announced|exactly_one|none_before"):
        router_sections(planted("memory.router", old, new), 2, pairs)


def arbiter_words(module):
    """At most `outstanding` bursts; words go to who asked, in order; an offer at the port does not change.

    Three outstanding bursts of up to three words from a memory that answers in any cycle; bounded.
    """
    proof = Proof()
    dut = module.Arbiter(address_bits=3, port_bytes=1, outstanding=3)
    inside = proof.add(dut)
    proof.offered_well(dut.fetch_bursts, dut.host_bursts, dut.store, dut.host_write)
    command = dut.port.read_command
    for bursts in (dut.fetch_bursts, dut.host_bursts):
        proof.assume((bursts.payload.length >= 1) & (bursts.payload.length <= 3))
    issued = command.valid & command.ready
    item = Tracked(proof, "word", 5, 1)  # an item is a word, its value the owner
    by_host = dut.host_bursts.valid & dut.host_bursts.ready
    item.enter(issued, by_host.replicate(3), 3, count=command.payload.length[:2])
    arrived = dut.port.read_data.valid
    proof.assume(~arrived | (item.count != 0))
    item.leave(arrived, dut.host_words.valid)
    proof.claim("to_one", dut.host_words.valid + dut.fetch_words.valid == arrived)
    proof.claim("one_asks", by_host + (dut.fetch_bursts.valid & dut.fetch_bursts.ready) == issued)
    proof.implies("its_burst", by_host, command.payload.as_value() == dut.host_bursts.payload.as_value())
    proof.claim("at_most_three", inside["owners.level"] <= 3)
    proof.claim("quiet", dut.quiet == (item.count == 0))
    proof.offers_well(read_command=command, write=dut.port.write)
    accepted = (dut.store.valid & dut.store.ready) + (dut.host_write.valid & dut.host_write.ready)
    proof.claim("one_write", accepted == (dut.port.write.valid & dut.port.write.ready))
    proof.check(8)


def test_arbiter():
    arbiter_words(arbiter)


@pytest.mark.parametrize("old, new", [
    ("held_read.eq(port.read_command.valid & ~port.read_command.ready)", "held_read.eq(0)"),
    ("owners.r_en.eq(arrived & (count == owner.length - 1))", "owners.r_en.eq(arrived)"),
])
def test_arbiter_catches_planted_bug(old, new):
    with disproved():
        arbiter_words(planted("memory.arbiter", old, new))


def store_words(module):
    """A store takes as many words as announced, to consecutive addresses, before the next begins; by induction."""
    proof = Proof()
    m = proof.m
    dut = module.Store(address_bits=4, port_bytes=1)
    inside = proof.add(dut)
    proof.offered_well(dut.command, dut.words)
    expected, left = Signal(4), Signal(4)
    loads, written = dut.command.valid & dut.command.ready, dut.write.valid & dut.write.ready
    proof.assume(~loads | ((dut.command.payload.words != 0) & (dut.command.payload.words < 16)))
    with m.If(loads):
        m.d.sync += [expected.eq(dut.command.payload.address), left.eq(dut.command.payload.words)]
    with m.Elif(written):
        m.d.sync += [expected.eq(expected + 1), left.eq(left - 1)]
    proof.implies("second_store_waits", dut.command.ready, left == 0)
    proof.claim("idle", dut.idle == (left == 0))
    proof.implies("in_place", dut.write.valid, (left != 0) & (dut.write.payload.address == expected))
    proof.implies("same_word", dut.write.valid, (dut.write.payload.data == dut.words.payload)
                  & dut.write.payload.mask.all())
    proof.claim("each_once", (dut.words.valid & dut.words.ready) == written)
    proof.claim("left", (inside["end"] - inside["address"])[:4] == left)
    proof.implies("address", left != 0, inside["address"] == expected)
    proof.offers_well(write=dut.write)
    proof.check(2, induction=True)


def test_store():
    store_words(store)


def test_store_catches_planted_bug():
    with disproved(match="second_store_waits"):
        store_words(planted("memory.store", "self.command.ready.eq(~running)", "self.command.ready.eq(1)"))
