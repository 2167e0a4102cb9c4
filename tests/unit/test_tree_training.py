"""Trees as a channel mixer, trained: both forms against a loop, gradients of branches, balance, use of leaves."""

import dataclasses
import itertools
import json
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from sterna.models import data, layers, tree  # noqa: E402
from sterna.models.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from sterna.models.leafuse import LeafUse  # noqa: E402
from sterna.models.model import LanguageModel, ModelConfig  # noqa: E402
from sterna.models.runlog import read_log  # noqa: E402
from sterna.models.settings import TrainConfig, TrainError  # noqa: E402
from sterna.models.train import Trainer  # noqa: E402
from sterna.models.tree import Tree, TreeOptions  # noqa: E402
from sterna.sim.golden.model import GoldenModel  # noqa: E402
from sterna.sim.golden.packed import PackError, pack_checkpoint, ternarise  # noqa: E402
from sterna.sim.golden.reference import Reference  # noqa: E402

SEED = int(os.environ.get("STERNA_SEED", "1"))
HIDDEN, TOKENS = 24, 30
SHAPES = [(1, 0, 0), (7, 0, 3), (1, 4, 0), (3, 2, 4), (5, 1, 1)]  # K, D, A
CONFIG = TrainConfig(
    text="stories.txt", holdout_stories=4, vocab_size=264, hidden_size=16, channel_mixer="tree", trees=3,
    tree_depth=2, tree_always=3, num_hidden_layers=2, row_tokens=32, rows=2, learning_rate=0.01, weight_decay=0.0,
    products="fp32", seed=SEED, evaluate_every=3, steps=6)


def further(cases):
    """Cases that `make test` leaves out."""
    return [pytest.param(case, marks=pytest.mark.rest) for case in cases]


@pytest.fixture
def text(tmp_path):
    """A file of 40 small stories."""
    rng = np.random.default_rng(SEED)
    words = ["cat", "dog", "tree", "ran", "saw", "big", "red", "sun"]
    stories = [" ".join(rng.choice(words, size=rng.integers(4, 12))) + "." for _ in range(40)]
    path = tmp_path / "stories.txt"
    path.write_text(f"\n{data.END_OF_TEXT}\n".join(stories))
    return path


def made(shape, **options):
    """A mixer whose norm has a weight, in training mode, and its inputs."""
    torch.manual_seed(SEED)
    mixer = Tree(HIDDEN, *shape, HIDDEN**-0.5, TreeOptions(**options))
    with torch.no_grad():
        mixer.tree_in.norm.weight.uniform_(0.5, 1.5)
    return mixer, torch.randn(TOKENS, HIDDEN)


def codes_of(y):
    peak = max(np.abs(y).max(), 1e-5)
    return np.sign(y) * np.floor(np.abs(y) * 127 / peak + 0.5), peak / 127


def loop(mixer, x):
    """Output of one token, and its visited rows in their order, each product by itself."""
    (rows_in, mean_in), (rows_out, mean_out) = (ternarise(table.weight.detach().numpy())
                                                for table in (mixer.tree_in, mixer.tree_out))
    y = x / np.sqrt(np.mean(x * x) + 1e-6) * mixer.tree_in.norm.weight.detach().double().numpy()
    codes, step = codes_of(y)
    rows, sums, nodes = [], [], [0] * mixer.trees
    for row in range(mixer.always):
        rows.append(row)
        sums.append(int(rows_in[row] @ codes))
    for _ in range(mixer.depth + 1):
        for k, node in enumerate(nodes):
            rows.append(mixer.always + k * (2**(mixer.depth + 1) - 1) + node)
            sums.append(int(rows_in[rows[-1]] @ codes))
            nodes[k] = 2 * node + 1 + (sums[-1] > 0)
    t = np.array(sums) * step * mean_in
    z = t / (1 + np.exp(-t))
    codes, step = codes_of(z / np.sqrt(np.sum(z * z) / len(rows) + 1e-6))
    return sum(c * rows_out[row].astype(float) for c, row in zip(codes, rows, strict=True)) * step * mean_out, rows


@pytest.mark.parametrize("shape", [SHAPES[3], *further(s for s in SHAPES if s != SHAPES[3])], ids=str)
@pytest.mark.parametrize("form", ["masked", "walk"])
def test_both_forms_equal_a_loop(form, shape):
    mixer, x = made(shape, form=form)
    found = mixer(x).detach().numpy()
    wrong = 0
    for row, token in zip(found, x.double().numpy(), strict=True):
        expected, rows = loop(mixer, token)
        assert len(rows) == mixer.visits
        wrong += np.abs(row - expected).max() > 1e-4 * np.abs(expected).max()
    assert wrong <= 1  # float32 may round one code of a token to the other side


@pytest.mark.parametrize("shape", [SHAPES[3], *further([SHAPES[2], SHAPES[4]])], ids=str)
@pytest.mark.parametrize("gradient", ["none", "child"])
def test_forms_are_one_function_with_one_gradient(shape, gradient):
    results = []
    for form in ("masked", "walk"):
        mixer, x = made(shape, form=form, gradient=gradient, balance=1.0)
        assert mixer.is_walked == (form == "walk")
        x.requires_grad_()
        out = mixer(x)
        (out.sin().sum() + 3 * mixer.penalty).backward()
        results.append((out, mixer.penalty, x.grad, *(p.grad for p in mixer.parameters())))
        mixer.eval()(x)
        results[-1] += (mixer.leaves,)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_auto_walks_where_few_of_many_rows_are_visited():
    assert [made(shape)[0].is_walked for shape in [(2, 4, 0), (1, 9, 0), (50, 0, 0)]] == [False, True, False]
    assert not made((1, 9, 0), gradient="path")[0].is_walked
    assert not made((1, 9, 0), routing="coin")[0].is_walked


@pytest.mark.parametrize("gradient", ["child", "path"])
def test_gradient_of_a_branch_is_what_the_other_side_would_bring(gradient):
    """By a loop over tokens, trees and levels, of the loss's gradient for switching each node on."""
    mixer, x = made((3, 3, 2), gradient=gradient)
    t = mixer.tree_in(x).detach().requires_grad_()
    inner = t[:, 2:].unflatten(-1, (3, 15))
    visited = tree.Visited.apply(inner, inner.detach() > 0, 3, gradient)
    factors = torch.cat((torch.ones(TOKENS, 2), visited.flatten(1).detach()), 1).requires_grad_()
    weight = torch.randn(TOKENS, HIDDEN)

    def out(factors):
        y = tree.masked(t.detach(), factors, mixer.visits)
        return layers.TernaryProduct.apply(y, mixer.tree_out.weight.t(), "fp32")
    (out(factors) * weight).sum().backward()
    g = factors.grad[:, 2:].unflatten(-1, (3, 15)).numpy()
    visited.backward(torch.from_numpy(g))
    value, expected = inner.detach().numpy(), np.zeros((TOKENS, 3, 15))

    def along(token, k, node):
        """G of a node and, for "path", of the nodes on the way that goes on from it."""
        total = g[token, k, node]
        if gradient == "path" and node < 7:
            total += along(token, k, 2 * node + 1 + (value[token, k, node] > 0))
        return total
    for token, k in itertools.product(range(TOKENS), range(3)):
        node = 0
        while node < 7:
            s = 1 / (1 + np.exp(-value[token, k, node]))
            expected[token, k, node] = s * (1 - s) * (along(token, k, 2 * node + 2) - along(token, k, 2 * node + 1))
            node = 2 * node + 1 + (value[token, k, node] > 0)
    np.testing.assert_allclose(t.grad[:, 2:].unflatten(-1, (3, 15)).numpy(), expected, rtol=1e-3, atol=1e-6)
    assert (expected != 0).sum() > TOKENS * 3 * 2  # three branches on each path


@pytest.mark.parametrize("form", ["masked", "walk"])
def test_gradients_reach_the_visited_rows_and_no_other(form):
    mixer, x = made((2, 3, 1), gradient="none", form=form)
    mixer(x).square().sum().backward()
    visited = set().union(*(loop(mixer, token)[1] for token in x.double().numpy()))
    assert len(visited) < len(mixer.tree_in.weight) or visited == set(range(len(mixer.tree_in.weight)))
    for table in (mixer.tree_in, mixer.tree_out):
        assert set(table.weight.grad.abs().sum(1).nonzero().flatten().tolist()) == visited


@pytest.mark.parametrize("form", ["masked", "walk"])
def test_routing_gradient_turns_a_branch_to_the_better_leaf(form):
    """The leaves of a tree say the opposite, and the loss wants less of what the chosen one says."""
    grads = []
    for gradient in ("child", "none"):
        mixer, x = made((1, 1, 0), gradient=gradient, form=form)
        with torch.no_grad():
            mixer.tree_out.weight[0] = 0
            mixer.tree_out.weight[2] = -mixer.tree_out.weight[1]
            mixer.tree_in.weight[2] = mixer.tree_in.weight[1]
        out = mixer(x)
        (out * out.detach()).sum(-1)[0].backward()
        grads.append(mixer.tree_in.weight.grad[0])
    y = layers.rms_norm(x[:1], mixer.tree_in.norm.weight, 1e-6)[0].detach()
    # What descent along the part that comes from routing does to the root's sum: less of it, by magnitude.
    assert -((grads[0] - grads[1]) @ y) * mixer.tree_in(x)[0, 0] < 0


def test_a_sum_of_zero_goes_left():
    for form in ("masked", "walk"):
        mixer, x = made((3, 3, 2), form=form)
        with torch.no_grad():
            mixer.tree_in.weight.zero_()
        mixer.eval()(x)
        assert (mixer.leaves == 0).all()


@pytest.mark.parametrize("form", ["masked", "walk"])
def test_leaves_and_penalty_of_branches_that_are_dead(form):
    mixer, x = made((2, 2, 0), form=form, balance=1.0)
    mixer(x)
    fair = mixer.penalty.item()
    x = x[:1].repeat(TOKENS, 1)  # all tokens alike: each branch has one side
    mixer(x)
    t = mixer.tree_in(x)[0].view(2, 7)
    sides = []
    for row in t.tolist():
        node = 0
        while node < 3:
            sides.append((1 if row[node] > 0 else -1) * (2 / (1 + np.exp(-row[node])) - 1))
            node = 2 * node + 1 + (row[node] > 0)
    assert mixer.penalty.item() == pytest.approx(np.mean(sides), rel=1e-4) and mixer.penalty.item() > fair
    mixer.eval()
    use = LeafUse([mixer])
    mixer(x)
    use.add(torch.ones(TOKENS, dtype=torch.bool))
    assert use.figures() == [{"used": 0.25, "entropy": 0.0, "largest": 1.0}]


def test_balance_spreads_tokens_over_the_leaves():
    """Of inputs that all lie on one side of the first branches."""
    mixer, x = made((4, 2, 0), balance=1.0)
    x = x * 0.6 + mixer.tree_in.weight.detach()[:28:7].sum(0)  # along the roots' rows
    optimiser, found = torch.optim.Adam(mixer.parameters(), lr=0.02), []
    for step in range(61):
        if step % 60 == 0:
            use = LeafUse([mixer.eval()])
            mixer(x)
            use.add(torch.ones(TOKENS, dtype=torch.bool))
            found.append(use.figures()[0]["entropy"])
            mixer.train()
        optimiser.zero_grad()
        mixer(x)
        mixer.penalty.backward()
        optimiser.step()
    assert found[1] > found[0] + 0.1


def test_leaf_use_counts_valid_tokens():
    class Fixed:
        choices, leaves = (2, 4), torch.tensor([[0, 1], [0, 1], [2, 1], [3, 3]])
    use = LeafUse([Fixed])
    use.add(torch.tensor([True, True, True, False]))
    assert use.figures() == [{"used": round(3 / 8, 4), "entropy": round((np.log2(3) - 2 / 3) / 2 / 2, 4),
                              "largest": 1.0}]
    assert use and not LeafUse([])


@pytest.mark.parametrize("changes", [{"tree_routing": "coin"}, *further(
    [{}, {"tree_routing": "frozen", "balance": 0.1}])], ids=str)
def test_resumed_run_equals_an_uninterrupted_one_and_logs_the_leaves(text, tmp_path, changes):
    config = dataclasses.replace(CONFIG, **changes)
    records = list(Trainer(config, text, tmp_path / "whole").run())
    for _ in zip(range(4), Trainer(config, text, tmp_path / "parts").run(), strict=False):
        pass
    again = list(Trainer(config, text, tmp_path / "parts").run())
    assert [r["loss"] for r in again] == [r["loss"] for r in records[3:]]
    assert again[-1]["leaf_use"] == records[-1]["leaf_use"] and len(again[-1]["leaf_use"]) == 2
    assert all(set(layer) == {"used", "entropy", "largest"} for layer in again[-1]["leaf_use"])
    assert [r["step"] for r in read_log(tmp_path / "parts") if "leaf_use" in r] == [3, 6]


def test_no_leaves_are_logged_of_models_without(text, tmp_path):
    for name, changes in (("dense", {"tree_depth": 0}), ("none", NO_TREES | {"channel_mixer": "none"})):
        records = list(Trainer(dataclasses.replace(CONFIG, steps=1, **changes), text, tmp_path / name).run())
        assert "bits_per_byte" in records[-1] and "leaf_use" not in records[-1]


NO_TREES = {"trees": 0, "tree_depth": 0, "tree_always": 0}
EXPERTS = NO_TREES | {"channel_mixer": "experts", "experts": 5, "experts_used": 2, "expert_size": 3}


@pytest.mark.parametrize("products", ["int8", "bf16"])
def test_products_give_the_same_output(products):
    mixer, x = made((2, 2, 2))  # 16 rows
    found = mixer(x)
    mixer.tree_in.products = products
    torch.testing.assert_close(mixer(x), found, rtol=1e-4, atol=1e-4)


def test_config_json_names_its_own_mixer_alone():
    sizes = {"vocab_size": 264, "hidden_size": 16, "num_hidden_layers": 1}
    trees = ModelConfig(**sizes, channel_mixer="tree", trees=2, tree_depth=3, tree_always=1).to_json()
    assert trees["channel_mixer"] == "tree" and "intermediate_size" not in trees and "experts" not in trees
    assert [trees[name] for name in ("trees", "tree_depth", "tree_always")] == [2, 3, 1]
    glu = ModelConfig(**sizes, intermediate_size=24).to_json()
    assert glu["intermediate_size"] == 24 and "channel_mixer" not in glu and "trees" not in glu
    assert json.loads(json.dumps(trees)) == trees


def test_model_has_the_tensors_of_its_geometry():
    from sterna.sim.golden.geometry import TreeGeometry
    geometry = TreeGeometry(16, 3, 2, 4, 2, 264)
    model = LanguageModel(ModelConfig.of(geometry))
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == geometry.shapes()


class NoTokenizer:
    def to_str(self, pretty):
        return "{}"


def saved(folder, config=None, dtype=torch.float32):
    """A model with uneven norms, saved."""
    torch.manual_seed(SEED)
    model = LanguageModel(config or ModelConfig(vocab_size=40, hidden_size=32, num_hidden_layers=2,
                                                channel_mixer="tree", trees=5, tree_depth=3, tree_always=4))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.uniform_(0.5, 1.5)
            elif name == "model.lower_bounds":
                value.normal_()
    save_checkpoint(folder, model, NoTokenizer(), dtype)
    return model


@pytest.mark.parametrize("to_train", [False, True])
def test_saved_and_loaded(tmp_path, to_train):
    model = saved(tmp_path / "model")
    loaded = load_checkpoint(tmp_path / "model", to_train)
    assert loaded.config == model.config
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_tables_that_are_ternary_already_can_be_trained_on(tmp_path):
    model = saved(tmp_path / "model")
    with torch.no_grad():
        for block in model.model.layers:
            for table in (block.mlp.tree_in, block.mlp.tree_out):
                trits, mean = layers.ternarise(table.weight)
                table.weight.copy_(trits * mean)
    save_checkpoint(tmp_path / "ternary", model, NoTokenizer(), torch.float32)
    loaded = load_checkpoint(tmp_path / "ternary", to_train=True)
    for old, new in zip(model.model.layers, loaded.model.layers, strict=True):
        for name in ("tree_in", "tree_out"):
            before, after = (getattr(block.mlp, name).weight.detach() for block in (old, new))
            assert not torch.equal(before, after) and (after != 0).all()
            assert torch.equal(layers.ternarise(before)[0], layers.ternarise(after)[0])


@pytest.mark.parametrize("form", ["masked", "walk"])
def test_torch_equals_the_float_reference_and_follows_the_hardware(tmp_path, form):
    """L0 in PyTorch against L0 in NumPy within rounding, and near L1."""
    model = saved(tmp_path / "model").double().eval()
    for block in model.model.layers:
        block.mlp.options = TreeOptions(form=form)
    ids = np.random.default_rng(SEED).integers(0, 40, 24)
    with torch.no_grad():
        found = model(torch.from_numpy(ids)[None], torch.arange(24)[None] > 0).numpy()
    reference, golden = Reference(tmp_path / "model"), GoldenModel(pack_checkpoint(tmp_path / "model"))
    state, of_golden, near = reference.start(1), golden.start(1), []
    for token, row in zip(ids, found, strict=True):
        expected = reference.step([token], state)[0]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        near.append(np.corrcoef(row, golden.logits([token], of_golden)[0])[0, 1])
    assert np.median(near) > 0.98  # a code that is rounded differently may turn a branch of some token


@pytest.mark.parametrize("mixer, message", [
    ({"channel_mixer": "none"}, "channel_mixer is 'none'"),
    ({"channel_mixer": "experts", "experts": 4, "experts_used": 1, "expert_size": 4}, "'experts' is 4: .*known")])
def test_controls_are_refused_by_name_outside_of_training(tmp_path, mixer, message):
    saved(tmp_path / "model", ModelConfig(vocab_size=40, hidden_size=32, num_hidden_layers=1, **mixer))
    with pytest.raises(PackError, match=message):
        load_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("changes, message", [
    ({"trees": 0}, "trees 0: channel_mixer tree needs it, use 1 or more"),
    ({"trees": 5000}, "trees 5000: use 0 to 4095"),
    ({"tree_depth": 21}, "tree_depth 21: use 0 to 20"),
    ({"tree_always": -1}, "tree_always -1: use 0 to 4095"),
    ({"trees": 4000, "tree_depth": 20}, "the model would have .* parameters: at most 1,000,000,000 are trained here"),
    ({"intermediate_size": 8}, "intermediate_size 8: channel_mixer tree has none: leave it out, or choose another "
                               "channel_mixer"),
    ({"channel_mixer": "glu"}, "tree_always 3: channel_mixer glu has none: leave it out, or .*"),
    ({"channel_mixer": "fff"}, "channel_mixer 'fff': use glu, tree, none or experts"),
    ({"tree_gradient": "soft"}, "tree_gradient 'soft': use none, child or path"),
    ({"tree_routing": "dice"}, "tree_routing 'dice': use own, frozen or coin"),
    ({"balance": -1.0}, r"balance -1.0: use 0 to 1000"),
    ({"products": "int8", "tree_always": 4}, "int8 products need multiples of 8, and 25 neurons .*"),
    (EXPERTS | {"experts_used": 6}, "experts_used 6: use at most experts, 5"),
])
def test_wrong_entries(changes, message):
    with pytest.raises(TrainError, match=f"^{message}$"):
        dataclasses.replace(CONFIG, **changes)
