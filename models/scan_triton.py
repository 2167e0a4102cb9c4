"""The recurrence's scan on a GPU: one Triton program walks a block of channels through time.

Per token and channel it moves what it must and nothing else: f and c in, h out; backwards f, h and the gradient in,
both gradients out. There is no second level, because rows and channels alone give thousands of independent walks.
"""

import torch
import triton
import triton.language as tl

BLOCK = 32  # channels per program, one warp


@triton.jit
def _forward(f, c, h, steps: tl.constexpr, width, block: tl.constexpr):
    """h_t = f_t h_{t-1} + c_t; the next step's operands are loaded ahead of this step's arithmetic."""
    channel = tl.program_id(1) * block + tl.arange(0, block)
    live = channel < width
    at = tl.program_id(0).to(tl.int64) * steps * width + channel
    state = tl.zeros([block], tl.float32)
    decay, value = tl.load(f + at, live, 0.0), tl.load(c + at, live, 0.0)
    for t in range(steps):
        more = live & (t + 1 < steps)
        decay_next, value_next = tl.load(f + at + width, more, 0.0), tl.load(c + at + width, more, 0.0)
        state = decay * state + value
        tl.store(h + at, state, live)
        decay, value = decay_next, value_next
        at += width


@triton.jit
def _backward(f, h, grad, df, dc, steps: tl.constexpr, width, block: tl.constexpr):
    """dc_t = f_{t+1} dc_{t+1} + grad_t and df_t = dc_t h_{t-1}, from the last step to the first."""
    channel = tl.program_id(1) * block + tl.arange(0, block)
    live = channel < width
    at = (tl.program_id(0).to(tl.int64) * steps + steps - 1) * width + channel
    carry = tl.zeros([block], tl.float32)
    inner = live & (steps > 1)
    decay, value = tl.load(f + at, live, 0.0), tl.load(grad + at, live, 0.0)
    before = tl.load(h + at - width, inner, 0.0)
    for k in range(steps):
        more = live & (k + 1 < steps)
        decay_next, value_next = tl.load(f + at - width, more, 0.0), tl.load(grad + at - width, more, 0.0)
        before_next = tl.load(h + at - 2 * width, live & (k + 2 < steps), 0.0)
        total = carry + value
        tl.store(dc + at, total, live)
        tl.store(df + at, total * before, live)
        carry = decay * total
        decay, value, before = decay_next, value_next, before_next
        at -= width


def _grid(f):
    return f.shape[0], triton.cdiv(f.shape[2], BLOCK)


def forward(f, c):
    """h [N, T, H] for float32 f and c of that shape, contiguous."""
    h = torch.empty_like(c)
    _forward[_grid(f)](f, c, h, f.shape[1], f.shape[2], BLOCK, num_warps=1)
    return h


def backward(f, h, grad):
    """Gradients (df, dc) of f and c, given that of h; all contiguous."""
    df, dc = torch.empty_like(f), torch.empty_like(f)
    _backward[_grid(f)](f, h, grad, df, dc, f.shape[1], f.shape[2], BLOCK, num_warps=1)
    return df, dc
