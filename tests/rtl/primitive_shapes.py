"""Small units in Verilog whose synthesis uses every primitive that a netlist may have, in every way that is modelled.

Each unit is the text of a module ``unit`` with a clock, random inputs ``r`` (96 bits) and an output ``q`` (72 bits).
Reads at the place of a write by another port, whose result is undefined in hardware, do not occur.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Text of a unit, what its netlist must contain, and whether reads may collide with writes of the same port."""

    text: str
    uses: tuple
    collides: bool = False


def _unit(body):
    return f"module unit(input clk, input [95:0] r, output [71:0] q);\n{body}endmodule\n"


def _memory(width, bits, style="block"):
    # Contents that differ in every word, all bits of the word number in them.
    return (f'    (* ram_style = "{style}" *) reg [{width - 1}:0] m [0:{(1 << bits) - 1}];\n    integer k;\n'
            f"    initial for (k = 0; k < {1 << bits}; k = k + 1) m[k] = k * 40503 >> 3 ^ k;\n")


def _masked(target, lanes, grain):
    """Text that writes ``grain`` bits of d where a bit of r says so."""
    return "".join(f"        if (r[{k}]) {target}[{k * grain} +: {grain}] <= d[{k * grain} +: {grain}];\n"
                   for k in range(lanes))


def _single(width, bits, collision, grain=0, edge="posedge"):
    """One port that reads and writes, bits [grain] at a time; ``collision`` is what a read sees of its own write."""
    lanes = width // grain if grain else 1
    grain = grain or width
    write, new = _masked("m[a]", lanes, grain), _masked("o", lanes, grain)
    read = {"old": "        o <= m[a];\n", "new": f"        o <= m[a];\n{new}",
            "unchanged": f"        if (~|r[{lanes - 1}:0]) o <= m[a];\n"}[collision]
    return _unit(_memory(width, bits) + f"""    wire [{bits - 1}:0] a = r[95 -: {bits}];
    wire [{width - 1}:0] d = r[{7 + width}:8];
    reg [{width - 1}:0] o = 0;
    always @({edge} clk) if (r[7]) begin
{write}{read}    end
    assign q = o;
""")


def _write_read(width, bits, grain=0, factor=1, reset="", style="block"):
    """One port that writes words of ``width`` bits, ``grain`` at a time, and one that reads ``factor`` of them."""
    lanes = width // grain if grain else 1
    grain = grain or width
    write = _masked("m[a]", lanes, grain)
    words = ", ".join(f"m[{{b, {k}}}]" for k in reversed([f"{factor.bit_length() - 1}'d{k}" for k in range(factor)]))
    word = f"{{{words}}}" if factor > 1 else "m[b]"
    low = factor.bit_length() - 1  # of the address, not in that of the port that reads
    read = {"": f"always @(posedge clk) if (r[7]) o <= {word};",
            "sync": f"always @(posedge clk) if (r[6]) o <= 0; else if (r[7]) o <= {word};",
            "async": f"always @(posedge clk, posedge r[6]) if (r[6]) o <= 0; else if (r[7]) o <= {word};",
            "none": f"always @* o = {word};"}[reset]
    return _unit(_memory(width, bits, style) + f"""    wire [{bits - 1}:0] a = r[95 -: {bits}];
    wire [{bits - low - 1}:0] b = {{~a[{bits - 1}], r[80 -: {bits - low - 1}]}};
    wire [{width - 1}:0] d = r[{7 + width}:8];
    reg [{width * factor - 1}:0] o;
    initial o = 0;
    always @(posedge clk) begin
{write}    end
    {read}
    assign q = o;
""")


def _two_writers(width, bits, factor=1):
    """Two ports that both read and write, the second one ``factor`` words at once."""
    low = factor.bit_length() - 1
    places = [f"{{b, {low}'d{k}}}" if factor > 1 else "b" for k in range(factor)]
    writes = "".join(f"        if (r[1]) m[{place}] <= e[{k * width} +: {width}];\n"
                     for k, place in enumerate(places))
    word = "{" + ", ".join(f"m[{place}]" for place in reversed(places)) + "}"
    return _unit(_memory(width, bits) + f"""    wire [{bits - 1}:0] a = r[95 -: {bits}];
    wire [{bits - low - 1}:0] b = {{~a[{bits - 1}], r[80 -: {bits - low - 1}]}};
    wire [{width - 1}:0] d = r[{7 + width}:8];
    wire [{width * factor - 1}:0] e = r[{26 + width * factor}:27];
    reg [{width - 1}:0] o = 0;
    reg [{width * factor - 1}:0] p = 0;
    always @(posedge clk) if (r[2]) begin
        if (r[0]) m[a] <= d;
        else o <= m[a];
    end
    always @(posedge clk) if (r[3]) begin
{writes}        if (~r[1]) p <= {word};
    end
    assign q = {{p, o}};
""")


def _product(a_bits, b_bits, a_signed, b_signed):
    def factor(name, bits, signed, first):
        sign = f"r[{first + bits - 1}]" if signed else "1'b0"
        return f"    wire signed [{bits}:0] {name} = {{{sign}, r[{first} +: {bits}]}};\n"

    return _unit(factor("a", a_bits, a_signed, 0) + factor("b", b_bits, b_signed, 48)
                 + f"    wire signed [{a_bits + b_bits + 1}:0] p = a * b;\n    assign q = p;\n")


LOGIC = _unit("""    reg [23:0] count = 24'h00c0de;
    reg [15:0] total = 0, kept = 16'h1234;
    reg [30:0] sum;
    reg greater = 1;
    initial sum = 31'h2aaaaaaa;
    always @(posedge clk) begin
        count <= r[0] ? r[31:8] : count + r[1];
        if (r[2]) total <= total - r[47:32];
        greater <= r[63:48] > r[79:64];
    end
    always @(posedge clk, posedge r[3]) if (r[3]) kept <= 16'h1234; else if (r[4]) kept <= kept ^ r[95:80];
    always @(negedge clk) sum <= r[5] ? sum + r[40:10] + r[6] : {sum[29:0], ^r[95:64]};
    assign q = {sum, greater, count + total, kept};
""")


def _spram():
    """A memory too large for initial contents: only words that have been written are looked at."""
    return _unit("""    (* ram_style = "huge" *) reg [15:0] m [0:16383];
    reg [15:0] known = 0, o;
    reg valid = 0;
    wire [13:0] a = {r[95], 9'h155, r[94:92], r[95]};
    wire [3:0] n = {r[95], r[94:92]};
    wire [15:0] d = r[31:16];
    always @(posedge clk) begin
        if (r[7]) begin
            if (r[5:4] == 0) begin
                valid <= 0;
                known[n] <= 1;
                if (r[0] | ~known[n]) m[a][3:0] <= d[3:0];
                if (r[1] | ~known[n]) m[a][7:4] <= d[7:4];
                if (r[2] | ~known[n]) m[a][11:8] <= d[11:8];
                if (r[3] | ~known[n]) m[a][15:12] <= d[15:12];
            end else begin
                valid <= known[n];
                o <= m[a];
            end
        end
    end
    assign q = valid ? o : 16'b0;
""")


ECP5 = {
    "logic": Shape(LOGIC, ("CCU2C", "LUT4", "TRELLIS_FF", 'CLKMUX("INV")', 'SRMODE("ASYNC")', 'REGSET("SET")',
                           ".COUT()")),
    "lut_ram": Shape(_write_read(7, 5, style="distributed", reset="none"), ("TRELLIS_DPR16X4",)),
    **{f"single_{collision}_{width}": Shape(_single(width, bits, collision),
                                             ("DP16KD", f'WRITEMODE_A("{mode}")'), True)
       for width, bits in ((1, 11), (2, 11), (4, 11), (9, 11), (18, 10))
       for collision, mode in (("old", "READBEFOREWRITE"), ("new", "WRITETHROUGH"), ("unchanged", "NORMAL"))
       if width in (4, 18) or collision == "old"},
    "single_masked": Shape(_single(18, 10, "new", grain=9), ("DP16KD", 'WRITEMODE_A("WRITETHROUGH")'), True),
    "single_falling": Shape(_single(18, 10, "old", edge="negedge"), ("DP16KD", '("INV")'), True),
    "wide": Shape(_write_read(36, 9), ("DP16KD", "DATA_WIDTH_A(32'd36)", "DATA_WIDTH_B(32'd36)")),
    "wide_masked": Shape(_write_read(36, 9, grain=9), ("DP16KD", "DATA_WIDTH_A(32'd36)")),
    "wide_two": Shape(_write_read(72, 9, grain=18), ("DP16KD", "DATA_WIDTH_A(32'd36)")),
    "reset_sync": Shape(_write_read(18, 10, reset="sync"), ("DP16KD", 'RESETMODE("SYNC")')),
    "reset_async": Shape(_write_read(18, 10, reset="async"), ("DP16KD", 'RESETMODE("ASYNC")')),
    "two_writers_18": Shape(_two_writers(18, 10), ("DP16KD", "DATA_WIDTH_B(32'd18)"), True),
    "two_writers_4": Shape(_two_writers(4, 11), ("DP16KD", "DATA_WIDTH_B(32'd4)"), True),
    "two_widths": Shape(_two_writers(9, 10, factor=2), ("DP16KD", "DATA_WIDTH"), True),
    "four_words": Shape(_two_writers(4, 10, factor=4), ("DP16KD", "DATA_WIDTH"), True),
    **{f"product_{a}x{b}_{'us'[s]}{'us'[t]}": Shape(_product(a, b, s, t), ("MULT18X18D",))
       for a, b, s, t in ((18, 18, 0, 0), (18, 18, 1, 1), (16, 11, 0, 0), (17, 13, 1, 0), (24, 24, 0, 0),
                          (36, 20, 1, 1))},
}
ICE40 = {
    "logic": Shape(LOGIC, ("SB_CARRY", "SB_LUT4", "SB_DFFER", "SB_DFFN")),
    **{f"ram_{width}": Shape(_write_read(width, bits),
                             ("SB_RAM40_4K", f"READ_MODE(2'h{mode})", f"WRITE_MODE(2'h{mode})"))
       for mode, (width, bits) in enumerate(((16, 8), (8, 9), (4, 10), (2, 11)))},
    "ram_masked": Shape(_write_read(16, 8, grain=4), ("SB_RAM40_4K",)),
    "ram_bits": Shape(_write_read(6, 8, grain=1), ("SB_RAM40_4K",)),
    "ram_reads_wide": Shape(_write_read(4, 10, factor=4), ("SB_RAM40_4K", "READ_MODE(2'h0)", "WRITE_MODE(2'h2)")),
    "spram": Shape(_spram(), ("SB_SPRAM256KA",)),
    **{f"product_{a}x{b}_{'us'[s]}{'us'[t]}": Shape(_product(a, b, s, t), ("SB_MAC16",))
       for a, b, s, t in ((16, 16, 0, 0), (16, 16, 1, 1), (15, 11, 1, 1), (24, 24, 0, 0))},
}
SHAPES = {"ecp5": ECP5, "ice40": ICE40}
