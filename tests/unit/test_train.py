"""Training: scan and gradients against plain loops, exact resuming, choice of the checkpoint, errors."""

import dataclasses
import json
import lzma
import math
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from sterna.host.interrupts import Interrupts  # noqa: E402
from sterna.models import data, layers  # noqa: E402
from sterna.models.checkpoint import load_checkpoint  # noqa: E402
from sterna.models.model import LanguageModel, ModelConfig  # noqa: E402
from sterna.models.plot import drawable, plot_log  # noqa: E402
from sterna.models.runlog import read_log  # noqa: E402
from sterna.models.scan import linear_recurrence  # noqa: E402
from sterna.models.settings import LIMITS, OPTIONAL, TrainConfig, TrainError  # noqa: E402
from sterna.models.train import DivergedError, Trainer, pick_device  # noqa: E402

SEED = int(os.environ.get("STERNA_SEED", "1"))
CONFIG = TrainConfig(
    text="stories.txt", holdout_stories=4, vocab_size=264, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
    row_tokens=32, rows=2, learning_rate=0.01, weight_decay=0.0, products="fp32", seed=SEED, evaluate_every=3,
    steps=6)


@pytest.fixture
def text(tmp_path):
    """A file of 40 small stories."""
    rng = np.random.default_rng(SEED)
    words = ["cat", "dog", "tree", "ran", "saw", "big", "red", "sun"]
    stories = [" ".join(rng.choice(words, size=rng.integers(4, 12))) + "." for _ in range(40)]
    path = tmp_path / "stories.txt"
    path.write_text(f"\n{data.END_OF_TEXT}\n".join(stories))
    return path


def loop_recurrence(f, c):
    """The recurrence one step after the other."""
    h, out = torch.zeros_like(f[:, 0]), []
    for t in range(f.shape[1]):
        h = f[:, t] * h + c[:, t]
        out.append(h)
    return torch.stack(out, 1)


@pytest.mark.parametrize("steps", [1, 2, 7, 12, 32, 64])
def test_scan_and_its_gradients_equal_the_loop(steps):
    generator = torch.Generator().manual_seed(SEED)
    f = torch.rand(3, steps, 5, generator=generator, dtype=torch.float64)
    f[1, steps // 2] = 0  # a text that starts in the middle of a row
    c = torch.randn(3, steps, 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, steps, 5, generator=generator, dtype=torch.float64)
    results = []
    for function in (linear_recurrence, loop_recurrence):
        a, b = f.clone().requires_grad_(), c.clone().requires_grad_()
        h = function(a, b)
        (h * weight).sum().backward()
        results.append((h.detach(), a.grad, b.grad))
    for ours, loop in zip(*results, strict=True):
        torch.testing.assert_close(ours, loop, rtol=1e-12, atol=1e-12)


def test_scan_gradient_equals_finite_differences():
    generator = torch.Generator().manual_seed(SEED)
    f = torch.rand(1, 8, 2, generator=generator, dtype=torch.float64).requires_grad_()
    c = torch.randn(1, 8, 2, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(linear_recurrence, (f, c))


def test_glu_gradient_equals_finite_differences():
    pair = torch.randn(3, 8, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layers.glu, (pair,))


# Run on a GPU if there is one, or in Triton's interpreter, which has to be chosen before the import.
KERNELS = """
import torch
from sterna.models import scan_triton
from sterna.models.scan import linear_recurrence
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(int(input()))
for steps, width in ((1, 5), (2, 33), (7, 40), (20, 70)):
    f, c, weight = torch.rand(3, steps, width), torch.randn(3, steps, width), torch.randn(3, steps, width)
    f[1, steps // 2] = 0
    a, b = f.clone().requires_grad_(), c.clone().requires_grad_()
    expected = linear_recurrence(a, b)
    (expected * weight).sum().backward()
    h = scan_triton.forward(f.to(device), c.to(device))
    df, dc = scan_triton.backward(f.to(device), h, weight.to(device))
    for ours, theirs in ((h, expected.detach()), (df, a.grad), (dc, b.grad)):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-5)
print("equal")
"""


@pytest.mark.hardware
def test_gpu_kernels_of_the_scan_equal_it():
    """On a GPU; without one in the interpreter of Triton, which must be installed."""
    mode = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", KERNELS], input=f"{SEED}\n", text=True, capture_output=True,
                          env=os.environ | mode)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"


@pytest.mark.parametrize("products", ["fp32", "int8", "bf16"])
def test_ternary_product_equals_a_loop_and_passes_gradients_straight_through(products):
    generator = torch.Generator().manual_seed(SEED)
    # torch._int_mm wants more than 16 rows and multiples of 8.
    y = torch.randn(24, 16, generator=generator).requires_grad_()
    weight = torch.randn(8, 16, generator=generator).requires_grad_()
    out = layers.TernaryProduct.apply(y, weight, products)
    mean = weight.abs().mean().item()
    trits = np.clip(np.rint(weight.detach().numpy() / np.float32(mean)), -1, 1)
    rows = y.detach().numpy()
    expected = np.zeros((24, 8))
    steps = np.abs(rows).max(1) / 127
    codes = np.sign(rows) * np.floor(np.abs(rows) / steps[:, None] + 0.5)
    for n in range(24):
        for k in range(8):
            expected[n, k] = sum(codes[n, j] * trits[k, j] for j in range(16)) * steps[n] * mean
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    grad = torch.randn(24, 8, generator=generator)
    out.backward(grad)
    straight_y = grad.numpy() @ (trits * mean)
    straight_w = grad.numpy().T @ (codes * steps[:, None])
    rough = 1e-5 if products == "fp32" else 0.02  # the other two also round the gradient
    assert np.abs(y.grad.numpy() - straight_y).max() <= rough * np.abs(straight_y).max()
    rough = 0.02 if products == "bf16" else 1e-5
    assert np.abs(weight.grad.numpy() - straight_w).max() <= rough * np.abs(straight_w).max()


def test_rows_keep_texts_apart():
    """Two stories in one row give the logits that each gives alone."""
    torch.manual_seed(SEED)
    config = ModelConfig(vocab_size=32, hidden_size=8, num_hidden_layers=2, intermediate_size=16)
    model = LanguageModel(config).double()
    texts = [np.array([0, 5, 6, 7, 0], np.int32), np.array([0, 9, 10, 0], np.int32)]
    inputs, targets, keep = data.pack_rows(texts, 32, np.random.default_rng(SEED))
    assert len(inputs) == 1 and (targets >= 0).sum() == 7
    together = model(torch.from_numpy(inputs), torch.from_numpy(keep))[targets[0] >= 0]
    first = 0 if targets[0][0] == 5 else 1
    alone = torch.cat([model(torch.from_numpy(t[None, :-1]), torch.arange(len(t) - 1)[None] > 0)
                       for t in (texts[first], texts[1 - first])])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_resumed_run_equals_an_uninterrupted_one(text, tmp_path, dropout):
    config = dataclasses.replace(CONFIG, dropout=dropout)
    whole = Trainer(config, text, tmp_path / "whole")
    records = list(whole.run())
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    for _, record in zip(range(5), Trainer(config, text, tmp_path / "parts").run(), strict=False):
        assert record["loss"] == records[record["step"] - 1]["loss"]
    # The process ended after step 5; the state is that of step 3, so steps 4 and 5 are made again.
    resumed = Trainer(config, text, tmp_path / "parts")
    assert resumed.step == 3
    again = list(resumed.run())
    assert [r["step"] for r in again] == [4, 5, 6]
    assert [r["loss"] for r in again] == [r["loss"] for r in records[3:]]
    assert again[-1]["bits_per_byte"] == records[-1]["bits_per_byte"]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert [r["step"] for r in read_log(tmp_path / "parts")] == [1, 2, 3, 4, 5, 6]


def test_state_saved_between_steps_goes_on_there(text, tmp_path):
    records = list(Trainer(CONFIG, text, tmp_path / "whole").run())
    trainer = Trainer(CONFIG, text, tmp_path / "parts")
    run = trainer.run()
    next(run), next(run)
    trainer.save_state()
    run.close()
    rest = list(Trainer(CONFIG, text, tmp_path / "parts").run())
    assert [r["loss"] for r in rest] == [r["loss"] for r in records[2:]]
    assert list(Trainer(CONFIG, text, tmp_path / "parts").run()) == []  # nothing left to do


def test_best_checkpoint_is_chosen_on_the_held_out_stories(text, tmp_path, monkeypatch):
    trainer = Trainer(dataclasses.replace(CONFIG, evaluate_every=1), text, tmp_path)
    scores = iter([3.0, 1.0, 2.0, 1.5, 4.0, 1.25])
    monkeypatch.setattr(trainer, "evaluate", lambda: next(scores))
    after_second = None
    for record in trainer.run():
        if record["step"] == 2:
            after_second = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    assert trainer.best == 1.0
    for name, value in load_checkpoint(tmp_path / "best").state_dict().items():
        assert torch.equal(value, after_second[name].bfloat16().float()), name


@pytest.mark.parametrize("row_tokens", [128, 20])  # whole stories, and stories that are cut
def test_bits_per_byte_of_a_model_that_knows_nothing(text, tmp_path, row_tokens):
    trainer = Trainer(dataclasses.replace(CONFIG, row_tokens=row_tokens), text, tmp_path)
    with torch.no_grad():
        trainer.model.lm_head.norm.weight.zero_()  # all logits equal: log2(264) bits for each token
    scored = [ids[1:row_tokens + 1] for ids in data.encode(trainer.tokenizer, data.read_stories(text)[-4:])]
    tokens = sum(len(ids) for ids in scored)
    size = sum(len(trainer.tokenizer.decode(ids.tolist()).encode()) for ids in scored)
    assert trainer.evaluate() == pytest.approx(tokens * np.log2(264) / size, rel=1e-5)


def test_dropout_acts_in_training_only(text, tmp_path):
    trainer = Trainer(dataclasses.replace(CONFIG, dropout=0.5), text, tmp_path)
    ids, keep = torch.zeros(1, 8, dtype=torch.long), torch.ones(1, 8, dtype=torch.bool)
    assert not torch.equal(trainer.model(ids, keep), trainer.model(ids, keep))
    assert trainer.evaluate() == trainer.evaluate()
    assert trainer.model.training
    plain = LanguageModel(trainer.model.config)
    plain.load_state_dict(trainer.model.state_dict())
    torch.testing.assert_close(plain(ids, keep), trainer.model.eval()(ids, keep))


def test_weight_decay_shrinks_matrices_only(text, tmp_path):
    trainer = Trainer(dataclasses.replace(CONFIG, weight_decay=0.5), text, tmp_path)
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    for p in trainer.model.parameters():
        p.grad = torch.zeros_like(p)
    trainer.optimiser.step()
    for name, p in trainer.model.named_parameters():
        matrix = name.endswith(("_proj.weight", "lm_head.weight", "embeddings.weight"))
        torch.testing.assert_close(p.detach(), before[name] * (0.995 if matrix else 1))


def test_device_is_picked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == pick_device("cpu").type == "cpu"
    with pytest.raises(TrainError, match="device cuda: PyTorch .* finds no such GPU here: use cpu"):
        pick_device("cuda")
    for name in ("gpu", "mps", "", "cuda:x"):
        with pytest.raises(TrainError, match="use auto, cpu or cuda"):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(TrainError, match="no such GPU"):
        pick_device("cuda:1")


def test_state_of_the_fused_optimiser_goes_on_on_the_cpu(text, tmp_path):
    """A run that began on a GPU keeps the fused optimiser there; its state has to serve the CPU too."""
    trainer = Trainer(CONFIG, text, tmp_path)
    trainer.optimiser = torch.optim.AdamW(trainer._groups(), lr=CONFIG.learning_rate, betas=(0.9, 0.98), fused=True)
    run = trainer.run()
    next(run), next(run)
    trainer.save_state()
    run.close()
    assert [r["step"] for r in Trainer(CONFIG, text, tmp_path).run()] == [3, 4, 5, 6]


@pytest.mark.parametrize("path", sorted(Path(layers.__file__).parent.glob("configs/*.toml")), ids=lambda p: p.stem)
def test_shipped_configurations_are_whole(path):
    config = TrainConfig.load(path)
    assert config.text_path(path).suffix == ".xz" and config.steps + config.minutes > 0


def test_held_out_stories_are_not_trained_on(text, tmp_path):
    trainer = Trainer(CONFIG, text, tmp_path)
    assert len(trainer.train_ids) == 36


def test_plot_is_a_png(tmp_path):
    records = [{"step": k, "loss": 6 / k} | ({"bits_per_byte": 2.0} if k % 4 == 0 else {}) for k in range(1, 13)]
    plot_log(records, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [p.name for p in tmp_path.iterdir()] == ["loss.png"]
    with pytest.raises(ValueError, match="empty"):
        plot_log([], tmp_path / "none.png")


def test_cut_log_line_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + '\n{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1, "loss": 2.0}]


def write_config(path, **changes):
    values = dataclasses.asdict(CONFIG) | changes
    path.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items() if v is not None))
    return path


@pytest.mark.parametrize("changes, message", [
    ({"steps": 0}, "give one of them"),
    ({"products": "int4"}, "products 'int4': use int8, bf16 or fp32"),
    ({"rows": 0}, "rows 0: use 1 to 1048576"),
    ({"dropout": 1.0}, "dropout 1.0: use 0 to 0.9"),
    ({"rows": "two"}, "rows = 'two' must be of type int"),
    ({"hidden": 16}, "unknown entry 'hidden', perhaps 'hidden_size'; the entries are text, .*, minutes .docs/tr"),
    ({"zzz": 16}, "unknown entry 'zzz'; the entries"),
    ({"seed": None}, "the entry 'seed' is missing"),
    ({"intermediate_size": None}, "the entry 'intermediate_size' is missing"),
    ({"vocab_size": 100}, "vocab_size 100: at least 257"),
    ({"products": "int8", "hidden_size": 20}, "multiples of 8"),
])
def test_configuration_errors(tmp_path, changes, message):
    with pytest.raises(TrainError, match=message):
        TrainConfig.load(write_config(tmp_path / "c.toml", **changes))


def test_configuration_that_is_no_file_or_no_toml(tmp_path):
    with pytest.raises(TrainError, match="cannot read the configuration"):
        TrainConfig.load(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("rows = = 2")
    with pytest.raises(TrainError, match="cannot read the configuration"):
        TrainConfig.load(tmp_path / "bad.toml")


def test_text_is_found_beside_the_configuration_or_above(text, tmp_path):
    path = write_config(tmp_path / "c.toml")
    config = TrainConfig.load(path)
    assert config == CONFIG and config.text_path(path) == text
    (tmp_path / "configs").mkdir()
    assert config.text_path(tmp_path / "configs" / "c.toml") == text
    with pytest.raises(TrainError, match="no text 'absent.txt'"):
        dataclasses.replace(CONFIG, text="absent.txt").text_path(path)


@pytest.mark.parametrize("changes, message", [
    ({"holdout_stories": 40}, "holds 40 stories and holdout_stories is 40"),
    ({"vocab_size": 3000}, "lower vocab_size"),
    ({"rows": 1000}, "lower rows"),
])
def test_text_that_is_too_small(text, tmp_path, changes, message):
    with pytest.raises(TrainError, match=message):
        list(Trainer(dataclasses.replace(CONFIG, **changes), text, tmp_path / "out").run())


def test_text_without_marks_is_one_story(text, tmp_path):
    text.write_text("The cat saw the dog. " * 200)
    with pytest.raises(TrainError, match="holds 1 story .* a line with .* separates stories"):
        Trainer(CONFIG, text, tmp_path / "out")


def test_resuming_with_another_shape_is_refused(text, tmp_path):
    Trainer(CONFIG, text, tmp_path).save_state()
    with pytest.raises(TrainError, match="was trained with dropout 0.0, not 0.5"):
        Trainer(dataclasses.replace(CONFIG, dropout=0.5), text, tmp_path)
    with pytest.raises(TrainError, match="was trained with hidden_size 16, not 24"):
        Trainer(dataclasses.replace(CONFIG, hidden_size=24), text, tmp_path)
    (tmp_path / "state.pt").write_bytes(b"damaged")
    with pytest.raises(TrainError, match="cannot resume from"):
        Trainer(CONFIG, text, tmp_path)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def patched(trainer, step, change):
    """The trainer, with ``change`` applied to the loss of a step before its gradients are taken."""
    real = trainer.loss

    def loss(*arguments, **options):
        value = real(*arguments, **options)
        return change(value) if trainer.step == step - 1 else value
    trainer.loss = loss
    return trainer


def interrupt(value):
    raise KeyboardInterrupt


def huge_gradient(value):
    value.register_hook(lambda gradient: gradient * math.inf)
    return value


@pytest.mark.parametrize("change, what", [(lambda loss: loss * math.nan, "loss of step 5 is nan"),
                                          (lambda loss: loss + math.inf, "loss of step 5 is inf"),
                                          (huge_gradient, "gradient of step 5 is (nan|inf)")])
def test_run_stops_before_the_step_that_is_not_finite(text, tmp_path, change, what):
    trainer, after = patched(Trainer(CONFIG, text, tmp_path / "out"), 5, change), {}
    with pytest.raises(DivergedError, match=f"the {what}, and .*out keeps the state behind step 3: lower"):
        for record in trainer.run():
            after[record["step"]] = weights(trainer)
    assert list(after) == [1, 2, 3, 4] and equal(weights(trainer), after[4])
    assert [r["step"] for r in read_log(tmp_path / "out")] == [1, 2, 3, 4]
    resumed = Trainer(CONFIG, text, tmp_path / "out")
    assert resumed.step == 3 and equal(weights(resumed), after[3])
    assert load_checkpoint(tmp_path / "out" / "best")


def test_evaluation_that_is_not_finite_saves_nothing(text, tmp_path, monkeypatch):
    trainer = Trainer(CONFIG, text, tmp_path / "out")
    monkeypatch.setattr(trainer, "evaluate", lambda: math.nan)
    with pytest.raises(DivergedError, match="the bits per byte of step 3 is nan, and no state was saved yet"):
        list(trainer.run())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["log.jsonl"]
    assert [r["step"] for r in Trainer(CONFIG, text, tmp_path / "out").run()] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in read_log(tmp_path / "out")] == [1, 2, 3, 4, 5, 6]  # not behind those of the other run


def test_interrupt_within_a_step_leaves_the_last_whole_one(text, tmp_path):
    records = list(Trainer(CONFIG, text, tmp_path / "whole").run())
    trainer = patched(Trainer(CONFIG, text, tmp_path / "parts"), 5, interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(trainer.run())
    trainer.save_state()
    resumed = Trainer(CONFIG, text, tmp_path / "parts")
    assert resumed.step == 4 and list(resumed.run()) == [same(r) for r in records[4:]]
    assert [same(r) for r in read_log(tmp_path / "parts")] == [same(r) for r in read_log(tmp_path / "whole")]


class same(dict):  # noqa: N801
    """A record that equals another one but for the time that it took."""

    def __eq__(self, other):
        return all(self.get(k) == other.get(k) for k in self.keys() | other.keys() if k != "seconds")

    __hash__ = None


def test_interrupt_within_the_update_waits_for_its_end(text, tmp_path):
    records = list(Trainer(CONFIG, text, tmp_path / "whole").run())
    trainer = Trainer(CONFIG, text, tmp_path / "parts")
    update, steps = trainer.optimiser.step, []

    def interrupted():
        steps.append(trainer.step)
        if trainer.step == 4:
            signal.raise_signal(signal.SIGINT)
        update()
    trainer.optimiser.step = interrupted
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        trainer.held = interrupts.held
        list(trainer.run())
    assert steps == [0, 1, 2, 3, 4] and trainer.step == 5
    trainer.save_state()
    resumed = Trainer(CONFIG, text, tmp_path / "parts")
    assert list(resumed.run()) == [same(r) for r in records[5:]]
    assert [same(r) for r in read_log(tmp_path / "parts")] == [same(r) for r in read_log(tmp_path / "whole")]


@pytest.mark.parametrize("step", [3, 6])
def test_interrupted_evaluation_is_made_up_for(text, tmp_path, monkeypatch, step):
    records = list(Trainer(CONFIG, text, tmp_path / "whole").run())
    trainer = Trainer(CONFIG, text, tmp_path / "parts")
    evaluate = trainer.evaluate
    monkeypatch.setattr(trainer, "evaluate", lambda: interrupt(0) if trainer.step == step else evaluate())
    with pytest.raises(KeyboardInterrupt):
        list(trainer.run())
    trainer.save_state()
    resumed = Trainer(CONFIG, text, tmp_path / "parts")
    assert list(resumed.run()) == [same(r) for r in records[step - 1:]]
    assert [same(r) for r in read_log(tmp_path / "parts")] == [same(r) for r in read_log(tmp_path / "whole")]
    assert (tmp_path / "parts" / "best" / "model.safetensors").read_bytes() == \
        (tmp_path / "whole" / "best" / "model.safetensors").read_bytes()


def test_resuming_with_another_text_is_refused(text, tmp_path):
    Trainer(CONFIG, text, tmp_path / "out").save_state()
    packed = tmp_path / "packed.xz"
    packed.write_bytes(lzma.compress(text.read_bytes()))
    Trainer(CONFIG, packed, tmp_path / "out")  # the same stories
    other = tmp_path / "other.txt"
    other.write_text(text.read_text().replace("cat", "cow", 1))
    with pytest.raises(TrainError, match=f"out was trained on another text than {other}: give that text or use"):
        Trainer(CONFIG, other, tmp_path / "out")


def test_model_without_a_state_is_not_overwritten(text, tmp_path):
    list(Trainer(CONFIG, text, tmp_path / "out").run())
    (tmp_path / "out" / "state.pt").unlink()
    with pytest.raises(TrainError, match="holds a model in best/ but no state.pt"):
        Trainer(CONFIG, text, tmp_path / "out")


@pytest.mark.parametrize("changes, change", [
    ({"holdout_stories": 40}, None), ({"vocab_size": 3000}, None), ({"rows": 1000}, None),
    ({}, lambda loss: loss * math.nan), ({}, interrupt),
], ids=["stories", "tokens", "rows", "diverged", "interrupted"])
def test_run_without_a_step_leaves_no_folder(text, tmp_path, changes, change):
    with pytest.raises((TrainError, KeyboardInterrupt)):
        trainer = Trainer(dataclasses.replace(CONFIG, **changes), text, tmp_path / "out")
        list(patched(trainer, 1, change).run())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size, missing, left", [
    (10, "log.jsonl", []), (1000, "best/tokenizer.json", ["log.jsonl"]), (60_000, "state.pt", ["best", "log.jsonl"])])
def test_full_disk_is_said_and_leaves_nothing_half_written(text, tmp_path, size, missing, left):
    trainer = Trainer(CONFIG, text, tmp_path / "out")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(TrainError, match=f"cannot write {tmp_path}/out/{missing}: File too large$"):
            list(trainer.run())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == left if left else not (tmp_path / "out").exists()


def test_plot_leaves_out_what_is_not_finite(tmp_path):
    records = [{"step": k, "loss": [6 / k, math.nan, math.inf][k % 3], "bits_per_byte": [2.0, math.nan][k % 2]}
               for k in range(1, 13)]
    plot_log([*records, {"step": 13}], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert drawable(records) == [{"step": k, "loss": 6 / k} | ({} if k % 2 else {"bits_per_byte": 2.0})
                                 for k in (3, 6, 9, 12)]
    with pytest.raises(ValueError, match="empty"):
        plot_log([{"step": 1, "loss": math.nan}], tmp_path / "none.png")


NUMBERS = {name for name in OPTIONAL if name in LIMITS}  # that have a default


def test_page_names_every_entry():
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()
    rows = [re.split(r" *(?<!\\)\| *", row)[1:-1] for row in re.findall(r"(?m)^\| `.*$", page)]
    fields = dataclasses.fields(TrainConfig)
    assert [row[0].strip("`") for row in rows] == [field.name for field in fields]
    for (name, kind, allowed, default, what), field in zip(rows, fields, strict=True):
        assert kind == field.type.__name__ and what
        assert default == (f"{field.default:g}" if field.name in NUMBERS else "" if field.name not in OPTIONAL
                           else field.default), name
        low, high = LIMITS.get(field.name, (None, None))
        if field.name in ("vocab_size", "learning_rate"):  # these begin elsewhere
            low = {"vocab_size": 257, "learning_rate": "above 0,"}[field.name]
        assert low is None or allowed == f"{low} to {high}", name
