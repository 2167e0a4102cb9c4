"""Sequences side by side in the slots of a device, each started as soon as a slot is free."""

import time

from sterna.host.device.run import HURRY_S


class Slots:
    """Drives several runs; each is a ``sterna.host.device.run.Run`` of its own slot, so none waits for another.

    Parameters
    ----------
    device : sterna.host.device.driver.Device
    start : callable(item, slot) -> Run
        Prepares the run of an item in a slot.

    Attributes
    ----------
    positions : int
        Positions that the slots have processed in runs that are over.
    """

    def __init__(self, device, start):
        self.device, self._start = device, start
        self.positions = 0
        self._runs = {}  # by slot: (item, Run)
        self._heard_at = {}  # by slot: when the device last said something about it

    def run(self, items, closed, idle=lambda: None):
        """Runs all items, in the order given as slots become free.

        Parameters
        ----------
        items : iterable
        closed : callable(item) -> bool
            Asked behind every token: True ends the item's run.
        idle : callable()
            Called now and then while the device works.

        Yields
        ------
        (item, token) : (object, int or None)
            None when the item's run is over and its slot at rest.
        """
        items, free = iter(items), list(self.device.slots)
        more = True
        while more or self._runs:
            ready = []
            while more and free:
                item = next(items, None)
                more = item is not None
                if more and closed(item):
                    yield from self._passed(item, None)
                elif more:
                    ready.append(free.pop(0))
                    self._prepare(item, ready[-1])
            if ready:
                self.device.enable(ready)  # together: a run of the program serves all
            for slot in ready:
                self._heard_at[slot] = self._runs[slot][1].moved_at = time.monotonic()
            if self._runs:
                wait_s = min(run.patience_s for _, run in self._runs.values())
                self.device.wait_any(min(HURRY_S, wait_s), list(self._runs))
            for slot, (item, run) in list(self._runs.items()):
                for token in self._arrived(slot, run):
                    if not closed(item):
                        yield from self._passed(item, token)
                if run.ended or closed(item):
                    self._end(slot)
                    free.append(slot)
                    yield from self._passed(item, None)
                else:
                    run.feed()
            idle()

    def _prepare(self, item, slot):
        run = self._start(item, slot)
        run.feed()
        self._runs[slot] = item, run

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

    def _passed(self, item, token):
        """Yields (item, token); what the caller does with it is no time of the device."""
        begun = time.monotonic()
        yield item, token
        for _, run in self._runs.values():
            run.moved_at += time.monotonic() - begun

    def _end(self, slot):
        _, run = self._runs.pop(slot)
        self.positions += self.device.halt(slot) - run.start

    def stop(self):
        """Brings all slots to rest."""
        for slot in list(self._runs):
            self._end(slot)
