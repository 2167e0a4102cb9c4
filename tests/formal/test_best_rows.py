"""The list of the best rows holds the best rows, in order: by induction, for any keys, k and starts."""


import pytest
from amaranth.hdl import Array, Cat, Const, Mux, Signal
from prove import AnyMemory, Proof, disproved, planted, stub

pytestmark = pytest.mark.formal
ROW_BITS = 5


def best_rows(module, depth):
    """At rest the list is sorted, the earlier row first of equal keys, and any row that is not in it has a full list
    of rows before it. So it is the k best rows. Claims about the middle of an insertion make the induction close.
    """
    proof = Proof()
    m = proof.m
    AnyMemory.made = []
    module.Memory, module._Elements, module.Choice = AnyMemory, stub(module._Elements), stub(module.Choice)
    dut = module.TopList(1, ROW_BITS, depth, 1)
    inside = proof.add(dut)
    elements, choice, memory = module._Elements.made, module.Choice.made, AnyMemory.made[0]
    proof.release(elements.valid, elements.key, elements.score, elements.pending, choice.address, choice.done,
                  choice.best, memory.read.data.as_value())
    bottom, full, limit, hole, inserts, row, worst, settled, loaded, above, new, valid, key, free = (
        inside[name] for name in ("bottom", "full", "limit", "hole", "inserts", "element_row", "worst", "settled",
                                  "loaded", "above", "new", "element_valid", "element_key", "free"))
    active = inside["active"]
    proof.assume(active | ~elements.valid)
    proof.assume(~row.all())  # fewer rows than a row's number has values

    # The memory's contents, and what is read: anything where it is written in the same cycle.
    width = len(Cat(memory.read.data.as_value()))
    entries = [Signal(width, name=f"entry_{place}") for place in range(depth)]
    for place, entry in enumerate(entries):
        with m.If(memory.write.en & (memory.write.addr == place)):
            m.d.sync += entry.eq(memory.write.data.as_value())
    at = memory.read.addr
    given = Signal(width)
    m.d.comb += given.eq(Array(entries)[at])
    clash = (memory.write.en & (memory.write.addr == at)) | (at >= depth)
    read = memory.read.data.as_value()
    proof.assume(~proof.started | proof.past(clash) | (read == proof.past(given)))

    def key_of(entry):
        return entry[:24]

    def row_of(entry):
        return entry[48:]

    def before(one, other):
        return (key_of(one) > key_of(other)) | ((key_of(one) == key_of(other)) & (row_of(one) < row_of(other)))

    new, above = (signal[:width] for signal in (new, above))
    count = Signal(range(depth + 2))
    m.d.comb += count.eq(bottom + full)
    held = [Mux(inserts, (bottom >= place) & (hole != place), count > place) for place in range(depth)]

    proof.implies("limits", active, (limit < depth) & (bottom <= limit) & (~full | (bottom == limit)))
    proof.implies("off", ~active, ~(bottom.any() | full | inserts | valid))
    for place, entry in enumerate(entries):
        proof.implies(f"row_{place}", held[place], row_of(entry) < Mux(inserts, row_of(new), row))
        proof.implies(f"worst_{place}", (limit == place) & Mux(inserts, (hole < place) & (bottom == place), full),
                      worst == key_of(entry))
        for later in range(place + 1, depth):
            proof.implies(f"sorted_{place}_{later}", held[place] & held[later], before(entry, entries[later]))
        # The middle of an insertion, and what it finds when it begins.
        proof.implies(f"below_{place}", inserts & held[place] & (hole < place), key_of(entry) < key_of(new))
        proof.implies(f"above_{place}", Mux(inserts, hole, bottom) == place + 1, (above == entry)
                      | ~(inserts | (settled & loaded)))
        proof.implies(f"next_{place}", Mux(inserts, hole, bottom) == place + 2, (read == entry)
                      | ~(inserts | (settled & loaded)))
        proof.implies(f"first_{place}", ~inserts & settled & ~loaded & (bottom == place + 1), read == entry)
        proof.implies(f"dropped_{place}", inserts & full & (hole == place) & (limit == place),
                      (worst == key_of(entry)) & (key_of(new) > worst))
    proof.implies("hole", inserts, (hole <= bottom) & (row_of(new) + 1 == row))

    # Any row: in the list, on its way into it, or behind a full one.
    tracked = proof.constant(ROW_BITS, "tracked")
    seen, its_key = Signal(), Signal(24)
    with m.If(free & valid & (row == tracked)):
        m.d.sync += [seen.eq(1), its_key.eq(key)]
    with m.If(dut.start):
        m.d.sync += seen.eq(0)
    mine = Cat(its_key, tracked)
    found = Const(0, 1)
    for place, entry in enumerate(entries):
        found = found | (held[place] & (Cat(key_of(entry), row_of(entry)) == mine))
    found = found | (inserts & (Cat(key_of(new), row_of(new)) == mine))
    proof.claim("seen", seen == (row > tracked))
    proof.implies("best", seen, found | (full & (worst >= its_key)))
    proof.check(3, induction=True)


@pytest.mark.parametrize("depth", [1, 2, 3, pytest.param(4, marks=pytest.mark.rest)])
def test_best_rows(depth):
    best_rows(planted("vector.toplist"), depth)


@pytest.mark.parametrize("depth, old, new", [
    (2, "above.key < new.key", "above.key <= new.key"),
    (2, "element_key > worst", "element_key >= worst"),
    (2, "bottom - 2, bottom - 1", "bottom - 2, bottom"),
    (3, "inserts.eq(0), element_row", "element_row"),
    (2, "free.eq(~inserts & settled)", "free.eq(~inserts)"),
    (3, "self.k > self.depth, self.depth, self.k", "0, self.depth, self.k"),
])
def test_best_rows_catches_planted_bug(depth, old, new):
    with disproved():
        best_rows(planted("vector.toplist", old, new), depth)
