"""Top-k and top-p: which of the best rows take part, and which of them wins (docs/numerics.md, section 8).

The weights need no function of the C library: their tables come from 50-digit decimal arithmetic, as
those of `tables`.
"""

import functools
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, localcontext

import numpy as np

STEP_BITS = 10  # fix(t) counts in units of 2^-10
INDEX_BITS = 7  # of each of the two tables
P_BITS = 16
P_MAX = (1 << P_BITS) - 1
_WEIGHTS_END = 1 << 2 * INDEX_BITS  # the first difference of weight 0


@functools.cache
def weight_tables():
    """(E1, E0): 128 integers each below 2^16, e^(-i/8) and e^(-i/1024) in units of 2^-16."""
    with localcontext(Context(prec=50, rounding=ROUND_HALF_EVEN)):
        return tuple(tuple(min(65535, int((2**16 * (-Decimal(i) / divisor).exp()).to_integral_value(ROUND_HALF_UP)))
                           for i in range(1 << INDEX_BITS))
                     for divisor in (1 << STEP_BITS - INDEX_BITS, 1 << STEP_BITS))


def weight_words():
    """The ROM: 256 integers of 16 bits, E1 and then E0."""
    coarse, fine = weight_tables()
    return [*coarse, *fine]


def fix(t):
    """fix(t) of an fp24 value: the units of 2^-10 in it, towards zero; an integer of any size."""
    return int(float(t) * (1 << STEP_BITS))  # the product is exact


def weight(d):
    """Weight of an entry that is d >= 0 units of 2^-10 below the first: about 2^16 e^(-d / 2^10)."""
    if d >= _WEIGHTS_END:
        return 0
    coarse, fine = weight_tables()
    return coarse[d >> INDEX_BITS] * fine[d & (1 << INDEX_BITS) - 1] >> 16


def p_code_of(top_p):
    """P of the probability p, 0 < p < 1: round(2^16 p), at least 1 and at most 65535."""
    if not 0 < top_p < 1:
        raise ValueError(f"top-p {top_p}: use a number between 0 and 1, both excluded")
    return min(P_MAX, max(1, round(top_p * (1 << P_BITS))))


def best_rows(t, k):
    """The list: the k rows with the largest t in descending order, the lower row first where they are equal."""
    return np.argsort(-np.asarray(t, np.float64), kind="stable")[:k]


def taking_part(t, p_code):
    """How many entries of a list take part: its values t in descending order, P or 0 for all of them."""
    if not p_code:
        return len(t)
    top = fix(t[0])
    weights = [weight(top - fix(value)) for value in t]
    limit = p_code * sum(weights)
    below = count = 0
    for q in weights:
        if count and below << P_BITS >= limit:
            break
        below += q
        count += 1
    return count


def choose(t, scores, k, p_code):
    """Row of the next token.

    Parameters
    ----------
    t, scores : array [rows] of fp24 values
        The logits over the temperature, and the same with the noise of the row.
    k : int
        At least 1.
    p_code : int
        P, 1 to 65535; 0: all entries of the list take part.

    Returns
    -------
    int
    """
    if k < 1:
        raise ValueError(f"top-k {k}: a list has at least 1 row")
    if not 0 <= p_code <= P_MAX:
        raise ValueError(f"P {p_code}: use 0 to {P_MAX}")
    rows = best_rows(t, k)
    rows = rows[:taking_part(np.asarray(t)[rows], p_code)]
    return int(rows[np.argmax(np.asarray(scores)[rows])])
