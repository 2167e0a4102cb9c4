"""Proofs about the row queue with the array's credits, and about packing and unpacking of memory words."""

from dataclasses import replace
from math import gcd, lcm

import pytest
from amaranth.hdl import Cat, Const, Mux, Signal, Value
from prove import Proof, disproved, further, planted
from sterna.hw.config import SLOW_HZ
from sterna.hw.presets import PRESETS
from sterna.hw.vector import operands, store
from tracked import Tracked, claim_fifo

pytestmark = pytest.mark.formal
BITS = 3  # of a row sum: what the queue does not look at


def row_queue(module, rows_, lanes, depth, batch=1):
    """Rows leave in the order in which tiles bring them, and a matrix ends with a whole word.

    An item is a group of gcd(R, V) rows with the sums of all slots. What fills the last word of a matrix counts as
    items that enter with its last tile and have any value. The producer leaves R / g cycles between tiles and owns a
    credit for each word. By induction.
    """
    proof = Proof()
    m = proof.m
    dut = module.RowQueue(rows=rows_, lanes=lanes, depth=depth, bits=BITS, batch=batch)
    inside = proof.add(dut)
    group = gcd(rows_, lanes)
    per_tile, per_word, group_bits = rows_ // group, lanes // group, group * batch * BITS
    place_bits = (per_word - 1).bit_length()  # lanes are a power of two

    def by_row(sums, count):
        """The sums of `count` rows with those of a row side by side; they come and go one slot after the other."""
        return Cat(*(Value.cast(sums[slot * count + row])[:BITS] for row in range(count) for slot in range(batch)))

    tile, shown = by_row(dut.tile, rows_), by_row(dut.rows.payload, lanes)
    takes = dut.rows.valid & dut.rows.ready
    item = Tracked(proof, "group", (per_word * (depth + 2) + per_tile).bit_length() + 1, group_bits)
    words = Tracked(proof, "word", depth.bit_length() + 1, lanes * batch * BITS)  # from the registers to the way out
    words.leave(takes, shown, offered=dut.rows.valid)
    claim_fifo(proof, inside, words, "fifo")
    words.enter(inside["fifo.w_en"], inside["fifo.w_data"])
    proof.implies("room", inside["fifo.w_en"], inside["fifo.w_rdy"])

    def filling(groups):
        """What `groups` lack of whole words."""
        return (-groups)[:place_bits] if place_bits else 0

    entering = Signal(range(per_tile + per_word + 1))
    m.d.comb += entering.eq(dut.groups + Mux(dut.last, filling(item.entered + dut.groups), 0))
    proof.assume(~dut.tile_valid | ((dut.groups >= 1) & (dut.groups <= per_tile)))
    proof.assume(~dut.tile_valid | (item.count + entering <= depth * per_word))
    item.enter(dut.tile_valid, tile, per_tile, count=entering)
    real = Signal()  # the tracked item is of a matrix
    index = (item.number - item.entered)[:len(item.number)]
    with m.If(dut.tile_valid & (index < entering)):
        m.d.sync += real.eq(index < dut.groups)

    # From the way out to the way in: the FIFO, the word that is collected, the tile that is held.
    collected = held = fill = 0
    if per_word > 1:
        collected = Mux(inside["push"], per_word, inside["count"])
        proof.implies("push_empties", inside["push"], inside["count"] == 0)
    if per_tile > 1:
        held = inside["left"]
        proof.assume(~dut.tile_valid | (held <= 1))
        proof.claim("held_in_range", held <= per_tile)
        fill = Mux((held != 0) & inside["ends"], filling(collected + held), 0)
    proof.claim("count", item.count == words.count * per_word + collected + held + fill)
    proof.claim("credit", item.count <= depth * per_word)
    young = (item.ahead - words.count * per_word)[:len(item.number)]
    behind = (young - collected)[:len(item.number)]
    known = item.inside & real & (item.ahead >= words.count * per_word)
    if per_word > 1:
        proof.implies("kept_in_word", known & (young < collected),
                      inside["word"].word_select(young[:place_bits], group_bits) == item.value)
    if per_tile > 1:
        proof.implies("kept_in_tile", known & (young >= collected) & (behind < held),
                      inside["held"].word_select(behind[:(per_tile - 1).bit_length()], group_bits) == item.value)
    proof.implies("somewhere", known, (young < collected) | (behind < held))
    # Group k of the stream is in word k / (V / g); the tracked word is the one of the tracked group.
    m.d.sync += item.left.eq(item.left + Mux(takes, per_word, 0))
    proof.claim("whole_words", (item.left & (per_word - 1)) == 0)
    proof.assume(words.number == (item.number >> place_bits)[:len(words.number)])
    proof.claim("in_step", words.left == (item.left >> place_bits)[:len(words.number)])
    slot = item.number[:place_bits]
    proof.implies("in_its_word", item.inside & words.inside & real,
                  words.value.word_select(slot, group_bits) == item.value)
    proof.implies("row_right", dut.rows.valid & item.inside & real & (item.ahead < per_word),
                  shown.word_select(slot, group_bits) == item.value)
    proof.offers_well(rows=dut.rows)
    proof.check(3, induction=True)


SHAPES = [(4, 2, 1), (1, 2, 1), *further((2, 2, 1), (1, 4, 1), (3, 2, 1), (3, 4, 1))]  # rows, lanes, batch


@pytest.mark.parametrize("rows_, lanes, batch", [*SHAPES, (2, 2, 2), *further((3, 2, 2), (1, 2, 4))])
def test_row_queue(rows_, lanes, batch):
    row_queue(planted("array.rows"), rows_, lanes, 8, batch)


@pytest.mark.parametrize("shape, old, new", [
    ((4, 2), "held.eq(held >> group_bits)", "held.eq(held)"),
    ((1, 4), "full = (count == self.groups_per_word - 1) | last", "full = count == self.groups_per_word - 1"),
    ((1, 2), "word.word_select(count, group_bits)", "word.word_select(~count, group_bits)"),
    ((3, 2), "ends & (left == 1)", "ends"),
    ((3, 4), "left.eq(self.groups)", "left.eq(self.groups_per_tile)"),
])
def test_row_queue_catches_planted_bug(shape, old, new):
    with disproved():
        row_queue(planted("array.rows", old, new), *shape, 8)


@pytest.mark.parametrize("shape, old, new", [
    ((2, 2), "word_select(lane * batch + slot, bits)", "word_select(lane * batch + (batch - 1 - slot), bits)"),
    ((3, 2), "word_select(lane * batch + slot, bits)", "word_select(slot * self._lanes + lane, bits)"),
    ((2, 2), "self.tile[slot * self._rows + row][:bits]", "self.tile[row][:bits]"),
])
def test_row_queue_catches_mixed_slots(shape, old, new):
    with disproved():
        row_queue(planted("array.rows", old, new), *shape, 8, 2)


def array_credit(control, rows_, lanes, batch=1, slow=False):
    """`credit` is the room of the row queue less what is on its way: never negative, and the queue takes every row.

    Products of any shape, tiles and the consumer of the rows in any cycle; by induction.
    """
    config = replace(PRESETS["lanes10"], rows=rows_, lanes=lanes, columns=5 * lanes, strip=lcm(rows_, lanes),
                     batch=batch, row_words=8, activation_words=4, memory_bytes=256, port_bytes=16, tree_rows=0,
                     **({"clock_hz": SLOW_HZ} if slow else {}))
    proof = Proof()
    m = proof.m
    module = planted("array.array")
    module.RowQueue, module.Control = planted("array.rows").RowQueue, control.Control
    dut = module.TernaryArray(config)
    inside = proof.add(dut)
    product = dut.command.payload
    proof.assume((product.rows != 0) & (product.rows < 1 << len(inside["control.left"])))
    proof.assume((product.chunks != 0) & (product.chunks <= config.activation_words))
    running, chunk, chunks, left = (inside[f"control.{name}"] for name in ("running", "chunk", "chunks", "left"))
    credit, phase = inside["control.credit"], inside["control.phase"]
    proof.implies("chunk", running, chunk < chunks + slow)
    proof.implies("rows_left", running, left != 0)
    proof.implies("next_product", inside["control.waiting"],
                  (inside["control.next_chunks"] != 0) & (inside["control.next_rows"] != 0))
    proof.implies("between_products", ~running, chunk == 0)
    stages = []
    while True:
        try:
            stages.append(inside[f"finish_late{len(stages)}"])
        except KeyError:
            break
    assert len(stages) >= (2 if slow else 4)
    level, depth = inside["queue.fifo.level"], config.row_words
    proof.claim("level", level == inside["queue.fifo.inner_level"] + inside["queue.fifo.r_rdy"])
    proof.claim("in_range", credit <= depth)
    proof.implies("queue_has_room", inside["queue.fifo.w_en"], inside["queue.fifo.w_rdy"])

    group = gcd(rows_, lanes)
    per_tile, per_word = rows_ // group, lanes // group
    if slow:
        proof.implies("room", inside["control.room"], credit >= -(-per_tile // per_word))

    def modulo(value):
        return value[:(per_word - 1).bit_length()] if per_word > 1 else Const(0)

    # The tile that enters brings the rows that its product has left, but not more than a tile has.
    groups = Signal(range(per_tile + 1))
    m.d.comb += groups.eq(Mux(left < rows_, (left + (group - 1)) // group, per_tile))
    proof.implies("size", stages[0][0], stages[0][2:] == proof.past(groups))

    def begun(before, added):
        """Words that `added` groups begin where a word has `before` already."""
        return (before + added + (per_word - 1)) // per_word - (before != 0)

    # What was found ahead of the tile and the chunk that enter.
    proof.implies("first_chunk", running, inside["control.first_chunk"] == (chunk == 0))
    proof.implies("last_chunk", running, inside["control.last_chunk"] == (chunk == chunks - (0 if slow else 1)))
    proof.implies("last_tile", running, inside["control.last_tile"] == (left <= rows_))
    proof.implies("groups", running, inside["control.groups"] == groups)
    proof.implies("need", running, inside["control.need"] == begun(phase, groups))
    proof.implies("phase_at_rest", ~running, phase == 0)

    # From the queue to the tile that enters: the words that are still to come and the groups in the last one.
    push = count = held = Const(0)
    expected = Const(0)
    if per_word > 1:
        push, count = inside["queue.push"], inside["queue.count"]
        expected = count
        proof.implies("push_empties", push, count == 0)
    if per_tile > 1:
        held = inside["queue.left"]
        proof.claim("held_in_range", held <= per_tile)
        expected = Mux((held != 0) & inside["queue.ends"], 0, modulo(count + held))
    words = push + (count + held + (per_word - 1)) // per_word
    for k, stage in reversed(list(enumerate(stages))):
        valid, last, size = stage[0], stage[1], stage[2:]
        proof.implies(f"groups_{k}", valid, (size != 0) & Mux(last, size <= per_tile, size == per_tile))
        before = Signal(range(per_word + 1), name=f"before_{k}")
        m.d.comb += before.eq(expected)
        words += Mux(valid, begun(before, size), 0)
        expected = Mux(valid, Mux(last, 0, modulo(before + size)), before)
        if per_tile > 1:
            proof.implies(f"distance_{k}", valid, inside["control.gap"] + k >= per_tile - 1)
            for young in range(max(0, k - per_tile + 1), k):
                proof.claim(f"distance_{young}_{k}", ~(valid & stages[young][0]))
            proof.implies(f"register_free_{k}", valid, held <= len(stages) - k)
    proof.claim("phase", phase == expected)
    proof.claim("conserved", credit + level + words + Mux(chunk != 0, begun(phase, groups), 0) == depth)
    # The three things that may be under way: a running product, one behind it, and no third.
    taken, done = dut.command.valid & dut.command.ready, dut.done
    products = Signal(2)
    m.d.sync += products.eq(products + taken - done)
    proof.claim("two_products", products == running + inside["control.waiting"])
    proof.check(3, induction=True)


@pytest.mark.parametrize("rows_, lanes, batch", [*SHAPES, (3, 2, 2)])
def test_array_credit(rows_, lanes, batch):
    array_credit(planted("array.control"), rows_, lanes, batch)


@pytest.mark.parametrize("rows_, lanes", [(1, 2), *further((2, 1), (3, 2))])
def test_credit_of_a_slow_array(rows_, lanes):
    array_credit(planted("array.control"), rows_, lanes, slow=True)


def test_credit_of_a_slow_array_catches_planted_bug():
    with disproved(match="room"):
        array_credit(planted("array.control", "credit >= 2 * most", "credit >= 2 * most - 1"), 2, 1, slow=True)


@pytest.mark.parametrize("shape, old, new", [
    ((4, 2), "(first_chunk & short) | (last_chunk & (gap != 0))", "first_chunk & short"),
    ((2, 2), "(first_chunk & short)", "(first_chunk & short & (credit + 1 < need))"),
    ((1, 4), "table.word_select(phase * (per_tile + 1) + kept, len(need))", "(phase == 1)"),
    ((3, 2), "(queue.group_rows - 1)) // queue.group_rows", "(rows - 1)) // rows"),
    ((3, 4), "Mux(last_tile, 0, phase_after)", "phase_after"),
    ((2, 2), "self.command.ready.eq(~waiting)", "self.command.ready.eq(~waiting | self.done)"),
])
def test_array_credit_catches_planted_bug(shape, old, new):
    with disproved():
        array_credit(planted("array.control", old, new), *shape)


def packer_bytes(module, lanes, port):
    """Memory words hold the numbers in order, each with a zero byte above, the last word filled with zeros.

    By induction.
    """
    proof = Proof()
    dut = module.Packer(lanes, port)
    inside = proof.add(dut)
    beat = Cat(*(Cat(Value.cast(dut.beat[lane]), Signal(8, name=f"zero_{lane}")) for lane in range(lanes)))
    taken = dut.valid & dut.ready
    stalled = proof.past(dut.valid & ~dut.ready)
    same = Cat(beat, dut.last)
    proof.assume(~stalled | (dut.valid & (same == proof.past(same))))
    size, index = 4 * lanes, None if 4 * lanes > port else inside["index"]
    item = Tracked(proof, "byte", (size + 2 * port).bit_length() + 1, 8)
    rest = 0 if index is None else Mux(dut.last, port - index * size, size)
    item.enter(taken, beat, size, count=size if index is None else rest[:len(item.number)])
    item.leave(dut.words.valid & dut.words.ready, dut.words.payload, port, offered=dut.words.valid)
    if index is None:
        held, left = inside["rest"], inside["left"]
        proof.claim("count", (item.count == left * port) & (left <= size // port))
        proof.implies("kept", item.inside, held.word_select(item.ahead[:(size - 1).bit_length()], 8) == item.value)
    else:
        proof.claim("index", (index < port // size) & (~dut.words.valid | (index == 0)))
        proof.claim("count", item.count == Mux(dut.words.valid, port, index * size))
        proof.implies("kept", item.inside,
                      dut.words.payload.word_select(item.ahead[:(port - 1).bit_length()], 8) == item.value)
        filled = (dut.words.payload >> (index * size << 3)) == 0
        proof.implies("zeros_above", ~dut.words.valid & (index != 0), filled)
    proof.implies("never_waits", (item.count == 0) & ~dut.words.valid, dut.ready)
    proof.offers_well(words=dut.words)
    proof.check(2, induction=True)


@pytest.mark.parametrize("lanes, port", [(2, 2), (1, 8), *further((1, 4), (2, 16))])
def test_packer(lanes, port):
    packer_bytes(store, lanes, port)


@pytest.mark.parametrize("shape, old, new", [
    ((2, 2), "(left == 1) & words.ready", "(left == 1)"),
    ((1, 8), "with m.If(index == 0):", "with m.If(index == 1):"),
    ((1, 8), "m.d.comb += self.ready.eq(~words.valid | words.ready)", "m.d.comb += self.ready.eq(1)"),
])
def test_packer_catches_planted_bug(shape, old, new):
    with disproved():
        packer_bytes(planted("vector.store", old, new), *shape)


def unpacker_bytes(module, lanes, port, size):
    """Beats hold the bytes of a section in order, and the section takes the words that it needs and no other.

    `size` is the bytes of a number, which stays; a section ends with any beat. Bounded to 10 cycles.
    """
    proof = Proof()
    m = proof.m
    dut = module.Unpacker(lanes, port)
    proof.add(dut, driven=["bytes"])
    m.d.comb += dut.bytes.eq(size == 1)
    beat_bytes = size * lanes
    proof.offered_well(dut.words)
    proof.assume(~dut.take | (dut.valid & dut.active))
    word = dut.words.valid & dut.words.ready
    bits = (port + 2 * beat_bytes).bit_length() + 2
    used = Signal(bits)       # bytes of the section in beats, modulo a word or a beat, whichever is longer
    span = max(port, beat_bytes)
    gone = Signal(bits)       # bytes of the section in words that have left
    collected = Signal(8 * span)  # those words
    now = used + beat_bytes   # the beat ends here
    ends = dut.take & (dut.last | (now == span))
    with m.If(word):
        m.d.sync += [collected.word_select(gone[:(span - 1).bit_length()] >> (port - 1).bit_length(), 8 * port)
                     .eq(dut.words.payload), gone.eq(gone + port)]
    with m.If(dut.take):
        m.d.sync += used.eq(now)
    with m.If(ends):
        m.d.sync += [used.eq(0), gone.eq(0)]
    # The word that the next byte belongs to is at the input, or those before it have been taken.
    content = Signal(8 * span)
    m.d.comb += content.eq(collected)
    with m.If(gone < span):
        m.d.comb += content.word_select(gone[:(span - 1).bit_length()] >> (port - 1).bit_length(), 8 * port).eq(
            dut.words.payload)
    number = Cat(*(Value.cast(dut.beat[lane])[:8 * min(size, 3)] for lane in range(lanes)))
    wanted = content.word_select(used[:(span - 1).bit_length()] >> (beat_bytes - 1).bit_length(), 8 * beat_bytes)
    wanted = Cat(*(wanted[8 * size * lane:8 * size * lane + 8 * min(size, 3)] for lane in range(lanes)))
    proof.implies("beat", dut.take, number == wanted)
    proof.implies("takes_no_word_too_many", word, dut.active & (gone < now))
    proof.implies("takes_all_words", ends, (gone + Mux(word, port, 0) >= now) & (gone + Mux(word, port, 0)
                                                                                < now + port))
    proof.check(10)


@pytest.mark.parametrize("lanes, port, size", [
    (1, 2, 4), (2, 8, 4), (2, 8, 1), *further((2, 2, 4), (1, 2, 1), (2, 4, 1))])
def test_unpacker(lanes, port, size):
    unpacker_bytes(operands, lanes, port, size)


@pytest.mark.parametrize("shape, old, new", [
    ((2, 8, 1), "self.words.ready.eq(end | self.last)", "self.words.ready.eq(end)"),
    ((1, 2, 4), "with m.If(self.active & self.words.valid & ~complete):",
     "with m.If(self.words.valid & ~complete):"),
    ((2, 2, 4), "m.d.sync += have.eq(0)", "m.d.sync += have.eq(1)"),
])
def test_unpacker_catches_planted_bug(shape, old, new):
    with disproved():
        unpacker_bytes(planted("vector.operands", old, new), *shape)
