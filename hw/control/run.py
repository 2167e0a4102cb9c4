"""Run control of a build for one sequence: its registers, the token ring, and when a token starts
and is recorded.
"""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.firmware import isa
from sterna.hw.link.executor import Event
from sterna.hw.protocol import NEVER, Register

TOP_LAYOUT = data.StructLayout({"k": 8, "p": 16})


def ring_bits(config):
    """Bits of the number of an entry of all rings."""
    return (config.batch * config.ring - 1).bit_length()


class HostAccess(wiring.Signature):
    """Registers and token rings as the host's requests reach them.

    Members, seen from the run control
    ----------------------------------
    slot : In(3); offset : In(6); value : In(32); write, read : In(1); ready : Out(1)
        A register (byte offset / 4) of a slot is written with ``value``, or read; it is in a cycle
        with ``ready``.
    answer : Out(32)
        What was read, one cycle later; only with B > 1.
    entry : In(ring_bits); ring_write, ring_read : In(1); ring_ready : Out(1); ring_answer :
    Out(register_bits)
        The same for an entry of the rings.
    """

    def __init__(self, config):
        super().__init__(
            {
                "slot": In(3),
                "offset": In(6),
                "value": In(32),
                "write": In(1),
                "read": In(1),
                "ready": Out(1),
                "answer": Out(32),
                "entry": In(ring_bits(config)),
                "ring_write": In(1),
                "ring_read": In(1),
                "ring_ready": Out(1),
                "ring_answer": Out(config.register_bits),
            }
        )


class Pacing(wiring.Signature):
    """What run control, sequencer and samplers tell each other about the token, or the run, under
    way.

    Members, seen from the run control
    ----------------------------------
    running, halted, sample_done, fault : In; best : In(ArrayLayout(32, B))
        From the sequencer and the samplers.
    go, sample_taken, soft_reset : Out(1)
    token : Out(register_bits); token_valid : Out(1)
        The ring's entry of the present position; valid but in the cycle behind another read of the
        ring.
    unwanted, at_start, greedy : Out(1)
        Conditions of the sequencer.
    positions : Out(ArrayLayout(32, B)); seeds : Out(ArrayLayout(32, B)); tops :
    Out(ArrayLayout(TOP_LAYOUT, B))
        For the random numbers and the list of each slot; ``tops`` only if config.top_k.
    active, reads, writes, first : Out(B); chained : Out(1); sequencer_slot : In(3)
        Only with B > 1: the slots of the present run, as docs/isa.md has them; ``token`` is that of
        ``sequencer_slot``, from two cycles after a change on.
    """

    def __init__(self, config):
        words = data.ArrayLayout(32, config.batch)
        members = {
            "running": In(1),
            "halted": In(1),
            "sample_done": In(1),
            "fault": In(8),
            "best": In(words),
            "go": Out(1),
            "sample_taken": Out(1),
            "soft_reset": Out(1),
            "token": Out(config.register_bits),
            "token_valid": Out(1),
            "unwanted": Out(1),
            "at_start": Out(1),
            "greedy": Out(1),
            "positions": Out(words),
            "seeds": Out(words),
        }
        if config.top_k:
            members |= {"tops": Out(data.ArrayLayout(TOP_LAYOUT, config.batch))}
        if config.batch > 1:
            members |= {name: Out(config.batch) for name in isa.WHICH}
            members |= {
                "chained": Out(1),
                "sequencer_slot": In(3),
            }
        super().__init__(members)


class RunSignature(wiring.Signature):
    """What `RunControl` and `SlotControl` have in common.

    Members, seen from the run control
    ----------------------------------
    host : Out(HostAccess)
    pacing : Out(Pacing)
    event : Out(stream of Event)
        A token has been made.
    """

    def __init__(self, config):
        super().__init__(
            {
                "host": Out(HostAccess(config)),
                "pacing": Out(Pacing(config)),
                "event": Out(stream.Signature(Event)),
            }
        )


class RunControl(wiring.Component):
    """Paces the sequencer token by token, for B = 1.

    A token starts two cycles after the write that allows it; a reset or a new position in between
    stops it. A sample is recorded in the cycle of ``sample_taken``.

    Members
    -------
    Those of `RunSignature`; ``host`` is always ready for registers.
    ring_answers : In(1)
        A read of the ring was taken in the cycle before.
    enabled, position, start, limit, prompt_end, flags, stop : Out
        The registers, to be read.
    """

    def __init__(self, config):
        self._config = config
        number = Out(config.register_bits)
        super().__init__(
            wiring.Signature(
                {
                    **RunSignature(config).members,
                    "ring_answers": In(1),
                    "enabled": Out(1),
                    "position": number,
                    "start": number,
                    "limit": number,
                    "prompt_end": number,
                    "flags": Out(1),
                    "stop": number,
                }
            )
        )

    def readable(self):
        """Register offset -> value. A build without counters keeps to what a host needs."""
        pacing = self.pacing
        found = {
            Register.STATUS: Cat(pacing.running, self.enabled, Const(0, 6), pacing.fault),
            Register.POSITION: self.position,
        }
        if self._config.counters:
            found |= {
                Register.CONTROL: self.enabled,
                Register.START: self.start,
                Register.LIMIT: self.limit,
                Register.PROMPT_END: self.prompt_end,
                Register.SEED: pacing.seeds[0],
                Register.FLAGS: self.flags,
                Register.STOP: self.stop,
            }
            if self._config.top_k:
                found[Register.TOP] = Cat(pacing.tops[0].k, Const(0, 8), pacing.tops[0].p)
        return found

    def elaborate(self, platform):
        # Plan: registers and ring; what the sequencer and the samplers see of them; pacing, which
        # lets a token `go`; recording a sample, which takes the ring's write port and may lower the
        # limit; the writes of the host, which stand last and so win against all that.
        m = Module()
        cfg = self._config
        host, pacing = self.host, self.pacing
        bits = cfg.register_bits
        never = NEVER & ((1 << bits) - 1)
        enabled, position, start, flags = (
            Signal.like(value) for value in (self.enabled, self.position, self.start, self.flags)
        )
        stop, seed = Signal(bits, init=never), Signal(32)
        # Bounds are kept inverted, as the carry chains that compare with them want them.
        limit_n, prompt_end_n = Signal(bits, init=never), Signal(bits, init=never)
        # What is read in the cycle of its write is read again before anybody uses it.
        m.submodules.ring = ring = Memory(
            shape=bits, depth=cfg.ring, init=[], attrs={"no_rw_check": 1}
        )
        ring_read, ring_write = ring.read_port(), ring.write_port()

        # What the engines and the host see of the registers.
        following = Signal(bits)
        # Nobody looks at it in the cycle behind a change of `position`
        m.d.sync += following.eq(position + 1)
        m.d.comb += [
            pacing.greedy.eq(~flags[0]),
            pacing.at_start.eq(position == start),
            pacing.unwanted.eq(following < ~prompt_end_n),
            self.enabled.eq(enabled),
            self.position.eq(position),
            self.start.eq(start),
            self.limit.eq(~limit_n),
            self.prompt_end.eq(~prompt_end_n),
            self.flags.eq(flags),
            self.stop.eq(stop),
            pacing.positions[0].eq(position),
            pacing.seeds[0].eq(seed),
            host.ready.eq(1),
        ]
        with m.If(pacing.halted):
            m.d.sync += position.eq(following)

        # Pacing: whenever the host does not read the ring, its output is the token of the present
        # position.
        moved = Signal()  # a reset or another position: what was decided before is worthless
        m.d.comb += [
            moved.eq(pacing.soft_reset | (host.write & (host.offset == Register.POSITION // 4))),
            pacing.token.eq(ring_read.data),
            host.ring_answer.eq(ring_read.data),
            pacing.token_valid.eq(~self.ring_answers),
            ring_read.en.eq(1),
            ring_read.addr.eq(Mux(host.ring_read, host.entry, position[: len(host.entry)])),
        ]
        m.d.sync += [
            pacing.go.eq(
                enabled
                & ~pacing.running
                & ~pacing.halted
                & (position < self.limit)
                & (pacing.fault == 0)
                & ~moved
            ),
        ]

        # Recording a sample: event, ring entry, stop token.
        best = pacing.best[0][:bits]
        if cfg.slow:
            # The sequencer waits until the link has taken the event; that takes every frame, heard
            # or not.
            m.d.comb += [
                self.event.payload.position.eq(following),
                self.event.payload.token.eq(best),
                pacing.sample_taken.eq(self.event.valid & self.event.ready),
            ]
            m.d.sync += self.event.valid.eq(pacing.sample_done & ~pacing.sample_taken)
        else:
            event_waits, event_position, event_token = Signal(), Signal(bits), Signal(bits)
            m.d.comb += [
                self.event.valid.eq(event_waits),
                self.event.payload.position.eq(event_position),
                self.event.payload.token.eq(event_token),
                pacing.sample_taken.eq(pacing.sample_done & ~event_waits),
            ]
            with m.If(self.event.ready):
                m.d.sync += event_waits.eq(0)
            with m.If(pacing.sample_taken):
                m.d.sync += [
                    event_waits.eq(1),
                    event_position.eq(following),
                    event_token.eq(best),
                ]
        if cfg.slow:
            with m.If(pacing.sample_taken & (best == stop)):
                m.d.sync += limit_n.eq(~following)
        else:
            # In the cycle behind, which is long before the end of the token.
            noted = Signal()
            m.d.sync += noted.eq(pacing.sample_taken)
            with m.If(noted & (event_token == stop)):
                m.d.sync += limit_n.eq(~event_position)
        m.d.comb += [
            ring_write.addr.eq(Mux(pacing.sample_taken, following[: len(host.entry)], host.entry)),
            ring_write.data.eq(Mux(pacing.sample_taken, pacing.best[0], host.value)),
            ring_write.en.eq(pacing.sample_taken | host.ring_write),
            host.ring_ready.eq(~pacing.sample_taken),
        ]

        # Writes of the host.
        if cfg.top_k:
            top = Signal(TOP_LAYOUT)
            m.d.comb += pacing.tops[0].eq(top)
        plain = {
            Register.START: start,
            Register.LIMIT: limit_n,
            Register.PROMPT_END: prompt_end_n,
            Register.SEED: seed,
            Register.FLAGS: flags,
            Register.STOP: stop,
        }
        inverted = (Register.LIMIT, Register.PROMPT_END)
        with m.If(host.write), m.Switch(host.offset):
            with m.Case(Register.CONTROL // 4):
                m.d.sync += enabled.eq(host.value[0])
                m.d.comb += pacing.soft_reset.eq(host.value[1])
            with m.Case(Register.POSITION // 4):
                with m.If(~pacing.running):
                    m.d.sync += position.eq(host.value)
            for offset, register in plain.items():
                with m.Case(offset // 4):
                    m.d.sync += register.eq(~host.value if offset in inverted else host.value)
            if cfg.top_k:
                with m.Case(Register.TOP // 4):
                    m.d.sync += [
                        top.k.eq(host.value[:8]),
                        top.p.eq(host.value[16:]),
                    ]
        return m
