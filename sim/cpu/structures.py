"""The structures of the kernels' sources, as ctypes has them."""

import ctypes
from ctypes import POINTER, Structure, c_double, c_int, c_int8, c_int32, c_int64, c_uint32, c_void_p

import numpy as np

from sterna.sim.golden import tables
from sterna.sim.golden.fp24 import round24

MATRICES = ("f", "i", "g", "o", "gate", "value", "down")
TABLES = ("tree_in", "tree_out")
VECTORS = ("attn_outer", "w_f", "w_i", "w_g_in", "keep", "g_norm", "o_in", "mlp_outer", "w_gate", "w_down", "w_tree")
Doubles, Codes = POINTER(c_double), POINTER(c_int8)


class Layer(Structure):
    """struct layer of call.h."""

    _fields_ = [("matrix", c_void_p * len(MATRICES)), ("ws", c_double * len(MATRICES)),
                *((name, c_void_p) for name in TABLES), *((f"ws_{name}", c_double) for name in TABLES),
                *((name, Doubles) for name in VECTORS)]


class Constants(Structure):
    """struct constants of fp24.h."""

    _fields_ = [(name, c_double) for name in ("outer_eps", "per_hidden", "per_inner", "inner_eps", "floor", "large")]


class Tables(Structure):
    """struct tables of fp24.h."""

    _fields_ = [("slope", c_double * tables.WORDS), ("intercept", c_double * tables.WORDS),
                ("sigmoid_slope", c_double * 514), ("sigmoid_intercept", c_double * 514)]


class ModelStructure(Structure):
    """struct model of call.h."""

    _fields_ = [*((name, c_int) for name in ("hidden", "inner", "layers", "vocabulary", "wide", "inner_wide",
                                           "trees", "levels", "always")),
                ("constants", Constants), ("tables", POINTER(Tables)), ("layer", POINTER(Layer)),
                ("embedding", Codes), ("embedding_scale", Doubles), ("final_outer", Doubles), ("w_head", Doubles),
                ("head", c_void_p), ("ws_head", c_double), ("pool", c_void_p)]


class Call(Structure):
    """struct call of call.h; what the kernels keep there themselves stands at its end."""

    _fields_ = [("model", POINTER(ModelStructure)),
                *((name, c_int) for name in ("columns", "first", "last", "embeds")),
                ("tokens", POINTER(c_int64)), ("slots", POINTER(c_int32)), ("state", Doubles),
                ("layer_stride", c_int64), ("slot_stride", c_int64), ("x", Doubles), ("u", Doubles * 3),
                ("t", Doubles), ("v", Doubles), ("code", Codes * 3), ("scalars", Doubles), ("scale", Doubles),
                ("code_sum", POINTER(c_int32)), ("sum", POINTER(c_int32)), ("path", POINTER(c_int32)),
                ("heads", c_int), ("head_columns", POINTER(c_int32)),
                ("rows", Doubles), ("head_scale", Doubles),
                ("layer", c_int), ("outer", Doubles), ("folded", Doubles * 3), ("ws", c_double * 3),
                ("matrices", c_int)]


class Draw(Structure):
    """struct draw of sampler.h."""

    _fields_ = [("tables", POINTER(Tables)), ("pool", c_void_p),
                *((name, c_int) for name in ("columns", "vocabulary", "sampled", "top")),
                ("inverse_temperature", c_double), ("ln2", c_double), ("rows", Doubles), ("scale", Doubles),
                ("keys", POINTER(c_uint32)), ("best", Doubles), ("best_row", POINTER(c_int64)),
                ("next", POINTER(c_int64)), ("list_t", Doubles), ("list_score", Doubles),
                ("list_row", POINTER(c_int64)), ("list_count", POINTER(c_int32)), ("targets", POINTER(c_int64)),
                ("likelihood", Doubles)]


def pointer(array, kind=Doubles):
    """The address of a NumPy array as a pointer; whoever keeps it keeps the array too."""
    return ctypes.cast(array.ctypes.data, kind)


def table_structure():
    """The Tables of docs/numerics.md."""
    out = Tables()
    slope, intercept = tables.entries()
    sigmoid = tables.sigmoid_entries()
    for field, values in (("slope", slope), ("intercept", intercept), ("sigmoid_slope", sigmoid[0]),
                          ("sigmoid_intercept", sigmoid[1])):
        np.ctypeslib.as_array(getattr(out, field))[:] = values
    return out


def inner_of(geometry):
    """Values of the norm inside the channel mixer (int): I of a gated linear unit, N of trees."""
    return geometry.visits if geometry.mixer == "tree" else geometry.intermediate_size


def constants_of(geometry):
    """The Constants of a geometry (docs/numerics.md, section 5)."""
    return Constants(round24(geometry.rms_norm_eps), round24(1 / geometry.hidden_size),
                     round24(1 / inner_of(geometry)), round24(1e-6), round24(1e-5), round24(1.27e7))


def declare(library):
    """Gives the functions of the kernels their types; RuntimeError if the structures differ from those here."""
    library.sterna_path.restype = ctypes.c_char_p
    library.sterna_pool.restype = c_void_p
    library.sterna_pool.argtypes = [c_int]
    library.sterna_threads.argtypes = library.sterna_pool_free.argtypes = [c_void_p]
    library.sterna_pool_free.restype = library.sterna_run.restype = library.sterna_draw.restype = None
    library.sterna_likelihood.restype = library.sterna_pack.restype = library.sterna_unmap.restype = None
    library.sterna_run.argtypes = [POINTER(Call)]
    library.sterna_draw.argtypes = library.sterna_likelihood.argtypes = [POINTER(Draw)]
    library.sterna_pack.argtypes = [c_void_p, POINTER(c_int8), c_int, c_int]
    library.sterna_pack_table.restype = None
    library.sterna_pack_table.argtypes = library.sterna_pack.argtypes
    library.sterna_matrix_bytes.restype = library.sterna_table_bytes.restype = c_int64
    library.sterna_matrix_bytes.argtypes = library.sterna_table_bytes.argtypes = [c_int, c_int]
    library.sterna_map.restype = c_void_p
    library.sterna_map.argtypes = [c_int64]
    library.sterna_unmap.argtypes = [c_void_p, c_int64]
    library.sterna_try.argtypes = [c_int, POINTER(Tables), Doubles, Doubles, Doubles, Doubles, c_int]
    library.sterna_try_rows.argtypes = [POINTER(c_int32), c_void_p, c_int, POINTER(c_int8), c_int, c_int]
    library.sterna_try_table.argtypes = [c_int, POINTER(c_int32), c_void_p, c_int, POINTER(c_int32), POINTER(c_int8),
                                         c_int]
    library.sterna_try.restype = library.sterna_try_rows.restype = library.sterna_try_table.restype = None
    for which, structure in enumerate((Layer, ModelStructure, Call, Tables, Draw)):
        if library.sterna_sizes(which) != ctypes.sizeof(structure):
            raise RuntimeError(f"{structure.__name__} has {ctypes.sizeof(structure)} bytes here and "
                               f"{library.sterna_sizes(which)} in the kernels")
    return library
