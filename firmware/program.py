"""Builds the token program of a model geometry for a configuration, or says what is too large."""

from dataclasses import dataclass

from sterna.firmware import isa
from sterna.firmware.allocate import AllocationError
from sterna.firmware.assembler import AssemblerError
from sterna.firmware.disassembler import disassemble
from sterna.firmware.layout import LayoutError, MemoryMap, layout, memory_map
from sterna.firmware.programs.glu import GluProgram
from sterna.firmware.programs.pieces import CONSTANTS, ProgramError
from sterna.firmware.programs.slots import SlotGluProgram, SlotTreeProgram
from sterna.firmware.programs.tree import TreeProgram
from sterna.sim.golden import fp24
from sterna.sim.golden.fp24 import round24, to_bits


# {channel mixer of a geometry: (the program of one slot, that of more)}
PROGRAMS = {"glu": (GluProgram, SlotGluProgram), "tree": (TreeProgram, SlotTreeProgram)}


@dataclass(frozen=True)
class Program:
    """Result of ``build_program``.

    Attributes
    ----------
    words : list of int
        96-bit instructions.
    scalars : dict of int to int
        fp24 bits of the scalar registers that the host writes, in every slot, before the first token.
    listing : str
        Disassembly.
    memory_map : MemoryMap
    vectors : dict of str to Vector
        Placement in the vector banks.
    vector_words : tuple of int
        Words used of each bank.
    """

    words: list
    scalars: dict
    listing: str
    memory_map: MemoryMap
    vectors: dict
    vector_words: tuple

    @property
    def data(self):
        """Bytes of the program memory."""
        return isa.program_bytes(self.words)


def constants(geometry):
    """{scalar register: fp24 bits} of docs/numerics.md, section 5, without 1/temperature."""
    inner = geometry.visits if geometry.mixer == "tree" else geometry.intermediate_size
    values = (1 / geometry.hidden_size, 1 / inner, geometry.rms_norm_eps, 1e-6, 1e-5, 1.5, 0.5,
              2.0, 127.0, 1.27e7, fp24.LN2)
    return {register: int(to_bits(round24(v))) for register, v in zip(CONSTANTS, values, strict=True)}


def inverse_temperature(temperature):
    """fp24 bits of round(1 / temperature) for register ``INVERSE_TEMPERATURE``; 0 counts as 1 (greedy)."""
    return int(to_bits(round24(1 / temperature if temperature > 0 else 1.0)))


def build_program(config, geometry, addresses=None):
    """Token program of a geometry on a configuration.

    Parameters
    ----------
    config : hw.config.Config
    geometry : sim.golden.geometry.Geometry or TreeGeometry
    addresses : MemoryMap, optional
        Default: ``firmware.layout.memory_map(config, geometry)``.

    Returns
    -------
    Program

    Raises
    ------
    ProgramError
        Vector memory, activation memory, program memory or (with LayoutError's text) model memory is too small, or
        trees meet a build that does not walk them, or not as many.
    """
    try:
        trees = geometry.mixer == "tree"
        addresses = addresses or memory_map(config, geometry)
        inner = geometry.visits if trees else layout(config, geometry).inner
        codes = -(-max(geometry.hidden_size, inner) // config.columns)
        if codes > config.activation_words:
            raise ProgramError(f"activation memory: the model needs {codes} words of {config.columns} codes and the "
                               f"device has {config.activation_words}")
        if max(geometry.hidden_size, inner) >= 1 << 16:
            raise ProgramError(f"size {max(geometry.hidden_size, inner)}: a vector has at most 65535 elements")
        if trees and config.engines > 1:
            raise ProgramError(f"trees: {config.engines} engines share matrices alone: use a build with one engine")
        writer = PROGRAMS[geometry.mixer][config.batch > 1](config, geometry, addresses)
        writer.emit_all()
        words = writer.asm.words()
    except (AllocationError, LayoutError, AssemblerError) as error:
        raise ProgramError(str(error)) from None
    return Program(words, constants(geometry), disassemble(words), addresses, writer.v, tuple(writer.banks.used))
