"""Bounded and inductive proofs about Amaranth components with the SAT solver inside yosys.

A `Proof` is a module around a component: it makes some of the component's inputs free, restricts them by `assume` and
states what must hold in every cycle by `claim`. `Proof.check` turns it into RTLIL and asks yosys for inputs that
break a claim. `check` returns in one of three ways:

- all claims hold for ever (``induction``: they hold in the first K cycles, and K good cycles in a row, from any state
  whatever, are followed by a good one), or for the first ``cycles`` cycles after reset;
- `Disproved` with the values of every signal of the proof in each cycle up to the broken claim;
- `Unproven`, if induction does not close within ``cycles`` cycles.

Induction needs invariants that name registers inside the component: `Proof.add` gives the signals of an elaborated
component by their path. `planted` gives a module of the gateware with a bug in it: a proof that also accepts the bug
proves nothing, and the planted bug fails under the same assumptions, so that these do not contradict each other. A
test expects that by ``with disproved(...)``.
"""

import ast
import difflib
import importlib
import re
import sys
import tempfile
import types
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, ClockDomain, Elaboratable, Fragment, Module, Shape, Signal, Value
from amaranth.lib import wiring
from sterna.hw.flow import rtlil
from sterna.hw.flow.synth import run_tool, yosys

TIMEOUT_SECONDS = 900  # against a proof that never ends
SEARCH_CYCLES = 16


class Disproved(AssertionError):
    """Some inputs break a claim; the message is the trace."""


class Unproven(AssertionError):
    """Induction does not close: the claims are not strong enough."""


def further(*cases):
    """Parameters of a test that are left to the rest (list): other sizes of what is proved already."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.rest) for case in cases]


@contextmanager
def disproved(match=None):
    """The check inside must break a claim; `match` is a pattern for its name. No induction is tried: that would take
    longer and only tell that there is no proof.
    """
    Proof.hunting = True
    try:
        with pytest.raises(Disproved, match=match):
            yield
    finally:
        Proof.hunting = False


class _OneByOne(ast.NodeTransformer):
    """`a, b = Signal(), Signal()` in two statements, so that amaranth sees the names."""

    def visit_Assign(self, node):
        targets, values = node.targets[0], node.value
        if not (isinstance(targets, ast.Tuple) and isinstance(values, ast.Tuple)
                and all(isinstance(value, ast.Call) and ast.unparse(value.func) in ("Signal", "Signal.like")
                        for value in values.elts)):
            return node
        return [ast.copy_location(ast.Assign([target], value), node)
                for target, value in zip(targets.elts, values.elts, strict=True)]


def _anyhow(code):
    """A pattern of a piece of code, however its lines are cut."""
    tokens = re.findall(r"\w+|[^\w\s]", code)
    return r"\s*".join((r",?\s*" if token in ")]}" else "") + re.escape(token) for token in tokens)


def planted(module, *changes):
    """The module of sterna.hw called `module` with other text: `changes` are pairs of a text, which the module has
    exactly once, and what it is replaced by. Signals that one statement makes have their names here (`Inside`).
    """
    name = f"sterna.hw.{module}"
    source = Path(importlib.import_module(name).__file__).read_text()
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        source, found = re.subn(_anyhow(old), lambda _, new=new: new, source)
        assert found == 1, f"{name} has {found} times {old!r}"
    result = types.ModuleType(name)
    result.__package__ = name.rpartition(".")[0]
    sys.modules[name], original = result, sys.modules[name]  # while its classes are made they look their module up
    try:
        tree = ast.fix_missing_locations(_OneByOne().visit(ast.parse(source)))
        exec(compile(tree, f"{name} (planted bug)", "exec"), result.__dict__)
    finally:
        sys.modules[name] = original
    return result


def stub(component_class):
    """A class with the members of `component_class` and nothing inside; ``made`` is the last object of it."""
    class Stub(component_class):
        made = None

        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            Stub.made = self

        def elaborate(self, platform):
            return Module()
    return Stub


class AnyMemory(Elaboratable):
    """In place of ``Memory``: one read port, whose data the proof chooses, and one write port; ``made`` are all
    objects of it since the proof emptied the list.
    """

    made = []

    def __init__(self, *, shape, depth, **options):
        AnyMemory.made.append(self)
        bits = max(1, (depth - 1).bit_length())
        self.read = SimpleNamespace(addr=Signal(bits), en=Signal(), data=Signal(shape))
        self.write = SimpleNamespace(addr=Signal(bits), en=Signal(), data=Signal(shape))

    def read_port(self):
        return self.read

    def write_port(self):
        return self.write

    def elaborate(self, platform):
        return Module()


class Inside:
    """Signals of an elaborated component by path: ``inside["room"]``, ``inside["fifo.level"]``."""

    def __init__(self, fragment):
        self.fragment = fragment
        self._signals = {}
        self._collect(fragment, "")

    def _collect(self, fragment, prefix):
        below = {}  # signals of all that is inside, by identity
        for number, (child, name, _) in enumerate(fragment.subfragments):
            below |= self._collect(child, f"{prefix}{name or number}.")
        here = {}
        for statements in fragment.statements.values():
            for statement in statements:
                here |= {id(s): s for s in (*statement._lhs_signals(), *statement._rhs_signals())}
        # A name is first that of a signal of this component, then that of a port of what is inside it.
        for group in (here.keys() - below.keys(), here.keys() & below.keys()):
            names = [here[key].name for key in group]
            for key in group:
                name = here[key].name
                self._signals.setdefault(prefix + name, here[key] if names.count(name) == 1 else None)
        return below | here

    def __getitem__(self, path):
        if path not in self._signals:
            near = difflib.get_close_matches(path, self._signals, n=5, cutoff=0.3)
            raise KeyError(f"no signal {path!r}, but {', '.join(near)}")
        if self._signals[path] is None:
            raise KeyError(f"several signals are called {path!r}")
        return self._signals[path]

    def find(self, path):
        """The elaborated submodule at `path`."""
        fragment = self.fragment
        for part in path.split("."):
            fragment = next(child for child, name, _ in fragment.subfragments if name == part)
        return fragment


class Proof:
    """A module of free inputs, assumptions and claims around components.

    Attributes
    ----------
    m : Module
        For logic of the proof itself.
    """

    hunting = False  # for bugs only, see `disproved`

    def __init__(self):
        self.m = Module()
        self._clock = ClockDomain("sync", reset_less=True)
        self.m.domains += self._clock
        self._ports = [self._clock.clk]
        self._started = None

    def add(self, component, name="dut", driven=()):
        """Puts `component` in and returns its `Inside`; all its inputs are free but those in `driven`.

        `driven` holds paths of members ("words", "words.valid") that the proof drives by itself.
        """
        for path, member, value in component.signature.flatten(component):
            text = ".".join(map(str, path))
            if member.flow is wiring.In and not any(text == d or text.startswith(f"{d}.") for d in driven):
                self._ports.append(Value.cast(value))
        inside = Inside(Fragment.get(component, None))
        self.m.submodules[name] = inside.fragment
        return inside

    def free(self, shape, name):
        """A signal that takes any value in every cycle."""
        signal = Signal(shape, name=name)
        self._ports.append(Value.cast(signal))
        return signal

    def release(self, *signals):
        """Signals that nothing drives take any value in every cycle, as the outputs of a `stub`."""
        self._ports += map(Value.cast, signals)

    def constant(self, shape, name):
        """A signal with any value that never changes."""
        signal = self.free(shape, name)
        self.assume(~self.started | (signal == self.past(signal)))
        return signal

    def past(self, value, init=0):
        """`value` one cycle before; `init` in the first cycle."""
        value = Value.cast(value)
        register = Signal(Shape(len(value)), name="past", init=init)
        self.m.d.sync += register.eq(value)
        return register

    @property
    def started(self):
        """Low in the first cycle only."""
        if self._started is None:
            self._started = Signal(name="started")
            self.m.d.sync += self._started.eq(1)
        return self._started

    def assume(self, condition):
        """Only inputs with `condition` count; conditions apply to every cycle."""
        self.m.d.comb += Assume(Value.cast(condition).bool())

    def claim(self, name, condition):
        """`condition` must hold in every cycle."""
        signal = Signal(name=f"claim_{name}", attrs={"keep": 1})
        self.m.d.comb += [signal.eq(Value.cast(condition).bool()), Assert(signal)]

    def implies(self, name, premise, conclusion):
        """Where `premise` holds, `conclusion` must."""
        self.claim(name, ~Value.cast(premise).bool() | Value.cast(conclusion).bool())

    def _stalled(self, stream):
        payload = Value.cast(stream.payload)
        stalled = self.past(stream.valid & ~stream.ready)
        return stalled, stream.valid & (payload == self.past(payload))

    def offered_well(self, *streams):
        """Inputs keep the rule of streams: an offer stays as it is until it is taken."""
        for stream in streams:
            stalled, holds = self._stalled(stream)
            self.assume(~stalled | holds)

    def offers_well(self, **streams):
        """Claims the same for outputs."""
        for name, stream in streams.items():
            stalled, holds = self._stalled(stream)
            self.implies(f"{name}_stays", stalled, holds)

    def check(self, cycles, induction=False, any_state=False, search_cycles=SEARCH_CYCLES):
        """Proves all claims, or raises.

        Parameters
        ----------
        cycles : int
            Length of the bounded proof, or the most cycles of history that the induction may use.
        induction : bool
            Prove the claims for ever.
        any_state : bool
            Registers of the component called "dut" start with any values rather than those of the reset.
        search_cycles : int
            Where induction does not close, how far to look for a way to break a claim.
        """
        text = rtlil.convert(self.m, name="proof", ports=self._ports)
        script = ["read_rtlil {root}/proof.il", "hierarchy -top proof", "proc", "flatten", "memory -nomap",
                  "memory_map", "opt", "chformal -lower", "async2sync", "dffunmap", "opt_clean -purge",
                  *(["setattr -unset init w:dut.*"] if any_state else []),
                  "sat {mode} -prove-asserts -set-assumes -show-public proof"]
        unproven = None
        if induction and not self.hunting:
            report = _run(text, script, f"-tempinduct -maxsteps {cycles}")
            if "proof failed" in report:
                unproven = f"no proof by induction over {cycles} cycles, for example:\n{_trace(report)}"
        if not induction or self.hunting or unproven:  # there may be a way to break a claim
            report = _run(text, script, f"-tempinduct-baseonly -maxsteps {search_cycles if induction else cycles}")
        if "model found for base case" in report:
            raise Disproved(_trace(report))
        if unproven:
            raise Unproven(unproven)
        if "SUCCESS!" not in report:
            raise RuntimeError(f"yosys gave no verdict: {report[-2000:]}")


def _run(text, script, mode):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "proof.il").write_text(text)
        commands = "; ".join(script).replace("{mode}", mode)
        done = run_tool(yosys(), folder, ("-p", commands), timeout=TIMEOUT_SECONDS)
    if done.returncode:
        raise RuntimeError(f"yosys failed: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


_HIDDEN = re.compile(r"clk$|past(\$\d+)?$")
_ROW = re.compile(r"^\s+(\d+|init) \\(\S+(?: \[\d+(?::\d+)?\])?)\s+(\S+)\s+(\S+)\s+(\S+)\s*$", re.M)


def _trace(report):
    """The last model of a report as a table: a line per signal, a column per cycle, hexadecimal."""
    start = report.rfind("Time Signal Name")
    values, steps = {}, []
    for step, name, _, number, _ in _ROW.findall(report, start):
        if step != "init" and not _HIDDEN.match(name):
            values.setdefault(name, {})[int(step)] = number
            steps.append(int(step))
    if not steps:
        return report[-1500:]
    first, last = min(steps), max(steps)
    broken = [name for name, row in values.items() if name.startswith("claim_") and row.get(last) == "0"]
    lines = [f"broken in cycle {last - first}: {', '.join(name.removeprefix('claim_') for name in broken)}"]
    width = max(map(len, values))
    for name in sorted(values, key=lambda name: (name.count("."), name)):
        row = [values[name].get(step, "") for step in range(first, last + 1)]
        if not name.startswith("claim_") and len(set(row)) > 1 or name.count(".") == 0 and name in broken:
            lines.append(f"{name:{width}} " + " ".join(f"{value:>4}" for value in row))
    return "\n".join(lines)
