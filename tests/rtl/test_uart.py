"""The UART in simulation, at bits of 4 to 208 cycles."""

import bench
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from sterna.hw.link.uart import BitClock, Uart, UartReceiver, UartTransmitter

# Clock, rate, bytes per test.
RATES = [(80_000_000, 12_000_000, 60), (8_000_000, 115_200, 2), (24_000_000, 1_000_000, 20),
         (80_000_000, 3_000_000, 20), (24_000_000, 3_000_000, 40), (48_000_000, 12_000_000, 60)]


class Watched(wiring.Component):
    """A UART with the receiver's pulses as ports."""

    def __init__(self, clock_hz, baud):
        self._uart = Uart(clock_hz, baud)
        super().__init__(dict(self._uart.signature.members) | {"receiver_error": Out(1), "receiver_break": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.uart = uart = self._uart
        for name in ("rx", "tx"):
            source, target = (getattr(uart, name), wiring.flipped(getattr(self, name)))
            wiring.connect(m, source, target) if name == "rx" else wiring.connect(m, target, source)
        m.d.comb += [
            uart.rx_line.eq(self.rx_line), self.tx_line.eq(uart.tx_line), self.errors.eq(uart.errors),
            self.idle.eq(uart.idle), self.receiver_error.eq(uart._receiver.error),
            self.receiver_break.eq(uart._receiver.break_),
        ]
        return m


@pytest.mark.rtl
@pytest.mark.parametrize("clock_hz, baud, count", RATES)
def test_uart(clock_hz, baud, count, simulator):
    bench.run(Watched(clock_hz, baud), "bench_uart", "uart", simulator,
              env={"CLOCK_HZ": clock_hz, "BAUD": baud, "COUNT": count})


@pytest.mark.parametrize("clock_hz, baud", [(24_000_000, 6_000_001), (80_000_000, 0), (80_000_000, -1)])
@pytest.mark.parametrize("unit", [UartReceiver, UartTransmitter, Uart])
def test_impossible_rates(unit, clock_hz, baud):
    with pytest.raises(ValueError, match=f"baud {baud} with a clock of {clock_hz} Hz: use 1 to {clock_hz // 4}"):
        unit(clock_hz, baud)


@pytest.mark.parametrize("clock_hz", [12_000_000, 24_000_000, 25_000_000, 80_000_000, 200_000_000])
@pytest.mark.parametrize("baud", [9600, 115_200, 921_600, 1_000_000, 3_000_000])
def test_rates_are_met(clock_hz, baud):
    clock = BitClock(clock_hz, baud)
    assert abs(clock.step / (1 << clock.bits) * clock_hz / baud - 1) < 5e-4
