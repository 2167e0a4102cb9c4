"""The study of models with trees: equal bytes, results run by run, tables and plot."""

import itertools

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from docs.figures.learning import forms, page, runs  # noqa: E402
from sterna.models.settings import TrainConfig  # noqa: E402


def configs():
    return {name: TrainConfig(**runs.settings_of(name, 1)) for name in runs.MIXERS}


def test_models_that_are_compared_at_equal_bytes_have_them():
    found = {name: runs.bytes_of(config)[0] for name, config in configs().items()}
    equal = ("glu.equal", "dense", "tree.plain", "always", "always.plain", "frozen", "coin", "experts", "shallow")
    assert all(abs(found[name] / found["tree"] - 1) < 0.02 for name in equal)
    assert found["deep"] == found["dense.deep"] and found["none"] == 0
    assert found["dense.whole"] == 64 / 5 * 2 * configs()["tree"].neurons
    # Two tables of 8 trees with 5 rows on a path, 64 trits each, five in a byte; and the other matrices of the model.
    assert runs.bytes_of(configs()["tree"]) == (2 * 8 * 5 * 64 / 5, 2 * 1024 + (2 * 4 * 64 * 64 + 512 * 64) / 5)


def test_a_run_is_done_once_and_again_for_other_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("STERNA_BUILD", str(tmp_path))
    monkeypatch.setattr(runs, "RESULTS", tmp_path / "results.json")
    made = []

    def train(name, seed, folder, tell):
        made.append((name, seed))
        if len(made) == 3:
            raise KeyboardInterrupt
        return {"settings": runs.settings_of(name, seed), "nats_per_token": 3.0, "cpu_seconds": 1}
    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "_prepare", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        runs.run(["none", "coin", "tree"], (1, 2), tmp_path, print)
    assert sorted(runs.loaded()) == ["none 1", "tree 1"]  # what is last comes behind all seeds
    runs.run(["none", "coin", "tree"], (1, 2), tmp_path, print)
    assert made[2:] == [("none", 2), ("none", 2), ("tree", 2), ("coin", 1), ("coin", 2)]
    monkeypatch.setitem(runs.COMMON, "steps", 7)
    runs.run(["tree"], (1,), tmp_path, print)
    assert made[-1] == ("tree", 1) and not runs.is_done("none", 1, runs.loaded())


def result(name, seed, loss, **more):
    config = TrainConfig(**runs.settings_of(name, seed))
    mixer, whole = runs.bytes_of(config)
    return {"settings": runs.settings_of(name, seed), "nats_per_token": loss, "targets": 10, "trained_tokens": 20,
            "mixer_bytes": mixer, "token_bytes": whole, "parameters": 5, "leaf_use": []} | more


def test_tables_and_plot(tmp_path, monkeypatch):
    leaf = [{"used": 0.5, "entropy": 0.25, "largest": 0.75}, {"used": 1.0, "entropy": 0.75, "largest": 0.3}]
    results = {f"{name} {seed}": result(name, seed, 3.0 + 0.1 * (name == "glu.equal") - 0.01 * seed)
               for name, seed in itertools.product(("none", "glu.equal", "tree"), (1, 2, 3))}
    results["tree 2"] |= {"nats_per_token": 2.9, "leaf_use": leaf, "text": "Once."}
    results["dense 1"] = result("dense", 1, 1.0) | {"settings": {"steps": 1}}  # of other settings
    monkeypatch.setattr(runs, "loaded", lambda: results)
    found = page.tables()
    rows = found["table.learning"].splitlines()
    assert rows[2] == "| 8x4, routing gradient | 2.9533 ± 0.0473 | 3 | 1,024 | 15,155 | 5 | 50% | 0.50 | 75% |"
    assert len(rows) == 5 and rows[-1].startswith("| GLU, 27 wide")
    assert "| trees against the GLU of as many bytes | -0.1267 | -0.1800 to -0.1000 | 3 of 3 |" in \
        found["table.learning.pairs"]
    assert found["learning.text"].endswith("> Once.") and found["learning.runs"] == f"9 of {3 * len(runs.MIXERS)}"
    page.draw(tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    monkeypatch.setattr(runs, "loaded", dict)
    assert not {"table.learning", "learning.text"} & set(page.tables())


def test_every_mark_of_the_page_has_a_name():
    from docs.figures import pages
    names = {match[2] for match in pages.MARK.finditer(page.PAGE.read_text())}
    assert names == set(page.tables())


def test_forms_are_timed(monkeypatch):
    monkeypatch.setattr(forms, "TOKENS", 8)
    monkeypatch.setattr(forms, "HIDDEN", 8)
    monkeypatch.setattr(forms, "REPEATS", 1)
    assert forms.milliseconds(1, 2, "walk", "child") > 0
