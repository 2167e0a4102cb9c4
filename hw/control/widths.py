"""Widths of the sequencer's state: as few bits as a configuration needs."""

from dataclasses import dataclass

from sterna.firmware import isa

LAYER_BYTES = 32  # every layer takes more than that in memory


@dataclass(frozen=True)
class Widths:
    """Bits of the state of docs/isa.md that a configuration needs."""

    # `left`: every row takes its share of a tile in memory, every element of a vector one of a bank
    element_bits: int
    length_bits: int  # vl: at most the elements of a bank
    offset_bits: int  # off: an address in a bank, at least the number of a partial sum
    loop_bits: int
    pc_bits: int

    @classmethod
    def of(cls, config):
        """The widths for ``config``."""
        vector = config.vector_words * config.lanes
        rows = config.memory_bytes * config.rows // config.tile_bytes
        return cls(
            element_bits=min(24, max(rows - 1, vector).bit_length()),
            length_bits=min(16, max(vector, 2 * isa.PARTIAL_SUMS).bit_length()),
            offset_bits=(
                max(config.vector_words, isa.PARTIAL_SUMS // config.lanes) - 1
            ).bit_length(),
            loop_bits=min(16, (config.memory_bytes // LAYER_BYTES - 1).bit_length()),
            pc_bits=max(1, (config.program_words - 1).bit_length()),
        )
