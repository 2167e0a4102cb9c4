"""Models with trees on the simulated board: tokens and every vector equal those of the instruction interpreter, and
tokens those of the golden model.
"""

import dataclasses

import numpy as np
import pytest
from conftest import seed
from soc import LANES320, Session, board_image, first_difference, play, random_timing
from soc_slots import SLOTS, Both, random_text
from sterna.hw.config import most_visits
from sterna.hw.presets import PRESETS
from sterna.sim.golden.geometry import TreeGeometry
from sterna.sim.golden.packed import random_model
from sterna.sim.golden.tree import Trees

MODELS = 3  # per board process
# Upper ends of the hidden size: some tiles of a record.
SIZES = {"lanes10": 50, "lanes40": 130, "sim": 330, "lanes160": 450, "lanes320": 850, "bit2": 90, "tight": 60}
# In ``tight`` the fetch engine has room for few words, so records come in pieces while signs are waited for. Its
# clock is slow.
CONFIGS = PRESETS | {
    "lanes320": LANES320,
    "bit2": dataclasses.replace(PRESETS["lanes10"], name="bit2", weight_code="bit2", rows=2, columns=10, lanes=2,
                                port_bytes=4),
    "tight": dataclasses.replace(PRESETS["lanes40"], name="tight", rows=2, columns=10, lanes=2, port_bytes=8,
                                 fifo_words=8, vector_words=512, activation_words=16, memory_bytes=1 << 20,
                                 tree_rows=37, strip=16, clock_hz=20_000_000)}
# The board of lanes40 is built for test_soc_geometries, too.
RUNS = [pytest.param(name, marks=[pytest.mark.rest] * (name != "lanes40")) for name in SIZES]

pytestmark = pytest.mark.rtl


@pytest.fixture
def zeros(monkeypatch):
    """Sums of zero among those that choose a branch (list of one number per walk of the golden model)."""
    found, walk = [], Trees.walk

    def watched(trees, codes):
        g = trees._geometry
        sums, path = walk(trees, codes)
        found.append(int((sums[:, g.tree_always:g.visits - g.trees] == 0).sum()))
        return sums, path

    monkeypatch.setattr(Trees, "walk", watched)
    return found


def random_shape(rng, config, hidden):
    """A geometry with few layers, of any number of trees that the build walks."""
    most = min(most_visits(config), 300)
    levels = int(rng.choice([1, 2, 3, rng.integers(1, 8)]))
    trees = int(rng.integers(1, max(2, min(most // levels, int(rng.choice([2, 12, 64]))))))
    always = int(rng.choice([0, 0, rng.integers(0, most - trees * levels + 1)]))
    h = int(rng.integers(1, hidden))
    return TreeGeometry(h, trees, levels - 1, always, int(rng.integers(1, 4)), int(rng.integers(2, 70)))


def tree_image(rng, config, geometry):
    """Image of a random model; in each layer the root of one tree gives zero for all codes."""
    def layer_of(layer):
        table = layer.tree_in.copy()
        table[geometry.tree_always + geometry.nodes * int(rng.integers(geometry.trees))] = 0
        return dataclasses.replace(layer, tree_in=table)

    packed = random_model(rng, geometry)
    return board_image(dataclasses.replace(packed, layers=tuple(map(layer_of, packed.layers))), config)


@pytest.mark.parametrize("name", RUNS)
def test_random_trees(name, tmp_path, zeros):
    config = CONFIGS[name]
    rng = np.random.default_rng([seed(), *name.encode()])
    timing = random_timing(rng)
    print(f"timing {timing}")
    images = [tree_image(rng, config, random_shape(rng, config, SIZES[name])) for _ in range(MODELS)]
    with Session(config, images[0], tmp_path, **timing) as session:
        expected = play(rng, session, images)
    assert first_difference(expected, session.trace()) is None
    assert any(zeros) or all(image.geometry.tree_depth == 0 for image in images)


def session_with_slots(rng, name, folder):
    config, timing = SLOTS[name], random_timing(rng)
    image = tree_image(rng, config, random_shape(rng, config, 90))
    print(f"{image.geometry}, timing {timing}")
    return Both(config, image, folder, **timing)


@pytest.mark.rest
@pytest.mark.parametrize("name", SLOTS)
def test_trees_in_slots(name, tmp_path, zeros):
    """Slots walk paths of their own, some of them or all; then the slots of one text, whose prompt and drafts they
    share out. Every state is the golden model's.
    """
    config = SLOTS[name]
    rng = np.random.default_rng([seed(), *name.encode()])
    with session_with_slots(rng, name, tmp_path) as both:
        for number in range(2):
            if number:
                both.load(tree_image(rng, config, random_shape(rng, config, 90)))
            vocab = both.image.geometry.vocab_size
            for count in (config.batch, int(rng.integers(1, config.batch + 1))):
                slots = rng.permutation(config.batch)[:count].tolist()
                texts = {slot: random_text(rng, vocab, config) for slot in slots}
                for slot in slots:
                    both.begin(slot, **texts[slot])
                found = both.start(slots)
                for slot in slots:
                    assert ([token for _, token in found[slot]], both.state_of(slot)) == both.expected(**texts[slot])
            for length in (1, config.batch + 1, int(rng.integers(2, 3 * config.batch))):
                text = random_text(rng, vocab, config) | {"prompt": rng.integers(0, vocab, length).tolist()}
                both.begin(0, chained=True, **text)
                both.put_tokens(length, rng.integers(0, vocab, 5))
                both.put(draft_end=length + 5)
                found = [both.start([0])[0]]
                end = length + text["count"] - 1
                while both.machine.position < end:
                    both.put(draft_end=0, limit=end)
                    found.append(both.start([0])[0])
                tokens = [token for part in found for _, token in part]
                assert (tokens, both.state_of(both.machine.source)) == both.expected(**text)
            both.put(flags=0)
    assert both.difference() is None
    assert any(zeros)
