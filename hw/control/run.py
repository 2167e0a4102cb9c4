"""Run control of a build for one sequence: its registers, the token ring, and when a token starts and is recorded."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.link.executor import Event
from sterna.hw.protocol import NEVER, Register

TOP_LAYOUT = data.StructLayout({"k": 8, "p": 16})


def ring_bits(config):
    """Bits of the number of an entry of all rings."""
    return (config.batch * config.ring - 1).bit_length()


class RunSignature(wiring.Signature):
    """What `RunControl` and `SlotControl` have in common.

    Members, seen from the run control
    ----------------------------------
    slot : In(3); offset : In(6); value : In(32); write, read : In(1); ready : Out(1)
        A register (byte offset / 4) of a slot is written with ``value``, or read; it is in a cycle with ``ready``.
    answer : Out(32)
        What was read, one cycle later; only with B > 1.
    entry : In(ring_bits); ring_write, ring_read : In(1); ring_ready : Out(1); ring_answer : Out(register_bits)
        The same for an entry of the rings.
    event : Out(stream of Event)
    running, halted, sample_done, fault : In; best : In(ArrayLayout(32, B))
        From the sequencer and the samplers.
    go, sample_taken, soft_reset : Out(1)
    token : Out(register_bits); token_valid : Out(1)
        The ring's entry of the present position; valid but in the cycle behind another read of the ring.
    unwanted, at_start, greedy : Out(1)
        Conditions of the sequencer.
    positions : Out(ArrayLayout(32, B)); seeds : Out(ArrayLayout(32, B)); tops : Out(ArrayLayout(TOP_LAYOUT, B))
        For the random numbers and the list of each slot; ``tops`` only if config.top_k.
    """

    def __init__(self, config):
        number = config.register_bits
        words = data.ArrayLayout(32, config.batch)
        super().__init__({
            "slot": In(3), "offset": In(6), "value": In(32), "write": In(1), "read": In(1), "ready": Out(1),
            "answer": Out(32), "entry": In(ring_bits(config)), "ring_write": In(1), "ring_read": In(1),
            "ring_ready": Out(1), "ring_answer": Out(number), "event": Out(stream.Signature(Event)),
            "running": In(1), "halted": In(1), "sample_done": In(1), "fault": In(8), "best": In(words),
            "go": Out(1), "sample_taken": Out(1), "soft_reset": Out(1), "token": Out(number), "token_valid": Out(1),
            "unwanted": Out(1), "at_start": Out(1), "greedy": Out(1), "positions": Out(words), "seeds": Out(words),
            **({"tops": Out(data.ArrayLayout(TOP_LAYOUT, config.batch))} if config.top_k else {}),
        })


class RunControl(wiring.Component):
    """Paces the sequencer token by token, for B = 1.

    A token starts two cycles after the write that allows it; a reset or a new position in between stops it. A sample
    is recorded in the cycle of ``sample_taken``.

    Members
    -------
    Those of `RunSignature`, always ``ready`` for registers.
    ring_answers : In(1)
        A read of the ring was taken in the cycle before.
    enabled, position, start, limit, prompt_end, flags, stop : Out
        The registers, to be read.
    """

    def __init__(self, config):
        self._config = config
        number = Out(config.register_bits)
        super().__init__(wiring.Signature({
            **RunSignature(config).members, "ring_answers": In(1), "enabled": Out(1), "position": number,
            "start": number, "limit": number, "prompt_end": number, "flags": Out(1), "stop": number,
        }))

    def readable(self):
        """Register offset -> value. A build without counters keeps to what a host needs."""
        found = {
            Register.STATUS: Cat(self.running, self.enabled, Const(0, 6), self.fault),
            Register.POSITION: self.position,
        }
        if self._config.counters:
            found |= {
                Register.CONTROL: self.enabled,
                Register.START: self.start,
                Register.LIMIT: self.limit,
                Register.PROMPT_END: self.prompt_end,
                Register.SEED: self.seeds[0],
                Register.FLAGS: self.flags,
                Register.STOP: self.stop,
            }
            if self._config.top_k:
                found[Register.TOP] = Cat(self.tops[0].k, Const(0, 8), self.tops[0].p)
        return found

    def elaborate(self, platform):
        m = Module()
        cfg = self._config
        bits = cfg.register_bits
        never = NEVER & ((1 << bits) - 1)
        enabled, position, start, flags = (Signal.like(value) for value in (self.enabled, self.position, self.start,
                                                                            self.flags))
        stop, seed = Signal(bits, init=never), Signal(32)
        # Bounds are kept inverted, as the carry chains that compare with them want them.
        limit_n, prompt_end_n = Signal(bits, init=never), Signal(bits, init=never)
        # What is read in the cycle of its write is read again before anybody uses it.
        m.submodules.ring = ring = Memory(shape=bits, depth=cfg.ring, init=[], attrs={"no_rw_check": 1})
        ring_read, ring_write = ring.read_port(), ring.write_port()

        following = Signal(bits)
        m.d.sync += following.eq(position + 1)  # nobody looks at it in the cycle behind a change of `position`
        m.d.comb += [
            self.greedy.eq(~flags[0]),
            self.at_start.eq(position == start),
            self.unwanted.eq(following < ~prompt_end_n),
            self.enabled.eq(enabled), self.position.eq(position), self.start.eq(start), self.limit.eq(~limit_n),
            self.prompt_end.eq(~prompt_end_n), self.flags.eq(flags), self.stop.eq(stop),
            self.positions[0].eq(position), self.seeds[0].eq(seed),
            self.ready.eq(1),
        ]
        with m.If(self.halted):
            m.d.sync += position.eq(following)

        # Pacing: whenever the host does not read the ring, its output is the token of the present position.
        moved = Signal()  # a reset or another position: what was decided before is worthless
        m.d.comb += [
            moved.eq(self.soft_reset | (self.write & (self.offset == Register.POSITION // 4))),
            self.token.eq(ring_read.data), self.ring_answer.eq(ring_read.data),
            self.token_valid.eq(~self.ring_answers), ring_read.en.eq(1),
            ring_read.addr.eq(Mux(self.ring_read, self.entry, position[:len(self.entry)])),
        ]
        m.d.sync += [
            self.go.eq(enabled & ~self.running & ~self.halted & (position < self.limit) & (self.fault == 0) & ~moved),
        ]

        # Recording a sample: event, ring entry, stop token.
        best = self.best[0][:bits]
        if cfg.slow:
            # The sequencer waits until the link has taken the event; that takes every frame, heard or not.
            m.d.comb += [
                self.event.payload.position.eq(following), self.event.payload.token.eq(best),
                self.sample_taken.eq(self.event.valid & self.event.ready),
            ]
            m.d.sync += self.event.valid.eq(self.sample_done & ~self.sample_taken)
        else:
            event_waits, event_position, event_token = Signal(), Signal(bits), Signal(bits)
            m.d.comb += [
                self.event.valid.eq(event_waits),
                self.event.payload.position.eq(event_position), self.event.payload.token.eq(event_token),
                self.sample_taken.eq(self.sample_done & ~event_waits),
            ]
            with m.If(self.event.ready):
                m.d.sync += event_waits.eq(0)
            with m.If(self.sample_taken):
                m.d.sync += [event_waits.eq(1), event_position.eq(following), event_token.eq(best)]
        if cfg.slow:
            with m.If(self.sample_taken & (best == stop)):
                m.d.sync += limit_n.eq(~following)
        else:
            # In the cycle behind, which is long before the end of the token.
            noted = Signal()
            m.d.sync += noted.eq(self.sample_taken)
            with m.If(noted & (event_token == stop)):
                m.d.sync += limit_n.eq(~event_position)
        m.d.comb += [
            ring_write.addr.eq(Mux(self.sample_taken, following[:len(self.entry)], self.entry)),
            ring_write.data.eq(Mux(self.sample_taken, self.best[0], self.value)),
            ring_write.en.eq(self.sample_taken | self.ring_write),
            self.ring_ready.eq(~self.sample_taken),
        ]

        if cfg.top_k:
            top = Signal(TOP_LAYOUT)
            m.d.comb += self.tops[0].eq(top)
        plain = {
            Register.START: start,
            Register.LIMIT: limit_n,
            Register.PROMPT_END: prompt_end_n,
            Register.SEED: seed,
            Register.FLAGS: flags,
            Register.STOP: stop,
        }
        inverted = (Register.LIMIT, Register.PROMPT_END)
        with m.If(self.write), m.Switch(self.offset):
            with m.Case(Register.CONTROL // 4):
                m.d.sync += enabled.eq(self.value[0])
                m.d.comb += self.soft_reset.eq(self.value[1])
            with m.Case(Register.POSITION // 4):
                with m.If(~self.running):
                    m.d.sync += position.eq(self.value)
            for offset, register in plain.items():
                with m.Case(offset // 4):
                    m.d.sync += register.eq(~self.value if offset in inverted else self.value)
            if cfg.top_k:
                with m.Case(Register.TOP // 4):
                    m.d.sync += [top.k.eq(self.value[:8]), top.p.eq(self.value[16:])]
        return m
