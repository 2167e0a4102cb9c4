"""What docs/isa.md leaves to the program, checked by running generated programs against it.

The checker is independent of the assembler's analysis: it executes the control instructions of tokens with concrete
values and follows, operation by operation and slot by slot, which words are under way, which products still read
which codes, how many rows and words have been asked for, which parts of the memory are fetched and stored, and which
records of a walk stand where in the stream.
"""

import itertools
import os
from collections import deque
from functools import cache

import numpy as np
import pytest
from sterna.firmware import isa
from sterna.firmware.program import build_program
from sterna.hw.boards import preset
from sterna.hw.presets import PRESETS
from sterna.sim.golden.geometry import Geometry, TreeGeometry

SEED = int(os.environ.get("STERNA_SEED", "1"))
unpack = cache(isa.unpack)
SIZES = {"up5k": (50, 70), "lanes10": (50, 70), "lanes40": (150, 300), "sim": (150, 300), "lanes160": (150, 300),
         "lanes320": (300, 600), "ecpix5-85": (150, 300), "kv260": (300, 600)}
THERE, LATE = 2, 3  # a result is there for the second operation behind, that of peak or SAMPLE for the third


class Hazard(AssertionError):
    """The program breaks a rule of docs/isa.md."""


def is_records(entry):
    """Whether an entry of what was asked for is that of a walk or gather."""
    return isinstance(entry, tuple)


class Checker:
    """Runs a program for some tokens from a reset on; Hazard names the instruction that breaks a rule."""

    def __init__(self, config, words):
        self.config = config
        self.program = [isa.decode(word) for word in words]
        self.queue = 4 + (2 * config.batch if config.batch > 1 else 0) + 4 * bool(config.tree_rows)  # of descriptors
        self.under_way = {}     # (slot, space, address) -> operation and beat of the last write, age when it is there
        self.products = []      # [buffer, beats of rows that no operation has taken]
        self.areg = [None] * 4
        self.fetched = deque()  # [first word, words] or (kind, fields of FETCH) asked for and not taken
        self.visited = None     # fields of the last walk that was asked for
        self.owed = 0           # words taken before they were asked for
        self.stored = []        # (first, end) of stores that may not be in memory
        self.store_words = 0    # words announced by STORE and not written
        self.operation = 0
        self.fresh, self.sampling = True, False
        self.offered = 0        # keys of the list whose scores have not come
        self.asked = []         # (kind, first word, records) of every table that was asked for

    def hazard(self, text):
        return Hazard(f"instruction {self.pc}: {text}")

    def need(self, condition, text):
        if not condition:
            raise self.hazard(text)

    def meant(self, which):
        """The slots that a slot loop is for."""
        everyone, starting = self.active, self.starting
        if self.chained:
            return (everyone, set() if 0 in starting else {self.source},
                    everyone if self.drafts else {len(everyone) - 1}, starting & {0})[which]
        return (everyone, everyone - starting, everyone, everyone & starting)[which]

    def token(self, *, row, wanted, greedy, starting, active=frozenset({0}), chained=False, source=0, drafts=False):
        """One run of the program from pc 0 to HALT; returns how many words it leaves fetched.

        ``starting`` are the slots at their start; chained, ``drafts`` tells that not all tokens belong to the prompt.
        """
        self.active, self.starting, self.source = active, starting, source
        self.chained, self.drafts = chained, drafts
        self.pc = offset = vl = left = loop = steps = 0
        self.slot = self.begin = None
        while True:
            opcode, f = self.program[self.pc]
            following = self.pc + 1
            steps += 1
            self.need(steps < 100_000, "the program does not end")
            if opcode == isa.HALT:
                self.need(not self.products and not self.store_words and not self.owed, "HALT with work left")
                self.need(self.begin is None, "HALT in a slot loop")
                self.need(not any(map(is_records, self.fetched)), "HALT before the records of a walk")
                self.stored.clear()  # the end of a run waits for the stores
                self.fresh = False
                return sum(words for _, words in self.fetched)  # no records
            used = self.begin is None or self.slot in self.meant(self.begin["which"])
            if isa.is_walk(opcode, f):
                self.need(self.config.tree_rows and self.begin is None, "a walk in a slot loop, or in no such build")
                (self.walk if opcode == isa.WALK else self.records)(f)
            elif not used and opcode in (isa.FETCH, isa.STORE):
                self.block(f)
            elif opcode == isa.VOP:
                if used:
                    self.vop(f, vl, offset)
            elif opcode == isa.MATVEC:
                self.product(f["buffer"], f["rows"])
                self.take(-(-self.tiles(f) * self.config.tile_bytes // self.config.port_bytes))
            elif opcode == isa.SETA:
                self.areg[f["areg"]] = f["value"]
            elif opcode == isa.ROWA:
                self.areg[f["areg"]] = f["base"] + (row + (self.slot or 0)) * f["stride"]
            elif opcode == isa.SLOT:
                self.need(self.config.batch > 1 and f["again"] == (self.begin is not None),
                          "slot loops that are not apart")
                if not f["again"]:
                    self.begin, self.slot = f, 0
                elif self.slot + 1 < self.config.batch:
                    self.slot, following = self.slot + 1, f["target"]
                else:
                    self.begin = self.slot = None
            elif opcode == isa.FETCH and f["kind"] == isa.KIND_SKIP:
                self.block(f)
            elif opcode == isa.FETCH:
                self.fetch(*self.block(f))
            elif opcode == isa.STORE:
                self.need(not self.store_words, "STORE before the words of the last one")
                first, end = self.block(f)
                self.need(all(is_records(one) or end <= one[0] or sum(one) <= first for one in self.fetched),
                          f"STORE to words from {first} on, which are still being fetched")
                self.store_words = f["words"]
                self.stored.append((first, end))
            elif opcode == isa.WAITM:
                self.need(not self.store_words, "WAITM with words that nobody writes")
                self.stored.clear()
            elif opcode == isa.SAMPLE:
                self.need(self.sampling == bool(f["end"]), "samplings that are not one behind the other")
                self.sampling = not f["end"]
                if f["end"]:
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
                conditions = (True, loop == 1, not wanted, greedy, 0 in starting, self.fresh, chained)
                if conditions[f["condition"]]:
                    following = f["target"]
            self.pc = following

    def block(self, f):
        """First and end word of a FETCH or STORE, which moves its address register."""
        first = self.areg[f["areg"]]
        self.need(first is not None, f"a{f['areg']} has no value since the reset")
        self.areg[f["areg"]] = end = first + f["words"]
        self.need(f["words"] and end * self.config.port_bytes <= self.config.memory_bytes, f"words {first} to {end}")
        return first, end

    def product(self, buffer, rows):
        """A product, walk or gather of so many rows."""
        self.need(len(self.products) < 2, "a third product would wait for ever")
        self.products.append([buffer, -(-rows // self.config.lanes)])
        # Interlock: every operation before has written its codes.
        self.under_way = {key: value for key, value in self.under_way.items() if key[1] != "code"}

    def records(self, f):
        """FETCH of the records of a walk or gather; a gather reads what the walk before it has visited."""
        shape = {name: f[name] for name in ("trees", "levels", "always", "words")}
        rows = f["always"] + f["trees"] * f["levels"]
        self.need(f["trees"] and f["levels"] and rows <= self.config.tree_rows, f"{rows} rows of a walk")
        first, table = self.areg[f["areg"]], f["always"] + f["trees"] * ((1 << f["levels"]) - 1)
        self.need(f["kind"] == isa.KIND_WALK or shape == self.visited, "a gather of what was not visited")
        if f["kind"] == isa.KIND_WALK:
            self.visited = shape
        self.need((first + table * f["words"]) * self.config.port_bytes <= self.config.memory_bytes, "table")
        self.need(all(end <= a or b <= first for a, b in self.stored for end in [first + table * f["words"]]),
                  "records of what is stored")
        self.need(len(self.fetched) < self.queue and not self.owed, f"FETCH behind {len(self.fetched)}")
        self.asked.append((f["kind"], first, table))
        self.fetched.append((f["kind"], f))

    def walk(self, f):
        """WALK takes the records that the stream has next, and needs nothing from behind them."""
        self.need(self.fetched and is_records(self.fetched[0]), "WALK where no records stand")
        kind, asked = self.fetched.popleft()
        self.need(kind == (isa.KIND_GATHER if f["out"] else isa.KIND_WALK), "WALK of the other kind")
        self.need(f["rows"] == asked["always"] + asked["trees"] * asked["levels"], f"{f['rows']} records")
        self.need(-(-f["chunks"] * self.config.tile_bytes // self.config.port_bytes) == asked["words"],
                  f"{f['chunks']} tiles of {asked['words']} words")
        self.need((f["chunks"] - 1) * self.config.rows * self.config.columns < f["length"]
                  <= f["chunks"] * self.config.rows * self.config.columns, f"{f['length']} elements")
        self.need(f["rows"] <= self.config.activation_words * self.config.columns, f"{f['rows']} codes")
        self.product(f["buffer"], f["length"] if f["out"] else f["rows"])

    def fetch(self, first, end):
        """Words come in the order of the fetches; what is stored must be in memory before it is fetched."""
        self.need(all(end <= a or b <= first for a, b in self.stored),
                  f"FETCH of words from {first} on, whose store may not be in memory")
        waiting = sum(0 if is_records(one) else one[1] for one in self.fetched)
        self.need(waiting <= 2 if self.config.memory == "onchip" else len(self.fetched) < self.queue,
                  f"FETCH behind {len(self.fetched)} of which {waiting} words have not been taken")
        late = min(self.owed, end - first)
        self.owed -= late
        if first + late < end:
            self.fetched.append([first + late, end - first - late])

    def take(self, words):
        """The next section of the stream. With memory on chip nothing is taken before it has been asked for."""
        while words and self.fetched:
            self.need(not is_records(self.fetched[0]), "a section behind the records of a walk")
            part = min(words, self.fetched[0][1])
            words -= part
            self.fetched[0] = [self.fetched[0][0] + part, self.fetched[0][1] - part]
            if not self.fetched[0][1]:
                self.fetched.popleft()
        self.owed += words
        self.need(self.config.memory != "onchip" or not self.owed, "words that nothing has asked for")

    def tiles(self, fields):
        return -(-fields["rows"] // self.config.rows) * fields["chunks"]

    def words(self, code, beat, offset, one, kind_c=False):
        """The vector word that an operand's beat uses."""
        address, plus, mod, _ = unpack(code, one, kind_c)
        if one:
            return address
        sums = isa.PARTIAL_SUMS // self.config.lanes
        return address + (offset + beat) % sums if mod else address + beat + (offset if plus else 0)

    def touch(self, key, beat, what):
        """The operation uses `key` in `beat` (None: throughout): no result may be on its way there."""
        if key in self.under_way:
            operation, written, age = self.under_way[key]
            if self.operation - operation < age and (beat is None or written != beat):
                raise self.hazard(f"{what} {key} is under way since operation {operation}, this is {self.operation}")

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
        for kind in range(3):
            self.need(len({code for k, code, _ in operands if k == kind}) <= 1, f"reads bank {kind} at two addresses")
        self.sources(f, beats)
        slots = self.active
        if self.begin is not None:
            self.need(f["a_kind"] not in (isa.A_ROW, isa.A_RANDOM) and (table or f["c_kind"] != isa.C_RANDOM)
                      and f["d_kind"] not in (isa.D_ACTIVATION0, isa.D_ACTIVATION1, isa.D_SAMPLE, isa.D_LIST)
                      and not f["peak"], "what a slot loop does not allow")
            if not (self.chained and self.begin["which"] == isa.READS):
                slots = {self.slot}
        prior = self.chained and self.begin is not None and self.begin["prior"]
        d, writes = f["d_kind"], {}
        banks = [bank for bank in range(3) if f["d_banks"] >> bank & 1]
        for beat in range(beats):
            for kind, code, is_c in operands:
                if kind < 3:
                    word = self.words(code, beat, offset, one, is_c)
                    if word >= self.config.vector_words:
                        raise self.hazard(f"word {word} of bank {kind}")
                    for slot in slots:
                        self.touch((max(slot - 1, 0) if prior and is_c else slot, kind, word), beat, "reads")
                        # A partial sum comes back after 64 / V beats: the engine waits for it.
                        earlier = writes.get((slot, kind, word))
                        if earlier and earlier[1] != beat and not unpack(code, one, is_c)[2]:
                            raise self.hazard(f"reads word {word} of bank {kind}, which an earlier beat writes")
            if d in (isa.D_VECTOR, isa.D_LIST):
                word = self.words(f["d"], beat, offset, one)
                if word >= self.config.vector_words:
                    raise self.hazard(f"word {word}")
                for slot, bank in itertools.product(slots, banks):
                    self.touch((slot, bank, word), beat, "writes")
                    writes[slot, bank, word] = self.operation, beat, THERE
        for kind, code, _ in operands:
            if kind == isa.KIND_SCALAR and code > 1:
                for slot in slots:
                    self.touch((slot, "scalar", code), None, "reads")
        if f["a_kind"] == isa.A_RANDOM or not table and f["c_kind"] == isa.C_RANDOM:
            self.touch((0, "row counter", 0), None, "reads")
        scalars = [(f["d"], THERE)] * (d == isa.D_SCALAR) + [(f["k"], LATE)] * bool(f["peak"])
        for slot, (number, age) in itertools.product(slots, scalars):
            self.touch((slot, "scalar", number), None, "writes")
            writes[slot, "scalar", number] = self.operation, None, age
        used = {number for number, _ in scalars} | {code for kind, code, _ in operands if kind == isa.KIND_SCALAR}
        self.need(not self.sampling or isa.BEST_SCALAR not in used, f"s{isa.BEST_SCALAR} is used in a sampling")
        if d in (isa.D_ACTIVATION0, isa.D_ACTIVATION1):
            buffer = d - isa.D_ACTIVATION0
            # A product whose rows have all been taken has read all its codes.
            self.need(all(b != buffer or not rows for b, rows in self.products),
                      f"codes for buffer {buffer}, which a product still reads")
            self.touch((0, "code", buffer), None, "writes")
            writes[0, "code", buffer] = self.operation, None, THERE
            self.need(beats * lanes <= self.config.activation_words * self.config.columns, f"{vl} codes")
        elif d == isa.D_MEM:
            self.need(self.config.batch == 1 or self.begin is not None, "numbers of no slot for memory")
            words = -(-4 * lanes * beats // self.config.port_bytes)
            self.need(words <= self.store_words, f"{words} words for memory, {self.store_words} announced")
            self.store_words -= words
        elif d == isa.D_LIST:
            self.need(self.config.top_k and self.sampling and not self.offered,
                      "keys of the list that no score follows")
            self.offered = 1 if one else vl
        elif d == isa.D_SAMPLE:
            self.need(self.sampling, "a score outside of a sampling")
            count = 1 if one else vl
            self.need(self.offered in (0, count), f"scores of {count} rows behind keys of {self.offered}")
            self.offered = 0
            writes[0, "row counter", 0] = self.operation, None, LATE
        self.under_way |= writes

    def sources(self, f, beats):
        """Rows come from a product issued before, words of the stream from a fetch issued before."""
        if f["a_kind"] == isa.A_ROW:
            self.need(self.products, "rows without a product")
            self.products[0][1] -= beats
            self.need(self.products[0][1] >= 0, "more rows than the product has")
            if not self.products[0][1]:
                self.products.pop(0)
        elif f["a_kind"] in (isa.A_STREAM32, isa.A_STREAM8):
            size = 4 if f["a_kind"] == isa.A_STREAM32 else 1
            self.need(not self.owed, "a section behind words that nothing has asked for")
            self.take(-(-beats * self.config.lanes * size // self.config.port_bytes))
            self.need(not self.owed, "words that nothing has asked for")


def ways(config):
    """Kinds of runs that follow each other: {slots with a token, at their start, chained and so on} of every one."""
    for at_start in (True, False):
        first = frozenset({0} if at_start else ())
        if config.batch == 1:
            yield [{"starting": first}, {"starting": frozenset()}, {"starting": frozenset()}]
            continue
        last = config.batch - 1
        some, rest = frozenset({last}), frozenset(range(config.batch))
        yield [{"active": some, "starting": some if at_start else first}, {"active": rest, "starting": first | {1}},
               {"active": rest, "starting": frozenset()}]
        yield [{"active": rest, "starting": first, "chained": True, "source": last},
               {"active": frozenset({0, 1}), "starting": frozenset(), "chained": True, "source": last,
                "drafts": True},
               {"active": frozenset({0}), "starting": frozenset(), "chained": True, "source": 1}]


def run(config, geometry, words):
    """Every way through the program: first tokens and later ones, outputs wanted or not, sampled and greedy.

    A run may leave words fetched for the next one, always the same number. Returns it.
    """
    left = set()
    for way, greedy, wanted in itertools.product(ways(config), (False, True), (False, True)):
        checker = Checker(config, words)
        # Results of one run may be under way when the next one starts, whatever that one is.
        for row, (kind, output) in enumerate(zip(way, (wanted, wanted, not wanted), strict=True)):
            left.add(checker.token(row=row % geometry[-1], wanted=output, greedy=greedy,
                                   **kind | {"drafts": kind.get("drafts", False) and output}))
    assert len(left) == 1, f"{sorted(left)} words asked for and not taken"
    return left.pop()


def random_geometry(rng, name):
    hidden, inner = SIZES[name]
    return (int(rng.integers(1, hidden)), int(rng.integers(1, inner)), int(rng.integers(1, 4)),
            int(rng.integers(2, 200)))


def test_every_preset_is_checked():
    assert SIZES.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", [*SIZES, "up5k,top_k=4", "lanes40,batch=2", "lanes40,batch=4,top_k=16", *(
    pytest.param(name, marks=pytest.mark.rest) for name in (
        "lanes10,batch=8", "sim,batch=8", "lanes160,batch=2,top_k=64"))])
def test_random_programs_keep_the_rules(name):
    rng, config = np.random.default_rng([SEED, *name.encode()]), preset(name)
    for _ in range(2 if config.batch == 1 else 1):
        geometry = random_geometry(rng, name.split(",")[0])
        print(f"geometry {geometry}")
        left = run(config, geometry, build_program(config, Geometry(*geometry)).words)
        assert bool(left) == (config.memory == "external"), f"{left} words are fetched ahead"


def changed(words, change):
    """The program with `change(opcode, fields)` applied to the fields of every instruction until it returns True."""
    words = list(words)
    for number, word in enumerate(words):
        opcode, fields = isa.decode(word)
        if change(opcode, fields):
            words[number] = isa.encode(opcode, **fields)
            return words
    raise AssertionError("nothing was changed")


# Hidden size, trees, depth, always, layers, vocabulary: with rows for more than one strip
TREES = {"lanes10": (50, 3, 2, 9, 3, 30), "lanes40": (150, 1, 6, 33, 2, 70), "lanes320": (500, 40, 1, 0, 2, 150),
         "sim,batch=4,top_k=16": (90, 9, 3, 40, 2, 20)}


@pytest.mark.parametrize("name", TREES)
def test_programs_of_trees_keep_the_rules(name):
    """The rules of "Walks" among them; and every table of a run is asked for at its place, layer by layer."""
    config, geometry = preset(name), TreeGeometry(*TREES[name])
    program = build_program(config, geometry)
    assert run(config, TREES[name], program.words)
    checker, where = Checker(config, program.words), program.memory_map
    checker.token(row=0, wanted=True, greedy=True, starting=frozenset({0}))
    size = where.tree_bytes // (2 * geometry.num_hidden_layers)
    assert checker.asked == [
        (kind, (where.tree_address + (2 * layer + table) * size) // config.port_bytes, geometry.neurons)
        for layer in range(geometry.num_hidden_layers)
        for table, kind in enumerate((isa.KIND_WALK, isa.KIND_GATHER))]


GEOMETRY = (18, 27, 2, 10)
SLOTS = "lanes40,batch=4,top_k=16"


@pytest.mark.parametrize("name, geometry", [("up5k", (18, 35, 2, 19)), ("lanes40", (45, 75, 2, 45)),
                                            ("lanes160", (45, 85, 2, 45)),
                                            ("lanes40,batch=2,top_k=4", (45, 75, 2, 45)),
                                            ("lanes40,top_k=0", (45, 7, 4, 5, 2, 45))])
def test_missing_waits_are_caught(name, geometry):
    """Every wait of a program is needed, and its lack is seen. Each strip loop goes round more than once."""
    config = preset(name)
    words = build_program(config, (TreeGeometry if len(geometry) == 6 else Geometry)(*geometry)).words
    waits = [number for number, word in enumerate(words)
             if isa.decode(word)[0] == isa.VOP and isa.decode(word)[1]["wait"]]
    unnoticed = []
    for number in waits:
        opcode, fields = isa.decode(words[number])
        without = list(words)
        without[number] = isa.encode(opcode, **(fields | {"wait": 0}))
        try:
            run(config, geometry, without)
        except Hazard as hazard:
            assert "under way" in str(hazard)
        else:
            unnoticed.append(number)
    print(f"{len(waits) - len(unnoticed)} of {len(waits)} removals are noticed")
    assert waits and unnoticed == []


@cache
def good_program(name):
    """Words of the program for GEOMETRY, which keep the rules."""
    words = build_program(preset(name), Geometry(*GEOMETRY)).words
    run(preset(name), GEOMETRY, words)
    return words


def moves_result(f):
    """Moves the result of an operation that overwrites its operand to the words behind, if it is one."""
    for name in "abc":
        if f["d_kind"] == isa.D_VECTOR and f["d"] == f[name] and f[f"{name}_kind"] < 3 and not f["one"] \
                and f["d_banks"] >> f[f"{name}_kind"] & 1 and not f["d"] & isa.FLAG_MOD:
            f["d"] += 1
            return True
    return False


@pytest.mark.parametrize("name, change, message", [
    ("sim", lambda op, f: op == isa.MATVEC and f["buffer"] and not f.update(buffer=0),
     "buffer 0, which a product still reads"),
    ("sim", lambda op, f: op == isa.VOP and moves_result(f), "which an earlier beat writes"),
    ("sim", lambda op, f: op == isa.VOP and f["a_kind"] < 3 and f["b_kind"] == isa.KIND_SCALAR
     and not f.update(b_kind=f["a_kind"], b=f["a"] + 1), "at two addresses"),
    ("sim", lambda op, f: op == isa.VOP and f["d_kind"] == isa.D_SAMPLE
     and not f.update(c_kind=isa.KIND_SCALAR, c=isa.BEST_SCALAR), "s31 is used in a sampling"),
    ("sim", lambda op, f: op == isa.SAMPLE and not f.update(end=1), "samplings that are not"),
    ("sim", lambda op, f: op == isa.SETA and not f.update(value=1 << 31), "words 2147483648 to"),
    ("sim", lambda op, f: op == isa.JUMP and f["condition"] == isa.FRESH and not f.update(condition=isa.ALWAYS),
     "FETCH behind|not taken|more rows|section|still being fetched"),
    ("sim", lambda op, f: op == isa.JUMP and f["condition"] == isa.FRESH and not f.update(condition=isa.AT_START),
     "no value since the reset|nothing has asked"),
    ("sim", lambda op, f: op == isa.STORE and not f.update(words=f["words"] + 1),
     "STORE to words|STORE before|HALT with"),
    ("up5k", lambda op, f: op == isa.FETCH and not f.update(words=f["words"] - 1), "nothing has asked|not taken"),
    ("lanes40", lambda op, f: op == isa.MATVEC and not f.update(rows=f["rows"] - 4), "rows"),
    (SLOTS, lambda op, f: op == isa.SLOT and f["which"] == isa.READS and not f.update(which=isa.ACTIVE),
     "FETCH|not taken|section"),
    (SLOTS, lambda op, f: op == isa.STORE and not f.update(words=f["words"] + 1),
     "STORE to words|STORE before|HALT with"),
    (SLOTS, lambda op, f: op == isa.VOP and f["a_kind"] == isa.A_STREAM8 and not f.update(wait=0),
     "scalar', 27.*under way"),
    (SLOTS, lambda op, f: op == isa.VOP and f["d_kind"] == isa.D_MEM and not f.update(peak=1, k=9), "does not allow"),
    (SLOTS, lambda op, f: op == isa.SLOT and not f.update(again=1), "slot loops that are not apart"),
    (SLOTS, lambda op, f: op == isa.VOP and f["d_kind"] == isa.D_LIST and not f.update(one=1),
     "scores of .* rows behind keys of 1"),
    (SLOTS, lambda op, f: op == isa.VOP and f["d_kind"] == isa.D_SAMPLE and f["negp"]
     and not f.update(d_kind=isa.D_NONE), "keys of the list"),
])
def test_broken_programs_are_caught(name, change, message):
    config, words = preset(name), good_program(name)
    with pytest.raises(AssertionError, match=message):
        run(config, GEOMETRY, changed(words, change))


def changes_walk(which, **values):
    """Changes fields of the first instruction of a walk: FETCH of a kind, or (None) WALK."""
    def change(op, f):
        return (op == isa.WALK if which is None else op == isa.FETCH and f["kind"] == which) and not f.update(values)
    return change


@pytest.mark.parametrize("change, message", [
    (changes_walk(isa.KIND_WALK, kind=isa.KIND_GATHER), "what was not visited|WALK of the other kind"),
    (changes_walk(isa.KIND_GATHER, kind=isa.KIND_WALK), "WALK of the other kind"),
    (changes_walk(isa.KIND_GATHER, always=8), "what was not visited"),
    (changes_walk(isa.KIND_WALK, levels=1), "what was not visited"),
    (changes_walk(isa.KIND_WALK, trees=4095), "rows of a walk"),
    (changes_walk(isa.KIND_SKIP, kind=isa.KIND_LINEAR), "WALK of the other kind|WALK where|section|FETCH behind"),
    (changes_walk(None, out=1), "WALK of the other kind"),
    (changes_walk(None, rows=3), "3 records"),
    (changes_walk(None, chunks=9), "9 tiles"),
    (changes_walk(None, length=1000), "1000 elements"),
    (lambda op, f: op == isa.MATVEC and f["buffer"] == 0 and f["rows"] != 18 and not f.update(rows=17), "rows"),
])
def test_broken_walks_are_caught(change, message):
    config, shape = preset("lanes10"), TREES["lanes10"]
    words = build_program(config, TreeGeometry(*shape)).words
    with pytest.raises(Hazard, match=message):
        run(config, shape, changed(words, change))


def test_a_vector_before_the_records_in_front_of_it_is_caught():
    """The first section behind the gather, taken before its WALK."""
    config, shape = preset("lanes10"), TREES["lanes10"]
    words = build_program(config, TreeGeometry(*shape)).words
    decoded = [isa.decode(word) for word in words]
    gather = next(n for n, (opcode, f) in enumerate(decoded) if opcode == isa.WALK and f["out"])
    section = next(n for n, (opcode, f) in enumerate(decoded)
                   if n > gather and opcode == isa.VOP and f["a_kind"] == isa.A_STREAM32)
    words[gather], words[section] = words[section], words[gather]
    with pytest.raises(Hazard, match="a section behind the records of a walk"):
        run(config, shape, words)


@pytest.mark.parametrize("first", [0, 1], ids=["no output", "output"])
def test_fetch_of_what_may_not_be_stored_is_caught(first):
    """Without WAITM the next token's fetches overtake the stores."""
    words = build_program(PRESETS["sim"], Geometry(*GEOMETRY)).words
    numbers = [number for number, word in enumerate(words) if isa.decode(word)[0] == isa.WAITM]
    assert len(numbers) == 2
    words[numbers[first]] = isa.encode(isa.JUMP, condition=isa.ALWAYS, target=numbers[first] + 1)
    with pytest.raises(Hazard, match="whose store may not be in memory"):
        run(PRESETS["sim"], GEOMETRY, words)
