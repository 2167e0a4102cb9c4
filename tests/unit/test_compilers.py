"""Compilers and folders of builds that do not work: one line with the way out, never another exception."""

import os
from pathlib import Path

import pytest
from sterna.host.commands import evaluate
from sterna.sim.cpu import build
from sterna.sim.golden import compiler, files
from sterna.sim.golden.compiler import ToolError
from sterna.sim.golden.model import GoldenModel


@pytest.fixture(autouse=True)
def no_caches():
    for function in (compiler.compiler, compiler.compiler_version, build.kernels):
        function.cache_clear()
    yield
    for function in (compiler.compiler, compiler.compiler_version, build.kernels):
        function.cache_clear()


def test_a_command_with_half_a_quotation(monkeypatch):
    monkeypatch.setenv("CXX", '"g++')
    with pytest.raises(ToolError, match="of .CXX is no command .No closing quotation.: unset CXX"):
        compiler.compiler()


def test_a_compiler_that_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setenv("STERNA_BUILD", str(tmp_path))
    with pytest.raises(build.CompilerError, match="true wrote no library: use another compiler with CXX, or"):
        build.kernels()


def test_a_lock_that_cannot_be_written(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(ToolError, match="cannot build in .*lock: Is a directory: name another folder"), \
            compiler.locked(tmp_path / "lock"):
        pass


def test_a_user_without_a_home(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("STERNA_BUILD", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(files, "_CHECKOUT", Path(os.devnull))
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(ToolError, match="no home folder for what is built: name a folder with STERNA_BUILD"):
        compiler.builds_folder("cpu")


def test_eval_takes_the_golden_model_where_nothing_can_be_built(monkeypatch, capsys):
    def fails(packed):
        raise ToolError("cannot build in /nowhere: name another folder with STERNA_BUILD")

    from sterna.host.doctor.answer import BuiltinModel
    monkeypatch.setattr(evaluate, "CpuModel", fails)
    assert isinstance(evaluate.exact_model(BuiltinModel().packed), GoldenModel)
    assert "slowly: cannot build in /nowhere" in capsys.readouterr().err
