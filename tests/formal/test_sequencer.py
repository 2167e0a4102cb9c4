"""Proofs about the sequencer, with any program and any engines that keep their side of docs/isa.md.

What hardware guarantees, and is proved here: no product is issued while a vector operation may still write codes, no
second store before the words of the first, at most two products (`array_credit`), each instruction once and in
order; with several slots none of those in a slot loop that are not for its slot, and the others with the slots that
they write.
What the program guarantees, that no code is written which a product may read, is in `tests/unit/test_hazards.py`.
"""

from dataclasses import replace

import pytest
from amaranth.hdl import Cat, Const, Mux, Signal
from prove import AnyMemory, Proof, disproved, further, planted, stub
from sterna.firmware import isa
from sterna.hw.array.control import DENSE, GATHER, WALK
from sterna.hw.presets import PRESETS
from sterna.hw.vector import slot

pytestmark = pytest.mark.formal
CONFIG = replace(PRESETS["lanes40"], program_words=16, memory_bytes=512, vector_words=32, register_bits=16)
SLOW = replace(CONFIG, clock_hz=24_000_000)
SLOTS = replace(CONFIG, batch=2)
BARE = replace(SLOW, tree_rows=0)


def sequencer(module, config=CONFIG):
    """Issue in order, each instruction once, and only where docs/isa.md allows it; by induction."""
    proof = Proof()
    m = proof.m
    module.Memory, AnyMemory.made = AnyMemory, []
    dut = module.Sequencer(config)
    inside = proof.add(dut, driven=["vector_busy", "array_busy", "store_idle", "product.ready", "store.ready"])
    proof.release(*(memory.read.data for memory in AnyMemory.made))
    started = proof.started
    fetches, read = inside["fetch_next"], Cat(*(memory.read.data for memory in AnyMemory.made))
    proof.assume(~started | proof.past(fetches) | (read == proof.past(read)))

    # The engines: what they have been given and when they are done with it.
    def taken(port):
        return port.valid & port.ready

    vector, store, products = Signal(name="vector"), Signal(name="store"), Signal(2, name="products")
    ends = proof.free(3, "ends")
    # With a fast clock the accelerator has registers there.
    told = m.d.comb if config.slow else m.d.sync
    told += [dut.vector_busy.eq(dut.vector.valid | vector), dut.store_idle.eq(~store),
             dut.array_busy.eq(products != 0)]
    m.d.comb += [dut.store.ready.eq(~store), dut.product.ready.eq(products < 2)]
    m.d.sync += [vector.eq(taken(dut.vector) | (vector & ~ends[0])), store.eq(taken(dut.store) | (store & ~ends[1])),
                 products.eq(products + taken(dut.product) - (ends[2] & (products != 0)))]
    proof.claim("two_products", products <= 2)
    proof.assume(~dut.sample_taken | dut.sample_done)

    issue_, word, done = inside["issue"], inside["instruction"], inside["done"]

    def is_(opcode):
        return issue_ & (word[:4] == opcode)

    def field(opcode, name):
        lsb, width = isa.FIELDS[opcode][name]
        return word[lsb:lsb + width]

    many, walks = config.batch > 1, bool(config.tree_rows)
    kind = field(isa.FETCH, "kind")
    records = is_(isa.FETCH) & ((kind == isa.KIND_WALK) | (kind == isa.KIND_GATHER))
    faults = Const(0) if walks else records
    passes, all_slots = (_slots(proof, dut, inside, is_, done, field, faults) if many else (0, None))
    proof.implies("instruction_stays", issue_ & proof.past(issue_), word == proof.past(word))
    is_product = is_(isa.MATVEC) | (is_(isa.WALK) if walks else 0)
    skips = is_(isa.FETCH) & (kind == isa.KIND_SKIP)
    fetches_words = is_(isa.FETCH) & ~skips & ~faults
    commands = {"matvec": (is_product, dut.product, 0), "fetch": (fetches_words, dut.fetch, passes),
                "store": (is_(isa.STORE), dut.store, passes)}
    for name, (instruction, port, passed) in commands.items():
        proof.implies(f"{name}_offered", port.valid, instruction & ~passed)
        proof.implies(f"{name}_once", instruction & done, taken(port) | passed)
        proof.implies(f"{name}_no_more", proof.past(taken(port)), ~issue_)
    product = dut.product.payload
    proof.implies("product_mode", dut.product.valid, product.mode == Mux(
        is_(isa.WALK) if walks else 0, Mux(field(isa.WALK, "out"), GATHER, WALK), DENSE))
    if walks:
        proof.implies("fetch_kind", dut.fetch.valid, dut.fetch.payload.kind == kind)

    # Address registers: a table's stays, and what is fetched or stored, or passed over, is left behind.
    moves = (is_(isa.FETCH) | is_(isa.STORE)) & ~records & done
    stays = proof.past((issue_ & ~moves & ~faults & ~is_(isa.SETA) & ~is_(isa.ROWA)) | ~dut.running)
    for k in range(0 if config.slow else 4):
        register = inside[f"addresses.a{k}"]
        proof.implies(f"a{k}_stays", started & stays & ~proof.past(inside["addresses.multiplying"]),
                      register == proof.past(register))
        here = proof.past(moves & (field(isa.FETCH, "areg") == k))
        size = len(register)
        proof.implies(f"a{k}_moves", started & here, register == (
            proof.past(register) + proof.past(field(isa.FETCH, "words")))[:size])
    starts_sampling = is_(isa.SAMPLE) & ~field(isa.SAMPLE, "end")
    proof.implies("vector_offered", dut.vector.valid, (is_(isa.VOP) | starts_sampling) & ~passes)
    proof.implies("vector_start", dut.vector.valid, dut.vector.payload.start == starts_sampling)
    proof.implies("vector_once", (is_(isa.VOP) | starts_sampling) & done, taken(dut.vector) | passes)
    proof.implies("vector_no_more", proof.past(taken(dut.vector)), ~issue_)
    proof.offers_well(vector=dut.vector, product=dut.product, fetch=dut.fetch, store=dut.store, section=dut.section)

    if many:  # the host may write in any cycle that is offered to it
        proof.assume(~dut.program_write.valid | dut.program_ready)
        proof.claim("read_beside_write", ~Cat(*(
            memory.read.en & memory.write.en & (memory.read.addr == memory.write.addr)
            for memory in AnyMemory.made)).any())

    # One section for each instruction that takes from the stream, announced before the engine has the instruction.
    streams = is_(isa.VOP) & ((field(isa.VOP, "a_kind") == isa.A_STREAM32) | (field(isa.VOP, "a_kind")
                                                                            == isa.A_STREAM8))
    streams &= ~passes
    announced = Signal()
    m.d.sync += announced.eq(issue_ & ~done & (announced | taken(dut.section)))
    proof.implies("section_for_stream", dut.section.valid, (is_product | streams) & ~announced)
    proof.implies("section_kind", dut.section.valid, dut.section.payload == is_product)
    proof.implies("section_first", dut.product.valid | (dut.vector.valid & streams), announced)
    proof.implies("announced", issue_, inside["announced"] == announced)
    proof.implies("announced_for_stream", announced, is_product | streams)

    if not config.slow:
        proof.implies("multiplying", inside["addresses.multiplying"], is_(isa.ROWA))

    # Interlocks.
    proof.implies("codes_before_product", dut.product.valid, ~vector & ~dut.vector.valid)
    proof.implies("store_after_store", taken(dut.store), ~store)
    proof.implies("waitm", is_(isa.WAITM) & done, ~vector & ~store)
    proof.implies("halt", dut.halted, is_(isa.HALT) & ~vector & ~store & (products == 0))
    proof.implies("sample", dut.sample_done, is_(isa.SAMPLE) & field(isa.SAMPLE, "end") & ~vector)
    proof.implies("sample_taken", is_(isa.SAMPLE) & field(isa.SAMPLE, "end") & done, dut.sample_taken)

    # Faults.
    condition = field(isa.JUMP, "condition")
    illegal = issue_ & (((word[:4] == isa.SLOT) & ~many) | (0 if walks else is_(isa.WALK)) | faults
                        | (is_(isa.JUMP) & (condition > (isa.CHAINED if many else isa.FRESH))))
    faulty = Signal()
    m.d.sync += faulty.eq(faulty | illegal)
    proof.claim("fault", dut.fault == faulty)
    proof.claim("fault_state", faulty == (inside["fsm_state"] == (3 if config.slow else 4)))
    advances = inside["advance"]
    proof.implies("stopped", faulty, ~issue_ & ~dut.running & ~fetches & ~advances)

    # The state of docs/isa.md. No strip is longer than a bank and no count beyond the memory (the same page).
    left, vl, offset, loop, pc = (Signal(32, name=f"isa_{name}") for name in ("left", "vl", "offset", "loop", "pc"))
    no_token_yet = Signal(init=1)  # since the last reset, which starts the proof
    m.d.sync += no_token_yet.eq(no_token_yet & ~dut.halted)
    proof.claim("no_token_yet", inside["fresh"] == no_token_yet)
    widths = module.Widths.of(config)
    most, strip = 1 << widths.element_bits, field(isa.STRIP, "strip")
    proof.assume(~is_(isa.STRIP) | ((field(isa.STRIP, "elements") < most) & (strip < 1 << widths.length_bits)))
    proof.assume(~is_(isa.NEXT) | (strip < 1 << widths.length_bits))
    shortened = Signal(32)
    more = (is_(isa.NEXT)) & (left > strip)
    m.d.comb += shortened.eq(left - strip)
    jumps = Signal()
    with m.Switch(condition):
        for code, value in ((isa.ALWAYS, 1), (isa.LAST_LAYER, loop == 1), (isa.NOT_WANTED, dut.unwanted),
                            (isa.GREEDY, dut.greedy), (isa.AT_START, dut.at_start),
                            (isa.FRESH, no_token_yet), *([(isa.CHAINED, dut.chained)] if many else [])):
            with m.Case(code):
                m.d.comb += jumps.eq(value)
    goes = more | (is_(isa.JUMP) & jumps) | (is_(isa.AGAIN) & (loop > 1))
    if many:
        goes |= is_(isa.SLOT) & field(isa.SLOT, "again") & all_slots
    following = Signal(32)
    m.d.comb += following.eq(Mux(goes, field(isa.NEXT, "target"), pc + 1))
    with m.If(done & is_(isa.STRIP)):
        elements = field(isa.STRIP, "elements")
        m.d.sync += [left.eq(elements), offset.eq(0), vl.eq(Mux(strip < elements, strip, elements))]
    with m.Elif(done & is_(isa.NEXT)):
        m.d.sync += [left.eq(Mux(more, shortened, 0)), offset.eq(offset + field(isa.NEXT, "step"))]
        with m.If(more):
            m.d.sync += vl.eq(Mux(strip < shortened, strip, shortened))
    with m.Elif(done & is_(isa.LOOP)):
        m.d.sync += loop.eq(field(isa.LOOP, "count"))
    with m.Elif(done & is_(isa.AGAIN)):
        m.d.sync += loop.eq((loop - 1)[:widths.loop_bits])
    proof.assume(~is_(isa.LOOP) | (field(isa.LOOP, "count") < 1 << widths.loop_bits))
    with m.If(advances):
        m.d.sync += pc.eq(Mux(dut.running, following, 0)[:widths.pc_bits])
    proof.implies("next_instruction", advances, inside["next_pc"] == Mux(dut.running, following, 0)[:widths.pc_bits])
    if not config.slow:
        proof.implies("fetched_at", fetches, Cat(*(memory.read.addr == pc[:widths.pc_bits]
                                                   for memory in AnyMemory.made)).all())
        proof.implies("fetched", (inside["fsm_state"] == 2), proof.past(fetches))
    proof.implies("pc", dut.running, inside["pc"] == pc[:widths.pc_bits])
    proof.implies("pc_at_rest", ~dut.running & ~faulty, inside["pc"].all())
    proof.claim("left", (inside["left"] == left) & (left < most))
    proof.claim("offset", inside["offset"] == offset[:widths.offset_bits])
    proof.claim("loop", inside["loop"] == loop)
    shortens = inside["vl_fresh"]
    proof.claim("vl", Mux(shortens & (inside["vl"] > left), left, inside["vl"]) == vl)
    proof.implies("shortens", shortens, ~issue_ & dut.running)
    proof.implies("count", dut.vector.valid, dut.vector.payload.count == vl)
    proof.check(3, induction=True, search_cycles=9)


def _slots(proof, dut, inside, is_, done, field, faults):
    """The slot loop of docs/isa.md beside that of the sequencer; whether the present instruction is not for its slot,
    and whether a further slot of the loop follows.
    """
    m, batch = proof.m, len(dut.active)
    looping, slot, chosen, everywhere, prior = (Signal(8, name=f"isa_{name}") for name in (
        "looping", "slot", "chosen", "everywhere", "prior"))
    with m.If(done & is_(isa.SLOT)):
        with m.If(~field(isa.SLOT, "again")):
            which = field(isa.SLOT, "which")
            m.d.sync += [looping.eq(1), slot.eq(0), prior.eq(field(isa.SLOT, "prior") & dut.chained),
                         everywhere.eq((which == isa.READS) & dut.chained)]
            with m.Switch(which):
                for code, name in enumerate(isa.WHICH):
                    with m.Case(code):
                        m.d.sync += chosen.eq(getattr(dut, name))
        with m.Elif((slot == batch - 1) | ~looping[0]):
            m.d.sync += [looping.eq(0), slot.eq(0), prior.eq(0)]
        with m.Else():
            m.d.sync += slot.eq(slot + 1)
    proof.claim("slot_loop", (inside["slots.here"] == Mux(looping, 1 << slot[:3], 0)) & (looping < 2)
                & (inside["slots.number"] == slot) & (slot < batch) & (looping[0] | (slot == 0)))
    proof.claim("slot_kept", (inside["slots.chains"] == prior) & (~looping[0] | (
        (inside["slots.chosen"] == chosen) & (inside["slots.spreads"] == everywhere))))
    proof.claim("slot", dut.slot == slot)
    command = dut.vector.payload
    skipped = looping[0] & ~(chosen >> slot[:3])[0]
    passes = skipped & (is_(isa.VOP) | is_(isa.FETCH) | is_(isa.STORE)) & ~faults
    proof.implies("passed", passes, done)
    proof.implies("slots_written", dut.vector.valid, command.slots[:batch] == Mux(
        looping[0] & ~everywhere[0], 1 << slot[:3], (1 << batch) - 1))
    proof.implies("slot_of_command", dut.vector.valid, (command.slot == slot) & (command.prior == prior))
    return passes, looping[0] & (slot < batch - 1)


@pytest.mark.parametrize("config", [CONFIG, SLOW, SLOTS, *further(BARE, replace(SLOTS, tree_rows=0))],
                         ids=lambda config: ("slots" if config.batch > 1 else "slow" if config.slow else "fast")
                         + "_no_trees" * (not config.tree_rows))
def test_sequencer(config):
    sequencer(planted("control.sequencer"), config)


@pytest.mark.parametrize("old, new, claim", [
    ("announced & ~self.vector_busy)", "announced)", "codes_before_product"),
    ("m.d.sync += [announced.eq(0), vl_fresh.eq(0)]", "m.d.sync += [vl_fresh.eq(0)]", "announced"),
    ("done.eq(~self.vector_busy & self.store_idle)", "done.eq(~self.vector_busy)", "waitm"),
    ("with m.If(vl_fresh & rest[-1]):", "with m.If(vl_fresh & ~rest.any()):", "vl"),
    ("done.eq(field(isa.JUMP, \"condition\") <= len(conditions) - 1)", "done.eq(field(isa.JUMP, \"condition\") <= 7)",
     "fault"),
    ("[pc.eq(-1), fresh.eq(0)]", "pc.eq(-1)", "no_token_yet|next_instruction"),
    ("strip[:width.length_bits] < left", "strip[:width.length_bits] <= left", "left|next_instruction|offset|vl"),
    ("jump.eq(loop[1:].any())", "jump.eq(loop != 0)", "next_instruction"),
    ("self.section.payload.eq(is_product)", "self.section.payload.eq(is_op[isa.MATVEC])", "section_kind"),
    ("Mux(records if walks else 0, 0, passed)", "passed", "a._stays"),
    ("| (skips & issue & addresses.ready)", "", "a._moves"),
    ("& ~skips & (1 if walks", "& (1 if walks", "fetch_offered"),
])
def test_sequencer_catches_planted_bug(old, new, claim):
    with disproved(match=claim):
        sequencer(planted("control.sequencer", old, new))


def test_slow_sequencer_catches_planted_bug():
    with disproved(match="left|next_instruction|offset|vl"):
        sequencer(planted("control.sequencer", "~rest[-1] & rest[:-1].any()", "~rest[-1]"), SLOW)


@pytest.mark.parametrize("old, new, claim", [
    ("acts = issue & ~passes", "acts = issue", "vector_offered|fetch_offered|store_offered|section_for_stream"),
    ("self.section.valid.eq(acts & section_first)", "self.section.valid.eq(issue & section_first)",
     "section_for_stream|announced"),
    ("done.eq(is_op[isa.VOP] | (addresses.ready & (walks | ~records))), ", "", "passed"),
    ("slots.again & slots.repeat", "slots.again", "next_instruction"),
    ("self.program_ready.eq(~fetch_next)", "self.program_ready.eq(~acts)", "read_beside_write"),
    ("self.vector.payload.prior.eq(slots.chains)", "self.vector.payload.prior.eq(slots.chained)", "slot_of_command"),
])
def test_slots_catch_planted_bug(old, new, claim):
    with disproved(match=claim):
        sequencer(planted("control.sequencer", old, new), SLOTS)


def codes_while_busy(module):
    """The vector engine is busy in every cycle in which it writes a code, a number or a memory word, or begins a
    sampling.

    Nothing but the `busy` that the sequencer waits for is looked at; by induction.
    """
    proof = Proof()
    module.Slot = stub(slot.Slot)
    dut = module.VectorEngine(replace(PRESETS["lanes10"], vector_words=4))
    proof.add(dut)
    # Whatever the numbers are, and whatever else keeps the engine busy.
    slot0 = module.Slot.made
    proof.release(slot0.values, slot0.codes, slot0.random_valid, slot0.key_busy, slot0.sampler_reads,
                  slot0.sampler_busy, slot0.list_pending, slot0.list_busy)
    proof.implies("codes", dut.activation.valid, dut.busy)
    proof.implies("numbers", dut.trace.valid, dut.busy)
    proof.implies("words", dut.store.valid, dut.busy)
    proof.implies("commands", dut.command.valid, dut.busy)
    proof.implies("sampling", slot0.control.start, dut.busy)
    proof.check(1, induction=True, search_cycles=30)


def test_codes_while_busy():
    codes_while_busy(planted("vector.engine"))


@pytest.mark.parametrize("old, new, claim", [
    ("Cat(*valid).any()", "Cat(*valid[:-2]).any()", "codes|numbers"),
    ("issue.start if stages.registered", "0 if stages.registered", "sampling")])
def test_codes_while_busy_catches_planted_bug(old, new, claim):
    with disproved(match=claim):
        codes_while_busy(planted("vector.engine", old, new))
