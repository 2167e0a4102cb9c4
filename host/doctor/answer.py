"""Known answers: a tiny model of random weights on the device, its tokens beside the golden model's,
and its counters.
"""

import time
from contextlib import contextmanager

import numpy as np

from sterna.firmware.program import build_program
from sterna.host.doctor.check import judged, skipped
from sterna.host.model.image import Image, build_image
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.known import answers, difference, name_of, why_not
from sterna.host.runtime.session import Sequence
from sterna.host.runtime.sampling import Sampling
from sterna.hw import protocol
from sterna.hw.config import longest_text
from sterna.hw.protocol import Register
from sterna.sim.golden.packed import Geometry, random_model

SEED, GEOMETRY = 2406, Geometry(20, 30, 2, 67)  # fits the smallest build
PROMPT, TOKENS = (3, 14, 15, 9, 26), 8
CLOCK_S, CLOCK_LIMIT = 0.5, 0.03  # of the clock's measurement; what it may be off


class BuiltinModel:
    """The model, with the members of ``sterna.host.model.model.Model`` that a runtime takes; no file is read."""

    name, geometry, tokenizer_json, end = "built-in random model", GEOMETRY, "{}", 0

    def __init__(self):
        self.packed = random_model(np.random.default_rng(SEED), GEOMETRY)

    @property
    def size_bytes(self):
        """Bytes of the image, about (int): no file has it."""
        return 0

    def image_for(self, config, tell):
        """The Image for a device."""
        return Image(build_image(self.packed, config, self.tokenizer_json, self.name, self.end))


@contextmanager
def kept(device, model, keep):
    """Puts back what the model overwrites in the memory, if ``keep``."""
    end = -(-build_program(device.info, model.geometry).memory_map.end // 4) * 4
    before = device.read(0, end) if keep else None
    try:
        yield
    finally:
        if keep:
            for slot in device.slots:
                device.halt(slot)
            device.reset()
            device.write(0, before)


def samplings(rows):
    """{name: Sampling} that a build with a list of ``rows`` rows can do."""
    found = {"greedy": Sampling(), "sampled": Sampling(0.8, 12345)}
    return found | {"top-k/p": Sampling(1.2, 99, min(8, rows), 0.9)} if rows else found


def _compare(name, wanted, got, whose="the golden model's"):
    """The Check of two lists of tokens."""
    if len(wanted) != len(got):
        return judged(name, False, f"{len(got)} tokens instead of {len(wanted)}", wanted=wanted, got=got)
    if found := difference(wanted, got):
        k, one, other = found
        return judged(name, False, f"token {k + 1} of {len(wanted)} is {other}, {whose} is {one}",
                      wanted=wanted, got=got)
    return judged(name, True, f"{len(got)} tokens as {whose}", tokens=got)


def known_checks(runtime):
    """Generator of the Checks of the known answer of a runtime's image."""
    compared = 0
    for run, wanted, got in answers(runtime, runtime.model.answer):
        name = f"answer, {name_of(run)}"
        if got is None:
            yield skipped(name, why_not(run, runtime.rows))
            continue
        compared += 1
        yield _compare(name, wanted, got, "the image's known answer")
    if not compared:
        yield judged("known answer", False, "the device can make none of its runs, so nothing was compared: convert "
                     "the checkpoint again, or leave --model out")


def answer_checks(runtime):
    """Generator of the Checks of tokens, greedy and sampled; of all slots where there are several."""
    model, rows = runtime.model, runtime.rows
    for name, sampling in samplings(rows).items():
        golden = GoldenRuntime(model)
        wanted = list(golden.generate(list(PROMPT), TOKENS, sampling))
        runtime.clear()
        yield _compare(f"tokens, {name}", wanted, list(runtime.generate(list(PROMPT), TOKENS, sampling)))
    runtime.clear()
    slots = runtime.device.info.batch
    if slots > 1:
        texts = [Sequence([k + 1, *PROMPT], TOKENS, Sampling(0.8, k)) for k in range(slots)]
        for _ in runtime.generate_all(texts):
            pass
        wanted = [token for text in texts for token in GoldenRuntime(model).generate(text.ids, TOKENS, text.sampling)]
        yield _compare(f"tokens, {slots} slots", wanted, [token for text in texts for token in text.tokens])


def speed_check(runtime, known):
    """The Check of the counters that the runs before have moved; ``known`` is the build's Config, if it is one."""
    counters = runtime.statistics.counters + runtime.statistics.prompt_counters
    device, tokens = runtime.device, counters["tokens"]
    faults = [device.status(slot)[2] for slot in device.slots]
    if any(faults):
        return judged("counters", False, f"fault {max(faults)} behind the runs: program the board again")
    if not counters["cycles"] and (known is None or not known.counters):
        return skipped("counters", "this build counts no cycles")
    total, port, busy = (counters[name] for name in ("cycles", "port_busy", "array_busy"))
    idle, stalls = counters["stall_idle"], counters["stall_stream"] + counters["stall_rows"]
    held = sum(counters[name] for name in ("refresh", "port_full", "port_empty"))
    per_token = total / tokens
    values = {"cycles_per_token": per_token, "tokens_per_second": device.info.clock_hz / per_token if total else 0.0}
    if not (port and busy and counters["runs"]):
        return judged("counters", False, f"{total} cycles, {port} words from the memory, {busy} of the array, "
                      f"{counters['runs']} runs: none may be 0", **values)
    # In every cycle of a token the array has a product, in which it may stall, or is idle; the memory waits
    # for one cause.
    if busy + idle != total or stalls > busy or held > total:
        return judged("counters", False, f"{total} cycles do not fit array {busy} + idle {idle}, stalls {stalls} and "
                      f"memory held {held}", **values)
    kind = "projected from simulated cycles" if runtime.statistics.simulated else "device time"
    return judged("counters", True, f"{per_token:,.0f} cycles per token of the built-in model, array busy "
                  f"{busy / total:.0%}, memory {port / total:.0%}; "
                  f"{values['tokens_per_second']:,.0f} tokens/s, {kind}", **values)


def clock_check(runtime, per_token, seconds=CLOCK_S):
    """Counts the cycles of the device while it reads a prompt without end, against this machine's clock.

    The prompt is the token ring, over and over. Its tokens send no frames, so nothing waits for the line.
    """
    device = runtime.device
    info = device.info
    device.chain(False)
    device.write_ring(0, [k % GEOMETRY.vocab_size for k in range(info.ring)])
    # It ends by itself if this program does not end it.
    most = min(int(4 * (seconds + 1) * info.clock_hz / per_token), longest_text(info) - 2)
    if most < 2 * seconds * info.clock_hz / per_token:
        return skipped("clock", f"its registers of {info.register_bits} bits count no further than {most:,} tokens")
    for register, value in {Register.POSITION: 0, Register.START: 0, Register.PROMPT_END: longest_text(info) - 1,
                            Register.STOP: protocol.NEVER, Register.LIMIT: most,
                            Register.CONTROL: protocol.CONTROL_RUN}.items():
        device.write_register(register, value)

    def moment():
        """(middle of the request, half of it, cycles)."""
        begin = time.monotonic()
        cycles = device.counters()["cycles"]
        end = time.monotonic()
        return (begin + end) / 2, (end - begin) / 2, cycles

    try:
        at, slack, first = moment()
        time.sleep(seconds)
        later, more, second = moment()
    finally:
        device.halt()
    hertz = (second - first) % (1 << 32) / (later - at)
    off, unsure = hertz / info.clock_hz - 1, (slack + more) / (later - at)
    text = (f"{hertz / 1e6:.2f} MHz counted, {info.clock_hz / 1e6:.2f} MHz told ({off:+.1%}; request times "
            f"+-{unsure:.1%})")
    good = abs(off) <= CLOCK_LIMIT + unsure
    if not good:
        text += ": check the oscillator and the PLL's settings"
    return judged("clock", good, text, clock_hz=hertz, told_hz=info.clock_hz)


def open_model(model, device, simulated, tell):
    """A DeviceRuntime with the BuiltinModel on an open device."""
    return DeviceRuntime(model, device, tell, simulated=simulated)
