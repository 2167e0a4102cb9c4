"""Slots on the simulated board: every vector equals the interpreter's, every text and state the golden model's."""

import numpy as np
import pytest
from conftest import seed
from soc import random_image, random_timing
from soc_slots import SLOTS, Both, random_text
from sterna.hw import protocol
from sterna.hw.protocol import Register
from sterna.sim.machine.slots import FLAG_CHAINED, NEVER

SIZES = {"2": (70, 90), "4": (50, 60), "8": (50, 60)}

pytestmark = [pytest.mark.rtl, pytest.mark.rest]
every_config = pytest.mark.parametrize("name", [
    name if name == "4" else pytest.param(name, marks=pytest.mark.rest) for name in SLOTS])


@pytest.fixture
def rng(request):
    return np.random.default_rng([seed(), *request.node.name.encode()])


def geometry(rng, name):
    hidden, inner = SIZES[name]
    return (int(rng.integers(1, hidden)), int(rng.integers(1, inner)), int(rng.integers(1, 4)),
            int(rng.integers(2, 70)))


def begin_session(rng, name, folder, **options):
    config, shape, timing = SLOTS[name], geometry(rng, name), random_timing(rng)
    print(f"geometry {shape}, timing {timing}")
    return Both(config, random_image(rng, config, shape), folder, **timing, **options)


def check(both, slot, text, tokens):
    """A finished text and its state are the golden model's."""
    assert ([token for _, token in tokens], both.state_of(slot)) == both.expected(**text)


@every_config
def test_independent_sequences(name, tmp_path, rng):
    """Texts of any length and kind that begin and end at different times: some go on where others are replaced."""
    config = SLOTS[name]
    with begin_session(rng, name, tmp_path) as both:
        for number in range(2):
            if number:
                both.load(random_image(rng, config, geometry(rng, name)))
            vocab = both.image.geometry.vocab_size
            texts, tokens, done = [None] * config.batch, [[] for _ in range(config.batch)], 0
            for _ in range(4):
                slots = rng.permutation(config.batch)[:int(rng.integers(1, config.batch + 1))].tolist()

                def set_up(slot):
                    registers = both.machine.slots[slot]
                    if texts[slot] is None:
                        texts[slot], tokens[slot] = random_text(rng, vocab, config), []
                        both.begin(slot, tokens=int(rng.integers(1, 8)), **texts[slot])
                    else:
                        end = len(texts[slot]["prompt"]) + texts[slot]["count"] - 1
                        both.put(slot, limit=min(end, registers.limit + int(rng.integers(1, 8))))

                set_up(slots[0])
                # The others are set up while the first one is in a run.
                found = both.start(slots, lambda: [set_up(slot) for slot in slots[1:]])
                for slot in slots:
                    tokens[slot] += found[slot]
                    text, registers = texts[slot], both.machine.slots[slot]
                    if registers.position == len(text["prompt"]) + text["count"] - 1:
                        check(both, slot, text, tokens[slot])
                        texts[slot], done = None, done + 1
            assert done
    assert both.difference() is None


@every_config
def test_chained_prompt(name, tmp_path, rng):
    """Prompts of any length are read B tokens at a time; then the text goes on, chained or in an independent slot."""
    config = SLOTS[name]
    with begin_session(rng, name, tmp_path) as both:
        vocab = both.image.geometry.vocab_size
        for length in (1, config.batch, config.batch + 1, int(rng.integers(2, 3 * config.batch + 2))):
            text = random_text(rng, vocab, config) | {"prompt": rng.integers(0, vocab, length).tolist()}
            runs = both.device.counters()["runs"]
            both.begin(0, chained=True, **text)
            both.put(source=int(rng.integers(config.batch)))  # not used at the start
            found = both.start([0])
            assert both.device.counters()["runs"] - runs == -(-length // config.batch) + text["count"] - 1
            check(both, both.machine.source, text, found[0])
        both.put(flags=0)
        slots = rng.permutation(config.batch).tolist()
        texts = {slot: random_text(rng, vocab, config) for slot in slots}
        for slot in slots:
            both.begin(slot, **texts[slot])
        found = both.start(slots)
        for slot in slots:
            check(both, slot, texts[slot], found[slot])
    assert both.difference() is None


@every_config
@pytest.mark.parametrize("temperature", [0.0, 0.9], ids=["greedy", "sampled"])
def test_drafts(name, temperature, tmp_path, rng):
    """Right, wrong and random drafts give the same text and state."""
    config, count = SLOTS[name], 12
    with begin_session(rng, name, tmp_path) as both:
        vocab = both.image.geometry.vocab_size
        text = {"prompt": rng.integers(0, vocab, 3).tolist(), "count": count, "temperature": temperature, "seed": 5}
        if config.top_k:
            text["top_k"] = config.top_k
        wanted = both.expected(**text)[0]
        known = text["prompt"] + wanted
        limit = len(known) - 1
        for right in (1, 0, 0.7):
            both.begin(0, chained=True, tokens=2, **text)  # up to the last token of the prompt
            tokens, runs = both.start([0])[0], 0
            while both.machine.position < limit:
                begin = both.machine.position + 1
                drafts = [t if rng.random() < right else (t + 1) % vocab
                          for t in known[begin:begin + int(rng.integers(0, 2 * config.batch))]]
                both.put_tokens(begin, drafts)
                both.put(draft_end=begin + len(drafts), limit=limit)
                tokens += both.start([0])[0]
                runs += 1
            assert [token for _, token in tokens] == wanted
            assert both.state_of(both.machine.source) == both.expected(**text)[1]
    assert both.difference() is None


def test_stop_tokens_of_slots(tmp_path, rng):
    with begin_session(rng, "4", tmp_path) as both:
        both.load(random_image(rng, both.config, (33, 50, 2, 41)))
        texts = [{"prompt": [7, slot], "count": 14, "temperature": 0.9, "seed": slot} for slot in range(4)]
        for slot, text in enumerate(texts):
            wanted = both.expected(**text)[0]
            if slot != 2:
                text["stop"] = wanted[3 * slot + 1]
            both.begin(slot, **text)
        found = both.start([3, 1, 0, 2])
        for slot, text in enumerate(texts):
            check(both, slot, text, found[slot])
        # Behind right drafts too.
        both.begin(0, chained=True, **texts[3])
        both.put_tokens(2, both.expected(**texts[3] | {"stop": None})[0])
        both.put(draft_end=16)
        found = both.start([0])
        check(both, both.machine.source, texts[3], found[0])
    assert both.difference() is None


@every_config
def test_slots_that_come_and_go_freely(name, tmp_path, rng):
    """Without the gate: slots begin and are disabled in mid-run, whenever the host's writes arrive."""
    config = SLOTS[name]
    with begin_session(rng, name, tmp_path, trace=False) as both:
        vocab = both.image.geometry.vocab_size
        for _ in range(3):
            texts = [random_text(rng, vocab, config) for _ in range(config.batch)]
            for slot in rng.permutation(config.batch).tolist():
                both.begin(slot, **texts[slot])
                both.device.write_register(Register.CONTROL, protocol.CONTROL_RUN, slot)
                if rng.random() < 0.5:
                    other = int(rng.integers(config.batch))
                    enabled = both.device.status(other)[1]
                    both.device.write_register(Register.CONTROL, 0, other)  # the token under way is finished
                    both.device.write_register(Register.CONTROL, int(enabled), other)
            found = both.wait(range(config.batch))
            for slot, text in enumerate(texts):
                both.device.write_register(Register.CONTROL, 0, slot)
                tokens, state = both.expected(**text)
                assert [token for _, token in found[slot]] == tokens
                assert [position for position, _ in found[slot]] \
                    == list(range(len(text["prompt"]), len(text["prompt"]) + text["count"]))
                assert raw_state(both, slot) == state


def raw_state(both, slot):
    """The device's state of a slot as bits [L, H]; the interpreter has not run."""
    where, shape = both.program.memory_map, both.image.geometry
    words = np.frombuffer(both.device.read(where.state_address, where.state_bytes), "<u4")
    return words.reshape(shape.num_hidden_layers, both.config.batch, -1)[:, slot, :shape.hidden_size].tolist()


@pytest.mark.rest
def test_reset_in_mid_run(tmp_path, rng):
    """A reset ends the run of all slots; what they had finished stays, and every text begins anew."""
    with begin_session(rng, "2", tmp_path, trace=False) as both:
        vocab = both.image.geometry.vocab_size
        for chained in (False, True):
            text = random_text(rng, vocab, both.config)
            both.begin(0, chained=chained, **text | {"prompt": [0] * 40})
            if not chained:
                both.begin(1, **text)
            for slot in range(both.config.batch):
                both.device.write_register(Register.CONTROL, protocol.CONTROL_RUN, slot)
            both.device.write_register(Register.CONTROL, 0, 1)  # a reset by itself disables slot 0 alone
            both.device.reset()
            assert [both.device.status(slot)[:3] for slot in range(2)] == [(False, False, 0)] * 2
            for slot in range(2):
                both.device.forget_tokens(slot)
            both.put(flags=0)
            texts = [random_text(rng, vocab, both.config) for _ in range(2)]
            for slot in range(2):
                both.begin(slot, **texts[slot])
            found = both.start([1, 0])
            for slot in range(2):
                check(both, slot, texts[slot], found[slot])
        both.begin(0, chained=True, **texts[0])
        assert both.machine.flags & FLAG_CHAINED and both.machine.stop == NEVER
        check(both, both.machine.source, texts[0], both.start([0])[0])
