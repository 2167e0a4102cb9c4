"""The model in the arithmetic of the hardware, by kernels in C: bit for bit what `sim.golden.model` gives."""

import ctypes
import os
import threading
import weakref
from ctypes import c_int32, c_int64, c_uint32

import numpy as np

from sterna.sim.cpu.build import kernels
from sterna.sim.cpu.structures import Call, Codes, Draw, declare, pointer
from sterna.sim.cpu.weights import Weights
from sterna.sim.golden import rng, toplist
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.fp24 import LN2, round24, round24_into
from sterna.sim.golden.model import Rows

BLOCK = 96  # columns of a call: tokens that share one reading of the weights
THREADS_VARIABLE = "STERNA_THREADS"
MOST_THREADS = 256
_CHUNK = 1024  # rows of a task of the sampler
MIXERS = ("glu",)  # of the models that the kernels compute


class KernelsError(SternaError, ValueError):
    """A model that the kernels do not compute."""


class ThreadsError(SternaError, ValueError):
    """A number of threads that cannot be."""


def usable_threads():
    """Threads to use where nobody says how many: $STERNA_THREADS, or the processors that this process may use (int).

    A container's limit on the time of its processors counts too, as more threads would wait for one another.
    """
    named = os.environ.get(THREADS_VARIABLE, "").strip()
    if named:
        if not named.isdecimal() or not 1 <= int(named) <= MOST_THREADS:
            raise ThreadsError(f"{THREADS_VARIABLE}={named}: use 1 to {MOST_THREADS}")
        return int(named)
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        count = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such limit
        pass
    return min(count, MOST_THREADS)


class CpuModel:
    """The accelerator's arithmetic in kernels for this machine's processor; results are those of `GoldenModel`.

    One thread at a time computes with it; others wait. A process may fork, and the child goes on alone; but not while
    another of its threads is in a call: the child would wait for a thread that it does not have.

    Parameters
    ----------
    packed : PackedModel
        Its layers are taken in order, once each, and not kept.
    threads : int, optional
        Threads that compute, the caller's among them; ``usable_threads()`` if it is not given.
    path : str
        Which kernels: a name of ``build.PATHS``.
    progress : callable(done, total)
        Told about the loading.

    Attributes
    ----------
    geometry : Geometry
    weight_bytes : int
        Bytes of weights that a token with its head reads from memory.
    path : str
        How products are computed, for people.

    Raises
    ------
    KernelsError
        A model with trees, which the kernels do not have.
    ToolError
        No compiler; see ``build.kernels``.
    PackError
        A matrix has too many columns for exact sums.
    """

    def __init__(self, packed, threads=None, path="native", progress=lambda done, total: None):
        threads = usable_threads() if threads is None else threads
        if not 1 <= threads <= MOST_THREADS:
            raise ThreadsError(f"{threads} threads: use 1 to {MOST_THREADS}")
        if packed.geometry.mixer not in MIXERS:
            raise KernelsError(f"the model's channel mixer is {packed.geometry.mixer!r} and the kernels of this "
                               f"processor have {', '.join(MIXERS)} alone: use --device golden")
        self.geometry, self._library = packed.geometry, declare(kernels(path))
        self._pool = self._library.sterna_pool(threads)
        if not self._pool:
            raise MemoryError("no room for threads")
        self._end = weakref.finalize(self, self._library.sterna_pool_free, self._pool)
        self._end.atexit = False  # a daemon thread may be in a call then, and the kernel takes threads back anyway
        self.threads = self._library.sterna_threads(self._pool)
        self.path = self._library.sterna_path().decode()
        self._weights = Weights(packed, self._library, self._pool, progress)
        self.weight_bytes = self._weights.token_bytes
        self._lock, self._room = threading.Lock(), 0

    def close(self):
        """End the threads and give the memory back; the model cannot be used any more."""
        with self._lock:
            self._end()
            self._weights.close()

    def _check_open(self):
        if not self._end.alive:
            raise ValueError("the model has been closed")

    def start(self, batch):
        """State [L, B, H] (float64, fp24 values) of sequences at their start position."""
        return np.zeros((self.geometry.num_hidden_layers, batch, self.geometry.hidden_size))

    def embed(self, ids):
        """x [B, H] of token ids [B]."""
        return self._run(ids, np.arange(len(ids)), None, 0, 0)[0]

    def layer(self, number, x, h):
        """One layer: x [B, H] -> [B, H]; the state h [B, H] is advanced in place."""
        if not 0 <= number < self.geometry.num_hidden_layers:
            raise IndexError(f"layer {number} is not among {self.geometry.num_hidden_layers}")
        if np.shape(h) != np.shape(x):
            raise ValueError(f"a state of shape {np.shape(h)}: {np.shape(x)} goes with x")
        return self._run(None, np.arange(len(x)), h[None], number, number + 1, x)[0]

    def head(self, x):
        """Rows of the last layer's output x [B, H], up to BLOCK of them."""
        last = self.geometry.num_hidden_layers
        return self._run(None, np.zeros(len(x)), None, last, last, x, np.arange(len(x)))[1]

    def step(self, ids, state):
        """Read one token per sequence: ids [B], state [L, B, H] advanced in place -> Rows."""
        return self.columns(ids, np.arange(len(ids)), state, np.arange(len(ids)))

    def logits(self, ids, state):
        """As ``step``, but the fp24 logits row * S_head, float64 [B, V]."""
        return self._scaled(self.step(ids, state))

    def read(self, tokens, state, slot=0):
        """Read tokens of one sequence in blocks, without the head; ``state`` [L, B, H] is advanced in place."""
        self.columns(tokens, np.full(len(tokens), slot), state, ())

    def block_logits(self, tokens, state, slot=0):
        """Read tokens of one sequence; the logits behind each of them, float64 [T, V]."""
        return self._scaled(self.columns(tokens, np.full(len(tokens), slot), state, np.arange(len(tokens))))

    def columns(self, tokens, slots, state, heads):
        """Read tokens of several sequences, each its own in their order here.

        Parameters
        ----------
        tokens, slots : int arrays [N]
            A token, and the index in the state's second dimension of the sequence that it belongs to.
        state : array [L, B, H]
            Advanced in place.
        heads : int array
            Ascending indices of the tokens whose head is wanted.

        Returns
        -------
        Rows
            Of ``heads``, in their order.

        Raises
        ------
        IndexError
            A token, slot or head is not there, or the heads do not ascend.
        ValueError
            An array has another shape.
        """
        tokens, slots, heads = (np.asarray(each, np.int64) for each in (tokens, slots, heads))
        if tokens.ndim != 1 or slots.shape != tokens.shape:
            raise ValueError(f"slots of shape {slots.shape}: {tokens.shape} goes with the tokens")
        if np.any(np.diff(heads, prepend=-1, append=len(tokens)) < 1):
            raise IndexError(f"heads {heads.tolist()}: use ascending numbers below {len(tokens)}")
        parts = []
        for at in range(0, len(tokens), BLOCK):
            here = heads[(heads >= at) & (heads < at + BLOCK)] - at
            parts.append(self._run(tokens[at:at + BLOCK], slots[at:at + BLOCK], state, 0,
                                   self.geometry.num_hidden_layers, heads=here)[1])
        if len(parts) == 1:
            return parts[0]
        rows = [part.rows for part in parts] or [np.zeros((0, self.geometry.vocab_size))]
        return Rows(np.concatenate(rows), np.concatenate([part.scale for part in parts] or [np.zeros(0)]))

    def _reserve(self, columns):
        """Room for the vectors of so many columns."""
        if columns <= self._room:
            return
        s, self._room = self._weights.structure, columns
        most = max(s.wide, s.inner_wide)
        names = {"x": s.wide, "u0": most, "u1": s.wide, "u2": s.wide, "t": most, "v": most, "scalars": 5, "scale": 3}
        self.vectors = {name: np.zeros(columns * width) for name, width in names.items()}
        self.vectors |= {f"code{k}": np.zeros(columns * (most, s.wide, s.wide)[k], np.int8) for k in range(3)}
        self.vectors["code_sum"] = np.zeros(3 * columns, np.int32)

    def _call(self, **fields):
        """The Call with this model's vectors, and other fields."""
        at = {name: pointer(array) for name, array in self.vectors.items() if array.dtype == np.float64}
        call = Call(ctypes.pointer(self._weights.structure), x=at["x"], t=at["t"], v=at["v"], scalars=at["scalars"],
                    scale=at["scale"], code_sum=pointer(self.vectors["code_sum"], ctypes.POINTER(c_int32)), **fields)
        for k in range(3):
            call.u[k] = at[f"u{k}"]
            call.code[k] = pointer(self.vectors[f"code{k}"], Codes)
        return call

    def _run(self, tokens, slots, state, first, last, x=None, heads=()):
        """Layers ``first`` to ``last`` - 1 of up to BLOCK columns.

        Parameters
        ----------
        tokens : int array [N] or None
            None: ``x`` is given instead, and ``state`` is that of the one layer.
        slots : int array [N]
        state : array [L, B, H] or None
            None: no layer is run.
        first, last : int
        x : array [N, H], optional
        heads : int array
            Columns whose head is wanted.

        Returns
        -------
        x, head : float64 array [N, H] or None, Rows
            x only where there are no heads.
        """
        hidden, vocabulary = self.geometry.hidden_size, self.geometry.vocab_size
        slots, heads = np.ascontiguousarray(slots, np.int32), np.ascontiguousarray(heads, np.int32)
        columns = len(slots)
        if columns > BLOCK:
            raise ValueError(f"{columns} columns: at most {BLOCK}")
        own = np.zeros((1, 1, hidden)) if state is None else state
        if x is not None and np.shape(x) != (columns, hidden):
            raise ValueError(f"x of shape {np.shape(x)}: use {(columns, hidden)}")
        if state is not None:
            # Sequences may be any, but the kernels write where the model's own shape says.
            layers = last if tokens is not None else 1
            if state.ndim != 3 or (state.shape[0], state.shape[2]) != (layers, hidden):
                raise ValueError(f"a state of shape {state.shape}: use ({layers}, sequences, {hidden})")
            if columns and not 0 <= slots.min() <= slots.max() < state.shape[1]:
                raise IndexError(f"slot {slots.max()} is not among {state.shape[1]}")
            # The kernels take any distance between layers and slots, but not between elements.
            if not (state.dtype == np.float64 and state.strides[2] == 8 and state.flags.writeable):
                own = np.array(state, np.float64, order="C")
        fields = {"columns": columns, "first": first, "last": last, "embeds": tokens is not None, "heads": len(heads),
                  "layer_stride": 0 if tokens is None else own.strides[0] // 8, "slot_stride": own.strides[1] // 8}
        if tokens is not None:
            tokens = np.ascontiguousarray(tokens, np.int64)
            if columns and not 0 <= tokens.min() <= tokens.max() < vocabulary:
                raise IndexError(f"token {tokens.max()} is not among {vocabulary}")
            fields["tokens"] = pointer(tokens, ctypes.POINTER(c_int64))
        head = Rows(np.empty((len(heads), vocabulary)), np.empty(len(heads)))
        with self._lock:
            self._check_open()
            self._reserve(columns)
            wide = self._weights.structure.wide
            vectors = self.vectors["x"][:columns * wide].reshape(columns, wide)
            if x is not None:
                vectors[:, :hidden], vectors[:, hidden:] = x, 0
            call = self._call(
                slots=pointer(slots, ctypes.POINTER(c_int32)), state=pointer(own),
                head_columns=pointer(heads, ctypes.POINTER(c_int32)), rows=pointer(head.rows),
                head_scale=pointer(head.scale), **fields)
            if columns:
                self._library.sterna_run(ctypes.byref(call))
            x = None if len(heads) else vectors[:, :hidden].copy()
        if own is not state and state is not None:
            state[:] = own
        return x, head

    @staticmethod
    def _scaled(head):
        return round24_into(head.rows * head.scale[:, None])

    def _draw(self, head, **fields):
        """A Draw on Rows, and the arrays that it points to."""
        rows, scale = np.ascontiguousarray(head.rows, np.float64), np.ascontiguousarray(head.scale, np.float64)
        if rows.ndim != 2 or scale.shape != rows.shape[:1]:
            raise ValueError(f"scales of shape {scale.shape} do not go with rows of shape {rows.shape}")
        draw = Draw(ctypes.pointer(self._weights.tables), self._pool, len(rows), rows.shape[1], ln2=LN2,
                    rows=pointer(rows), scale=pointer(scale), **fields)
        return draw, (rows, scale)

    def sample(self, head, seed=0, position=0, temperature=0.0, top_k=0, top_p=1.0):
        """Next tokens (int64 [B]) of Rows; as ``GoldenModel.sample``."""
        if top_k < 0:
            raise ValueError(f"top-k {top_k}: use 0 or more")
        p_code = 0 if top_p == 1 else toplist.p_code_of(top_p)
        if p_code and not top_k:
            raise ValueError(f"top-p {top_p}: works on a list, so give top-k as well")
        columns, vocabulary = head.rows.shape
        top = min(top_k, vocabulary) if temperature > 0 else 0
        chunks = -(-vocabulary // _CHUNK) * (min(top, _CHUNK) or 1)
        best, best_row, out = np.empty((columns, chunks)), np.empty((columns, chunks), np.int64), \
            np.empty(columns, np.int64)
        kind = ctypes.POINTER(c_int64)
        draw, kept = self._draw(head, top=top, sampled=temperature > 0, best=pointer(best),
                                best_row=pointer(best_row, kind), next=pointer(out, kind))
        if temperature > 0:
            keys = np.array(np.broadcast_to(rng.key(seed, position), columns), np.uint32)
            draw.keys = pointer(keys, ctypes.POINTER(c_uint32))
            draw.inverse_temperature = round24(1 / temperature)
        if top:
            t, score = np.empty((columns, top)), np.empty((columns, top))
            row, count = np.empty((columns, top), np.int64), np.empty(columns, np.int32)
            draw.list_t, draw.list_score, draw.list_row = pointer(t), pointer(score), pointer(row, kind)
            draw.list_count = pointer(count, ctypes.POINTER(c_int32))
        with self._lock:
            self._check_open()
            if columns:
                self._library.sterna_draw(ctypes.byref(draw))
        del kept
        if top:
            for column in range(columns):
                taking = toplist.taking_part(t[column, :count[column]], p_code)
                out[column] = row[column, np.argmax(score[column, :taking])]
        return out

    def likelihood(self, head, targets):
        """Natural logarithms (float64 [B]) of the probabilities of target rows [B], from Rows."""
        targets, out = np.ascontiguousarray(targets, np.int64), np.empty(len(targets))
        if targets.shape != np.shape(head.scale):
            raise ValueError(f"targets of shape {targets.shape}: {np.shape(head.scale)} goes with the rows")
        draw, kept = self._draw(head, targets=pointer(targets, ctypes.POINTER(c_int64)), likelihood=pointer(out))
        if len(out) and not 0 <= targets.min() <= targets.max() < head.rows.shape[1]:
            raise IndexError(f"target {targets.max()} is not among {head.rows.shape[1]}")
        with self._lock:
            self._check_open()
            if len(out):
                self._library.sterna_likelihood(ctypes.byref(draw))
        del kept
        return out

    def generate(self, prompt_ids, n, seed=0, temperature=0.0, start_state=None, start_position=0, stop=None,
                 top_k=0, top_p=1.0):
        """n next tokens (list of int) after a prompt, as ``GoldenModel.generate``; the prompt is read in blocks."""
        if not len(prompt_ids):
            raise ValueError("the prompt is empty: give at least the start token")
        state = self.start(1) if start_state is None else start_state
        self.read(prompt_ids[:-1], state)
        out, token = [], prompt_ids[-1]
        for position in range(start_position + len(prompt_ids) - 1, start_position + len(prompt_ids) + n - 1):
            token = int(self.sample(self.step([token], state), seed, position, temperature, top_k, top_p)[0])
            out.append(token)
            if token == stop:
                break
        return out
