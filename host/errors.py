"""Errors of the host, and the exit codes of commands."""

from sterna.sim.golden.errors import SternaError

INTERRUPTED, PIPE_CLOSED = 130, 141  # what a shell calls a program ended by SIGINT, by SIGPIPE


class HostError(SternaError):
    """A failure of a command, a file or a device."""


class UsageError(HostError):
    """A flag or argument with a value that the command does not take."""

    exit_code = 2


class DeviceError(HostError):
    """The device does not answer, refuses a request or reports a fault."""
