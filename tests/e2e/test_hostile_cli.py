"""Hostile files through the command line: one line, no traceback, little memory, nothing written or touched."""

import json
import lzma
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from crc32c import crc32c
from small_model import DEVICE, GoldenDevice, byte_tokenizer, served, write_folder
from sterna.host.model.model import Model

LIMIT_MIB = 400  # a thread pool of BLAS and an xz encoder included


def reseal(image, change, tail=None):
    """An image whose header was changed by ``change(header)`` and padded, its checksum right."""
    header = json.loads(image[24:24 + struct.unpack_from("<I", image, 16)[0]])
    first = header["sections"][0]["offset"]
    if tail is not None:
        header["sections"][2] |= {"bytes": len(tail), "crc32c": crc32c(tail)}
        image = image[:header["sections"][2]["offset"]] + tail + bytes(-len(tail) % 64)
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode().ljust(first - 24)
    return struct.pack("<8s4I", b"STERNA\r\n", 1, 1, len(text), crc32c(text)) + text + image[24 + len(text):]


def tokenizer(**change):
    return json.dumps(json.loads(byte_tokenizer()) | change)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """{name: path} of images, {name: path} of folders."""
    root = tmp_path_factory.mktemp("corpus")
    good = Model(write_folder(root / "good"))
    image = good.build(DEVICE)
    images = {
        "empty": b"", "random": bytes(range(256)) * 40, "cut": image[:len(image) // 3], "magic": b"STERNA\r\n",
        "length": image[:16] + b"\xff" * 4 + image[20:],
        "layers": reseal(image, lambda h: h["geometry"].update(num_hidden_layers=2**31 - 1)),
        "hidden": reseal(image, lambda h: h["geometry"].update(hidden_size=2**31 - 1)),
        "eps": reseal(image, lambda h: h["geometry"].update(rms_norm_eps="1e400")),
        "array": reseal(image, lambda h: h["tiling"].update(rows=1, columns=1)),
        "eos": reseal(image, lambda h: h.update(eos=-1)), "name": reseal(image, lambda h: h.update(name=["x"])),
        "overlap": reseal(image, lambda h: h["sections"][1].update(offset=0)),
        "far": reseal(image, lambda h: h["sections"][1].update(offset=2**62)),
        "bomb": reseal(image, lambda h: None, lzma.compress(bytes(1 << 28), preset=0))}
    for name, data in images.items():
        (root / f"{name}.sterna").write_bytes(data)
    config = json.loads((root / "good" / "config.json").read_text())
    weights = (root / "good" / "model.safetensors").read_bytes()
    folders = {
        "deep": {"config.json": "[" * 100000}, "twice": {"config.json": '{"hidden_size": 1, "hidden_size": 2}'},
        "endless": {"config.json": json.dumps(config | {"num_hidden_layers": 2**31 - 1})},
        "nan": {"config.json": json.dumps(config | {"rms_norm_eps": float("nan")})},
        "end": {"config.json": json.dumps(config | {"eos_token_id": 10**400})},
        "header": {"model.safetensors": struct.pack("<Q", 2**63) + weights[8:]},
        "floats": {"model.safetensors": weights.replace(b'"shape":[40]', b'"shape":[4e1]', 1)},
        "charsmap": {"tokenizer.json": tokenizer(normalizer={"type": "Precompiled",
                                                             "precompiled_charsmap": "/////w=="})},
        "growth": {"tokenizer.json": tokenizer(normalizer={"type": "Sequence", "normalizers": 30 * [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}]})},
        "latin": {"tokenizer.json": b"\xff"}}
    for name, files in folders.items():
        folder = root / name
        folder.mkdir()
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            content = files.get(file, (root / "good" / file).read_bytes())
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [root / f"{name}.sterna" for name in images] + [root / name for name in folders]


def run(lines):
    """The finished command lines, in one process: list of {code, out, err}."""
    done = subprocess.run([sys.executable, Path(__file__).parent / "hostile_cli.py", str(LIMIT_MIB),
                           json.dumps([list(map(str, line)) for line in lines])],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "", done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(result, path):
    assert result["code"] in (1, 2) and result["out"] == "", result
    assert result["err"].startswith("error: ") and result["err"].count("\n") == 1, result
    assert str(path) in result["err"] and "unexpected" not in result["err"] and len(result["err"]) < 1000, result


def test_hostile_models(corpus, tmp_path):
    lines = []
    for k, path in enumerate(corpus):
        lines.append((path, ("generate", "-m", path, "-p", "a b", "--device", "golden", "-n", 2, "--save-state",
                             tmp_path / f"{k}.state")))
        lines.append((path, ("convert", path, "-o", tmp_path / f"{k}.sterna")))
    lines += [(path, ("bench", "-m", path, "--device", "golden", "-o", tmp_path / "b.md")) for path in corpus[5:8]]
    results = run([arguments for _, arguments in lines])
    assert len(results) == len(lines)
    for (path, _), result in zip(lines, results, strict=True):
        check(result, path)
    assert list(tmp_path.iterdir()) == []


def test_device_is_not_touched(corpus):
    device = GoldenDevice(Model(corpus[0].parent / "good").packed)
    models = [path for path in corpus if path.name in (
        "layers.sterna", "far.sterna", "header", "endless", "empty.sterna")]
    with served(device) as url:
        lines = [("upload", "-m", path, "--device", url) for path in models]
        for path, result in zip(models, run(lines), strict=True):
            check(result, path)
    assert len(models) == 5 and device.writes == 0


def test_names_cannot_steer_a_terminal(corpus, tmp_path):
    image = Model(corpus[0].parent / "good").build(DEVICE)
    path = tmp_path / "m.sterna"
    path.write_bytes(reseal(image, lambda h: h.update(name="\x1b[2J[/red]\n|")))
    good, state = run([("inspect", path), ("generate", "-m", path, "-p", "a", "--device", "golden", "-n", 0,
                                                   "--load-state", corpus[1])])
    assert good["code"] == 0 and "\x1b" not in good["out"] and "\\x1b[2J[/red]" in good["out"]
    check(state, corpus[1])
