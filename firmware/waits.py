"""Which vector operations must wait for results that are still under way (docs/isa.md, the end of "VOP")."""

from sterna.firmware import isa


def _accesses(fields, operands):
    """``(reads, writes, late)`` of a VOP as sets of (space, first, end, beats): the analysis compares these.
    ``late`` are those of the writes that take longer.

    Two accesses with equal ``beats``, unless that is None, touch a common word in the same beat.
    """
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
    if d.kind in (isa.D_VECTOR, isa.D_LIST):
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

def waiting_operations(vops, successors):
    """Set of the VOPs (instruction numbers) that must wait.

    Parameters
    ----------
    vops : dict
        {instruction number: (fields, operands)} in ascending order.
    successors : list
        The instructions that may follow each one.

    Notes
    -----
    A VOP waits when the one before it, on any path, has a result that it reads or writes, or the one before
    that a peak or a row count: these may still be under way, unless a VOP in between waited. Only results
    matter: operands are read in program order. A result that is met in the beat that wrote it is no longer
    under way. Slots are not told apart: a word is under way if that of any slot is.
    """
    count = len(successors)
    accesses = {i: _accesses(*vop) for i, vop in vops.items()}

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
    asked = {i for i, (fields, _) in vops.items() if fields["wait"]}

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

