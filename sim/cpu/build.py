"""Compiles the kernels once per machine, and loads them."""

import ctypes
import hashlib
import os
import platform
import tempfile
from functools import cache
from pathlib import Path

from sterna.sim.golden.compiler import ToolError, builds_folder, compiler, compiler_version, locked, must_run
from sterna.sim.golden.extras import install_hint
from sterna.sim.golden.files import write_files
from sterna.sim.golden.progress import working

KERNELS = Path(__file__).resolve().parent / "kernels"
# Nothing here lets the compiler change a result: no fused multiplications and additions, no other order of sums. That
# comparisons cannot trap and that functions set no errno only lets it make vectors.
FLAGS = ("-x", "c", "-std=gnu11", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-w",
         "-fno-sanitize=undefined", "-fPIC", "-shared")
LIBRARIES = ("-lpthread", "-lm")
# Of each way to compute: what compiles it. The first is for this machine; the others are for tests of what other
# machines would run.
PATHS = {"native": (("-march=native",), ("-mcpu=native",), ()),
         "avx2": (("-march=x86-64-v3",), ("-march=x86_64_v3",)),
         "plain": (("-DSTERNA_PLAIN",),)}


class CompilerError(ToolError):
    """There is no compiler for the kernels, or it does not compile them."""


def machine():
    """What of this machine the compiled kernels depend on (str): a library from another one may not run here."""
    found = [platform.system(), platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return " ".join([*found, platform.processor()])
    wanted = ("flags", "Features", "model name", "CPU part", "isa")
    # The first of each: processors of one machine are alike in what they run.
    first = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            first.setdefault(name.strip(), value.strip())
    return " ".join([*found, *map(str, sorted(first.items()))])


def sources():
    """Source files of the kernels, sorted by path (list of pathlib.Path)."""
    return sorted(path for path in KERNELS.iterdir() if path.suffix in (".c", ".h"))


def _key(path, command):
    total = hashlib.sha256()
    parts = [path, *map(repr, (FLAGS, LIBRARIES, PATHS[path])), command, machine()]
    for part in [*(text.encode() for text in parts), *(source.read_bytes() for source in sources())]:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:20]


def _whole(library, total):
    """Whether a library is there and is what was written: a damaged one would end this process."""
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest() == total.read_text()
    except OSError:
        return False


def _compile(path, library, total):
    with tempfile.TemporaryDirectory() as folder, working() as step:
        step("compiling the kernels of --device cpu (once on this machine)")
        out = Path(folder) / "kernels.so"
        ways = PATHS[path]
        for flags in ways:
            try:
                must_run([*compiler(), *FLAGS, *flags, KERNELS / "model.c", "-o", out, *LIBRARIES],
                         "compiling the kernels of --device cpu")
                break
            except ToolError as error:
                if flags is ways[-1]:
                    raise CompilerError(f"{' '.join(str(error).split())}: use another compiler with CXX, or "
                                        "--device golden") from None
        try:
            data = out.read_bytes()
        except OSError:
            raise CompilerError(f"compiling the kernels of --device cpu: {' '.join(compiler())} wrote no library: "
                                "use another compiler with CXX, or --device golden") from None
    write_files({library: data, total: hashlib.sha256(data).hexdigest()})


@cache
def kernels(path="native"):
    """The compiled kernels (ctypes.CDLL), compiled if they have not been yet.

    Parameters
    ----------
    path : str
        One of ``PATHS``.

    Raises
    ------
    ToolError
        There is no compiler, or it fails, or the folder of builds cannot be written.
    """
    try:
        command = compiler_version()
    except ToolError as error:
        if os.environ.get("CXX", "").strip():
            raise CompilerError(f"--device cpu compiles its kernels once: {error}, or use --device golden") from None
        raise CompilerError("--device cpu compiles its kernels once, and there is no compiler: install g++ or "
                            f"clang++, or run {install_hint('compiler')}, or use --device golden") from None
    folder = builds_folder("cpu")
    library = folder / f"{_key(path, command)}.so"
    total = library.with_suffix(".sha256")
    if not _whole(library, total):
        with locked(folder / "lock"):
            if not _whole(library, total):
                _compile(path, library, total)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise CompilerError(f"{library} cannot be loaded ({error}): remove it, or use --device golden") from None
