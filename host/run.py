"""One run of a device seen from the host: credit, prompt and tokens through the ring
(docs/protocol.md, "Running").
"""

import time

from sterna.host import protocol
from sterna.host.errors import DeviceError
from sterna.host.protocol import Register


class Run:
    """State of one run on the host: what was written into the ring, granted to the device and read back.

    Parameters
    ----------
    device : sterna.host.driver.Device
        Its registers are set for the run, and it is not enabled yet.
    prompt_ids : list of int
    n : int
        Tokens to generate at most.
    stop : int or None
        Token after which the run ends.
    start : int
        Position of the first token of the prompt.
    """

    def __init__(self, device, prompt_ids, n, stop, start):
        self.device = device
        self.prompt_ids = prompt_ids
        self.stop = stop
        self.start = start
        self.prompt_end = start + len(prompt_ids)
        self.end = self.prompt_end + n  # positions from here on are not wanted
        self.position = start  # the device has processed everything below, as far as is known
        self.written = start  # prompt tokens below are in the ring
        self.limit = start
        self.next = self.prompt_end  # next token to yield
        self.moved_at = time.monotonic()

    def tokens(self):
        """Generator of (position, token); DeviceError for a fault, a restart, or no progress for ``stall_s``."""
        self._feed()
        self.device.write_register(Register.CONTROL, protocol.CONTROL_RUN)
        while True:
            for item in self._arrived():
                yield item
                if item[1] == self.stop or item[0] + 1 == self.end:
                    return
                self.moved_at = time.monotonic()  # the caller's time does not count
            self._feed()

    def _feed(self):
        """Writes what fits of the prompt and raises the limit as far as the ring has room."""
        ring = self.device.info.ring
        room = self.position + ring - self.written
        left = self.prompt_end - self.written
        if left and (room >= left or room >= ring // 2):  # not a frame for every token
            part = min(room, left)
            first = self.written - self.start
            self.device.write_ring(self.written, self.prompt_ids[first:first + part])
            self.written += part
        # Processing position p writes p + 1, so a limit uses the ring up to and including itself.
        limit = min(self.end - 1, min(self.position, self.next) + ring - 1)
        if self.written < self.prompt_end:
            limit = min(limit, self.written)
        sampling = self.limit >= self.prompt_end  # the device may have met the stop token below its limit
        if limit > self.limit and (not sampling or self.next == self.limit + 1):
            self.limit = limit
            self.device.write_register(Register.LIMIT, limit)

    def _arrived(self):
        """Tokens that have come since, in order; waits for a TOKEN frame and asks for the position if none comes."""
        device = self.device
        in_prompt = self.position + 1 < self.prompt_end
        hurry = in_prompt and self.written < self.prompt_end
        event = device.wait_token(min(device.poll_s, 0.05) if hurry else device.poll_s)
        if event is not None:
            if not self.next <= event[0] <= self.limit:
                return []  # read from the ring already
            if event[0] == self.next:
                self._move(event[0] - 1)
                self.next += 1
                return [event]
            return self._read_up_to(event[0])  # frames before this one were lost
        running, enabled, fault, position = device.status()
        if fault:
            raise DeviceError(f"{device.name}: fault {protocol.FAULTS.get(fault, fault)!r} at position {position}: "
                              "the program does not fit this device; reset it and load the model again")
        if position > self.limit:
            raise DeviceError(f"{device.name}: reports position {position} behind the limit {self.limit}: "
                              "reset the board and load the model again")
        self._move(position)
        if position >= self.next:
            return self._read_up_to(min(position, self.end - 1))
        if not enabled or time.monotonic() - self.moved_at > device.stall_s:
            state = f"no progress for {device.stall_s:g} s" if enabled else "the device was restarted or stopped"
            raise DeviceError(f"{device.name}: {state} at position {position} (limit {self.limit}): "
                              "reset the board and load the model again")
        return []

    def _read_up_to(self, last):
        tokens = self.device.read_ring(self.next, last + 1 - self.next)
        items = list(enumerate(tokens, self.next))
        self._move(last - 1)
        self.next = last + 1
        return items

    def _move(self, position):
        if position > self.position:
            self.position = position
            self.moved_at = time.monotonic()
