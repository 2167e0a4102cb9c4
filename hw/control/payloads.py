"""What the fields of an instruction say to the engines: payloads of the sequencer's streams."""

from amaranth import Mux

from sterna.firmware import isa
from sterna.hw.array.control import DENSE, GATHER, WALK


def field(instruction, opcode, name):
    """A field of an instruction word (Value)."""
    lsb, width = isa.FIELDS[opcode][name]
    return instruction[lsb : lsb + width]


def passed(instruction, engines):
    """Words by which FETCH or STORE moves an address register on: of every engine's memory, to
    which those of a STORE are dealt from the first engine on.
    """
    words = field(instruction, isa.FETCH, "words")
    if engines == 1:
        return words
    code, size = isa.OPCODE_FIELD
    is_store = instruction[code : code + size] == isa.STORE
    each = (words + (engines - 1)) >> (engines - 1).bit_length()
    return Mux(is_store, each, words)


def set_payloads(m, sequencer, instruction, address, walks):
    """Payloads of ``product``, ``fetch`` and ``store``, but for none that depend on more than the
    instruction and the address register. A WALK shares its fields with MATVEC, in the same places.

    Parameters
    ----------
    m : Module
    sequencer : component with these streams
    instruction, address : Value
    walks : bool
        Whether walks of trees are built in.
    """
    product, fetch = sequencer.product.payload, sequencer.fetch.payload
    m.d.comb += [
        getattr(product, name).eq(field(instruction, isa.MATVEC, name))
        for name in ("buffer", "rows", "chunks")
    ]
    for payload in (fetch, sequencer.store.payload):
        m.d.comb += [
            payload.address.eq(address),
            payload.words.eq(field(instruction, isa.FETCH, "words")),
        ]
    if walks:
        code, size = isa.OPCODE_FIELD
        is_matvec = instruction[code : code + size] == isa.MATVEC
        out = field(instruction, isa.WALK, "out")
        m.d.comb += [
            product.mode.eq(Mux(is_matvec, DENSE, Mux(out, GATHER, WALK))),
            product.length.eq(field(instruction, isa.WALK, "length")),
            *(
                fetch[name].eq(field(instruction, isa.FETCH, name))
                for name in ("kind", "trees", "levels", "always")
            ),
        ]
