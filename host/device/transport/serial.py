"""Serial ports, and sockets through pyserial's ``socket://``."""

import contextlib
import errno
import socket
import time
from urllib.parse import urlsplit

import serial

from sterna.host.errors import HostError

WRITE_TIMEOUT_S = 5.0
SLICE_S = 0.02
PORT_HELP = {
    errno.ENOENT: "no such device: plug it in, or see `python -m serial.tools.list_ports` for the ports "
                  "of this machine",
    errno.EACCES: "permission denied: join the group that owns the port (often dialout or uucp), then log in again",
    errno.EPERM: "permission denied: join the group that owns the port (often dialout or uucp), then log in again",
    errno.EBUSY: "the port is in use: close the other program that has it open",
    errno.EAGAIN: "the port is in use: close the other program that has it open",
    errno.ECONNREFUSED: "connection refused: start the simulated board first (sterna simulate), or check the port "
                        "number",
}
TEXT_HELP = (  # pyserial does not pass on every error number
    ("exclusively lock", errno.EAGAIN), ("Access is denied", errno.EBUSY), ("PermissionError", errno.EBUSY),
    ("FileNotFoundError", errno.ENOENT), ("refused", errno.ECONNREFUSED), ("Permission denied", errno.EACCES),
)


class TransportError(HostError):
    """The port cannot be opened, or broke while in use; the message names it."""


class SerialTransport:
    """Bytes over an open pyserial object.

    Attributes
    ----------
    name : str
        What the user called the port; error messages carry it.
    baud : int or None
        Bits per second of a serial line; None where there is no such rate (sockets).
    """

    def __init__(self, port, name, baud):
        self._port = port
        self.name = name
        self.baud = baud
        self._is_socket = name.startswith("socket://")

    def read(self, timeout_s):
        """The bytes that have come, waiting up to ``timeout_s`` for the first one; b"" if none came.

        Raises TransportError if the port is gone.
        """
        try:
            deadline = time.monotonic() + timeout_s
            while True:
                waiting = self._port.in_waiting
                # Waits for SLICE_S at most; setting a timeout would reconfigure the port.
                data = self._port.read(waiting or 1)
                if data and self._is_socket:
                    data += self._rest_of_socket()
                if data or time.monotonic() >= deadline:
                    return data
        except (OSError, TypeError, AttributeError) as error:
            # pyserial's errors are OSErrors; a closed port gives the others.
            raise TransportError(f"{self.name}: the connection broke ({error}): "
                                 "check the cable, then start again") from None

    def _rest_of_socket(self):
        """What a socket has besides the first byte: its ``in_waiting`` only tells whether there is something."""
        if not self._port.in_waiting:
            return b""
        self._port.timeout = 0
        try:
            return self._port.read(4096)
        finally:
            self._port.timeout = SLICE_S

    def write(self, data):
        """Sends all of ``data`` (bytes); TransportError if the port is gone or takes nothing for 5 s."""
        try:
            self._port.write(data)
        except serial.SerialTimeoutException:
            raise TransportError(f"{self.name}: took no data for {WRITE_TIMEOUT_S:g} s: "
                                 "reset the board, then start again") from None
        except (OSError, TypeError, AttributeError) as error:
            raise TransportError(f"{self.name}: the connection broke ({error}): "
                                 "check the cable, then start again") from None

    def close(self):
        """Closes the port; more than once is fine."""
        self._port.close()


def _hurry(port):
    """Asks the driver not to keep received bytes back:
    an FTDI chip waits 16 ms for more of them otherwise, 1 ms then.
    """
    with contextlib.suppress(AttributeError, NotImplementedError, ValueError, OSError):  # not every port can do it
        port.set_low_latency_mode(True)


def _check_socket(url):
    """TransportError unless a socket:// URL names a host and a port."""
    try:
        parts = urlsplit(url)
        host, number = parts.hostname, parts.port
    except ValueError:  # of the port: no number, or too large
        host, number = None, None
    if not host or not number:
        raise TransportError(f"{url}: no host and port: use socket://HOST:PORT, such as socket://localhost:7000")


def open_transport(port, baud=1_000_000):
    """Opens a port.

    Parameters
    ----------
    port : str
        /dev/ttyUSB0, COM3, socket://host:port, or another URL of pyserial.
    baud : int
        Bits per second of a serial line; sockets ignore it.

    Returns
    -------
    SerialTransport

    Raises
    ------
    TransportError
        No such device, port in use, no permission, connection refused, bad URL: one line with the port and the way
        out.
    """
    is_url = "://" in port
    if port.startswith("socket://"):
        _check_socket(port)
    options = {} if is_url else {"exclusive": True}
    try:
        opened = serial.serial_for_url(port, baudrate=baud, timeout=SLICE_S, write_timeout=WRITE_TIMEOUT_S, **options)
    except (ValueError, OSError) as error:
        text = str(error)
        number = getattr(error, "errno", None)
        if number not in PORT_HELP:
            number = next((code for part, code in TEXT_HELP if part in text), None)
        raise TransportError(f"{port}: {PORT_HELP.get(number, f'cannot be opened: {text}')}") from None
    if not is_url:
        _hurry(opened)
    line = getattr(opened, "_socket", None)
    if line is not None:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small frames must not wait for each other
    return SerialTransport(opened, port, None if is_url else baud)
