"""Training of the encoder: tables of GLUE, hidden tokens, rates, resuming, fine-tuning, errors in one line."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import typer

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from sterna.host.commands.train_encoder import train_encoder  # noqa: E402
from sterna.host.errors import INTERRUPTED  # noqa: E402
from sterna.models.encoder import glue  # noqa: E402
from sterna.models.encoder.checkpoint import load  # noqa: E402
from sterna.models.encoder.finetune import FineTuning, batches, cosine  # noqa: E402
from sterna.models.encoder.network import Encoder as Network  # noqa: E402
from sterna.models.encoder.network import Trees  # noqa: E402
from sterna.models.encoder.open import open_run  # noqa: E402
from sterna.models.encoder.pretrain import NONE, Pretraining, hide, triangle  # noqa: E402
from sterna.models.encoder.run import LeafUse  # noqa: E402
from sterna.models.encoder.settings import ClassifyConfig, PretrainConfig, has_task, load_config  # noqa: E402
from sterna.models.encoder.words import Words, cut, fill_rows, read_texts  # noqa: E402
from sterna.models.runlog import read_log  # noqa: E402
from sterna.models.settings import TrainError  # noqa: E402
from sterna.sim.golden.encoder import Encoder  # noqa: E402
from sterna.sim.golden.encoder_checkpoint import EncoderGeometry, load_encoder  # noqa: E402

SEED = int(os.environ.get("STERNA_SEED", "1"))
WORDS = ["cat", "dog", "tree", "bird", "ran", "saw", "sang", "big", "red", "sun", "moon", "the"]
MORE = [f"{a}{b}" for a in ("ka", "lo", "mi", "pu") for b in ("ne", "ro", "tas", "wix")]  # more than 70 pieces
CONFIG = PretrainConfig(task="mlm", text="t.txt", hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        vocab_size=70, trees=2, tree_depth=2, length=16, rows=4, steps=6, holdout_rows=8,
                        evaluate_every=3, learning_rate=0.01, seed=SEED, dropout=0.1)
TUNING = ClassifyConfig(task="classify", model="m", data="d", epochs=2, rows=8, learning_rate=0.01, head_size=12,
                        length=16, seed=SEED)


@pytest.fixture(autouse=True)
def one_thread():
    """Steps of such small models wait for threads, longest where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text(tmp_path):
    rng = np.random.default_rng(SEED)
    path = tmp_path / "t.txt"
    path.write_text("\n".join(" ".join(rng.choice(WORDS + MORE, 8)) + " ." for _ in range(120)))
    return path


def finish(run):
    return list(run.run())


# Every kind of GLUE's files: name, content, columns of text, labels.
TABLES = {
    "cola": ("gj04\t1\t\tHe ran.\ngj04\t0\t*\tRan he.\n", [("He ran.",), ("Ran he.",)], ["1", "0"]),
    "sst": ("sentence\tlabel\na fine film \t1\n", [("a fine film",)], ["1"]),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tA \"b\" c\tD\r\n", [('A "b" c', "D")],
             ["1"]),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n", [("A", "B")], ["entailment"]),
    "sts": ("index\tgenre\tsentence1\tsentence2\tscore\n0\tx\tA\tB\t3.800\n", [("A", "B")], [3.8]),
    "qnli": ("index\tquestion\tsentence\tlabel\n0\tQ\tS\tnot_entailment\n", [("S", "Q")], ["not_entailment"]),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tA\tB\t0\n", [("A", "B")], ["0"]),
    "mnli": ("index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tA\tB\tneutral\tcontradiction\n", [("A", "B")],
             ["contradiction"]),
    "ag": ("Some news.\tWorld\nMore\tSports\n", [("Some news.",), ("More",)], ["World", "Sports"]),
    "trec": ("ind Who said it ?\tHUM\r\n", [("ind Who said it ?",)], ["HUM"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_table_is_read(tmp_path, name):
    content, texts, labels = TABLES[name]
    (tmp_path / "train.tsv").write_bytes(content.encode())
    table = glue.read_table(tmp_path / "train.tsv")
    assert (sorted(map(sorted, table.texts)), table.labels) == (sorted(map(sorted, texts)), labels)
    assert table.scored == (name == "sts")


def test_words_in_front_are_dropped_and_broken_rows_counted(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("ind Who said it ?\tHUM\n" * 200 + "broken\n")
    table = glue.read_table(path, skip_words=1)
    assert table.texts[0] == ("Who said it ?",) and len(table.labels) == 200 and table.broken == 1


@pytest.mark.parametrize("content, words", [
    (b"", "holds no line"), (b"\xff\xfe\n", "is not UTF-8 (byte 0)"), (b"one column\n", "1 columns without names"),
    (b"index\tsentence\n0\tA\n", "no column of labels"), (b"a\tb\tc\td\te\n", "5 columns without names"),
    (b"sentence\tlabel\nA\t1\nB\nC\n", "2 of 3 rows have not the 2 columns"), (b"sentence\tlabel\n", "0 of 0 rows"),
    (b"sentence1\tsentence2\tscore\nA\tB\tx\n", "the score 'x' is no number")])
def test_other_tables_are_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "train.tsv"
    path.write_bytes(content)
    with pytest.raises(TrainError) as error:
        glue.read_table(path)
    assert str(path) in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_inputs_of_one_text_and_of_two(text):
    words = Words.trained(read_texts(text), 70)
    (one,), (two,) = words.inputs([("the cat",)], 16), words.inputs([("the cat", "big")], 16)
    ids = words.encode(["the cat", "big"])
    assert one.tolist() == [words.start, *ids[0], words.end]
    assert two.tolist() == [words.start, *ids[0], words.end, *ids[1], words.end]
    rng = np.random.default_rng(SEED)
    for _ in range(200):
        a, b, room = (int(n) for n in rng.integers(0, 12, 3))
        first, second = cut([list(range(a)), list(range(b))], room)
        assert len(first) + len(second) == min(a + b, room) and len(first) <= a and len(second) <= b
        assert a + b <= room or len(first) == a or len(second) == b or abs(len(first) - len(second)) <= 1


def test_a_quarter_of_the_tokens_is_hidden():
    class Fake:
        pad, start, end, mask, size = 0, 2, 3, 4, 1000
    rng = np.random.default_rng(SEED)
    rows = rng.integers(5, 1000, (400, 101))
    rows[:, 0] = Fake.start
    rows[:, 50] = Fake.end
    inputs, targets = hide(rows, Fake, rng)
    hidden = targets != NONE
    ends = np.full((1, 101), Fake.end)  # nothing to hide
    assert (hide(ends, Fake, rng)[1] == NONE).all()
    assert (hidden.sum(1) == 25).all() and not hidden[:, [0, 50]].any()
    np.testing.assert_array_equal(targets[hidden], rows[hidden])
    np.testing.assert_array_equal(inputs[~hidden], rows[~hidden])
    shares = [(inputs[hidden] == Fake.mask).mean(), (inputs[hidden] == rows[hidden]).mean()]
    np.testing.assert_allclose(shares, [0.8, 0.1], atol=0.02)


def test_rates():
    assert [triangle(p) for p in (0, 0.375, 0.75, 0.875, 1)] == [0.25, 0.625, 1, 0.5, 0]
    np.testing.assert_allclose([cosine(p) for p in (0, 0.05, 0.1, 0.55, 1)], [0, 0.5, 1, 0.5, 0], atol=1e-12)


def test_rows_are_the_text(text):
    words = Words.trained(read_texts(text), 70)
    rows = fill_rows(words, ["the cat", "big dog"] * 9, 5)
    ids = words.encode(["the cat", "big dog"])
    assert (rows[:, 0] == words.start).all()
    assert rows[:, 1:].ravel().tolist() == ([*ids[0], words.end, *ids[1], words.end] * 9)[:rows[:, 1:].size]


def test_a_step_has_texts_of_about_one_length():
    lengths = np.random.default_rng(SEED).integers(3, 60, 1000).tolist()
    found = batches(lengths, 8, (SEED, 0))
    assert sorted(np.concatenate(found).tolist()) == list(range(1000)) and len(found) == 125
    padded = sum(len(rows) * max(lengths[k] for k in rows) for rows in found)
    assert padded < 1.15 * sum(lengths)
    assert [rows.tolist() for rows in batches(lengths, 8, (SEED, 0))] == [rows.tolist() for rows in found]
    assert [rows.tolist() for rows in batches(lengths, 8, (SEED, 1))] != [rows.tolist() for rows in found]


def test_tree_gradients_reach_the_visited_neurons_alone():
    torch.manual_seed(SEED)
    trees = Trees(6, 2, 2)
    x = torch.randn(1, 1, 6, requires_grad=True)
    trees(x).square().sum().backward()
    path = trees.path(trees.linear_in(x.detach()).view(1, 2, 7))[0]
    visited = {k * 7 + int(n) for k in range(2) for n in path[k]}
    for grad in (trees.linear_in.weight.grad, trees.linear_in.bias.grad[:, None], trees.linear_out.weight.grad.T):
        assert {int(n) for n in grad.abs().sum(1).nonzero()} == visited
    assert x.grad.abs().sum() > 0


def test_leaf_use_of_even_and_collapsed_trees():
    geometry = EncoderGeometry(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, trees=2,
                               tree_depth=1, length=8)
    model = Network(geometry).eval()
    with torch.no_grad():
        model.trees()[0].linear_in.bias.copy_(torch.tensor([1.0, 0, 0, -1, 0, 0]) * 100)
        with LeafUse(model) as leaves:
            model(torch.arange(8)[None])
    assert leaves.share() == pytest.approx(0.5)  # one leaf of two, in both trees
    leaves._counts[0][:] = 1
    assert leaves.share() == pytest.approx(1.0)
    assert model.trees()[0].watch is None


def test_pre_training_goes_on_exactly_where_it_stopped(tmp_path, text):
    # Training a WordPiece twice gives other ids, so that both runs take one tokenizer.
    (tmp_path / "tokenizer.json").write_text(Words.trained(read_texts(text), 70).tokenizer.to_str())
    whole = Pretraining(CONFIG, text, tmp_path / "whole", tmp_path)
    records = finish(whole)
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert ["masked_loss" in r for r in records] == [False, False, True] * 2
    parted = Pretraining(CONFIG, text, tmp_path / "parted", tmp_path)
    steps = parted.run()
    for _ in range(4):
        next(steps)
    parted.save_state()
    again = Pretraining(replace(CONFIG, evaluate_every=2), text, tmp_path / "parted")
    assert again.step == 4
    rest = finish(again)
    assert rest[-1]["masked_loss"] == records[-1]["masked_loss"] and rest[-1]["leaf_use"] <= 1
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    assert [r["step"] for r in read_log(tmp_path / "parted")] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(TrainError, match="was trained with rows 4, not 5: use another --out"):
        Pretraining(replace(CONFIG, rows=5), text, tmp_path / "parted")
    text.write_text(text.read_text().replace("cat", "dog", 1))
    with pytest.raises(TrainError, match="was trained on another text than .*t.txt: give that text"):
        Pretraining(CONFIG, text, tmp_path / "parted")
    (tmp_path / "parted" / "state.pt").write_bytes(b"damaged")
    with pytest.raises(TrainError, match="cannot resume from .*state.pt"):
        Pretraining(CONFIG, text, tmp_path / "parted")


@pytest.mark.parametrize("feedforward", [{}, *(pytest.param(more, marks=pytest.mark.rest) for more in (
    {"feedforward": "dense", "intermediate_size": 20}, {"feedforward": "narrow"}, {"feedforward": "none"}))])
def test_masked_loss_falls_and_numpy_runs_the_model(tmp_path, text, feedforward):
    config = replace(CONFIG, steps=40, evaluate_every=40, dropout=0.0, **feedforward)
    run = Pretraining(config, text, tmp_path / "run")
    records = finish(run)
    assert records[-1]["masked_loss"] < records[0]["loss"] - 0.5
    encoder = Encoder(*load_encoder(tmp_path / "run" / "model"))
    ids = run.rows[0]
    with torch.no_grad():
        theirs = load(tmp_path / "run" / "model").eval()(torch.from_numpy(ids[None].astype(np.int64)))[0]
    np.testing.assert_allclose(encoder.logits(ids), theirs.numpy(), atol=1e-4)


@pytest.fixture
def encoder_folder(tmp_path, text):
    finish(Pretraining(replace(CONFIG, steps=2, evaluate_every=2), text, tmp_path / "pre"))
    return tmp_path / "pre" / "model"


def write_task(folder, rows, head="sentence\tlabel"):
    folder.mkdir(exist_ok=True)
    for part in ("train", "dev"):
        (folder / f"{part}.tsv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_fine_tuning_learns_classes(tmp_path, encoder_folder):
    rng = np.random.default_rng(SEED)
    rows = [f"{' '.join(rng.choice(WORDS[:6], 4))} {word}\t{label}" for _ in range(40)
            for word, label in (("sun", "day"), ("moon", "night"))]
    data = write_task(tmp_path / "task", rows)
    run = FineTuning(replace(TUNING, epochs=12), encoder_folder, data, tmp_path / "run")
    for name, tensor in load(encoder_folder).encoder.state_dict().items():
        assert torch.equal(tensor, run.model.encoder.state_dict()[name]), name
    last = finish(run)[-1]
    assert last["accuracy"] > 0.9 and last["majority"] == 0.5 and last["step"] == 120
    geometry, tensors = load_encoder(tmp_path / "run" / "model")
    assert geometry.classes == 2 and geometry.head_size == 12
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "day", "1": "night"}
    words = Words.load(tmp_path / "run" / "model")
    encoder = Encoder(geometry, tensors)
    (night,) = words.inputs([("cat dog moon",)], 16)
    assert encoder.logits(night).argmax() == 1
    with pytest.raises(TrainError, match="holds a finished run"):
        FineTuning(TUNING, encoder_folder, data, tmp_path / "run")


def test_fine_tuning_on_pairs_scores_and_some_rows(tmp_path, encoder_folder):
    rows = [f"the {w}\tbig {v}\t{5 * (w == v)}.0" for w in WORDS[:6] for v in WORDS[:6]]
    data = write_task(tmp_path / "task", rows, "sentence1\tsentence2\tscore")
    run = FineTuning(replace(TUNING, most_rows=20), encoder_folder, data, tmp_path / "run")
    last = finish(run)[-1]
    assert len(run.train_rows) == 20 and -1 <= last["pearson"] <= 1 and last["step"] == 6
    assert load_encoder(tmp_path / "run" / "model")[0].classes == 1


GOOD = {"task": '"mlm"', "text": '"t.txt"', "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "vocab_size": 70, "tree_depth": 2, "length": 16, "rows": 4, "steps": 3, "holdout_rows": 8}


def write_config(folder, **entries):
    path = folder / "run.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in entries.items() if value is not None))
    return path


@pytest.mark.parametrize("entries, words", [
    ({"task": '"translate"'}, "task 'translate': use mlm or classify"),
    ({"taks": 1}, "unknown entry 'taks', perhaps"),
    ({"hidden_size": None}, "the entry 'hidden_size' is missing"), ({"rows": '"4"'}, "must be of type int"),
    ({"feedforward": '"moe"'}, "feedforward 'moe': use fff"), ({"tree_depth": 40}, "tree_depth is 40"),
    ({"steps": 0}, "steps 0, minutes 0: give one"), ({"learning_rate": 0}, "learning_rate 0: use above 0"),
    ({"learning_rate": "nan"}, "learning_rate nan"), ({"hidden_size": 17}, "hidden_size is 17"),
    ({"dropout": 2}, "dropout 2: use"), ({"tree_depth": 24, "hidden_size": 1024}, "parameters: at most"),
    ({"feedforward": '"dense"'}, "intermediate_size is 0"), ({"text": '"absent.txt"'}, "there is no 'absent.txt'"),
    ({"vocab_size": 5000}, "the tokenizer has"), ({"holdout_rows": 5000}, "rows of 16 tokens, and holdout_rows 5000"),
    ({"tokenizer": '"."'}, "holds no tokenizer.json"), ({"text": '"run.toml", "'}, "cannot read the configuration"),
])
def test_wrong_configurations_are_refused_in_one_line(tmp_path, text, entries, words):
    path = write_config(tmp_path, **GOOD | entries)
    with pytest.raises(TrainError) as error:
        open_run(path, tmp_path / "run")
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_wrong_tasks_are_refused_in_one_line(tmp_path, encoder_folder):
    good = write_task(tmp_path / "task", ["the cat\t1", "the dog\t0"])

    def refused(words, config=TUNING, data=good, model=encoder_folder):
        with pytest.raises(Exception, match=re.escape(words)) as error:
            FineTuning(config, model, data, tmp_path / "run")
        assert "\n" not in str(error.value) and not (tmp_path / "run").exists()

    refused("no train.tsv or train.txt: name its file by train", data=tmp_path)
    refused("no 'x.tsv'", replace(TUNING, dev="x.tsv"))
    refused("takes at most 16", replace(TUNING, length=64))
    refused("model_type is", model=write_folder_of_another_kind(tmp_path))
    (good / "dev.tsv").write_text("sentence\tlabel\nthe cat\t2\n")
    refused("dev has the class '2', which train has not")
    (good / "dev.tsv").write_text("sentence1\tsentence2\tlabel\nthe cat\tb\t1\n")
    refused("have other columns")
    refused("train has the class '1' alone", data=write_task(tmp_path / "one", ["the cat\t1"]))


def write_folder_of_another_kind(folder):
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text('{"model_type": "bert"}')
    return folder / "other"


def test_a_loss_that_is_not_finite_ends_in_one_line(tmp_path, text):
    run = Pretraining(replace(CONFIG, learning_rate=1000.0, clip=0.0), text, tmp_path / "run")
    with torch.no_grad():
        run.model.encoder.final_norm.weight.fill_(float("inf"))
    with pytest.raises(TrainError, match="the loss of step 1 is nan: lower learning_rate 1000"):
        finish(run)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_saves_the_state_and_the_same_command_goes_on(tmp_path, text, monkeypatch, capsys):
    path, whole = write_config(tmp_path, **GOOD), Pretraining.run

    def stopped(run):
        for record in whole(run):
            yield record
            if record["step"] == 2:
                raise KeyboardInterrupt
    monkeypatch.setattr(Pretraining, "run", stopped)
    with pytest.raises(typer.Exit) as ended:
        train_encoder(path, tmp_path / "run", "auto")
    assert ended.value.exit_code == INTERRUPTED and "stopped behind step 2: the same" in capsys.readouterr().err
    monkeypatch.setattr(Pretraining, "run", whole)
    train_encoder(path, tmp_path / "run", "auto")
    said = capsys.readouterr().err
    assert "going on behind step 2" in said and "step 3, loss" in said
    assert [r["step"] for r in read_log(tmp_path / "run")] == [1, 2, 3]


def test_the_command(tmp_path, text, capsys):
    path = write_config(tmp_path, **GOOD)
    assert has_task(path) and not has_task(tmp_path / "absent") and load_config(path).rows == 4
    train_encoder(path, tmp_path / "run", "auto")
    said = capsys.readouterr().err
    assert "step 1, loss" in said and "masked loss" in said and "leaf use" in said
    train_encoder(path, tmp_path / "run", "cpu")
    assert "nothing left to train" in capsys.readouterr().err
    write_task(tmp_path / "task", ["the cat\t1", "the dog\t0"])
    path = write_config(tmp_path, task='"classify"', model='"run/model"', data='"task"', length=16, epochs=1)
    train_encoder(path, tmp_path / "tuned", "auto")
    assert "accuracy" in capsys.readouterr().err
    with pytest.raises(Exception, match="--device cuda: an encoder is trained on the cpu"):
        train_encoder(path, tmp_path / "tuned", "cuda")
