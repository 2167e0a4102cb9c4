// Behaviour of the iCE40 memories, for the simulation of netlists (sim/board/netlist.py): yosys' models of them cannot
// be synthesised, or only with a port per bit. A configuration that is not modelled ends the build.

// Block RAM of 256 words of 16 bits with a port to read and one to write. In modes 1, 2 and 3 a port has fewer bits
// and more words: bit k lies in the k-th group of 2, 4 or 8 bits of the 16, with the upper address bits as its place
// there, and is on pin 0, 1 or 3 of that group.
module SB_RAM40_4K(
    output [15:0] RDATA,
    input RCLK, RCLKE, RE, input [10:0] RADDR,
    input WCLK, WCLKE, WE, input [10:0] WADDR, input [15:0] MASK, WDATA // a mask bit of 1 keeps a bit of mode 0
);
    parameter READ_MODE = 0, WRITE_MODE = 0, INIT_FILE = "";
    parameter [255:0]
        INIT_0 = 0, INIT_1 = 0, INIT_2 = 0, INIT_3 = 0, INIT_4 = 0, INIT_5 = 0, INIT_6 = 0, INIT_7 = 0, INIT_8 = 0,
        INIT_9 = 0, INIT_A = 0, INIT_B = 0, INIT_C = 0, INIT_D = 0, INIT_E = 0, INIT_F = 0;
    localparam [4095:0] INITIAL = {
        INIT_F, INIT_E, INIT_D, INIT_C, INIT_B, INIT_A, INIT_9, INIT_8, INIT_7, INIT_6, INIT_5, INIT_4, INIT_3,
        INIT_2, INIT_1, INIT_0};
    // Bits of a group, and its pin.
    localparam R_GROUP = 1 << READ_MODE, R_PIN = R_GROUP == 8 ? 3 : R_GROUP == 4 ? 1 : 0;
    localparam W_GROUP = 1 << WRITE_MODE, W_PIN = W_GROUP == 8 ? 3 : W_GROUP == 4 ? 1 : 0;
    generate
        if (READ_MODE > 3 || WRITE_MODE > 3)
            $fatal(1, "SB_RAM40_4K: READ_MODE, WRITE_MODE: use 0 to 3");
        if (INIT_FILE != "")
            $fatal(1, "SB_RAM40_4K: INIT_FILE is not modelled: use INIT_0 to INIT_F");
    endgenerate

    reg [15:0] words [0:255];
    integer k;
    initial for (k = 0; k < 256; k = k + 1) words[k] = INITIAL[16 * k +: 16];

    wire [15:0] keep, spread, picked;
    wire [15:0] word = words[RADDR[7:0]], written = words[WADDR[7:0]];
    wire [2:0] read_offset = RADDR[10:8] & (R_GROUP - 1), write_offset = WADDR[10:8] & (W_GROUP - 1);
    genvar g;
    generate
        for (g = 0; g < 16; g = g + 1) begin
            localparam R_FIRST = g / R_GROUP * R_GROUP, W_FIRST = g / W_GROUP * W_GROUP;
            assign keep[g] = WRITE_MODE == 0 ? MASK[g] : write_offset != g - W_FIRST;
            assign spread[g] = WDATA[W_FIRST + W_PIN];
            assign picked[g] = g == R_FIRST + R_PIN ? word[R_FIRST + read_offset] : 1'b0;
        end
    endgenerate
    always @(posedge WCLK)
        if (WE & WCLKE) words[WADDR[7:0]] <= written & keep | spread & ~keep;

    reg [15:0] read;
    always @(posedge RCLK)
        if (RE & RCLKE) read <= picked;
    assign RDATA = read;
endmodule

// Single-port RAM of 16384 words of 16 bits. The output is undefined behind a write, and while the block is off.
module SB_SPRAM256KA(
    input [13:0] ADDRESS, input [15:0] DATAIN, input [3:0] MASKWREN, input WREN, CHIPSELECT, CLOCK,
    input STANDBY, SLEEP, POWEROFF, // POWEROFF is low active
    output reg [15:0] DATAOUT
);
    reg [15:0] words [0:16383];
    wire off = STANDBY | SLEEP | ~POWEROFF;
    integer k;
    always @(posedge CLOCK)
        if (off)
            DATAOUT <= 16'bx;
        else if (CHIPSELECT) begin
            DATAOUT <= WREN ? 16'bx : words[ADDRESS];
            if (WREN)
                for (k = 0; k < 4; k = k + 1)
                    if (MASKWREN[k]) words[ADDRESS][4 * k +: 4] <= DATAIN[4 * k +: 4];
        end
endmodule
