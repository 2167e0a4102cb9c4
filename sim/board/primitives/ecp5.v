// Behaviour of the ECP5 primitives that yosys knows as boxes only, for the simulation of netlists
// (sim/board/netlist.py).
// A configuration that is not modelled ends the build; a primitive without a model here or in yosys does as well.

// Block RAM: 512 rows of 36 bits, of which a port sees words of DATA_WIDTH bits. An address counts bits, eight to a
// byte of nine; words of 1, 2 and 4 bits leave the ninth bit out, and for those of 18 and 36 bits the lowest address
// bits enable bytes instead. Port A of 36 bits only writes, with both data inputs; port B then only reads, 36 bits to
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
    // Bits that a port writes all or none of, and how many such units a byte has.
    localparam UNIT_A = DATA_WIDTH_A < 9 ? DATA_WIDTH_A : 9, UNITS_A = UNIT_A == 9 ? 1 : 8 / UNIT_A;
    localparam UNIT_B = DATA_WIDTH_B < 9 ? DATA_WIDTH_B : 9, UNITS_B = UNIT_B == 9 ? 1 : 8 / UNIT_B;

    generate
        if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG")
            $fatal(1, "DP16KD: REGMODE is not modelled: use NOREG");
        if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000")
            $fatal(1, "DP16KD: CSDECODE is not modelled: use 0b000");
        if (DATA_WIDTH_A != 1 && DATA_WIDTH_A != 2 && DATA_WIDTH_A != 4 && DATA_WIDTH_A != 9 && DATA_WIDTH_A != 18
            && DATA_WIDTH_A != 36 || DATA_WIDTH_B != 1 && DATA_WIDTH_B != 2 && DATA_WIDTH_B != 4 && DATA_WIDTH_B != 9
            && DATA_WIDTH_B != 18 && DATA_WIDTH_B != 36)
            $fatal(1, "DP16KD: DATA_WIDTH: use 1, 2, 4, 9, 18 or 36");
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

    // First bit of the word at an address, in a row of 36.
    function [5:0] first(input integer width, input [4:0] address);
        first = width == 36 ? 0 : width == 18 ? 18 * address[4] : 9 * address[4:3]
            + (width == 9 ? 0 : {3'b0, address[2:0]} & ~(width - 1));
    endfunction
    // Which bits of a row a write at an address changes, and the data in all places where it can go.
    function [35:0] places(input integer width, input [4:0] address);
        places = width == 36 ? {{9{address[3]}}, {9{address[2]}}, {9{address[1]}}, {9{address[0]}}}
            : (width == 18 ? {{9{address[1]}}, {9{address[0]}}} : (36'b1 << width) - 1) << first(width, address);
    endfunction
    function [35:0] spread(input integer width, input [35:0] data);
        spread = width == 36 ? data : width == 18 ? {2{data[17:0]}} : width == 9 ? {4{data[8:0]}}
            : {4{1'b0, width == 4 ? {2{data[3:0]}} : width == 2 ? {4{data[1:0]}} : {8{data[0]}}}};
    endfunction
    function [35:0] picked(input integer width, input [4:0] address, input [35:0] row);
        picked = row >> first(width, address) & (36'b1 << width) - 1;
    endfunction

    wire [13:0] address_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] address_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire [35:0] data_a = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
        DIB3, DIB2, DIB1, DIB0, DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0};
    wire clock_a = CLKAMUX == "INV" ? ~CLKA : CLKA;
    wire clock_b = CLKBMUX == "INV" ? ~CLKB : CLKB;
    wire enable_a = CEA & ~(CSA2 | CSA1 | CSA0);
    wire enable_b = CEB & ~(CSB2 | CSB1 | CSB0);
    // A synchronous reset keeps its port from writing.
    wire write_a = enable_a & WEA & ~(RESETMODE == "SYNC" & RSTA);
    wire write_b = enable_b & WEB & ~(RESETMODE == "SYNC" & RSTB) & !PSEUDO;
    wire [35:0] places_a = places(DATA_WIDTH_A, address_a[4:0]), spread_a = spread(DATA_WIDTH_A, data_a);
    wire [35:0] places_b = places(DATA_WIDTH_B, address_b[4:0]), spread_b = spread(DATA_WIDTH_B, data_a[35:18]);

    reg [35:0] rows [0:511];
    integer k;
    initial for (k = 0; k < 512; k = k + 1) rows[k] = {INITIAL[40 * k + 20 +: 18], INITIAL[40 * k +: 18]};

    integer a, b;
    always @(posedge clock_a)
        if (write_a)
            for (a = 0; a < 4 * UNITS_A; a = a + 1)
                if (places_a[a / UNITS_A * 9 + a % UNITS_A * UNIT_A])
                    rows[address_a[13:5]][a / UNITS_A * 9 + a % UNITS_A * UNIT_A +: UNIT_A]
                        <= spread_a[a / UNITS_A * 9 + a % UNITS_A * UNIT_A +: UNIT_A];
    wire load_a = enable_a & !PSEUDO & ~(WRITEMODE_A == "NORMAL" & write_a);
    wire clear_a = RESETMODE == "ASYNC" & RSTA;
    reg [35:0] row_a, read_a = 0;
    always @(posedge clock_a, posedge clear_a)
        if (RSTA)
            read_a <= 0;
        else if (load_a) begin
            row_a = rows[address_a[13:5]];
            if (WRITEMODE_A == "WRITETHROUGH" && write_a) row_a = row_a & ~places_a | spread_a & places_a;
            read_a <= picked(DATA_WIDTH_A, address_a[4:0], row_a);
        end

    always @(posedge clock_b)
        if (write_b)
            for (b = 0; b < 4 * UNITS_B; b = b + 1)
                if (places_b[b / UNITS_B * 9 + b % UNITS_B * UNIT_B])
                    rows[address_b[13:5]][b / UNITS_B * 9 + b % UNITS_B * UNIT_B +: UNIT_B]
                        <= spread_b[b / UNITS_B * 9 + b % UNITS_B * UNIT_B +: UNIT_B];
    wire load_b = enable_b & ~(WRITEMODE_B == "NORMAL" & write_b);
    wire clear_b = RESETMODE == "ASYNC" & RSTB;
    reg [35:0] row_b, read_b = 0;
    always @(posedge clock_b, posedge clear_b)
        if (RSTB)
            read_b <= 0;
        else if (load_b) begin
            row_b = rows[address_b[13:5]];
            if (WRITEMODE_B == "WRITETHROUGH" && write_b) row_b = row_b & ~places_b | spread_b & places_b;
            read_b <= picked(DATA_WIDTH_B, address_b[4:0], row_b);
        end

    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
        DOA1, DOA0} = DATA_WIDTH_B == 36 ? read_b[17:0] : PSEUDO ? 18'bx : read_a[17:0];
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
