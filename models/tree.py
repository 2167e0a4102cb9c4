"""Fast feedforward, ternary: a channel mixer of which a token reads one path in each of many trees.

K trees of depth D, A always-on neurons, hidden size H. A tree has 2^(D+1) - 1 nodes, each one neuron: a row of H
weights in either of two tables of E = A + K (2^(D+1) - 1) rows. Rows 0 to A - 1 are always on; row A + k nodes + n is
node n of tree k in heap order (children 2 n + 1 and 2 n + 2). A token visits N = A + K (D+1) of them:

    q, S = int8 codes of the normed x and their step times the table's scale, as in every ternary layer
    a = <trits_in[row], q>;   n -> 2 n + 1 + (a > 0), so that 0 goes left
    t = a S;   z = silu(t);   y = z / sqrt(sum of z^2 over the visited / N + 1e-6)
    out = sum over the visited of code(y) trits_out[row], times step and scale

Training and inference are this one function. Rounding is passed straight through, as in every ternary layer here. A
branch has no gradient of its own; ``gradient`` gives it one:

    "none"    the rows of a path learn as neurons alone
    "child"   dL/dt[n] += s (1 - s) (G[right] - G[left]) at each visited node n above the leaves, with
              s = sigmoid(t[n]) and G[i] = z[i] dL/dz[i], which is what the loss gains to first order by switching
              neuron i on. It is the gradient of a mixture in which the right child has the weight s and the left
              one 1 - s, taken at the hard choice.
    "path"    the same with, in place of G of a child, the sum of G along the path that goes on from it

``routing`` replaces the sign of a in controls: "frozen" goes by fixed random rows instead of the node's own,
"coin" by chance.
"""

from dataclasses import dataclass

import torch
from torch import nn

from sterna.models import layers

WALK_FROM = 32  # rows of a table per visited row from which the walk is faster than the mask (docs/fff-learning.md)


@dataclass(frozen=True, kw_only=True)
class TreeOptions:
    """How trees are trained; none of it is in a checkpoint.

    ``balance`` is the weight of ``Tree.penalty`` in the loss; ``form`` how the same function is computed: "masked"
    (all rows for all tokens), "walk" (the visited rows alone) or "auto".
    """

    gradient: str = "child"
    balance: float = 0.0
    routing: str = "own"
    form: str = "auto"


def level(values, depth):
    """The nodes of one level of trees: [..., nodes] in heap order -> [..., 2^depth]."""
    return values[..., 2**depth - 1:2**(depth + 1) - 1]


def masked(t, factors, visits):
    """silu(t) factors, divided by the root of its mean square over ``visits`` values."""
    z = nn.functional.silu(t) * factors
    return z * torch.rsqrt(z.square().sum(-1, keepdim=True) / visits + layers.INNER_EPS)


def visited_nodes(t, right, depth):
    """1.0 for the nodes that are visited, 0.0 for others [..., nodes], like t; by the decisions ``right``."""
    parts = [torch.ones_like(level(t, 0))]
    for d in range(depth):
        r = level(right, d).to(t.dtype)
        parts.append(torch.stack((parts[d] * (1 - r), parts[d] * r), -1).flatten(-2))
    return torch.cat(parts, -1)


def branch_gradient(t, right, visited, grad, depth, along_path):
    """Gradient of the logits t, given that of the mask: "child", or "path" with ``along_path``."""
    parts, below = [torch.zeros_like(level(t, depth))], level(grad, depth)
    for d in reversed(range(depth)):
        left_of, right_of = below.unflatten(-1, (2**d, 2)).unbind(-1)
        s = torch.sigmoid(level(t, d))
        parts.append(level(visited, d) * s * (1 - s) * (right_of - left_of))
        below = level(grad, d)
        if along_path:
            below = below + torch.where(level(right, d), right_of, left_of)
    return torch.cat(parts[::-1], -1)


class Visited(torch.autograd.Function):
    """Which nodes are visited: logits and decisions [..., nodes] -> 1.0 or 0.0 for each; the gradient is that of
    ``gradient`` in the page above.
    """

    @staticmethod
    def forward(ctx, t, right, depth, gradient):
        visited = visited_nodes(t, right, depth)
        ctx.save_for_backward(t, right, visited)
        ctx.depth, ctx.gradient = depth, gradient
        return visited

    @staticmethod
    def backward(ctx, grad):
        if ctx.gradient == "none":
            return None, None, None, None
        t, right, visited = ctx.saved_tensors
        return branch_gradient(t, right, visited, grad, ctx.depth, ctx.gradient == "path"), None, None, None


class PathProduct(torch.autograd.Function):
    """a[T, n] = <trits[rows[T, n]], codes[T]> in real units; gradients reach the rows and y, straight through.

    ``codes`` and ``step`` are of y [T, H], which gets the gradient; ``trits`` and ``mean`` of weight [E, H].
    """

    @staticmethod
    def forward(ctx, y, weight, rows, codes, step, trits, mean):
        ctx.save_for_backward(rows, codes, step, trits, mean)
        acc = torch.bmm(trits[rows], codes.unsqueeze(-1)).squeeze(-1)
        return acc * (step * mean)

    @staticmethod
    def backward(ctx, grad):
        rows, codes, step, trits, mean = ctx.saved_tensors
        back = nn.functional.embedding_bag(rows, trits, per_sample_weights=grad * mean, mode="sum")
        return back, summed(rows, grad * step, codes, trits), None, None, None, None, None


def summed(rows, factors, vectors, like):
    """Gradient of a table: adds factors[T, n] vectors[T] to row rows[T, n] of zeros like ``like``."""
    return torch.zeros_like(like).index_add_(0, rows.flatten(), (factors.unsqueeze(-1) * vectors.unsqueeze(1))
                                             .flatten(0, 1))


class PathSum(torch.autograd.Function):
    """out[T] = sum over n of code(y)[T, n] trits[rows[T, n]] in real units, straight through."""

    @staticmethod
    def forward(ctx, y, weight, rows):
        trits, mean = layers.ternarise(weight)
        codes, step = layers.quantise(y)
        ctx.save_for_backward(rows, codes, step, trits, mean)
        acc = nn.functional.embedding_bag(rows, trits, per_sample_weights=codes, mode="sum")
        return layers.rescale(acc, step, mean)

    @staticmethod
    def backward(ctx, grad):
        rows, codes, step, trits, mean = ctx.saved_tensors
        back = torch.bmm(trits[rows], grad.unsqueeze(-1)).squeeze(-1) * mean
        return back, summed(rows, codes * step, grad, trits), None


class Hinge(torch.autograd.Function):
    """Ones and zeros like ``chosen`` and ``other``, by which both children of visited nodes are multiplied. Backward:
    the gradient "child" of the parents' logits t.
    """

    @staticmethod
    def forward(ctx, t, right):
        ctx.save_for_backward(t, right)
        return torch.ones_like(t), torch.zeros_like(t)

    @staticmethod
    def backward(ctx, chosen, other):
        t, right = ctx.saved_tensors
        s = torch.sigmoid(t)
        return s * (1 - s) * torch.where(right, chosen - other, other - chosen), None


class Tree(nn.Module):
    """x [T, H] -> [T, H]; the module's docstring says what it computes.

    Parameters
    ----------
    hidden, trees, depth, always : int
        H, K, D and A.
    std : float
        Of the first weights.
    options : TreeOptions

    Attributes
    ----------
    leaves : int64 tensor [T, K]
        Behind a forward pass in evaluation mode, the leaf (0 to 2^D - 1) in which each token ended.
    penalty : tensor or None
        Behind a forward pass in training mode with ``balance`` above 0: mean over visited inner nodes of
        (2 f - 1)(2 p - 1), f the share of a node's tokens that go right and p their mean sigmoid(t). 0 where tokens
        go either way alike, 1 where a branch of every node is dead.
    """

    def __init__(self, hidden, trees, depth, always, std, options=None):
        super().__init__()
        self.trees, self.depth, self.always = trees, depth, always
        self.options = options or TreeOptions()
        self.nodes, self.visits = 2**(depth + 1) - 1, always + trees * (depth + 1)
        neurons = always + trees * self.nodes
        self.tree_in = layers.BitLinear(hidden, neurons, std)
        self.tree_out = nn.Module()
        self.tree_out.weight = nn.Parameter(torch.randn(neurons, hidden) * std)
        self.leaves = self.penalty = None
        if self.options.routing == "frozen":
            self.register_buffer("_frozen", torch.randn(neurons, hidden), persistent=False)

    @property
    def choices(self):
        """Trees, and leaves of each."""
        return self.trees, 2**self.depth

    @property
    def balance(self):
        """Weight of ``penalty`` in the loss."""
        return self.options.balance

    @property
    def is_walked(self):
        """Whether the visited rows alone are computed."""
        form, rows = self.options.form, self.tree_in.weight.shape[0]
        able = self.options.gradient != "path" and self.options.routing == "own"
        return able and self.depth > 0 and (form == "walk" or form == "auto" and rows >= WALK_FROM * self.visits)

    def forward(self, x):
        return self._walk(x) if self.is_walked else self._masked(x)

    def _decisions(self, x, t):
        """Which nodes send a token right: bool [T, K, nodes]."""
        if self.options.routing == "coin":
            return torch.rand_like(t) < 0.5
        if self.options.routing == "frozen":
            y = layers.rms_norm(x.detach(), self.tree_in.norm.weight.detach(), layers.INNER_EPS)
            return (y @ self._frozen[self.always:].t()).view(t.shape) > 0
        return t > 0

    def _masked(self, x):
        """All rows for all tokens; those that are not visited times 0."""
        t = self.tree_in(x)
        if self.depth:
            inner = t[:, self.always:].unflatten(-1, (self.trees, self.nodes))
            right = self._decisions(x, inner.detach())
            visited = Visited.apply(inner, right, self.depth, self.options.gradient)
            if self.training and self.options.balance:
                self.penalty = self._penalty(inner, right, visited)
            if not self.training:
                self.leaves = level(visited, self.depth).argmax(-1)
            visited = nn.functional.pad(visited.flatten(1), (self.always, 0), value=1.0)
            y = masked(t, visited, self.visits)
        else:
            y = masked(t, 1.0, self.visits)
        return layers.TernaryProduct.apply(y, self.tree_out.weight.t(), self.tree_in.products)

    def _penalty(self, t, right, visited):
        inner = self.nodes // 2
        reach = visited[..., :inner].detach()
        count = reach.sum(0)
        share = (reach * right[..., :inner]).sum(0) / count.clamp(min=1)
        mean = (reach * torch.sigmoid(t[..., :inner])).sum(0) / count.clamp(min=1)
        return (count * (2 * share - 1) * (2 * mean - 1)).sum() / count.sum()

    def _walk(self, x):
        """The visited rows alone, gathered level by level; with "child" their siblings too."""
        y = layers.rms_norm(x, self.tree_in.norm.weight, layers.INNER_EPS)
        tokens, weight = len(x), self.tree_in.weight
        with torch.no_grad():
            codes, step = layers.quantise(y)
            trits, mean = layers.ternarise(weight)
            roots = self.always + self.nodes * torch.arange(self.trees, device=x.device)
            node = torch.zeros(tokens, self.trees, dtype=torch.long, device=x.device)
            found, other, rights = [roots + node], [], []
            for _ in range(self.depth):
                acc = torch.bmm(trits[roots + node], codes.unsqueeze(-1)).squeeze(-1)
                right = acc > 0
                node, sibling = 2 * node + 1 + right.long(), 2 * node + 2 - right.long()
                found.append(roots + node)
                other.append(roots + sibling)
                rights.append(right)
            if not self.training:
                self.leaves = node - (2**self.depth - 1)
            always = torch.arange(self.always, device=x.device).expand(tokens, self.always)
            rows = torch.cat((always, *found), 1)
            right = torch.cat(rights, 1)
        t = PathProduct.apply(y, weight, rows, codes, step, trits, mean)
        z = nn.functional.silu(t)
        inner = t[:, self.always:self.visits - self.trees]
        if self.training and self.options.balance:
            self.penalty = self._walked_penalty(inner, rows[:, self.always:self.visits - self.trees], right)
        fixed = self.always + self.trees  # rows that no branch chooses
        if not (self.options.gradient == "child" and torch.is_grad_enabled()):
            return self._path_out(z, z, rows)
        # What a sibling would do, to first order; its own weights learn nothing from not being visited.
        with torch.no_grad():
            siblings = torch.cat(other, 1)
            acc = torch.bmm(trits[siblings], codes.unsqueeze(-1)).squeeze(-1)
            idle = nn.functional.silu(acc * (step * mean))
        chosen, absent = Hinge.apply(inner, right)
        z = torch.cat((z[:, :fixed], z[:, fixed:] * chosen), 1)
        return self._path_out(z, torch.cat((z, idle * absent), 1), torch.cat((rows, siblings), 1))

    def _path_out(self, z, every, rows):
        """The output of visited values z; ``every`` [T, rows] are those that are summed: z, and zeros behind."""
        scale = torch.rsqrt(z.square().sum(-1, keepdim=True) / self.visits + layers.INNER_EPS)
        return PathSum.apply(every * scale, self.tree_out.weight, rows)

    def _walked_penalty(self, t, rows, right):
        size = self.tree_in.weight.shape[0]
        flat = rows.flatten()
        zeros = torch.zeros(size, dtype=t.dtype, device=t.device)
        count = zeros.index_add(0, flat, torch.ones_like(t).flatten())
        share = zeros.index_add(0, flat, right.to(t.dtype).flatten()) / count.clamp(min=1)
        mean = zeros.index_add(0, flat, torch.sigmoid(t).flatten()) / count.clamp(min=1)
        return (count * (2 * share - 1) * (2 * mean - 1)).sum() / count.sum()


def compile_elementwise():
    """Let torch.compile fuse the element-wise functions of this module."""
    for name in ("masked", "visited_nodes", "branch_gradient"):
        globals()[name] = torch.compile(globals()[name], dynamic=False)
