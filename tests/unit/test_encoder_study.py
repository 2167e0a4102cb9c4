"""The study of the encoder's feedforwards: its texts and tasks, run by run, and its tables."""

import json
import math
import os
import zipfile

import numpy as np
import pytest
from sterna.host.errors import HostError

from docs.figures.encoder import page, speed, texts, variants

pytestmark = pytest.mark.rest  # figures of the documentation

SEED = int(os.environ.get("STERNA_SEED", "1"))
WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("an", "el", "ith", "o", "ur", "ay")]


@pytest.fixture
def data(tmp_path):
    """A folder with a little of everything that the study reads."""
    rng = np.random.default_rng(SEED)

    def line(first=""):
        return " ".join([*([first] if first else []), *rng.choice(WORDS, 6)])

    def labelled(count, *classes):
        return [f"{line(word)}\t{label}" for _ in range(count) for word, label in classes]

    root = tmp_path / "data"
    for name in ("glue/corpora", "glue/SST-2", "glue/AGNews", "glue/TREC", "wikitext2"):
        (root / name).mkdir(parents=True)
    for name in (*texts.CORPORA, "subjectivity"):
        mark = texts.TAGGED.get(name)
        with zipfile.ZipFile(root / "glue" / "corpora" / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}/README", "no text")
            files = ("plot.tok", "quote.tok") if name == "subjectivity" else ("a.txt", "b.txt")
            for file in files:
                first, count = (file[:4], 1000) if name == "subjectivity" else ("", 100)
                lines = [line(first) for _ in range(count)]
                tagged = [" ".join(f"{word}{mark}nn" for word in one.split()) if mark else one for one in lines]
                archive.writestr(f"{name}/{file}", "\n".join(tagged))
    (root / "wikitext2" / "valid.txt").write_text(line())
    for part, count in (("train", 60), ("dev", 20)):
        rows = labelled(count, ("good", "1"), ("bad", "0"))
        (root / "glue" / "SST-2" / f"{part}.tsv").write_text("\n".join(["sentence\tlabel", *rows]))
        rows = [f"ind {row}" for row in labelled(count, ("who", "HUM"), ("where", "LOC"))]
        name = {"train": "train", "dev": "test"}[part]
        (root / "glue" / "TREC" / f"{name}.txt").write_bytes("\r\n".join([*rows, "ind twice\tHUM"]).encode())
        name = {"train": "dev", "dev": "test"}[part]
        rows = labelled(count, ("goal", "Sports"), ("bank", "World"))
        (root / "glue" / "AGNews" / f"{name}.tsv").write_text("\n".join(rows))
    return root


def test_texts_and_tasks(tmp_path, data):
    texts.write_texts(data, tmp_path / "text")
    brown = (tmp_path / "text" / "brown.txt").read_text()
    assert set(brown.split()) <= set(WORDS) and len(brown.split()) == 1200  # neither tags nor README
    for task in texts.TASKS:
        texts.write_task(data, task, tmp_path / task)
        train, dev = ((tmp_path / task / f"{part}.tsv").read_text().splitlines() for part in ("train", "dev"))
        head = task == "SST-2"
        assert not set(train[head:]) & set(dev[head:]), task
        assert len({line.split("\t")[1] for line in train[head:]}) == 2 and len(dev) > 1
    train = (tmp_path / "TREC" / "train.tsv").read_text()
    assert "ind " not in train and "twice" not in train  # the fine class; a question of the test
    (data / "glue" / "corpora" / "abc.zip").write_bytes(b"x")
    with pytest.raises(HostError, match="cannot read .*abc.zip: .*: give a folder with glue/corpora"):
        texts.write_texts(data, tmp_path / "text")


@pytest.mark.rest
@pytest.mark.torch
def test_the_study_runs_what_is_missing(tmp_path, data, monkeypatch):
    pytest.importorskip("torch")
    from docs.figures.encoder import study
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 100, "length": 16}
    monkeypatch.setattr(study, "SHAPE", small)
    monkeypatch.setattr(study, "PRETRAINING", {"rows": 2, "steps": 2, "holdout_rows": 4, "evaluate_every": 2})
    monkeypatch.setattr(study, "FINE_TUNING", {"rows": 16, "epochs": 1, "length": 16, "head_size": 4})
    monkeypatch.setattr(study, "order", lambda: [("dense", 0), ("fff", 0)])
    results, said = tmp_path / "results.json", []
    study.study(data, tmp_path / "work", results, deadline=1.0, tell=said.append)
    assert not said and set(variants.read(results)) == {"text"}
    study.study(data, tmp_path / "work", results, tell=said.append)
    names = {f"{variant}.0.{part}" for variant in ("dense", "fff") for part in ("mlm", *texts.TASKS)}
    found = variants.read(results)
    assert set(found) == names | {"text"} and len(said) == 10
    assert found["dense.0.SST-2"]["majority"] == 0.5 and found["fff.0.mlm"]["leaf_use"] <= 1
    assert 3 < found["text"]["unigram"] < math.log(100)
    assert "fff.0.TREC" in found and found["fff.0.TREC"]["dev"] == 41
    study.study(data, tmp_path / "work", results, tell=said.append)
    assert len(said) == 10  # nothing twice
    with pytest.raises(HostError, match="another tokenizer than .*: use --force"):
        study.study(data, tmp_path / "elsewhere", results)


def test_every_variant_and_seed_has_its_turn():
    turns = list(variants.order())
    assert len(turns) == len(set(turns)) == len(variants.VARIANTS) * len(variants.SEEDS)
    assert {variant for variant, seed in turns[:4]} == set(variants.FIRST) and {s for _, s in turns[:4]} == {0}


def result(accuracy, majority=0.5, dev=100):
    return {"accuracy": accuracy, "majority": majority, "dev": dev}


def test_relative_scores_and_their_errors():
    results = {"dense.0.TREC": result(0.9), "fff.0.TREC": result(0.8), "dense.0.SST-2": result(0.7),
               "fff.0.SST-2": result(0.7), "fff.0.AGNews": result(0.9),  # dense has none: it does not count
               "dense.1.TREC": result(0.8), "fff.1.TREC": result(0.8)}
    score, error = page.relative(results, "fff", 0)
    assert score == pytest.approx((0.3 / 0.4 + 1) / 2)
    sst, trec = math.sqrt(2 * 0.7 * 0.3 / 100) / 0.2, math.sqrt((0.9 * 0.1 + 0.8 * 0.2) / 100) / 0.4
    assert error == pytest.approx(math.hypot(sst, trec) / 2)
    found = page.summary(results, "fff")
    assert found["score"] == pytest.approx((0.875 + 1) / 2) and found["seeds"] == 2
    assert found["seeds.error"] == pytest.approx(0.125 / 2)
    assert page.summary(results, "none") == {} and math.isnan(page.summary(
        {k: v for k, v in results.items() if ".1." not in k}, "fff")["seeds.error"])


def test_tables_of_the_study():
    results = {"text": {"unigram": 6.25}, "dense.0.mlm": {"masked_loss": 5.0}, "dense.0.TREC": result(0.9),
               "fff.0.mlm": {"masked_loss": 5.5, "leaf_use": 0.25}, "fff.0.TREC": result(0.8)}
    out = page.tables({}, results)
    lines = out["table.encoder.study"].splitlines()
    assert lines[2] == "| trees 1x8: 9 of 511 neurons | 1 | 5.500 | 75.0% ± 12.5% (rows) | 25% |"
    assert lines[3] == "| dense 512 | 1 | 5.000 | 100% |  |"
    assert out["table.encoder.tasks"].splitlines()[-1].startswith("| largest class |  | 50.0 |")
    assert out["encoder.study.fff.score"] == "75.0%" and out["encoder.study.unigram"] == "6.250"
    assert page.tables({}, {}) == {}


def test_the_kept_results_fill_the_page():
    """Every marked place of the study in docs/encoder.md is what the kept results say."""
    from docs.figures.pages import fill
    path = variants.RESULTS.parents[2] / "encoder.md"
    text = path.read_text()
    filled, _ = fill(text, page.study_tables(variants.read(variants.RESULTS)))
    assert filled == text and "encoder.study.fff.score" in text
    assert json.loads(variants.RESULTS.read_text())["text"]["unigram"] > 0


@pytest.mark.torch
def test_the_speed_of_every_way(monkeypatch):
    pytest.importorskip("torch")
    import torch
    monkeypatch.setattr(speed, "PUBLISHED", {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2,
                                             "num_attention_heads": 4})
    monkeypatch.setattr(speed, "TOKENS", (2, 9))
    before = torch.is_grad_enabled()
    try:
        found = speed.measure()
    finally:
        torch.set_grad_enabled(before)
    assert found.pop("apart") < 1e-4
    assert set(found) == {f"{way}.{count}" for way in page.WAYS for count in (2, 9)}
    monkeypatch.setattr(speed.subprocess, "run", lambda *_, **more: type("", (), {"stdout": json.dumps(
        {f"{way}.9": [k + 1, 1] for k, way in enumerate(page.WAYS)} | {"apart": 1e-6})}))
    values = speed.speed(1)
    assert values["numpy.fff.9.ratio"] == pytest.approx(1 / 3) and values["numpy.fff.9.least.ratio"] == 1
    row = page.speed_table({"encoder.speed": values})["table.encoder.speed"].splitlines()[4]
    assert row == "| NumPy, 1x11, visited neurons alone | 3 (1) | 0.33 (1.00) |"
