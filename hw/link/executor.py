"""Frames to 32-bit requests, responses and events to reply frames."""

from amaranth import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.protocol import HASH_UNIT_BYTES, HIGH_BITS, HIGH_LSB, Kind

REASON_FORM = 1  # unknown type, or a length that does not fit
REASON_ADDRESS = 2
REASON_MEMORY = 3  # the memory has answered with an error
# A HASH covers so many words where a READ covers one
HASH_SHIFT = (HASH_UNIT_BYTES - 1).bit_length()


class Request(data.Struct):
    """A 32-bit access; ``address`` in bytes, ``data`` meaningful for writes. The upper four bits of
    the address are 0 where the executor is not ``wide``.
    """

    write: unsigned(1)
    address: unsigned(32 + HIGH_BITS)
    data: unsigned(32)


class Response(data.Struct):
    """The answer to a request; ``error``: nothing answers at this address, or with ``memory`` the
    memory there has answered with an error.
    """

    data: unsigned(32)
    error: unsigned(1)
    memory: unsigned(1)


class Event(data.Struct):
    """A token that the device sampled, the position it belongs to, and the slot of its sequence."""

    position: unsigned(32)
    token: unsigned(32)
    slot: unsigned(3)


class FrameExecutor(wiring.Component):
    """Executes verified frames in order and builds one reply for each.

    The reply is built while the request is read: the header is echoed with another type. A READ
    then puts the words it reads behind it, a WRITE gathers words and writes them. If something is
    wrong (form, or an error response), the unfinished reply is thrown away, the frame is read again
    from its start, and the same path builds a NAK. An event takes the same path with its own
    header. Events and frames alternate when both wait, so neither can hold up the other.

    A HASH reads words like a READ, but `silent` keeps their bytes out of the frame: they only pass
    the checksum unit of the transmitter, from a fresh start. Then the frame is read again from its
    start, as for a NAK, and the reply SUM carries the checksum. So hashing costs a few cells and no
    port of its own.

    Throughput: a word per max(4, latency + 1) cycles for WRITE, per max(6, latency + 3) for READ
    and HASH, with latency the cycles from request to response; at most one request is under way.
    About 20 cycles per frame besides, 40 for a HASH. A host that does not take its replies stops
    the executor at the next reply, and it goes on when the bytes are taken.

    Members
    -------
    available, bytes, rewind, release
        The queue of frames (``FrameReceiver``).
    body, restart, finish, finished, silent, checksum
        The reply (``FrameTransmitter``).
    request : Out(stream of Request)
    response : In(stream of Response)
        One per request, in order.
    event : In(stream of Event)

    Parameters
    ----------
    number_bits : int
        Bits of an event's position and token; the others are 0.
    slot_bits : int
        The same for its slot.
    registered : bool
        A frame that is rejected is read again a cycle later: a shorter path.
    wide : bool
        Addresses have 36 bits, the upper four of which are in the type byte of a request.
    """

    def __init__(self, number_bits=32, slot_bits=0, registered=True, wide=False):
        self._number_bits, self._slot_bits, self._registered = number_bits, slot_bits, registered
        self._high_bits = HIGH_BITS if wide else 0
        super().__init__(
            {
                "available": In(1),
                "bytes": In(stream.Signature(8)),
                "rewind": Out(1),
                "release": Out(1),
                "body": Out(stream.Signature(8)),
                "restart": Out(1),
                "finish": Out(1),
                "finished": In(1),
                "silent": Out(1),
                "checksum": In(32),
                "request": Out(stream.Signature(Request)),
                "response": In(stream.Signature(Response)),
                "event": In(stream.Signature(Event)),
            }
        )

    def elaborate(self, platform):
        # Plan: the state of a frame; the request that is offered (`issue`, `address`,
        # `words_left`); a state machine, which echoes the header (HEADER), takes the words of a
        # WRITE (GATHER), reads those of a READ or HASH (LOAD), sends data (PUT), begins the reply
        # of a HASH (SUM) and ends a frame (FINISH); what happens to a frame on `reject`; at the end
        # the handshakes, with the frame's fresh start (`anew`).
        m = Module()
        # The frame: its header, its words, and what has become of it.
        address = Signal(32 + self._high_bits, reset_less=True)
        word = Signal(32, reset_less=True)
        words_left = Signal(6 + HASH_SHIFT)  # words of the frame whose request has not been taken
        byte_index = Signal(2)  # byte of the word
        step = Signal(3)  # place in the header
        data_bytes = word[24:]  # in the header: bytes found in the frame behind it
        is_event = Signal()
        is_write = Signal()
        is_nak = Signal()
        is_hash = Signal()
        summed = Signal()  # the words of this HASH have been read: the reply is due
        issue = Signal()  # a request is offered
        pending = Signal()  # a request was taken and its response is due
        failed = Signal()  # a response of this WRITE was an error
        of_memory = Signal()  # and the memory's

        address_byte, length_byte = Signal(), Signal()  # a byte of the header that is kept
        own_data = is_event | is_nak | summed  # the reply carries data that no request asked for
        byte = self.bytes.payload
        reject = Signal()
        late = Signal()  # the frame begins anew, after it was rejected
        hash_begins = Signal()
        reason = Signal(2)
        nak_reason = Signal(2)
        position, token = Signal(32), Signal(32)

        # The request.
        m.d.comb += [
            position.eq(self.event.payload.position[: self._number_bits]),
            token.eq(self.event.payload.token[: self._number_bits]),
            self.request.valid.eq(issue),
            self.request.payload.write.eq(is_write),
            self.request.payload.address.eq(address),
            self.request.payload.data.eq(word),
        ]
        with m.If(issue & self.request.ready):
            m.d.sync += [
                issue.eq(0),
                pending.eq(1),
            ]
        # Both registers are loaded in the header only, where nothing is issued: `issue` alone
        # selects their next value.
        with m.If((issue & self.request.ready) | address_byte):
            m.d.sync += address.eq(Mux(issue, address + 4, Cat(address[8:32], byte, address[32:])))
        with m.If((issue & self.request.ready) | length_byte):
            m.d.sync += words_left.eq(
                Mux(issue, words_left - 1, Mux(is_hash, byte[2:] << HASH_SHIFT, byte[2:]))
            )

        # A frame or an event at a time.
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [
                    is_nak.eq(0),
                    failed.eq(0),
                    is_hash.eq(0),
                    summed.eq(0),
                ]
                # `is_event` still tells what the last frame was.
                with m.If(self.event.valid & ~(is_event & self.available)):
                    # Taken in FINISH: until then the payload is stable
                    m.d.sync += [
                        is_event.eq(1),
                        step.eq(1),
                    ]
                    m.next = "HEADER"
                with m.Elif(self.available):
                    m.d.sync += [
                        is_event.eq(0),
                        step.eq(0),
                    ]
                    m.next = "HEADER"

            with m.State("HEADER"):
                plain = Cat(byte[:HIGH_LSB], byte[HIGH_LSB + self._high_bits :])
                known = (plain == Kind.READ) | (plain == Kind.WRITE) | (plain == Kind.HASH)
                fits = (
                    (byte[:2] == 0)
                    & (byte != 0)
                    & ~((byte[5:] == 7) & (byte[2:5] != 0))
                    & (data_bytes == Mux(is_write, byte, 0))
                )
                take = Signal()
                m.d.comb += [
                    take.eq(
                        Mux(step == 0, self.bytes.valid & ~late, self.body.valid & self.body.ready)
                    ),
                    self.body.payload.eq(byte),
                ]
                with m.Switch(step):
                    with m.Case(1):
                        with m.If(is_event | is_nak):
                            m.d.comb += self.body.payload.eq(Mux(is_event, Kind.TOKEN, Kind.NAK))
                        with m.Else():
                            m.d.comb += self.body.payload.eq(
                                (byte & ((1 << HIGH_LSB) - 1) if self._high_bits else byte) | 0x80
                            )
                    with m.Case(2):
                        with m.If(is_event):
                            m.d.comb += self.body.payload.eq(
                                self.event.payload.slot[: self._slot_bits] if self._slot_bits else 0
                            )
                    with m.Case(3, 4, 5, 6):
                        with m.If(is_event):
                            m.d.comb += self.body.payload.eq(
                                Array(position.word_select(k, 8) for k in (1, 2, 3, 0))[step[:2]]
                            )
                    with m.Case(7):
                        with m.If(own_data):
                            m.d.comb += self.body.payload.eq(4)
                with m.If(take):
                    m.d.sync += step.eq(step + 1)
                    with m.Switch(step):
                        with m.Case(0):
                            with m.If(~summed):
                                m.d.sync += word.eq(Cat(word[8:], byte))
                        with m.Case(1):
                            m.d.sync += [
                                is_write.eq(byte[1]),
                                is_hash.eq(byte[2]),
                                address[32:].eq(byte[HIGH_LSB:]),
                            ]
                            m.d.comb += [
                                reject.eq(~own_data & ~known),
                                reason.eq(REASON_FORM),
                            ]
                        with m.Case(3, 4, 5, 6):
                            m.d.comb += address_byte.eq(1)
                            # Accesses are aligned
                            with m.If(~step[2] & ~own_data & (byte[:2] != 0)):
                                m.d.comb += [
                                    reject.eq(1),
                                    reason.eq(REASON_ADDRESS),
                                ]
                        with m.Case(7):
                            m.d.comb += length_byte.eq(1)
                            with m.If(own_data):
                                m.next = "PUT"
                            with m.Elif(~fits):
                                m.d.comb += [
                                    reject.eq(1),
                                    reason.eq(REASON_FORM),
                                ]
                            with m.Elif(is_write):
                                m.next = "GATHER"
                            with m.Else():
                                m.d.sync += issue.eq(1)
                                m.d.comb += hash_begins.eq(is_hash)
                                m.next = "LOAD"

            with m.State("GATHER"):
                # The word belongs to the request until that is taken; the next one may only follow
                # its response.
                take = Signal()
                quiet = ~issue & ~pending
                m.d.comb += take.eq(self.bytes.valid & self.bytes.ready)
                with m.If(take):
                    m.d.sync += [
                        word.eq(Cat(word[8:], byte)),
                        byte_index.eq(byte_index + 1),
                    ]
                    with m.If(byte_index == 3):
                        m.d.sync += issue.eq(1)
                with m.If(pending & self.response.valid):
                    m.d.sync += [
                        pending.eq(0),
                        failed.eq(self.response.payload.error),
                        of_memory.eq(self.response.payload.memory),
                    ]
                with m.If(quiet & failed):
                    m.d.comb += [
                        reject.eq(1),
                        reason.eq(Mux(of_memory, REASON_MEMORY, REASON_ADDRESS)),
                    ]
                    m.d.sync += issue.eq(0)
                    m.next = "HEADER"
                with m.Elif(quiet & (words_left == 0)):
                    m.next = "FINISH"

            with m.State("LOAD"):
                with m.If(pending & self.response.valid):
                    m.d.sync += [
                        pending.eq(0),
                        word.eq(self.response.payload.data),
                    ]
                    with m.If(self.response.payload.error):
                        m.d.comb += [
                            reject.eq(1),
                            reason.eq(
                                Mux(self.response.payload.memory, REASON_MEMORY, REASON_ADDRESS)
                            ),
                        ]
                        m.next = "HEADER"
                    with m.Else():
                        with m.If(words_left != 0):
                            m.d.sync += issue.eq(1)
                        m.next = "PUT"

            with m.State("PUT"):
                m.d.comb += self.body.payload.eq(word[:8])
                with m.If(is_event):
                    m.d.comb += self.body.payload.eq(token.word_select(byte_index, 8))
                with m.Elif(is_nak):
                    m.d.comb += self.body.payload.eq(Mux(byte_index == 0, nak_reason, 0))
                with m.If(self.body.valid & self.body.ready):
                    m.d.sync += [
                        word.eq(Cat(word[8:], byte)),
                        byte_index.eq(byte_index + 1),
                    ]
                    with m.If(byte_index == 3):
                        with m.If(pending):
                            m.next = "LOAD"
                        with m.Elif(self.silent):
                            m.next = "SUM"
                        with m.Else():
                            m.next = "FINISH"

            with m.State("SUM"):
                m.d.sync += [
                    word.eq(self.checksum),
                    summed.eq(1),
                    step.eq(0),
                ]
                m.next = "HEADER"

            with m.State("FINISH"):
                with m.If(self.finished):
                    m.next = "IDLE"

        m.d.comb += self.silent.eq(is_hash & ~own_data)

        # A frame that was rejected is read again, for a NAK.
        with m.If(reject):
            m.d.sync += [
                is_nak.eq(1),
                nak_reason.eq(reason),
                byte_index.eq(0),
                step.eq(0),
            ]

        # Handshakes as plain expressions: they are defined from reset on, in every simulator.
        in_header, in_finish = fsm.ongoing("HEADER"), fsm.ongoing("FINISH")
        anew = (reject & (in_header | fsm.ongoing("GATHER") | fsm.ongoing("LOAD"))) | (
            in_header & hash_begins
        )
        if self._registered:
            m.d.sync += late.eq(anew)
            anew = late
        gathers = (
            fsm.ongoing("GATHER") & ~issue & (words_left != 0) & ~(pending & (byte_index == 3))
        )
        puts = fsm.ongoing("PUT") & ~issue  # `word` moves, and an offered request must not change
        m.d.comb += [
            self.body.valid.eq((in_header & (step != 0) & (is_event | self.bytes.valid)) | puts),
            self.bytes.ready.eq(
                (in_header & (((step == 0) & ~late) | ((step != 0) & self.body.ready))) | gathers
            ),
            self.response.ready.eq(pending & (fsm.ongoing("GATHER") | fsm.ongoing("LOAD"))),
            self.finish.eq(in_finish),
            self.release.eq(in_finish & self.finished & ~is_event),
            self.event.ready.eq(in_finish & self.finished & is_event),
            self.restart.eq(anew | fsm.ongoing("SUM")),
            self.rewind.eq(fsm.ongoing("IDLE") | self.restart),
        ]
        return m
