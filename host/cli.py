"""The command ``sterna``: its commands, and one line per error."""

import functools
import inspect as introspection
import os
import sys
import traceback
from typing import Annotated

import typer

from sterna.host.commands.bench import bench
from sterna.host.commands.cmm import bench_cmm
from sterna.host.commands.devices import devices, version, version_line
from sterna.host.commands.doctor import doctor
from sterna.host.commands.evaluate import evaluate, gate
from sterna.host.commands.generate import generate
from sterna.host.commands.image import convert, flash, upload
from sterna.host.commands.inspect import inspect
from sterna.host.commands.plan import plan
from sterna.host.commands.serve import serve
from sterna.host.commands.simulate import simulate
from sterna.host.commands.train import train
from sterna.host.console import printable, show
from sterna.host.errors import INTERRUPTED, PIPE_CLOSED
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.progress import abandon

ClickUsageError = typer.BadParameter.__mro__[1]  # the base of all wrong uses; typer exports only this one of them

app = typer.Typer(
    name="sterna", add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})  # plain help fits any terminal
_settings = {"verbose": False}


class OutputClosed(Exception):
    """Whoever read the output has seen enough. Not a BrokenPipeError, which Typer would turn into exit code 1."""


class Interrupted(Exception):
    """Ctrl-C. Not a KeyboardInterrupt, which Typer would turn into an exit code without a word."""


def _show_version(value: bool):
    if value:
        show(version_line())
        raise typer.Exit


@app.callback()
def program(number: Annotated[bool, typer.Option("--version", is_eager=True, callback=_show_version,
                                                 help="Print the versions of program and formats.")] = False):
    """Run MatMul-free ternary language models on FPGAs, simulated boards, or this machine's processor."""


def _remember_verbose(value: bool):
    _settings["verbose"] |= value


_VERBOSE = introspection.Parameter(
    "verbose", introspection.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[
        bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.", callback=_remember_verbose)])


def _with_verbose(command):
    """A command with the option -v added, and a closed output and Ctrl-C told apart."""
    @functools.wraps(command)
    def wrapped(*, verbose=False, **values):
        try:
            return command(**values)
        except BrokenPipeError:
            raise OutputClosed from None
        except KeyboardInterrupt:
            raise Interrupted from None

    signature = introspection.signature(command)
    wrapped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), _VERBOSE])
    wrapped.__annotations__ = command.__annotations__ | {"verbose": _VERBOSE.annotation}
    return wrapped


for _command, _name in ((generate, "generate"), (bench, "bench"), (bench_cmm, "bench-cmm"), (devices, "devices"),
                        (doctor, "doctor"), (simulate, "simulate"), (upload, "upload"), (inspect, "inspect"),
                        (plan, "plan"), (serve, "serve"), (convert, "convert"),
                        (flash, "flash"), (evaluate, "eval"), (gate, "gate"), (train, "train"), (version, "version")):
    app.command(_name)(_with_verbose(_command))


def describe(error):
    """(message of one line, exit code) of an exception that a command raised."""
    if isinstance(error, SternaError):
        return str(error), error.exit_code
    if isinstance(error, ClickUsageError):
        return error.format_message(), 2
    if isinstance(error, MemoryError):
        return "out of memory: use a smaller model", 1
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 1
    return f"{type(error).__name__}: {error} (unexpected; -v shows where)", 1


def main(arguments=None):
    """Run a command line (sys.argv without the program's name by default); returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    arguments = arguments or ["--help"]
    _settings["verbose"] = False
    try:
        code = app(arguments, prog_name="sterna", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (OutputClosed, BrokenPipeError):
        # What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (KeyboardInterrupt, Interrupted, typer.Abort):
        abandon()
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        abandon()
        if _settings["verbose"]:
            traceback.print_exc()
        message, code = describe(error)
        print("error: " + printable(" ".join(message.split())), file=sys.stderr)
        return code
