"""Where the bytes of a model lie in a memory behind n AXI ports; plain Python.

A word of the memory port has a beat of each of the n ports. In a group of n blocks, word k is beat
k of each block, and each block is one port's:

    port i, group g, beat k: byte (g n + i) block_bytes + k b       b: bytes of a beat of one port
    word w = g (block_bytes / b) + k: beats of ports 0 .. n - 1, the first of them lowest

So a run of words is the same run of beats at every port, and a burst never leaves a block: at most
4096 bytes that begin at a multiple of their size (AMBA AXI, "Address structure": no burst crosses a
boundary of 4 KB). As an address it is a rotation of bits, its own inverse where n = block_bytes / b
only.
"""

MOST_BEATS = 256  # of a burst with INCR, AxLEN being 8 bits
BOUNDARY_BYTES = 4096
BEAT_BYTES = (1, 128)  # widths of the data lines that the standard knows, least and most


class LayoutError(ValueError):
    """Ports, beats or blocks that do not fit together; the message names the value."""


def beats(ports, beat_bytes, block_bytes):
    """Beats of a block (int).

    Raises
    ------
    LayoutError
        A number is not a power of two or out of range.
    """
    for name, value, least, most in (
        ("ports", ports, 1, 8),
        ("beat_bytes", beat_bytes, *BEAT_BYTES),
        ("block_bytes", block_bytes, beat_bytes, min(BOUNDARY_BYTES, MOST_BEATS * beat_bytes)),
    ):
        if not least <= value <= most or value & (value - 1):
            raise LayoutError(f"{name} {value}: use a power of two from {least} to {most}")
    return block_bytes // beat_bytes


def place(address, *, ports, beat_bytes, block_bytes):
    """Byte addresses in the memory of bytes of the model.

    Parameters
    ----------
    address : int or integer array
        Bytes of the model as the memory port counts them: byte j of word w is w n b + j.
    ports, beat_bytes, block_bytes : int

    Returns
    -------
    int or integer array
        Of the shape of ``address``.
    """
    count = beats(ports, beat_bytes, block_bytes)
    word, byte = address // (ports * beat_bytes), address % (ports * beat_bytes)
    port, within = byte // beat_bytes, byte % beat_bytes
    group, beat = word // count, word % count
    return (group * ports + port) * block_bytes + beat * beat_bytes + within


def origin(address, *, ports, beat_bytes, block_bytes):
    """Bytes of the model that lie at byte addresses of the memory: the inverse of ``place``."""
    count = beats(ports, beat_bytes, block_bytes)
    block, within = address // block_bytes, address % block_bytes
    group, port = block // ports, block % ports
    word = group * count + within // beat_bytes
    return (word * ports + port) * beat_bytes + within % beat_bytes


def permuted(data, *, ports, beat_bytes, block_bytes):
    """What the memory holds of a model.

    Parameters
    ----------
    data : uint8 array
        Of the model from the beginning of a group on, whole groups of n block_bytes bytes.

    Returns
    -------
    uint8 array
        As long; byte ``place(a)`` is ``data[a]``.
    """
    count = beats(ports, beat_bytes, block_bytes)
    shape = -1, count, ports, beat_bytes
    return data.reshape(shape).swapaxes(1, 2).reshape(-1)


def restored(data, *, ports, beat_bytes, block_bytes):
    """The model's bytes (uint8 array) of whole groups of the memory: the inverse of ``permuted``."""
    count = beats(ports, beat_bytes, block_bytes)
    shape = -1, ports, count, beat_bytes
    return data.reshape(shape).swapaxes(1, 2).reshape(-1)
