"""The stream driver and monitor themselves: they pass a good register and catch each way of breaking the rules."""

import bench
import builds
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from streams import pack, unpack


class Register(wiring.Component):
    """One-entry stream register; `fault` names the rule it breaks: none, "valid", "payload" or "data"."""

    input: In(stream.Signature(8))
    output: Out(stream.Signature(8))

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def elaborate(self, platform):
        m = Module()
        waiting = Signal(3)
        m.d.comb += self.input.ready.eq(~self.output.valid | self.output.ready)
        with m.If(self.input.ready):
            m.d.sync += [self.output.valid.eq(self.input.valid), self.output.payload.eq(self.input.payload),
                         waiting.eq(0)]
        with m.Else():
            m.d.sync += waiting.eq(waiting + 1)
            with m.If(waiting == 1):
                if self.fault == "valid":
                    m.d.sync += self.output.valid.eq(0)
                elif self.fault == "payload":
                    m.d.sync += self.output.payload.eq(self.output.payload ^ 1)
        if self.fault == "data":
            with m.If(self.input.ready & (self.input.payload == 77)):
                m.d.sync += self.output.payload.eq(78)
        return m


@pytest.mark.rtl
@pytest.mark.parametrize("stall", [0.5, 0.0])
def test_good_register_passes(simulator, stall):
    bench.run(Register(None), "bench_streams", "stream_register", simulator, env={"STALL": stall})


@pytest.mark.rtl
@pytest.mark.parametrize("fault, complaint", [("valid", "valid fell before the transfer"),
                                              ("payload", "payload changed from"), ("data", "AssertionError")])
def test_broken_rule_is_caught(fault, complaint, simulator):
    with pytest.raises(AssertionError, match=complaint):
        bench.run(Register(fault), "bench_streams", "stream_register", simulator, env={"STALL": 0.7})


def test_missing_simulator_is_an_error(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match="iverilog on PATH"):
        builds.build(Register(None), "stream_register", "icarus")


def test_payloads_of_layouts():
    layout = data.StructLayout({"last": 1, "values": data.ArrayLayout(4, 3), "sum": data.StructLayout({"low": 2})})
    value = {"last": 1, "values": [3, 15, 8], "sum": {"low": 2}}
    assert pack(layout, value) == 1 | 3 << 1 | 15 << 5 | 8 << 9 | 2 << 13
    assert unpack(layout, pack(layout, value)) == value
