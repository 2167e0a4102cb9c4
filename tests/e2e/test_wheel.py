"""The wheel holds every source, and what it installs builds a simulated board elsewhere than in itself."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
SUFFIXES = (".py", ".c", ".cpp", ".hpp", ".h", ".v", ".toml", ".html", ".css", ".js", ".svg")
# Without the module `site` the checkout, which is installed for editing, cannot stand in for a file that is missing.
SCRIPT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.path += sys.argv.pop(1).split(":")
from sterna.host.cli import main
code = main(sys.argv[1:])
files = [str(getattr(module, "__file__", "")) for name, module in sys.modules.items() if name.startswith("sterna.")]
assert all(file.startswith(sys.path[0]) for file in files if file != "None"), files
sys.exit(code)
"""


def pip(*arguments):
    done = subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *map(str, arguments)],
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout: setuptools leaves folders where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES.values(), "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "source" / name, dirs_exist_ok=True,  # one may be inside another
                            ignore=shutil.ignore_patterns("__pycache__", "*.xz", "*.sterna", "*.safetensors"))
        else:
            shutil.copy(ROOT / name, folder / "source" / name)
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", folder, folder / "source")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder of the installed wheel, without permission to write."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--target", folder, wheel)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode & 0o555)
    folder.chmod(0o555)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def contents(folder):
    """(mode, time, size) of everything in a folder by path."""
    return {path: (status.st_mode, status.st_mtime_ns, status.st_size)
            for path in sorted(folder.rglob("*")) for status in (path.stat(),)}


def test_wheel_holds_every_source(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = {f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder)}" for package, folder in PACKAGES.items()
              for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES
              and not any(path.is_relative_to(ROOT / inner) for inner in PACKAGES.values()
                          if inner.startswith(f"{folder}/"))}
    assert wanted - held == set()
    assert all(any(name.endswith(suffix) for name in wanted) for suffix in (".hpp", ".v", ".html", ".js", ".css"))


@pytest.mark.rtl
@pytest.mark.rest
@pytest.mark.parametrize("device, built", [("sim:up5k", "sim/board-*/board"), ("cpu", "cpu/*.so")])
def test_what_is_installed_is_built_in_the_cache_of_its_user(installed, tmp_path, device, built):
    before = contents(installed)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("STERNA_BUILD", None)
    paths = ":".join(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))
    done = subprocess.run([sys.executable, "-S", "-c", SCRIPT, str(installed), paths, "generate", "-m",
                           str(ROOT / "models" / "tiny" / "tiny.sterna"), "--device", device, "-p", "Once upon",
                           "-n", "4", "--temp", "0"], cwd=installed, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Once upon a time, there\n"
    assert contents(installed) == before
    assert list((tmp_path / "cache" / "sterna").glob(built))
