"""Byte transports of the link: serial ports and everything else pyserial can open."""

from sterna.host.device.transport.serial import SerialTransport, TransportError, open_transport

__all__ = ["SerialTransport", "TransportError", "open_transport"]
