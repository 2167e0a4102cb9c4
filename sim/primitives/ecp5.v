// Behaviour of the ECP5 primitives that yosys knows as boxes only, for the simulation of netlists
// (sim/board/netlist.py).
// A configuration that is not modelled ends the build; a primitive without a model here or in yosys does as well.

// The place of a port's word of WIDTH bits (1, 2, 4, 9, 18 or 36) among the 512 words of 36 bits of a block RAM. An
// address counts bits, eight to a byte of nine; narrow words leave the ninth bit out. For words of 18 and 36 bits
// the lowest address bits enable bytes in place of it.
module ecp5_ram_place #(parameter WIDTH = 18) (
    input [13:0] address, input [35:0] data, input [35:0] word,
    output [35:0] mask, output [35:0] spread, output [35:0] picked
);
    wire [1:0] byte_of_word = address[4:3];
    generate
        if (WIDTH == 36) begin
            assign mask = {{9{address[3]}}, {9{address[2]}}, {9{address[1]}}, {9{address[0]}}};
            assign spread = data;
            assign picked = word;
        end else if (WIDTH == 18) begin
            wire [17:0] bytes = {{9{address[1]}}, {9{address[0]}}};
            assign mask = address[4] ? {bytes, 18'b0} : {18'b0, bytes};
            assign spread = {2{data[17:0]}};
            assign picked = address[4] ? word[35:18] : word[17:0];
        end else if (WIDTH == 9) begin
            assign mask = 36'h1ff << 9 * byte_of_word;
            assign spread = {4{data[8:0]}};
            assign picked = word[9 * byte_of_word +: 9];
        end else if (WIDTH == 4 || WIDTH == 2 || WIDTH == 1) begin
            wire [2:0] first = WIDTH == 4 ? {address[2], 2'b0} : WIDTH == 2 ? {address[2:1], 1'b0} : address[2:0];
            wire [35:0] ones = (1 << WIDTH) - 1;
            assign mask = ones << 9 * byte_of_word + first;
            assign spread = {4{1'b0, {8 / WIDTH{data[WIDTH - 1:0]}}}};
            assign picked = word[9 * byte_of_word + first +: WIDTH];
        end else
            $fatal(1, "DP16KD: a port of this DATA_WIDTH is not modelled: use 1, 2, 4, 9, 18 or 36");
    endgenerate
endmodule

// Block RAM of two ports. Port A of 36 bits only writes, with both data inputs; port B then only reads, 36 bits to
// both data outputs and fewer to DOB. What a port reads while the other one writes to the same place is the old word
// here and undefined in hardware.
module DP16KD(
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2,
        DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CLKA, CEA, OCEA, WEA, RSTA, CSA2, CSA1, CSA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
        DOA1, DOA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2,
        DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CLKB, CEB, OCEB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
        DOB1, DOB0
);
    parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18;
    parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG";
    parameter RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC";
    parameter CSDECODE_A = "0b000", CSDECODE_B = "0b000";
    parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL";
    parameter CLKAMUX = "CLKA", CLKBMUX = "CLKB";
    parameter GSR = "ENABLED", INIT_DATA = "STATIC", WID = 0; // without effect on the state behind configuration
    parameter [319:0]
        INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0, INITVAL_04 = 0, INITVAL_05 = 0,
        INITVAL_06 = 0, INITVAL_07 = 0, INITVAL_08 = 0, INITVAL_09 = 0, INITVAL_0A = 0, INITVAL_0B = 0,
        INITVAL_0C = 0, INITVAL_0D = 0, INITVAL_0E = 0, INITVAL_0F = 0, INITVAL_10 = 0, INITVAL_11 = 0,
        INITVAL_12 = 0, INITVAL_13 = 0, INITVAL_14 = 0, INITVAL_15 = 0, INITVAL_16 = 0, INITVAL_17 = 0,
        INITVAL_18 = 0, INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0, INITVAL_1C = 0, INITVAL_1D = 0,
        INITVAL_1E = 0, INITVAL_1F = 0, INITVAL_20 = 0, INITVAL_21 = 0, INITVAL_22 = 0, INITVAL_23 = 0,
        INITVAL_24 = 0, INITVAL_25 = 0, INITVAL_26 = 0, INITVAL_27 = 0, INITVAL_28 = 0, INITVAL_29 = 0,
        INITVAL_2A = 0, INITVAL_2B = 0, INITVAL_2C = 0, INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0,
        INITVAL_30 = 0, INITVAL_31 = 0, INITVAL_32 = 0, INITVAL_33 = 0, INITVAL_34 = 0, INITVAL_35 = 0,
        INITVAL_36 = 0, INITVAL_37 = 0, INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0, INITVAL_3B = 0,
        INITVAL_3C = 0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0;
    localparam [20479:0] INITIAL = { // words of 18 bits, each in 20
        INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38,
        INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
        INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
        INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20,
        INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18,
        INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
        INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
        INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};
    localparam PSEUDO = DATA_WIDTH_A == 36;
    // Bits that a port writes all or none of, and how many such units a byte of nine bits has.
    localparam UNIT_A = DATA_WIDTH_A < 9 ? DATA_WIDTH_A : 9, UNITS_A = 9 / UNIT_A - (UNIT_A == 1);
    localparam UNIT_B = DATA_WIDTH_B < 9 ? DATA_WIDTH_B : 9, UNITS_B = 9 / UNIT_B - (UNIT_B == 1);

    generate
        if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG")
            $fatal(1, "DP16KD: REGMODE is not modelled: use NOREG");
        if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000")
            $fatal(1, "DP16KD: CSDECODE is not modelled: use 0b000");
        if (DATA_WIDTH_B == 36 && !PSEUDO)
            $fatal(1, "DP16KD: port B of 36 bits is modelled beside a port A of 36 bits only");
        if (RESETMODE != "SYNC" && RESETMODE != "ASYNC")
            $fatal(1, "DP16KD: RESETMODE: use SYNC or ASYNC");
        if (CLKAMUX != "CLKA" && CLKAMUX != "INV" || CLKBMUX != "CLKB" && CLKBMUX != "INV")
            $fatal(1, "DP16KD: CLKAMUX, CLKBMUX: use CLKA, CLKB or INV");
        if (WRITEMODE_A != "NORMAL" && WRITEMODE_A != "WRITETHROUGH" && WRITEMODE_A != "READBEFOREWRITE"
            || WRITEMODE_B != "NORMAL" && WRITEMODE_B != "WRITETHROUGH" && WRITEMODE_B != "READBEFOREWRITE")
            $fatal(1, "DP16KD: WRITEMODE: use NORMAL, WRITETHROUGH or READBEFOREWRITE");
    endgenerate

    wire [13:0] address_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] address_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire [17:0] low = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4,
        DIA3, DIA2, DIA1, DIA0};
    wire [17:0] high = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
        DIB3, DIB2, DIB1, DIB0};
    wire clock_a = CLKAMUX == "INV" ? ~CLKA : CLKA;
    wire clock_b = CLKBMUX == "INV" ? ~CLKB : CLKB;
    wire enable_a = CEA & ~(CSA2 | CSA1 | CSA0);
    wire enable_b = CEB & ~(CSB2 | CSB1 | CSB0);
    // A synchronous reset keeps its port from writing.
    wire write_a = enable_a & WEA & ~(RESETMODE == "SYNC" & RSTA);
    wire write_b = enable_b & WEB & ~(RESETMODE == "SYNC" & RSTB) & !PSEUDO;

    reg [35:0] words [0:511];
    integer k;
    initial for (k = 0; k < 512; k = k + 1) words[k] = {INITIAL[40 * k + 20 +: 18], INITIAL[40 * k +: 18]};

    wire [35:0] mask_a, spread_a, picked_a, mask_b, spread_b, picked_b;
    wire [35:0] old_a = words[address_a[13:5]], old_b = words[address_b[13:5]];
    wire [35:0] new_a = WRITEMODE_A == "WRITETHROUGH" && write_a ? spread_a & mask_a | old_a & ~mask_a : old_a;
    wire [35:0] new_b = WRITEMODE_B == "WRITETHROUGH" && write_b ? spread_b & mask_b | old_b & ~mask_b : old_b;
    ecp5_ram_place #(.WIDTH(DATA_WIDTH_A)) place_a(.address(address_a), .data({high, low}), .word(new_a),
        .mask(mask_a),
        .spread(spread_a), .picked(picked_a));
    ecp5_ram_place #(.WIDTH(DATA_WIDTH_B)) place_b(.address(address_b), .data({18'b0, high}), .word(new_b),
        .mask(mask_b), .spread(spread_b), .picked(picked_b));

    genvar g;
    generate
        for (g = 0; g < 4 * UNITS_A; g = g + 1) begin
            localparam FIRST = g / UNITS_A * 9 + g % UNITS_A * UNIT_A;
            always @(posedge clock_a)
                if (write_a & mask_a[FIRST]) words[address_a[13:5]][FIRST +: UNIT_A] <= spread_a[FIRST +: UNIT_A];
        end
        for (g = 0; g < 4 * UNITS_B; g = g + 1) begin
            localparam FIRST = g / UNITS_B * 9 + g % UNITS_B * UNIT_B;
            always @(posedge clock_b)
                if (write_b & mask_b[FIRST]) words[address_b[13:5]][FIRST +: UNIT_B] <= spread_b[FIRST +: UNIT_B];
        end
    endgenerate

    wire load_a = enable_a & ~(WRITEMODE_A == "NORMAL" & write_a);
    wire load_b = enable_b & ~(WRITEMODE_B == "NORMAL" & write_b);
    reg [17:0] read_a = 0;
    reg [35:0] read_b = 0;
    generate
        if (RESETMODE == "SYNC") begin
            always @(posedge clock_a)
                if (RSTA) read_a <= 0;
                else if (load_a) read_a <= picked_a[17:0];
            always @(posedge clock_b)
                if (RSTB) read_b <= 0;
                else if (load_b) read_b <= picked_b;
        end else begin
            always @(posedge clock_a, posedge RSTA)
                if (RSTA) read_a <= 0;
                else if (load_a) read_a <= picked_a[17:0];
            always @(posedge clock_b, posedge RSTB)
                if (RSTB) read_b <= 0;
                else if (load_b) read_b <= picked_b;
        end
    endgenerate
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
        DOA1, DOA0} = DATA_WIDTH_B == 36 ? read_b[17:0] : PSEUDO ? 18'bx : read_a;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
        DOB1, DOB0} = DATA_WIDTH_B == 36 ? read_b[35:18] : read_b[17:0];
endmodule

// Multiplier of 18 by 18 bits without registers, as synthesis uses it.
module MULT18X18D(
    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0, RST3, RST2, RST1, RST0,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15,
        P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0,
    output SIGNEDP
);
    parameter REG_INPUTA_CLK = "NONE", REG_INPUTB_CLK = "NONE", REG_INPUTC_CLK = "NONE";
    parameter REG_PIPELINE_CLK = "NONE", REG_OUTPUT_CLK = "NONE";
    parameter GSR = "ENABLED", MULT_BYPASS = "DISABLED", SOURCEB_MODE = "B_SHIFT";

    generate
        if (REG_INPUTA_CLK != "NONE" || REG_INPUTB_CLK != "NONE" || REG_INPUTC_CLK != "NONE"
            || REG_PIPELINE_CLK != "NONE" || REG_OUTPUT_CLK != "NONE")
            $fatal(1, "MULT18X18D: registers are not modelled: use NONE");
        if (MULT_BYPASS != "DISABLED" || SOURCEB_MODE != "B_SHIFT")
            $fatal(1, "MULT18X18D: bypass and sources other than A and B are not modelled");
    endgenerate

    wire [17:0] a = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
    wire [35:0] product = {{18{SIGNEDA & a[17]}}, a} * {{18{SIGNEDB & b[17]}}, b};
    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15,
        P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = SOURCEA | SOURCEB ? 36'bx : product;
    assign SIGNEDP = SIGNEDA | SIGNEDB;
endmodule
