"""What commands report: the gate's verdict, figures of several texts, and each message once."""

import json

import pytest
from small_model import DEVICE, SLOTS, GoldenDevice, served, write_folder
from sterna.host.model.model import Model
from sterna.hw.boards import preset
from sterna.sim.golden import gate as levels

GOOD = {"perplexity": 8.0, "perplexity_change": 1e-4, "kl_nats": 1e-5, "top1_raw": 0.99, "top1_clear": 0.999}
NAN = float("nan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("reports") / "model")


@pytest.mark.parametrize("l1, float32, clear, missed, small, verdict", [
    ({}, {}, 1000, [], [], "passed"),
    ({}, {"kl_nats": 1.0}, 9, [], [], "passed"),
    ({"kl_nats": 2e-3}, {}, 1000, ["kl_nats"], [], "FAILED"),
    ({"kl_nats": NAN}, {}, 1000, ["kl_nats"], [], "FAILED"),
    ({"perplexity_change": -2e-3}, {}, 1000, ["perplexity_change"], [], "FAILED"),
    ({"perplexity_change": 2e-3}, {"perplexity_change": -2e-3}, 1000, ["perplexity_change"], ["perplexity_change"],
     "not judged: the text is too small"),
    ({"top1_clear": 0.99}, {}, 201, ["top1_clear"], [], "FAILED"),
    ({"top1_clear": 0.99}, {}, 199, ["top1_clear"], ["top1_clear"], "not judged: the text is too small"),
    ({"top1_clear": 0.99, "kl_nats": 2e-3}, {}, 50, ["kl_nats", "top1_clear"], ["top1_clear"], "FAILED"),
])
def test_verdict_of_the_gate(sterna, folder, tmp_path, monkeypatch, l1, float32, clear, missed, small, verdict):
    monkeypatch.setattr(levels, "compare", lambda *_: {
        "tokens": 2 * clear, "clear_tokens": clear, "clear_share": 0.5, "perplexity": 8.0, "l1": GOOD | l1,
        "float32": GOOD | float32})
    text = tmp_path / "t.txt"
    text.write_text("A cat.")
    code, out, _ = sterna("gate", folder, "--text", text)
    words = " ".join(out.split())
    assert code == (verdict != "passed") and f"clear best token: {verdict}" in words
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    judged = [name for name in rows if name in missed and name not in small]
    assert [name for name, row in rows.items() if "MISSED" in row] == judged
    assert [name for name, row in rows.items() if "text too small" in row] == small
    found = json.loads(sterna("gate", folder, "--text", text, "--json")[1])
    assert (found["missed"], found["too_small"], found["passed"]) == (missed, small, not missed)


def test_the_gate_tells_how_far_it_is(folder):
    model, told = Model(folder), []
    ids = [[0, 3, 4, 0], [0, 5, 6, 7, 0]]
    found = levels.gate(folder, ids, 64, lambda done, total: told.append((done, total)))
    assert told[-1] == (7, 7) and found["tokens"] == 7 and model


@pytest.mark.parametrize("info", [DEVICE, SLOTS], ids=["device", "slots"])
def test_figures_of_several_texts(sterna, folder, info):
    """What has no time of its own is null and not 0."""
    with served(GoldenDevice(Model(folder).packed, info)) as url:
        err = sterna("generate", "-m", folder, "-p", "One day", "-p", "A cat", "-n", 9, "-s", 1, "--ignore-eos",
                     "--json", "--device", url)[2]
    found = json.loads(err.splitlines()[-1])
    assert found["prompt_tokens"] == 12 and found["tokens"] == 18 and found["seconds"] > 0
    assert found["cycles_per_token"] > 0 and found["counters"]["tokens"] > 0
    if info is SLOTS:
        assert found["together"] == 2 and found["prompt_seconds"] is None
    else:
        assert found["prompt_seconds"] > 0
    assert not [name for name, value in found.items() if value == 0 and name not in ("simulated", "together")]


def test_a_model_is_tiled_and_that_told_once_per_device(folder, tmp_path):
    (tmp_path / "m.sterna").write_bytes(Model(folder).build(preset("lanes40")))
    for path in (folder, tmp_path / "m.sterna"):
        model, told = Model(path), []
        first = model.image_for(preset("sim"), told.append)
        assert model.image_for(preset("sim,batch=2"), told.append) is first  # of the same tiling
        assert len(told) == (path is not folder)
        assert model.image_for(preset("lanes10"), told.append) is not first
        assert model.image_for(preset("lanes40"), told.append).tiling["columns"] == 20
    assert len(told) == 2
