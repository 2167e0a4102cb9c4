"""Disassembler: one line of text per instruction, which `sterna.firmware.assembler.parse` reads back."""

from sterna.firmware import isa

_SOURCES = {isa.A_ROW: "row", isa.A_STREAM32: "stream32", isa.A_STREAM8: "stream8", isa.A_RANDOM: "random"}
_DESTINATIONS = {isa.D_ACTIVATION0: "q0", isa.D_ACTIVATION1: "q1", isa.D_MEM: "mem", isa.D_SAMPLE: "sample"}


def _vector(banks, code, one=False, kind_c=False, space="b"):
    address, plus, mod, rotate = isa.unpack(code, one, kind_c)
    return f"{space}{banks}[{address}{'+' * plus}{'%' * mod}{f'>{rotate}' if rotate else ''}]"


def _vop(f):
    parts = [name for name in ("one", "wait", "negp", "negc") if f[name]]
    for name, last in (("table", len(isa.TABLES) - 1), ("peak", isa.PEAK_MIN), ("c_kind", isa.C_RANDOM),
                       ("d_kind", isa.D_LIST)):
        if f[name] > last:
            raise isa.IsaError(f"VOP {name} {f[name]}: reserved code, use 0 to {last}")
    if f["table"]:
        parts.append(f"table={isa.TABLES[f['table']]}")
    if f["peak"]:
        parts.append(f"{('', 'maximum', 'minimum')[f['peak']]}=s{f['k']}")
    if f["d_kind"] in (isa.D_VECTOR, isa.D_LIST):
        banks = "".join(str(n) for n in range(3) if f["d_banks"] >> n & 1)
        parts.append("d=" + _vector(banks, f["d"], space="b" if f["d_kind"] == isa.D_VECTOR else "list"))
    elif f["d_kind"] == isa.D_SCALAR:
        parts.append(f"d=s{f['d']}")
    elif f["d_kind"]:
        parts.append("d=" + _DESTINATIONS[f["d_kind"]])
    for name, default in (("a", 0), ("b", 1), ("c", 0)):
        kind, code = f[name + "_kind"], f[name]
        if kind < 3:
            parts.append(f"{name}=" + _vector(kind, code, f["one"], name == "c"))
        elif kind == isa.KIND_SCALAR:
            if code != default:
                parts.append(f"{name}=s{code}")
        else:
            parts.append(f"{name}=" + (_SOURCES[kind] if name == "a" else "random"))
    return parts


def line(word):
    """Text of one 96-bit instruction. IsaError: it has no text form."""
    opcode, fields = isa.decode(word)
    name = isa.OPCODE_NAMES[opcode]
    if opcode == isa.VOP:
        return " ".join([name, *_vop(fields)])
    if opcode == isa.JUMP and fields["condition"] < len(isa.CONDITIONS):
        fields["condition"] = isa.CONDITIONS[fields["condition"]]
    if opcode == isa.FETCH:  # a linear one is written without the fields of trees
        shape = {key: value for key, value in fields.items() if key not in ("areg", "words") and value}
        if "kind" in shape:
            shape["kind"] = isa.FETCH_KINDS[shape["kind"]]
        fields = {"areg": fields["areg"], **shape, "words": fields["words"]}
    if opcode == isa.SLOT:  # the fields of one of its two forms
        if not fields["again"]:
            fields["which"] = isa.WHICH[fields["which"]]
        fields = {key: value for key, value in fields.items() if value}
    return " ".join([name, *(f"{key}={value}" for key, value in fields.items())])


def disassemble(words):
    """Text of a program, one instruction a line."""
    return "".join(line(word) + "\n" for word in words)
