"""Made-up checkpoints: their layout, numbers and tokenizer, and what is refused."""

import errno
import functools
import json
import shutil
import sys
import tracemalloc

import numpy as np
import pytest
import tokenizers

from sterna.host.model.model import Model
from sterna.models.synthetic import checkpoint, statistics, tensorwriter, vocabulary
from sterna.models.synthetic.__main__ import main
from sterna.models.synthetic.checkpoint import SIZES, SyntheticError, geometry_of, make_checkpoint
from sterna.models.synthetic.statistics import Statistics, quantiles
from sterna.sim.golden.gate import log_softmax
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import Geometry, load_checkpoint, lower_bounds, pack_checkpoint, ternarise
from sterna.sim.golden.progress import moving

TINY = Geometry(96, 160, 6, 1200)
TEXTS = ["", " ", "Once upon a time", "  two  spaces ", "Zürich, 27 °C: \u65e5\u672c\u8a9e \U0001f600\u200d",
         "a\tb\r\n\n\x00c", "2026", "<0x41>x"]


@pytest.fixture(scope="module", autouse=True)
def stories():
    """The stories, read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "read_stories", functools.cache(vocabulary.read_stories))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small checkpoint in one file."""
    path = tmp_path_factory.mktemp("made") / "tiny"
    assert make_checkpoint(TINY, path, seed=3) == checkpoint.weight_bytes(TINY)
    return path


@pytest.fixture(scope="module")
def tensors(folder):
    geometry, tensors = load_checkpoint(folder)
    assert geometry == TINY
    return {name: tensors[name] for name in geometry.shapes()}


def command(capsys, *arguments):
    """(exit status, standard output, standard error) of the command."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return end.value.code, out, err


def test_published_sizes():
    assert [g.ternary_weights for g in SIZES.values()] == [341_049_344, 1_298_661_376, 2_619_473_920]
    assert geometry_of("1.3B") is SIZES["1.3b"]
    for geometry in (*SIZES.values(), TINY):
        assert checkpoint.weight_bytes(geometry) == sum(tensorwriter.size_bytes(s) for _, s in geometry.tensors())


def test_layout(folder, tensors):
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json",
                                                        "tokenizer_config.json"]
    assert {name: t.shape for name, t in tensors.items()} == TINY.shapes()
    with (folder / "model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    assert length % 8 == 0 and header.pop("__metadata__") == {"format": "pt"}
    assert {entry["dtype"] for entry in header.values()} == {"BF16"} and list(header) == sorted(TINY.shapes())
    published = json.loads((folder / "config.json").read_text())
    assert published["model_type"] == "hgrn_bit" and published["architectures"] == ["HGRNBitForCausalLM"]
    assert (published["bos_token_id"], published["eos_token_id"]) == (1, 2)


def test_the_library_of_the_format_reads_it(folder, tensors):
    from safetensors import safe_open
    with safe_open(folder / "model.safetensors", "np") as file:
        assert sorted(file.keys()) == sorted(tensors)
        assert all(tuple(file.get_slice(n).get_shape()) == t.shape for n, t in tensors.items())


@pytest.mark.parametrize("shards", [3, 95])
def test_shards_hold_the_same(tmp_path, tensors, shards):
    make_checkpoint(TINY, tmp_path / "made", shards, seed=3)
    files = sorted(p.name for p in (tmp_path / "made").glob("*.safetensors"))
    assert files == [f"model-{k + 1:05}-of-{shards:05}.safetensors" for k in range(shards)]
    index = json.loads((tmp_path / "made" / tensorwriter.INDEX).read_text())
    assert index["metadata"] == {"total_size": checkpoint.weight_bytes(TINY)}
    assert set(index["weight_map"].values()) == set(files)
    _, found = load_checkpoint(tmp_path / "made")
    assert all(np.array_equal(found[name], tensor) for name, tensor in tensors.items())


def test_shards_are_even():
    parts = tensorwriter.split(list(SIZES["2.7b"].tensors()), 4)
    assert [name for part in parts for name, _ in part] == list(SIZES["2.7b"].shapes())
    sizes = [sum(tensorwriter.size_bytes(s) for _, s in part) for part in parts]
    assert max(sizes) < 1.1 * min(sizes)


def test_seeds(tensors):
    def made(seed, name):
        return np.concatenate([b.ravel() for b in Statistics(TINY, seed).blocks(name, TINY.shapes()[name])])

    for name in ("model.norm.weight", "lm_head.weight", "model.lower_bounds"):
        same, other = made(3, name), made(4, name)
        assert np.array_equal(statistics.from_bfloat16(same), tensors[name].ravel())
        assert (same != other).mean() > 0.9
    first, second = (tensors[f"model.layers.{k}.attn.i_proj.weight"] for k in (0, 1))
    assert (np.sign(first) != np.sign(second)).mean() > 0.4


def test_blocks_have_few_rows_none_of_them_alike(monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK", 1000)
    whole = [*Statistics(TINY, 3).blocks("lm_head.weight", (1200, 96))]
    assert len(whole) == 120 and len(np.unique(np.concatenate(whole), axis=0)) == 1200


def test_quantiles():
    """Against the fourth moment of Student's t, 3 + 6 / (n - 4), less the tails that no quantile reaches."""
    for freedom in (8, 30):
        t = quantiles(freedom)
        assert len(t) == 65536 and (np.diff(t) > 0).all() and np.allclose(t, -t[::-1])
        assert np.abs(t).mean() == pytest.approx(1)
        kurtosis = (t**4).mean() / (t**2).mean()**2
        assert kurtosis == pytest.approx(3 + 6 / (freedom - 4), rel=0.02)


def test_zeros_and_tails(tensors):
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and name.startswith("model.layers"):
            trits, mean = ternarise(tensor)
            assert 0.29 < (trits == 0).mean() < 0.37, name
            assert abs((trits == 1).mean() - (trits == -1).mean()) < 0.03
            assert np.abs(tensor).max() > 6 * mean  # a Gaussian's largest of so many: 5 times at the most
    assert 0.3 < (ternarise(tensors["lm_head.weight"])[0] == 0).mean() < 0.45


def test_outliers(tensors):
    size = np.sort(np.abs(tensors["model.embeddings.weight"]).mean(0))
    assert size[-1] == pytest.approx(20 * np.median(size), rel=0.2) and size[-2] < 1.5 * np.median(size)
    channel = int(np.argmax(np.abs(tensors["model.embeddings.weight"]).mean(0)))
    assert abs(tensors["model.norm.weight"][channel]) < 0.2
    for layer in range(TINY.num_hidden_layers):
        for norm in ("attn_norm", "mlp_norm", "attn.o_proj.norm", "mlp.down_proj.norm"):
            weight = tensors[f"model.layers.{layer}.{norm}.weight"]
            large = np.flatnonzero(np.abs(weight) > 8 * np.median(weight))
            assert len(large) == 1 and (channel not in large or "proj" in norm)


def test_memories_grow_from_layer_to_layer(tensors):
    keep = np.median(1 - lower_bounds(tensors["model.lower_bounds"]), 1)
    assert keep[0] == 1 and (np.diff(keep) < 0).all() and keep[-1] < 0.3


def test_golden_speaks(folder):
    """States stay in bounds, logits are neither flat nor one token's, and greedy texts go on."""
    model = GoldenModel(pack_checkpoint(folder))
    tokens = np.arange(1, TINY.vocab_size, 150)
    state, seen = model.start(len(tokens)), []
    for _ in range(30):
        logits = model.logits(tokens, state)
        tokens = np.argmax(logits, -1)
        seen.append(tokens)
    assert np.abs(state).max() < 50
    logs = log_softmax(logits)
    entropy = -(np.exp(logs) * logs).sum(-1)
    assert 0.2 < np.median(entropy) < np.log(TINY.vocab_size) - 1
    assert np.median([len(set(text)) for text in np.transpose(seen)]) > 15


@pytest.mark.parametrize("size", [vocabulary.LEAST, 300, 1200])
def test_tokenizer(size):
    texts = vocabulary.make_tokenizer(size)
    tokenizer = tokenizers.Tokenizer.from_str(texts["tokenizer.json"])
    assert tokenizer.get_vocab_size() == size
    assert [tokenizer.id_to_token(k) for k in (0, 1, 2, 3, 258)] == ["<unk>", "<s>", "</s>", "<0x00>", "<0xFF>"]
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert ids[0] == 1 and 0 not in ids and tokenizer.decode(ids) == text
    assert json.loads(texts["tokenizer_config.json"])["bos_token"] == "<s>"


def test_tokenizer_is_the_same_each_time():
    assert vocabulary.make_tokenizer(700) == vocabulary.make_tokenizer(700)


def test_sterna_reads_the_tokenizer(folder):
    words = Model(folder).vocabulary
    for text in TEXTS:
        ids = words.encode(text)
        assert ids[0] == 1 and b"".join(map(words.token_bytes, ids[1:])).removeprefix(b" ").decode() == text
    assert (words.start, words.end, len(words)) == ([1], 2, TINY.vocab_size)


def test_stories_are_written_in_words():
    texts = ["the cat sat on the mat and the dog sat on the cat"] * 3
    tokenizer = tokenizers.Tokenizer.from_str(vocabulary.make_tokenizer(420, texts)["tokenizer.json"])
    assert tokenizer.encode("the cat sat").tokens == ["<s>", "\u2581the", "\u2581cat", "\u2581sat"]
    assert tokenizer.get_vocab_size() == 420  # filled: these words make no 65 merges


def test_fill():
    merges = vocabulary.fill(["\u2581", "a", "b"], [("a", "b")], 40)
    made = [first + second for first, second in merges]
    assert len({*made, "\u2581", "a", "b"}) == 40 and made[0] == "ab"
    known = {"\u2581", "a", "b"}
    for first, second in merges:
        assert {first, second} <= known and "\u2581" not in second
        known.add(first + second)
    with pytest.raises(vocabulary.VocabularyError, match="5 pieces cannot be made of 1 characters"):
        vocabulary.fill(["\u2581"], [], 5)


def test_command(tmp_path, capsys):
    status, out, err = command(capsys, "32,64,2,300", tmp_path / "deep" / "made", "--shards", "2", "--seed", "7")
    assert (status, out) == (0, f"{tmp_path / 'deep' / 'made'}\n")
    assert err.startswith(f"writing {tmp_path / 'deep' / 'made'}\n") and "weights" in err
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["made"]
    assert load_checkpoint(tmp_path / "deep" / "made")[0] == Geometry(32, 64, 2, 300)


@pytest.mark.parametrize("arguments, said", [
    (["8b"], "unknown size '8b': use 370m, 1.3b, 2.7b, or hidden,inner,layers,vocabulary such as 256,640,4,4096"),
    (["32,64,2"], "unknown size '32,64,2': use"), (["32,64,2,x"], "unknown size '32,64,2,x': use"),
    (["0,64,2,300"], "size 0,64,2,300: hidden_size is 0: must be a whole number from 1 to"),
    (["32,64,2,259"], "a vocabulary of 259 tokens: use at least 260, for 256 bytes, the space, <unk>, <s>, </s>"),
    (["32,64,2,300", "--shards", "36"], "36 shards: use 1 to 35"),
    (["32,64,2,300", "--shards", "0"], "0 shards: use 1 to 35"),
    (["32,64,2,300", "--seed", "-1"], "seed -1: use 0 to 4294967295"),
])
def test_wrong_values(tmp_path, capsys, arguments, said):
    status, out, err = command(capsys, arguments[0], tmp_path / "made", *arguments[1:])
    assert (status, out) == (1, "") and err.count("\n") == 1 and err.startswith("error: ") and said in err
    assert not any(tmp_path.iterdir())


def test_a_disk_with_too_little_room(tmp_path, capsys, monkeypatch):
    """Said before anything is written."""
    needed = checkpoint.weight_bytes(TINY)
    room = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room._replace(free=needed - 1))
    monkeypatch.setattr(vocabulary, "make_tokenizer", None)
    status, out, err = command(capsys, "96,160,6,1200", tmp_path / "made")
    assert (status, out) == (1, "") and not any(tmp_path.iterdir())
    assert err == f"error: {tmp_path / 'made'} needs 0.00 GB and its disk has 0.00 GB left: make room, or name a " \
                  "folder elsewhere\n"


def test_wrong_use(tmp_path, capsys):
    for arguments in (["370m"], ["370m", tmp_path / "x", "--shards", "two"], ["--other"]):
        status, out, err = command(capsys, *arguments)
        assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("error: ")


def test_a_folder_that_is_there(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert command(capsys, "32,64,2,300", tmp_path / "empty")[0] == 0
    before = sorted((tmp_path / "empty").iterdir())
    (tmp_path / "file").write_text("kept")
    for name in ("empty", "file"):
        status, _, err = command(capsys, "32,64,2,300", tmp_path / name)
        assert status == 1 and f"{name} is there already: name a new folder, or remove it" in err
    assert sorted((tmp_path / "empty").iterdir()) == before and (tmp_path / "file").read_text() == "kept"
    status, _, err = command(capsys, "32,64,2,300", tmp_path / "file" / "below")
    assert status == 1 and err == f"error: cannot write {tmp_path / 'file' / 'below'}: File exists\n"


def test_a_disk_that_fills_up(tmp_path, capsys, monkeypatch):
    """Half-way: nothing stays, the folders above neither."""
    def full(*arguments):
        blocks = written(*arguments)
        yield next(blocks)
        raise OSError(errno.ENOSPC, "No space left on device")

    written = Statistics.blocks
    monkeypatch.setattr(Statistics, "blocks", full)
    status, _, err = command(capsys, "32,64,2,300", tmp_path / "new" / "made")
    assert status == 1
    assert err.endswith("made: its disk is full: make room, or name a folder elsewhere\n")
    assert not any(tmp_path.iterdir())


def test_interrupted(tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Statistics, "blocks", stop)
    with pytest.raises(KeyboardInterrupt):
        make_checkpoint(TINY, tmp_path / "made")
    assert not any(tmp_path.iterdir())


def test_a_bar_says_what_is_left(monkeypatch):
    """On a terminal: the bytes and the time left."""
    import io
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    with moving("writing it", 4_000_000) as advance:
        advance(1_000_000)
    assert "writing it" in screen.getvalue() and "1.0/4.0 MB" in screen.getvalue()


def test_memory_is_that_of_a_few_blocks():
    """One matrix larger than all that its maker may hold at once."""
    shape = (40_000, 1024)
    tracemalloc.start()
    try:
        blocks = Statistics(Geometry(1024, 256, 1, 40_000), 0).blocks("lm_head.weight", shape)
        count = sum(block.size for block in blocks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 40_000 * 1024
    assert peak < 70 << 20  # the matrix would be 80 MB as bfloat16, and 160 MB as float32


def test_errors_are_lines():
    with pytest.raises(SyntheticError, match="unknown size"):
        geometry_of("")
