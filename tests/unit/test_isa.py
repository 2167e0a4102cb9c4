"""Encodings, the text form, and the dependency analysis of the assembler."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.firmware import isa
from sterna.firmware.assembler import Assembler, AssemblerError, parse
from sterna.firmware.disassembler import disassemble

LANES = 8


def vectors(draw, one, is_c):
    address = draw(st.integers(0, 2047 if one and is_c else 16383))
    return {"plus": draw(st.booleans()), "mod": False if one and is_c else draw(st.booleans()),
            "rotate": draw(st.sampled_from((0, 1, 2, 4))) if one and is_c else 0}, address


@st.composite
def vops(draw):
    one, table = draw(st.booleans()), draw(st.sampled_from(isa.TABLES))

    def source(name):
        kind = draw(st.integers(0, {"a": 7, "b": 3, "c": 4}[name]))
        if kind < 3:
            flags, address = vectors(draw, one, name == "c")
            return isa.bank(kind, address, **flags)
        return isa.scalar(draw(st.integers(0, 31))) if kind == 3 else isa.Operand(kind)

    plain = not 1 <= isa.TABLE[table] <= 5
    sources = [source("a")] + ([source("b"), source("c")] if plain else [isa.ONE, isa.ZERO])
    kind = draw(st.integers(0, 7))
    if kind in (isa.D_VECTOR, isa.D_LIST):
        flags, address = vectors(draw, False, False)
        flags.pop("rotate")
        d = (isa.to_banks if kind == isa.D_VECTOR else isa.to_list)(draw(st.integers(1, 7)), address, **flags)
    else:
        d = isa.to_scalar(draw(st.integers(2, 31))) if kind == isa.D_SCALAR else isa.Operand(kind)
    options = {"one": one, "table": table, "wait": draw(st.booleans())}
    if plain:
        options |= {"negp": draw(st.booleans()), "negc": draw(st.booleans())}
    peak = draw(st.sampled_from([None, "maximum", "minimum"]))
    if peak:
        options[peak] = draw(st.integers(0, 31))
    return d, sources, options


@st.composite
def programs(draw):
    asm, begun = Assembler(LANES), None
    for _ in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            d, sources, options = draw(vops())
            try:
                asm.vop(d, *sources, **options)
            except AssemblerError as error:
                assert "reads bank" in str(error) or begun is not None and "in a slot loop" in str(error)
                asm.emit(isa.WAITM)
            continue
        if draw(st.booleans()):
            begun = slot(asm, begun, draw)
        else:
            opcode = draw(st.sampled_from([o for o in isa.FIELDS if o not in (isa.VOP, isa.SLOT)]))
            limits = {name: (1 << width) - 1 for name, (_, width) in isa.FIELDS[opcode].items()} | {"target": 0}
            fields = {name: draw(st.integers(0, limits[name])) for name in isa.FIELDS[opcode]}
            if begun is None or not isa.is_walk(opcode, fields):
                asm.emit(opcode, **fields)
    if begun is not None:
        slot(asm, begun, draw)
    return asm.words(auto_wait=False)


def slot(asm, begun, draw):
    """Begins a slot loop, or ends the one that begins in instruction ``begun``; returns what is open then."""
    if begun is not None:
        return asm.emit(isa.SLOT, again=1, target=begun + 1)
    asm.emit(isa.SLOT, which=draw(st.integers(0, 3)), prior=draw(st.integers(0, 1)))
    return len(asm) - 1


@given(programs())
def test_text_round_trip(words):
    text = disassemble(words)
    assert len(text.splitlines()) == len(words)
    assert parse(text, LANES).words(auto_wait=False) == words


def test_fields_do_not_overlap():
    for opcode, fields in isa.FIELDS.items():
        taken = 0b1111
        for name, (lsb, width) in fields.items():
            mask = (1 << width) - 1 << lsb
            assert not taken & mask and lsb + width <= isa.INSTRUCTION_BITS, (opcode, name)
            taken |= mask


def test_encoding_of_the_document():
    assert isa.encode(isa.SETA, areg=2, value=0x12345678) == 3 | 2 << 4 | 0x12345678 << 32
    assert isa.encode(isa.FETCH, areg=1, words=300) == 2 | 1 << 4 | 300 << 32  # linear: as without walks
    assert isa.encode(isa.FETCH, areg=1, kind=isa.KIND_GATHER, trees=9, levels=4, always=3, words=52) \
        == 2 | 1 << 4 | 2 << 6 | 9 << 8 | 4 << 20 | 52 << 32 | 3 << 64
    assert isa.encode(isa.WALK, buffer=1, out=1, rows=39, chunks=35, length=2048) \
        == 14 | 1 << 4 | 1 << 5 | 39 << 32 | 35 << 64 | 2048 << 80
    asm = Assembler(4)
    asm.vop(isa.to_banks(0b101, 7, plus=True), isa.ROW, isa.scalar(9), isa.bank(1, 3, mod=True), negc=True,
            maximum=20)
    assert asm.words()[0] == (1 | 1 << 7 | 1 << 11 | 20 << 13 | 4 << 18 | 3 << 21 | 1 << 23 | 1 << 26 | 5 << 29
                              | 9 << 48 | (1 << 14 | 3) << 64 | (1 << 15 | 7) << 80)
    assert isa.program_bytes([1 << 95])[11] == 0x80 and len(isa.program_bytes([0, 0])) == 32


@pytest.mark.parametrize("build, message", [
    (lambda a: a.vop(a=isa.bank(1, 4), b=isa.bank(1, 5)), "reads bank 1 at words 4 and 5"),
    (lambda a: a.vop(b=isa.bank(2, 4), c=isa.bank(2, 4, plus=True)), "reads bank 2"),
    (lambda a: a.vop(a=isa.bank(0, 16384)), "address 16384: use 0 to 16383"),
    (lambda a: a.vop(c=isa.bank(0, 2048), one=True), "address 2048: use 0 to 2047"),
    (lambda a: a.vop(d=isa.to_scalar(1)), "writes s1, which is constant"),
    (lambda a: a.vop(a=isa.scalar(32)), "use 0 to 31"),
    (lambda a: a.vop(c=isa.bank(0, 0, rotate=1)), "rotate 1"),
    (lambda a: a.vop(c=isa.bank(0, 0, rotate=3), one=True), "rotate 3: only c of a one-element operation, a power"),
    (lambda a: a.vop(a=isa.ROW, table="RECIP", negp=True), "table RECIP"),
    (lambda a: a.emit(isa.FETCH, areg=4), "FETCH areg 4: use 0 to 3"),
    (lambda a: a.emit(isa.FETCH, kind=isa.KIND_WALK, trees=4096), "FETCH trees 4096: use 0 to 4095"),
    (lambda a: a.emit(isa.FETCH, kind=isa.KIND_WALK, levels=32), "FETCH levels 32: use 0 to 31"),
    (lambda a: a.emit(isa.WALK, length=1 << 16), "WALK length 65536: use 0 to 65535"),
    (lambda a: [a.emit(isa.SLOT), a.emit(isa.WALK)], "instruction 1: WALK of a walk in a slot loop"),
    (lambda a: [a.emit(isa.SLOT), a.emit(isa.FETCH, kind=isa.KIND_GATHER)], "FETCH of a walk in a slot loop"),
    (lambda a: a.emit(isa.STRIP, elements=1 << 24), "use 0 to 16777215"),
    (lambda a: (a.emit(isa.JUMP, target="x"), a.words()), "label 'x' is not defined"),
    (lambda a: [a.emit(isa.SLOT), a.emit(isa.SLOT)], "SLOT in the slot loop of instruction 0"),
    (lambda a: a.emit(isa.SLOT, target=3), "begins a loop, which takes no target"),
    (lambda a: a.emit(isa.SLOT, again=1), "ends no slot loop"),
    (lambda a: [a.emit(isa.SLOT), a.emit(isa.SLOT, again=1, which=2, target=1)], "prior belong to its begin"),
    (lambda a: [a.emit(isa.SLOT), a.emit(isa.SLOT, again=1, target=0), a.words()], "which is 1"),
    (lambda a: [a.emit(isa.SLOT), a.words()], "the slot loop of instruction 0 has no end"),
    (lambda a: [a.emit(isa.SLOT), a.vop(a=isa.ROW)], "in a slot loop has operand ROW"),
    (lambda a: [a.emit(isa.SLOT), a.vop(a=isa.RANDOM)], "in a slot loop has operand RANDOM"),
    (lambda a: [a.emit(isa.SLOT), a.vop(c=isa.RANDOM_LN2)], "in a slot loop has operand RANDOM"),
    (lambda a: [a.emit(isa.SLOT), a.vop(isa.to_activation(1))], "in a slot loop has destination ACTIVATION"),
    (lambda a: [a.emit(isa.SLOT), a.vop(isa.TO_SAMPLE)], "in a slot loop has destination SAMPLE"),
    (lambda a: [a.emit(isa.SLOT), a.vop(isa.to_list(1, 0))], "in a slot loop has destination LIST"),
    (lambda a: [a.emit(isa.SLOT), a.vop(maximum=9)], "in a slot loop has a peak"),
    (lambda a: a.vop(isa.to_list(0, 3)), "writes a vector to no bank"),
    (lambda a: ([a.emit(isa.WAITM) for _ in range(5)], a.words()), "program of 5 instructions: the device holds 4"),
])
def test_refusals(build, message):
    with pytest.raises(isa.IsaError, match=message):
        build(Assembler(2, program_words=4))


def test_reading_one_word_twice_is_possible():
    asm = Assembler(2)
    asm.vop(a=isa.bank(1, 4, plus=True), b=isa.bank(1, 4, plus=True), c=isa.bank(2, 4))
    assert len(asm.words()) == 1


def waits(build):
    asm = Assembler(1)
    build(asm)
    return sorted(asm.waits())


def test_wait_only_for_results_under_way():
    def straight(asm):
        x, y = isa.bank(0, 1, words=3), isa.bank(1, 0, words=4)
        asm.vop(isa.to_banks(1, 0, words=4), isa.STREAM32)    # 0 writes x
        asm.vop(isa.to_banks(2, 0, words=4), isa.STREAM32)    # 1 writes y: independent
        asm.vop(isa.to_banks(4, 0, words=4), x)               # 2 reads x in other beats: written before 2 begins
        asm.vop(isa.to_banks(1, 0, words=4), isa.STREAM32)    # 3 overwrites an operand: in order
        asm.vop(isa.to_banks(1, 3, words=4), isa.STREAM32)    # 4 overlaps the result of 3: waits
        asm.vop(isa.to_banks(4, 4, words=4), y)               # 5
        asm.vop(isa.to_banks(2, 3, words=4), isa.bank(2, 5, words=3))  # 6 reads the result of 5 in other beats: waits
    assert waits(straight) == [4, 6]


def test_peaks_and_row_counts_take_longer():
    def later(first, between, last):
        def straight(asm):
            first(asm)
            for k in range(between):
                asm.vop(isa.to_scalar(9 + k), one=True)
            last(asm)
        return waits(straight)

    def reads(asm):
        asm.vop(b=isa.scalar(5), one=True)

    for between, peak, scalar in ((0, [1], [1]), (1, [2], []), (2, [], [])):
        assert later(lambda asm: asm.vop(a=isa.STREAM32, maximum=5), between, reads) == peak
        assert later(lambda asm: asm.vop(isa.to_scalar(5), one=True), between, reads) == scalar
        assert later(lambda asm: asm.vop(isa.TO_SAMPLE), between, lambda asm: asm.vop(a=isa.RANDOM)) == peak


def test_no_wait_for_what_the_same_beat_wrote():
    def chain(asm, **flags):
        asm.vop(isa.to_banks(1, 8, words=4, **flags), isa.STREAM32)
        asm.vop(isa.to_banks(1, 8, words=4, **flags), isa.bank(0, 8, words=4, **flags))
    assert waits(chain) == []
    assert waits(lambda asm: chain(asm, plus=True)) == []
    assert waits(lambda asm: chain(asm, mod=True)) == [1]


@pytest.mark.parametrize("second, expected", [
    (lambda a: a.vop(b=isa.scalar(5), one=True), [1]), (lambda a: a.vop(b=isa.scalar(6), one=True), []),
    (lambda a: a.vop(one=True, maximum=5), [1]), (lambda a: a.vop(isa.to_scalar(5), one=True), [1])])
def test_wait_for_scalars_and_peaks(second, expected):
    assert waits(lambda a: (a.vop(isa.to_scalar(5), isa.STREAM32, one=True), second(a))) == expected
    assert waits(lambda a: (a.vop(a=isa.STREAM32, maximum=5), second(a))) == expected


def test_wait_for_codes_and_the_row_counter():
    assert waits(lambda a: [a.vop(isa.to_activation(n)) for n in (1, 0, 0, 1)]) == [2]
    assert waits(lambda a: (a.vop(isa.TO_SAMPLE), a.vop(isa.TO_SAMPLE), a.vop(a=isa.RANDOM))) == [2]


def test_wait_across_the_back_edge_of_a_loop():
    def loop(asm):
        asm.emit(isa.STRIP, elements=64, strip=16)
        asm.label("top")
        asm.vop(isa.to_banks(2, 0, words=2), isa.bank(0, 0, words=2))  # reads what the end of the loop writes
        asm.vop(isa.to_banks(1, 1, words=1), isa.STREAM32)
        asm.emit(isa.NEXT, target="top", strip=16)
    assert waits(loop) == [1]


def test_waits_see_slot_loops():
    def body(first, *, inside=0):
        """VOP 0, a slot loop whose last VOP touches s5 behind ``inside`` others, and one behind the loop
        that does.
        """
        def program(asm):
            first(asm)
            asm.slots(isa.READS, lambda: [asm.vop(isa.to_scalar(9 + k), one=True) for k in range(inside)]
                      + [asm.vop(isa.to_scalar(5), isa.scalar(5), one=True)])
            asm.vop(b=isa.scalar(5), one=True)
        return waits(program)

    def writes(asm):
        asm.vop(isa.to_scalar(5), one=True)

    def other(asm):
        asm.vop(isa.to_scalar(20), one=True)

    # Without another operation the next slot meets what the one before wrote.
    assert body(other) == [2, 4]
    assert body(writes) == [2, 4]
    # With one in between it does not, but what is behind does.
    assert body(other, inside=1) == [5]
    assert body(writes, inside=1) == [5]

    def skipped(asm):
        """What was written before the loop is met behind it if no slot is meant."""
        writes(asm)
        asm.slots(isa.READS, lambda: [asm.vop(isa.to_scalar(9 + k), one=True) for k in range(2)])
        asm.vop(b=isa.scalar(5), one=True)
    assert waits(skipped) == [5]


def test_jump_joins_both_paths():
    def diamond(asm):
        asm.emit(isa.JUMP, condition=isa.GREEDY, target="skip")
        asm.vop(isa.to_scalar(4), one=True)
        asm.label("skip")
        asm.vop(isa.to_scalar(7), isa.scalar(4), one=True)
        asm.emit(isa.HALT)
    assert waits(diamond) == [2]


WALKS = """\
FETCH areg=1 words=300
FETCH areg=0 kind=walk trees=9 levels=4 always=3 words=52
FETCH areg=0 kind=skip words=7956
FETCH areg=0 kind=gather trees=9 levels=4 words=52
WALK buffer=0 out=1 rows=39 chunks=35 length=2048
"""


def test_text_of_walks():
    words = parse(WALKS, 4).words(auto_wait=False)
    assert disassemble(words) == WALKS
    assert [isa.is_walk(*isa.decode(word)) for word in words] == [False, True, False, True, True]
    with pytest.raises(AssemblerError, match="line 1: field kind 'dance': not a number"):
        parse("FETCH areg=0 kind=dance words=1", 4)


def test_walks_wait_for_codes_by_themselves():
    """WALK, like MATVEC, waits in hardware for the codes of its buffer: no operation does for its sake."""
    def around(opcode):
        def program(asm):
            asm.vop(isa.to_activation(0), isa.bank(0, 0, words=4))
            asm.vop(isa.to_banks(1, 0, words=4), isa.STREAM32)
            asm.emit(opcode, buffer=0, rows=4, chunks=1)
            asm.vop(isa.to_scalar(5), isa.ROW, one=True)
            asm.vop(isa.to_activation(0), isa.bank(0, 0, words=4), isa.scalar(5))
        return waits(program)
    assert around(isa.WALK) == around(isa.MATVEC) == [4]


def test_parse_names_the_line():
    with pytest.raises(AssemblerError, match="line 2: unknown instruction 'FROB'"):
        parse("HALT\nFROB", 1)
    with pytest.raises(AssemblerError, match="line 1: operand a=b9"):
        parse("VOP a=b9", 1)
    with pytest.raises(AssemblerError, match="line 1: operand a=list0"):
        parse("VOP a=list0[3]", 1)
    with pytest.raises(AssemblerError, match="line 1: field which 'all': not a number"):
        parse("SLOT which=all", 1)
    labelled = parse("top:\nVOP d=s4 a=row  # comment\nJUMP condition=greedy target=top", 1)
    assert disassemble(labelled.words(auto_wait=False)).splitlines()[1] == "JUMP condition=greedy target=0"
    with pytest.raises(isa.IsaError, match="bits set outside every field"):
        isa.decode(1 << 40 | isa.HALT)
