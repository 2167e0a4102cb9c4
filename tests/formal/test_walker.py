"""Proofs about the walker: commands of any kinds, signs and a consumer of requests in any cycle."""

import pytest
from amaranth.hdl import Cat, Mux, Signal
from prove import Proof, disproved, planted
from sterna.firmware import isa

pytestmark = [pytest.mark.formal, pytest.mark.rest]  # the bench of the walker sees it once in `make test`
GATHER, CHILD = 2, 6  # states in the order in which the text names them



def walker(module, trees, levels, always, slots=1, cycles=20):
    """A walk asks for its records, a gather for the same ones of its table; every one once and in order.

    Claimed of any record: it is at the place that the sign of its parent says, also when the gather reads it again;
    no place is read from the path memory before it has been written; there are never more signs than records, nor
    more of these than the path memory has places for; no command is accepted before those in front have asked for
    all their records. Bounded: a walk of two records and its gather.
    """
    bits, most, batch = 3, (always + trees * levels) * slots, slots
    proof = Proof()
    m = proof.m
    dut = module.Walker(address_bits=bits, tree_rows=most // slots, batch=batch, record_bits=2)
    inside = proof.add(dut)
    command, request = dut.command.payload, dut.request.payload
    taken, asks = dut.command.valid & dut.command.ready, dut.request.valid & dut.request.ready
    proof.offered_well(dut.command)
    linear, walks, gathers = (command.kind == kind for kind in (isa.KIND_LINEAR, isa.KIND_WALK, isa.KIND_GATHER))

    # What programs keep to (docs/isa.md, "Walks").
    if batch > 1:
        proof.assume(dut.active.all())
    walked = Signal()
    words, table = Signal(2), Signal(bits)
    proof.assume((command.kind != isa.KIND_SKIP) & (command.words != 0))
    proof.assume(~walks | ((command.trees == trees) & (command.levels == levels) & (command.always == always)
                           & (command.words < 4)))
    proof.assume(~gathers | (walked & (command.words == words)))
    with m.If(taken & walks):
        m.d.sync += [walked.eq(1), words.eq(command.words), table.eq(command.address)]

    # Requests of the walk or gather under way, by number.
    number, again, other = Signal(range(most + 1)), Signal(), Signal(bits)
    here = asks & ~(linear & taken)
    running = Signal()
    with m.If(taken & ~linear):
        m.d.sync += [number.eq(0), again.eq(gathers), other.eq(command.address), running.eq(1)]
    with m.Elif(here):
        m.d.sync += [number.eq(number + 1), running.eq(number != most - 1)]
    proof.implies("asks_while_running", here, running)
    proof.implies("nothing_overtakes", taken, ~running)
    proof.implies("linear", taken & linear, asks & (request.as_value() == Cat(command.address, command.words)))
    proof.implies("passes_at_once", dut.command.valid & linear & ~running & dut.request.ready, taken)
    proof.claim("quiet", dut.quiet == ~running)
    proof.implies("words", here, request.words == words)

    # Signs: at most one per record asked for, in any later cycle or in the next one.
    asked, signed = Signal(range(most + 1)), Signal(range(most + 1))
    with m.If(taken & walks):
        m.d.sync += [asked.eq(0), signed.eq(0)]
    with m.Else():
        m.d.sync += [asked.eq(asked + (here & ~again)), signed.eq(signed + dut.sign.valid)]
    proof.assume(~dut.sign.valid | (signed < asked))
    proof.implies("all_signs_before", taken & walks, asked == signed)
    proof.claim("counts", (inside["asked"] == asked) & (inside["signed"] == signed))
    proof.claim("room", (asked <= most) & (inside["wanted"] <= asked))
    reads = inside["step"] & ((inside["fsm_state"] == CHILD) | (inside["fsm_state"] == GATHER))
    proof.implies("read_behind_write", reads, inside["parent"] < asked)
    # The place was read two cycles before, when nothing was written there any more.
    written, number_written = proof.past(proof.past(here & ~again)), proof.past(proof.past(asked))
    proof.implies("no_collision", written & reads, number_written != inside["parent"])

    # Every record: at the place that its number and the sign of its parent say, and again there in the gather.
    place = [Signal(bits, name=f"place{k}") for k in range(most)]
    right = [Signal(name=f"right{k}") for k in range(most)]
    for k in range(most):
        now = here & (number == k)
        with m.If(now & ~again):
            m.d.sync += place[k].eq(request.address)
        with m.If(dut.sign.valid & (signed == k)):
            m.d.sync += right[k].eq(dut.sign.positive)
        proof.implies(f"gathered{k}", now & again, request.address == (place[k] + other - table)[:bits])
        row, parent = k // slots, k - trees * slots
        tree, level = (row - always) % trees, (row - always) // trees
        if row < always:
            proof.implies(f"always{k}", now & ~again, request.address == (table + row * words)[:bits])
        elif level == 0:
            first = always + tree * ((1 << levels) - 1)
            proof.implies(f"root{k}", now & ~again, request.address == (table + first * words)[:bits])
        else:
            arrives = dut.sign.valid & (signed == parent)
            turns = Mux(arrives, dut.sign.positive, right[parent])
            root = place[(always + tree) * slots + k % slots]
            proof.implies(f"sign_known{k}", now & ~again, (signed > parent) | arrives)
            proof.implies(f"child{k}", now & ~again, request.address == (
                2 * place[parent] - root + Mux(turns, 2 * words, words))[:bits])
    proof.offers_well(request=dut.request)
    proof.check(cycles)


SHAPES = [(1, 2, 0), (1, 2, 0, 2)]  # trees, levels, always, slots


@pytest.mark.parametrize("shape", SHAPES)
def test_walker(shape):
    walker(planted("tree.walker"), *shape)


@pytest.mark.parametrize("changes, claim", [
    (("fetched.eq(counting & ~step & (~begins | empty))", "fetched.eq(counting & ~step)"),
     "read_behind_write"),
    (("counts(read_place << 1,", "counts(read_place,"), "child1"),
    (("(command.kind == isa.KIND_WALK) & (signed == asked)", "command.kind == isa.KIND_WALK",
      "(command.kind == isa.KIND_GATHER) | (signed == asked)", "1"), "all_signs_before"),
    (("base.eq(command.address - table)", "base.eq(command.address)"), "gathered0"),
    (("kept.eq((arrives | (kept & ~stored)) & ~advance)", "kept.eq(0)"), "request_stays"),
    (("idle & empty & Mux(linear", "idle & Mux(linear"), "nothing_overtakes|linear"),
])
def test_walker_catches_planted_bug(changes, claim):
    with disproved(match=claim):
        walker(planted("tree.walker", *changes), 1, 2, 0)


def test_walker_catches_a_sign_that_is_taken_twice():
    with disproved(match="child[23]|sign_known2"):
        walker(planted("tree.walker", "stored.eq(known & ~advance)", "stored.eq(known)"),
               2, 2, 0)
