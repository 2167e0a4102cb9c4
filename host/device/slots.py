"""Several runs at once: each in a slot of its own, entering and leaving while others go on."""

import time

from sterna.host.device.run import HURRY_S


class Slots:
    """Drives several runs, which enter and leave while others go on; each is a ``Run`` (host/device/run.py) of its
    own slot, so none waits for another.

    Parameters
    ----------
    device : sterna.host.device.driver.Device
    start : callable(item, slot) -> Run
        Prepares the run of an item in a slot.
    held : callable(item, run)
        Told that a run has come to its ``hold``, its slot being at rest; sets another one, None, or ``ended``.
    over : callable(item, run, tokens)
        Told that a run is over, its slot being at rest, with the tokens (list of int) that no step tells.

    Attributes
    ----------
    free : list of int
        Slots without a run.
    positions : int
        Positions that the slots have processed in runs that are over.
    """

    def __init__(self, device, start, held=lambda item, run: None, over=lambda item, run, tokens: None):
        self.device, self._start, self._held, self._over = device, start, held, over
        self.free, self.positions = list(device.slots), 0
        self._runs = {}  # by slot: (item, Run)
        self._ready = []  # slots whose runs have not begun
        self._heard_at = {}  # by slot: when the device last said something about it
        self._left_at = time.monotonic()

    def __len__(self):
        return len(self._runs)

    @property
    def runs(self):
        """Items and their runs, list of (object, Run)."""
        return list(self._runs.values())

    def enter(self, item, slot=None):
        """An item takes a slot, the first one that is free or a certain one; it runs from the next step on."""
        slot = self.free[0] if slot is None else slot
        run = self._start(item, slot)
        run.feed()
        self.free.remove(slot)
        self._runs[slot] = item, run
        self._ready.append(slot)

    def step(self, closed):
        """Lets the device work until something has come, or for HURRY_S.

        Parameters
        ----------
        closed : callable(item) -> bool
            Asked at the beginning: True ends the item's run.

        Returns
        -------
        list of (item, token) : list of (object, int or None)
            Tokens that have come; None behind the last one of an item whose run is over, its slot at rest and free.
        """
        away_s = time.monotonic() - self._left_at  # what the caller does with tokens is no time of the device
        for _, run in self._runs.values():
            run.moved_at += away_s
        out = [(item, None) for item in self._closed(closed)]
        self._begin()
        if self._runs and not out:
            wait_s = min(run.patience_s for _, run in self._runs.values())
            self.device.wait_any(min(HURRY_S, wait_s), list(self._runs))
        for slot, (item, run) in list(self._runs.items()):
            out += [(item, token) for token in self._arrived(slot, run)]
            if run.hold is not None and run.position >= run.hold and not run.ended:
                run.hold = None
                self._held(item, run)
            if run.ended:
                self._end(slot)
                out.append((item, None))
            else:
                run.feed()
        self._left_at = time.monotonic()
        return out

    def leave(self, item):
        """Ends the run of an item."""
        self._end(next(slot for slot, (other, _) in self._runs.items() if other is item))

    def stop(self):
        """Brings all slots to rest."""
        for slot in list(self._runs):
            self._end(slot)

    def _closed(self, closed):
        for slot, (item, _) in list(self._runs.items()):
            if closed(item):
                self._end(slot)
                yield item

    def _begin(self):
        if self._ready:
            self.device.enable(self._ready)  # together: a run of the program serves all
        for slot in self._ready:
            self._heard_at[slot] = self._runs[slot][1].moved_at = time.monotonic()
        self._ready = []

    def _arrived(self, slot, run):
        """Tokens (list) of a slot that have come since; asks for its position when none has come for long."""
        event = self.device.wait_token(0, slot)
        if event is None and time.monotonic() - self._heard_at[slot] < run.patience_s:
            return []
        items = run.arrived(event)
        while not run.ended and (event := self.device.wait_token(0, slot)):
            items += run.arrived(event)
        self._heard_at[slot] = time.monotonic()
        return [token for _, token in items]

    def _end(self, slot):
        """The slot comes to rest and is free."""
        item, run = self._runs.pop(slot)
        if slot in self._ready:
            self._ready.remove(slot)
        self.free.append(slot)
        left = run.rest(self.device.halt(slot))
        self.positions += run.position - run.start
        self._over(item, run, left)
