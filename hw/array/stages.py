"""Registers of a row accumulator's pipeline: they load only what belongs to a chunk."""

from amaranth import Signal


class Stages:
    """Pipeline of `count` register stages behind an enable.

    Register stage k loads where the chunk stands k cycles after its entry, so an idle array keeps
    still and nothing here needs a reset.

    Parameters
    ----------
    m : amaranth.Module
        The module that holds the registers.
    enable, last : Signal
        This cycle carries a chunk; the row ends with it.
    count : int
        Stages.

    Attributes
    ----------
    enables, lasts : list of Signal
        `enable` and `last` after 0 to `count` cycles.
    """

    def __init__(self, m, enable, last, count):
        self._m = m
        self.enables, self.lasts = [enable], [last]
        for k in range(count):
            here = Signal(name=f"enable{k}"), Signal(name=f"last{k}")
            m.d.sync += [
                here[0].eq(self.enables[-1]),
                here[1].eq(self.lasts[-1]),
            ]
            self.enables.append(here[0])
            self.lasts.append(here[1])

    def register(self, value, stage, name, clear=None):
        """`value` one cycle later, in register stage `stage`; 0 if `clear` was high then."""
        register = Signal.like(value, name=f"{name}_{stage}", reset_less=True)
        load = self.enables[stage]
        if clear is not None:
            with self._m.If(clear):
                self._m.d.sync += register.eq(0)
            with self._m.Elif(load):
                self._m.d.sync += register.eq(value)
            return register
        with self._m.If(load):
            self._m.d.sync += register.eq(value)
        return register

    def delayed(self, value, count, name):
        """`value` behind the first `count` register stages."""
        for stage in range(count):
            value = self.register(value, stage, name)
        return value
