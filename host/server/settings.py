"""What a server allows, and to whom."""

import ipaddress
import socket
from dataclasses import dataclass
from functools import cached_property

from sterna.host.errors import UsageError

KEY_VARIABLE = "STERNA_API_KEY"


@dataclass(frozen=True)
class Settings:
    """Limits of a server, and who may use it.

    Attributes
    ----------
    host : str
        Address that it listens at.
    api_key : str or None
        What a request has to bring; None: nothing, which only an address of this machine alone allows.
    hosts : tuple of str
        Names that a request may call this machine by, beside its own, where the address is of this machine alone.
    context : int
        Most tokens of a prompt and its answer together.
    body_bytes, head_bytes : int
        Of a request: its body; its first line and headers.
    head_s, body_s, send_s : float
        Seconds that a client may take for a request's head, for its body, and to read what was sent to it.
    request_s : float
        Seconds from the start of a request to the end of its answer.
    drain_s : float
        Seconds that running answers have to come to their end when the server ends.
    connections : int
        Open at the same time.
    choices : int
        Answers that one request may ask for.
    log_prompts : bool
        Prompts and answers are in the log.
    """

    host: str = "127.0.0.1"
    api_key: str | None = None
    hosts: tuple = ()
    context: int = 4096
    body_bytes: int = 1 << 20
    head_bytes: int = 1 << 15
    head_s: float = 10.0
    body_s: float = 30.0
    send_s: float = 30.0
    request_s: float = 600.0
    drain_s: float = 10.0
    connections: int = 1000
    choices: int = 16
    log_prompts: bool = False

    def __post_init__(self):
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()
                                             and self.api_key.strip() == self.api_key != ""):
            raise UsageError("--api-key: use printable ASCII characters, without a space at either end")
        for option, value in (("--ctx-size", self.context), ("--max-body", self.body_bytes),
                              ("--timeout", self.request_s), ("--max-connections", self.connections)):
            if not value > 0:
                raise UsageError(f"{option} {value:g}: use more than 0")
        if not self.drain_s >= 0:
            raise UsageError(f"--drain {self.drain_s:g}: use 0 or more seconds")
        if not self.loopback and self.api_key is None:
            raise UsageError(f"--host {self.host}: others can reach this address: give a key in the variable "
                             f"{KEY_VARIABLE} (or with --api-key), or use 127.0.0.1")

    @cached_property
    def loopback(self):
        """Whether only this machine reaches the address (bool)."""
        return is_loopback(self.host)


def is_loopback(host):
    """Whether an address, or every address of a name, is of this machine alone; UsageError for no address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UsageError(f"--host {host}: no such address: use 127.0.0.1, or one of this machine's") from None
    return all(ipaddress.ip_address(entry[4][0].partition("%")[0]).is_loopback for entry in found)
