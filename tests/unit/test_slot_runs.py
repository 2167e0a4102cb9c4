"""Slots: sequences side by side, chained prompts and drafts, on good and bad lines."""

import dataclasses
import itertools
import random
from contextlib import closing

import pytest
from fake_device import INFO, FakeDevice, expected
from faults import SEED, FaultyTransport
from sterna.host.device.driver import Device
from sterna.host.device.run import LN2_BITS, ONE_BITS
from sterna.host.device.slots import Slots
from sterna.host.errors import DeviceError
from sterna.host.runtime.sampling import propose
from sterna.hw.protocol import Kind, Register

FAST = {"retry_s": 0.005, "poll_s": 0.005, "timeout_s": 5.0, "stall_s": 5.0}
FOUR = dataclasses.replace(INFO, batch=4, top_k=16)
PROMPT = [5, 900, 17]
FAULTS = {
    "none": {}, "corrupted": {"corrupt": 1e-3}, "dropped bytes": {"drop": 1e-3},
    "dropped frames": {"drop_frame": 0.1},
    "doubled frames": {"duplicate_frame": 0.2}, "truncated frames": {"truncate_frame": 0.1},
}


def connect(fake=None, **options):
    fake = fake or FakeDevice(FOUR)
    return fake, Device(fake, **FAST | options)


@dataclasses.dataclass(eq=False)
class Item:
    """A run to be made: its prompt, length, seed and stop token, and the tokens that came."""

    prompt: list
    n: int
    seed: int = 0
    stop: int | None = None
    tokens: list = dataclasses.field(default_factory=list)
    over: int = 0
    wanted: int = 1 << 30  # close the run behind so many


def side_by_side(device, items):
    """Runs items in the slots; returns the Slots."""
    slots = Slots(device, lambda item, slot: device.start(item.prompt, item.n, slot=slot, seed=item.seed,
                                                          stop=item.stop))
    waiting = list(items)
    while waiting or len(slots):
        while waiting and slots.free:
            slots.enter(waiting.pop(0))
        for item, token in slots.step(lambda item: len(item.tokens) >= item.wanted):
            if token is None:
                item.over += 1
            elif len(item.tokens) < item.wanted:
                assert not item.over
                item.tokens.append(token)
    return slots


def some_items(count):
    rand = random.Random(SEED)
    return [Item([rand.randrange(1024) for _ in range(rand.choice([1, 2, 15, 40]))], rand.choice([1, 3, 20, 50]), k)
            for k in range(count)]


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("tokens_per_call", [1, 50])
def test_sequences_side_by_side(faults, tokens_per_call):
    fake = FakeDevice(FOUR, tokens_per_call)
    line = FaultyTransport(fake, SEED, **faults)
    items = some_items(9)
    slots = side_by_side(Device(line, **FAST), items)
    for item in items:
        assert item.tokens == expected(item.prompt, item.n, item.seed) and item.over == 1
    assert slots.positions == sum(len(item.prompt) + item.n - 1 for item in items)
    assert all(block[Register.CONTROL] == 0 for block in fake.blocks)
    assert bool(line.faults) == bool(faults)
    assert faults or max(fake.reads_per_run) > 1 or tokens_per_call > 1  # in one run of the program


def test_lost_events_of_one_slot_do_not_stop_it():
    """Its neighbours' frames keep coming, so the line is never quiet."""
    fake, device = connect()
    send = fake._send
    fake._send = lambda kind, sequence, *rest: None if (kind, sequence) == (Kind.TOKEN, 1) else \
        send(kind, sequence, *rest)
    items = [Item([1], 300), Item([2], 20), Item([3], 300)]
    side_by_side(device, items)
    for item in items:
        assert item.tokens == expected(item.prompt, item.n)


def test_stop_tokens_and_closing_leave_the_others_alone():
    fake, device = connect()
    tokens = expected([7], 60)
    stop = tokens[20]
    assert stop not in tokens[:20]
    items = [Item([7], 60, stop=stop), Item([8], 1 << 20, wanted=5), Item([9], 60), Item([10], 30), Item([11], 30)]
    assert side_by_side(device, items).positions < 1000
    assert items[0].tokens == tokens[:21]
    assert items[1].tokens == expected([8], 60)[:5] and items[1].over == 1
    for item in items[2:]:
        assert item.tokens == expected(item.prompt, item.n)


def test_generators_of_two_slots_taken_in_turn():
    fake, device = connect(poll_s=5.0)
    device.read_ring = None  # every token comes with its own frame
    runs = [device.run([5 + k], 40, slot=k, seed=k) for k in (1, 3)]
    got = [list(items) for items in zip(*itertools.zip_longest(*runs), strict=True)]
    for k, items in zip((1, 3), got, strict=True):
        assert items == list(enumerate(expected([5 + k], 40, k), 1))


def test_registers_scalars_and_states_are_those_of_the_slot():
    fake, device = connect()
    list(device.run(PROMPT, 4, slot=2, seed=5, sample=True, inverse_temperature_bits=0x400000, top=7 | 3 << 16))
    block = fake.blocks[2]
    assert (block[Register.SEED], block[Register.FLAGS], block[Register.TOP]) == (5, 1, 7 | 3 << 16)
    assert fake.scalars_of[2] == {2: 0x400000, 13: LN2_BITS} and not fake.block[Register.POSITION]
    list(device.run(PROMPT, 4, slot=2))
    assert fake.scalars_of[2] == {2: ONE_BITS, 13: 0} and fake.scalars_of[1] == {}
    assert device.status(2) == (False, False, 0, 6) and device.read_ring(0, 3, 2) == PROMPT
    list(device.run(PROMPT, 1, chained=True, sample=True, inverse_temperature_bits=1))
    assert fake.scalars_of == 4 * [{2: 1, 13: LN2_BITS}]
    # Two layers of 8 bytes for each of four slots.
    device.write_state(1024, bytes(range(16)), slot=1, layer_bytes=8)
    assert device.read(1024, 64) == bytes(8) + bytes(range(8)) + bytes(24) + bytes(range(8, 16)) + bytes(16)
    assert device.read_state(1024, 64, slot=1, layer_bytes=8) == bytes(range(16))
    assert device.read_state(1024, 64) == device.read(1024, 64)


def test_state_is_written_beside_a_running_slot():
    fake, device = connect()
    with closing(device.run(PROMPT, 30, slot=3)) as run:
        first = next(run)
        device.write_state(1024, bytes(16), slot=1, layer_bytes=8)
        assert [first, *run] == list(enumerate(expected(PROMPT, 30), 3))


@pytest.mark.parametrize("n_prompt, n, start", [(1, 1, 0), (4, 1, 0), (5, 20, 0), (14, 40, 9), (100, 60, 5),
                                                (3, 200, 31)])
@pytest.mark.parametrize("tokens_per_call", [1, 100])
def test_chained_prompts(n_prompt, n, start, tokens_per_call):
    fake, device = connect(FakeDevice(FOUR, tokens_per_call))
    prompt = [(7 * k + 1) % 1024 for k in range(n_prompt)]
    items = list(device.run(prompt, n, start_position=start, seed=11, chained=True))
    assert items == list(enumerate(expected(prompt, n, 11), start + n_prompt))
    assert sum(fake.reads_per_run) == n_prompt + n - 1
    if n_prompt == 14:
        assert fake.reads_per_run == [4, 4, 4, 2] + 39 * [1]


def test_chained_sequence_goes_on_from_the_slot_of_its_state():
    fake, device = connect()
    first = list(device.run(list(range(6)), 1, chained=True))  # the last run reads two tokens: slot 1 has the state
    source = device.read_register(Register.SOURCE)
    assert source == 1
    device.write_register(Register.SOURCE, 3)
    position, token = first[-1]
    more = list(device.run([token], 9, start_position=position, reset_state=False, chained=True, source=source))
    assert [token for _, token in first + more] == expected(list(range(6)), 10)


class Repeating(FakeDevice):
    """A text that repeats itself: the token depends on the token before alone."""

    def step(self, token, state):
        return token, token

    def sample(self, head, position, slot):
        return following(head)


def following(token):
    return token + 1 if token % 7 else token - 6 if token else 1


def repeating(token, n):
    out = []
    for _ in range(n):
        token = following(token)
        out.append(token)
    return out


def drafts_of(text, right, rand):
    """A ``draft`` of Device.run: of the tokens that follow, some wrong, some missing."""
    def draft(count):
        out = repeating(text[-1], rand.randrange(count + 1))
        return [t if rand.random() < right else t + 500 for t in out]
    return draft


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tokens_per_call", [1, 20])
def test_drafts_do_not_change_the_text(faults, right, tokens_per_call):
    fake = Repeating(FOUR, tokens_per_call)
    line = FaultyTransport(fake, SEED, **faults)
    device, text, rand = Device(line, **FAST), [1, 2, 3, 4, 5, 6], random.Random(SEED)
    for position, token in device.run(text, 70, chained=True, draft=drafts_of(text, right, rand)):
        assert position == len(text)
        text.append(token)
    assert text[6:] == repeating(6, 70)
    assert fake.max_position == 75 and bool(line.faults) == bool(faults)
    kept = 75 / len(fake.reads_per_run)
    assert kept > 2 if right == 1 else kept < 1.1 if right == 0 else kept > 1.2, kept


def test_drafts_in_full_and_the_stop_token_among_them():
    fake, text = Repeating(FOUR), [1]
    device = connect(fake)[1]
    for _, token in device.run(text, 50, chained=True, stop=6, draft=lambda count: repeating(text[-1], count)):
        text.append(token)
    assert text == [1, 2, 3, 4, 5, 6] and device.status()[3] == 5
    assert fake.reads_per_run == [1, 4]  # of the second run, 2 to 5: the stop token came behind all of them
    text = [1]
    for _, token in device.run(text, 50, chained=True, stop=4, draft=lambda count: repeating(text[-1], count)):
        text.append(token)
    assert text == [1, 2, 3, 4] and device.status()[3] == 3
    for stop, reads in (((999, 4), [1, 2]), ((6, 4), [1, 2]), ((4, 999), [1, 4]),
                        ((999, 998, 6), [1, 4])):
        # None that only the host knows is read as a draft: the device is where it would stop.
        fake.reads_per_run.clear()
        text = [1]
        for _, token in device.run(text, 50, chained=True, stop=stop,
                                   draft=lambda count: repeating(text[-1], count)):
            text.append(token)
        last = 6 if 6 in stop and 4 not in stop else 4
        assert text == [*range(1, last + 1)] and device.status()[3] == last - 1
        assert fake.reads_per_run == reads, stop
    text = [1]
    for _, token in device.run(text, 11, chained=True, draft=lambda count: repeating(text[-1], count)):
        text.append(token)
    assert text[1:] == repeating(1, 11) and fake.reads_per_run[-4:] == [1, 4, 4, 2]  # none behind the end


def test_run_without_drafts_behind_one_with_them():
    fake, text = Repeating(FOUR), [1]
    device = connect(fake)[1]
    for _, token in device.run(text, 50, chained=True, draft=lambda count: repeating(text[-1], count)):
        text.append(token)
    device.write_ring(1, [999] * 15)
    assert [token for _, token in device.run([1], 10, chained=True)] == repeating(1, 10)
    assert fake.reads_per_run[-10:] == [1] * 10


def test_closing_among_drafts_leaves_position_and_ring_together():
    fake, text = Repeating(FOUR, 20), [1]
    device = connect(fake)[1]
    with closing(device.run(text, 50, chained=True, draft=lambda count: repeating(text[-1], count))) as run:
        for _, token in itertools.islice(run, 3):
            text.append(token)
    position = device.status()[3]
    assert position >= 3 and device.read_ring(1, position) == repeating(1, position)


def test_drafts_are_made_anew_behind_a_wrong_one():
    fake, text, asked = Repeating(FOUR), [1], []
    device = connect(fake)[1]
    for _, token in device.run(text, 20, chained=True, draft=lambda count: asked.append(count) or [999] * count):
        text.append(token)
    assert text[1:] == repeating(1, 20) and asked == 16 * [3] + [2, 1]
    assert fake.reads_per_run == [1] + 16 * [4] + [3, 2, 1]


def test_limit_that_the_device_lowers_late_is_raised_again():
    """At a wrong draft the device lowers its limit; a raise that was quicker must not be lost for ever."""
    class Late(Repeating):
        late = None

        def lower_limit(self, slot, limit):
            super().lower_limit(slot, limit)
            self.late = limit

        def _set_register(self, slot, offset, value):
            super()._set_register(slot, offset, value)
            if offset == Register.LIMIT and self.late is not None:
                self.block[Register.LIMIT], self.late = self.late, None

    fake, text = Late(FOUR), [1]
    device = connect(fake)[1]
    for _, token in device.run(text, 20, chained=True, draft=lambda count: [999] * count):
        text.append(token)
    assert text[1:] == repeating(1, 20)


def test_chaining_changes_only_at_rest():
    fake, device = connect()
    run = device.run(PROMPT, 1000, slot=2)
    next(run)
    assert list(device.run(PROMPT, 30, chained=True)) == list(enumerate(expected(PROMPT, 30), 3))
    with pytest.raises(DeviceError, match="the device was restarted or stopped"):
        list(run)
    assert list(device.run(PROMPT, 30, slot=2)) == list(enumerate(expected(PROMPT, 30), 3))


def test_frames_of_slots_that_do_not_run_are_no_trouble():
    fake, device = connect()
    fake._send(Kind.TOKEN, 3, 1, 4, bytes(4))
    fake._send(Kind.TOKEN, 200, 1, 4, bytes(4))
    items = [Item([1], 20), Item([2], 20)]
    side_by_side(device, items)
    assert [item.tokens for item in items] == [expected([k], 20) for k in (1, 2)]


def test_a_slot_that_hangs_or_fails_ends_all_with_one_error():
    for name, error in (("hang_at", "no progress for 0.2 s at position [0-9]+ .limit"),
                        ("fault_at", "fault 'instruction' at")):
        fake, device = connect(stall_s=0.2)
        setattr(fake, name, 8)
        items = [Item([1], 50), Item([2], 50)]
        with pytest.raises(DeviceError, match=error):
            side_by_side(device, items)
        assert 8 <= len(items[0].tokens) + len(items[1].tokens) < 100


def test_misuse():
    _, device = connect()
    for options in ({"slot": 4}, {"slot": 1, "chained": True}, {"draft": lambda count: []}):
        with pytest.raises(ValueError, match="slot . of 4"):
            next(device.run(PROMPT, 3, **options))
    with pytest.raises(ValueError, match="one slot cannot be chained"):
        next(connect(FakeDevice())[1].run(PROMPT, 3, chained=True))


@pytest.mark.parametrize("text, count, wanted", [
    ([], 3, []), ([1], 3, []), ([1, 2, 3], 3, []), ([1, 2, 3, 1], 0, []),
    ([1, 2, 3, 1], 3, [2, 3, 1]), ([1, 2, 3, 1], 2, [2, 3]),
    ([7, 1, 5, 8, 1, 6, 7, 1], 1, [5]),  # the longer match wins over the later one
    ([9, 1, 5, 9, 1, 6, 9, 1], 2, [6, 9]),  # of equal ones the later
    ([1, 2, 3, 4, 5, 2, 3, 4], 2, [5, 2]),
    ([0, 1, 2, 3, 8, 9, 1, 2, 3, 7, 0, 1, 2, 3], 1, [7]),  # more than three tokens are not compared
    ([4, 4], 3, [4, 4, 4]), ([1, 2, 1, 2, 1], 5, [2, 1, 2, 1, 2]),  # the proposal is read on
])
def test_prompt_lookup(text, count, wanted):
    assert propose(text, count) == wanted
    assert propose(tuple(text), count) == wanted
