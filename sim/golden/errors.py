"""The base of every error that has a message for a user."""


class SternaError(Exception):
    """A failure that the user can act on: the message is one line, names the value and the way out.

    Attributes
    ----------
    exit_code : int
        Of a command that ends by it: 1, or 2 for a wrong use.
    """

    exit_code = 1
