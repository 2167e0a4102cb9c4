"""What all parts of the interpreter's machine raise."""

from sterna.sim.golden.errors import SternaError


class MachineError(SternaError, RuntimeError):
    """A program that the device could not run; the message names the program counter."""
