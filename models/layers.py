"""Layers of the MatMul-free language model (arXiv 2406.02528; docs/numerics.md, L0), straight-through gradients."""

import torch
from torch import nn

from sterna.models.scan import linear_recurrence
from sterna.sim.golden.packed import ternary_already

INNER_EPS = 1e-6  # of the norm inside every BitLinear, whatever the checkpoint says
FLOOR = 1e-5  # of max|y| and of mean|W| in the two quantisers
LATENT_ZERO = 2**-10  # of the scale: magnitude of a latent weight whose trit is 0


def half_away(x):
    """Round to the nearest integer, halves away from zero (torch.round takes halves to even)."""
    return torch.sign(x) * torch.floor(torch.abs(x) + 0.5)


def ternarise(weight):
    """Trits (float: -1, 0, 1) and the scale max(mean|W|, 1e-5) of a latent weight of any shape;
    halves to even.

    A weight that is ternary already keeps its trits and its scale, as in
    `sterna.sim.golden.packed.ternarise`.
    """
    magnitude = weight.abs()
    mean = torch.clamp(magnitude.mean(), min=FLOOR)
    top, kept = ternary_already(magnitude)  # decided without waiting for the device
    trits = torch.clamp(torch.round(weight * (1 / mean)), -1, 1)
    return torch.where(kept, torch.sign(weight), trits), torch.where(kept, top, mean)


def latent(weight):
    """A weight to train from: that of a matrix that is ternary already, with the same trits and
    scale when derived.

    The scale of a matrix that training moves is the mean of all its magnitudes, zeros too, so from
    the first step on it would be smaller by their share. Here the zeros become small and the others
    larger, and the mean is the scale. Any other weight is returned as it is, and so is one of a
    scale below 1e-5, which no derivation gives.
    """
    magnitude = weight.abs()
    scale, kept = ternary_already(magnitude)
    if not kept or scale < FLOOR:
        return weight
    zero = magnitude == 0
    share = zero.double().mean()
    small = scale.double() * LATENT_ZERO
    large = (scale - share * small) / (1 - share)
    # Alternating, so that their sum is about zero.
    signs = 1 - 2 * (torch.arange(weight.numel(), device=weight.device) % 2).reshape(weight.shape)
    return torch.where(zero, small * signs, torch.sign(weight) * large).to(weight.dtype)


def rms_norm(x, weight, eps):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def quantise(y):
    """int8 codes as float and the step max|y|/127, one per row of the last dimension."""
    peak = torch.clamp(y.abs().amax(-1, keepdim=True), min=FLOOR)
    codes = torch.clamp(half_away(y * (127 / peak)), -128, 127)
    return codes, peak / 127


def rescale(acc, step, mean):
    """Integer products back to real units."""
    return acc.float() * (step * mean)


def split_gradient(grad, step, codes):
    """What the two backward products need: int8 rows of grad, their steps, grad * step, and the codes as float."""
    grad_step = torch.clamp(grad.abs().amax(-1, keepdim=True), min=1e-30) / 127
    return torch.round(grad / grad_step).to(torch.int8), grad_step, grad * step, codes.float()


def split_gradient_bf16(grad, step):
    """The operands of the two backward products in bfloat16: grad, and grad * step."""
    return grad.bfloat16(), (grad * step).bfloat16()


def scale_back(acc, mean):
    """A bfloat16 product back to float32 and to real units."""
    return acc.float() * mean


def quantise_bf16(y):
    """As ``quantise``, with the codes in bfloat16, which holds them exactly."""
    codes, step = quantise(y)
    return codes.bfloat16(), step


def quantise_int8(y):
    """As ``quantise``, with the codes in int8 (which never reach -128)."""
    codes, step = quantise(y)
    return codes.to(torch.int8), step


def mm_float32(a, b):
    """The product of bfloat16 matrices in float32: a bfloat16 product would round its result."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


class TernaryProduct(torch.autograd.Function):
    """y [N, in] times W [out, in], both quantised in the forward pass and straight-through in the backward one.

    ``products`` picks the arithmetic of the matrix products. Codes and trits are exact in all three, so the
    forward pass is the same; "int8" also rounds the gradient of y to int8 rows (fast where the CPU has VNNI),
    "bf16" rounds the operands of the backward pass to bfloat16, "fp32" rounds nothing.
    """

    @staticmethod
    def forward(ctx, y, weight, products):
        trits, mean = ternarise(weight)
        ctx.products = products
        if products == "int8":
            codes, step = quantise_int8(y)
            trits = trits.to(torch.int8)
            acc = torch._int_mm(codes, trits.t().contiguous())
        elif products == "bf16":
            codes, step = quantise_bf16(y)
            trits = trits.bfloat16()
            acc = mm_float32(codes, trits.t())
        else:
            codes, step = quantise(y)
            acc = codes @ trits.t()
        ctx.save_for_backward(codes, step, trits, mean)
        return rescale(acc, step, mean)

    @staticmethod
    def backward(ctx, grad):
        codes, step, trits, mean = ctx.saved_tensors
        if ctx.products == "int8":
            rows, grad_step, grad, codes = split_gradient(grad, step, codes)
            return rescale(torch._int_mm(rows, trits), grad_step, mean), grad.t() @ codes, None
        if ctx.products == "bf16":
            rows, grad = split_gradient_bf16(grad, step)
            return scale_back(rows @ trits, mean), mm_float32(grad.t(), codes), None
        return grad @ trits * mean, (grad * step).t() @ codes, None


class BitLinear(nn.Module):
    """RMSNorm, int8 activations per token, ternary weights per tensor. x [N, in] -> [N, out]."""

    def __init__(self, inputs, outputs, std):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * std)
        self.norm = nn.Module()
        self.norm.weight = nn.Parameter(torch.ones(inputs))
        self.products = "fp32"

    def forward(self, x):
        return TernaryProduct.apply(rms_norm(x, self.norm.weight, INNER_EPS), self.weight, self.products)


def mlgru_gates(f_raw, i_raw, lower, keep):
    """Forget gate f and input c of the recurrence; keep [N, T, 1] is 0 where a text starts: the state is emptied."""
    f = lower + (1 - lower) * torch.sigmoid(f_raw)
    c = nn.functional.silu(i_raw) * (1 - f)
    return f * keep, c


def mlgru_output(g_raw, h, weight, eps):
    """RMSNorm(g) * weight * silu(h)."""
    return rms_norm(g_raw, weight, eps) * nn.functional.silu(h)


def glu_backward(pair, grad):
    """Gradients of gate and value, given the gradient of silu(gate) * value."""
    gate, value = pair.chunk(2, -1)
    s = torch.sigmoid(gate)
    return grad * value * (s + gate * s * (1 - s)), grad * gate * s


def glu_forward(pair):
    """silu(gate) * value, the two halves of the last dimension."""
    gate, value = pair.chunk(2, -1)
    return nn.functional.silu(gate) * value


class GatedLinearUnit(torch.autograd.Function):
    """pair [N, 2 I] -> silu(gate) * value [N, I]; its backward pass is written out because it fuses better so."""

    @staticmethod
    def forward(ctx, pair):
        ctx.save_for_backward(pair)
        return glu_forward(pair)

    @staticmethod
    def backward(ctx, grad):
        return torch.cat(glu_backward(*ctx.saved_tensors, grad), -1)


glu = GatedLinearUnit.apply


class GluMixer(nn.Module):
    """The channel mixer of the published models: x [T, H] -> [T, H]."""

    def __init__(self, hidden, intermediate, std):
        super().__init__()
        self.gate_proj = BitLinear(hidden, 2 * intermediate, std)
        self.down_proj = BitLinear(intermediate, hidden, std)

    def forward(self, x):
        return self.down_proj(glu(self.gate_proj(x)))


class Block(nn.Module):
    """x += MLGRU(norm(x)); x += mlp(norm(x)), over [N, T, H]; in training, dropout on what each half adds.

    ``mlp`` is the channel mixer, a module [T, H] -> [T, H], or None for none.
    """

    def __init__(self, hidden, make_mlp, eps, std, dropout=0.0):
        super().__init__()
        self.eps, self.dropout = eps, dropout
        self.attn_norm = _Scale(hidden)
        self.attn = nn.Module()
        for name in "ifgo":
            setattr(self.attn, f"{name}_proj", BitLinear(hidden, hidden, std))
        self.attn.g_norm = _Scale(hidden)
        self.mlp_norm = _Scale(hidden)
        self.mlp = make_mlp()

    def forward(self, x, lower, keep):
        n, t, hidden = x.shape
        flat = x.reshape(n * t, hidden)
        y = rms_norm(flat, self.attn_norm.weight, self.eps)
        attn = self.attn
        f, c = mlgru_gates(attn.f_proj(y).view(n, t, hidden), attn.i_proj(y).view(n, t, hidden), lower, keep)
        h = linear_recurrence(f, c).reshape(n * t, hidden)
        flat = flat + self._drop(attn.o_proj(mlgru_output(attn.g_proj(y), h, attn.g_norm.weight, self.eps)))
        if self.mlp is not None:
            flat = flat + self._drop(self.mlp(rms_norm(flat, self.mlp_norm.weight, self.eps)))
        return flat.view(n, t, hidden)

    def _drop(self, x):
        return nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x


class _Scale(nn.Module):
    """The weight vector of an RMSNorm, initialised to one."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))


def compile_elementwise():
    """Let torch.compile fuse the element-wise functions of this module (needs a C++ compiler; about a minute)."""
    for name in ("rms_norm", "quantise", "quantise_bf16", "quantise_int8", "rescale", "split_gradient",
                 "split_gradient_bf16", "scale_back", "mlgru_gates", "mlgru_output", "glu_forward", "glu_backward"):
        globals()[name] = torch.compile(globals()[name], dynamic=False)
