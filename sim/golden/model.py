"""Level L1: the model in the arithmetic of the hardware (docs/numerics.md, sections 3 to 8), batched and bit exact.

Every operation is a float64 operation on fp24 values followed by a rounding in place. Products of codes and trits go
through the float32 BLAS, which is exact below 2^24.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sterna.sim.golden import rng, tables, toplist
from sterna.sim.golden.fp24 import LN2, PARTIAL_SUMS, from_int, mac, mul, round24, round24_into
from sterna.sim.golden.geometry import PackError
from sterna.sim.golden.product import Product, are_held
from sterna.sim.golden.tree import Trees

_FLOOR, _INNER_EPS = round24(1e-5), round24(1e-6)
_HALF, _THREE_HALVES, _TWO = 0.5, 1.5, 2.0
_127, _LARGE = 127.0, round24(1.27e7)
_EXACT = 1 << 24  # float32 holds every integer below this
DENSE = {"glu": ("f", "i", "g", "o", "gate", "down"), "tree": ("f", "i", "g", "o")}  # of a geometry's mixer


def _mul(a, b):
    """MUL of arrays, with nothing allocated but the result."""
    return round24_into(np.multiply(a, b))


def _mac(a, b, c):
    out = _mul(a, b)
    out += c
    return round24_into(out)


def _advanced(k, c, h):
    """The state behind a token: mac(k, c - h, h)."""
    return _mac(k, round24_into(c - h), h)


def sumsq(v):
    """SUMSQ over the last dimension of fp24 values [..., N]: 64 partial sums, then their tree."""
    squares = _mul(v, v)
    count = v.shape[-1]
    sums = np.zeros((*v.shape[:-1], PARTIAL_SUMS))
    # Adding the first square to +0, and no square at all, are exact.
    sums[..., :min(count, PARTIAL_SUMS)] = squares[..., :PARTIAL_SUMS]
    for at in range(PARTIAL_SUMS, count, PARTIAL_SUMS):
        part = sums[..., :count - at]
        part += squares[..., at:at + PARTIAL_SUMS]
        round24_into(part)
    width = PARTIAL_SUMS
    while width > 1:
        width //= 2
        sums = round24_into(sums[..., :width] + sums[..., width:])
    return sums[..., 0]


def rsq(t):
    """RSQ(t): the table's 1/sqrt(t) with one Newton step."""
    y = tables.rsqrt(t)
    b = mul(mul(y, y), t)
    return mul(y, mac(-b, _HALF, _THREE_HALVES))


def matrix_scalars(peak, r, ws):
    """(S, qm) of section 6 from the peak m of u, the norm's r and the matrix scale; arrays broadcast."""
    scale = mul(np.maximum(mul(peak, r), _FLOOR), ws)
    z = tables.recip(peak)
    z = mul(z, mac(-peak, z, _TWO))
    return scale, np.minimum(mul(z, _127), mul(r, _LARGE))


def codes(u, qm):
    """code(u, qm) as float32 [..., N], qm [...]: halves away from zero on the exact product."""
    z = u * qm[..., None]
    z = np.trunc(z + np.copysign(0.5, z))
    return np.clip(z, -127, 127).astype(np.float32)


def sample_scores(logits, keys, inverse_temperature):
    """(t, scores) of section 8, both [B, V]: fp24 logits [B, V] and keys [B], 1/T as fp24."""
    v, n = rng.row_random(np.asarray(keys)[:, None], np.arange(logits.shape[-1]))
    x = mac(v, tables.log1m(v), mul(n, LN2))
    log = round24(tables.exponent(x) + tables.log2(x))
    t = mul(logits, inverse_temperature)
    return t, mac(-log, LN2, t)


class Rows(NamedTuple):
    """Head rows of one step: ``rows`` [B, V] = FROMINT(acc) as float64, ``scale`` [B] = S_head."""

    rows: np.ndarray
    scale: np.ndarray


class _Matrix:
    """Trits with their scale, see ``product.Product``."""

    def __init__(self, trits, ws, held=True):
        if trits.shape[1] * 127 >= _EXACT:
            raise PackError(f"a matrix has {trits.shape[1]} columns: at most {_EXACT // 127} keep the sums exact")
        self._product, self.ws = Product(trits, held), ws
        self._rounds = trits.shape[1] * 127 >= 1 << 16  # smaller sums are fp24 numbers already

    def rows(self, code):
        """FROMINT of the accumulators, float64 [B, rows]."""
        acc = self._product(code).astype(np.float64)
        return round24_into(acc) if self._rounds else acc


class _Layer:
    """The matrices (dict), the vectors, and the trees of a layer that has some."""

    def __init__(self, packed, geometry, held):
        names = DENSE[geometry.mixer]
        self.matrices = {p: _Matrix(getattr(packed, p), getattr(packed, "ws_" + p), held) for p in names}
        self.vectors = replace(packed, **dict.fromkeys(names))
        self.trees = Trees(geometry, packed.tree_in, packed.tree_out) if geometry.mixer == "tree" else None


class GoldenModel:
    """The accelerator's arithmetic, independent of tiling.

    Of a model of more than ``product.HELD_WEIGHTS`` trits no float32 operand is held: every step takes each
    layer from ``packed`` and makes its operands anew, which is slow and needs the memory of one layer.

    Parameters
    ----------
    packed : PackedModel
    """

    def __init__(self, packed):
        self.packed, self.geometry = packed, packed.geometry
        self._outer_eps = round24(self.geometry.rms_norm_eps)
        self._per_hidden = round24(1 / self.geometry.hidden_size)
        trees = self.geometry.mixer == "tree"
        self._per_inner = round24(1 / (self.geometry.visits if trees else self.geometry.intermediate_size))
        self._mix = self._mix_trees if trees else self._mix_gated
        self._held = are_held(self.geometry)
        self._layers = [_Layer(layer, self.geometry, True) for layer in packed.layers] if self._held else None
        self._codes, self._scales = packed.embedding_codes, packed.embedding_scale
        self._final = packed.final_outer, packed.w_head
        self._made_head = _Matrix(packed.head, packed.ws_head) if self._held else None

    def _layer(self, number):
        return self._layers[number] if self._held else _Layer(self.packed.layers[number], self.geometry, False)

    @property
    def _head(self):
        return self._made_head or _Matrix(self.packed.head, self.packed.ws_head, False)

    def start(self, batch):
        """State [L, B, H] (float64, fp24 values) of sequences at their start position."""
        return np.zeros((self.geometry.num_hidden_layers, batch, self.geometry.hidden_size))

    def embed(self, ids):
        """x [B, H] of token ids [B]."""
        ids = np.asarray(ids)
        return _mul(self._codes[ids], self._scales[ids][:, None])

    def _two_norms(self, s1, s2):
        e1 = mac(s1, self._per_hidden, self._outer_eps)
        return rsq(mac(e1, _INNER_EPS, mul(s2, self._per_hidden)))

    def _enter(self, x, outer, folded, scales):
        """Codes and scales S [B, 1] of x for every matrix behind one outer norm; ``scales`` are their ws."""
        r = self._two_norms(sumsq(x), sumsq(_mul(x, outer)))
        u = [_mul(x, w) for w in folded]
        peaks = np.stack([np.abs(v).max(-1) for v in u])
        scale, qm = matrix_scalars(peaks, r, np.array(scales)[:, None])
        return [codes(v, q) for v, q in zip(u, qm, strict=True)], scale[..., None]

    def layer(self, number, x, h):
        """One layer: x [B, H] -> [B, H]; the state h [B, H] is advanced in place."""
        layer = self._layer(number)
        k, c, t = self._gates(layer, x)
        h[:] = _advanced(k, c, h)
        return self._behind(layer, x, h, t)

    def layer_over(self, number, x, h):
        """One layer over T tokens of one sequence: what ``layer`` gives for them in turn, products for all at once.

        Parameters
        ----------
        number : int
        x : array [T, H]
        h : array [H]
            The state, advanced in place.

        Returns
        -------
        x, states : arrays [T, H]
            The layer's outputs, and the state behind every token.
        """
        layer = self._layer(number)
        k, c, t = self._gates(layer, x)
        states = np.empty_like(c)
        for token, state in enumerate(states):
            h[:] = _advanced(k[token], c[token], h)
            state[:] = h
        return self._behind(layer, x, states, t), states

    def _gates(self, layer, x):
        """Of x [B, H] what of the old state stays away, what comes, and the output gate; all [B, H]."""
        w, m = layer.vectors, layer.matrices
        entered, scale = self._enter(x, w.attn_outer, (w.w_f, w.w_i, w.w_g_in), (w.ws_f, w.ws_i, w.ws_g))
        t = _mul(m["f"].rows(entered[0]), -scale[0])
        k = _mul(tables.sigmoid(t), w.keep)
        t = _mul(m["i"].rows(entered[1]), scale[1])
        return k, _mul(t, tables.sigmoid(t)), _mul(m["g"].rows(entered[2]), scale[2])

    def _behind(self, layer, x, h, t):
        """The layer's output of its input x, new state h and output gate t; all [B, H]."""
        w, m = layer.vectors, layer.matrices
        a = _mul(h, tables.sigmoid(h))
        v = _mul(_mul(t, a), w.g_norm)
        u = _mul(v, w.o_in)
        scale, qm = matrix_scalars(np.abs(u).max(-1), self._two_norms(sumsq(t), sumsq(v)), m["o"].ws)
        x = _mac(m["o"].rows(codes(u, qm)), scale[:, None], x)
        return self._mix(layer, x)

    def _mix_gated(self, layer, x):
        """x [B, H] behind the gated linear unit of a layer."""
        w, m = layer.vectors, layer.matrices
        (code,), (scale,) = self._enter(x, w.mlp_outer, (w.w_gate,), (w.ws_gate,))
        rows = _mul(m["gate"].rows(code), scale)
        t, v = np.split(rows, 2, -1)
        y = _mul(v, _mul(t, tables.sigmoid(t)))
        u = _mul(y, w.w_down)
        scale, code = self._enter_inner(y, u, w.ws_down)
        return _mac(m["down"].rows(code), scale, x)

    def _mix_trees(self, layer, x):
        """x [B, H] behind the trees of a layer."""
        w, trees = layer.vectors, layer.trees
        (code,), (scale,) = self._enter(x, w.mlp_outer, (w.w_tree,), (w.ws_tree_in,))
        sums, path = trees.walk(code)
        t = _mul(from_int(sums), scale)
        z = _mul(t, tables.sigmoid(t))
        scale, code = self._enter_inner(z, z, w.ws_tree_out)
        return _mac(from_int(trees.gather(code, path)), scale, x)

    def _enter_inner(self, y, u, ws):
        """Scale S [B, 1] and codes of u, y behind one norm and its weight."""
        r = rsq(mac(sumsq(y), self._per_inner, _INNER_EPS))
        scale, qm = matrix_scalars(np.abs(u).max(-1), r, ws)
        return scale[:, None], codes(u, qm)

    def head(self, x):
        """Rows of the last layer's output x [B, H]."""
        (outer, folded), matrix = self._final, self._head
        (code,), (scale,) = self._enter(x, outer, (folded,), (matrix.ws,))
        return Rows(matrix.rows(code), scale[:, 0])

    def step(self, ids, state):
        """Read one token per sequence: ids [B], state [L, B, H] advanced in place -> Rows."""
        x = self.embed(ids)
        for number in range(self.geometry.num_hidden_layers):
            x = self.layer(number, x, state[number])
        return self.head(x)

    def logits(self, ids, state):
        """As ``step``, but the fp24 logits row * S_head, float64 [B, V]."""
        head = self.step(ids, state)
        return _mul(head.rows, head.scale[:, None])

    @staticmethod
    def sample(head, seed=0, position=0, temperature=0.0, top_k=0, top_p=1.0):
        """Next tokens (int64 [B]) of Rows; temperature 0 is greedy, ties go to the lowest row.

        ``seed`` and ``position`` (that of the token just read) are numbers or arrays [B]. ``top_k`` 0: no list, and
        then no ``top_p`` either; ``top_p`` 1: the whole list. Greedy needs neither.
        """
        if top_k < 0:
            raise ValueError(f"top-k {top_k}: use 0 or more")
        p_code = 0 if top_p == 1 else toplist.p_code_of(top_p)
        if p_code and not top_k:
            raise ValueError(f"top-p {top_p}: works on a list, so give top-k as well")
        scores = _mul(head.rows, head.scale[:, None])
        if temperature > 0:
            keys = np.broadcast_to(rng.key(seed, position), head.scale.shape)
            t, scores = sample_scores(scores, keys, round24(1 / temperature))
            if top_k:
                return np.array([toplist.choose(one, score, top_k, p_code)
                                 for one, score in zip(t, scores, strict=True)], np.int64)
        return np.argmax(scores, -1)

    def generate(self, prompt_ids, n, seed=0, temperature=0.0, start_state=None, start_position=0, stop=None,
                 top_k=0, top_p=1.0):
        """n next tokens (list of int) after a prompt.

        Parameters
        ----------
        prompt_ids : sequence of int
            At least one token; the first stands at ``start_position``.
        start_state : array [L, 1, H], optional
            Advanced in place. The last token returned has not been read yet.
        stop : int, optional
            A token that ends the text; it is returned as the last one.
        top_k, top_p
            As for ``sample``.
        """
        if not len(prompt_ids):
            raise ValueError("the prompt is empty: give at least the start token")
        state = self.start(1) if start_state is None else start_state
        out = []
        for position in range(start_position, start_position + len(prompt_ids) + n - 1):
            at = position - start_position
            head = self.step([prompt_ids[at] if at < len(prompt_ids) else out[-1]], state)
            if at + 1 >= len(prompt_ids):
                out.append(int(self.sample(head, seed, position, temperature, top_k, top_p)[0]))
                if out[-1] == stop:
                    break
        return out
