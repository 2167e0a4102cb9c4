"""The two programs, each behind the same two questions: how long does it take to make n tokens, or to read n?

A text starts empty each time. A prompt is random and its last token has an output too, as in llama-bench.
"""

import importlib.metadata
import json
import time
from importlib.resources import files

import numpy as np

from docs.figures.versus import machine
from docs.figures.versus.packages import load
from docs.figures.versus.randoms import random_packed
from sterna.host.model.model import Model

SEED = 1


def random_ids(count, vocab_size):
    """Token ids (list of int), the same for the same arguments."""
    return np.random.default_rng(SEED).integers(0, vocab_size, count).tolist()


class Program:
    """What both have."""

    def resident(self):
        """Bytes of its process in memory (int)."""
        return machine.resident_bytes()


class Llama(Program):
    """llama.cpp, as cyllama has compiled it. It makes no choice of a token: random ones are fed.

    Parameters
    ----------
    path : str
        A GGUF file.
    threads : int
    longest : int
        Tokens of the longest text.
    """

    def __init__(self, path, threads, longest):
        load("cyllama")
        from cyllama.llama import llama_cpp
        self._api, self._threads = llama_cpp, threads
        llama_cpp.disable_logging()
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.LlamaModel(path, verbose=False)
        params = llama_cpp.LlamaContextParams()
        params.n_ctx = params.n_batch = params.n_ubatch = longest
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.LlamaContext(self._model, params, verbose=False)
        self._vocab = int(self._model.meta_val_str("llama.vocab_size"))

    def about(self):
        """Version, instruction sets of the build, threads, and the number of the model's parameters (dict)."""
        from cyllama.whisper.whisper_cpp import print_system_info  # llama.cpp's own is not exported
        build = json.loads(files("cyllama").joinpath("build_config.json").read_text())["versions"]
        _, _, info = print_system_info().partition("CPU :")
        features = [part.partition("=")[0].strip() for part in info.split("|") if part.strip().endswith("= 1")]
        version = importlib.metadata.version("cyllama")
        return {"version": f"llama.cpp {build['llama_cpp_version']} of cyllama {version}",
                "features": " ".join(features), "threads": self._context.n_threads(),
                "parameters": self._model.n_params}

    def make(self, count):
        """Seconds in which ``count`` tokens are computed, one at a time."""
        return self._timed([[token] for token in random_ids(count, self._vocab)])

    def read(self, count):
        """Seconds in which a prompt of ``count`` tokens is read, in one block."""
        return self._timed([random_ids(count, self._vocab)])

    def _timed(self, blocks):
        self._context.kv_cache_clear()
        started, position = time.perf_counter(), 0
        for block in blocks:
            self._context.decode(self._api.llama_batch_get_one(block, position))
            position += len(block)
        self._context.synchronize()
        return time.perf_counter() - started


class Sterna(Program):
    """``--device cpu``. It makes greedy tokens.

    Parameters
    ----------
    source : Geometry or str
        Random weights of a geometry, or an image or checkpoint.
    threads : int
    """

    def __init__(self, source, threads):
        from sterna.sim.cpu.model import CpuModel
        packed = Model(source).packed if isinstance(source, str) else random_packed(source)
        self._model = CpuModel(packed, threads)
        self._threads, self._vocab = threads, packed.geometry.vocab_size

    def about(self):
        """Version, threads, kernels, and bytes that a token streams (dict)."""
        return {"version": f"sterna {importlib.metadata.version('sterna')}", "threads": self._threads,
                "bytes": self._model.weight_bytes, "kernels": self._model.path}

    def make(self, count):
        """Seconds in which ``count`` tokens are made, each from the one before."""
        started = time.perf_counter()
        self._model.generate(random_ids(1, self._vocab), count)
        return time.perf_counter() - started

    def read(self, count):
        """Seconds in which a prompt of ``count`` tokens is read."""
        ids = random_ids(count, self._vocab)
        started = time.perf_counter()
        state = self._model.start(1)
        self._model.read(ids[:-1], state)
        self._model.step(ids[-1:], state)
        return time.perf_counter() - started


class Memory:
    """What the machine reads: far more than its caches hold, and as much as a token reads.

    Parameters
    ----------
    far_bytes, near_bytes : int
    threads : int
    """

    def __init__(self, far_bytes, near_bytes, threads):
        from sterna.sim.cpu.stream import Stream
        self._streams = Stream(far_bytes, threads), Stream(near_bytes, threads)

    def rates(self):
        """Bytes a second of either (list of float)."""
        return [stream.rate() for stream in self._streams]
