"""Base of every error that the command line shows as one line."""


class HostError(Exception):
    """A failure that the user can act on; the message names the value and the way out.

    The attribute ``exit_code`` is 1, or 2 for a wrong use of a command.
    """

    exit_code = 1


class UsageError(HostError):
    """A flag or argument with a value that the command does not take."""

    exit_code = 2


class DeviceError(HostError):
    """The device does not answer, refuses a request or reports a fault."""
