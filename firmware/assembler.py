"""Assembler: a builder with labels and automatic ``wait`` flags, and the text form that the disassembler prints."""

import re
from itertools import combinations

from sterna.firmware import isa
from sterna.firmware.isa import IsaError, Operand
from sterna.firmware.waits import waiting_operations


class AssemblerError(IsaError):
    """A program that cannot be assembled; the message names the instruction."""


class Assembler:
    """Collects instructions; jump targets are labels or instruction numbers.

    Parameters
    ----------
    lanes : int
        V of the device (the partial sums take 64 / V words).
    program_words : int
        Instructions that the program memory holds.
    """

    def __init__(self, lanes, program_words=1024):
        self.lanes = lanes
        self.program_words = program_words
        self.labels = {}
        self._code = []  # (opcode, fields, operands of a VOP or None)
        self._loop = None  # number of the SLOT that has begun the present slot loop
        self._ends = {}    # {SLOT that begins a slot loop: SLOT that ends it}

    def __len__(self):
        return len(self._code)

    def label(self, name):
        """Give the next instruction a name. AssemblerError: the name is taken."""
        if name in self.labels:
            raise AssemblerError(f"label {name!r} is defined twice")
        self.labels[name] = len(self._code)

    def emit(self, opcode, **fields):
        """Append any instruction but a VOP; ``target`` may be a label defined later.

        AssemblerError: a slot loop in another, an end of one that has not begun, fields of the other form of SLOT, or
        a walk in a slot loop.
        """
        isa.encode(opcode, **{k: v for k, v in fields.items() if not isinstance(v, str)})
        if self._loop is not None and isa.is_walk(opcode, fields):
            raise AssemblerError(f"instruction {len(self._code)}: {isa.OPCODE_NAMES[opcode]} of a walk in a slot "
                                 "loop: use it outside")
        if opcode == isa.SLOT:
            self._slot(fields)
        self._code.append((opcode, fields, None))

    def _slot(self, fields):
        where = f"instruction {len(self._code)}: SLOT"
        if not fields.get("again", 0):
            if self._loop is not None:
                raise AssemblerError(f"{where} in the slot loop of instruction {self._loop}: end that one first")
            if fields.get("target", 0):
                raise AssemblerError(f"{where} begins a loop, which takes no target")
            self._loop = len(self._code)
        else:
            if self._loop is None:
                raise AssemblerError(f"{where} ends no slot loop")
            if fields.get("which", 0) or fields.get("prior", 0):
                raise AssemblerError(f"{where} ends a loop: which and prior belong to its begin")
            self._ends[self._loop] = len(self._code)
            self._loop = None

    def slots(self, which, body, prior=False):
        """Append a slot loop over the slots ``which``; ``body()`` appends what it repeats."""
        self.emit(isa.SLOT, which=which, prior=int(prior))
        first = len(self._code)
        body()
        self.emit(isa.SLOT, again=1, target=first)

    def vop(self, d=isa.NOWHERE, a=isa.ZERO, b=isa.ONE, c=isa.ZERO, *, one=False, wait=False, negp=False, negc=False,
            table="NONE", maximum=None, minimum=None):
        """Append r = (+-) a * b + (+-) c to d; ``maximum`` or ``minimum`` is the scalar register of the peak.

        AssemblerError: two reads of one bank at different addresses, a value that its field cannot hold, or an
        operand that a slot loop does not allow.
        """
        where = f"instruction {len(self._code)}: VOP"
        for x, y in combinations([o for o in (a, b, c) if o.kind < 3], 2):
            if x.kind == y.kind and x.code != y.code:
                raise AssemblerError(f"{where} reads bank {x.kind} at words {x.address} and {y.address}")
        for name, operand in (("a", a), ("b", b), ("c", c), ("d", d)):
            is_scalar = operand.kind == (isa.D_SCALAR if name == "d" else isa.KIND_SCALAR)
            limit = isa.SCALARS if is_scalar else 1 << (isa.ROTATE_LSB if one and name == "c" else 14)
            if not 0 <= operand.address < limit:
                raise AssemblerError(f"{where} {name} address {operand.address}: use 0 to {limit - 1}")
            turn = operand.rotate
            if not 0 <= turn < self.lanes or turn & turn - 1 or turn and not (one and name == "c"):
                raise AssemblerError(f"{where} {name} rotate {turn}: only c of a one-element operation, "
                                     "a power of two below V")
        if self._loop is not None:
            peaked = maximum is not None or minimum is not None
            operands = {"a": a, "c": c, "d": d}
            found = [text for text, kinds, name in isa.NOT_IN_SLOT_LOOPS if operands[name].kind in kinds]
            if found or peaked:
                raise AssemblerError(f"{where} in a slot loop has {(found or ['a peak'])[0]}: use it outside")
        if d.kind in (isa.D_VECTOR, isa.D_LIST) and not d.banks:
            raise AssemblerError(f"{where} writes a vector to no bank")
        if d.kind == isa.D_SCALAR and d.address < 2:
            raise AssemblerError(f"{where} writes s{d.address}, which is constant")
        if 1 <= isa.TABLE[table] <= 5 and (negp or negc or b != isa.ONE or c != isa.ZERO):
            raise AssemblerError(f"{where} table {table} takes b, c and their signs from the table")
        if maximum is not None and minimum is not None:
            raise AssemblerError(f"{where} has one peak only")
        peak = isa.PEAK_MAX if maximum is not None else isa.PEAK_MIN if minimum is not None else isa.PEAK_NONE
        k = maximum if maximum is not None else minimum if minimum is not None else 0
        fields = {"one": int(one), "wait": int(wait), "negp": int(negp), "negc": int(negc), "table": isa.TABLE[table],
                  "peak": peak, "k": k, "a_kind": a.kind, "b_kind": b.kind, "c_kind": c.kind, "d_kind": d.kind,
                  "d_banks": d.banks, "a": a.code, "b": b.code, "c": c.code, "d": d.code}
        isa.encode(isa.VOP, **fields)
        self._code.append((isa.VOP, fields, (a, b, c, d)))

    def _target(self, fields):
        target = fields["target"]
        if isinstance(target, str):
            if target not in self.labels:
                raise AssemblerError(f"label {target!r} is not defined")
            target = self.labels[target]
        if target >= len(self._code):
            raise AssemblerError(f"target {target}: the program has {len(self._code)} instructions")
        return target

    def _successors(self, index):
        opcode, fields, _ = self._code[index]
        if opcode == isa.HALT:
            return (0,)  # the next token's program starts while the last results are still under way
        following = (index + 1,) if index + 1 < len(self._code) else ()
        if opcode == isa.SLOT:
            # A slot that is not meant executes no VOP, as if the way led from one end of the loop to the other.
            if not fields.get("again", 0):
                return (*following, self._ends[index])
            return (*following, self._target(fields), index)
        if opcode == isa.JUMP and fields.get("condition", 0) == isa.ALWAYS:
            return (self._target(fields),)
        return (*following, self._target(fields)) if "target" in fields else following

    def waits(self):
        """Set of the VOPs (instruction numbers) that must wait; see ``sterna.firmware.waits``."""
        vops = {i: (fields, operands) for i, (opcode, fields, operands) in enumerate(self._code) if opcode == isa.VOP}
        return waiting_operations(vops, [self._successors(i) for i in range(len(self._code))])

    def words(self, auto_wait=True):
        """The program as 96-bit integers.

        AssemblerError: a label or the end of a slot loop is missing, or the program is too long.
        """
        if len(self._code) > self.program_words:
            raise AssemblerError(f"program of {len(self._code)} instructions: the device holds {self.program_words}")
        if self._loop is not None:
            raise AssemblerError(f"the slot loop of instruction {self._loop} has no end")
        for begin, end in self._ends.items():
            if self._target(self._code[end][1]) != begin + 1:
                raise AssemblerError(f"instruction {end}: SLOT goes back to the instruction behind the begin of its "
                                     f"loop, which is {begin + 1}")
        waiting = self.waits() if auto_wait else ()
        result = []
        for index, (opcode, fields, _) in enumerate(self._code):
            fields = dict(fields)
            if "target" in fields:
                fields["target"] = self._target(fields)
            if index in waiting:
                fields["wait"] = 1
            result.append(isa.encode(opcode, **fields))
        return result


_VECTOR = re.compile(r"(b|list)([0-2]+)\[(\d+)(\+?)(%?)(?:>(\d+))?\]$")
_KEYWORDS = {"a": {"row": isa.ROW, "stream32": isa.STREAM32, "stream8": isa.STREAM8, "random": isa.RANDOM}, "b": {},
             "c": {"random": isa.RANDOM_LN2},
             "d": {"none": isa.NOWHERE, "q0": isa.to_activation(0), "q1": isa.to_activation(1), "mem": isa.MEM,
                   "sample": isa.TO_SAMPLE}}


def _operand(name, text):
    if text in _KEYWORDS[name]:
        return _KEYWORDS[name][text]
    if re.fullmatch(r"s\d+", text):
        return isa.to_scalar(int(text[1:])) if name == "d" else isa.scalar(int(text[1:]))
    match = _VECTOR.match(text)
    if not match or name != "d" and (match[1] != "b" or len(match[2]) > 1):
        raise AssemblerError(f"operand {name}={text}: not a bank, scalar register or source")
    _, banks, address, plus, mod, rotate = match.groups()
    flags = {"plus": bool(plus), "mod": bool(mod), "rotate": int(rotate or 0)}
    if name == "d":
        kind = isa.D_VECTOR if match[1] == "b" else isa.D_LIST
        return Operand(kind, int(address), banks=sum(1 << int(n) for n in set(banks)), **flags)
    return Operand(int(banks), int(address), **flags)


def parse(text, lanes, program_words=1024):
    """Assembler holding the program of ``text``: one instruction a line, ``name:`` labels, ``#`` comments.

    ``wait`` stands where the text has it; ``words(auto_wait=False)`` leaves it at that.
    AssemblerError names the line.
    """
    result = Assembler(lanes, program_words)
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        try:
            if line.endswith(":"):
                result.label(line[:-1])
            elif line:
                _parse_line(result, line)
        except (ValueError, KeyError) as error:
            raise AssemblerError(f"line {number}: {error}") from None
    return result


def _parse_line(result, line):
    name, *parts = line.split()
    if name not in isa.OPCODE_NAMES:
        raise AssemblerError(f"unknown instruction {name!r}")
    opcode = isa.OPCODE_NAMES.index(name)
    pairs = dict(part.split("=", 1) if "=" in part else (part, None) for part in parts)
    if opcode == isa.VOP:
        options = {}
        for key, value in pairs.items():
            if value is None and key in ("one", "wait", "negp", "negc"):
                options[key] = True
            elif key in ("maximum", "minimum"):
                options[key] = int(value.removeprefix("s"))
            elif key == "table" and value in isa.TABLE:
                options[key] = value
            elif key in _KEYWORDS and value is not None:
                options[key] = _operand(key, value)
            else:
                raise AssemblerError(f"unknown VOP field {key!r}")
        result.vop(**options)
        return
    fields = {}
    for key, value in pairs.items():
        if key == "condition" and value in isa.CONDITIONS:
            fields[key] = isa.CONDITIONS.index(value)
        elif key == "which" and value in isa.WHICH:
            fields[key] = isa.WHICH.index(value)
        elif key == "kind" and value in isa.FETCH_KINDS:
            fields[key] = isa.FETCH_KINDS.index(value)
        elif value is None:
            raise AssemblerError(f"field {key!r} has no value")
        else:
            fields[key] = int(value, 0) if value[:1].isdigit() else value
    for key, value in fields.items():
        if isinstance(value, str) and key != "target":
            raise AssemblerError(f"field {key} {value!r}: not a number")
    result.emit(opcode, **fields)
