"""The next run of a controller of SDRAM: its row is opened while the current run goes on."""

from amaranth import Array, Cat, Signal


class NextRun:
    """What is known of the banks, and a state machine that takes a run and opens its row.

        runs --> NONE --> LOOK --> DECIDE --> (PRECHARGE) OPEN --> OPENING --> READY --> started

    A run takes four cycles of it, and the times of the chip where its row is not open. Before a
    REFRESH (``due``) it goes back to LOOK, and stays there while ``held``. The rows of all banks
    are compared with the run's as it is taken, so that LOOK only chooses among the results.

    Parameters
    ----------
    m : amaranth.Module
    runs : stream
        With row and bank.
    row_bits, banks : int
    due : Signal
        A REFRESH waits: no run starts.
    held : Signal
        No row is looked at.
    starts : Signal
        The run that is ready becomes the current one.

    Attributes
    ----------
    run : Signal, the payload of ``runs``
    open : Signal, a bit of each bank
    ready : Signal
        The row of ``run`` is open.
    """

    def __init__(self, m, runs, row_bits, banks, *, due, held, starts):
        self._m, self._runs = m, runs
        self._due, self._held, self._starts = due, held, starts
        self.run = Signal.like(runs.payload, name="following")
        self.open = Signal(banks)
        # States NONE and READY by themselves: much depends on them, and far from each other
        self._free, self.ready = Signal(init=1), Signal()
        self._rows = Array(Signal(row_bits, name=f"row{k}") for k in range(banks))
        self._same = Signal(banks)

    def add(self, may_close, send_close, send_open, wait):
        """Adds the state machine.

        Parameters
        ----------
        may_close : Signal
            The row that is open in the run's bank may be closed.
        send_close, send_open : callable
            Add the statements of PRECHARGE and of ACTIVATE, which start the timer ``wait``.
        wait : Timer
        """
        m, run, rows, same = self._m, self.run, self._rows, self._same
        hit, bank_open = Signal(), Signal()
        is_open = self.open.bit_select(run.bank, 1)
        m.d.comb += self._runs.ready.eq(self._free)
        with m.If(self._free):
            m.d.sync += [
                run.eq(self._runs.payload),
                same.eq(Cat(row == self._runs.payload.row for row in rows)),
            ]
        with m.FSM(name="next"):
            with m.State("NONE"):
                with m.If(self._runs.valid):
                    m.d.sync += self._free.eq(0)
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += [
                    bank_open.eq(is_open),
                    hit.eq(is_open & same.bit_select(run.bank, 1)),
                ]
                with m.If(~self._held):
                    m.next = "DECIDE"
            with m.State("DECIDE"):
                with m.If(self._due):
                    m.next = "LOOK"
                with m.Elif(hit):
                    m.d.sync += self.ready.eq(1)
                    m.next = "READY"
                with m.Elif(~bank_open):
                    m.next = "OPEN"
                with m.Elif(may_close):
                    send_close()
                    m.next = "OPEN"
            with m.State("OPEN"):
                with m.If(self._due):
                    m.d.sync += is_open.eq(0)
                    m.next = "LOOK"
                with m.Elif(wait.done):
                    send_open()
                    m.d.sync += [
                        is_open.eq(1),
                        rows[run.bank].eq(run.row),
                        same.bit_select(run.bank, 1).eq(1),
                    ]
                    m.next = "OPENING"
            with m.State("OPENING"):
                with m.If(wait.done):
                    m.d.sync += self.ready.eq(1)
                    m.next = "READY"
            with m.State("READY"):
                with m.If(self._starts):
                    m.d.sync += [
                        self._free.eq(1),
                        self.ready.eq(0),
                    ]
                    m.next = "NONE"
                with m.Elif(self._due):
                    m.d.sync += self.ready.eq(0)
                    m.next = "LOOK"
