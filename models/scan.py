"""Parallel scan of the gated linear recurrence h_t = f_t h_{t-1} + c_t (arXiv 2406.02528, section 3.3)."""

from functools import cache
from importlib.util import find_spec

import torch


@cache
def _triton():
    """The module of GPU kernels, None where Triton is not installed: the scan below runs on any device."""
    if find_spec("triton") is None:
        return None
    from sterna.models import scan_triton
    return scan_triton


def _scan_rows(f, c):
    """Inclusive scan along dim 1 of [N, T, H] in two levels of about sqrt(T) sequential steps each.

    Every step is one vector operation over all chunks, so the depth is 2 sqrt(T) instead of T.
    """
    n, t, h = f.shape
    size = 1 << max(0, (t.bit_length() - 1) // 2)
    if t % size:
        size = 1
    chunks = t // size
    f = f.view(n, chunks, size, h)
    c = c.view(n, chunks, size, h)
    out = torch.empty_like(c)
    decay = torch.empty_like(f)
    out[:, :, 0] = c[:, :, 0]
    decay[:, :, 0] = f[:, :, 0]
    for k in range(1, size):
        torch.addcmul(c[:, :, k], f[:, :, k], out[:, :, k - 1], out=out[:, :, k])
        torch.mul(f[:, :, k], decay[:, :, k - 1], out=decay[:, :, k])
    carry = out[:, 0, -1]
    for m in range(1, chunks):
        out[:, m].addcmul_(decay[:, m], carry.unsqueeze(1))
        carry = out[:, m, -1]
    return out.view(n, t, h)


class LinearRecurrence(torch.autograd.Function):
    """h_t = f_t * h_{t-1} + c_t with h_{-1} = 0, for f and c of shape [N, T, H]; a zero in f restarts the state."""

    @staticmethod
    def forward(ctx, f, c):
        f, c = f.contiguous(), c.contiguous()
        ctx.kernels = _triton() if f.is_cuda and f.dtype == torch.float32 else None
        h = ctx.kernels.forward(f, c) if ctx.kernels else _scan_rows(f, c)
        ctx.save_for_backward(f, h)
        return h

    @staticmethod
    def backward(ctx, grad):
        f, h = ctx.saved_tensors
        if ctx.kernels:
            return ctx.kernels.backward(f, h, grad.contiguous())
        # The adjoint runs the same recurrence backwards in time, with f shifted by one step.
        shifted = torch.zeros_like(f)
        shifted[:, :-1] = f[:, 1:]
        dc = _scan_rows(shifted.flip(1), grad.flip(1).contiguous()).flip(1)
        df = torch.zeros_like(f)
        torch.mul(dc[:, 1:], h[:, :-1], out=df[:, 1:])
        return df, dc


linear_recurrence = LinearRecurrence.apply
