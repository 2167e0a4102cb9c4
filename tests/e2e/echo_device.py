"""Smallest device that fits the simulated board: echoes bytes, and reads and writes memory words on command.

Bytes 'W', word address (1 byte), byte mask (1 byte), data (P bytes) write a word; 'R', word address, length read a
burst and send its bytes; any other byte is echoed. Each word read is also a trace beat.
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


class EchoDevice(wiring.Component):
    """The device; takes one byte per cycle and answers one command at a time. P = 8 (four lanes of trace values)."""

    def __init__(self, config):
        if config.port_bytes != 8:
            raise ValueError(f"port_bytes {config.port_bytes}: the echo device has 8")
        self._lanes = config.lanes
        address = config.word_address_bits
        super().__init__({
            "rx": In(stream.Signature(8)), "tx": Out(stream.Signature(8)), "idle": Out(1),
            "trace": Out(wiring.Signature({"valid": Out(1), "last": Out(1), "is_code": Out(1),
                                           "values": Out(24 * config.lanes), "codes": Out(8 * config.lanes)})),
            "memory": Out(wiring.Signature({
                "read_command": Out(stream.Signature(data.StructLayout({"address": address, "length": 8}))),
                "read_data": In(stream.Signature(64)),
                "write": Out(stream.Signature(data.StructLayout({"address": address, "data": 64, "mask": 8}))),
                "refreshing": In(1)})),
        })

    def elaborate(self, platform):
        m = Module()
        memory = self.memory
        address, mask = Signal(8), Signal(8)
        word, count, left, code = Signal(64), Signal(4), Signal(8), Signal(8)
        # A FIFO is not needed: `left` words are asked for one at a time.
        m.d.comb += [memory.write.payload.address.eq(address), memory.write.payload.data.eq(word),
                     memory.write.payload.mask.eq(mask), memory.read_command.payload.address.eq(address),
                     memory.read_command.payload.length.eq(code), memory.read_data.ready.eq(1)]
        queue = [Signal(64, name=f"queue{k}") for k in range(32)]
        got, sent = Signal(6), Signal(6)
        with m.If(memory.read_data.valid):
            m.d.sync += got.eq(got + 1)
            with m.Switch(got):
                for k in range(32):
                    with m.Case(k):
                        m.d.sync += queue[k].eq(memory.read_data.payload)
        m.d.comb += [self.trace.valid.eq(memory.read_data.valid), self.trace.last.eq(got + 1 == code),
                     self.trace.values.eq(Cat(memory.read_data.payload, memory.read_data.payload[:32])),
                     self.trace.codes.eq(memory.read_data.payload)]
        with m.FSM():
            with m.State("COMMAND"):
                m.d.comb += [self.rx.ready.eq(1), self.idle.eq(~self.rx.valid)]
                m.d.sync += [code.eq(self.rx.payload), count.eq(0), got.eq(0), sent.eq(0)]
                with m.If(self.rx.valid):
                    with m.If(self.rx.payload == ord("W")):
                        m.next = "ADDRESS"
                    with m.Elif(self.rx.payload == ord("R")):
                        m.next = "ADDRESS"
                    with m.Else():
                        m.next = "ECHO"
            with m.State("ECHO"):
                m.d.comb += [self.tx.valid.eq(1), self.tx.payload.eq(code)]
                with m.If(self.tx.ready):
                    m.next = "COMMAND"
            with m.State("ADDRESS"):
                m.d.comb += self.rx.ready.eq(1)
                with m.If(self.rx.valid):
                    m.d.sync += address.eq(self.rx.payload)
                    m.next = "ARGUMENT"
            with m.State("ARGUMENT"):
                m.d.comb += self.rx.ready.eq(1)
                with m.If(self.rx.valid):
                    m.d.sync += mask.eq(self.rx.payload)
                    with m.If(code == ord("W")):
                        m.next = "DATA"
                    with m.Else():
                        m.d.sync += [code.eq(self.rx.payload), left.eq(self.rx.payload)]
                        m.next = "READ"
            with m.State("DATA"):
                m.d.comb += self.rx.ready.eq(1)
                with m.If(self.rx.valid):
                    m.d.sync += [word.eq(Cat(word[8:], self.rx.payload)), count.eq(count + 1)]
                    with m.If(count == 7):
                        m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += memory.write.valid.eq(1)
                with m.If(memory.write.ready):
                    m.next = "COMMAND"
            with m.State("READ"):
                m.d.comb += memory.read_command.valid.eq(1)
                with m.If(memory.read_command.ready):
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.sync += count.eq(0)
                with m.If(left == 0):
                    m.next = "COMMAND"
                with m.Elif(got != sent):
                    with m.Switch(sent):
                        for k in range(32):
                            with m.Case(k):
                                m.d.sync += word.eq(queue[k])
                    m.d.sync += sent.eq(sent + 1)
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [self.tx.valid.eq(1), self.tx.payload.eq(word[:8])]
                with m.If(self.tx.ready):
                    m.d.sync += [word.eq(word >> 8), count.eq(count + 1)]
                    with m.If(count == 7):
                        m.d.sync += left.eq(left - 1)
                        m.next = "LOAD"
        return m
