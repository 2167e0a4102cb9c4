"""What docs/isa.md leaves to the program, checked by running generated programs against it.

The checker is independent of the assembler's analysis: it executes the control instructions of a token with concrete
values and follows, operation by operation, which words are under way, which products still read which codes, and how
many rows and words have been asked for.
"""

import os

import numpy as np
import pytest
from sterna.firmware import isa
from sterna.firmware.program import build_program
from sterna.hw.config import PRESETS
from sterna.sim.golden.packed import Geometry

SEED = int(os.environ.get("STERNA_SEED", "1"))
SIZES = {"up5k": (50, 70), "lanes10": (50, 70), "lanes40": (150, 300), "sim": (150, 300), "lanes320": (300, 600)}


class Hazard(AssertionError):
    """The program breaks a rule of docs/isa.md."""


class Checker:
    """Runs a program for some tokens; Hazard names the instruction that breaks a rule."""

    def __init__(self, config, words):
        self.config = config
        self.program = [isa.decode(word) for word in words]
        self.under_way = {}   # (space, address) -> operation and beat of the last write that may not be done
        self.products = []    # [buffer, beats of rows that no operation has taken]
        self.fetched = 0      # words asked for and not taken
        self.store_words = 0  # words announced by STORE and not written
        self.operation = 0

    def need(self, condition, text):
        if not condition:
            raise Hazard(f"instruction {self.pc}: {text}")

    def token(self, *, layers, at_start, wanted, greedy):
        """One token's program from pc 0 to HALT."""
        self.pc = offset = vl = left = loop = steps = 0
        while True:
            opcode, f = self.program[self.pc]
            following = self.pc + 1
            steps += 1
            self.need(steps < 100_000, "the program does not end")
            if opcode == isa.HALT:
                self.need(not self.products and not self.store_words, "HALT with work left")
                return
            if opcode == isa.VOP:
                self.vop(f, vl, offset)
            elif opcode == isa.MATVEC:
                self.need(len(self.products) < 2 or self.products[0][1] == 0, "a third product would wait for ever")
                self.products.append([f["buffer"], -(-f["rows"] // self.config.lanes)])
                # Interlock: every operation before has written its codes.
                self.under_way = {key: value for key, value in self.under_way.items() if key[0] != "code"}
                self.fetched -= -(-self.tiles(f) * self.config.tile_bytes // self.config.port_bytes)
            elif opcode == isa.FETCH:
                self.fetched += f["words"]
            elif opcode == isa.STORE:
                self.need(not self.store_words, "STORE before the words of the last one")
                self.store_words = f["words"]
            elif opcode == isa.WAITM:
                self.need(not self.store_words, "WAITM with words that nobody writes")
                self.under_way.clear()
            elif opcode == isa.SAMPLE and f["end"]:
                self.under_way.clear()
            elif opcode == isa.STRIP:
                left, offset, vl = f["elements"], 0, min(f["strip"], f["elements"])
                self.need(vl <= self.config.vector_words * self.config.lanes, f"strip of {vl} elements")
            elif opcode == isa.NEXT:
                left -= f["strip"]
                offset += f["step"]
                if left > 0:
                    vl, following = min(f["strip"], left), f["target"]
            elif opcode == isa.LOOP:
                loop = f["count"]
            elif opcode == isa.AGAIN:
                loop -= 1
                if loop > 0:
                    following = f["target"]
            elif opcode == isa.JUMP:
                conditions = (True, loop == 1, not wanted, greedy, at_start)
                if conditions[f["condition"]]:
                    following = f["target"]
            self.pc = following

    def tiles(self, fields):
        return -(-fields["rows"] // self.config.rows) * fields["chunks"]

    def words(self, code, beat, offset, one, kind_c=False):
        """The vector word that an operand's beat uses."""
        address, plus, mod, _ = isa.unpack(code, one, kind_c)
        if one:
            return address
        sums = isa.PARTIAL_SUMS // self.config.lanes
        return address + (offset + beat) % sums if mod else address + beat + (offset if plus else 0)

    def touch(self, key, beat, what):
        """Operation `what` uses `key` in `beat`: nothing older may be on its way there, but for the same beat."""
        if key in self.under_way:
            operation, written = self.under_way[key]
            # Within an operation a partial sum comes back after 64 / V beats: the engine waits for it.
            self.need(operation == self.operation or beat is not None and written == beat,
                      f"{what} {key} is under way since operation {operation}")

    def vop(self, f, vl, offset):
        lanes, one = self.config.lanes, bool(f["one"])
        self.operation += 1
        if f["wait"]:
            self.under_way.clear()
        beats = 1 if one else -(-vl // lanes)
        table = 1 <= f["table"] <= 5
        operands = [(f["a_kind"], f["a"], False)]
        if not table:
            operands += [(f["b_kind"], f["b"], False), (f["c_kind"], f["c"], True)]
        self.sources(f, beats, one, vl)
        d, writes = f["d_kind"], {}
        for beat in range(beats):
            for kind, code, is_c in operands:
                if kind < 3:
                    word = self.words(code, beat, offset, one, is_c)
                    self.need(word < self.config.vector_words, f"word {word} of bank {kind}")
                    _, _, mod, _ = isa.unpack(code, one, is_c)
                    self.touch((kind, word), None if mod and not one else beat, "reads")
            if d == isa.D_VECTOR:
                word = self.words(f["d"], beat, offset, one)
                self.need(word < self.config.vector_words, f"word {word}")
                mod = isa.unpack(f["d"], one)[2]
                for bank in range(3):
                    if f["d_banks"] >> bank & 1:
                        self.touch((bank, word), None if mod and not one else beat, "writes")
                        writes[bank, word] = beat
        for kind, code, _ in operands:
            if kind == isa.KIND_SCALAR and code > 1:
                self.touch(("scalar", code), None, "reads")
        if f["a_kind"] == isa.A_RANDOM or not table and f["c_kind"] == isa.C_RANDOM:
            self.touch(("row counter", 0), None, "reads")
        for number in [f["d"]] * (d == isa.D_SCALAR) + [f["k"]] * bool(f["peak"]):
            self.touch(("scalar", number), None, "writes")
            writes["scalar", number] = None
        if d in (isa.D_ACTIVATION0, isa.D_ACTIVATION1):
            buffer = d - isa.D_ACTIVATION0
            # A product whose rows have all been taken has read all its codes.
            self.need(all(b != buffer or not rows for b, rows in self.products),
                      f"codes for buffer {buffer}, which a product still reads")
            self.touch(("code", buffer), None, "writes")
            writes["code", buffer] = None
            self.need(beats * lanes <= self.config.activation_words * self.config.columns, f"{vl} codes")
        elif d == isa.D_MEM:
            words = -(-4 * lanes * beats // self.config.port_bytes)
            self.need(words <= self.store_words, f"{words} words for memory, {self.store_words} announced")
            self.store_words -= words
        elif d == isa.D_SAMPLE:
            writes["row counter", 0] = None
        self.under_way |= {key: (self.operation, beat) for key, beat in writes.items()}

    def sources(self, f, beats, one, vl):
        """Rows come from a product issued before, words of the stream from a fetch issued before."""
        if f["a_kind"] == isa.A_ROW:
            self.need(self.products, "rows without a product")
            self.products[0][1] -= beats
            self.need(self.products[0][1] >= 0, "more rows than the product has")
            if not self.products[0][1]:
                self.products.pop(0)
        elif f["a_kind"] in (isa.A_STREAM32, isa.A_STREAM8):
            size = 4 if f["a_kind"] == isa.A_STREAM32 else 1
            self.fetched -= -(-beats * self.config.lanes * size // self.config.port_bytes)
            self.need(self.config.memory != "onchip" or self.fetched >= 0, "words that nothing has asked for")


def run(config, geometry, words):
    """Every way through the program: first tokens and later ones, outputs wanted or not, sampled and greedy."""
    for at_start in (True, False):
        for wanted in (False, True):
            for greedy in (False, True):
                checker = Checker(config, words)
                for _ in range(2):  # results of one token may be under way when the next one starts
                    checker.token(layers=geometry[2], at_start=at_start, wanted=wanted, greedy=greedy)
                assert checker.fetched == 0, f"{checker.fetched} words asked for and not taken"


def random_geometry(rng, name):
    hidden, inner = SIZES[name]
    return (int(rng.integers(1, hidden)), int(rng.integers(1, inner)), int(rng.integers(1, 4)),
            int(rng.integers(2, 200)))


@pytest.mark.parametrize("name", SIZES)
def test_random_programs_keep_the_rules(name):
    rng = np.random.default_rng([SEED, *name.encode()])
    for _ in range(2):
        geometry = random_geometry(rng, name)
        print(f"geometry {geometry}")
        run(PRESETS[name], geometry, build_program(PRESETS[name], Geometry(*geometry)).words)


def changed(words, change):
    """The program with `change(opcode, fields)` applied to the fields of every instruction until it returns True."""
    words = list(words)
    for number, word in enumerate(words):
        opcode, fields = isa.decode(word)
        if change(opcode, fields):
            words[number] = isa.encode(opcode, **fields)
            return words
    raise AssertionError("nothing was changed")


GEOMETRY = (18, 27, 2, 10)


@pytest.mark.parametrize("name", ["up5k", "sim"])
def test_missing_waits_are_caught(name):
    """Nearly every wait of a program is needed, and its lack is seen.

    The assembler knows vectors and not words, and joins all ways through the program, so it sets a few too many.
    """
    config = PRESETS[name]
    words = build_program(config, Geometry(*GEOMETRY)).words
    waits = [number for number, word in enumerate(words)
             if isa.decode(word)[0] == isa.VOP and isa.decode(word)[1]["wait"]]
    needed = 0
    for number in waits:
        opcode, fields = isa.decode(words[number])
        without = list(words)
        without[number] = isa.encode(opcode, **(fields | {"wait": 0}))
        try:
            run(config, GEOMETRY, without)
        except Hazard:
            needed += 1
    assert needed >= 0.8 * len(waits), f"{len(waits) - needed} of {len(waits)} waits are not needed"


@pytest.mark.parametrize("name, change, message", [
    ("sim", lambda op, f: op == isa.MATVEC and f["buffer"] and not f.update(buffer=0),
     "buffer 0, which a product still reads"),
    ("sim", lambda op, f: op == isa.STORE and not f.update(words=f["words"] + 1), "STORE before|HALT with"),
    ("up5k", lambda op, f: op == isa.FETCH and not f.update(words=f["words"] - 1), "nothing has asked|not taken"),
    ("lanes40", lambda op, f: op == isa.MATVEC and not f.update(rows=f["rows"] - 4), "rows"),
])
def test_broken_programs_are_caught(name, change, message):
    words = build_program(PRESETS[name], Geometry(*GEOMETRY)).words
    run(PRESETS[name], GEOMETRY, words)
    with pytest.raises(AssertionError, match=message):
        run(PRESETS[name], GEOMETRY, changed(words, change))
