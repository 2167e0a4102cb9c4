"""Assembler: a builder with labels and automatic ``wait`` flags, and the text form that the disassembler prints."""

import re
from itertools import combinations

from sterna.firmware import isa
from sterna.firmware.isa import IsaError, Operand


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

    def __len__(self):
        return len(self._code)

    def label(self, name):
        """Give the next instruction a name. AssemblerError: the name is taken."""
        if name in self.labels:
            raise AssemblerError(f"label {name!r} is defined twice")
        self.labels[name] = len(self._code)

    def emit(self, opcode, **fields):
        """Append any instruction but a VOP; ``target`` may be a label defined later."""
        isa.encode(opcode, **{k: v for k, v in fields.items() if not isinstance(v, str)})
        self._code.append((opcode, fields, None))

    def vop(self, d=isa.NOWHERE, a=isa.ZERO, b=isa.ONE, c=isa.ZERO, *, one=False, wait=False, negp=False, negc=False,
            table="NONE", maximum=None, minimum=None):
        """Append r = (+-) a * b + (+-) c to d; ``maximum`` or ``minimum`` is the scalar register of the peak.

        AssemblerError: two reads of one bank at different addresses, or a value that its field cannot hold.
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
            if not 0 <= operand.rotate < self.lanes or operand.rotate and not (one and name == "c"):
                raise AssemblerError(f"{where} {name} rotate {operand.rotate}: only c of a one-element "
                                     "operation, below V")
        if d.kind == isa.D_VECTOR and not d.banks:
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

    def _accesses(self, index):
        """``(reads, writes, late)`` of a VOP as sets of (space, first, end, beats): the analysis compares these.
        ``late`` are those of the writes that take longer.

        Two accesses with equal ``beats``, unless that is None, touch a common word in the same beat.
        """
        _, fields, operands = self._code[index]
        reads, writes, late = set(), set(), set()

        def span(operand):
            first, end = operand.address, operand.address + 1
            plus, mod = operand.plus, operand.mod
            if fields["one"]:
                plus = mod = False
            elif operand.words is None:
                first, end = 0, 1 << 14
            else:
                end = first + operand.words
            return first, end, None if mod else (operand.address, plus)

        table = 1 <= fields["table"] <= 5
        for position, operand in enumerate(operands[:1] if table else operands[:3]):
            if operand.kind < 3:
                reads.add((operand.kind, *span(operand)))
            elif operand.kind == isa.KIND_SCALAR and operand.address > 1:
                reads.add(("s", operand.address, operand.address + 1, None))
            elif operand.kind == (isa.C_RANDOM if position == 2 else isa.A_RANDOM):
                reads.add(("row counter", 0, 1, None))
        d = operands[3]
        if d.kind == isa.D_VECTOR:
            writes.update((number, *span(d)) for number in range(3) if d.banks >> number & 1)
        elif d.kind == isa.D_SCALAR:
            writes.add(("s", d.address, d.address + 1, None))
        elif d.kind in (isa.D_ACTIVATION0, isa.D_ACTIVATION1):
            writes.add(("q", d.kind, d.kind + 1, None))
        elif d.kind == isa.D_SAMPLE:
            late.add(("row counter", 0, 1, None))  # comparisons among themselves stay in order
        if fields["peak"]:
            late.add(("s", fields["k"], fields["k"] + 1, None))
        return reads, writes | late, late

    def _successors(self, index):
        opcode, fields, _ = self._code[index]
        if opcode == isa.HALT:
            return (0,)  # the next token's program starts while the last results are still under way
        following = (index + 1,) if index + 1 < len(self._code) else ()
        if opcode == isa.JUMP and fields.get("condition", 0) == isa.ALWAYS:
            return (self._target(fields),)
        return (*following, self._target(fields)) if "target" in fields else following

    def waits(self):
        """Set of the VOPs (instruction numbers) that must wait.

        A VOP waits when the one before it, on any path, has a result that it reads or writes, or the one before
        that a peak or a row count: these may still be under way, unless a VOP in between waited. Only results
        matter: operands are read in program order. A result that is met in the beat that wrote it is no longer
        under way (docs/isa.md).
        """
        count = len(self._code)
        vops = [i for i in range(count) if self._code[i][0] == isa.VOP]
        accesses = {i: self._accesses(i) for i in vops}

        def clashes(which):
            """{VOP i: bits j}: VOP j writes what VOP i touches."""
            found = dict.fromkeys(vops, 0)
            for i in vops:
                touched = accesses[i][0] | {w for w in accesses[i][1] if w[0] != "row counter"}
                for j in vops:
                    if any(s == t and a < d and c < b and (k is None or k != n)
                           for s, a, b, k in accesses[j][which] for t, c, d, n in touched):
                        found[i] |= 1 << j
            return found

        clash = clashes(1), clashes(2)
        successors = [self._successors(i) for i in range(count)]
        asked = {i for i in vops if self._code[i][1]["wait"]}

        def late(waiting):
            """First VOP that meets a result under way although it does not wait, or None."""
            entry = [(0, 0)] * count  # the VOPs that may have come last, and those that may have come before them
            todo = list(range(count))
            while todo:
                i = todo.pop()
                leaving = entry[i]
                if i in accesses:
                    leaving = 1 << i, 0 if i in waiting else leaving[0]
                for j in successors[i]:
                    merged = entry[j][0] | leaving[0], entry[j][1] | leaving[1]
                    if merged != entry[j]:
                        entry[j] = merged
                        todo.append(j)
            return next((i for i in vops if i not in waiting
                         and any(bits & c[i] for bits, c in zip(entry[i], clash, strict=True))), None)

        waiting = set(asked)
        while (found := late(waiting)) is not None:
            waiting.add(found)
        # A wait that was chosen first may be covered by one chosen later, round a loop: drop what is not needed.
        for i in sorted(waiting - asked):
            if late(waiting - {i}) is None:
                waiting.remove(i)
        return waiting

    def words(self, auto_wait=True):
        """The program as 96-bit integers. AssemblerError: a label is missing or the program is too long."""
        if len(self._code) > self.program_words:
            raise AssemblerError(f"program of {len(self._code)} instructions: the device holds {self.program_words}")
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


_VECTOR = re.compile(r"b([0-2]+)\[(\d+)(\+?)(%?)(?:>(\d+))?\]$")
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
    if not match or name != "d" and len(match[1]) > 1:
        raise AssemblerError(f"operand {name}={text}: not a bank, scalar register or source")
    flags = {"plus": bool(match[3]), "mod": bool(match[4]), "rotate": int(match[5] or 0)}
    if name == "d":
        return Operand(isa.D_VECTOR, int(match[2]), banks=sum(1 << int(n) for n in set(match[1])), **flags)
    return Operand(int(match[1]), int(match[2]), **flags)


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
        elif value is None:
            raise AssemblerError(f"field {key!r} has no value")
        else:
            fields[key] = int(value, 0) if value[:1].isdigit() else value
    for key, value in fields.items():
        if isinstance(value, str) and key != "target":
            raise AssemblerError(f"field {key} {value!r}: not a number")
    result.emit(opcode, **fields)
