"""Random programs, and what docs/isa.md says that they send to the engines."""

from sterna.firmware import isa
from sterna.firmware.assembler import Assembler
from sterna.hw.array.control import DENSE, WALK
from sterna.hw.control.sequencer import Widths


def random_program(random, config):
    """Instructions (list of int): every opcode, jumps of every condition, a strip, a layer and with B > 1 slot loops;
    ends with HALT.
    """
    asm = Assembler(config.lanes, config.program_words)
    bits = config.word_address_bits
    width = Widths.of(config)
    most = {"elements": 1 << width.element_bits - 1, "loop": 1 << width.loop_bits - 1,
            "strip": min(65535, config.vector_words * config.lanes)}

    def straight(count, slots=False):
        for _ in range(count):
            pick = random.choice([0, 1, 2, 6, 8, 10]) if slots else random.randrange(11)
            areg = random.randrange(4)
            if pick == 0:
                kinds = range(4) if config.tree_rows and not slots else (isa.KIND_LINEAR, isa.KIND_SKIP)
                asm.emit(isa.FETCH, areg=areg, words=random.randint(1, 5000), kind=random.choice(kinds),
                         trees=random.randint(0, config.tree_rows), levels=random.getrandbits(5),
                         always=random.randint(0, config.tree_rows))
            elif pick == 1:
                asm.emit(isa.SETA, areg=areg, value=random.getrandbits(bits))
            elif pick == 2:
                asm.emit(isa.ROWA, areg=areg, base=random.getrandbits(bits), stride=random.randint(1, 400))
            elif pick == 3:
                product = {"buffer": random.randrange(2), "rows": random.randint(1, 1 << 24) - 1,
                           "chunks": random.randint(1, 1000)}
                if config.tree_rows and random.random() < 0.5:
                    asm.emit(isa.WALK, out=random.randrange(2), length=random.getrandbits(16), **product)
                else:
                    asm.emit(isa.MATVEC, **product)
            elif pick == 4:
                asm.emit(isa.STRIP, elements=random.choice([random.randint(1, 900), most["strip"], most["elements"]]),
                         strip=random.choice([16, 32, 200, most["strip"]]))
            elif pick == 5:
                asm.emit(isa.WAITM)
            elif pick == 6:
                asm.emit(isa.STORE, areg=areg, words=random.randint(1, 5000))
            elif pick == 7:
                asm.emit(isa.SAMPLE, end=0)
            elif pick == 8:
                label = f"after {len(asm)}"
                asm.emit(isa.JUMP, condition=random.randrange(6 + (config.batch > 1)), target=label)
                straight(random.randint(1, 2), slots)
                asm.label(label)
            else:
                a = [isa.ZERO, isa.STREAM32, isa.STREAM8, isa.bank(1, 7, plus=True), isa.ROW]
                d = [isa.MEM, isa.to_scalar(5), isa.to_banks(3, 9, plus=True), isa.to_activation(1)]
                # Not the last in a slot loop.
                a, d = (random.choice(kinds[:-1] if slots else kinds) for kinds in (a, d))
                asm.vop(d, a, one=random.random() < 0.3)

    def slot_loop(which, prior):
        asm.emit(isa.SLOT, which=which, prior=prior)
        asm.label(f"slots {len(asm)}")
        target = f"slots {len(asm)}"
        straight(random.randint(0, 5), slots=True)
        if random.random() < 0.3:
            asm.emit(isa.MATVEC, buffer=1, rows=7, chunks=3)  # executed for every slot
        asm.emit(isa.SLOT, again=1, target=target)

    straight(6)
    if config.batch > 1:
        for which in random.sample(range(4), 4):
            slot_loop(which, random.randrange(2))
            straight(random.randint(0, 2))
    asm.emit(isa.LOOP, count=most["loop"])
    asm.emit(isa.AGAIN, target="many layers left")
    asm.emit(isa.WAITM)
    asm.emit(isa.FETCH, areg=0, words=77)
    asm.label("many layers left")
    asm.emit(isa.LOOP, count=random.randint(1, 3))
    asm.label("layer")
    straight(6)
    strip = random.choice([16, 32, 64])
    asm.emit(isa.STRIP, elements=random.randint(1, 4 * strip), strip=strip)
    asm.label("strip")
    asm.vop(isa.to_banks(1, 3, plus=True), isa.ROW)
    asm.emit(isa.NEXT, target="strip", strip=strip,
             step=random.choice([random.randint(1, 9), random.getrandbits(14)]))
    asm.vop(isa.MEM, isa.STREAM32)
    if config.batch > 1:
        slot_loop(random.randrange(4), 1)
    asm.emit(isa.NEXT, target="strip", strip=strip, step=1)  # nothing is left: falls through
    asm.emit(isa.AGAIN, target="layer")
    straight(4)
    asm.emit(isa.SAMPLE, end=0)
    asm.emit(isa.SAMPLE, end=1)
    asm.emit(isa.HALT)
    return asm.words(auto_wait=False)


class Model:
    """What docs/isa.md says that a program sends to each output.

    ``masks`` of a run: the slots of each kind, bit by bit. ``tokens``: that of each slot.
    """

    def __init__(self, config):
        self.batch, self.walks = config.batch, config.tree_rows
        self.mask = (1 << config.word_address_bits) - 1
        self.offset_mask = (1 << Widths.of(config).offset_bits) - 1
        self.sent = {name: [] for name in ("vector", "product", "fetch", "store", "section")}
        self.fresh = True  # no token has ended yet
        self.a, self.off, self.left, self.vl, self.loop, self.samples = [0] * 4, 0, 0, 0, 0, 0

    def _vector(self, word, start, looping, spreads, slot, chains):
        self.sent["vector"].append({
            "word": word, "count": self.vl, "offset": self.off, "start": start,
            "slots": 1 << slot | 256 - (1 << self.batch) if looping and not spreads else 255, "slot": slot,
            "prior": chains})

    def run(self, program, tokens, unwanted, at_start, greedy, chained=0, masks=None):
        """One run; returns True if it ends with HALT, False with a fault."""
        pc = slot = looping = chosen = spreads = chains = 0
        while True:
            try:
                opcode, f = isa.decode(program[pc])
            except isa.IsaError:
                return False
            pc += 1
            skips = looping and not chosen >> slot & 1
            if opcode == isa.HALT:
                self.fresh = False
                return True
            if opcode == isa.SLOT and self.batch > 1:
                if not f["again"]:
                    slot, looping, chosen = 0, 1, masks[isa.WHICH[f["which"]]]
                    spreads, chains = chained and f["which"] == isa.READS, chained & f["prior"]
                elif looping and slot + 1 < self.batch:
                    slot, pc = slot + 1, f["target"]
                else:
                    slot = looping = chains = 0
            elif opcode == isa.VOP:
                if skips:
                    continue
                if f["a_kind"] in (isa.A_STREAM32, isa.A_STREAM8):
                    self.sent["section"].append(0)
                self._vector(program[pc - 1], 0, looping, spreads, slot, chains)
            elif isa.is_walk(opcode, f) and not self.walks:
                return False
            elif opcode in (isa.MATVEC, isa.WALK):
                self.sent["section"].append(1)
                mode = WALK + f.pop("out") if opcode == isa.WALK else DENSE
                self.sent["product"].append({"mode": mode, "length": 0} | f)
            elif opcode in (isa.FETCH, isa.STORE):
                name = "fetch" if opcode == isa.FETCH else "store"
                areg, kind = f.pop("areg"), f.get("kind")
                if not skips and kind != isa.KIND_SKIP:
                    self.sent[name].append({"address": self.a[areg]} | (f if self.walks or opcode == isa.STORE else
                                                                        {"words": f["words"]}))
                if not isa.is_walk(opcode, f):
                    self.a[areg] = self.a[areg] + f["words"] & self.mask
            elif opcode == isa.SETA:
                self.a[f["areg"]] = f["value"] & self.mask
            elif opcode == isa.ROWA:
                self.a[f["areg"]] = f["base"] + tokens[slot] * f["stride"] & self.mask
            elif opcode == isa.STRIP:
                self.left, self.off, self.vl = f["elements"], 0, min(f["elements"], f["strip"])
            elif opcode == isa.NEXT:
                self.left = max(0, self.left - f["strip"])
                self.off = self.off + f["step"] & self.offset_mask
                if self.left:
                    self.vl, pc = min(f["strip"], self.left), f["target"]
            elif opcode == isa.LOOP:
                self.loop = f["count"]
            elif opcode == isa.AGAIN:
                self.loop -= 1
                pc = f["target"] if self.loop > 0 else pc
            elif opcode == isa.JUMP:
                if f["condition"] > (isa.CHAINED if self.batch > 1 else isa.FRESH):
                    return False
                taken = (True, self.loop == 1, unwanted, greedy, at_start, self.fresh, chained)[f["condition"]]
                pc = f["target"] if taken else pc
            elif opcode == isa.SAMPLE and f["end"]:
                self.samples += 1
            elif opcode == isa.SAMPLE:
                self._vector(program[pc - 1], 1, looping, spreads, slot, chains)
            elif opcode == isa.SLOT:
                return False
