"""The kernel in C: compiled at its first use, as sim/cpu/build.py says."""

import ctypes
import weakref
from ctypes import c_int32, c_void_p
from pathlib import Path

import numpy as np

from sterna.sim.cmm.shape import HIDDEN
from sterna.sim.cpu.build import Source, kernels

SOURCE = Source(Path(__file__).parent, "kernels.c", ("-ffp-contract=fast",), "sterna bench-cmm", "do without it")


class Call(ctypes.Structure):
    """``struct cmm`` of kernels.c."""

    _fields_ = [(name, c_void_p) for name in ("table_in", "table_out", "x", "y", "path", "order", "value", "pool")]
    _fields_ += [(name, c_int32) for name in ("half", "trees", "levels", "batch", "stride")]


class Kernel:
    """The compiled kernel with its threads.

    Parameters
    ----------
    threads : int
    path : str
        A name of ``sim.cpu.build.PATHS``.

    Attributes
    ----------
    path : str
        Which vectors it computes with, for people.
    width : int
        Elements of a vector.

    Raises
    ------
    ToolError
        There is no compiler, or it fails.
    """

    def __init__(self, threads=1, path="native"):
        self._library = library = kernels(path, SOURCE)
        library.sterna_cmm_path.restype = ctypes.c_char_p
        library.sterna_cmm_pool.restype = c_void_p
        library.sterna_cmm_pool_free.argtypes = [c_void_p]
        library.sterna_cmm.argtypes = [c_void_p]
        library.sterna_cmm.restype = library.sterna_cmm_pool_free.restype = None
        if library.sterna_cmm_size() != ctypes.sizeof(Call):
            raise RuntimeError(f"struct cmm has {library.sterna_cmm_size()} bytes, {ctypes.sizeof(Call)} here")
        self.path, self.width = library.sterna_cmm_path().decode(), library.sterna_cmm_width()
        self._pool = library.sterna_cmm_pool(threads)
        if not self._pool:
            raise MemoryError(f"no room for {threads} threads")
        self.close = weakref.finalize(self, library.sterna_cmm_pool_free, self._pool)

    def room(self, tree, batch):
        """Memory that a call works in (tuple of array); calls one after the other may share it."""
        return (np.zeros((tree.visits, batch), np.int32), np.zeros((2, batch), np.int32),
                np.zeros((tree.visits, batch), np.float32))

    def prepare(self, tree, table_in, table_out, x, y, room=None, stride=HIDDEN):
        """A function without arguments that computes y [batch, HIDDEN] of x [batch, HIDDEN], both float32.

        Parameters
        ----------
        tree : Tree
        table_in, table_out : array [rows, HIDDEN]
            float32, or uint16: bfloat16 in the order of ``unpacked``. At least the tree's neurons.
        room : tuple, optional
            Of ``room``.
        stride : int
            Elements between two rows of x and of y.
        """
        room = room or self.room(tree, len(y))
        call = Call(*(array.ctypes.data for array in (table_in, table_out, x, y, *room)), self._pool,
                    table_in.dtype == np.uint16, tree.trees, tree.levels, len(y), stride)
        function, argument = self._library.sterna_cmm, ctypes.addressof(call)

        def run(function=function, argument=argument, kept=(self, call, table_in, table_out, x, y, room)):
            function(argument)

        return run

    def unpacked(self, table):
        """Bits of bfloat16 [rows, HIDDEN] in the order of the elements: a word of the kernel's holds element k of
        2 ``width`` ones in its low half, and element k + ``width`` in its high half.
        """
        pairs = table.reshape(len(table), -1, self.width, 2)
        return np.ascontiguousarray(pairs.transpose(0, 1, 3, 2)).reshape(table.shape)
