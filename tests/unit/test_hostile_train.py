"""Hostile training configurations and run folders: a TrainConfig or one line."""

import json
import math

import pytest
from hostile import examples, outcome
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
from sterna.models.checkpoint import load_checkpoint  # noqa: E402
from sterna.models.runlog import read_log  # noqa: E402
from sterna.models.settings import TrainConfig, TrainError  # noqa: E402
from sterna.sim.golden.packed import PackError  # noqa: E402

pytestmark = pytest.mark.torch
GOOD = {"text": '"t.txt"', "holdout_stories": "4", "vocab_size": "264", "hidden_size": "16",
        "intermediate_size": "24", "num_hidden_layers": "1", "row_tokens": "32", "rows": "2", "learning_rate": "0.01",
        "weight_decay": "0", "products": '"fp32"', "seed": "1", "evaluate_every": "3",
        "dropout": "0.1", "steps": "6", "minutes": "0.5", "channel_mixer": '"glu"', "trees": "0", "tree_depth": "0",
        "tree_gradient": '"child"'}
VALUES = st.sampled_from(["nan", "inf", "-inf", "1e400", "-1", "0", "1.5", "true", '""', '"x"', "[]", "{}",
                          "9" * 5000,
                          "10000000000000", "0x10", "1979-05-27", "'''", "[" * 3000 + "]" * 3000, '"\\ud800"', "",
                          '"' + "y" * 5000 + '"', '"../../etc/passwd"', '"\\u0000"', "1e-320"])


def load(path, content):
    path.write_bytes(content)
    return outcome(lambda: TrainConfig.load(path), path, TrainError)


@examples(150)
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), VALUES, min_size=1, max_size=3),
       st.sampled_from(["", "a = 1\n"]))
def test_values(tmp_path, changes, more):
    text = "".join(f"{k} = {v}\n" for k, v in (GOOD | changes).items()) + more
    config = load(tmp_path / "run.toml", text.encode())
    if config:  # whatever passed can be trained with
        assert math.isfinite(config.minutes) and 0 < config.learning_rate <= 1000 and 0 <= config.seed < 2**32
        outcome(lambda: config.text_path(tmp_path / "run.toml"), tmp_path / "run.toml", TrainError)


@examples(60)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=60).map(str.encode)))
def test_bytes(tmp_path, content):
    assert load(tmp_path / "run.toml", content) is None


def test_folder_or_nothing_instead_of_a_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent.toml"):
        assert outcome(lambda path=path: TrainConfig.load(path), path, TrainError) is None
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 21))
    assert outcome(lambda: TrainConfig.load(tmp_path / "large.toml"), "large.toml", TrainError) is None


@pytest.mark.parametrize("line", ["[]", "1", '{"step": "1"}', "{", "[" * 100000, "\0"])
def test_log_that_is_none(tmp_path, line):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": NaN}\n' + line + "\n")
    with pytest.raises(TrainError, match="log.jsonl, line 2: "):
        read_log(tmp_path)


def test_state_that_is_none(tmp_path):
    import torch
    from sterna.models.train import RESUMED, Trainer
    text = "\n<|endoftext|>\n".join(f"The {a} cat saw {b} dogs." for a in ("big", "red", "old") for b in range(8))
    (tmp_path / "t.txt").write_text(text)
    (tmp_path / "run.toml").write_text("".join(f"{k} = {v}\n" for k, v in GOOD.items()))
    config = TrainConfig.load(tmp_path / "run.toml")
    trainer = Trainer(config, tmp_path / "t.txt", tmp_path / "run")
    trainer.save_state()
    good = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    for bad in ([], {}, good | {"run": 1}, good | {"model": {}}, good | {"optimiser": []}, good | {"step": "x"},
                good | {"config": 7}, good | {"config": {"nothing": 1}}, good | {"stories": 7},
                {k: good[k] for k in RESUMED}):
        torch.save(bad, tmp_path / "run" / "state.pt")
        with pytest.raises(TrainError) as error:
            Trainer(config, tmp_path / "t.txt", tmp_path / "run")
        assert str(tmp_path / "run") in str(error.value) and "\n" not in str(error.value)
    trainer.folder = tmp_path / "t.txt"
    with pytest.raises(TrainError, match=f"cannot write {tmp_path / 't.txt' / 'state.pt'}: "):
        trainer.save_state()


@pytest.mark.parametrize("config", ["{", "[]", json.dumps({"model_type": "hgrn_bit", "hidden_size": 16})])
def test_checkpoint_for_torch(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    assert outcome(lambda: load_checkpoint(tmp_path), tmp_path, PackError) is None
