"""The link: COBS frames with CRC-32C on a byte stream, executed as 32-bit requests
(docs/protocol.md).
"""

from sterna.hw.link.link import Link

__all__ = ["Link"]
