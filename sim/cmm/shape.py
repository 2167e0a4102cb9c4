"""The layer that is measured: trees of neurons, and how a name gives their number and depth."""

import re
from dataclasses import dataclass

from sterna.sim.golden.errors import SternaError

HIDDEN = 768  # elements of input and output: those of BERT
MOST_NEURONS = 1 << 14
BERT = 3072  # neurons of its dense layer
LARGEST = 4095  # neurons of the tree of UltraFastBERT, as a dense layer


class CmmError(SternaError, ValueError):
    """What is to be measured cannot be; or the result would be wrong."""


class ShapeError(CmmError):
    """A name is no tree, or one that is too large."""

    exit_code = 2


@dataclass(frozen=True)
class Tree:
    """K trees of depth D: name KxD.

    Attributes
    ----------
    trees, depth : int
    """

    trees: int
    depth: int

    @property
    def levels(self):
        """Neurons of a path (int)."""
        return self.depth + 1

    @property
    def nodes(self):
        """Neurons of a tree (int)."""
        return (1 << self.levels) - 1

    @property
    def neurons(self):
        """Rows of a table (int)."""
        return self.trees * self.nodes

    @property
    def visits(self):
        """Rows of a table that an input reads (int)."""
        return self.trees * self.levels

    def __str__(self):
        return f"{self.trees}x{self.depth}"


def parse(name):
    """The Tree of a name "1x11"; ShapeError if there is none or it is too large."""
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", name)
    if not found or not int(found[1]):
        raise ShapeError(f"{name!r} is no KxD: give the number of trees and their depth, as 1x11 or 32x6")
    tree = Tree(int(found[1]), int(found[2]))
    if tree.depth > 20 or tree.neurons > MOST_NEURONS:
        raise ShapeError(f"{name}: {tree.trees} trees of depth {tree.depth} have more than {MOST_NEURONS:,} neurons: "
                         "use fewer or flatter ones")
    return tree
