"""Proofs about the link: COBS, CRC-32C, and which frames the receiver lets pass."""

import pytest
from amaranth.hdl import Cat, Mux, Signal
from prove import Proof, disproved, further, planted, stub
from sterna.hw.link import cobs, crc, receiver
from tracked import Tracked

pytestmark = pytest.mark.formal


def crc_byte(state, byte):
    """CRC-32C by its definition: eight steps of the reflected polynomial, a bit of the byte each, low bit first."""
    for k in range(8):
        out = state[0] ^ byte[k]
        state = (state >> 1) ^ Mux(out, crc.POLYNOMIAL_REFLECTED, 0)
    return state


def crc_unit(module):
    """The register is the inverted state of the definition, whatever comes; by induction."""
    proof = Proof()
    dut = module.Crc32C()
    proof.add(dut)
    state = Signal(32, init=crc.INITIAL)
    with proof.m.If(dut.clear):
        proof.m.d.sync += state.eq(crc.INITIAL)
    with proof.m.Elif(dut.valid):
        proof.m.d.sync += state.eq(Mux(dut.shift, state >> 8, crc_byte(state, dut.data)))
    proof.claim("definition", dut.checksum == ~state)
    proof.check(1, induction=True)


def test_crc():
    crc_unit(crc)


def test_crc_catches_planted_bug():
    with disproved(match="definition"):
        crc_unit(planted("link.crc", "((0, 1, 2), (3, 4, 5), (6, 7))", "((0, 1, 2), (3, 4, 5), (6,))"))


def decoder_resync(module):
    """From any state of its registers: behind a 0x00 the decoder gives exactly what COBS says, and no byte before a
    code byte; by induction.
    """
    proof = Proof()
    m = proof.m
    dut = module.CobsDecoder()
    inside = proof.add(dut)
    byte, comes = dut.rx.payload, dut.rx.valid & dut.rx.ready
    in_step, in_frame, due = Signal(), Signal(), Signal(8)
    with m.If(comes & (byte == 0)):
        m.d.sync += [in_step.eq(1), in_frame.eq(0), due.eq(0)]
    with m.Elif(comes):
        m.d.sync += [in_frame.eq(1), due.eq(Mux(due == 0, byte, due) - 1)]
    proof.claim("always_ready", dut.rx.ready)
    wanted = Cat(comes & in_frame & (byte != 0), comes & in_frame & (byte == 0), due != 0, Mux(due == 0, 0, byte))
    valid, end, broken, value = (part for part in (lambda w: (w[0], w[1], w[2], w[3:]))(proof.past(wanted)))
    known = proof.past(in_step)
    proof.implies("valid", known, dut.valid == valid)
    proof.implies("data", known & valid, dut.data == value)
    proof.implies("end", known, (dut.end == end) & (~end | (dut.broken == broken)))
    proof.claim("never_both", ~(dut.valid & dut.end) | ~proof.started)
    proof.implies("in_step", in_step, (inside["inside"] == in_frame) & (inside["left"] == due))
    proof.check(3, induction=True, any_state=True)


def test_decoder_resynchronises():
    decoder_resync(cobs)


def test_decoder_resynchronises_catches_planted_bug():
    with disproved():
        decoder_resync(planted("link.cobs", "inside.eq(0), left.eq(0)]", "inside.eq(0)]"))


def round_trip(module, bytes_, cycles, *, stalls, registered=True):
    """What goes into the encoder comes out of the decoder: every byte and every end of a frame, in order.

    Frames of 1 to `bytes_` bytes over halves of 8 bytes; with `stalls` at any pace on both sides, some of them
    restarted, otherwise without a pause. Bounded.
    """
    proof = Proof()
    m = proof.m
    dut = module.CobsEncoder(registered)
    decoder = cobs.CobsDecoder()
    proof.add(dut)
    proof.add(decoder, "decoder", driven=["rx"])
    sent = dut.tx.valid & dut.tx.ready
    m.d.comb += [decoder.rx.valid.eq(sent), decoder.rx.payload.eq(dut.tx.payload)]
    put = dut.data.valid & dut.data.ready
    length, received = Signal(4), Signal(4)
    proof.assume(~(dut.finish & dut.data.valid) & ~(dut.restart & (dut.finish | dut.data.valid)))
    proof.assume(~dut.finish | (length != 0))
    proof.assume(~proof.past(dut.finish & ~dut.finished) | dut.finish)
    proof.assume((length < bytes_) | ~dut.data.valid)
    if not stalls:
        proof.assume(dut.tx.ready & (dut.data.valid | dut.finish) & ~dut.restart)
    item, frame = Tracked(proof, "byte", 5, 8), Tracked(proof, "frame", 3, 4)
    item.enter(put, dut.data.payload)
    frame.enter(dut.finished, length)
    with m.If(dut.restart):
        m.d.sync += [length.eq(0), item.entered.eq(item.entered - length)]
    with m.Elif(dut.finished):
        m.d.sync += length.eq(0)
    with m.Elif(put):
        m.d.sync += length.eq(length + 1)
    with m.If(decoder.end):
        m.d.sync += received.eq(0)
    with m.Elif(decoder.valid):
        m.d.sync += received.eq(received + 1)
    item.leave(decoder.valid, decoder.data)
    frame.leave(decoder.end, received)
    proof.implies("not_broken", decoder.end, ~decoder.broken)
    proof.claim("two_frames", frame.count <= 3)
    proof.implies("can_finish", dut.finish, dut.data.ready)
    proof.offers_well(tx=dut.tx)
    proof.check(cycles)


SMALL = ("HALF_BYTES = 256", "HALF_BYTES = 8")


@pytest.mark.parametrize("bytes_, cycles, stalls, registered", [
    (4, 15, False, False), (2, 11, True, True), *further((5, 16, False, True))])
def test_round_trip(bytes_, cycles, stalls, registered):
    round_trip(planted("link.cobs", *SMALL), bytes_, cycles, stalls=stalls, registered=registered)


@pytest.mark.parametrize("old, new, stalls", [
    ("m.d.sync += [code_place.eq(place), distance.eq(1)]", "m.d.sync += [code_place.eq(place), distance.eq(2)]",
     False),
    ("to_code.eq(Mux(self.finish, ~coded, self.data.payload == 0))", "to_code.eq(Mux(self.finish, ~coded, 0))",
     False),
    ("self.data.ready.eq(~full.bit_select(half, 1))", "self.data.ready.eq(1)", True),
])
def test_round_trip_catches_planted_bug(old, new, stalls):
    with disproved():
        round_trip(planted("link.cobs", *SMALL, old, new), 2, 20, stalls=stalls)


def test_residue():
    """Four bytes lead from any state to the residue if, and only if, they are the checksum of what was before.

    For all states and bytes. So the receiver, which compares with the residue, knows a right checksum.
    """
    proof = Proof()
    before, checksum = proof.free(32, "before"), proof.free(32, "checksum")
    state = before
    for k in range(4):
        after = Signal(32, name=f"after_{k}")
        proof.m.d.comb += after.eq(crc_byte(state, checksum[8 * k:8 * k + 8]))
        state = after
    proof.claim("exactly", (~state == crc.RESIDUE) == (checksum == ~before))
    proof.check(1)


def receiver_frames(module, credits):
    """A frame is queued if, and only if, its code is whole, it has 11 to 240 bytes and its checksum is right.

    And bytes are written only into a free buffer, at the places of their frame. Decoder and checksum may say anything
    (they have proofs of their own); by induction.
    """
    proof = Proof()
    m = proof.m
    module.CobsDecoder, module.Crc32C = stub(cobs.CobsDecoder), stub(crc.Crc32C)
    dut = module.FrameReceiver(credits)
    inside = proof.add(dut)
    decoder, check = module.CobsDecoder.made, module.Crc32C.made
    proof.release(decoder.valid, decoder.data, decoder.end, decoder.broken, check.checksum)
    valid, end = decoder.valid, decoder.end
    proof.assume(~(valid & end))
    proof.assume(~dut.release | dut.available)
    queued, newest, oldest = (inside[name] for name in ("queued", "newest", "oldest"))

    # The checksum is that of the bytes since the last end.
    proof.claim("checksum_of_frame", (check.clear == end) & (check.valid == valid) & ~check.shift
                & (check.data == decoder.data))
    count = Signal(9)  # stops at 511
    with m.If(end):
        m.d.sync += count.eq(0)
    with m.Elif(valid):
        m.d.sync += count.eq(Mux(count.all(), count, count + 1))
    right = ~decoder.broken & (count >= 11) & (count <= 240) & (check.checksum == crc.RESIDUE)
    dropped = inside["no_buffer"] | (queued == credits)
    proof.implies("passes_only_right_frames", inside["commit"], end & right & ~dropped)
    proof.implies("passes_every_right_frame", end & right & ~dropped, inside["commit"])

    place, overlong = inside["place"], inside["overlong"]
    proof.claim("overlong", overlong == (count > 240))
    proof.implies("place_in_frame", ~overlong, place == receiver.FIRST + count)
    proof.claim("queued_in_range", queued <= credits)
    if credits > 1:
        distance = newest + Mux(newest < oldest, credits, 0) - oldest
        proof.claim("ring", (newest < credits) & (oldest < credits)
                    & ((distance == queued) | ((queued == credits) & (distance == 0))))
    writes, address = inside["write__en"], inside["write__addr"]
    proof.implies("buffer_is_free", writes, (queued < credits) & ((address[8:] == newest) if credits > 1 else 1))
    proof.implies("byte_in_place", writes & valid,
                  (count < 241) & (address[:8] == (receiver.FIRST + count)[:8]))
    proof.implies("not_on_the_length", writes & valid & (count < 240), address[:8] != receiver.LENGTH_PLACE)
    proof.implies("length_in_place", writes & end, address[:8] == receiver.LENGTH_PLACE)
    proof.implies("started_in_free_buffer", (count != 0) & ~inside["no_buffer"], queued < credits)
    proof.check(3, induction=True, search_cycles=28)


@pytest.mark.parametrize("credits", [2, *further(1, 3)])
def test_receiver(credits):
    receiver_frames(planted("link.receiver"), credits)


@pytest.mark.parametrize("old, new", [
    ("place[8] & ~overlong & ~decoder.broken", "place[8] & ~overlong"),
    ("good.eq((crc.checksum == RESIDUE)", "good.eq((crc.checksum[:31] == RESIDUE & 0x7FFFFFFF)"),
    ("dropped = no_buffer | (queued == self.credits)", "dropped = no_buffer"),
    ("commit.eq(decoder.end & good & ~dropped)", "commit.eq(decoder.end & good)"),
])
def test_receiver_catches_planted_bug(old, new):
    with disproved():
        receiver_frames(planted("link.receiver", old, new), 1)


def transmitter_checksum(module):
    """The bytes given to the encoder are those of the body and then the four of their CRC-32C, none of them lost.

    Silent bytes count in the checksum and are not sent.
    Halves of the encoder of 16 bytes; by induction.
    """
    proof = Proof()
    m = proof.m
    module.CobsEncoder = planted("link.cobs", "HALF_BYTES = 256", "HALF_BYTES = 16").CobsEncoder
    dut = module.FrameTransmitter()
    inside = proof.add(dut)
    length = Signal(8)
    proof.assume(~(dut.finish & dut.body.valid) & ~(dut.restart & (dut.finish | dut.body.valid)))
    proof.assume(~dut.finish | (length != 0))
    proof.assume(~proof.past(dut.finish & ~dut.finished) | dut.finish)
    proof.assume((length < 9) | ~dut.body.valid)
    state, sent = Signal(32, init=crc.INITIAL), Signal(3)
    taken, payload = inside["valid"] & inside["encoder.data__ready"], inside["byte"]
    # The register in front of the encoder.
    at_encoder = inside["encoder.data__valid"]
    proof.implies("passed", proof.past(taken), at_encoder & (inside["encoder.data__payload"] == proof.past(payload)))
    proof.implies("nothing_else", at_encoder & proof.past(inside["encoder.data__ready"]), proof.past(taken))
    proof.implies("forgotten", proof.past(dut.restart), ~at_encoder)
    proof.implies("all_passed", inside["encoder.finish"], ~at_encoder)
    body = dut.body.valid & dut.body.ready
    with m.If(dut.restart | dut.finished):
        m.d.sync += [length.eq(0), state.eq(crc.INITIAL), sent.eq(0)]
    with m.Elif(body):
        m.d.sync += [length.eq(length + ~dut.silent), state.eq(crc_byte(state, dut.body.payload))]
    with m.Elif(taken):
        m.d.sync += sent.eq(sent + 1)
    proof.implies("body", body & ~dut.silent, taken & (payload == dut.body.payload))
    proof.implies("silence", body & dut.silent, ~taken)
    proof.implies("checksum", taken & ~body, (sent < 4) & (payload == (~state).word_select(sent[:2], 8)))
    proof.implies("complete", dut.finished, sent == 4)
    proof.implies("ready_within_a_frame", length != 0, inside["encoder.data__ready"])
    proof.claim("tail", (inside["tail"] == sent) & ((sent == 0) | dut.finish))
    register = Signal(32)
    with m.Switch(sent):
        for k in range(5):
            with m.Case(k):
                m.d.comb += register.eq(~(state >> 8 * k))
    proof.implies("register", sent <= 4, inside["crc.checksum"] == register)
    proof.implies("encoder_half", inside["encoder.coded"], dut.finish)
    proof.check(3, induction=True)


def test_transmitter():
    transmitter_checksum(planted("link.transmitter"))


@pytest.mark.parametrize("old, new", [
    ("crc.clear.eq(self.restart | self.finished)", "crc.clear.eq(self.finished)"),
    ("tail[2] & (~encoder.data.valid if self._registered else 1)", "tail[2]"),
])
def test_transmitter_catches_planted_bug(old, new):
    with disproved():
        transmitter_checksum(planted("link.transmitter", old, new))
