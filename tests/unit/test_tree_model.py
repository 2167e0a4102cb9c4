"""Checkpoints with trees: what config.json may say, and L0, float32 and L1 of the same model."""

import numpy as np
import pytest
from safetensors.numpy import save_file
from sterna.sim.golden import gate, reference
from sterna.sim.golden.depth import layers_over
from sterna.sim.golden.fp24 import round24
from sterna.sim.golden.gate import adversarial, layerwise
from sterna.sim.golden.geometry import Geometry, PackError, TreeGeometry
from sterna.sim.golden.packed import load_checkpoint, pack, pack_checkpoint, random_tensors, read_config, ternarise
from sterna.sim.golden.reference import Reference

GEOMETRY = TreeGeometry(40, 3, 2, 4, 2, 31)


def test_packs_what_the_arrays_say(write_checkpoint):
    folder, tensors = write_checkpoint(GEOMETRY)
    assert read_config(folder) == GEOMETRY
    packed = pack_checkpoint(folder)
    at, layer = "model.layers.1.mlp.", packed.layers[1]
    for name in ("tree_in", "tree_out"):
        weight = tensors[f"{at}{name}.weight"]
        mean = np.abs(weight).mean(dtype=np.float64)
        np.testing.assert_array_equal(getattr(layer, name), np.clip(np.rint(weight / mean), -1, 1))
        assert getattr(layer, name).shape == (25, 40) and getattr(layer, "ws_" + name) == round24(mean / 127)
    outer = tensors["model.layers.1.mlp_norm.weight"].astype(float)
    np.testing.assert_array_equal(layer.mlp_outer, round24(outer))
    np.testing.assert_array_equal(layer.w_tree, round24(outer * tensors[at + "tree_in.norm.weight"].astype(float)))


def test_what_may_be_left_out(write_checkpoint):
    without = TreeGeometry(40, 3, 2, 0, 2, 31)
    assert read_config(write_checkpoint(without, tree_always=None)[0]) == without
    gated = Geometry(40, 24, 2, 31)
    for mixer in ("glu", None):
        assert read_config(write_checkpoint(gated, channel_mixer=mixer, trees=None)[0]) == gated
    assert read_config(write_checkpoint(GEOMETRY, intermediate_size=None)[0]) == GEOMETRY


@pytest.mark.parametrize("config, text", [
    ({"channel_mixer": "moe"}, "channel_mixer is 'moe': only 'glu' or 'tree' is supported"),
    ({"channel_mixer": ["tree"]}, "channel_mixer is ['tree']: only 'glu' or 'tree' is supported"),
    ({"channel_mixer": None}, "trees is 3 and channel_mixer is None: must be 'tree' for a model with trees"),
    ({"channel_mixer": "glu"}, "trees is 3 and channel_mixer is 'glu': must be 'tree'"),
    ({"trees": None}, "channel_mixer is 'tree' and trees is not there: must have trees and tree_depth"),
    ({"tree_depth": None}, "channel_mixer is 'tree' and tree_depth is not there: must have"),
    ({"intermediate_size": 24}, "intermediate_size is 24 and channel_mixer is 'tree': trees have no such size"),
    ({"trees": 0}, "trees is 0: must be a whole number from 1 to 4095"), ({"trees": "3"}, "trees is '3': must be"),
    ({"tree_depth": 31}, "tree_depth is 31: must be a whole number from 0 to 30"),
    ({"tree_always": -1}, "tree_always is -1: must be"), ({"tree_always": 1.5}, "tree_always is 1.5: must be"),
    ({"trees": 4095, "tree_depth": 25}, "4095 trees of tree_depth 25 have 274810793989 neurons: must be at most"),
    ({"trees": 4}, "'model.layers.0.mlp.tree_in.weight' has shape [25, 40]: config.json asks for [32, 40]"),
    ({"tree_depth": 3}, "'model.layers.0.mlp.tree_in.weight' has shape [25, 40]: config.json asks for [49, 40]"),
    ({"tree_depth": 1, "trees": 7}, "norm"),  # see below
    ({"norm_eps": 1e-3}, "norm_eps is 0.001 and rms_norm_eps")])
def test_refused_configurations(write_checkpoint, config, text):
    folder, _ = write_checkpoint(GEOMETRY, **config)
    if text == "norm":  # as many neurons in other trees are another model that nothing tells apart
        assert load_checkpoint(folder)[0] == TreeGeometry(40, 7, 1, 4, 2, 31)
        return
    with pytest.raises(PackError) as error:
        load_checkpoint(folder)
    assert text in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_with_part_of_the_tensors(write_checkpoint):
    _, tensors = write_checkpoint(GEOMETRY)
    for change, text in (
            ({"model.layers.1.mlp.tree_out.weight": None}, "'model.layers.1.mlp.tree_out.weight' is missing"),
            ({"model.layers.0.mlp.tree_in.norm.weight": None}, "'model.layers.0.mlp.tree_in.norm.weight' is missing"),
            ({"model.layers.0.mlp.tree_out.norm.weight": np.ones(40)}, "tree_out.norm.weight' is not part of this"),
            ({"model.layers.0.mlp.down_proj.weight": np.ones((40, 24))}, "down_proj.weight' is not part of"),
            ({"model.layers.0.mlp.tree_out.weight": np.ones((40, 25))}, "has shape [40, 25]: config.json asks")):
        held = {name: value for name, value in (tensors | change).items() if value is not None}
        with pytest.raises(PackError) as error:
            load_checkpoint(write_checkpoint(GEOMETRY, tensors=held)[0])
        assert text in str(error.value) and "\n" not in str(error.value)
    gated, _ = write_checkpoint(Geometry(40, 24, 2, 31))
    with pytest.raises(PackError, match="'model.layers.0.mlp.gate_proj.weight' is missing"):
        save_file(tensors, gated / "model.safetensors")
        load_checkpoint(gated)
    tensors["model.layers.1.mlp.tree_in.weight"][3, 3] = np.nan
    with pytest.raises(PackError, match="model.safetensors: tensor 'model.layers.1.mlp.tree_in.weight' holds infin"):
        pack_checkpoint(write_checkpoint(GEOMETRY, tensors=tensors)[0])


# ---- L0 ----


def float_mixer(tensors, at, geometry, x):
    """The mixer of one token x [H] in float64, of all neurons, of which those that are not visited are taken out."""
    norm = x / np.sqrt(np.mean(x * x) + 1e-6) * tensors[at + "tree_in.norm.weight"].astype(float)
    step = np.abs(norm).max() / 127
    q = np.sign(norm) * np.floor(np.abs(norm) / step + 0.5)
    (into, mean), (out, mean_out) = (ternarise(tensors[f"{at}tree_{end}.weight"]) for end in ("in", "out"))
    sums = into.astype(float) @ q
    seen, nodes = np.zeros(geometry.neurons, bool), 2 ** (geometry.tree_depth + 1) - 1
    seen[:geometry.tree_always] = True
    for tree in range(geometry.trees):
        node = 0
        while node < nodes:
            row = geometry.tree_always + tree * nodes + node
            seen[row] = True
            node = 2 * node + (2 if sums[row] > 0 else 1)
    t = sums * step * mean
    z = np.where(seen, t / (1 + np.exp(-t)), 0)
    count = geometry.tree_always + geometry.trees * (geometry.tree_depth + 1)
    assert seen.sum() == count
    y = z / np.sqrt((z * z).sum() / count + 1e-6)
    step = np.abs(y).max() / 127
    return (np.sign(y) * np.floor(np.abs(y) / step + 0.5)) @ out.astype(float) * step * mean_out


def test_l0_is_the_mixer_of_all_neurons_with_the_others_taken_out(rng):
    tensors = random_tensors(rng, GEOMETRY)
    mixer = reference._TreeMixer(GEOMETRY, tensors, "model.layers.0.mlp.", np.float64)
    x = rng.standard_normal((40, 40))
    found = mixer(x)
    for one, row in zip(x, found, strict=True):
        wanted = float_mixer(tensors, "model.layers.0.mlp.", GEOMETRY, one)
        np.testing.assert_allclose(row, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["", "outliers", "memory", "tiny", "huge"])
def test_layers_follow_l0_on_hard_weights(rng, kind):
    geometry = TreeGeometry(240, 8, 3, 16, 3, 64)
    tensors = random_tensors(rng, geometry)
    if kind:
        tensors = adversarial(tensors, rng, kind)
    layers = layerwise(geometry, tensors, rng.integers(0, 64, (12, 6)))
    for key in ("mean", "added_mean"):
        assert np.mean([layer[key] for layer in layers]) >= 0.998
        assert np.mean([layer["float32_" + key] for layer in layers]) >= 0.9999


def test_paths_of_the_levels_part_rarely(rng, monkeypatch):
    geometry = TreeGeometry(240, 16, 5, 0, 1, 64)
    tensors, seen = random_tensors(rng, geometry), []
    walk = reference.Trees.walk

    def watched(self, codes):
        sums, path = walk(self, codes)
        seen.append((codes, path))
        return sums, path
    monkeypatch.setattr(reference.Trees, "walk", watched)
    layerwise(geometry, tensors, rng.integers(0, 64, (4, 16)))
    models = [seen[k::3] for k in range(3)]  # L0, L1 and float32
    parted = [np.mean([(a[1] != b[1]).any(1) for a, b in zip(models[0], other, strict=True)]) for other in models[1:]]
    assert parted[0] < 0.2 and parted[1] < 0.05, parted
    for (codes, path), (theirs, other) in zip(models[0], models[1], strict=True):
        same = (codes == theirs).all(1)
        np.testing.assert_array_equal(path[same], other[same])


def test_gate_and_depth_take_models_with_trees(write_checkpoint, rng):
    folder, _ = write_checkpoint(GEOMETRY)
    stories = [np.array([0, *rng.integers(1, 31, n), 0]) for n in (3, 9, 5)]
    report = gate.gate(folder, stories)
    assert report["float32"]["kl_nats"] < 1e-2 and 0 < report["l1"]["kl_nats"] < 0.1
    rows = layers_over(*load_checkpoint(folder), np.arange(12))
    assert len(rows) == 2 and all(row["l1.mean"] > 0.97 for row in rows)
    one = Reference(folder)
    assert gate.compare(one, {"same": Reference(folder, kept=False)}, stories)["same"]["kl_nats"] == 0
    assert pack(*load_checkpoint(folder)).geometry == GEOMETRY
