"""One run of a slot seen from the host: its registers, credit, prompt, drafts and tokens through the ring
(docs/protocol.md, "Running").
"""

import itertools
import time

from sterna.firmware.programs.pieces import INVERSE_TEMPERATURE, LN2
from sterna.host.errors import DeviceError
from sterna.hw import protocol
from sterna.hw.config import longest_text
from sterna.hw.protocol import Register
from sterna.sim.golden import fp24

ONE_BITS, LN2_BITS = (int(fp24.to_bits(fp24.round24(value))) for value in (1.0, fp24.LN2))
HURRY_S = 0.05  # a prompt behind the ring's end sends no event when there is room again


def stop_tokens(stop):
    """The tokens (tuple of int) of a ``stop``: a token, a collection of them, or None."""
    return () if stop is None else (stop,) if isinstance(stop, int) else tuple(stop)


def prepare(device, prompt_ids, n, *, slot=0, seed=0, sample=False, inverse_temperature_bits=None, top=0, stop=None,
            start_position=0, reset_state=True, chained=False, source=None, draft=None):
    """Ends what the slot runs, sets its registers for a run and returns the Run, which has not begun.

    Parameters
    ----------
    device : Device
    prompt_ids : sequence of int
        At least one token; the first one belongs to ``start_position``.
    n : int
        Tokens to generate at most.
    slot : int
    seed : int
        32 bits; with ``sample``, the same seed gives the same tokens.
    sample : bool
        Sample; otherwise greedy.
    inverse_temperature_bits : int or None
        fp24 bits for scalar register 2; None leaves it when sampling, and is 1 otherwise.
    top : int
        Register ``top``: k, and p in units of 2^-16 in the upper half.
    stop : int, collection of int, or None
        Tokens after any of which the run ends; it is yielded. The device knows the first one. For
        the others it never goes on before the host has seen its token, so it comes to rest in the
        same place, at the price of a way over the link for every token.
    start_position : int
        First position of the prompt. To go on with a sequence: the position of the last token that was yielded,
        with that token as the first of ``prompt_ids`` and ``reset_state=False``.
    reset_state : bool
        Start from a zero state; otherwise from the one that is in the device's memory.
    chained : bool
        All slots work for this sequence, the one of slot 0: prompts are read ``batch`` tokens at a time.
    source : int or None
        Chained: the slot whose state region holds the state; None leaves what the device has.
    draft : callable(int) -> list of int, or None
        Chained: asked behind every run of the program for up to so many tokens that may follow; the right ones among
        them are made at once.
    """
    prompt_ids = [int(token) for token in prompt_ids]
    end = start_position + len(prompt_ids) + n
    if not prompt_ids or n < 0 or start_position < 0 or end > longest_text(device.info):
        raise ValueError(f"{len(prompt_ids)} prompt tokens, {n} tokens from position {start_position}: a run needs a "
                         f"prompt and positions below 2^{device.info.register_bits} - 1")
    if slot not in device.slots or (chained and slot) or (draft and not chained):
        raise ValueError(f"slot {slot} of {len(device.slots)}, chained {chained}, drafts {bool(draft)}: a chain is "
                         "that of slot 0, and drafts need one")
    stops = stop_tokens(stop)
    device.chain(chained)
    device.halt(slot)
    scale = inverse_temperature_bits if sample or inverse_temperature_bits is not None else ONE_BITS
    scalars = {LN2: LN2_BITS if sample else 0} | ({} if scale is None else {INVERSE_TEMPERATURE: scale})
    for k in device.slots if chained else (slot,):
        device.write_scalars(scalars, k)
    registers = {Register.POSITION: start_position, Register.START: start_position if reset_state else protocol.NEVER,
                 Register.LIMIT: start_position, Register.PROMPT_END: start_position + len(prompt_ids),
                 Register.SEED: seed, Register.FLAGS: int(sample) | chained * protocol.FLAG_CHAINED,
                 Register.STOP: stops[0] if stops else protocol.NEVER}
    if device.info.top_k:
        registers[Register.TOP] = top
    if chained:
        # With drafts the limit alone says how many tokens a run reads: the host holds it behind the last proposal.
        registers[Register.DRAFT_END] = start_position + len(prompt_ids) + n if draft else 0
        if source is not None:
            registers[Register.SOURCE] = source
    for register, value in registers.items():
        device.write_register(register, value, slot)
    return Run(device, prompt_ids, n, stops, start_position, slot, draft)


class Run:
    """State of one run on the host: what was written into the ring, granted to the device and read back.

    ``tokens`` is all that a run alone needs; runs side by side are driven by ``arrived`` and ``feed``.

    Parameters
    ----------
    device : sterna.host.device.driver.Device
        Its registers are set for the run, and the slot is not enabled yet.
    prompt_ids : list of int
    n : int
        Tokens to generate at most.
    stops : tuple of int
        Tokens after any of which the run ends; the device knows the first one.
    start : int
        Position of the first token of the prompt.
    slot : int
    draft : callable(int) -> list of int, or None
    """

    def __init__(self, device, prompt_ids, n, stops, start, slot, draft):
        self.device = device
        self.prompt_ids = prompt_ids
        self.stops = stops
        self._unknown = frozenset(stops[1:])  # stops that the device does not know
        self.start = start
        self.slot = slot
        self.draft = draft
        self.prompt_end = start + len(prompt_ids)
        self.end = self.prompt_end + n  # positions from here on are not wanted
        self.position = start  # the device has processed everything below, as far as is known
        self.written = start  # prompt tokens below are in the ring
        self.limit = start  # as the device has it
        self.next = self.prompt_end  # next token to yield
        self.newest = None  # the token before that, once one has arrived
        self.proposed = {}  # drafts in the ring, by position
        self._granted = (start, 0)  # the limit last written, and how many requests had been repeated before
        self.hold = None  # the device is not let behind this position
        self.single = False  # the device never goes on before its token has been seen
        self.ended = not n
        self.moved_at = time.monotonic()  # the device has moved, or the host has kept it waiting

    def tokens(self):
        """Generator of (position, token); DeviceError for a fault, a restart, or no progress for ``stall_s``."""
        self.begin()
        while not self.ended:
            for item in self.arrived(self.device.wait_token(self.patience_s, self.slot)):
                yield item
                self.moved_at = time.monotonic()  # the caller's time does not count
            self.feed()

    def begin(self):
        """Lets the device begin."""
        self.feed()
        self.device.enable([self.slot])
        self.moved_at = time.monotonic()

    @property
    def patience_s(self):
        """Seconds without a TOKEN frame after which the position is to be asked for."""
        hurry = self.written < self.prompt_end or self.hold is not None
        return min(self.device.poll_s, HURRY_S) if hurry else self.device.poll_s

    def feed(self):
        """Writes what fits of the prompt, proposes drafts, and raises the limit as far as the ring has room."""
        if self.ended:
            return
        ring = self.device.info.ring
        room = self.position + ring - self.written
        left = self.prompt_end - self.written
        if left and (room >= left or room >= ring // 2):  # not a frame for every token
            part = min(room, left)
            first = self.written - self.start
            self.device.write_ring(self.written, self.prompt_ids[first:first + part], self.slot)
            self.written += part
        # Processing position p writes p + 1, so a limit uses the ring up to and including itself.
        limit = min(self.end - 1, min(self.position, self.next) + ring - 1)
        if self.written < self.prompt_end:
            limit = min(limit, self.written)
        if (self._unknown or self.single) and not self.draft:
            limit = min(limit, self.next)
        if self.hold is not None:
            limit = min(limit, self.hold)
        sampling = self.limit >= self.prompt_end  # the device may have met the stop token below its limit
        if limit <= self.limit or (sampling and self.next != self.limit + 1):
            return
        if self.draft:
            if self._raised_again():
                return
            limit = min(limit, self._propose() if self.newest is not None else self.prompt_end)
        if limit > self.limit:
            self._grant(limit)

    def _raised_again(self):
        """Whether the device, which lowered its limit at a wrong draft, then got our raise again: it goes on."""
        limit, repeated = self._granted
        if self.limit < limit and self.device.requests_repeated != repeated:
            # Whatever was sent before this request has been executed when its answer comes.
            self.limit = max(self.limit, self.device.read_register(Register.LIMIT, self.slot))
        return self.limit >= self.next

    def _propose(self):
        """Writes drafts behind the newest token; returns the limit that lets the device read them."""
        at = self.next - 1
        most = min(self.device.info.batch - 1, self.device.info.ring - 2, self.end - 2 - at)
        drafts = list(self.draft(most))[:most] if most > 0 else []
        if self._unknown:  # one of them may come behind what is read, not among it
            drafts = list(itertools.takewhile(lambda token: token not in self._unknown, drafts))
        if drafts:
            self.device.write_ring(at, [self.newest, *drafts], self.slot)
        self.proposed = dict(enumerate(drafts, at + 1))
        return at + 1 + len(drafts)

    def _grant(self, limit):
        self.limit, self._granted = limit, (limit, self.device.requests_repeated)
        self.device.write_register(Register.LIMIT, limit, self.slot)

    def arrived(self, event):
        """The tokens (list of (position, token)) that a TOKEN frame brings; None instead of one asks the device."""
        items = self._ask() if event is None else self._take(event)
        for k, (position, token) in enumerate(items):
            self.newest = token
            wrong = self.proposed.get(position, token) != token  # then the device waits here
            self.limit = position if wrong else max(self.limit, position)
            if token in self.stops or position + 1 == self.end:
                self.ended = True
                return items[:k + 1]
        return items

    def _take(self, event):
        if not self.next <= event[0] <= self.limit:
            return []  # read from the ring already
        if event[0] > self.next:
            return self._read_up_to(event[0])  # frames before this one were lost
        self._move(event[0] - 1)
        self.next += 1
        return [event]

    def _ask(self):
        device = self.device
        running, enabled, fault, position = device.status(self.slot)
        if fault:
            cause = ("its memory answered with an error; program the board again, and check where its memory lies"
                     if fault == protocol.FAULT_MEMORY else
                     "the program does not fit this device; reset it and load the model again")
            raise DeviceError(f"{device.name}: fault {protocol.FAULTS.get(fault, fault)!r} at position {position}: "
                              f"{cause}")
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
        if self.draft and not running and position == self.next - 1 < self.limit:
            self._grant(self.limit)  # the device has lowered its limit at a wrong draft behind our raise
        return []

    def rest(self, position):
        """The slot is at rest before ``position``; returns the tokens (list) of its ring that nobody has taken."""
        if not self.start <= position <= self.limit:
            raise DeviceError(f"{self.device.name}: reports position {position} outside of {self.start} to "
                              f"{self.limit}: reset the board, then start again")
        self._move(position)
        if self.ended or position < self.next:
            return []
        return [token for _, token in self._read_up_to(min(position, self.end - 1), enabled=False)]

    def _read_up_to(self, last, enabled=True):
        tokens = self.device.read_ring(self.next, last + 1 - self.next, self.slot)
        # A ring that was read behind a restart holds anything. The frame of a token may come before its position.
        _, still, _, position = self.device.status(self.slot)
        if still is not enabled or position < last - 1:
            raise DeviceError(f"{self.device.name}: the device was restarted or stopped at position {last}: "
                              "reset the board and load the model again")
        items = list(enumerate(tokens, self.next))
        self._move(last - 1)
        self.next = last + 1
        return items

    def _move(self, position):
        if position > self.position:
            self.position = position
            self.moved_at = time.monotonic()
