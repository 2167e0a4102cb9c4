"""Byte transports of the link: serial ports and everything else pyserial can open."""

from .serial_port import SerialTransport, TransportError, open_transport

__all__ = ["SerialTransport", "TransportError", "open_transport"]
