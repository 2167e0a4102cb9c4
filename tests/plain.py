"""Sections 3 to 7 of docs/numerics.md, one sequence, one operation at a time, in the order of the text."""

import numpy as np
from sterna.sim.golden import tables
from sterna.sim.golden.fp24 import add, from_int, mac, mul, round24


def plain_sumsq(v):
    p = [0.0] * 64
    for j, x in enumerate(v):
        p[j % 64] = mac(x, x, p[j % 64])
    d = 32
    while d:
        for k in range(d):
            p[k] = add(p[k], p[k + d])
        d //= 2
    return p[0]


def plain_rsq(t):
    y = tables.rsqrt(t)
    return mul(y, mac(-mul(mul(y, y), t), 0.5, 1.5))


def plain_code(u, m):
    z = u * m
    return (np.sign(z) * np.minimum(127, np.floor(np.abs(z) + 0.5))).astype(np.int64)


class Plain:
    """One token at a time, one vector at a time.

    Attributes
    ----------
    walks : list of lists of (neuron, sum, whether it branches)
        Of every walk through a layer's trees.
    """

    def __init__(self, packed):
        self.p, g = packed, packed.geometry
        self.h = [np.zeros(g.hidden_size) for _ in packed.layers]
        self.eo = round24(g.rms_norm_eps)
        self.per_h, self.walks = round24(1 / g.hidden_size), []

    def two_norms(self, s1, s2):
        return plain_rsq(mac(mac(s1, self.per_h, self.eo), round24(1e-6), mul(s2, self.per_h)))

    def scaled(self, u, r, ws):
        """(codes of u, S)"""
        m = np.abs(u).max()
        scale = mul(max(mul(m, r), round24(1e-5)), ws)
        z0 = tables.recip(m)
        z = mul(z0, mac(-m, z0, 2.0))
        qm = min(mul(z, 127.0), mul(r, round24(1.27e7)))
        return plain_code(u, qm), scale

    def product(self, u, r, trits, ws):
        q, scale = self.scaled(u, r, ws)
        return from_int(trits.astype(np.int64) @ q), scale

    def token(self, token):
        p = self.p
        x = mul(from_int(p.embedding_codes[token]), p.embedding_scale[token])
        for w, h in zip(p.layers, self.h, strict=True):
            r = self.two_norms(plain_sumsq(x), plain_sumsq(mul(x, w.attn_outer)))
            row, s = self.product(mul(x, w.w_f), r, w.f, w.ws_f)
            k = mul(tables.sigmoid(-mul(row, s) + 0.0), w.keep)
            row, s = self.product(mul(x, w.w_i), r, w.i, w.ws_i)
            t = mul(row, s)
            h[:] = mac(k, mac(t, tables.sigmoid(t), -h), h)
            a = mul(h, tables.sigmoid(h))
            row, s = self.product(mul(x, w.w_g_in), r, w.g, w.ws_g)
            t = mul(row, s)
            v = mul(mul(t, a), w.g_norm)
            row, s = self.product(mul(v, w.o_in), self.two_norms(plain_sumsq(t), plain_sumsq(v)), w.o, w.ws_o)
            x = mac(row, s, x)
            r = self.two_norms(plain_sumsq(x), plain_sumsq(mul(x, w.mlp_outer)))
            x = self.trees(w, x, r) if hasattr(w, "tree_in") else self.gated(w, x, r)
        r = self.two_norms(plain_sumsq(x), plain_sumsq(mul(x, p.final_outer)))
        return self.product(mul(x, p.w_head), r, p.head, p.ws_head)

    def gated(self, w, x, r):
        row, s = self.product(mul(x, w.w_gate), r, w.gate, w.ws_gate)
        t, v = np.split(row, 2)
        t = mul(t, s)
        y = mul(mul(v, s), mul(t, tables.sigmoid(t)))
        r = plain_rsq(mac(plain_sumsq(y), round24(1 / len(y)), round24(1e-6)))
        row, s = self.product(mul(y, w.w_down), r, w.down, w.ws_down)
        return mac(row, s, x)

    def trees(self, w, x, r):
        g = self.p.geometry
        q, s_in = self.scaled(mul(x, w.w_tree), r, w.ws_tree_in)
        nodes = 2 ** (g.tree_depth + 1) - 1
        visited, z = [], []

        def visit(row, branches):
            a = sum(int(one) * int(trit) for one, trit in zip(q, w.tree_in[row], strict=True))
            t = mul(from_int(a), s_in)
            z.append(mul(t, tables.sigmoid(t)))
            visited.append((row, a, branches))
            return a

        for row in range(g.tree_always):
            visit(row, False)
        n = [0] * g.trees
        for d in range(g.tree_depth + 1):
            for k in range(g.trees):
                a = visit(g.tree_always + k * nodes + n[k], d < g.tree_depth)
                n[k] = 2 * n[k] + 2 if a > 0 else 2 * n[k] + 1
        self.walks.append(visited)
        z = np.array(z)
        r = plain_rsq(mac(plain_sumsq(z), round24(1 / len(z)), round24(1e-6)))
        c, s_out = self.scaled(z, r, w.ws_tree_out)
        y = np.zeros(g.hidden_size, np.int64)
        for code, (row, _, _) in zip(c, visited, strict=True):
            y += code * w.tree_out[row]
        return mac(from_int(y), s_out, x)
