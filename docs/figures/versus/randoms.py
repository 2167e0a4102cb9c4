"""Models of random trits whose layers are made when they are asked for: as large as one likes, without a file."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sterna.sim.golden.packed import Geometry, eager, random_model

SIZES = {"370m": Geometry(1024, 2816, 24, 32000, 1e-6), "1.3b": Geometry(2048, 5632, 24, 32000, 1e-6),
         "2.7b": Geometry(2560, 6912, 32, 32000, 1e-6)}


class Layers(Sequence):
    """Random layers (PackedLayer), none of which is kept."""

    def __init__(self, geometry, seed):
        self._geometry, self._seed = geometry, seed

    def __len__(self):
        return self._geometry.num_hidden_layers

    def __getitem__(self, number):
        if not 0 <= number < len(self):
            raise IndexError(number)
        one = replace(self._geometry, num_hidden_layers=1, vocab_size=1)
        return random_model(np.random.default_rng([self._seed, number]), one).layers[0]


def random_packed(geometry, seed=1):
    """A PackedModel of a geometry."""
    ends = replace(geometry, num_hidden_layers=1, intermediate_size=1)
    made = eager(random_model(np.random.default_rng(seed), ends))
    return replace(made, geometry=geometry, layers=Layers(geometry, seed))
