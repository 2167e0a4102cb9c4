"""The simulated board's harness around a small device of its own: link, memory, preload, traces, errors, caching."""

import dataclasses
import os
import random
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import serial
from fst import Fst
from sterna.hw.boards import preset
from sterna.sim.board import compile as board_compile
from sterna.sim.board import toolchain
from sterna.sim.board.board import BoardError, SimulatedBoard, read_trace, trace_cycles

HERE = Path(__file__).parent
SEED = int(os.environ.get("STERNA_SEED", "1"))
CONFIG = dataclasses.replace(preset("lanes40"), name="echo", memory_bytes=1 << 11)  # 256 words of 8 bytes
DEVICE = {"device": "echo_device:EchoDevice", "device_sources": [HERE / "echo_device.py"]}

pytestmark = pytest.mark.rtl


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def board(**options):
    return SimulatedBoard(CONFIG, **DEVICE, **options)


def connect(running):
    return serial.serial_for_url(running.url, timeout=20)


def write(port, address, word, mask=0xFF):
    port.write(bytes([ord("W"), address, mask]) + word)


def read(port, address, length):
    port.write(bytes([ord("R"), address, length]))
    return port.read(8 * length)


@pytest.mark.parametrize("timing", [
    pytest.param({}, marks=pytest.mark.rest),
    {"latency_cycles": 90, "bandwidth": 77, "refresh_interval_cycles": 50, "refresh_cycles": 17, "seed": 5},
    pytest.param({"latency_cycles": 0, "refresh_interval_cycles": 0, "bandwidth": 1}, marks=pytest.mark.rest)])
def test_memory_words_with_any_timing(timing):
    random_ = random.Random(SEED)
    model = bytearray(1 << 11)
    with board(**timing) as running, connect(running) as port:
        for address in range(0, 256, 32):
            model[8 * address:8 * (address + 32)] = read(port, address, 32)
        assert any(model) == bool(timing.get("seed"))  # a seed fills the memory with random bytes, otherwise zeros
        for _ in range(60):
            address, mask, word = random_.randrange(256), random_.randrange(256), random_.randbytes(8)
            write(port, address, word, mask)
            for k in range(8):
                if mask >> k & 1:
                    model[8 * address + k] = word[k]
            length = random_.randint(1, 32)
            first = random_.randrange(257 - length)
            assert read(port, first, length) == model[8 * first:8 * (first + length)]
        assert read(port, 0, 32) == model[:256]


def test_timing_model_counts_cycles():
    def cycles(**timing):
        running = board(refresh_interval_cycles=0, **timing) if "refresh_cycles" not in timing else board(**timing)
        with running, connect(running) as port:
            for _ in range(8):
                read(port, 0, 32)
        return running.cycles

    base = cycles(latency_cycles=20)
    # Latency and refresh are added to each burst; bytes leave while words arrive, so only a slow memory shows its
    # bandwidth. Cycles between two requests count as well, so a run varies by some hundred.
    assert abs(cycles(latency_cycles=1020) - base - 8 * 1000) <= 500
    assert cycles(latency_cycles=20, bandwidth=16) - base > 8 * 32 * 4
    assert cycles(latency_cycles=20, refresh_interval_cycles=400, refresh_cycles=390) - base > 8 * 390


def test_client_may_leave_and_return():
    with board() as running:
        with connect(running) as port:
            write(port, 9, b"stays on")
            port.write(b"R\x09\x20")  # leaves while the device is sending
        with connect(running) as port:
            deadline = time.monotonic() + 20
            received = b""
            # bytes of the interrupted burst may still come, then the echo
            port.write(b"#")
            while not received.endswith(b"#") and time.monotonic() < deadline:
                received += port.read(1)
            assert received.endswith(b"#")
            assert read(port, 9, 1) == b"stays on"
        assert running.running


def test_sleeps_when_idle():
    with board() as running, connect(running) as port:
        port.write(b"x")
        assert port.read(1) == b"x"
        stat = Path(f"/proc/{running._process.pid}/stat")
        if not stat.exists():  # other systems have no /proc: counting cycles below is the check there
            time.sleep(0.5)
        before = stat.read_text().split()[13:15] if stat.exists() else None
        time.sleep(1.0)
        if before:
            spent = sum(map(int, stat.read_text().split()[13:15])) - sum(map(int, before))
            assert spent <= 10  # hundredths of a second
        port.write(b"y")
        assert port.read(1) == b"y"
    assert running.cycles < 2000


def test_preload_puts_parts_of_files_into_memory(tmp_path):
    content = random.Random(SEED).randbytes(1000)
    (tmp_path / "a:b.bin").write_bytes(content)
    with board(preload=[(tmp_path / "a:b.bin", 100, 64, 16), (tmp_path / "a:b.bin", 700, 300, 1024)]) as running:
        with connect(running) as port:
            memory = b"".join(read(port, address, 32) for address in range(0, 256, 32))
    expected = bytearray(2048)
    expected[16:80], expected[1024:1324] = content[100:164], content[700:]
    assert memory == expected


@pytest.mark.parametrize("part", [(0, 2000, 0), (990, 11, 0), (0, 100, 2048 - 99)])
def test_preload_that_does_not_fit_is_refused(tmp_path, part):
    (tmp_path / "image").write_bytes(bytes(1000))
    with pytest.raises(BoardError, match="--preload .*image: cannot be read, or is larger than the memory"):
        board(preload=[(tmp_path / "image", *part)]).start()


def test_access_outside_memory_is_reported():
    running = board()
    with pytest.raises(BoardError, match=r"read of 32 words at word 0xf0: use 1..32 words below 0x100 \(cycle \d+\)"):
        with running, connect(running) as port:
            port.write(b"R\xf0\x20")
            running._process.wait(20)
    assert not running.running


def test_cycle_limit_is_an_error():
    with pytest.raises(BoardError, match="stopped after 500 cycles"):
        with board(max_cycles=500) as running, connect(running) as port:
            for _ in range(100):
                port.write(b"z" * 64)
                time.sleep(0.01)
                if not running.running:
                    break


def test_trace_has_every_vector(tmp_path):
    content = random.Random(SEED).randbytes(256)
    (tmp_path / "image").write_bytes(content)
    with board(preload=[(tmp_path / "image", 0, 256, 0)], trace=tmp_path / "trace") as running, \
            connect(running) as port:
        read(port, 0, 3)
        read(port, 7, 1)
    vectors = read_trace(tmp_path / "trace", CONFIG.lanes)
    words = np.frombuffer(content, np.uint8).reshape(-1, 8)
    beats = np.concatenate([words, words[:, :4]], axis=1).reshape(-1, 4, 3).astype(np.uint32)
    beats = beats @ np.array([1, 256, 65536])
    assert [is_code for is_code, _ in vectors] == [False, False]
    np.testing.assert_array_equal(vectors[0][1], beats[:3].reshape(-1))
    np.testing.assert_array_equal(vectors[1][1], beats[7])
    (begin, end), (second, _) = trace_cycles(tmp_path / "trace", CONFIG.lanes)
    assert begin < end and end + 1 < second  # three words, and a frame between


def test_trace_of_codes(tmp_path):
    def beat(flags, cycle, *codes):
        return bytes([flags, *cycle.to_bytes(8, "little"), *range(12), *codes])

    beats = [beat(2, 7, 1, 255, 3, 4), beat(3, 9, 5, 6, 128, 8), beat(1, 1 << 40, 0, 0, 0, 0)]
    (tmp_path / "trace").write_bytes(b"".join(beats) + beats[0][:9])
    (codes, code_values), (numbers, values) = read_trace(tmp_path / "trace", 4)
    assert codes and code_values.tolist() == [1, -1, 3, 4, 5, 6, -128, 8]
    assert not numbers and values.tolist() == [0x020100, 0x050403, 0x080706, 0x0B0A09]
    assert trace_cycles(tmp_path / "trace", 4).tolist() == [[7, 9], [1 << 40, 1 << 40]]


def test_client_is_told_when_it_waits_and_when_its_turn_has_come():
    def client(running, first=b"a"):
        port = connect(running)
        port.write(first)
        return port

    with board(greetings=(b"<turn>", b"<wait>")) as running:
        ports = [client(running)]
        assert ports[0].read(7) == b"<turn>a"
        for _ in range(2):
            ports.append(client(running, b"b"))
            assert ports[-1].read(6) == b"<wait>"
        ports[0].write(b"c")
        assert ports[0].read(1) == b"c"  # the others have sent nothing to the device
        ports[1].close()  # one that gives up has no turn
        ports[0].close()
        assert ports[2].read(7) == b"<turn>b"
        ports[2].close()
        with client(running) as port:  # a board without a client waits for nobody
            assert port.read(7) == b"<turn>a"
        silent = connect(running)  # until it sends something it is told nothing
        time.sleep(0.1)
        assert silent.in_waiting == 0
        silent.write(b"x")
        assert silent.read(7) == b"<turn>x"
        silent.close()


def use(port, writes):
    """Writes words, and reads behind each until the device is at rest."""
    for k in range(writes):
        write(port, k % 256, b"contents")
        assert read(port, k % 256, 1) == b"contents"


@pytest.mark.rest
def test_vcd_is_written(tmp_path):
    with board(waves=tmp_path / "board.vcd") as running, connect(running) as port:
        use(port, 3)
    text = (tmp_path / "board.vcd").read_text()
    assert "rx_payload" in text and text.count("\n#") > 20


def rises(fst, name):
    bits = [bit for _, bit in fst.changes(fst.names[f"board.{name}"][0])]
    return sum(now > before for before, now in zip(bits, bits[1:], strict=False))


@pytest.mark.rest
def test_fst_is_written_and_pauses(tmp_path):
    with board(waves=tmp_path / "all.fst") as running, connect(running) as port:
        use(port, 9)
    fst = Fst(tmp_path / "all.fst")
    clock = fst.changes(fst.names["board.clk"][0])
    # Written when it is high and when it is low, for every cycle; chains of that length are packed.
    assert [bit for _, bit in clock[-6:]] in ([0, 1] * 3, [1, 0] * 3) and fst.end + 1 >= 2 * running.cycles - 1
    assert [time for time, _ in clock[-6:]] == list(range(clock[-1][0] - 5, clock[-1][0] + 1))
    assert rises(fst, "write_valid") == 9 and "board.clocked_board.board.rx_payload" in fst.names
    with board(waves=tmp_path / "some.fst", record=False) as running, connect(running) as port:
        use(port, 4)
        running.record(True)
        use(port, 3)
        running.record(False)
        use(port, 5)
    assert rises(Fst(tmp_path / "some.fst"), "write_valid") == 3


@pytest.mark.rest
@pytest.mark.parametrize("name, limit, margin", [("w.vcd", 200_000, 200), ("w.fst", 60_000, 40_000)])
def test_limit_of_waveforms_holds(tmp_path, name, limit, margin):
    """A VCD file ends with the line at its limit, an FST file with the block of cycles; the board goes on."""
    path = tmp_path / name
    with board(waves=path, waves_limit=limit) as running, connect(running) as port:
        use(port, 200)
        assert limit <= path.stat().st_size <= limit + margin
        use(port, 20)
    assert limit <= path.stat().st_size <= limit + margin
    assert running.cycles > 20_000
    if name == "w.vcd":
        assert path.read_bytes()[-1:] == b"\n"
    else:
        assert rises(Fst(path), "write_valid") > 20


@pytest.mark.rest
@pytest.mark.parametrize("name, writes", [("w.vcd", 60), ("w.fst", 60), ("w.vcd", 1), ("w.fst", 1)])
def test_full_disk_is_one_line_and_the_board_goes_on(tmp_path, name, writes):
    (tmp_path / name).symlink_to("/dev/full")
    running = board(waves=tmp_path / name)
    with pytest.raises(BoardError) as error:
        with running, connect(running) as port:
            use(port, writes)
            assert writes == 1 or "No space left on device" in running.complaint()
            use(port, 1)
    assert str(error.value) == f"simulated board: {tmp_path / name}: No space left on device: the waveforms end there"


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # an orphan that nobody waits for stays as a zombie
    return not stat.exists() or stat.read_text().split()[2] != "Z"


def test_board_ends_with_its_parent():
    code = ("import sys\nsys.path.insert(0, sys.argv[1])\nimport test_board, os\nrunning = test_board.board()\n"
            "running.start()\nprint(running._process.pid, flush=True)\nos._exit(0)")
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(HERE)], capture_output=True, text=True, timeout=120,
                          env=paths)
    assert done.stdout, done.stderr
    pid = int(done.stdout)
    for _ in range(200):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


def test_second_start_compiles_nothing(monkeypatch):
    messages = []
    board_compile.board_program(CONFIG, **DEVICE)
    monkeypatch.setattr(board_compile, "_program", lambda *_: pytest.fail("built again"))
    board_compile.board_program(CONFIG, **DEVICE, on_compile=messages.append)
    assert messages == []


def test_key_follows_configuration_and_sources(tmp_path, monkeypatch):
    source = tmp_path / "device.py"
    source.write_text("a")
    key = board_compile.key(CONFIG, device_sources=[source])
    assert key == board_compile.key(dataclasses.replace(CONFIG, name="other"), device_sources=[source])
    assert key != board_compile.key(dataclasses.replace(CONFIG, fifo_words=64), device_sources=[source])
    assert key != board_compile.key(CONFIG, device_sources=[source], waves="vcd")
    assert board_compile.key(CONFIG, waves="vcd") != board_compile.key(CONFIG, waves="fst")
    source.write_text("b")
    assert key != board_compile.key(CONFIG, device_sources=[source])


def test_key_follows_every_source(tmp_path, monkeypatch):
    for name in board_compile.PACKAGES:
        folder = tmp_path / name
        shutil.copytree(find_spec(name).submodule_search_locations[0], folder,
                        ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(board_compile, "find_spec",
                        lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path / name)]))
    keys, files = {board_compile.key(CONFIG)}, board_compile.sources()
    assert {"isa.py", "rng.py", "toplist.py", "board.cpp", "memory.hpp"} <= {path.name for path in files}
    for path in files:
        path.write_text(path.read_text() + "\n")
        keys.add(board_compile.key(CONFIG))
    assert len(keys) == 1 + len(files)


def test_sources_are_all_that_elaboration_imports():
    script = ("import sys, sterna.hw.accelerator, sterna.sim.board.verilog\n"
              "print(*(m.__file__ for name, m in sys.modules.items() if name.startswith('sterna.') and m.__file__))")
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True)
    others = set(map(Path, done.stdout.split())) - set(board_compile.sources())
    assert {path.name for path in others} <= {"__init__.py"}, others


def test_folder_that_cannot_be_written_names_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STERNA_BUILD", str(tmp_path / "file"))
    with pytest.raises(toolchain.ToolError, match=f"cannot build in {tmp_path}/file/sim: .*with STERNA_BUILD"):
        board_compile.board_program(CONFIG, **DEVICE)


def test_missing_compiler_names_the_way_out(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    toolchain.compiler.cache_clear()
    try:
        with pytest.raises(toolchain.ToolError, match="no-such-compiler -O2"):
            toolchain.compiler()
        monkeypatch.setenv("CXX", "")
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(toolchain.ToolError, match="install g\\+\\+ or clang\\+\\+, or run .* pip install"):
            toolchain.compiler()
    finally:
        toolchain.compiler.cache_clear()
