"""RTLIL of components, as Amaranth writes it, in half of its time."""

from unittest.mock import patch

from amaranth.back import rtlil
from amaranth.hdl import _nir


def convert(component, **options):
    """RTLIL text (str) of a component: that of ``amaranth.back.rtlil.convert``, to the letter.

    Amaranth handles every bit that a memory starts with by itself: half of the time of a whole
    accelerator, whose queues and vectors have millions. Here a word is written at once.

    Parameters
    ----------
    component : amaranth.hdl.Elaboratable
    options
        Those of ``amaranth.back.rtlil.convert``.
    """
    with patch.object(rtlil.ModuleEmitter, "emit_memory", _emit_memory):
        return rtlil.convert(component, emit_src=False, **options)


def _emit_memory(emitter, index, cell):
    """Writes the contents of a memory; the words stand in one constant, the first one last."""
    mask = (1 << cell.width) - 1
    bits = "".join(f"{word & mask:0{cell.width}b}" for word in reversed(cell.init)) if mask else ""
    emitter.builder.cell(
        "$meminit_v2",
        ports={
            "ADDR": emitter.sigspec(),
            "DATA": f"{len(bits)}'{bits}",
            "EN": emitter.sigspec(_nir.Value.ones(cell.width)),
        },
        parameters={
            "MEMID": emitter.memories[index].memid,
            "ABITS": 0,
            "WIDTH": cell.width,
            "WORDS": cell.depth,
            "PRIORITY": 0,
        },
        src_loc=cell.src_loc,
    )
