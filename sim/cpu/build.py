"""Compiles the kernels once per machine, and loads them."""

import ctypes
import hashlib
import os
import platform
import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sterna.sim.golden.compiler import ToolError, builds_folder, compiler, compiler_version, locked, must_run
from sterna.sim.golden.extras import install_hint
from sterna.sim.golden.files import build_folder, write_files
from sterna.sim.golden.progress import working

KERNELS = Path(__file__).resolve().parent / "kernels"
# Nothing here lets the compiler change a result: no fused multiplications and additions, no other order of sums. That
# comparisons cannot trap and that functions set no errno only lets it make vectors.
FLAGS = ("-x", "c", "-std=gnu11", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-w",
         "-fno-sanitize=undefined", "-fPIC", "-shared")
LIBRARIES = ("-lpthread", "-lm")
_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
# Of each way to compute: what compiles it, and what does where the compiler does not know such a flag. The first
# is for this machine; the others are for tests of what other machines would run. On x86 -mcpu means another thing to
# gcc, which takes it and leaves out the machine's vectors.
PATHS = {"native": (("-march=native",) if _X86 else ("-mcpu=native",), ()),
         "avx2": (("-march=x86-64-v3",), ("-march=x86_64_v3",)),
         "plain": (("-DSTERNA_PLAIN",),)}


@dataclass(frozen=True)
class Source:
    """C code that becomes a library.

    Attributes
    ----------
    folder : Path or None
        Where it lies, if not in KERNELS, whose files it may include anyway.
    main : str
        The file that is compiled.
    flags : tuple of str
        Besides FLAGS, behind them.
    what, instead : str
        What it is for, and what to do without it: parts of messages.
    """

    folder: Path | None = None
    main: str = "model.c"
    flags: tuple = ()
    what: str = "--device cpu"
    instead: str = "use --device golden"


CPU = Source()


class CompilerError(ToolError):
    """There is no compiler for the kernels, or it does not compile them."""


def machine():
    """What of this machine the compiled kernels depend on (str): a library from another one may not run here."""
    found = [platform.system(), platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return " ".join([*found, platform.processor(), *_system_features()])
    wanted = ("flags", "Features", "model name", "CPU part", "isa")
    # The first of each: processors of one machine are alike in what they run.
    first = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            first.setdefault(name.strip(), value.strip())
    return " ".join([*found, *map(str, sorted(first.items()))])


def _system_features():
    """Lines of the processor's features where a system of the BSD family tells them (list of str)."""
    names = ("machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features", "hw.optional")
    try:
        done = subprocess.run(["sysctl", *names], capture_output=True, text=True)
    except OSError:
        return []
    return sorted(done.stdout.splitlines())


def _c_compiler():
    """Command of the C compiler in ``compiler()``: the C++ one of zig would build a library of C++ first."""
    command = compiler()
    return (*command[:-1], "cc") if len(command) > 1 and command[-1] == "c++" else command


def _unknown(flags, error):
    """Whether a compiler complains that it does not know ``flags``: anything else may go right another time."""
    for flag in flags:
        option, _, value = flag.partition("=")
        if re.search(rf"error: .*({option}\b|'{value}'|unknown [a-z ]*cpu)", str(error), re.IGNORECASE):
            return True
    return False


def sources(source=CPU):
    """Files that a library is made of, sorted by path (list of pathlib.Path)."""
    folders = {KERNELS, source.folder or KERNELS}
    return sorted(path for folder in folders for path in folder.iterdir() if path.suffix in (".c", ".h"))


def _key(path, flags, command, source=CPU):
    total = hashlib.sha256()
    parts = [path, *map(repr, (FLAGS, LIBRARIES, flags)), command, machine()]
    if source != CPU:
        parts += [source.main, *source.flags]
    for part in [*(text.encode() for text in parts), *(file.read_bytes() for file in sources(source))]:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:20]


def _whole(library, total):
    """Whether a library is there and is what was written: a damaged one would end this process."""
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest() == total.read_text()
    except OSError:
        return False


def _compile(path, files, source=CPU):
    """Compiles with the first flags that the compiler knows, into their pair of ``files``; returns the library."""
    doing = f"compiling the kernels of {source.what}"
    with tempfile.TemporaryDirectory() as folder, working() as step:
        step(f"{doing} (once on this machine)")
        out = Path(folder) / "kernels.so"
        ways = PATHS[path]
        for flags in ways:
            try:
                must_run([*_c_compiler(), *FLAGS, *source.flags, *flags, "-I", KERNELS,
                          (source.folder or KERNELS) / source.main, "-o", out, *LIBRARIES], doing,
                         env={**os.environ, "LC_ALL": "C"})
                break
            except ToolError as error:
                if flags is ways[-1] or not _unknown(flags, error):
                    raise CompilerError(f"{' '.join(str(error).split())}: use another compiler with CXX, or "
                                        f"{source.instead}") from None
        try:
            data = out.read_bytes()
        except OSError:
            raise CompilerError(f"{doing}: {' '.join(compiler())} wrote no library: use another compiler with CXX, "
                                f"or {source.instead}") from None
    library, total = files[flags]
    write_files({library: data, total: hashlib.sha256(data).hexdigest()})
    return library


@cache
def kernels(path="native", source=CPU):
    """The compiled kernels (ctypes.CDLL), compiled if they have not been yet.

    Parameters
    ----------
    path : str
        One of ``PATHS``.
    source : Source
        Which library.

    Raises
    ------
    ToolError
        There is no compiler, or it fails, or the folder of builds cannot be written.
    """
    once = f"{source.what} compiles its kernels once"
    try:
        command = compiler_version()
    except ToolError as error:
        if os.environ.get("CXX", "").strip():
            raise CompilerError(f"{once}: {error}, or {source.instead}") from None
        raise CompilerError(f"{once}, and there is no compiler: install g++ or clang++, or run "
                            f"{install_hint('compiler')}, or {source.instead}") from None
    folder = build_folder() / "cpu"
    stems = {flags: folder / _key(path, flags, command, source) for flags in PATHS[path]}
    files = {flags: (stem.with_suffix(".so"), stem.with_suffix(".sha256")) for flags, stem in stems.items()}

    def built():
        return next((library for library, total in files.values() if _whole(library, total)), None)

    library = built()
    if not library:
        with locked(builds_folder("cpu") / "lock"):
            library = built() or _compile(path, files, source)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise CompilerError(f"{library} cannot be loaded ({error}): remove it, or {source.instead}") from None
