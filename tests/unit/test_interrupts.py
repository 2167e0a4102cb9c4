"""Ctrl-C: at once, behind what has to be whole, and in calls that Python cannot interrupt."""

import signal
import subprocess
import sys

import pytest
from sterna.host.interrupts import Interrupts


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


# A mutex that is never released, taken where Python's own handler cannot run.
BLOCKED = """
import ctypes, os, signal, threading
from sterna.host.interrupts import ended_by_interrupt
with ended_by_interrupt():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        ctypes.CDLL(None).sleep(60)
"""


def test_interrupt_ends_a_call_that_does_not_return():
    assert subprocess.run([sys.executable, "-c", BLOCKED]).returncode == -signal.SIGINT
