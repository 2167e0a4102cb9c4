"""How the kernels of --device cpu are compiled, kept and loaded."""

import platform

import pytest
from sterna.sim.cpu import build


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A folder of builds that is empty, and nothing loaded yet."""
    monkeypatch.setenv("STERNA_BUILD", str(tmp_path))
    for cached in (build.kernels, build.compiler, build.compiler_version):
        cached.cache_clear()
    yield tmp_path / "cpu"
    for cached in (build.kernels, build.compiler, build.compiler_version):
        cached.cache_clear()


def test_no_compiler_names_the_ways_out(monkeypatch, fresh):
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(build.CompilerError, match=r"no compiler: install g\+\+ .* pip install .*golden$"):
        build.kernels()
    monkeypatch.setenv("CXX", "no-such-compiler")
    build.compiler.cache_clear()
    with pytest.raises(build.CompilerError, match="no-such-compiler.* or use --device golden"):
        build.kernels()


def test_what_is_compiled_is_kept_for_this_machine_alone(monkeypatch, fresh):
    def libraries():
        return sorted(path.name for path in fresh.glob("*.so"))

    (fresh / "source").mkdir(parents=True)
    (fresh / "source" / "model.c").write_text("int sterna_threads(void) { return 1; }")  # quick
    monkeypatch.setattr(build, "KERNELS", fresh / "source")
    assert build.kernels("plain").sterna_threads
    (library,) = fresh.glob("*.so")
    before, whole = libraries(), library.read_bytes()
    compiled = []
    compile_ = build._compile
    monkeypatch.setattr(build, "_compile", lambda *a: compiled.append(a) or compile_(*a))
    build.kernels.cache_clear()
    build.kernels("plain")
    assert not compiled
    for damaged in (whole[:1000], whole[:500] + bytes([whole[500] ^ 1]) + whole[501:], b""):
        other = library.with_suffix(".tmp")  # the one that is loaded stays as it is
        other.write_bytes(damaged)
        other.replace(library)
        build.kernels.cache_clear()
        build.kernels("plain")
        assert library.read_bytes() == whole and compiled.pop() and not compiled
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        build.kernels.cache_clear()
        build.kernels("plain")  # which has nothing to write
        with pytest.raises(build.ToolError, match="^cannot build in .* with STERNA_BUILD$"):
            build.kernels("native")
    monkeypatch.setattr(build, "machine", lambda: "another one")
    build.kernels.cache_clear()
    build.kernels("plain")
    assert compiled and len(libraries()) == 2 and set(before) < set(libraries())
    (fresh / "source" / "model.c").write_text("int sterna_threads(void) { return 2; }")
    build.kernels.cache_clear()
    assert build.kernels("plain").sterna_threads() == 2 and len(libraries()) == 3


COMPLAINTS = {"cc1: error: bad value ('native') for '{option}=' switch\nnote: see": True,
              "g++: error: unrecognized command-line option '{flag}'": True,
              "error: the clang compiler does not support '{flag}'": True, "error: unknown CPU: 'native'": True,
              "g++: fatal error: Killed signal terminated program cc1": False,
              "clang: error: unable to execute command: Killed\n0. Program arguments: clang {flag}": False,
              "as: error: /native/kernels.o: No space left on device": False}


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_only_a_flag_that_is_not_known_is_left_out(monkeypatch, fresh, complaint):
    (flag,), () = build.PATHS["native"]
    run, used = build.must_run, []
    complaint_here = complaint.format(flag=flag, option=flag.partition("=")[0])

    def refuses(command, what, **options):
        used.append(flag in command)
        if flag in command:
            raise build.ToolError(f"{what} failed (1): {complaint_here}")
        run(command, what, **options)

    (fresh / "source").mkdir(parents=True)
    (fresh / "source" / "model.c").write_text("int sterna_threads(void) { return 1; }")
    monkeypatch.setattr(build, "KERNELS", fresh / "source")
    monkeypatch.setattr(build, "must_run", refuses)
    if COMPLAINTS[complaint]:
        build.kernels()
        build.kernels.cache_clear()
        build.kernels()
        assert used == [True, False]
    else:
        with pytest.raises(build.CompilerError, match="^compiling the kernels of --device cpu failed .*CXX"):
            build.kernels()
        assert used == [True] and not list(fresh.glob("*.so"))
    # What was compiled without the flag is not taken for what is compiled with it.
    names = {path.stem for path in fresh.glob("*.so")}
    assert build._key("native", (flag,), build.compiler_version()) not in names


def test_flags_are_those_of_the_processor():
    assert build.PATHS["native"][0] == (("-march=native",) if platform.machine() == "x86_64" else ("-mcpu=native",))


def test_kernels_are_compiled_as_c(monkeypatch):
    for command, wanted in (("python -m ziglang c++", "python -m ziglang cc"), ("zig c++", "zig cc"),
                            ("ccache c++", "ccache cc"), ("c++", "c++"), ("clang++ -O1", "clang++ -O1")):
        monkeypatch.setattr(build, "compiler", lambda command=command: tuple(command.split()))
        assert " ".join(build._c_compiler()) == wanted


def test_machines_without_a_list_of_processors_differ_in_features(monkeypatch, tmp_path):
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.machine().split()[:2] == [platform.system(), platform.machine()]
    found = set()
    for feature in ("AVX2", "AVX1.0"):
        (tmp_path / "sysctl").write_text(f"#!/bin/sh\necho machdep.cpu.features: FPU {feature}\nexit 1\n")
        (tmp_path / "sysctl").chmod(0o755)
        assert f"FPU {feature}" in build.machine()
        found.add(build.machine())
    assert len(found) == 2


def test_what_does_not_compile_is_one_line(monkeypatch, fresh):
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DFP24_H"))
    with pytest.raises(build.CompilerError, match="^compiling the kernels of --device cpu failed .*CXX") as caught:
        build.kernels("plain")
    assert "\n" not in str(caught.value) and not list(fresh.glob("*.so"))
