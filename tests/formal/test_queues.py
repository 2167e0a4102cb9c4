"""Proofs about the row queue with the array's credits, and about packing and unpacking of memory words."""

from dataclasses import replace

import pytest
from amaranth.hdl import Cat, Mux, Signal, Value
from prove import Disproved, Proof, planted
from sterna.hw.array import array, rows
from sterna.hw.config import PRESETS
from sterna.hw.vector import operands, store
from tracked import Tracked, claim_fifo

pytestmark = pytest.mark.formal
BITS = 3  # of a row sum: what the queue does not look at


def row_queue(module, rows_, lanes, depth):
    """Rows leave in the order in which tiles bring them, and a matrix ends with a whole word.

    The producer leaves R / V cycles between tiles and owns a credit for each word. By induction.
    """
    proof = Proof()
    m = proof.m
    dut = module.RowQueue(rows=rows_, lanes=lanes, depth=depth, bits=BITS)
    inside = proof.add(dut)
    tile = Cat(*(Value.cast(dut.tile[row])[:BITS] for row in range(rows_)))
    shown = Cat(*(Value.cast(dut.rows.payload[lane])[:BITS] for lane in range(lanes)))
    takes = dut.rows.valid & dut.rows.ready
    item = Tracked(proof, "row", (lanes * (depth + 2) + rows_).bit_length() + 1, BITS)
    words = Tracked(proof, "word", depth.bit_length() + 1, lanes * BITS)  # between the register and the way out
    words.leave(takes, shown, offered=dut.rows.valid)
    claim_fifo(proof, inside, words, "fifo")
    push = inside["fifo.w_en"]
    words.enter(push, inside["fifo.w_data"])
    proof.implies("room", push, inside["fifo.w_rdy"])
    held = inside["held"]
    if rows_ >= lanes:
        per_tile = rows_ // lanes
        left = inside["left"]
        count = dut.tile_words
        proof.assume(~dut.tile_valid | ((count >= 1) & (count <= per_tile) & (left <= 1)))
        item.enter(dut.tile_valid, tile, rows_, count=count * lanes)
        proof.assume(~dut.tile_valid | (words.count + left + count <= depth))
        proof.claim("left_in_range", left <= per_tile)
        proof.claim("credit", words.count + left <= depth)
        in_register = left * lanes
        # The register's rows are the youngest.
        proof.claim("count", item.count == words.count * lanes + in_register)
        young = item.inside & (item.ahead >= words.count * lanes)
        proof.implies("kept", young, held.word_select((item.ahead - words.count * lanes)[:4], BITS) == item.value)
    else:
        tiles = lanes // rows_
        number = inside["count"]
        filled = Signal(range(lanes + 1))  # rows in the register, those behind the end of a matrix included
        proof.assume(~dut.tile_valid | (words.count + 1 + push <= depth))
        ends = dut.tile_valid & (dut.last | (number == tiles - 1))
        item.enter(dut.tile_valid, tile, rows_, count=Mux(ends, lanes - (number * rows_), rows_))
        proof.claim("number_in_range", number < tiles)
        proof.claim("push_empties", ~inside["push"] | (number == 0))
        m.d.comb += filled.eq(Mux(inside["push"], lanes, number * rows_))
        proof.claim("credit", words.count + inside["push"] <= depth)
        proof.claim("count", item.count == words.count * lanes + filled)
        place = (item.ahead - words.count * lanes)[:4]
        young = item.inside & (item.ahead >= words.count * lanes)
        padding = Signal(range(lanes + 1))  # rows of the register's word that mean something
        with m.If(dut.tile_valid):
            m.d.sync += padding.eq(number * rows_ + rows_)
        proof.implies("padding", (number != 0), padding == number * rows_)
        proof.implies("kept", young & (place < padding),
                      held.word_select(place, BITS) == item.value)
    # What a row is within the FIFO: lane `row mod V` of word `row / V`. The tracked word is the tracked row's.
    item.proof.m.d.sync += item.left.eq(item.left + Mux(takes, lanes, 0))
    proof.claim("whole_words", (item.left & (lanes - 1)) == 0)
    proof.assume(words.number == (item.number >> (lanes - 1).bit_length())[:len(words.number)])
    proof.claim("in_step", words.left == (item.left >> (lanes - 1).bit_length())[:len(words.number)])
    lane = item.number[:max(1, (lanes - 1).bit_length())] if lanes > 1 else 0
    real = Signal()  # the tracked row is one of the matrix
    index = (item.number - item.entered)[:len(item.number)]
    with m.If(dut.tile_valid & (index < lanes + rows_)):
        with m.If(index < (dut.tile_words * lanes if rows_ >= lanes else rows_)):
            m.d.sync += real.eq(1)
        with m.Elif(index < (lanes if rows_ < lanes else 0)):
            m.d.sync += real.eq(0)
    proof.implies("in_its_word", item.inside & words.inside & real,
                  words.value.word_select(lane, BITS) == item.value)
    if rows_ < lanes:
        proof.implies("real_place", young & real, place < padding)
    proof.offers_well(rows=dut.rows)
    proof.check(3, induction=True)


@pytest.mark.parametrize("rows_, lanes", [(4, 2), (2, 2), (1, 2), (1, 4)])
def test_row_queue(rows_, lanes):
    row_queue(rows, rows_, lanes, 8)


@pytest.mark.parametrize("shape, old, new", [
    ((4, 2), "held.eq(held >> (bits * self._lanes))", "held.eq(held)"),
    ((1, 4), "full = (count == tiles - 1) | self.last", "full = count == tiles - 1"),
    ((1, 2), "held.word_select(k, bits * self._rows)", "held.word_select(tiles - 1 - k, bits * self._rows)"),
])
def test_row_queue_catches_planted_bug(shape, old, new):
    with pytest.raises(Disproved):
        row_queue(planted("array.rows", old, new), *shape, 8)


def array_credit(module, rows_, lanes):
    """`credit` is the room of the row queue less what is on its way: never negative, and the queue takes every row.

    Products of any shape, tiles and the consumer of the rows in any cycle; by induction.
    """
    config = replace(PRESETS["lanes10"], rows=rows_, lanes=lanes, columns=5 * lanes, strip=max(rows_, lanes),
                     row_words=8, activation_words=4, memory_bytes=64)
    proof = Proof()
    m = proof.m
    dut = module.TernaryArray(config)
    inside = proof.add(dut)
    product = dut.command.payload
    proof.assume((product.rows != 0) & (product.rows < 1 << len(inside["left"])))
    proof.assume((product.chunks != 0) & (product.chunks <= config.activation_words))
    running, chunk, chunks, left = (inside[name] for name in ("running", "chunk", "chunks", "left"))
    credit, enter, last_tile = (inside[name] for name in ("credit", "enter", "last_tile"))
    proof.implies("chunk", running, chunk < chunks)
    proof.implies("rows_left", running, left != 0)
    proof.implies("next_product", inside["waiting"], (inside["next_chunks"] != 0) & (inside["next_rows"] != 0))
    proof.implies("between_products", ~running, chunk == 0)
    stages = []
    while True:
        try:
            stages.append(inside[f"finish_delay{len(stages)}"])
        except KeyError:
            break
    assert len(stages) >= 4
    level, depth = inside["queue.fifo.level"], config.row_words
    proof.claim("level", level == inside["queue.fifo.inner_level"] + inside["queue.fifo.r_rdy"])
    proof.claim("in_range", credit <= depth)
    proof.implies("queue_has_room", inside["queue.fifo.w_en"], inside["queue.fifo.w_rdy"])
    if rows_ >= lanes:
        per_tile = rows_ // lanes
        in_register = inside["queue.left"]
        words = sum((Mux(stage[0], stage[2:], 0) for stage in stages), start=in_register)
        proof.claim("conserved", credit + level + words + Mux(chunk != 0, inside["take_words"], 0) == depth)
        for k, stage in enumerate(stages):
            proof.implies(f"words_{k}", stage[0], (stage[2:] != 0) & (stage[2:] <= per_tile))
            proof.implies(f"distance_{k}", stage[0], inside["gap"] + k >= per_tile - 1)
            for young in range(max(0, k - per_tile + 1), k):
                proof.claim(f"distance_{young}_{k}", ~(stage[0] & stages[young][0]))
            proof.implies(f"register_free_{k}", stage[0], in_register <= len(stages) - k)
    else:
        tiles = lanes // rows_
        phase, number = inside["phase"], inside["queue.count"]
        issued = enter & (chunk == chunks - 1)
        marks = []  # what each stage of the pipeline holds: the phase of its tile, and whether it ends a word
        value = Cat(phase, last_tile | (phase == tiles - 1))
        for k in range(len(stages)):
            mark = Signal(len(value), name=f"mark_{k}")
            m.d.sync += mark.eq(value)
            value = mark
            marks.append((mark[:-1], mark[-1]))
        words = sum((stage[0] & mark[1] for stage, mark in zip(stages, marks, strict=True)),
                    start=inside["queue.push"])
        claimed = (phase != 0) | (chunk != 0)
        proof.claim("conserved", credit + level + words + claimed == depth)
        proof.claim("phase_in_range", phase < tiles)
        expected = number
        for stage, (tile_phase, ends) in reversed(list(zip(stages, marks, strict=True))):
            proof.implies(f"phase_{len(marks)}_{stage.name}", stage[0],
                          (tile_phase == expected) & (ends == (stage[1] | (tile_phase == tiles - 1))))
            after = Signal(range(tiles + 1), name=f"after_{stage.name}")
            m.d.comb += after.eq(Mux(stage[0], Mux(ends, 0, tile_phase + 1), expected))
            expected = after
        proof.claim("phase", phase == expected)
        proof.implies("issued", issued, phase == expected)
    # The three things that may be under way: a running product, one behind it, and no third.
    taken, done = dut.command.valid & dut.command.ready, dut.done
    products = Signal(2)
    m.d.sync += products.eq(products + taken - done)
    proof.claim("two_products", products == running + inside["waiting"])
    proof.check(3, induction=True)


@pytest.mark.parametrize("rows_, lanes", [(4, 2), (2, 2), (1, 2), (1, 4)])
def test_array_credit(rows_, lanes):
    array_credit(array, rows_, lanes)


@pytest.mark.parametrize("shape, old, new", [
    ((4, 2), "(first_chunk & (credit < need)) | (last_chunk & (gap != 0))", "first_chunk & (credit < need)"),
    ((2, 2), "(first_chunk & (credit < need))", "(first_chunk & (credit + 1 < need))"),
    ((1, 4), "need.eq(phase == 0)", "need.eq(phase == 1)"),
    ((2, 2), "self.command.ready.eq(~waiting)", "self.command.ready.eq(~waiting | self.done)"),
])
def test_array_credit_catches_planted_bug(shape, old, new):
    with pytest.raises(Disproved):
        array_credit(planted("array.array", old, new), *shape)


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


@pytest.mark.parametrize("lanes, port", [(2, 2), (1, 4), (1, 8), (2, 16)])
def test_packer(lanes, port):
    packer_bytes(store, lanes, port)


@pytest.mark.parametrize("shape, old, new", [
    ((2, 2), "(left == 1) & words.ready", "(left == 1)"),
    ((1, 8), "with m.If(index == 0):", "with m.If(index == 1):"),
    ((1, 8), "m.d.comb += self.ready.eq(~words.valid | words.ready)", "m.d.comb += self.ready.eq(1)"),
])
def test_packer_catches_planted_bug(shape, old, new):
    with pytest.raises(Disproved):
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


@pytest.mark.parametrize("lanes, port, size", [(1, 2, 4), (2, 2, 4), (1, 2, 1), (2, 8, 4), (2, 8, 1), (2, 4, 1)])
def test_unpacker(lanes, port, size):
    unpacker_bytes(operands, lanes, port, size)


@pytest.mark.parametrize("shape, old, new", [
    ((2, 8, 1), "self.words.ready.eq(end | self.last)", "self.words.ready.eq(end)"),
    ((1, 2, 4), "with m.If(self.active & self.words.valid & ~complete):",
     "with m.If(self.words.valid & ~complete):"),
    ((2, 2, 4), "m.d.sync += have.eq(0)", "m.d.sync += have.eq(1)"),
])
def test_unpacker_catches_planted_bug(shape, old, new):
    with pytest.raises(Disproved):
        unpacker_bytes(planted("vector.operands", old, new), *shape)
