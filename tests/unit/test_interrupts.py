"""Ctrl-C: at once, behind what has to be whole, and in calls that Python cannot interrupt."""

import signal
import subprocess
import sys

import pytest
from sterna.host.commands.generate import cancel_on_interrupt
from sterna.host.interrupts import Interrupts, ended_by_interrupt


def test_interrupt_waits_for_the_end_of_what_is_held():
    done, before = [], signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            with interrupts.held():
                with interrupts.held():
                    signal.raise_signal(signal.SIGINT)
                    signal.raise_signal(signal.SIGINT)
                    done.append("inner")
                done.append("outer")
            done.append("never")
        with interrupts.held():  # one that was raised is not raised again
            done.append("after")
    assert done == ["inner", "outer", "after"] and signal.getsignal(signal.SIGINT) == before


def test_failure_of_what_is_held_is_its_own():
    with Interrupts() as interrupts, pytest.raises(ValueError, match="own"), interrupts.held():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("own")


@pytest.mark.parametrize("block", [Interrupts, ended_by_interrupt, cancel_on_interrupt])
def test_interrupt_that_is_ignored_stays_so(block):
    """A shell starts `command &` of a script with SIGINT ignored; Ctrl-C is then meant for somebody else."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with block() as came:
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
            assert block is not cancel_on_interrupt or not came()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


BLOCKED = """
import os, signal, time
from sterna.host.interrupts import ended_by_interrupt
print("begun", flush=True)
with ended_by_interrupt():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    finally:
        print("Python had its turn", flush=True)  # a call of a library would first have to return
"""


def test_interrupt_ends_a_call_that_does_not_return():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "begun\n", "")
