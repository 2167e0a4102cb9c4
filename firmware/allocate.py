"""Where vectors and scalars live: a first-fit allocator per bank and the placement of a model's vectors.

The placement satisfies "no operation reads one bank at two addresses" for all of `sterna.firmware.program`: x, keep,
w_o and the vector of the channel mixer lie in bank 0; what they meet lies in banks 1 and 2; the partial sums lie in
both of these, so that a fold can read them at two addresses.
"""

from dataclasses import dataclass

from sterna.firmware.isa import PARTIAL_SUMS, ROTATE_LSB, bank, to_banks, to_list
from sterna.sim.golden.errors import SternaError


class AllocationError(SternaError, ValueError):
    """A model that does not fit the device; one line that names what is too large."""


@dataclass(frozen=True)
class Vector:
    """``words`` words at ``address`` of every bank of ``banks`` (a tuple)."""

    name: str
    banks: tuple
    address: int
    words: int

    def read(self, *, number=None, plus=False, offset=0, mod=False, rotate=0):
        """Source operand; ``offset`` words further, from bank ``number`` where the vector lies in several."""
        number = self.banks[0] if number is None else number
        return bank(number, self.address + offset, plus=plus, mod=mod, rotate=rotate, words=self.words - offset)

    def write(self, *, plus=False, mod=False):
        """Destination operand: every bank of the vector."""
        return to_banks(self.mask, self.address, plus=plus, mod=mod, words=self.words)

    def offer(self):
        """Destination operand: every bank of the vector, and the list of the best rows."""
        return to_list(self.mask, self.address, words=self.words)

    @property
    def mask(self):
        """The banks as the bits of a destination."""
        return sum(1 << n for n in self.banks)


class Banks:
    """Hands out words of the three vector banks from address 0 upwards.

    Parameters
    ----------
    words : int
        Words per bank.
    """

    def __init__(self, words):
        self.words = words
        self.used = [0, 0, 0]
        self.vectors = {}

    def take(self, name, banks, words):
        """Vector at one address of all ``banks``. AllocationError at ``check`` when a bank is too small."""
        address = max(self.used[n] for n in banks)
        for n in banks:
            self.used[n] = address + words
        self.vectors[name] = Vector(name, tuple(banks), address, words)
        return self.vectors[name]

    def check(self):
        """AllocationError: a bank needs more words than it has."""
        for number, used in enumerate(self.used):
            if used > self.words:
                raise AllocationError(f"vector memory: bank {number} needs {used} words and has {self.words}: "
                                      "use a configuration with more vector_words or a smaller model")


def place(config, hidden, name, inner, strip):
    """Banks with every vector of the token program for H = ``hidden``, and ``name``, of ``inner`` elements: what is
    behind the inner norm of the channel mixer. ``strip``: elements of the longest strip with a vector t1.

    AllocationError: too few vector words.
    """
    lanes = config.lanes
    h, i, strip, longest = -(-hidden // lanes), -(-inner // lanes), config.strip // lanes, -(-strip // lanes)
    sums = PARTIAL_SUMS // lanes
    banks = Banks(config.vector_words)
    # Both pairs of sums side by side (cleared by one operation) and first: a rotated operand has a short address.
    banks.take("p1", (1, 2), sums)
    banks.take("p2", (1, 2), sums)
    assert 2 * sums <= 1 << ROTATE_LSB
    for vector, number, words in (
            ("x", 0, h), ("keep", 0, h), ("w_o", 0, h), (name, 0, i), ("t0", 0, strip), ("s0", 0, strip),
            ("outer", 1, h), ("u1", 1, h), ("t1", 1, longest), ("s1", 1, strip),
            ("u0", 2, h), ("u2", 2, h), ("h", 2, h), ("w_g", 2, h)):
        banks.take(vector, (number,), words)
    banks.check()
    return banks
