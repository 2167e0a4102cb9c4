"""Drivers and monitors of Amaranth streams for cocotb benches, with random stalls and a check of the stream rules.

A stream member `words` of a component appears in Verilog as words__payload, words__valid and words__ready. A payload
of a structured shape is one flat number there: `pack` and `unpack` convert it, given the shape.
"""

from collections import deque

import cocotb
from amaranth.hdl import Const, Shape, ShapeCastable
from amaranth.lib import data

from bench import cycles, rng, settled


class StreamError(AssertionError):
    """A stream broke a rule: valid or payload changed before the transfer, or a value was undefined."""


def pack(shape, value):
    """Flat unsigned number of `value` (int, dict or list for layouts) in the Amaranth `shape`."""
    if shape is None:
        return value
    if isinstance(shape, ShapeCastable):
        shape_bits = Shape.cast(shape).width
        return Const.cast(shape.const(value)).value & ((1 << shape_bits) - 1)
    return value & ((1 << Shape.cast(shape).width) - 1)


def unpack(shape, bits):
    """Value of a flat unsigned number: int (signed where the shape is), dict of a struct, list of an array."""
    if shape is None:
        return bits
    if isinstance(shape, (data.StructLayout, data.UnionLayout, data.FlexibleLayout)):
        return {name: unpack(field.shape, bits >> field.offset & ((1 << field.width) - 1)) for name, field in shape}
    if isinstance(shape, data.ArrayLayout):
        return [unpack(field.shape, bits >> field.offset & ((1 << field.width) - 1)) for _, field in shape]
    if isinstance(shape, type) and issubclass(shape, data.Struct):
        return unpack(shape.as_shape(), bits)
    cast = Shape.cast(shape)
    bits &= (1 << cast.width) - 1
    return bits - (1 << cast.width) if cast.signed and bits >> (cast.width - 1) & 1 else bits


class _Stream:
    def __init__(self, dut, name, shape=None, stall=0.0, salt=None):
        self.dut, self.name, self.shape, self.stall = dut, name, shape, stall
        self.valid, self.ready = getattr(dut, f"{name}__valid"), getattr(dut, f"{name}__ready", None)
        self.payload = getattr(dut, f"{name}__payload", None)  # absent for payloads of no bits
        self.random = rng(f"{name}/{type(self).__name__}" if salt is None else salt)

    def _bit(self, handle):
        try:
            return int(handle.value)
        except ValueError:
            raise StreamError(f"stream {self.name}: {handle._name} is undefined ({handle.value})") from None

    def _taken(self):
        return self._bit(self.valid) and (self.ready is None or self._bit(self.ready))


class StreamDriver(_Stream):
    """Sends items into an input stream of the device, in order.

    Parameters
    ----------
    dut, name : handle, str
        The device and the name of its stream member.
    shape : amaranth shape or None
        Shape of the payload, for dict and list items; None: items are unsigned numbers.
    stall : float
        Chance per cycle of holding back an item (valid low) before it is offered; may be changed at any time. Once
        offered, an item stays until it is taken.
    salt : object or None
        Varies the random stalls; by default the stream's name.

    Use `send(item, ...)` to queue items without waiting, `await drain()` to wait until all are taken.
    """

    def __init__(self, dut, name, shape=None, stall=0.0, salt=None):
        super().__init__(dut, name, shape, stall, salt)
        self.items = deque()
        self.sent = 0
        self.valid.value = 0
        if self.payload is not None:
            self.payload.value = 0
        self.task = cocotb.start_soon(self._run())

    def send(self, *items):
        """Queues items."""
        self.items.extend(items)

    async def drain(self, limit_cycles=100_000):
        """Waits until every queued item has been taken; AssertionError after `limit_cycles`."""
        for _ in range(limit_cycles):
            if not self.items:
                return
            await cycles(self.dut)
        raise AssertionError(f"stream {self.name}: {len(self.items)} items were not taken in {limit_cycles} cycles")

    async def _run(self):
        while True:
            await cycles(self.dut)
            if not self.items or self.random.random() < self.stall:
                continue
            if self.payload is not None:
                self.payload.value = pack(self.shape, self.items[0])
            self.valid.value = 1
            while True:
                await settled(self.dut)
                taken = self._taken()
                await cycles(self.dut)
                if taken:
                    self.items.popleft()
                    self.sent += 1
                    if not self.items or self.random.random() < self.stall:
                        break
                    if self.payload is not None:
                        self.payload.value = pack(self.shape, self.items[0])
            self.valid.value = 0
            # what lies on an idle payload must not matter
            if self.payload is not None:
                self.payload.value = self.random.getrandbits(len(self.payload))


class StreamMonitor(_Stream):
    """Receives items from an output stream of the device and checks the stream rules in every cycle.

    Checked: valid is never undefined; once valid is high, valid stays and the payload is stable until ready. A broken
    rule ends the cocotb test with StreamError.

    Parameters
    ----------
    dut, name, shape, salt
        As for StreamDriver; received items are converted by `unpack`.
    stall : float
        Chance per cycle of not being ready; ready is drawn anew in every cycle and never depends on valid.
    passive : bool
        Only watch: ready is driven by something else.

    `items` holds what was received (list); `await receive(n)` waits for n items in all and returns them.
    """

    def __init__(self, dut, name, shape=None, stall=0.0, salt=None, passive=False):
        super().__init__(dut, name, shape, stall, salt)
        self.items = []
        self.passive = passive or self.ready is None
        if not self.passive:
            self.ready.value = 0
        self.task = cocotb.start_soon(self._run())

    async def receive(self, count, limit_cycles=100_000):
        """Waits until `count` items have been received since the start; returns all items (list)."""
        for _ in range(limit_cycles):
            if len(self.items) >= count:
                return self.items
            await cycles(self.dut)
        raise AssertionError(f"stream {self.name}: {len(self.items)} of {count} items came in {limit_cycles} cycles")

    def _payload(self):
        if self.payload is None:
            return 0
        try:
            return int(self.payload.value)
        except ValueError:
            raise StreamError(f"stream {self.name}: payload is undefined ({self.payload.value})") from None

    async def _run(self):
        held = None  # payload that was offered and not taken in the cycle before
        while True:
            await cycles(self.dut)
            if not self.passive:
                self.ready.value = int(self.random.random() >= self.stall)
            await settled(self.dut)
            if hasattr(self.dut, "rst") and int(self.dut.rst.value):
                held = None
                continue
            valid = self._bit(self.valid)
            if held is not None and not valid:
                raise StreamError(f"stream {self.name}: valid fell before the transfer of {held:#x}")
            if not valid:
                continue
            payload = self._payload()
            if held is not None and payload != held:
                raise StreamError(f"stream {self.name}: payload changed from {held:#x} to {payload:#x} "
                                  "before the transfer")
            if self._taken():
                held = None
                self.items.append(unpack(self.shape, payload))
            else:
                held = payload
