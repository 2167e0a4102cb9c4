"""The command line in this process: text, statistics, flags, images, evaluation, training."""

import dataclasses
import json
import lzma
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_model import DEVICE, GEOMETRY, SLOTS, GoldenDevice, served, write_folder
from sterna.host.model.model import Model
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.sampling import Sampling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "stories.txt"
    path.write_text("A cat sat.\n<|endoftext|>\nThe dog ran home.\n<|endoftext|>\nOne day.\n")
    return path


def text_of(model, prompt, n, sampling):
    """What generate must print behind the prompt, without an end of text."""
    ids = list(GoldenRuntime(model).generate(model.vocabulary.encode(prompt), n, sampling))
    if 0 in ids:
        ids = ids[:ids.index(0)]
    return b"".join(model.vocabulary.token_bytes(k) for k in ids).decode(errors="replace")


def test_text_on_stdout_and_the_rest_on_stderr(sterna, folder):
    code, out, err = sterna("generate", "-m", folder, "-p", "One day", "--temp", 0, "-n", 12, "--device", "golden")
    assert code == 0 and out == "One day" + text_of(Model(folder), "One day", 12, Sampling()) + "\n"
    assert re.search(r"prompt: +7 tokens in .* tokens/s", err) and re.search(r"generation: +\d+ tokens? in", err)
    assert "\x1b" not in out + err


def test_seed_gives_the_text_again_and_a_random_one_is_printed(sterna, folder):
    flags = ("generate", "-m", folder, "-p", "One", "-n", 20, "--device", "golden", "--ignore-eos",
             "--no-display-prompt")
    code, out, err = sterna(*flags, "-q")
    seed = int(re.fullmatch(r"seed: (\d+)\n", err)[1])
    assert sterna(*flags, "-q", "-s", seed) == (0, out, "")
    assert sterna(*flags, "-q", "-s", (seed + 1) % 2**32)[1] != out


def test_port_gives_the_text_of_golden(sterna, folder):
    flags = ("generate", "-m", folder, "-p", "Once upon a time", "-n", 25, "-s", 5, "--temp", 0.7)
    code, wanted, _ = sterna(*flags, "--device", "golden")
    with served(GoldenDevice(Model(folder).packed)) as url:
        code, out, err = sterna(*flags, "--device", url)
        assert (code, out) == (0, wanted)
        assert "2500 per token; 32000.0 tokens/s device time at 80 MHz" in err
        code, out, err = sterna(*flags, "--device", url, "--json")  # the device serves the next run
        assert (code, out) == (0, wanted) and json.loads(err.splitlines()[-1])["cycles_per_token"] == 2500


PROMPTS = ("One day", "x", "Once upon a time there was", "A cat", "zz", "The dog ran")


@pytest.mark.parametrize("flags", [("--no-display-prompt", "--stop", "e"), *(
    pytest.param(flags, marks=pytest.mark.rest) for flags in ((), ("-c", 14)))])
@pytest.mark.parametrize("info", [None, pytest.param(DEVICE, marks=pytest.mark.rest), SLOTS],
                         ids=["golden", "device", "slots"])
def test_several_prompts_give_the_texts_of_each(sterna, folder, tmp_path, flags, info):
    flags = ("generate", "-m", folder, "-n", 20, "-s", 5, "--temp", 0.7, *flags)
    prompts = PROMPTS if flags[-2] != "-c" else [p for p in PROMPTS if len(p) < 14]
    wanted = "\n".join(sterna(*flags, "--device", "golden", "-p", prompt)[1] for prompt in prompts)
    several = [part for prompt in prompts for part in ("-p", prompt)]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n\n")
    if info is None:
        assert sterna(*flags, *several, "--device", "golden")[:2] == (0, wanted)
        assert sterna(*flags, "--prompts", tmp_path / "prompts.txt", "--device", "golden")[:2] == (0, wanted)
        return
    device = GoldenDevice(Model(folder).packed, info)
    with served(device) as url:
        code, out, err = sterna(*flags, *several, "--device", url)
    assert (code, out) == (0, wanted)
    assert (f"together:   {len(prompts)} texts in 4 slots" in err) == (info is SLOTS)
    assert (max(device.reads_per_run) > 1) == (info is SLOTS), device.reads_per_run


def test_drafts_do_not_change_the_text(sterna, folder):
    flags = ("generate", "-m", folder, "-p", "abcabcabc", "-n", 40, "--temp", 0, "--ignore-eos")
    wanted = sterna(*flags, "--device", "golden")[1]
    with served(GoldenDevice(Model(folder).packed, SLOTS)) as url:
        code, out, err = sterna(*flags, "--device", url, "--draft", 3)
        assert (code, out) == (0, wanted) and re.search(
            r"slots: +[1-4]\.\d\d tokens per run of the program, gen", err)
        code, out, err = sterna(*flags, "-p", "One", "--device", url, "--draft", 3)  # one after the other
        assert (code, out) == (0, wanted + "\n" + sterna("generate", "-m", folder, "-p", "One", *flags[5:],
                                                         "--device", "golden")[1])


def test_state_of_a_text_moves_out_of_the_slots(sterna, folder, tmp_path):
    flags = ("generate", "-m", folder, "-s", 9, "--ignore-eos", "-q", "--no-display-prompt")
    whole = sterna(*flags, "-p", "One day", "-n", 20, "--device", "golden")[1][:-1]
    with served(GoldenDevice(Model(folder).packed, SLOTS)) as url:
        first = sterna(*flags, "-p", "One day", "-n", 10, "--save-state", tmp_path / "s", "--device", url)[1][:-1]
    rest = sterna(*flags, "-n", 10, "--load-state", tmp_path / "s", "--device", "golden")[1][:-1]
    assert (first + rest).replace("\ufffd", "") == whole.replace("\ufffd", "")


@pytest.mark.parametrize("flags, message", [
    (("--draft", "1"), "--draft 1: the golden model makes one token at a time: use 0, or a device with slots"),
    (("--draft", "-1"), "--draft -1: use 0"),
    (("--draft", "1", "--device", "sim"), "--draft 1: this build has one slot: use 0, or a device with slots"),
    (("--draft", "4", "--device", "sim:sim,batch=4"), "--draft 4: this build has 4 slots: use 0 to 3\n"),
    (("--device", "sim:sim,batch=3"), "batch 3: use one of 1, 2, 4, 8"),
    (("--device", "sim:sim,batch"), "'batch' changes nothing: use PARAMETER=NUMBER"),
    (("--top-k", "65"), "--top-k 65: the list of this build has 64 tokens"),
    (("--top-k", "40", "--device", "sim:sim,top_k=0"), "--top-k 40: this build has no list of the best tokens"),
    (("--top-p", "0.9", "--device", "sim:sim,top_k=0"), "--top-p 0.9: this build has no list of the best tokens"),
    (("--top-k", "17", "--device", "sim:sim,top_k=16"),
     "--top-k 17: the list of this build has 16 tokens: use 1 to 16"),
    (("--top-k", "-1"), "--top-k -1: use 0 (off)"), (("--top-p", "0"), "--top-p 0: use more than 0"),
    (("--top-p", "nan"), "--top-p nan: use more than 0"), (("--top-p", "1.5"), "--top-p 1.5: use more than 0"),
    (("--repeat-penalty", "1.1"), "--repeat-penalty 1.1: no device keeps count of what it has made"),
    (("-p", "y", "--save-state", "s"), "--save-state is for one text: give one prompt, not 2"),
    (("-p", "y", "--load-state", "s"), "--load-state is for one text"),
    (("-p", ""), "the prompt is empty"), (("--prompts", "-"), "both -p and --prompts give a prompt"),
])
def test_refusals_are_one_line_before_anything_runs(sterna, folder, flags, message):
    code, out, err = sterna("generate", "-m", folder, "-p", "x", "--device", "golden", *flags)
    assert code and out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_refusals_of_a_port_come_before_the_upload(sterna, folder):
    device = GoldenDevice(Model(folder).packed, SLOTS)
    with served(device) as url:
        for flags, message in ((("--top-k", "40"), "--top-k 40: the list of this build has 16 tokens: use 1 to 16"),
                               (("--draft", "4"), "--draft 4: this build has 4 slots: use 0 to 3")):
            code, out, err = sterna("generate", "-m", folder, "-p", "x", "--device", url, *flags)
            assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    assert not device.writes


def test_prompts_file_without_prompts(sterna, folder, tmp_path):
    (tmp_path / "p").write_text(" \n\n")
    code, _, err = sterna("generate", "-m", folder, "--prompts", tmp_path / "p", "--device", "golden")
    assert code == 1 and "holds no prompt: give one per line" in err


def test_ctrl_c_in_several_texts(sterna, folder, monkeypatch):
    import signal
    make, made = GoldenRuntime._make, []

    def slow(self, *arguments):
        for token in make(self, *arguments):
            made.append(token)
            if len(made) == 25:
                signal.raise_signal(signal.SIGINT)
            yield token

    monkeypatch.setattr(GoldenRuntime, "_make", slow)
    code, out, err = sterna("generate", "-m", folder, "-p", "x", "-p", "y", "-p", "z", "-n", 20, "--ignore-eos",
                            "--device", "golden", "-s", 1)
    assert code == 130 and len(made) == 25 and out.endswith("\n\nz\n") and "generation: 25 tokens" in err


def test_stop_string_is_not_printed(sterna, folder):
    flags = ("generate", "-m", folder, "-p", "x", "-n", 60, "-s", 3, "--device", "golden", "--ignore-eos", "-q",
             "--no-display-prompt")
    whole = sterna(*flags)[1][:-1]
    stop = next(whole[k:k + 2] for k in range(5, 50) if whole[k:k + 2].isascii() and whole.find(whole[k:k + 2]) == k)
    code, out, _ = sterna(*flags, "--stop", "never there", "--stop", stop)
    assert (code, out) == (0, whole[:whole.find(stop)] + "\n")


def test_end_of_text_is_honoured_and_not_printed(sterna, folder, monkeypatch):
    monkeypatch.setattr(GoldenRuntime, "_make", lambda *_: (k for k in (33, 34, 0)))
    code, out, _ = sterna("generate", "-m", folder, "-p", "x", "--device", "golden", "-q")
    assert (code, out) == (0, "x" + "AB" + "\n")


@pytest.mark.parametrize("stop", [(), ("--stop", "\ufffd")])
def test_saved_state_goes_on(sterna, folder, tmp_path, stop):
    flags = ("generate", "-m", folder, "-s", 9, "--device", "golden", "--ignore-eos", "-q", "--no-display-prompt")
    whole = sterna(*flags, "-p", "One day", "-n", 30)[1][:-1]
    first = sterna(*flags, "-p", "One day", "-n", 10, "--save-state", tmp_path / "s", *stop)[1][:-1]
    with served(GoldenDevice(Model(folder).packed)) as url:
        rest = sterna(*flags, "-n", 20, "--load-state", tmp_path / "s", "--device", url)[1][:-1]
    if stop:
        assert whole.startswith(first) and "\ufffd" not in first
    else:
        # Each part turns bytes that are no whole character at its end into one replacement character.
        assert (first + rest).replace("\ufffd", "") == whole.replace("\ufffd", "")


def test_context_limits_the_whole_text(sterna, folder):
    flags = ("generate", "-m", folder, "-p", "abc", "--device", "golden", "--ignore-eos", "--json", "-s", 1)
    assert json.loads(sterna(*flags, "-c", 9)[2])["tokens"] == 5  # the start mark and abc are four
    code, _, err = sterna(*flags, "-c", 3)
    assert code == 1 and "the text has 4 tokens already, more than --ctx-size 3" in err


def test_prompt_from_a_file(sterna, folder, tmp_path):
    (tmp_path / "prompt.txt").write_text("h\u00e9\n")
    code, out, _ = sterna("generate", "-m", folder, "-f", tmp_path / "prompt.txt", "-n", 0, "--device", "golden")
    assert (code, out) == (0, "h\u00e9\n\n")


def test_prompt_without_end(sterna, folder, tmp_path):
    code, out, err = sterna("generate", "-m", folder, "-f", "/dev/zero", "-n", 0, "--device", "golden")
    assert (code, out) == (1, "") and "/dev/zero has more than 4,194,304 bytes" in err


@pytest.mark.parametrize("name, data, message", [
    ("s.txt.xz", b"\xfd7zXZ\0 no", "is no whole xz file"),
    ("s.txt.xz", lzma.compress(b"A cat.")[:-9], "is no whole xz"),
    ("s.txt", b"caf\xe9", "is not UTF-8 (byte 3)"), ("s.txt", None, "Is a directory"),
    ("s.txt", b"\n", "holds no text")])
def test_texts_that_cannot_be_read(sterna, folder, tmp_path, name, data, message):
    (tmp_path / name).mkdir() if data is None else (tmp_path / name).write_bytes(data)
    code, out, err = sterna("eval", tmp_path / name, "-m", folder)
    assert (code, out, err.count("\n")) == (1, "", 1) and message in err and str(tmp_path / name) in err


def test_convert_inspect_generate(sterna, folder, tmp_path):
    image = tmp_path / "m.sterna"
    code, out, err = sterna("convert", folder, "-o", image, "--preset", "lanes40")
    assert (code, out) == (0, "") and "for lanes40" in err
    code, out, _ = sterna("inspect", image, "--json")
    found = json.loads(out)
    assert code == 0 and found["geometry"] == dataclasses.asdict(GEOMETRY) and found["tiling"]["columns"] == 20
    sections = {s["name"]: s["checksum"] for s in found["sections"]}
    assert sections == {"embedding": "ok", "stream": "ok", "tokenizer": "ok"}
    assert found["bytes"] == image.stat().st_size and found["ternary_weights"] == 34880
    code, out, _ = sterna("inspect", image)
    assert code == 0 and "34,880 ternary weights" in " ".join(out.split()) and "tokenizer" in out
    flags = ("-p", "One", "-n", 8, "-s", 4, "--device", "golden")
    assert sterna("generate", "-m", image, *flags)[1] == sterna("generate", "-m", folder, *flags)[1]


def test_upload_verifies(sterna, folder):
    device = GoldenDevice(Model(folder).packed)
    with served(device) as url:
        code, _, err = sterna("upload", "-m", folder, "--device", url, "--verify")
        assert code == 0 and "verified: every block is as in the image" in err and device.program
    code, _, err = sterna("upload", "-m", folder, "--device", "golden")
    assert code == 2 and "keeps no model between commands" in err


def test_evaluation_of_devices(sterna, folder, stories):
    found = {}
    for device in ("golden", "float"):
        code, out, _ = sterna("eval", stories, "-m", folder, "--device", device, "--json")
        assert code == 0
        (found[device],) = json.loads(out)
    golden = found["golden"]
    assert (golden["stories"], golden["bytes"], golden["tokens"]) == (3, 35, 38)
    assert golden["perplexity"] == pytest.approx(np.exp(golden["bits_per_byte"] * np.log(2) * 35 / 38))
    assert golden["perplexity"] == pytest.approx(found["float"]["perplexity"], rel=0.1)
    with served(GoldenDevice(Model(folder).packed)) as url:
        code, out, err = sterna("eval", stories, "-m", folder, "--device", url, "--check", 6)
        assert code == 0 and "same best next token at 6 of 6 positions" in err
        assert f"{golden['perplexity']:.3f}" in out
    other = Model(write_folder(folder.parent / "other", variant=1))
    with served(GoldenDevice(other.packed)) as url:
        code, out, err = sterna("eval", stories, "-m", folder, "--device", url)
        assert code == 1 and out == "" and "differs from the golden model" in err
    code, out, _ = sterna("eval", stories, "-m", folder, "--stories", 1)
    assert code == 0 and " 10 " in out


@pytest.fixture(scope="module")
def ternary_folder(tmp_path_factory):
    """A checkpoint whose head is ternary already, two thirds of it zeros."""
    folder = write_folder(tmp_path_factory.mktemp("cli") / "ternary")
    tensors = load_file(folder / "model.safetensors")
    head = tensors["lm_head.weight"]
    large = np.abs(head) > np.quantile(np.abs(head), 0.67)
    tensors["lm_head.weight"] = np.where(large, np.sign(head) / 4, 0).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["folder", "ternary_folder"])
def test_torch_evaluation_equals_float(sterna, request, stories, kind):
    pytest.importorskip("torch")
    folder = request.getfixturevalue(kind)
    values = [json.loads(sterna("eval", stories, "-m", folder, "--device", d, "--json")[1])[0]["perplexity"]
              for d in ("float", "torch", "golden")]
    assert values[0] == pytest.approx(values[1], rel=0.02)
    assert values[0] == pytest.approx(values[2], rel=0.1)


def test_convert_says_what_is_ternary_already(sterna, folder, ternary_folder, tmp_path):
    code, _, err = sterna("convert", ternary_folder, "-o", tmp_path / "kept.sterna")
    assert code == 0 and "matrices that are ternary already, kept as they are: 1 of 13" in err
    assert "ternary already" not in sterna("convert", folder, "-o", tmp_path / "derived.sterna")[2]


def test_gate(sterna, folder, stories):
    code, out, _ = sterna("gate", folder, "--text", stories, "--json")
    found = json.loads(out)
    assert found["tokens"] == 38 and code == (0 if found["passed"] else 1)
    code, out, _ = sterna("gate", folder, "--text", stories)
    assert "perplexity_change" in out and "L0 perplexity" in out


def test_devices_and_version(sterna):
    code, out, _ = sterna("devices")
    names = [line.split()[0] for line in out.splitlines()]
    assert code == 0 and {"golden", "sim", "sim:lanes40", "sim:up5k", "sim:kv260"} <= set(names)
    assert len(set(names)) == len(names), "a board that is a preset too is listed once"
    assert sterna("generate", "--list-devices")[1] == out and "sim:lanes40,batch=4,top_k=40" in out
    assert re.match(r"sterna \d+\.\d+\.\d+ \(protocol 8, isa 5, numerics 4, image 2\)\n", sterna("version")[1])


@pytest.mark.parametrize("command", ["generate", "bench", "devices", "upload", "inspect", "convert", "flash", "eval",
                                     "gate", "train", "version"])
def test_every_command_has_help(sterna, command):
    code, out, _ = sterna(command, "--help")
    assert code == 0 and f"sterna {command}" in out and "--verbose" in out and len(out.splitlines()) > 5


@pytest.mark.torch
def test_training_goes_on_where_it_was_interrupted(sterna, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from sterna.models import train
    from sterna.models.runlog import read_log
    stories = "\n<|endoftext|>\n".join(f"The {a} cat saw {b} dogs." for a in ("big", "red", "old") for b in range(8))
    (tmp_path / "stories.txt").write_text(stories)
    (tmp_path / "run.toml").write_text(
        'text = "stories.txt"\nholdout_stories = 4\nvocab_size = 264\nhidden_size = 16\nintermediate_size = 24\n'
        'num_hidden_layers = 1\nrow_tokens = 32\nrows = 2\nlearning_rate = 0.01\nweight_decay = 0\n'
        'products = "fp32"\n'
        "seed = 1\nevaluate_every = 3\nsteps = 6\n")
    flags = ("train", tmp_path / "run.toml", "--no-compile", "--out")
    code, _, err = sterna(*flags, tmp_path / "whole")
    assert code == 0 and "bits per byte on held-out stories" in err
    told = ["reading ", "training a tokenizer of 264 tokens", " parameters, ", "waiting for the first step",
            "step 1, loss", "step 3, loss"]
    assert sorted(told, key=err.index) == told  # all of them, and in this order
    assert (tmp_path / "whole" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    run = train.Trainer.run

    def interrupted(trainer):
        import signal
        for record in run(trainer):
            if record["step"] == 4:
                signal.raise_signal(signal.SIGINT)
            yield record

    monkeypatch.setattr(train.Trainer, "run", interrupted)
    code, _, err = sterna(*flags, tmp_path / "parts")
    assert code == 130 and "stopped behind step 4" in err
    monkeypatch.setattr(train.Trainer, "run", run)
    code, _, err = sterna(*flags, tmp_path / "parts")
    assert code == 0 and "going on behind step 4" in err
    losses = [[r["loss"] for r in read_log(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    code, out, err = sterna("generate", "-m", tmp_path / "parts" / "best", "-p", "The", "-n", 5, "--device", "golden")
    assert code == 0 and out.startswith("The")


def test_memory_that_differs_is_named(sterna, folder):
    info = dataclasses.replace(DEVICE, memory_bytes=8192)
    with served(GoldenDevice(Model(folder).packed, info)) as url:
        code, out, err = sterna("generate", "-m", folder, "-p", "x", "--device", url)
    assert (code, out) == (1, "") and re.search(r"error: .*needs \d+ bytes and the device has 8192", err)
