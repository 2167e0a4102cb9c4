"""What trees save beside a gated linear unit: weights that a token reads, and time, and for how many texts."""

from dataclasses import dataclass

from sterna.host.errors import UsageError
from sterna.host.plan.rows import megabytes
from sterna.host.runtime.statistics import useful_bytes
from sterna.sim.golden.geometry import Geometry, PackError, with_trees

MULTIPLE = 256  # of the published models' intermediate size, which is 8/3 hidden rounded up


def planted(geometry, text):
    """The TreeGeometry with trees ``text`` ("KxD" or "KxD+A") in place of a Geometry's unit; UsageError otherwise."""
    if geometry.mixer == "tree":
        raise UsageError(f"--tree {text}: the model has trees of its own: leave --tree out")
    try:
        return with_trees(geometry, text)
    except PackError as error:
        raise UsageError(f"--tree {text}: {error}") from None


def unit_beside(geometry):
    """The Geometry that a TreeGeometry is held against: with a unit as large as the published models have it."""
    inner = -(-8 * geometry.hidden_size // (3 * MULTIPLE)) * MULTIPLE
    return Geometry(geometry.hidden_size, inner, geometry.num_hidden_layers, geometry.vocab_size,
                    geometry.rms_norm_eps)


@dataclass(frozen=True)
class Saving:
    """A model with trees against one with gated linear units; bytes are what a token needs, at 1.6 bits a weight.

    Attributes
    ----------
    intermediate_size : int
        Of the unit.
    mixer_bytes, unit_bytes : float
        Of the channel mixer of a layer.
    token_bytes, unit_token_bytes : float
        Of all.
    slots : int
        Texts at once with which the trees read no less than the unit: a sweep serves all of them, and each
        has rows of its own.
    speed : dict
        By name of a row, tokens per second over those with the unit, both of one sequence; None where one has none.
    """

    intermediate_size: int
    mixer_bytes: float
    unit_bytes: float
    token_bytes: float
    unit_token_bytes: float
    slots: int
    speed: dict

    @property
    def text(self):
        """A sentence (str)."""
        return (f"against a gated linear unit (GLU) of {self.intermediate_size}: the mixer of a layer reads "
                f"{megabytes(self.mixer_bytes)} for a token and not {megabytes(self.unit_bytes)} "
                f"({_times(self.unit_bytes / self.mixer_bytes)}), the token {megabytes(self.token_bytes)} and not "
                f"{megabytes(self.unit_token_bytes)} ({_times(self.unit_token_bytes / self.token_bytes)}); with "
                f"{self.slots:,} slots and more, each with rows of its own, the mixer saves nothing")


def _times(ratio):
    return f"{ratio:.2f} times less" if ratio < 10 else f"{ratio:,.0f} times less"


def saving(geometry, unit, rows, unit_rows):
    """The Saving of a TreeGeometry against a Geometry; with the rows of both, in the same order."""
    hidden, inner, visits = geometry.hidden_size, unit.intermediate_size, geometry.visits
    speed = {}
    for row, other in zip(rows, unit_rows, strict=True):
        with_both = row.stream_tokens_per_second and other.stream_tokens_per_second
        speed[row.name] = row.stream_tokens_per_second / other.stream_tokens_per_second if with_both else None
    return Saving(inner, 2 * visits * hidden / 5, 3 * inner * hidden / 5, useful_bytes(geometry, "trit5"),
                  useful_bytes(unit, "trit5"), -(-3 * inner // (2 * visits)), speed)
